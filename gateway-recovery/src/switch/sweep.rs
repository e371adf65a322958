//! The sweep of the old side: what the primary still took after a switchover, or never shipped before an outage, is brought
//! to the standby while the user works there; and what the standby still took after a switchback is brought home.
//!
//! Keeps true: the old side is only read; a mailbox is swept until a reading that began late enough has come through.
//! Not here: bringing home (`applier::late`): while mirroring, only the applier touches the standby.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use understudy_database::switch::{self, Sweeping};
use understudy_protocol::{MailboxId, Side};

use super::{
    merge::Scope,
    pass::{Passes, Report},
    sides::Sides,
    steps::{Stop, fault},
};
use crate::runs::Runner;

/// How often it is looked what is to be swept.
const POLL: Duration = Duration::from_secs(1);
/// A primary that could not be read is asked again after this, …
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
/// … doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Between readings of a primary that answers.
const PAUSE: Duration = Duration::from_secs(5);
/// Between looks at a standby that was left: only mail that was on its way then can still come.
const LATE_PAUSE: Duration = Duration::from_secs(20);
/// How long a mailbox may wait for its turn to be looked at.
const TURN: Duration = Duration::from_secs(120);
/// Mailboxes swept at once.
const SIDE_BY_SIDE: usize = 4;

/// The task that sweeps.
pub(crate) struct Sweeper {
    runner: Runner,
}

/// When a mailbox is to be read again.
struct Next {
    at: Instant,
    backoff: Duration,
}

impl Sweeper {
    pub(crate) fn new(runner: Runner) -> Self {
        Self { runner }
    }

    /// Runs until `shutdown`; what is being swept then is swept again.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut next: HashMap<MailboxId, Next> = HashMap::new();
        while !shutdown.is_cancelled() {
            let due = match switch::sweeping(&self.runner.pool).await {
                Ok(sweeping) => sweeping,
                Err(error) => {
                    tracing::warn!(error = %error, "Could not see what is to be swept; trying again");
                    Vec::new()
                }
            };
            next.retain(|mailbox, _| due.iter().any(|sweeping| sweeping.mailbox == *mailbox));
            let now = Instant::now();
            let batch: Vec<Sweeping> = due
                .into_iter()
                .filter(|sweeping| next.get(&sweeping.mailbox).is_none_or(|next| next.at <= now))
                .take(SIDE_BY_SIDE)
                .collect();
            let sweeps = batch.iter().map(|sweeping| self.sweep(sweeping));
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = futures_util::future::join_all(sweeps) => ended,
            };
            for (sweeping, swept) in batch.iter().zip(ended) {
                let before = next.get(&sweeping.mailbox).map(|next| next.backoff);
                let backoff = match swept {
                    Ok(()) => FIRST_BACKOFF,
                    Err(stop) => {
                        tracing::debug!(mailbox.id = %sweeping.mailbox, why = ?stop, "Could not sweep the old side yet");
                        before.map_or(FIRST_BACKOFF, |backoff| (backoff * 2).min(LONGEST_BACKOFF))
                    }
                };
                let pause = match sweeping.active {
                    _ if backoff != FIRST_BACKOFF => backoff,
                    Side::Standby => PAUSE,
                    Side::Primary => LATE_PAUSE,
                };
                next.insert(sweeping.mailbox, Next { at: Instant::now() + pause, backoff });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Reads the primary once and brings over what it has; the last reading begins when it is due.
    async fn sweep(&self, sweeping: &Sweeping) -> Result<(), Stop> {
        if sweeping.active == Side::Primary {
            return self.sweep_standby(sweeping).await;
        }
        let runner = &self.runner;
        let Ok(_alone) = runner.alone.of(sweeping.mailbox).try_lock_owned() else { return Ok(()) };
        let subject = runner.subject(sweeping.mailbox).await?;
        if subject.phase != "on_standby" {
            return Ok(());
        }
        let mut sides = Sides::to_read(&subject).await?;
        let mut passes: Passes = runner.passes(&subject, Scope::Stragglers);
        let mut total = Report::default();
        for _ in 0..3 {
            let report = Box::pin(passes.pass(&mut sides)).await.map_err(super::back::trouble)?;
            total.add(&report);
            if report.effects() == 0 && !report.moving {
                break;
            }
        }
        sides.log_out().await;
        let before = switch::swept_so_far(&runner.pool, sweeping.run_id, sweeping.mailbox).await?;
        let sum = |key: &str, now: u64| json!(before[key].as_u64().unwrap_or(0) + now);
        let found = json!({
            "added": sum("added", total.added_to_standby),
            "flagged": sum("flagged", total.flags_on_standby),
            "removed": sum("removed", total.removed_from_standby),
            "recognised": sum("recognised", total.recognised),
            "refused": total.refused,
            "at": chrono::Utc::now(),
        });
        if total.effects() > 0 {
            tracing::info!(mailbox.id = %sweeping.mailbox, run.id = %sweeping.run_id, added = total.added_to_standby,
                flagged = total.flags_on_standby, removed = total.removed_from_standby,
                "Brought over what the primary still took");
        }
        let mut db = runner.pool.begin().await?;
        switch::swept(&mut db, sweeping, &found, sweeping.is_due && !total.moving).await?;
        db.commit().await?;
        Ok(())
    }

    /// Looks once through the standby that was left, in the mailbox's turn to be applied.
    async fn sweep_standby(&self, sweeping: &Sweeping) -> Result<(), Stop> {
        let runner = &self.runner;
        let answer = runner.applying.late().order(sweeping.mailbox);
        runner.applying.received(sweeping.mailbox);
        let brought = match timeout(TURN, answer).await {
            Ok(Ok(Ok(brought))) => brought,
            Ok(Ok(Err(reason))) => {
                let remedy = "It is tried again by itself; `understudy mailbox verify ADDRESS` names what is only on the standby.";
                return Err(fault("late_mail", reason, remedy).into());
            }
            // Another look took its place, or the mailbox is not applied just now.
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        let before = switch::swept_so_far(&runner.pool, sweeping.run_id, sweeping.mailbox).await?;
        let all = before["brought_home"].as_u64().unwrap_or(0) + brought;
        let found = json!({ "brought_home": all, "at": chrono::Utc::now() });
        if brought > 0 {
            tracing::info!(mailbox.id = %sweeping.mailbox, run.id = %sweeping.run_id, count = brought,
                "Brought home what the standby still took");
        }
        let mut db = runner.pool.begin().await?;
        switch::swept(&mut db, sweeping, &found, sweeping.is_due).await?;
        db.commit().await?;
        Ok(())
    }
}
