//! What the source gateway is told: mailboxes and servers from the database, and questions of our own.
//!
//! Keeps true: a heartbeat is answered at once when there is something newer than it has seen; a lost notification
//! costs a second, not correctness.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use understudy_database::{line, link, part};
use understudy_protocol::{
    ContentRef, TenantId,
    messages::{Asked, Directives, InventoryFrame, Limits, Report, Reported, Request, Trouble},
};
use uuid::Uuid;

/// How often the database is asked, in case a notification was lost.
const POLL: Duration = Duration::from_secs(1);
/// Frames of an inventory taken in ahead of the comparison.
const FRAMES_AHEAD: usize = 4;

/// What is asked of the source gateway, and what it said. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DirectiveBoard {
    pool: PgPool,
    /// Rises with anything new; starts at the clock, so that it rises over restarts too.
    version: Arc<watch::Sender<u64>>,
    open: Arc<Mutex<HashMap<Uuid, Open>>>,
}

struct Open {
    request: Request,
    answer: oneshot::Sender<Result<Reported, Trouble>>,
    frames: Option<mpsc::Sender<InventoryFrame>>,
}

/// A question under way.
pub(crate) struct Question {
    board: DirectiveBoard,
    id: Uuid,
    answer: oneshot::Receiver<Result<Reported, Trouble>>,
    /// The frames of an inventory.
    pub(crate) frames: mpsc::Receiver<InventoryFrame>,
}

impl Question {
    /// Waits for the answer.
    pub(crate) async fn answer(&mut self) -> Result<Reported, Trouble> {
        (&mut self.answer).await.unwrap_or_else(|_| {
            Err(Trouble {
                kind: "interrupted".to_owned(),
                reason: "the question was withdrawn".to_owned(),
                remedy: "Ask again.".to_owned(),
                fault: false,
            })
        })
    }
}

/// A question nobody waits for is withdrawn.
impl Drop for Question {
    fn drop(&mut self) {
        self.board.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl DirectiveBoard {
    pub(crate) fn new(pool: PgPool) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(now.as_millis()).unwrap_or(1);
        Self { pool, version: Arc::new(watch::Sender::new(start)), open: Arc::default() }
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Follows the database until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut seen = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                followed = self.follow(&mut seen) => {
                    if let Err(error) = followed {
                        tracing::warn!(error = format!("{error:#}"), "Lost sight of the directives; trying again");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn follow(&self, seen: &mut Option<u64>) -> anyhow::Result<()> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("understudy_directive").await?;
        // Whatever was told while nobody listened.
        self.changed();
        loop {
            let version = link::directive_version(&self.pool).await?;
            if seen.replace(version) != Some(version) {
                self.changed();
            }
            // A notification comes when its change is committed; the sequence may have risen long before.
            if let Ok(heard) = tokio::time::timeout(POLL, listener.recv()).await {
                heard?;
                self.changed();
            }
        }
    }

    /// Asks the source gateway something.
    pub(crate) fn ask(&self, what: Asked) -> Question {
        let (sender, answer) = oneshot::channel();
        let (frame_sender, frames) = mpsc::channel(FRAMES_AHEAD);
        let id = Uuid::now_v7();
        let request = Request { id, what };
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Open { request, answer: sender, frames: Some(frame_sender) });
        self.changed();
        Question { board: self.clone(), id, answer, frames }
    }

    /// The source gateway answered.
    pub(crate) fn answered(&self, report: Report) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&report.id);
        if let Some(open) = open {
            let _ = open.answer.send(report.outcome);
        }
    }

    /// Where the frames of an inventory go; `None` when nobody asked, or they are coming already.
    pub(crate) fn frames(&self, id: Uuid) -> Option<mpsc::Sender<InventoryFrame>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id)?.frames.take()
    }

    /// The content that was asked for under this number, and whose it is.
    pub(crate) fn content(&self, id: Uuid) -> Option<(TenantId, ContentRef)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &open.get(&id)?.request.what {
            Asked::Content { tenant, content, .. } => Some((*tenant, *content)),
            _ => None,
        }
    }

    /// Waits until there is something newer than `seen`, at most `patience`, and says all of it.
    pub(crate) async fn newer_than(&self, seen: u64, patience: Duration) -> anyhow::Result<Directives> {
        let mut version = self.version.subscribe();
        let _ = tokio::time::timeout(patience, version.wait_for(|version| *version != seen)).await;
        let version = *version.borrow();
        if version == seen {
            return Ok(Directives { version, ..Directives::default() });
        }
        let requests = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.values().map(|open| open.request.clone()).collect()
        };
        Ok(Directives {
            version,
            servers: link::primaries(&self.pool).await?,
            mailboxes: link::assignments(&self.pool).await?,
            requests,
            part_keys: part::keys(&self.pool).await?,
            limits: line::limits(&self.pool).await.map(|set| Limits { wire: set.wire, seeding: set.seeding })?,
        })
    }
}
