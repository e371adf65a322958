//! The mail exchangers that are asked after a change of side to try again what they deferred: whether each answers and takes that (ETRN).

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::server::check::Finding;
use super::hello::hello;
use super::{finding, ok};
use crate::config::Config;

/// As long as a run waits for one.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    join_all(config.mail_exchangers.iter().map(|(host, port)| look_at(host, *port))).await
}

async fn look_at(host: &str, port: u16) -> Finding {
    let name = format!("exchanger {host}:{port}");
    let late = "; after a change of side, mail that it deferred comes when it tries again by itself";
    let asked = timeout(PATIENCE, offers_etrn(host, port)).await;
    let asked = asked.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs()))));
    match asked {
        Ok(true) => ok(&name, "it answers and can be asked to try deferred mail again (ETRN)"),
        Ok(false) => {
            let remedy =
                "let this machine use ETRN there (Postfix: `smtpd_etrn_restrictions` and `fast_flush_domains`)";
            finding("warning", &name, format!("it answers and offers no ETRN{late}"), remedy)
        }
        Err(error) => {
            let remedy = "check its name under `mail_exchangers` in [routes], that it runs, and the firewalls in between; each run ends up to ten \
                          seconds later while it does not answer";
            finding("warning", &name, format!("{error}{late}"), remedy)
        }
    }
}

async fn offers_etrn(host: &str, port: u16) -> io::Result<bool> {
    Ok(hello(host, port, "EHLO").await?.iter().any(|word| word.eq_ignore_ascii_case("ETRN")))
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::saying;
    use super::*;

    /// What is found of an exchanger that says this, one part at a time.
    async fn found(says: &'static [&'static str]) -> Finding {
        let (port, said) = saying(says).await;
        let (found, ()) = tokio::join!(look_at("127.0.0.1", port), said);
        found
    }

    #[tokio::test]
    async fn an_exchanger_must_answer_and_offer_etrn() {
        assert_eq!(found(&["220 mx\r\n", "250-mx\r\n250-SIZE\r\n250 ETRN\r\n"]).await.level, "ok");
        let without = found(&["220 mx\r\n", "250-mx\r\n250 SIZE\r\n"]).await;
        assert!(without.level == "warning" && without.meaning.contains("no ETRN"), "{without:?}");
        let refusing = found(&["554 not you\r\n"]).await;
        assert!(refusing.level == "warning" && refusing.meaning.contains("554 not you"), "{refusing:?}");
        assert_eq!(found(&[]).await.level, "warning");
    }
}
