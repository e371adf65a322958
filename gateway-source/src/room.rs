//! How much the journal here may hold: a recovery site that takes nothing must not fill this machine.
//!
//! In: what is captured. Out: leave to go on, or a wait until the recovery site has taken enough.
//! Keeps true: memory holds at most one transaction a mailbox beyond what the journal may; live changes find room for longer than first
//! copies do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};
use understudy_database::source;
use understudy_protocol::{MailboxId, messages::Trouble};

use crate::supervisor::Reports;

/// While it is full, what is held is counted this often.
const PAUSE: Duration = Duration::from_millis(250);

/// The room in the journal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Room {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    limit: u64,
    /// At least what is held, in bytes: what was counted last, and what was captured since.
    held: AtomicU64,
    counted: Mutex<Option<Instant>>,
    reports: Reports,
}

impl Room {
    pub(crate) async fn open(pool: &PgPool, limit: u64, reports: Reports) -> understudy_database::Result<Self> {
        let held = source::held(pool).await?;
        metrics::gauge!("understudy_source_journal_limit_bytes").set(limit as f64);
        let shared = Shared {
            pool: pool.clone(),
            limit: limit.max(1),
            held: AtomicU64::new(held),
            counted: Mutex::default(),
            reports,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// So much was captured.
    pub(crate) fn captured(&self, bytes: u64) {
        self.shared.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until there is room. First copies leave a quarter of it to live changes.
    pub(crate) async fn wait(&self, mailbox: MailboxId, seed: bool) -> understudy_database::Result<()> {
        let limit = if seed { self.shared.limit - self.shared.limit / 4 } else { self.shared.limit };
        if self.shared.held.load(Ordering::Relaxed) < limit {
            return Ok(());
        }
        let mut waiting = None;
        while self.count().await? >= limit {
            if waiting.is_none() {
                waiting = Some(Waiting::new());
                tracing::warn!(mailbox.id = %mailbox, bytes = limit, seed, "The journal is full; capturing waits for the recovery site");
                self.shared.reports.trouble(mailbox, journal_full(self.shared.limit, seed));
            }
            tokio::time::sleep(PAUSE).await;
        }
        if waiting.is_some() {
            tracing::info!(mailbox.id = %mailbox, "There is room in the journal again; capturing goes on");
        }
        Ok(())
    }

    /// What is held, counted a moment ago at most.
    async fn count(&self) -> understudy_database::Result<u64> {
        let mut counted = self.shared.counted.lock().await;
        if counted.is_none_or(|at| at.elapsed() >= PAUSE / 2) {
            let held = source::held(&self.shared.pool).await?;
            self.shared.held.store(held, Ordering::Relaxed);
            metrics::gauge!("understudy_source_journal_bytes").set(held as f64);
            *counted = Some(Instant::now());
        }
        Ok(self.shared.held.load(Ordering::Relaxed))
    }
}

/// Counts those who wait, however their wait ends.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        metrics::gauge!("understudy_source_waiting_for_room").increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("understudy_source_waiting_for_room").decrement(1.0);
    }
}

fn journal_full(limit: u64, seed: bool) -> Trouble {
    let what = if seed { "first copies wait" } else { "capturing waits" };
    Trouble {
        kind: "journal_full".to_owned(),
        reason: format!(
            "The source gateway keeps {} MB that the recovery site has not taken: {what}. Nothing is lost, the primary still has it all.",
            limit / 1_000_000
        ),
        remedy: "Bring the recovery site or the link back; it goes on by itself. To wait longer, raise `journal_limit` under [source]."
            .to_owned(),
        fault: true,
    }
}

/// No room on this machine, where an error says so.
pub(crate) fn disk_full(error: &anyhow::Error) -> Option<Trouble> {
    let io_full = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| {
            matches!(cause.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        })
    });
    // 53100: disk_full.
    let database_full = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        cause.and_then(|cause| cause.code()).is_some_and(|code| code == "53100")
    });
    let (kind, what) = match (io_full, database_full) {
        (true, _) => ("source_disk_full", "folder `spool`"),
        (_, true) => ("source_database_full", "database"),
        _ => return None,
    };
    Some(Trouble {
        kind: kind.to_owned(),
        reason: format!(
            "The source gateway's {what} has no room: {error:#}. Nothing is lost, the primary still has it all."
        ),
        remedy: format!("Make room on the disk that holds the source gateway's {what}; it goes on by itself."),
        fault: true,
    })
}
