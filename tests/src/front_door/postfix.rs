//! The Postfix that takes incoming mail.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Plan, daemon::Daemon};

/// A running Postfix; it needs root.
pub struct Postfix {
    _daemon: Daemon,
    dir: PathBuf,
    smtp: SocketAddr,
}

impl Postfix {
    /// One that tries deferred mail again every ten seconds.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::start_that_retries(plan, "10s")
    }

    /// One that tries deferred mail again after this time.
    pub fn start_that_retries(plan: &Plan, after: &str) -> Result<Self> {
        let dir = plan.file("postfix");
        let (config, queue, data) = (dir.join("etc"), dir.join("queue"), dir.join("data"));
        for dir in [&config, &queue, &data] {
            fs::create_dir_all(dir)?;
        }
        let given = Command::new("chown").arg("postfix").arg(&data).status().context("could not run chown")?;
        ensure!(given.success(), "the folder of Postfix could not be handed over");
        let smtp = plan.smtp;
        let base = format!(
            "compatibility_level = 3.6\nmyhostname = mx.{domain}\nmydestination =\nmynetworks = 192.0.2.1\n\
             inet_interfaces = all\ninet_protocols = ipv4\nqueue_directory = {queue}\ndata_directory = {data}\n\
             maillog_file = {dir}/maillog\nmaillog_file_prefixes = {dir}\nalias_maps =\nalias_database =\n\
             smtpd_peername_lookup = no\nqueue_run_delay = {after}\naddress_verify_poll_delay = 1s\nminimal_backoff_time = {after}\nmaximal_backoff_time = {after}\n",
            domain = super::DOMAIN,
            queue = queue.display(),
            data = data.display(),
            dir = dir.display(),
        );
        fs::write(config.join("main.cf"), base + &plan.filled("postfix-main.cf", &[])?)?;
        let master = fs::read_to_string("/etc/postfix/master.cf").context("Postfix is not installed")?;
        // The packaged services, with ours instead of port 25 and nothing in a jail.
        let services: String = master
            .lines()
            .map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["smtp", "inet", ..] => format!("{smtp} inet n - n - - smtpd\n"),
                [name, kind @ ("unix" | "unix-dgram"), private, unprivileged, "y" | "-", rest @ ..] => {
                    format!("{name} {kind} {private} {unprivileged} n {}\n", rest.join(" "))
                }
                _ => format!("{line}\n"),
            })
            .collect();
        fs::write(config.join("master.cf"), services)?;
        for name in ["postfix-script", "post-install", "postfix-files"] {
            let packaged = std::path::Path::new("/etc/postfix").join(name);
            if packaged.exists() {
                fs::copy(&packaged, config.join(name))?;
            }
        }
        let arguments = ["-c", &config.display().to_string(), "start-fg"];
        let answers = || TcpStream::connect(smtp).is_ok();
        let daemon = Daemon::start("postfix", &dir, &arguments, answers)
            .with_context(|| fs::read_to_string(dir.join("maillog")).unwrap_or_default())?;
        Ok(Self { _daemon: daemon, dir, smtp })
    }

    pub fn smtp_address(&self) -> SocketAddr {
        self.smtp
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("maillog")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let log = self.log();
        let skip = log.lines().count().saturating_sub(40);
        eprintln!("Postfix, end of its log:");
        log.lines().skip(skip).for_each(|line| eprintln!("  {line}"));
    }
}
