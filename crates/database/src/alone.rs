//! One gateway of a kind works on a database; a second one waits until it ends.
//!
//! A session's advisory lock says which, so that nothing is left over from one that was killed.
//! Keeps true: two of a kind that run know of each other within seconds, and one of them goes. It is no fence: what the
//! one that goes has under way may still end.

use std::{future::Future, time::Duration};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{Error, Result};

/// How often one that waits asks again, and one that works looks whether it still holds its place.
const LOOK: Duration = Duration::from_secs(1);
/// What was just killed is gone in a moment: asked for this often at first, …
const SOON: Duration = Duration::from_millis(50);
/// … and so many times before anybody is told.
const UNTOLD: u32 = 20;
/// One that does not answer for so long is not waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// A database that went away while we were starting may be restarting.
const PATIENCE: Duration = Duration::from_secs(60);
/// So that the place of a machine that is gone becomes free: without them PostgreSQL notices after two hours.
const KEEP_ALIVE: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];

/// Of what there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    Source,
    Recovery,
}

impl Gateway {
    /// Its half of the lock's key.
    fn number(self) -> i32 {
        match self {
            Self::Source => 1,
            Self::Recovery => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Recovery => "recovery",
        }
    }
}

/// Lets `work` run while no other gateway of the kind works on this database, and ends it when another does.
///
/// Waits for its turn first; none if `shutdown` comes before. [`Error::Replaced`] when another took the place, which only
/// an end of the session can bring about: PostgreSQL restarted, or the way to it was cut.
pub async fn run<W: Future>(
    pool: &PgPool,
    gateway: Gateway,
    shutdown: CancellationToken,
    work: impl FnOnce(CancellationToken) -> W,
) -> Result<Option<W::Output>> {
    let Some(place) = shutdown.run_until_cancelled(Place::take(pool, gateway)).await else { return Ok(None) };
    let mut place = place?;
    let own = shutdown.child_token();
    let mut working = Box::pin(work(own.clone()));
    tokio::select! {
        outcome = &mut working => Ok(Some(outcome)),
        () = place.lost() => {
            own.cancel();
            working.await;
            Err(Error::Replaced(gateway.name()))
        }
    }
}

/// The place of the one that works. Free again when this is dropped.
struct Place {
    gateway: Gateway,
    options: PgConnectOptions,
    /// None while the database is away.
    held: Option<PgConnection>,
    /// The backend that has the lock for us, or had it.
    backend: i32,
}

impl Place {
    /// Waits until no other has the place, and until there is a database, if that went away meanwhile. Dropping the future gives up.
    async fn take(pool: &PgPool, gateway: Gateway) -> Result<Self> {
        let options = (*pool.connect_options()).clone().options(KEEP_ALIVE);
        let (mut session, mut refusals, mut away_since) = (None, 0, None);
        let backend = loop {
            let asked = timeout(ANSWER, ask(&mut session, &options, gateway)).await;
            match asked.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into()).into())) {
                Ok(Some(backend)) => break backend,
                Ok(None) => {
                    away_since = None;
                    refusals += 1;
                }
                Err(error) => {
                    session = None;
                    let since = *away_since.get_or_insert_with(|| {
                        tracing::warn!(error = %error, "The database went away; waiting for it");
                        Instant::now()
                    });
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
            }
            if refusals == UNTOLD && away_since.is_none() {
                let name = gateway.name();
                tracing::warn!("Another {name} gateway works on this database; this one waits until that one ends");
            }
            tokio::time::sleep(if refusals < UNTOLD && away_since.is_none() { SOON } else { LOOK }).await;
        };
        if refusals >= UNTOLD {
            tracing::info!("The other {} gateway ended; this one works now", gateway.name());
        }
        Ok(Self { gateway, options, held: session, backend })
    }

    /// Ends when another has the place. While the database is away nobody has it, and nobody can do anything.
    async fn lost(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(session) = &mut self.held {
                let asked = timeout(ANSWER, session.ping()).await;
                if matches!(asked, Ok(Ok(()))) {
                    continue;
                }
                self.held = None;
            }
            let again = timeout(ANSWER, self.again()).await;
            if matches!(again, Ok(Ok(Whose::Anothers))) {
                return;
            }
        }
    }

    /// Takes the place again, after the session that held it has ended.
    async fn again(&mut self) -> Result<Whose> {
        let mut session = PgConnection::connect_with(&self.options).await?;
        if !try_lock(&mut session, self.gateway).await? {
            return Ok(match holder(&mut session, self.gateway).await? {
                // It has not noticed yet that nobody listens any more; or it just did.
                Some(pid) if pid != self.backend => Whose::Anothers,
                _ => Whose::Nobodys,
            });
        }
        self.backend = backend(&mut session).await?;
        self.held = Some(session);
        Ok(Whose::Ours)
    }
}

enum Whose {
    Ours,
    /// To be asked for again.
    Nobodys,
    Anothers,
}

/// Asks for the place, over a session that is opened where there is none. Answers the backend that has it for us.
async fn ask(session: &mut Option<PgConnection>, options: &PgConnectOptions, gateway: Gateway) -> Result<Option<i32>> {
    let session = match session {
        Some(session) => session,
        None => session.insert(PgConnection::connect_with(options).await?),
    };
    if try_lock(session, gateway).await? { Ok(Some(backend(session).await?)) } else { Ok(None) }
}

async fn try_lock(session: &mut PgConnection, gateway: Gateway) -> Result<bool> {
    let taken = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock(hashtext('understudy_gateway'), $1) as "taken!""#,
        gateway.number()
    );
    Ok(taken.fetch_one(session).await?)
}

async fn backend(session: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar!(r#"select pg_backend_pid() as "pid!""#).fetch_one(session).await?)
}

/// The backend that holds the lock (of two keys: `objsubid` 2).
async fn holder(session: &mut PgConnection, gateway: Gateway) -> Result<Option<i32>> {
    let pid = sqlx::query_scalar!(
        r#"select pid as "pid!" from pg_locks
           where locktype = 'advisory' and granted and objsubid = 2 and objid = $1::int::oid
             and classid::bigint = hashtext('understudy_gateway')::bigint & 4294967295
             and database = (select oid from pg_database where datname = current_database())"#,
        gateway.number()
    );
    Ok(pid.fetch_optional(session).await?)
}
