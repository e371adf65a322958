//! The timed steps of a change of side, as people see them; and whether somebody wants it to stop.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use understudy_database::run;
use understudy_failpoint as failpoint;
use understudy_protocol::{MailboxId, messages::Trouble};
use uuid::Uuid;

use crate::verify::internal;

/// Why a change of side went no further.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Cancelled,
    Failed(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble)
    }
}

impl From<understudy_database::Error> for Stop {
    fn from(error: understudy_database::Error) -> Self {
        Self::Failed(internal(&error))
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(internal(&error))
    }
}

/// A trouble that a person must deal with.
pub(crate) fn fault(kind: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Trouble {
    Trouble { kind: kind.to_owned(), reason: reason.into(), remedy: remedy.into(), fault: true }
}

/// Takes the steps of one mailbox in one run.
#[derive(Clone)]
pub(crate) struct Steps {
    pub(crate) pool: PgPool,
    pub(crate) run: Uuid,
    pub(crate) mailbox: MailboxId,
    pub(crate) cancel: CancellationToken,
}

impl Steps {
    /// Takes a step: what it came to is told by `tell`. Each step is a place where a crash is survived.
    pub(crate) fn take<'a, T>(
        &'a self,
        name: &'static str,
        step: impl Future<Output = Result<T, Stop>> + Send + 'a,
        tell: impl FnOnce(&T) -> String + Send + 'a,
    ) -> impl Future<Output = Result<T, Stop>> + Send + 'a
    where
        T: Send + Sync + 'a,
    {
        // Put away at once: steps are large, and there are many in a row.
        self.take_boxed(name, Box::pin(step), tell)
    }

    async fn take_boxed<'a, T: Send + Sync + 'a>(
        &'a self,
        name: &'static str,
        step: Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'a>>,
        tell: impl FnOnce(&T) -> String + Send + 'a,
    ) -> Result<T, Stop> {
        let started = Instant::now();
        let mut db = self.pool.acquire().await?;
        let position = run::begin_step(&mut db, self.run, name, Some(self.mailbox)).await?;
        drop(db);
        let taken = step.await;
        failpoint::here(point(name));
        let outcome = match &taken {
            Ok(value) => tell(value),
            Err(Stop::Cancelled) => "cancelled".to_owned(),
            Err(Stop::Failed(trouble)) => format!("failed: {}", trouble.reason),
        };
        let mut db = self.pool.acquire().await?;
        run::end_step(&mut db, self.run, position, &outcome).await?;
        metrics::histogram!("understudy_switch_seconds", "step" => name).record(started.elapsed().as_secs_f64());
        taken
    }

    /// Stops here if somebody asked for it.
    pub(crate) fn may_go_on(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Waits a moment; no longer than until somebody wants it to stop.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

/// Where a test may stop the program: behind each step.
fn point(step: &'static str) -> &'static str {
    match step {
        "check" => "switch.checked",
        "live" => "switch.passed",
        "hold" => "switch.held",
        "cut" => "switch.cut",
        "drain" => "switch.drained",
        "last" => "switch.brought",
        "verify" => "switch.verified",
        "flip" => "switch.flipped",
        "release" => "switch.released",
        _ => "switch.stepped",
    }
}
