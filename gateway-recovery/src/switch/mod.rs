//! Changes of side: switchover, switchback, and the sweep that follows.
//!
//! In: runs that people asked for. Out: mailboxes on the other side, each with its timed steps and what became of it.
//! Keeps true: one run at a time moves a mailbox; a run that a crash interrupted goes on from what the database says, and
//! every step may be taken twice.

mod back;
mod carry;
mod deferred;
mod delivery;
mod door;
mod equal;
mod headroom;
mod hooked;
mod merge;
mod over;
mod pass;
mod sides;
mod steps;
mod sweep;
mod together;
mod tree;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    run::{self, Ended, Run},
    switch::{self, Claimed, Switch},
};
use understudy_protocol::{MailboxId, Side, TenantId, messages::Trouble};

use self::{
    steps::{Steps, Stop, fault},
    together::Found,
};
use crate::{runs::Runner, verify::internal};

pub use deferred::MailExchangers;

pub(crate) use carry::{Depot, addition, stored};
pub(crate) use door::Holds;
pub(crate) use sides::Sides;
pub(crate) use sweep::Sweeper;

/// Mailboxes of one run moved at once.
const SIDE_BY_SIDE: usize = 8;
/// The same where nothing is waited for, of those that do not take their steps together.
const AT_ONCE_IN_EMERGENCY: usize = door::HELD_AT_ONCE as usize;
/// How often it is looked whether somebody wants a run to stop.
const CANCEL_POLL: Duration = Duration::from_millis(200);
/// How long a mailbox that another run moves is waited for.
const BUSY: Duration = Duration::from_secs(180);
const BUSY_POLL: Duration = Duration::from_millis(100);

/// What a change of side asks for.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    mailbox_ids: Vec<i64>,
    #[serde(default)]
    mode: String,
    max_loss: Option<i64>,
    #[serde(default)]
    dry_run: bool,
    /// Nobody waits for the last words of this primary: it was found down.
    primary_down: Option<String>,
}

/// How a mailbox is to be moved.
#[derive(Clone, Copy, Debug)]
struct Order {
    target: Side,
    emergency: bool,
    /// Transactions that may be lost; `None` for any number.
    max_loss: Option<i64>,
    dry_run: bool,
}

/// One run, as all its mailboxes share it.
struct Moving<'a> {
    run: &'a Run,
    order: Order,
    cancel: CancellationToken,
    /// Primaries that did not answer in this run: none of the others waits for them.
    silent: Mutex<HashSet<String>>,
    /// Of an emergency, what its mailboxes found out together.
    found: Found,
}

impl Moving<'_> {
    fn is_silent(&self, primary: &str) -> bool {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(primary)
    }

    fn was_silent(&self, primary: &str) {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(primary.to_owned());
    }
}

/// What becomes of a mailbox that cannot be moved.
fn failed(trouble: &Trouble) -> Value {
    json!({ "outcome": "failed", "kind": trouble.kind, "reason": trouble.reason, "remedy": trouble.remedy })
}

/// Who works on both sides of a mailbox just now. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Alone {
    mailboxes: Arc<Mutex<HashMap<MailboxId, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Alone {
    fn of(&self, mailbox: MailboxId) -> Arc<tokio::sync::Mutex<()>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).entry(mailbox).or_default().clone()
    }
}

impl Runner {
    /// Waits until nobody else works on both sides of this mailbox.
    async fn alone(&self, mailbox: MailboxId) -> OwnedMutexGuard<()> {
        self.alone.of(mailbox).lock_owned().await
    }

    /// Changes the side of the mailboxes of a run.
    pub(crate) async fn change_side(&self, run: &Run, target: Side) -> Result<(Ended, Value), Trouble> {
        let asked: Asked = serde_json::from_value(run.request.clone()).map_err(|error| internal(&error))?;
        let order =
            Order { target, emergency: asked.mode == "emergency", max_loss: asked.max_loss, dry_run: asked.dry_run };
        let selector = switch::Selector { mailboxes: Some(&asked.mailbox_ids), ..switch::Selector::default() };
        let mailboxes = switch::selected(&self.pool, &TenantId(run.tenant_id).into(), &selector).await;
        let mailboxes = mailboxes.map_err(|error| internal(&error))?;
        let moving =
            Moving { run, order, cancel: CancellationToken::new(), silent: Mutex::default(), found: Found::default() };
        if let Some(primary) = &asked.primary_down {
            moving.was_silent(primary);
        }
        self.before(&moving, &asked.mailbox_ids).await?;
        let watching = self.watch_cancel(run, &moving.cancel);
        let all = async {
            if order.emergency && target == Side::Standby {
                self.all_in_emergency(&moving, mailboxes).await
            } else {
                self.each(&moving, mailboxes, SIDE_BY_SIDE).await
            }
        };
        let results = tokio::select! {
            results = all => results,
            never = watching => never,
        };
        self.try_deferred_again(&moving, &results).await;
        let count = |outcome: &str| results.iter().filter(|result| result["outcome"] == outcome).count();
        let (failed, cancelled) = (count("failed"), count("cancelled"));
        let ended = match () {
            () if cancelled > 0 && cancelled + failed == results.len() => Ended::Cancelled,
            () if failed > 0 && failed == results.len() => Ended::Failed,
            () => Ended::Done,
        };
        let mut result = json!({
            "done": count("done") + count("already") + count("rehearsed"),
            "failed": failed,
            "cancelled": cancelled,
            "mailboxes": results,
        });
        self.after(&moving, &asked.mailbox_ids, &result).await;
        if let (Ended::Failed, Some(first)) = (ended, results.first()) {
            result["reason"] = first["reason"].clone();
            result["remedy"] = first["remedy"].clone();
        }
        Ok((ended, result))
    }

    /// Moves these mailboxes by themselves, so many at once, and says of each what became of it.
    async fn each(&self, moving: &Moving<'_>, mailboxes: Vec<(MailboxId, String)>, at_once: usize) -> Vec<Value> {
        let all = stream::iter(mailboxes).map(|(mailbox, address)| self.one(moving, mailbox, address));
        all.buffered(at_once).collect().await
    }

    async fn watch_cancel(&self, run: &Run, cancel: &CancellationToken) -> Vec<Value> {
        while !run::cancel_requested(&self.pool, run.run_id).await.unwrap_or(false) {
            tokio::time::sleep(CANCEL_POLL).await;
        }
        cancel.cancel();
        std::future::pending().await
    }

    /// One mailbox of a run; whatever becomes of it is a value.
    async fn one(&self, moving: &Moving<'_>, mailbox: MailboxId, address: String) -> Value {
        let run = moving.run;
        let steps = Steps { pool: self.pool.clone(), run: run.run_id, mailbox, cancel: moving.cancel.clone() };
        let mut result = match Box::pin(self.moved(&steps, moving)).await {
            Ok(result) => result,
            Err(Stop::Cancelled) => json!({ "outcome": "cancelled" }),
            Err(Stop::Failed(trouble)) => failed(&trouble),
        };
        if let Ok(Some(known)) = switch::get(&self.pool, run.run_id, mailbox).await
            && let (Some(result), Some(detail)) = (result.as_object_mut(), known.detail.as_object())
        {
            for (key, value) in detail {
                result.entry(key).or_insert_with(|| value.clone());
            }
        }
        result["address"] = json!(address);
        let outcome = match result["outcome"].as_str() {
            Some("rehearsed") | None => "done",
            Some(outcome) => outcome,
        };
        let ended = switch::end(&self.pool, run.run_id, mailbox, outcome, &result).await;
        if let Err(error) = ended {
            tracing::warn!(run.id = %run.run_id, mailbox.id = %mailbox, error = %error,
                "Could not note what became of a change of side");
        }
        result
    }

    async fn moved(&self, steps: &Steps, moving: &Moving<'_>) -> Result<Value, Stop> {
        let order = moving.order;
        let Some(switch) = self.claim_mailbox(steps, order).await? else { return Ok(json!({ "outcome": "already" })) };
        if !switch.outcome.is_empty() {
            // Done with before the program was interrupted.
            return Ok(switch.detail);
        }
        match order.target {
            Side::Standby => self.over(steps, &switch, moving).await,
            Side::Primary => self.home(steps, &switch, &order).await,
        }
    }

    /// Takes the mailbox for this run, waiting for another that moves it; `None` when that one did what we want.
    async fn claim_mailbox(&self, steps: &Steps, order: Order) -> Result<Option<Switch>, Stop> {
        let deadline = tokio::time::Instant::now() + BUSY;
        loop {
            let mut db = self.pool.begin().await?;
            let claimed = switch::claim(&mut db, steps.run, steps.mailbox, order.target, order.emergency).await?;
            db.commit().await?;
            match claimed {
                Claimed::Ours(switch) => return Ok(Some(switch)),
                Claimed::Gone => {
                    return Err(
                        fault("unprotected", "nobody protects the mailbox any more", "Protect it again.").into()
                    );
                }
                Claimed::Busy(other) if tokio::time::Instant::now() >= deadline => {
                    return Err(fault(
                        "busy",
                        format!("run {other} is moving the mailbox"),
                        format!("Wait for it, or end it: `understudy run cancel {other}`."),
                    )
                    .into());
                }
                Claimed::Busy(_) => steps.pause(BUSY_POLL).await?,
            }
        }
    }
}
