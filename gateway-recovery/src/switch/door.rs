//! A change of side at the front doors: hold, cut, flip, release.
//!
//! Keeps true: what was held is released, whatever happens; a hold that this process cannot release any more ends by itself
//! (`route::HOLD_LIMIT`), and nothing changes sides after that. Holds have connections to the database of their own: whatever a
//! hold waits for needs another one.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use understudy_database::{
    route::{self, HeldRoute},
    switch::{self, Switch},
};
use understudy_front_door::FrontDoors;
use understudy_protocol::{Epoch, MailboxId, Side};

use super::steps::{Stop, fault};
use crate::verify::internal;

/// A front door that does not end sessions within this is passed over: draining decides.
const CUTTING: Duration = Duration::from_secs(5);
/// Longer than this a route's lock is not waited for.
const LOCKING: Duration = Duration::from_secs(20);

/// Mailboxes held at once, over all runs. Each keeps a connection to the database while its user waits.
pub(super) const HELD_AT_ONCE: u32 = 16;

/// Where holds get their connections.
#[derive(Clone)]
pub(crate) struct Holds {
    places: Arc<Semaphore>,
    pool: PgPool,
}

impl Holds {
    /// To the same database as `pool`, beside it.
    pub(crate) fn beside(pool: &PgPool) -> Self {
        let wide = pool.options().clone().max_connections(HELD_AT_ONCE);
        let places = Arc::new(Semaphore::new(HELD_AT_ONCE as usize));
        Self { places, pool: wide.connect_lazy_with(pool.connect_options().as_ref().clone()) }
    }

    /// Holds the log-ins and deliveries of a mailbox. The old side must be the one the route has.
    pub(crate) async fn hold(&self, mailbox: MailboxId, target: Side, epoch: Epoch) -> Result<Held, Stop> {
        let place = self.place().await?;
        let since = Instant::now();
        route::announce_hold(&self.pool, &[mailbox]).await?;
        let (transaction, routes) = self.lock(&[mailbox]).await?;
        match routes.first() {
            Some(held) if held.epoch == epoch && held.side == target.other() => {
                Ok(Held { transaction, _place: place, since })
            }
            Some(held) => Err(fault(
                "epoch",
                format!(
                    "the mailbox changed sides meanwhile: it is on the {} in epoch {}",
                    held.side.as_str(),
                    held.epoch
                ),
                "Look at `understudy mailbox show`, and ask again if it is still wanted.",
            )
            .into()),
            None => Err(fault("no_route", "the mailbox has no route", "Unprotect and protect it again.").into()),
        }
    }

    /// Waits for a place among those that may hold mailboxes.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Stop> {
        Ok(self.places.clone().acquire_owned().await.map_err(|error| internal(&error))?)
    }

    /// Locks these routes, whose hold was announced, until the SQL transaction ends. Says how they are.
    pub(super) async fn lock(
        &self,
        mailboxes: &[MailboxId],
    ) -> Result<(Transaction<'static, Postgres>, Vec<HeldRoute>), Stop> {
        let mut transaction = self.pool.begin().await?;
        let locked = timeout(LOCKING, route::hold(&mut transaction, mailboxes)).await;
        let routes = locked.map_err(|_| {
            fault(
                "route_locked",
                "something else holds the mailbox's route",
                "Try again; see `understudy run list --open`.",
            )
        })??;
        Ok((transaction, routes))
    }
}

/// A mailbox whose log-ins wait. Dropping it leaves the log-ins waiting until [`Held::release`] or the limit.
pub(crate) struct Held {
    transaction: Transaction<'static, Postgres>,
    _place: OwnedSemaphorePermit,
    /// When the user's log-ins began to wait.
    pub(crate) since: Instant,
}

/// Ends these users' sessions on the side that is left, at every front door.
pub(crate) async fn cut(pool: &PgPool, mailboxes: &[MailboxId], side: Side) -> Result<String, Stop> {
    let doors = FrontDoors::open(pool).await?;
    if doors.is_empty() {
        return Ok("no front door is known: nobody was cut".to_owned());
    }
    let cut = match timeout(CUTTING, doors.cut(pool, mailboxes, side)).await {
        Ok(cut) => cut?,
        Err(_) => return Ok("a front door did not answer in time; draining decides".to_owned()),
    };
    // Sessions that go on are no harm as long as the side becomes still.
    let uncut: Vec<&str> = cut.uncut.iter().map(|uncut| uncut.reason.as_str()).collect();
    match uncut.as_slice() {
        [] => Ok("sessions ended".to_owned()),
        uncut => Ok(format!("not everywhere: {}", uncut.join("; "))),
    }
}

/// Ends what is left of these users' sessions on the side that was left: a front door whose database was away during the hold
/// may have let somebody in there. The change of side is made; nothing here undoes it.
pub(crate) async fn cut_left_behind(pool: &PgPool, mailboxes: &[MailboxId], left: Side) -> Result<(), Stop> {
    let cutting = async { FrontDoors::open(pool).await?.cut_left_behind(pool, mailboxes, left).await };
    match timeout(CUTTING, cutting).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(count = mailboxes.len(), error = %error, "Could not look for sessions on the side that was left");
        }
        Err(_) => {
            tracing::warn!(
                count = mailboxes.len(),
                "A front door did not say in time whether sessions are left behind"
            );
        }
    }
    Ok(())
}

impl Held {
    /// Lets what waits through to the new side. False when it took too long or the epoch is another.
    pub(crate) async fn flip(mut self, switch: &Switch, sweep: Duration) -> Result<bool, Stop> {
        let flipped = switch::flip(&mut self.transaction, switch, sweep.as_secs_f64()).await?;
        if flipped {
            understudy_failpoint::here("switch.flipping");
            self.transaction.commit().await?;
        }
        Ok(flipped)
    }

    /// The SQL transaction that will change the side.
    pub(crate) fn transaction(&mut self) -> &mut Transaction<'static, Postgres> {
        &mut self.transaction
    }
}

/// Lets what waits through to the side it was on.
pub(crate) async fn release(pool: &PgPool, mailbox: MailboxId) -> Result<(), Stop> {
    Ok(route::release(pool, &[mailbox]).await?)
}
