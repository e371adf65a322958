//! Hands mailboxes with received transactions to appliers, several side by side, one applier a mailbox.
//!
//! In: nudges from ingest; a timer that asks the database. Keeps true: a lost nudge costs a second; a mailbox that fails
//! waits by itself and stops no other.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_database::{brake, continuity, journal, mirror};
use understudy_protocol::MailboxId;

use crate::{
    applier::{Applier, Ended, LateOrders, REBUILD_PAUSE, Repairs, Resets},
    brake::BrakeConfig,
    numbering::Patience,
    quiet::Quiets,
    standby::Standbys,
    store::Store,
};

/// Appliers at work at once.
const APPLIERS: usize = 24;
/// What a new mailbox counts, of which nobody has asked anything.
const FIRST_ATTEMPT: i32 = 1;
/// How often the database is asked for work nobody was nudged about.
const POLL: Duration = Duration::from_secs(1);
/// How often what is no longer protected is cleared away.
const TIDY_PAUSE: Duration = Duration::from_secs(600);
/// How often the database is asked for folders to rebuild; the first time at once, for what was interrupted.
const REBUILD_POLL: Duration = Duration::from_secs(10);
/// How often the database is asked for messages that a standby refused; a mailbox's turn comes when it has rested.
const REFUSED_POLL: Duration = Duration::from_secs(30);
/// The first wait after a failure, …
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// … doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Tells the dispatcher about work. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Applying {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Notify,
    repairs: Arc<Repairs>,
    late: Arc<LateOrders>,
    resets: Arc<Resets>,
    quiets: Quiets,
    /// Who waits for an applier of a mailbox to end.
    progress: Mutex<HashMap<MailboxId, Arc<Notify>>>,
}

#[derive(Default)]
struct Work {
    waiting: BTreeSet<MailboxId>,
    under_way: HashSet<MailboxId>,
    /// Mailboxes that failed: when to try again, how long the wait was, and the attempt it was.
    failed: HashMap<MailboxId, Failed>,
}

#[derive(Clone, Copy)]
struct Failed {
    until: Instant,
    backoff: Duration,
}

impl Applying {
    /// This mailbox has something to apply.
    pub(crate) fn received(&self, mailbox: MailboxId) {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).waiting.insert(mailbox);
        self.shared.changed.notify_one();
    }

    /// Notified when an applier of this mailbox ends next.
    pub(crate) fn progress(&self, mailbox: MailboxId) -> Arc<Notify> {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.entry(mailbox).or_default().clone()
    }

    /// What waits to be repaired.
    pub(crate) fn repairs(&self) -> &Arc<Repairs> {
        &self.shared.repairs
    }

    /// Folders of a standby that are others than were filled.
    pub(crate) fn resets(&self) -> &Arc<Resets> {
        &self.shared.resets
    }

    /// Where mail that came late to the standby is looked for.
    pub(crate) fn late(&self) -> &Arc<LateOrders> {
        &self.shared.late
    }

    /// Mailboxes that change sides just now.
    pub(crate) fn quiets(&self) -> &Quiets {
        &self.shared.quiets
    }

    /// Is an applier at work in this mailbox?
    pub(crate) fn is_under_way(&self, mailbox: MailboxId) -> bool {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).under_way.contains(&mailbox)
    }

    /// A mailbox may be worked on again.
    pub(crate) fn look_again(&self) {
        self.shared.changed.notify_one();
    }

    /// The next mailbox that may be worked on.
    fn take(&self) -> Option<MailboxId> {
        let mut work = self.shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        if work.under_way.len() >= APPLIERS {
            return None;
        }
        let now = Instant::now();
        let ready = |mailbox: &&MailboxId| {
            !work.under_way.contains(mailbox)
                && !self.shared.quiets.is_stopped(**mailbox)
                && work.failed.get(mailbox).is_none_or(|failed| failed.until <= now)
        };
        let mailbox = work.waiting.iter().find(ready).copied()?;
        work.waiting.remove(&mailbox);
        work.under_way.insert(mailbox);
        Some(mailbox)
    }

    fn ended(&self, mailbox: MailboxId, ended: Ended) {
        let mut work = self.shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.under_way.remove(&mailbox);
        match ended {
            Ended::Idle => {
                work.failed.remove(&mailbox);
            }
            Ended::Failed => {
                let backoff =
                    work.failed.get(&mailbox).map_or(FIRST_BACKOFF, |failed| (failed.backoff * 2).min(LONGEST_BACKOFF));
                let until = Instant::now() + backoff.mul_f64(rand::random_range(0.75..1.25));
                work.failed.insert(mailbox, Failed { until, backoff });
                work.waiting.insert(mailbox);
            }
        }
        drop(work);
        self.shared.changed.notify_one();
        let waiting = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&mailbox);
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }

    /// A person asked to try again at once.
    fn forgive(&self, mailbox: MailboxId) {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).failed.remove(&mailbox);
    }

    fn add(&self, mailboxes: Vec<MailboxId>) {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).waiting.extend(mailboxes);
    }
}

/// The task that hands out work.
pub(crate) struct Dispatcher {
    pool: PgPool,
    applying: Applying,
    applier: Arc<Applier>,
    /// How often a person asked for each mailbox; none before it was first looked.
    attempts: Option<HashMap<MailboxId, i32>>,
}

impl Dispatcher {
    pub(crate) fn new(pool: PgPool, store: Store, brake: BrakeConfig) -> Self {
        let applying = Applying::default();
        let applier = Arc::new(Applier {
            pool: pool.clone(),
            store,
            standbys: Standbys::default(),
            patience: Patience::default(),
            brake,
            repairs: applying.repairs().clone(),
            late: applying.late().clone(),
            resets: applying.resets().clone(),
            quiets: applying.quiets().clone(),
            retried: Mutex::default(),
        });
        Self { pool, applying, applier, attempts: None }
    }

    pub(crate) fn handle(&self) -> Applying {
        self.applying.clone()
    }

    /// Runs until `shutdown`; what is being applied then is finished or left to be found again.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidied_at = Instant::now();
        // At once: a person may have asked for it while we were not running.
        let mut refused_at = None;
        let mut rebuilds_at = None;
        let shared = self.applying.shared.clone();
        loop {
            let changed = shared.changed.notified();
            while let Some(mailbox) = self.applying.take() {
                let (applier, applying, shutdown) = (self.applier.clone(), self.applying.clone(), shutdown.clone());
                tasks.spawn(async move {
                    let ended = Box::pin(applier.run(mailbox, &shutdown)).await;
                    applying.ended(mailbox, ended);
                });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed => {}
                _ = poll.tick() => {
                    if let Err(error) = self.find_work(&mut tidied_at, &mut refused_at, &mut rebuilds_at).await {
                        tracing::warn!(error = %error, "Could not look for work; trying again");
                    }
                    self.applier.standbys.close_idle().await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        self.applier.standbys.close_all().await;
    }

    async fn find_work(
        &mut self,
        tidied_at: &mut Instant,
        refused_at: &mut Option<Instant>,
        rebuilds_at: &mut Option<Instant>,
    ) -> understudy_database::Result<()> {
        // What a person asked for before we ran is done anyway, for everybody; a mailbox that came since then begins with one.
        let began = self.attempts.is_some();
        let attempts = self.attempts.get_or_insert_default();
        for (mailbox, attempt) in journal::attempts(&self.pool).await? {
            let before = attempts.insert(mailbox, attempt).or(began.then_some(FIRST_ATTEMPT));
            if before.is_some_and(|before| before != attempt) {
                self.applying.forgive(mailbox);
                self.applying.add(vec![mailbox]);
            }
        }
        self.applying.add(journal::behind(&self.pool).await?);
        if rebuilds_at.is_none_or(|at| at.elapsed() >= REBUILD_POLL) {
            *rebuilds_at = Some(Instant::now());
            self.applying.add(continuity::mailboxes_due(&self.pool, REBUILD_PAUSE).await?);
        }
        if refused_at.is_none_or(|at| at.elapsed() >= REFUSED_POLL) {
            *refused_at = Some(Instant::now());
            let refused = mirror::mailboxes_with_refused(&self.pool).await?;
            self.applying.add(refused.into_iter().filter(|&mailbox| self.applier.has_rested(mailbox)).collect());
        }
        if tidied_at.elapsed() >= TIDY_PAUSE {
            *tidied_at = Instant::now();
            let mut db = self.pool.acquire().await?;
            mirror::forget_unprotected(&mut db).await?;
            brake::forget_unprotected(&mut db).await?;
        }
        Ok(())
    }
}
