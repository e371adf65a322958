//! The alarm that nothing is happening: finds mailboxes whose pipeline has not proven itself, and says where it stopped.
//!
//! In: heartbeats, which carry what the source gateway could not prove; the journal's numbers; when anything was heard. Out: flags
//! on mailboxes, which clear by themselves.
//! Keeps true: a quiet mailbox costs nothing on the link; the time this gateway itself did not run is held against nobody.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use understudy_database::{
    canary,
    proof::{self, OnItsWay},
};
use understudy_protocol::{MailboxId, Seq, messages::Unproven};

/// How often the mailboxes are looked after.
const LOOK: Duration = Duration::from_secs(5);
/// A pipeline that has not proven itself for so long is flagged.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the source gateway said last, and who is connected. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicI32,
    unproven: Mutex<HashMap<MailboxId, Unproven>>,
}

/// One connection of a source gateway, for as long as it lives.
pub(crate) struct Connected(Alarm);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Alarm {
    pub(crate) fn connected(&self) -> Connected {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// A heartbeat came: these mailboxes, and no others, could not be proven at the source.
    pub(crate) fn heard(&self, unproven: &[Unproven]) {
        let now: HashMap<MailboxId, Unproven> =
            unproven.iter().map(|unproven| (unproven.mailbox, unproven.clone())).collect();
        *self.shared.unproven.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn unproven(&self) -> Vec<Unproven> {
        self.shared.unproven.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn connections(&self) -> i32 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

/// Where a mailbox that has something on its way last moved.
struct Moved {
    received: Seq,
    received_at: Instant,
    applied: Seq,
    applied_at: Instant,
}

/// The task that looks after every mailbox.
pub(crate) struct Watcher {
    pub(crate) pool: PgPool,
    pub(crate) alarm: Alarm,
    moved: HashMap<MailboxId, Moved>,
    started_at: Instant,
}

impl Watcher {
    pub(crate) fn new(pool: PgPool, alarm: Alarm) -> Self {
        Self { pool, alarm, moved: HashMap::new(), started_at: Instant::now() }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let outcome = self.look().await;
            if let Err(error) = &outcome
                && !failed
            {
                tracing::warn!(error = %error, "Could not look after the mailboxes: the recovery site's database does not answer");
            }
            failed = outcome.is_err();
            metrics::gauge!("understudy_recovery_database_up").set(if failed { 0.0 } else { 1.0 });
        }
    }

    async fn look(&mut self) -> understudy_database::Result<()> {
        let heard_at = proof::watched(&self.pool, self.alarm.connections()).await?;
        let silence = heard_at.map(|at| (Utc::now() - at).to_std().unwrap_or_default());
        let silence = silence.unwrap_or(PATIENCE).min(self.started_at.elapsed());
        if silence >= PATIENCE {
            let place = if self.alarm.connections() > 0 { "source_gateway" } else { "link" };
            let mut db = self.pool.begin().await?;
            proof::flag(&mut db, None, &detail(place, silence)).await?;
            db.commit().await?;
            return Ok(());
        }
        let on_their_way = proof::on_their_way(&self.pool).await?;
        let mut stopped: HashMap<&'static str, (Vec<i64>, Duration)> = HashMap::new();
        let mut note = |place: &'static str, mailbox: MailboxId, since: Duration| {
            let (mailboxes, longest) = stopped.entry(place).or_default();
            mailboxes.push(mailbox.0);
            *longest = since.max(*longest);
        };
        let unproven = self.alarm.unproven();
        for unproven in &unproven {
            note(place(&unproven.place), unproven.mailbox, Duration::from_secs(unproven.seconds));
        }
        for (place, mailbox, since) in self.stuck(&on_their_way, Instant::now()) {
            if !unproven.iter().any(|unproven| unproven.mailbox == mailbox) {
                note(place, mailbox, since);
            }
        }
        let mut db = self.pool.begin().await?;
        let mut all = Vec::new();
        for (place, (mailboxes, since)) in &stopped {
            proof::flag(&mut db, Some(mailboxes), &detail(place, *since)).await?;
            all.extend(mailboxes);
        }
        // What is known of the whole pipeline goes before what one message tells.
        for (mailbox, late) in canary::all_late(&self.pool).await? {
            if !all.contains(&mailbox.0) {
                proof::flag(&mut db, Some(&[mailbox.0]), &late).await?;
                all.push(mailbox.0);
            }
        }
        proof::clear_but(&mut db, &all).await?;
        db.commit().await?;
        Ok(())
    }

    /// Mailboxes with something on its way that has not moved for too long, and where.
    fn stuck(&mut self, on_their_way: &[OnItsWay], now: Instant) -> Vec<(&'static str, MailboxId, Duration)> {
        self.moved.retain(|mailbox, _| on_their_way.iter().any(|waiting| waiting.mailbox == *mailbox));
        let mut stuck = Vec::new();
        for waiting in on_their_way {
            let moved = self.moved.entry(waiting.mailbox).or_insert(Moved {
                received: waiting.received,
                received_at: now,
                applied: waiting.applied,
                applied_at: now,
            });
            if moved.received != waiting.received || waiting.captured <= waiting.received {
                (moved.received, moved.received_at) = (waiting.received, now);
            }
            if moved.applied != waiting.applied || waiting.received <= waiting.applied {
                (moved.applied, moved.applied_at) = (waiting.applied, now);
            }
            let (applied_for, received_for) = (now - moved.applied_at, now - moved.received_at);
            if applied_for >= PATIENCE {
                stuck.push(("standby", waiting.mailbox, applied_for));
            } else if received_for >= PATIENCE {
                stuck.push(("shipping", waiting.mailbox, received_for));
            }
        }
        stuck
    }
}

fn place(said: &str) -> &'static str {
    match said {
        "source_gateway" => "source_gateway",
        _ => "primary",
    }
}

/// For people: where it stopped, why that is believed, and what to do.
pub(crate) fn detail(place: &str, since: Duration) -> Value {
    let seconds = since.as_secs();
    let (reason, remedy) = match place {
        "link" => (
            "nothing is heard of the source gateway and none is connected: it has stopped, or the link is down",
            "See that the source gateway runs and reaches the recovery site; it connects again by itself.",
        ),
        "source_gateway" => (
            "the source gateway is connected but reports nothing for this mailbox: it hangs, or cannot use its database",
            "Look at the source gateway's log; restart it if it hangs.",
        ),
        "primary" => (
            "the primary does not answer for this mailbox, so nobody knows whether anything changed there",
            "See that the primary runs and takes the gateway's log-in: `understudy server check NAME`.",
        ),
        "shipping" => (
            "changes were captured at the source and do not arrive at the recovery site",
            "See whether the link carries data and the recovery site has room; the gateways' logs say more.",
        ),
        "capture" => (
            "a message was written into this canary mailbox on the primary and the source gateway did not capture it",
            "See what the mailbox says stands in the way, that the source gateway may log in to it, and the gateway's log.",
        ),
        "visible" => (
            "a message of this canary mailbox was applied and is not to be seen on the standby",
            "Compare the two sides: `understudy mailbox verify ADDRESS`; see that nobody else writes to the standby.",
        ),
        _ => (
            "changes were received and the standby does not take them",
            "See that the standby runs and has room: `understudy server check NAME`.",
        ),
    };
    let since = Utc::now() - chrono::Duration::seconds(i64::try_from(seconds).unwrap_or(0));
    json!({ "kind": "unproven", "place": place, "since": since, "reason": reason, "remedy": remedy, "fault": false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(captured: i64, received: i64, applied: i64) -> OnItsWay {
        OnItsWay { mailbox: MailboxId(1), captured: Seq(captured), received: Seq(received), applied: Seq(applied) }
    }

    #[tokio::test]
    async fn what_does_not_move_is_found_where_it_stands() {
        let pool = PgPool::connect_lazy("postgres://nowhere").unwrap();
        let mut watcher = Watcher::new(pool, Alarm::default());
        let start = Instant::now();
        let mut places = |after: Duration, now: OnItsWay| -> Vec<&'static str> {
            watcher.stuck(&[now], start + after).into_iter().map(|(place, ..)| place).collect()
        };
        assert!(places(Duration::ZERO, waiting(5, 5, 4)).is_empty());
        assert_eq!(places(PATIENCE, waiting(5, 5, 4)), ["standby"]);
        // It moved: its time begins again.
        assert!(places(PATIENCE, waiting(7, 6, 5)).is_empty());
        assert!(places(PATIENCE * 3 / 2, waiting(9, 6, 6)).is_empty());
        assert_eq!(places(PATIENCE * 2, waiting(9, 6, 6)), ["shipping"]);
    }
}
