//! Follows the routes: keeps the routes file fresh, and wakes front doors up after the database was away.
//!
//! In: `understudy_route` notifications, a timer. Out: the routes file; refreshed proxies.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use understudy_database::{PgPool, front_door, route};

use crate::{FrontDoors, routes_file};

/// How often the file is written again without a notification.
const LOOK: Duration = Duration::from_secs(60);
/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(50);
/// So much longer than the file took to write it is left as it is.
const REST: u32 = 3;
/// How long to wait before listening again after the database went away.
const RECONNECT: Duration = Duration::from_secs(1);

/// What to keep.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Where the copy of the routes lies; none when no proxy on this machine wants it.
    pub routes_file: Option<PathBuf>,
}

/// Follows the routes until `shutdown`.
pub async fn run(pool: PgPool, watch: Watch, shutdown: CancellationToken) {
    let mut doors = None;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = follow(&pool, &watch, &mut doors) => outcome,
        };
        if let Err(error) = outcome {
            warn!(error = %format!("{error:#}"), "Routes cannot be followed; front doors go on with the last ones");
        }
        // A proxy holds log-ins back for a minute when it finds its database connections dead: have it look afresh.
        if let Some(doors) = &doors {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = FrontDoors::refresh(doors) => {}
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

/// Returns when the database goes away. `doors` stays for then.
async fn follow(pool: &PgPool, watch: &Watch, doors: &mut Option<FrontDoors>) -> Result<()> {
    let mut listener = PgListener::connect_with(pool).await.context("no connection for notifications")?;
    listener.listen(route::CHANNEL).await.context("could not listen")?;
    let back = doors.is_some();
    let opened = FrontDoors::open(pool).await.context("could not read the front doors")?;
    if back {
        // And asks the database again at once, not minutes later.
        opened.refresh().await;
    }
    *doors = Some(opened);
    loop {
        let started = Instant::now();
        write(pool, watch).await?;
        // While very many routes change, writing all of them again and again must not slow the change down.
        let gather = GATHER.max(started.elapsed() * REST);
        tokio::select! {
            heard = listener.try_recv() => {
                heard.context("the connection for notifications ended")?.context("the database went away")?;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        let gathered = tokio::time::sleep(gather);
        tokio::pin!(gathered);
        loop {
            tokio::select! {
                () = &mut gathered => break,
                heard = listener.try_recv() => {
                    heard.context("the connection for notifications ended")?.context("the database went away")?;
                }
            }
        }
        *doors = Some(FrontDoors::open(pool).await.context("could not read the front doors")?);
    }
}

async fn write(pool: &PgPool, watch: &Watch) -> Result<()> {
    let Some(path) = watch.routes_file.clone() else { return Ok(()) };
    let forms = front_door::forms(pool).await.context("could not read the routes")?;
    let homes = front_door::homes(pool).await.context("could not read the domains")?;
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || routes_file::replace(&path, &routes_file::text(&forms, &homes)));
    match written.await.context("the writer ended")? {
        Ok(true) => info!("Wrote the routes file"),
        Ok(false) => {}
        Err(error) => {
            warn!(error = %error, file = shown, "The routes file cannot be written; front doors have only the database")
        }
    }
    Ok(())
}
