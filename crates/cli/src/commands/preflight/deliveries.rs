//! The way of incoming mail: whether each Dovecot proxy takes it, whether somebody takes it while the database is away, and whether
//! every mail server does.

use std::io;
use std::time::Duration;

use tokio::time::timeout;
use understudy_database::front_door::FrontDoorKind;
use understudy_protocol::server::Server;

use super::super::server::check::Finding;
use super::hello::hello;
use super::{finding, ok};
use crate::config::{Config, MailDoor};

/// How long one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const WAITS: &str = "while the database is away, mail waits in the queue of the mail exchanger";

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for door in config.front_doors.doors.iter().filter(|door| door.kind == FrontDoorKind::Dovecot) {
        match config.mail_doors.iter().find(|of_mail| of_mail.name == door.name) {
            Some(door) => findings.extend([proxy(door).await, fallback(door).await]),
            None => {
                let why = "it is not said where it takes mail, so nobody looked whether mail goes on while the database is away";
                let remedy = "where it takes mail, add `lmtp` and `lmtp_fallback` to its [[front_door]]";
                findings.push(finding("note", &door.name, why, remedy));
            }
        }
    }
    findings.extend(config.servers.iter().filter(|server| server.lmtp.is_none()).map(without));
    findings
}

async fn proxy(door: &MailDoor) -> Finding {
    let (host, port) = &door.lmtp;
    match takes_mail(host, *port).await {
        Ok(()) => ok(&door.name, format!("it takes mail at {host} port {port}")),
        Err(error) => {
            let why = format!(
                "it takes no mail at {host} port {port}: {error}; all mail waits in the queue of the mail exchanger"
            );
            finding(
                "failed",
                &door.name,
                why,
                "check its `lmtp` in [[front_door]], `service lmtp` in its dovecot.conf, and the firewalls in between",
            )
        }
    }
}

async fn fallback(door: &MailDoor) -> Finding {
    let warning = |why: String, remedy| finding("warning", &door.name, why, remedy);
    let start = "start the Dovecot of dovecot-last-routes.conf, name it in Postfix as `lmtp_fallback_relay` and in [[front_door]] as `lmtp_fallback`";
    match &door.fallback {
        None => warning(format!("it has no `lmtp_fallback`: {WAITS}"), start),
        Some(place) if *place == door.lmtp => {
            warning(format!("its `lmtp_fallback` is its `lmtp`, and no other: {WAITS}"), start)
        }
        Some((host, port)) => match takes_mail(host, *port).await {
            Ok(()) => {
                ok(&door.name, format!("mail goes by the last routes at {host} port {port} while the database is away"))
            }
            Err(error) => warning(format!("its `lmtp_fallback`, {host} port {port}: {error}; {WAITS}"), start),
        },
    }
}

async fn takes_mail(host: &str, port: u16) -> io::Result<()> {
    let late = |_| Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, hello(host, port, "LHLO")).await.unwrap_or_else(late).map(drop)
}

fn without(server: &Server) -> Finding {
    let why = "it has no `lmtp`: mail for its mailboxes cannot come through a front door";
    finding("warning", &server.name, why, "add `lmtp = \"lmtp://HOST:24\"` to it")
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::saying;
    use super::*;

    async fn look_at(of_it: Option<(String, u16)>) -> Finding {
        fallback(&MailDoor { name: "imap-1".into(), lmtp: ("127.0.0.1".into(), 1), fallback: of_it }).await
    }

    /// What is found of a fallback that says this.
    async fn found(says: &'static [&'static str]) -> Finding {
        let (port, said) = saying(says).await;
        let (found, ()) = tokio::join!(look_at(Some(("127.0.0.1".into(), port))), said);
        found
    }

    #[tokio::test]
    async fn a_fallback_must_be_there_and_speak_lmtp() {
        assert_eq!(found(&["220 it\r\n", "250-it\r\n250 PIPELINING\r\n"]).await.level, "ok");
        let other = found(&["220 it\r\n", "502 5.5.2 what?\r\n"]).await;
        assert!(other.level == "warning" && other.meaning.contains("502 5.5.2"), "{other:?}");
        for unfit in [None, Some(("127.0.0.1".to_owned(), 1))] {
            let found = look_at(unfit).await;
            assert!(found.level == "warning" && found.remedy.contains("dovecot-last-routes.conf"), "{found:?}");
        }
        assert_eq!(look_at(Some(("127.0.0.2".to_owned(), 1))).await.level, "warning");
    }

    #[tokio::test]
    async fn a_proxy_must_take_mail() {
        let (port, said) = saying(&["220 it\r\n", "250 it\r\n"]).await;
        let at = |port| MailDoor { name: "imap-1".into(), lmtp: ("127.0.0.1".into(), port), fallback: None };
        let (door, nobody) = (at(port), at(1));
        let (found, ()) = tokio::join!(proxy(&door), said);
        assert_eq!((found.level, proxy(&nobody).await.level), ("ok".into(), "failed".into()));
    }
}
