//! The Dovecot proxy, and the little one beside it that goes by the last routes alone.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::Result;

use super::{Plan, daemon::Daemon};
use crate::dovecot::settings_of_account;

/// A running Dovecot proxy for IMAP and LMTP.
pub struct DovecotProxy {
    daemon: Daemon,
    dir: PathBuf,
    imap: SocketAddr,
    lmtp: SocketAddr,
    quiet: bool,
}

impl DovecotProxy {
    /// Starts it; Understudy, whose database it asks, need not run.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::start_with(plan, "")
    }

    /// Mail servers see it come from this address.
    pub fn start_from(plan: &Plan, address: Ipv4Addr) -> Result<Self> {
        Self::start_with(plan, &format!("login_source_ips = {address}\n"))
    }

    fn start_with(plan: &Plan, extra: &str) -> Result<Self> {
        let dir = plan.file("dovecot");
        fs::create_dir_all(&dir)?;
        // What the documentation leaves to the reader.
        let base = format!(
            "base_dir = {dir}/run\nstate_dir = {dir}/state\nlog_path = {dir}/dovecot.log\nauth_verbose = yes\n\
             listen = {address}\nssl = no\ndisable_plaintext_auth = no\nauth_failure_delay = 0\n\
             mail_max_userip_connections = 0\n\
             service imap-login {{\n  inet_listener imap {{\n    port = {imap}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
             service lmtp {{\n  inet_listener lmtp {{\n    port = {lmtp}\n  }}\n}}\n",
            dir = dir.display(),
            address = plan.address,
            imap = plan.proxy.imap,
            lmtp = plan.proxy.lmtp,
        );
        let config = dir.join("dovecot.conf");
        let text = base + &plan.filled("dovecot.conf", &[])? + &settings_of_account() + extra;
        fs::write(&config, text)?;
        fs::write(dir.join("understudy-sql.conf"), plan.filled("understudy-sql.conf", &[])?)?;
        let (imap, lmtp) =
            (SocketAddr::from((plan.address, plan.proxy.imap)), SocketAddr::from((plan.address, plan.proxy.lmtp)));
        let arguments = ["-F", "-c", &config.display().to_string()];
        let daemon = Daemon::start("dovecot", &dir, &arguments, || TcpStream::connect(imap).is_ok())?;
        Ok(Self { daemon, dir, imap, lmtp, quiet: false })
    }

    /// Its log is not shown at the end.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub fn imap_address(&self) -> SocketAddr {
        self.imap
    }

    /// Where it takes mail.
    pub fn lmtp_address(&self) -> SocketAddr {
        self.lmtp
    }

    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("dovecot.log")).unwrap_or_default();
        log + &self.daemon.log_tail()
    }
}

impl Drop for DovecotProxy {
    fn drop(&mut self) {
        if self.quiet {
            return;
        }
        // Shown only when a test fails.
        let log = self.log();
        let skip = log.lines().count().saturating_sub(60);
        eprintln!("Dovecot proxy, end of its log:");
        log.lines().skip(skip).for_each(|line| eprintln!("  {line}"));
    }
}

/// A running Dovecot that takes mail by the last routes and asks no database.
pub struct LastRoutes {
    _daemon: Daemon,
    lmtp: SocketAddr,
}

impl LastRoutes {
    pub fn start(plan: &Plan) -> Result<Self> {
        let dir = plan.file("last-routes");
        fs::create_dir_all(&dir)?;
        let base = format!("log_path = {}/dovecot.log\n", dir.display());
        let config = dir.join("dovecot-last-routes.conf");
        fs::write(&config, base + &plan.filled("dovecot-last-routes.conf", &[])? + &settings_of_account())?;
        let lmtp = SocketAddr::from((plan.address, plan.proxy.last_lmtp));
        let arguments = ["-F", "-c", &config.display().to_string()];
        let daemon = Daemon::start("dovecot", &dir, &arguments, || TcpStream::connect(lmtp).is_ok())?;
        Ok(Self { _daemon: daemon, lmtp })
    }

    /// Where it takes mail.
    pub fn lmtp_address(&self) -> SocketAddr {
        self.lmtp
    }
}
