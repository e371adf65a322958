//! Mail that waits because a side could not be reached: after a change of side, the mail exchangers are asked to try it again at
//! once (ETRN, RFC 1985).
//!
//! In: the exchangers of the configuration, what became of a run's mailboxes. Out: one step of the run.
//! Keeps true: whatever comes of it, the change of side is done; an exchanger tries again later anyway.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use lettre::transport::smtp::{client::AsyncSmtpConnection, extension::ClientId};
use serde_json::Value;
use tokio::time::timeout;
use understudy_database::run;

use super::Moving;
use crate::runs::Runner;

/// How long an exchanger may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who keeps mail that could not be delivered.
#[derive(Clone, Debug, Default)]
pub struct MailExchangers {
    /// Host and port of each.
    pub servers: Vec<(String, u16)>,
    /// Those of users whose address has none.
    pub domains: Vec<String>,
}

impl MailExchangers {
    /// The domains of these users. One that could not stand in a command is left out.
    fn domains_of<'a>(&'a self, addresses: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut domains = BTreeSet::new();
        for address in addresses {
            match address.rsplit_once('@') {
                Some((_, domain)) => drop(domains.insert(domain)),
                None => domains.extend(self.domains.iter().map(String::as_str)),
            }
        }
        let is_plain = |domain: &str| domain.chars().all(|char| char.is_alphanumeric() || matches!(char, '.' | '-'));
        domains.retain(|domain| !domain.is_empty() && is_plain(domain));
        domains
    }
}

/// What kept an exchanger from being asked for all of these domains. One that it refuses does not keep the others from being asked for.
async fn ask(server: &(String, u16), domains: &BTreeSet<&str>) -> Result<(), String> {
    let (name, place) = (ClientId::default(), (server.0.as_str(), server.1));
    let connecting = AsyncSmtpConnection::connect_tokio1(place, Some(PATIENCE), &name, None, None);
    let mut connection = connecting.await.map_err(|error| error.to_string())?;
    let mut refused = Vec::new();
    for domain in domains {
        match connection.command(format!("ETRN {domain}\r\n")).await {
            Ok(_) => {}
            Err(error) if error.status().is_some() => refused.push(format!("{domain}: {error}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    // It was asked; a farewell that gets lost changes nothing.
    let _ = connection.quit().await;
    if refused.is_empty() { Ok(()) } else { Err(refused.join(", ")) }
}

impl Runner {
    /// Has mail for the users that were moved tried again, as a step of the run.
    pub(super) async fn try_deferred_again(&self, moving: &Moving<'_>, results: &[Value]) {
        let moved = results.iter().filter(|result| result["outcome"] == "done");
        let domains = self.exchangers.domains_of(moved.filter_map(|result| result["address"].as_str()));
        if self.exchangers.servers.is_empty() || domains.is_empty() {
            return;
        }
        let run = moving.run.run_id;
        let trying = async {
            let position = run::begin_step(&mut *self.pool.acquire().await?, run, "deferred", None).await?;
            let asking = self.exchangers.servers.iter().map(|server| async {
                let asked = timeout(PATIENCE, ask(server, &domains)).await;
                let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
                let told = match asked {
                    Ok(()) => "asked to try again what it deferred".to_owned(),
                    Err(why) => {
                        tracing::warn!(run.id = %run, server = server.0, why,
                            "Mail that was deferred may come late: a mail exchanger could not be asked to try again");
                        format!("failed: {why}")
                    }
                };
                format!("{}:{}: {told}", server.0, server.1)
            });
            let outcome = join_all(asking).await.join("; ");
            run::end_step(&mut *self.pool.acquire().await?, run, position, &outcome).await?;
            anyhow::Ok(())
        };
        if let Err(error) = trying.await {
            tracing::warn!(run.id = %run, error = format!("{error:#}"), "Could not note what came of asking mail exchangers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_is_asked_for_once() {
        let exchangers = MailExchangers { servers: Vec::new(), domains: vec!["example.org".to_owned()] };
        let of = |addresses: &[&'static str]| {
            let domains = exchangers.domains_of(addresses.iter().copied());
            domains.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(&["ana@example.net", "ben@example.net", "cy"]), ["example.net", "example.org"]);
        assert_eq!(of(&["ana@example.net\r\nQUIT", "ben@", "x@a b"]), [""; 0]);
        assert_eq!(of(&["zoë@münchen.example"]), ["münchen.example"]);
    }
}
