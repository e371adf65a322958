//! The product, used from outside: `understudy up`, its configuration file and its commands.
//!
//! In: two servers. Out: protected mailboxes and the moment everything is visible on the standby.
//! Keeps true: nothing here reaches past `interfaces.md`; what an administrator cannot do is not measured.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use understudy_tests::dovecot::{Dovecot, MASTER, free_port};

use crate::child::Server;

const START_DEADLINE: Duration = Duration::from_secs(120);
/// A seed of 1.4 GB on a slow disk still fits.
const WAIT_TIMEOUT: &str = "3600s";
/// Keeps the command line short enough for any system.
const PROTECT_AT_ONCE: usize = 250;

/// The program and where one installation of it lives.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    program: PathBuf,
    configuration: PathBuf,
    link_port: u16,
    ready_file: PathBuf,
    log: PathBuf,
}

/// A running `understudy up`.
#[derive(Debug)]
pub(crate) struct Understudy {
    installation: Installation,
    server: Server,
}

impl Installation {
    pub(crate) fn create(program: &Path, folder: &Path, primary: &Dovecot, standby: &Dovecot) -> Result<Self> {
        let server = |name: &str, server: &Dovecot| {
            format!(
                "\n[[server]]\nname = \"{name}\"\nrole = \"{name}\"\nimap = \"{}\"\nlogin = {{ as = \"master\", user = \"{MASTER}\", password_file = \"{}\", form = \"{{user}}*{{master}}\" }}\n",
                server.imap_url(),
                server.master_password_file().display()
            )
        };
        let link_port = free_port(Ipv4Addr::LOCALHOST)?;
        let text = format!(
            "data_dir = \"{}\"\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\n[recovery]\nlisten = \"127.0.0.1:{link_port}\"\n{}{}",
            folder.join("data").display(),
            free_port(Ipv4Addr::LOCALHOST)?,
            server("primary", primary),
            server("standby", standby),
        );
        let configuration = folder.join("understudy.toml");
        std::fs::write(&configuration, text)?;
        Ok(Self {
            program: program.to_owned(),
            configuration,
            link_port,
            ready_file: folder.join("ready"),
            log: folder.join("understudy.log"),
        })
    }

    /// Starts `understudy up` and returns when it says that everything answers.
    pub(crate) fn start(&self) -> Result<Understudy> {
        drop(std::fs::remove_file(&self.ready_file));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let server = Server::start(
            Command::new(&self.program)
                .arg("up")
                .arg("--config")
                .arg(&self.configuration)
                .arg("--ready-file")
                .arg(&self.ready_file)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut understudy = Understudy { installation: self.clone(), server };
        understudy.wait_until_ready()?;
        Ok(understudy)
    }
}

impl Understudy {
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Where its two gateways meet.
    pub(crate) fn link_port(&self) -> u16 {
        self.installation.link_port
    }

    pub(crate) fn protect(&self, names: &[String]) -> Result<()> {
        for names in names.chunks(PROTECT_AT_ONCE) {
            let mut arguments = vec!["mailbox", "protect"];
            arguments.extend(names.iter().map(String::as_str));
            arguments.extend(["--primary", "primary", "--standby", "standby"]);
            self.command(&arguments)?;
        }
        Ok(())
    }

    /// Returns when everything done so far on the primary is visible on the standby.
    pub(crate) fn wait_all(&self) -> Result<()> {
        self.command(&["mailbox", "wait", "--all", "--timeout", WAIT_TIMEOUT]).map(drop)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.installation.program)
            .args(arguments)
            .arg("--config")
            .arg(&self.installation.configuration)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "understudy {} failed: {}{}\nthe end of its log:\n{}",
                arguments[..2.min(arguments.len())].join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                self.log_tail()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn stop(mut self) {
        self.server.stop();
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.installation.ready_file.exists() {
            if self.server.has_ended() || Instant::now() > deadline {
                bail!(
                    "understudy did not become ready within {START_DEADLINE:?}; the end of its log:\n{}",
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.installation.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// The program to measure: the one given, or a release build made now.
pub(crate) fn find_program(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(program) = given {
        return Ok(program);
    }
    let beside = std::env::current_exe()?.with_file_name("understudy");
    eprintln!("building the release program");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "--package", "understudy-cli"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("could not run cargo: give the program with --understudy FILE")?;
    if !status.success() || !beside.exists() {
        bail!("the release program could not be built: see above, or give one with --understudy FILE");
    }
    Ok(beside)
}
