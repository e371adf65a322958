//! The peer an administrator would reach for: `mbsync` (isync), IMAP to IMAP.
//!
//! In: two servers and mailbox names. Out: passes, each its own process, as from a timer.
//! Keeps true: the configuration is the friendly one: pull only, pipelined, dates kept, no limits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use understudy_tests::dovecot::{Dovecot, PASSWORD};

/// A configured mbsync; its state lives beside its configuration.
#[derive(Debug)]
pub(crate) struct Mbsync {
    configuration: PathBuf,
}

impl Mbsync {
    pub(crate) fn configure(folder: &Path, primary: &Dovecot, standby: &Dovecot, names: &[String]) -> Result<Self> {
        Self::configure_over(folder, primary.imap_address(), standby, names)
    }

    /// The same with the primary at another address: behind a line that counts.
    pub(crate) fn configure_over(
        folder: &Path,
        primary: SocketAddr,
        standby: &Dovecot,
        names: &[String],
    ) -> Result<Self> {
        let state = folder.join("mbsync-state");
        std::fs::create_dir_all(&state)?;
        let mut text = String::new();
        for name in names {
            text.push_str(&store("far", name, primary));
            text.push_str(&store("near", name, standby.imap_address()));
            text.push_str(&format!(
                "Channel {name}\nFar :{name}-far:\nNear :{name}-near:\nPatterns *\nSync Pull New ReNew Delete Flags\nCreate Near\nRemove Near\nExpunge Near\nCopyArrivalDate yes\nSyncState {}/\n\n",
                state.join(name).display()
            ));
            std::fs::create_dir_all(state.join(name))?;
        }
        let configuration = folder.join("mbsyncrc");
        std::fs::write(&configuration, text)?;
        Ok(Self { configuration })
    }

    /// The command line of one pass, for the report.
    pub(crate) fn command_line() -> &'static str {
        "mbsync --config FILE --all --quiet --quiet"
    }

    /// One pass over all mailboxes, one after the other, as mbsync does it.
    pub(crate) fn pass(&self) -> Result<()> {
        let output = Command::new("mbsync")
            .arg("--config")
            .arg(&self.configuration)
            .args(["--all", "--quiet", "--quiet"])
            .stdin(Stdio::null())
            .output()
            .context("could not run mbsync: apt-get install isync")?;
        if !output.status.success() {
            bail!("mbsync failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

pub(crate) fn version() -> String {
    let output = Command::new("mbsync").arg("--version").output();
    output.map_or_else(|_| "not installed".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn store(end: &str, name: &str, server: SocketAddr) -> String {
    // Not limiting PipelineDepth leaves it unlimited; depth 1 made no difference on loopback.
    format!(
        "IMAPAccount {name}-{end}\nHost {}\nPort {}\nUser {name}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\nTimeout 120\n\nIMAPStore {name}-{end}\nAccount {name}-{end}\n\n",
        server.ip(),
        server.port()
    )
}
