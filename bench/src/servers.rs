//! The mail servers that everything is measured on: the rig's private Dovecots, as an administrator would set them up.
//!
//! In: a folder and mailbox names. Out: running servers on loopback.
//! Keeps true: `mail_fsync` stays at Dovecot's default, so that a disk shows what a disk costs.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use understudy_tests::dovecot::{Dovecot, Options, PASSWORD, free_port};

use crate::imap::Client;

/// A server with these mailboxes.
pub(crate) fn start(place: &Path, name: &str, mailboxes: &[String]) -> Result<Dovecot> {
    Dovecot::start(options(place, name, mailboxes))
}

/// A server for many idle sessions: a hundred in one process.
pub(crate) fn start_for_many(place: &Path, name: &str, mailboxes: &[String]) -> Result<Dovecot> {
    Dovecot::start(options(place, name, mailboxes).many_sessions())
}

/// Two servers that Dovecot's own replicator keeps equal: notify and replication over TCP, as its documentation sets it up.
pub(crate) fn start_replicated(place: &Path, mailboxes: &[String]) -> Result<(Dovecot, Dovecot)> {
    let ports = [free_port(Ipv4Addr::LOCALHOST)?, free_port(Ipv4Addr::LOCALHOST)?];
    let start = |name: &str, own: u16, peer: u16| {
        let mut options = options(place, name, mailboxes).extra(&replication(own, peer));
        options.mail_plugins.extend(["notify".to_owned(), "replication".to_owned()]);
        // The ports above are free on this address only.
        options.address = Some(Ipv4Addr::LOCALHOST);
        Dovecot::start(options)
    };
    Ok((start("primary", ports[0], ports[1])?, start("standby", ports[1], ports[0])?))
}

pub(crate) fn log_in(server: &Dovecot, mailbox: &str) -> Result<Client> {
    Client::connect(server.imap_address(), mailbox, PASSWORD)
}

pub(crate) fn version() -> String {
    let output = Command::new("dovecot").arg("--version").env("PATH", "/usr/sbin:/usr/bin").output();
    output
        .context("not installed")
        .map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn options(place: &Path, name: &str, mailboxes: &[String]) -> Options {
    let mut options = Options::new(name).users(mailboxes.iter().map(String::as_str));
    options.dir = Some(place.join(name));
    options
}

fn replication(own_port: u16, peer_port: u16) -> String {
    format!(
        "doveadm_password = replication-secret
doveadm_port = {peer_port}
replication_max_conns = 10
plugin {{
  mail_replica = tcp:127.0.0.1:{peer_port}
}}
service replicator {{
  process_min_avail = 1
  unix_listener replicator-doveadm {{
    mode = 0666
  }}
}}
service aggregator {{
  fifo_listener replication-notify-fifo {{
    mode = 0666
  }}
  unix_listener replication-notify {{
    mode = 0666
  }}
}}
service doveadm {{
  inet_listener {{
    port = {own_port}
  }}
}}
"
    )
}
