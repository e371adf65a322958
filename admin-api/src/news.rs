//! Tells waiting handlers that a route changed.
//!
//! In: `understudy_route` notifications. Out: the numbers of their mailboxes, to whoever waits.
//! Keeps true: who waits never waits longer than its own timer for news that were lost.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tracing::warn;
use understudy_database::{Result, route};

use crate::state::Api;

/// How far a waiting handler may fall behind before it looks for itself.
const QUEUE: usize = 1024;
/// How long to wait before listening again after the database went away.
const RECONNECT: Duration = Duration::from_secs(1);

/// A cheap handle on the news.
#[derive(Clone, Debug)]
pub(crate) struct News {
    /// 0 for any mailbox.
    sender: broadcast::Sender<i64>,
}

impl News {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(QUEUE).0 }
    }

    /// To be called before looking, so that nothing is missed in between.
    pub(crate) fn subscribe(&self) -> Waiting {
        Waiting(self.sender.subscribe())
    }
}

/// Somebody who waits for a route.
pub(crate) struct Waiting(broadcast::Receiver<i64>);

impl Waiting {
    /// Returns when the mailbox's route may have changed.
    pub(crate) async fn changed(&mut self, mailbox: i64) {
        loop {
            match self.0.recv().await {
                Ok(changed) if changed != 0 && changed != mailbox => {}
                // Nobody sends any more only at shutdown, which ends the wait too.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Listens until shutdown; a database that goes away is waited for.
pub(crate) async fn listen(api: Api) {
    loop {
        tokio::select! {
            () = api.shutdown.cancelled() => return,
            outcome = relay(&api) => if let Err(error) = outcome {
                warn!(error = %error, "Route changes cannot be heard; trying again");
            },
        }
        tokio::select! {
            () = api.shutdown.cancelled() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

async fn relay(api: &Api) -> Result<()> {
    let mut listener = PgListener::connect_with(&api.pool).await?;
    listener.listen(route::CHANNEL).await?;
    // What happened meanwhile nobody told.
    let _ = api.news.sender.send(0);
    while let Some(notification) = listener.try_recv().await? {
        // Nobody waiting is no error.
        let _ = api.news.sender.send(notification.payload().parse().unwrap_or(0));
    }
    Ok(())
}
