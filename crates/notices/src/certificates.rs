//! Looks at the certificates that mail servers show, and says so before one ends.
//!
//! In: every server's address, from where people are told. Out: events `certificate_expiring`, once a week for each certificate.
//! Not here: a certificate that ended or is not trusted, which is a trouble of the mailboxes; the link's own, which renew themselves
//! (`gateway-recovery`'s `pairing`).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use understudy_database::{event, server};
use understudy_imap_session::{Address, certificate};
use understudy_pairing::Life;
use understudy_protocol::{TenantId, server::Server, words::counted};

/// How often it is looked whether there are new servers.
const LOOK: Duration = Duration::from_secs(10);
/// How often a server's certificate is looked at, …
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// … and again after it could not be seen.
const AGAIN: Duration = Duration::from_secs(600);
/// How many servers are looked at at the same time.
const AT_ONCE: usize = 16;
/// So many days before its end people are told …
const WARNED_DAYS: i64 = 21;
/// … and again after so many.
const REPEATED_DAYS: i32 = 7;

/// Runs until `shutdown`.
pub(crate) async fn run(pool: PgPool, shutdown: CancellationToken) {
    // A server that is reached in another way is looked at again.
    let mut due: HashMap<(i64, String), Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look(&pool, &mut due) => {}
        }
    }
}

async fn look(pool: &PgPool, due: &mut HashMap<(i64, String), Instant>) {
    // A database that is away is back at one of the next looks.
    let Ok(servers) = server::every(pool).await else { return };
    let known: HashSet<(i64, String)> = servers.iter().map(|(id, _, server)| (*id, server.imap.clone())).collect();
    due.retain(|server, _| known.contains(server));
    let is_due = |(id, _, server): &(i64, TenantId, Server)| {
        due.get(&(*id, server.imap.clone())).is_none_or(|at| *at <= Instant::now())
    };
    let servers: Vec<(i64, TenantId, Server)> = servers.into_iter().filter(is_due).collect();
    for some in servers.chunks(AT_ONCE) {
        // One that does not answer takes its time; the others do not wait for it.
        let mut looking = JoinSet::new();
        for (id, tenant, server) in some.iter().cloned() {
            let pool = pool.clone();
            looking.spawn(async move { (id, tell(&pool, tenant, &server).await, server) });
        }
        while let Some(looked) = looking.join_next().await {
            let Ok((id, told, server)) = looked else { continue };
            let pause = match told {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::debug!(server = server.name, error = %error, "The certificate of a server could not be looked at");
                    AGAIN
                }
            };
            due.insert((id, server.imap), Instant::now() + pause);
        }
    }
}

/// Says so when the server's certificate ends soon.
async fn tell(pool: &PgPool, tenant: TenantId, server: &Server) -> anyhow::Result<()> {
    let address = Address::parse(&server.imap, server.ca_file.clone())?;
    let Some(shown) = certificate(&address).await? else { return Ok(()) };
    let until = Life::of(&shown)?.until;
    let Some(days) = warned_days(until, Utc::now()) else { return Ok(()) };
    let which = json!({ "server": server.name, "expires_at": until });
    if event::told_lately(pool, tenant, "certificate_expiring", &which, REPEATED_DAYS).await? {
        return Ok(());
    }
    tracing::warn!(server = server.name, until = %until, "The certificate of {} ends soon", server.name);
    let detail = json!({
        "name": server.name,
        "server": server.name,
        "expires_at": until,
        "reason": format!("the certificate it shows for IMAP ends on {}, in {}", until.format("%Y-%m-%d"), counted(days, "day", "days")),
        "remedy": "Renew it on that server; once it has ended, its mailboxes cannot be reached.",
    });
    Ok(event::record_for_tenant(pool, tenant, "certificate_expiring", &detail).await?)
}

/// How many days are left, where people are to be told.
fn warned_days(until: DateTime<Utc>, now: DateTime<Utc>) -> Option<i64> {
    let left = (until - now).num_days();
    (left < WARNED_DAYS).then_some(left.max(0))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn three_weeks_before_its_end_people_are_told() {
        let now = Utc::now();
        let ending_in = |hours| warned_days(now + TimeDelta::hours(hours), now);
        assert_eq!(ending_in(22 * 24), None);
        assert_eq!(ending_in(21 * 24 - 1), Some(20));
        assert_eq!(ending_in(5), Some(0));
        assert_eq!(ending_in(-5), Some(0));
    }
}
