//! The hub behind `GET /api/v1/events`: reads the event table once for all who listen.
//!
//! In: `understudy_event` notifications, a timer. Out: events in the order of their numbers, and lag samples.
//! Keeps true: nobody hears an event twice or out of order. A number still missing, because its transaction has not
//! committed yet, is waited for a moment before later ones go out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::PgListener;
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use understudy_database::{
    PgPool, Result, event,
    event::Event,
    status::{self, Lagging},
};

/// How often the table is read without a notification, and lag sampled.
const TICK: Duration = Duration::from_secs(1);
/// How long a missing number is waited for: longer than transactions that record events take.
const GAP_PATIENCE: Duration = Duration::from_secs(2);
/// How often a gap is looked at again.
const GAP_TICK: Duration = Duration::from_millis(50);
/// News within this time is read together.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait before listening again after the database went away.
const RECONNECT: Duration = Duration::from_secs(1);
/// Events read at once.
const BATCH: i64 = 500;
/// How far a listener may fall behind before it reads the table itself.
const QUEUE: usize = 1024;
/// How many mailboxes a lag sample names.
const LAGGING: i64 = 1000;

/// What listeners hear.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Event(Arc<Event>),
    /// The mailboxes that lag, worst first; empty once when none does any more.
    Lag(Arc<Vec<Lagging>>),
}

/// The listeners' side of the hub.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Heard>,
    /// The last event sent.
    sent: Arc<AtomicI64>,
}

impl Events {
    pub(crate) fn new(pool: PgPool, shutdown: CancellationToken) -> (Self, Hub) {
        let (sender, _) = broadcast::channel(QUEUE);
        let events = Self { sender, sent: Arc::new(AtomicI64::new(0)) };
        let hub = Hub { pool, shutdown, events: events.clone(), gap_since: None, lagged: false };
        (events, hub)
    }

    /// Everything from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.sender.subscribe()
    }

    /// The number of the last event sent to listeners.
    pub(crate) fn sent(&self) -> i64 {
        self.sent.load(Ordering::Acquire)
    }
}

/// The hub's own side.
pub struct Hub {
    pool: PgPool,
    shutdown: CancellationToken,
    events: Events,
    /// Since when the number after the last one sent has been missing.
    gap_since: Option<Instant>,
    /// The last sample told of lag.
    lagged: bool,
}

impl Hub {
    /// Serves listeners until shutdown; a database that goes away is waited for.
    pub async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.relay() => if let Err(error) = result {
                    warn!(error = %error, "Events cannot be read; trying again");
                },
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    async fn relay(&mut self) -> Result<()> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(event::CHANNEL).await?;
        if self.events.sent() == 0 {
            self.events.sent.store(event::newest(&self.pool).await?, Ordering::Release);
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let waiting_for_gap = self.gap_since.is_some();
            tokio::select! {
                notified = listener.recv() => {
                    notified?;
                    gather(&mut listener).await?;
                }
                () = tokio::time::sleep(GAP_TICK), if waiting_for_gap => {}
                _ = tick.tick() => {
                    if self.events.sender.receiver_count() == 0 {
                        continue;
                    }
                    self.sample_lag().await?;
                }
            }
            self.pass_on().await?;
        }
    }

    /// Sends what came since, up to a gap that may still be filled.
    async fn pass_on(&mut self) -> Result<()> {
        loop {
            // What is behind a gap is not read again and again.
            let limit = if self.gap_since.is_some() { 1 } else { BATCH };
            let events = event::after(&self.pool, self.events.sent(), limit).await?;
            let full = events.len() == usize::try_from(limit).unwrap_or(usize::MAX);
            if events.is_empty() {
                self.gap_since = None;
            }
            for event in events {
                if event.event_id > self.events.sent() + 1 && !self.gap_is_old() {
                    return Ok(());
                }
                self.gap_since = None;
                self.events.sent.store(event.event_id, Ordering::Release);
                // Nobody listening is no error.
                let _ = self.events.sender.send(Heard::Event(Arc::new(event)));
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn gap_is_old(&mut self) -> bool {
        self.gap_since.get_or_insert_with(Instant::now).elapsed() >= GAP_PATIENCE
    }

    async fn sample_lag(&mut self) -> Result<()> {
        let lagging = status::lagging(&self.pool, None, LAGGING).await?;
        if !lagging.is_empty() || self.lagged {
            self.lagged = !lagging.is_empty();
            let _ = self.events.sender.send(Heard::Lag(Arc::new(lagging)));
        }
        Ok(())
    }
}

/// Hears what else is told in a moment.
async fn gather(listener: &mut PgListener) -> Result<()> {
    let over = tokio::time::sleep(GATHER);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            heard = listener.recv() => drop(heard?),
        }
    }
}
