//! Applies received transactions to the standby, one mailbox at a time.
//!
//! In: journal rows in `seq` order. Out: IMAP commands on the standby; completed rows.
//! Keeps true: messages are appended only after an intent says from which UID on they are ours; a transaction is completed
//! only after its commands' tagged OK, together with the UID map it led to.
//! Not here: deciding the steps (`replication::plan`), choosing mailboxes (`dispatcher`).

mod again;
mod continuity;
mod folders;
mod late;
mod messages;
mod rebuild;
mod refusals;
mod release;
mod repair;
mod swap;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    brake as parked,
    content::Place,
    continuity::Continuity,
    event,
    journal::{self, Intent, Target},
    mirror::{self, Effects, MirrorFolder},
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Error, FolderName};
use understudy_protocol::{
    ContentRef, Digest, FolderId, MailboxId, ModSeq, Seq, Transaction, Uid, UidValidity, messages::Trouble,
};
use understudy_replication::{
    plan::{Step, plan},
    trouble::explain,
};

use self::{
    again::{Again, BEGUN, StandbyReset, Stopped, gives_again, is_another},
    continuity::Raise,
};
use crate::{
    brake::{self, BrakeConfig, Parking},
    numbering::Patience,
    quiet::Quiets,
    standby::{Standby, Standbys},
    store::{Missing, Store, database_full},
    strays::{self, Strays},
};

pub(crate) use again::{Resets, is_another as is_another_folder};
pub(crate) use late::LateOrders;
pub(crate) use repair::{Outcome as RepairOutcome, Repairs};

/// Messages that a standby refused are tried again after this, room or no room.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// A folder rebuilt by itself is not rebuilt by itself again for this long, so that nothing goes round in circles.
pub(crate) const REBUILD_PAUSE: Duration = Duration::from_secs(3600);
/// Refused messages tried again at once, …
const REFUSED_BATCH: i64 = 50;
/// … and in one round, unless a person asked: the next round goes on after them.
const REFUSED_ROUND: usize = 500;
/// Before every message.
const FIRST: (FolderId, Uid) = (FolderId(0), Uid(0));

/// Whether all refused messages are tried again, or a round of them.
struct All(bool);

/// How a mailbox's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is left to apply, or it may not be applied now.
    Idle,
    Failed,
}

/// Applies whatever mailbox it is given.
pub(crate) struct Applier {
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    pub(crate) standbys: Standbys,
    pub(crate) patience: Patience,
    pub(crate) brake: BrakeConfig,
    pub(crate) repairs: Arc<Repairs>,
    pub(crate) late: Arc<LateOrders>,
    pub(crate) resets: Arc<Resets>,
    pub(crate) quiets: Quiets,
    /// When messages that a standby refused were tried last.
    pub(crate) retried: Mutex<HashMap<MailboxId, Retried>>,
}

/// Messages that a standby refused, tried again.
pub(crate) struct Retried {
    at: Instant,
    /// Of a person.
    attempt: i32,
    /// The last message tried: the next round begins after it.
    through: (FolderId, Uid),
}

impl Applier {
    /// Is it time to try again what the standby refused? All of it, when a person asked.
    fn retry_is_due(&self, target: &Target) -> Option<All> {
        let mut retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        let known = retried.get(&target.mailbox);
        let asked = known.is_some_and(|known| known.attempt != target.attempt);
        if known.is_some_and(|known| !asked && known.at.elapsed() < REFUSED_PAUSE) {
            return None;
        }
        let through = known.map_or(FIRST, |known| known.through);
        retried.insert(target.mailbox, Retried { at: Instant::now(), attempt: target.attempt, through });
        Some(All(asked))
    }

    /// Have a mailbox's refused messages rested long enough?
    pub(crate) fn has_rested(&self, mailbox: MailboxId) -> bool {
        let retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        retried.get(&mailbox).is_none_or(|known| known.at.elapsed() >= REFUSED_PAUSE)
    }

    /// Behind which refused message the next round begins.
    fn refused_after(&self, mailbox: MailboxId) -> (FolderId, Uid) {
        let retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        retried.get(&mailbox).map_or(FIRST, |known| known.through)
    }

    fn tried_refused(&self, mailbox: MailboxId, through: (FolderId, Uid)) {
        if let Some(known) = self.retried.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&mailbox) {
            known.through = through;
        }
    }

    /// Applies everything received of a mailbox.
    pub(crate) async fn run(&self, mailbox: MailboxId, shutdown: &CancellationToken) -> Ended {
        let target = match journal::target(&self.pool, mailbox).await {
            Ok(Some(target)) if !target.stopped => target,
            Ok(_) => return Ended::Idle,
            Err(error) => {
                tracing::warn!(mailbox.id = %mailbox, error = %error, "Could not read the journal; trying again");
                return Ended::Failed;
            }
        };
        let mut reset: BTreeSet<FolderId> = BTreeSet::new();
        loop {
            let Err(error) = self.apply_all(&target, shutdown).await else { return Ended::Idle };
            if error.is::<Stopped>() {
                return Ended::Idle;
            }
            // A folder that is another one than was filled: it is applied again, and then what waited for it.
            if let Some(folder) = error.downcast_ref::<StandbyReset>().and_then(StandbyReset::folder)
                && reset.insert(folder)
                && self.resets.may(&target, folder)
                && !shutdown.is_cancelled()
            {
                self.resets.note_for_sure(mailbox, folder);
                continue;
            }
            self.report(&target, &error).await;
            return Ended::Failed;
        }
    }

    async fn apply_all(&self, target: &Target, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mailbox = target.mailbox;
        let standby = self.standbys.open(target).await?;
        let folders = mirror::folders(&self.pool, mailbox).await?;
        let mut work = Work {
            applier: self,
            target,
            standby,
            folders: folders.into_iter().map(|folder| (folder.folder, folder)).collect(),
            effects: Effects::default(),
            strays: Strays::default(),
            places: HashMap::new(),
            floors: BTreeMap::new(),
            raises: BTreeMap::new(),
            expunged: false,
            seq: Seq(0),
            keeps_all: false,
            parking: Parking::default(),
            parked: parked::any(&self.pool, mailbox).await?,
        };
        match work.turn(shutdown).await {
            Ok(true) => self.standbys.keep(mailbox, work.standby).await,
            Ok(false) => {}
            Err(error) => return Err(work.explain_reset(error).await),
        }
        Ok(())
    }

    async fn clear_trouble(&self, mailbox: MailboxId) -> anyhow::Result<()> {
        if journal::standby_trouble(&self.pool, mailbox, None).await? {
            let detail = json!({ "side": "standby", "trouble": null });
            event::record(&self.pool, "trouble", Some(mailbox), None, &detail).await?;
        }
        Ok(())
    }

    /// Tells people why a mailbox is not applied.
    async fn report(&self, target: &Target, error: &anyhow::Error) {
        let trouble = trouble(&target.standby.name, error);
        tracing::warn!(mailbox.id = %target.mailbox, server.name = target.standby.name, kind = trouble.kind,
            "Applying stopped; trying again");
        metrics::counter!("understudy_apply_errors_total", "reason" => trouble.kind.clone()).increment(1);
        let noted = async {
            if journal::standby_trouble(&self.pool, target.mailbox, Some(&trouble)).await? {
                let detail = json!({ "side": "standby", "trouble": trouble });
                event::record(&self.pool, "trouble", Some(target.mailbox), None, &detail).await?;
            }
            understudy_database::Result::<()>::Ok(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(mailbox.id = %target.mailbox, error = %error, "Could not note the trouble");
        }
    }
}

/// An error of applying, for a person.
fn trouble(server: &str, error: &anyhow::Error) -> Trouble {
    if let Some(trouble) = database_full(error.as_ref()) {
        return trouble;
    }
    if let Some(Error::Source(cause)) = error.downcast_ref::<Error>()
        && cause.kind() == std::io::ErrorKind::InvalidData
    {
        return Trouble {
            kind: "content_damaged".to_owned(),
            reason: cause.to_string(),
            remedy: "Restore the content store from its backup, or unprotect the mailbox and protect it again."
                .to_owned(),
            fault: true,
        };
    }
    if let Some(reset) = error.downcast_ref::<StandbyReset>() {
        return Trouble {
            kind: "standby_reset".to_owned(),
            reason: format!("{server}: {error}"),
            remedy: reset.remedy().to_owned(),
            fault: true,
        };
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return explain(server, error);
    }
    if let Some(error) = error.downcast_ref::<understudy_doveadm::Error>() {
        return error.trouble(server);
    }
    let missing = error.is::<Missing>();
    Trouble {
        kind: if missing { "content_missing" } else { "internal" }.to_owned(),
        reason: format!("{error:#}"),
        remedy: if missing {
            "Restore the content store from its backup, or unprotect and protect the mailbox again."
        } else {
            "It is tried again by itself; the log of the recovery gateway says more."
        }
        .to_owned(),
        fault: missing,
    }
}

/// One mailbox being worked on.
struct Work<'a> {
    applier: &'a Applier,
    target: &'a Target,
    standby: Standby,
    folders: BTreeMap<FolderId, MirrorFolder>,
    /// What the transaction at hand has changed so far.
    effects: Effects,
    strays: Strays,
    /// Where the contents rest that the transaction at hand adds, if it adds to several folders.
    places: HashMap<Digest, Place>,
    /// How high the transaction at hand wants each folder's MODSEQ on the standby.
    floors: BTreeMap<FolderId, ModSeq>,
    /// Numbers to raise before the folder is worked on.
    raises: BTreeMap<FolderId, Raise>,
    /// Room may have been made for messages that were refused.
    expunged: bool,
    /// Of the transaction at hand.
    seq: Seq,
    /// What is found on the standby is taken over or left there, never removed.
    keeps_all: bool,
    /// What of it waits for a person.
    parking: Parking,
    /// Something waits for a person, or is kept by one's word, from before.
    parked: bool,
}

impl Work<'_> {
    fn pool(&self) -> &PgPool {
        &self.applier.pool
    }

    fn mailbox(&self) -> MailboxId {
        self.target.mailbox
    }

    fn folder(&self, folder: FolderId) -> anyhow::Result<&MirrorFolder> {
        self.folders.get(&folder).with_context(|| format!("the journal names folder {folder}, which it never created"))
    }

    fn name(&self, folder: FolderId) -> anyhow::Result<FolderName> {
        Ok(FolderName::new(self.folder(folder)?.standby_name.as_str()))
    }

    /// Everything that is to be done now. Answers whether the session may be kept.
    async fn turn(&mut self, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let (applier, mailbox) = (self.applier, self.mailbox());
        self.finish_swaps().await?;
        // A folder that is another one than was filled may wait for just this.
        self.release().await?;
        self.recover().await?;
        self.apply_resets().await?;
        // The log-in worked, so whatever stood in the way does not any more.
        applier.clear_trouble(mailbox).await?;
        while let Some((transaction, stopped)) = journal::next_received(self.pool(), mailbox).await? {
            if shutdown.is_cancelled() || stopped {
                return Ok(false);
            }
            self.release().await?;
            self.apply(&transaction).await?;
        }
        self.release().await?;
        self.repair_ordered().await?;
        self.late_ordered().await;
        let due = applier.retry_is_due(self.target);
        if self.expunged || due.is_some() {
            self.retry_refused(due.is_some_and(|All(all)| all)).await?;
        }
        self.rebuild_lost().await?;
        Ok(true)
    }

    /// Finds what an interrupted transaction left on the standby; its messages become strays, to be taken over when it is
    /// applied again.
    async fn recover(&mut self) -> anyhow::Result<()> {
        let Some(intent) = journal::intent(self.pool(), self.mailbox()).await? else { return Ok(()) };
        let (mut again, mut reset) = (None, Vec::new());
        for (folder, (uid_validity, from)) in intent.folders {
            // A folder that the interrupted transaction itself created is looked through when it is created again.
            let Ok(name) = self.name(folder) else { continue };
            let known = self.folder(folder)?.standby_uid_validity;
            if from == BEGUN || (![known, uid_validity].contains(&UidValidity(0)) && known != uid_validity) {
                // It was being applied again: a part of the map may be of this folder and a part of the one before.
                again = Some(folder);
                continue;
            }
            // Renamed, and that not noted yet: nothing had been appended.
            let Some(opened) = self.standby.examine(&name).await? else { continue };
            if is_another(self.folder(folder)?, opened.uid_validity, opened.uid_next) {
                // What had been appended may stand anywhere in it.
                reset.push(folder);
                continue;
            }
            let found =
                strays::find(&self.applier.pool, &mut self.standby, self.target.mailbox, folder, &name, from).await?;
            self.effects.strays.extend(found);
        }
        failpoint::here("strays.found");
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &self.effects).await?;
        if again.is_none() && reset.is_empty() {
            journal::settle(&mut *db, self.target.mailbox).await?;
        }
        db.commit().await?;
        self.effects = Effects::default();
        if let Some(folder) = again {
            self.apply_again(folder, Again::Interrupted).await?;
        }
        for folder in reset {
            self.apply_reset(folder, true).await?;
        }
        failpoint::here("strays.recorded");
        Ok(())
    }

    /// Applies one transaction: intent, effect, completion.
    async fn apply(&mut self, transaction: &Transaction) -> anyhow::Result<()> {
        let started = Instant::now();
        failpoint::here("apply.taken");
        let steps = plan(&transaction.changes);
        self.seq = transaction.seq;
        self.parking = brake::judge(&self.applier.brake, self.pool(), transaction, &self.folders).await?;
        let intent = self.intent(&steps);
        if !intent.folders.is_empty() {
            journal::begin(self.pool(), self.mailbox(), transaction.seq, &intent).await?;
            failpoint::here("apply.intended");
        }
        self.places = self.places_of(&steps).await?;
        self.take_floors(transaction);
        let mut at = 0;
        while at < steps.len() {
            at += self.step(&steps[at..]).await?;
        }
        if steps.iter().any(|step| matches!(step, Step::Delete { .. } | Step::Rename { .. })) {
            self.restore_levels().await?;
        }
        for (folder, position) in &transaction.position.folders {
            if let Some(known) = self.folders.get_mut(folder) {
                known.position = *position;
                self.effects.folders.insert(*folder, known.clone());
                self.want_uid_next(*folder, position.uid_next);
            }
        }
        self.raise().await?;
        self.complete(transaction).await?;
        let kind = if transaction.seed { "seed" } else { "live" };
        metrics::counter!("understudy_transactions_applied_total", "kind" => kind).increment(1);
        if !transaction.seed {
            let lag = (chrono::Utc::now() - transaction.captured_at).to_std().unwrap_or_default();
            metrics::histogram!("understudy_lag_seconds").record(lag.as_secs_f64());
        }
        tracing::debug!(mailbox.id = %self.mailbox(), txn.seq = %transaction.seq, changes = transaction.changes.len(),
            duration_ms = started.elapsed().as_millis(), "Applied transaction {}", transaction.seq);
        Ok(())
    }

    /// Where the contents of all additions rest: one question instead of one a folder.
    async fn places_of(&self, steps: &[Step]) -> anyhow::Result<HashMap<Digest, Place>> {
        let added = |step: &Step| match step {
            Step::Append { messages, .. } => messages.iter().map(|message| message.content).collect(),
            _ => Vec::new(),
        };
        let folders = steps.iter().filter(|step| matches!(step, Step::Append { .. })).count();
        if folders < 2 {
            return Ok(HashMap::new());
        }
        let wanted: Vec<ContentRef> = steps.iter().flat_map(added).collect();
        self.applier.store.places(self.target.tenant, &wanted).await
    }

    /// Which folders get messages, and from which UID on these will be ours.
    fn intent(&self, steps: &[Step]) -> Intent {
        let folders = steps
            .iter()
            .filter_map(|step| match step {
                Step::Append { folder, .. } => Some(*folder),
                _ => None,
            })
            .map(|folder| {
                let known = self.folders.get(&folder);
                let (validity, next) = known
                    .map_or((UidValidity(0), Uid(1)), |known| (known.standby_uid_validity, known.standby_uid_next));
                (folder, (validity, next))
            })
            .collect();
        Intent { folders }
    }

    async fn complete(&mut self, transaction: &Transaction) -> anyhow::Result<()> {
        let effects = std::mem::take(&mut self.effects);
        let parking = std::mem::take(&mut self.parking);
        let mut db = self.applier.pool.begin().await?;
        parking.before(&mut db, self.target.mailbox, transaction.seq).await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        if self.parked || parking.holds() {
            let added = brake::added(&effects, &self.folders);
            parking.after(&mut db, self.target.mailbox, transaction.seq, &added).await?;
        }
        if journal::complete(&mut db, self.target.mailbox, transaction.seq).await? {
            let detail = json!({ "state": "mirroring" });
            event::record(&mut *db, "state", Some(self.target.mailbox), None, &detail).await?;
        }
        for lost in effects.continuity.iter().filter_map(|folder| effects.folders.get(folder)) {
            if let Continuity::Lost { reason } = &lost.continuity {
                let detail = json!({ "folder": lost.path.to_string(), "kept": false, "reason": reason });
                event::record(&mut *db, "uid_continuity", Some(self.target.mailbox), None, &detail).await?;
            }
        }
        failpoint::here("complete.written");
        db.commit().await?;
        failpoint::here("complete.committed");
        if parking.holds() {
            self.parked = true;
            let (store, tenant) = (&self.applier.store, self.target.tenant);
            if let Err(error) = brake::describe(&self.applier.pool, store, tenant, self.target.mailbox).await {
                tracing::warn!(mailbox.id = %self.mailbox(), error = format!("{error:#}"), "Could not read subjects of what is held");
            }
        }
        self.strays = Strays::default();
        Ok(())
    }

    /// Takes the next step, and those that go with it. Answers how many.
    async fn step(&mut self, steps: &[Step]) -> anyhow::Result<usize> {
        match &steps[0] {
            Step::Create { folder, path, uid_validity, special_use, selectable } => {
                self.create(*folder, path, *uid_validity, special_use, *selectable).await?;
            }
            Step::Rename { folder, path } => self.rename(*folder, path).await?,
            Step::SpecialUses { folder, special_use } => self.set_special_uses(*folder, special_use).await?,
            Step::Subscribe { path, subscribed } => self.subscribe(path, *subscribed).await?,
            Step::Append { folder, messages } => self.append(*folder, messages).await?,
            Step::SetFlags { folder, .. } | Step::Expunge { folder, .. } => {
                return self.store(*folder, steps).await;
            }
            Step::Delete { folder } => self.delete(*folder).await?,
        }
        Ok(1)
    }
}

/// The outcome of a command that the standby may refuse.
fn unless_refused(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Refused { .. }) => Ok(()),
        outcome => outcome,
    }
}
