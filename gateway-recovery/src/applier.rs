//! Applies received transactions to the standby, one mailbox at a time.
//!
//! In: journal rows in `seq` order. Out: IMAP commands on the standby; completed rows.
//! Keeps true: messages are appended only after an intent says from which UID on they are ours; a transaction is completed
//! only after its commands' tagged OK, together with the UID map it led to.
//! Not here: deciding the steps (`replication::plan`), choosing mailboxes (`dispatcher`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    event,
    journal::{self, Intent, Target},
    mirror::{self, Effects, MirrorFolder, MirrorMessage, SetAside},
};
use understudy_imap_session::{Command, Error, FolderName, Tagged};
use understudy_protocol::{
    AddedMessage, ContentRef, Digest, FolderId, FolderPath, FolderPosition, MailboxId, Seq, Transaction, Uid, UidSet,
    UidValidity, messages::Trouble,
};
use understudy_replication::{
    folders::rebase,
    plan::{Step, is_system_flag, plan},
    trouble::explain,
};

use crate::{
    append::{self, Outcome},
    standby::{Standby, Standbys},
    store::{Missing, Store},
    strays::{self, Strays, Wanted},
};

/// Messages that a standby refused are tried again after this, room or no room.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// Refused messages tried again at once.
const REFUSED_BATCH: i64 = 50;

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
    /// When messages that a standby refused were tried last, and at which attempt of a person.
    pub(crate) retried: Mutex<HashMap<MailboxId, (Instant, i32)>>,
}

impl Applier {
    /// Is it time to try again what the standby refused?
    fn retry_is_due(&self, target: &Target) -> bool {
        let mut retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        let due = retried
            .get(&target.mailbox)
            .is_none_or(|(at, attempt)| at.elapsed() >= REFUSED_PAUSE || *attempt != target.attempt);
        if due {
            retried.insert(target.mailbox, (Instant::now(), target.attempt));
        }
        due
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
        match self.apply_all(&target, shutdown).await {
            Ok(()) => Ended::Idle,
            Err(error) => {
                self.report(&target, &error).await;
                Ended::Failed
            }
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
            expunged: false,
        };
        work.recover().await?;
        // The log-in worked, so whatever stood in the way does not any more.
        self.clear_trouble(mailbox).await?;
        while let Some(transaction) = journal::next_received(&self.pool, mailbox).await? {
            if shutdown.is_cancelled() || self.is_stopped(mailbox).await? {
                return Ok(());
            }
            work.apply(&transaction).await?;
        }
        if work.expunged || self.retry_is_due(target) {
            work.retry_refused().await?;
        }
        self.standbys.keep(mailbox, work.standby);
        Ok(())
    }

    async fn is_stopped(&self, mailbox: MailboxId) -> anyhow::Result<bool> {
        Ok(journal::target(&self.pool, mailbox).await?.is_none_or(|target| target.stopped))
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
    if error.is::<StandbyReset>() {
        return Trouble {
            kind: "standby_reset".to_owned(),
            reason: format!("{server}: {error}"),
            remedy:
                "Unprotect the mailbox and protect it again: messages that are still there are recognised, not copied \
                     twice."
                    .to_owned(),
            fault: true,
        };
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return explain(server, error);
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
    /// Room may have been made for messages that were refused.
    expunged: bool,
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

    /// Finds what an interrupted transaction left on the standby; its messages become strays, to be taken over when it is
    /// applied again.
    async fn recover(&mut self) -> anyhow::Result<()> {
        let Some(intent) = journal::intent(self.pool(), self.mailbox()).await? else { return Ok(()) };
        for (folder, (_, from)) in intent.folders {
            // A folder that the interrupted transaction itself created is looked through when it is created again.
            let Ok(name) = self.name(folder) else { continue };
            let found =
                strays::find(&self.applier.pool, &mut self.standby, self.target.mailbox, folder, &name, from).await?;
            self.effects.strays.extend(found);
        }
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &self.effects).await?;
        journal::settle(&mut *db, self.target.mailbox).await?;
        db.commit().await?;
        self.effects = Effects::default();
        Ok(())
    }

    /// Applies one transaction: intent, effect, completion.
    async fn apply(&mut self, transaction: &Transaction) -> anyhow::Result<()> {
        let started = Instant::now();
        let steps = plan(&transaction.changes);
        let intent = self.intent(&steps);
        if !intent.folders.is_empty() {
            journal::begin(self.pool(), self.mailbox(), transaction.seq, &intent).await?;
        }
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
            }
        }
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
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        if journal::complete(&mut db, self.target.mailbox, transaction.seq).await? {
            let detail = json!({ "state": "mirroring" });
            event::record(&mut *db, "state", Some(self.target.mailbox), None, &detail).await?;
        }
        db.commit().await?;
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
            Step::Subscribe { path, subscribed } => self.subscribe(path, *subscribed).await?,
            Step::Append { folder, messages } => self.append(*folder, messages).await?,
            Step::SetFlags { folder, .. } | Step::Expunge { folder, .. } => {
                return self.store(*folder, steps).await;
            }
            Step::Delete { folder } => self.delete(*folder).await?,
        }
        Ok(1)
    }

    async fn create(
        &mut self,
        folder: FolderId,
        path: &FolderPath,
        uid_validity: UidValidity,
        special_use: &[String],
        selectable: bool,
    ) -> anyhow::Result<()> {
        let name = self.standby.session().name_for(path);
        let standby_name = spelled(&name);
        let shared = self.folders.values().any(|other| other.folder != folder && other.standby_name == standby_name);
        let mut created = MirrorFolder {
            folder,
            path: path.clone(),
            special_use: special_use.to_vec(),
            selectable,
            position: FolderPosition { uid_validity, uid_next: Uid(1), ..FolderPosition::default() },
            standby_name,
            standby_uid_validity: UidValidity(0),
            standby_uid_next: Uid(1),
        };
        if selectable {
            self.standby.session().create(&name, special_use).await?;
            self.standby.close().await?;
            if let Some(selected) = self.standby.select(&name).await? {
                created.standby_uid_validity = selected.uid_validity;
                // 0 where the server does not say.
                created.standby_uid_next = selected.uid_next.max(Uid(1));
                if selected.exists > 0 && !shared {
                    let found =
                        strays::find(&self.applier.pool, &mut self.standby, self.target.mailbox, folder, &name, Uid(1))
                            .await?;
                    self.strays.found(folder, found.clone());
                    self.effects.strays.extend(found);
                }
            }
        } else if let Some(level) = self.level(path) {
            // It comes with the folders it holds; some servers can make it without any.
            unless_refused(self.standby.session().create(&level, &[]).await)?;
        }
        self.effects.folders.insert(folder, created.clone());
        self.folders.insert(folder, created);
        Ok(())
    }

    /// A level may have gone with the last folder below it, though the primary still shows it.
    async fn restore_levels(&mut self) -> anyhow::Result<()> {
        let levels: Vec<FolderPath> =
            self.folders.values().filter(|folder| !folder.selectable).map(|folder| folder.path.clone()).collect();
        for path in levels {
            if let Some(level) = self.level(&path) {
                unless_refused(self.standby.session().create(&level, &[]).await)?;
            }
        }
        Ok(())
    }

    /// A name that asks for a level which only holds other folders: it ends in the separator (RFC 9051 §6.3.4).
    fn level(&mut self, path: &FolderPath) -> Option<FolderName> {
        let mut below = path.components().to_vec();
        below.push("x".to_owned());
        let name = self.standby.session().name_for(&FolderPath::new(below));
        name.as_bytes().strip_suffix(b"x").map(FolderName::new)
    }

    async fn rename(&mut self, folder: FolderId, path: &FolderPath) -> anyhow::Result<()> {
        let known = self.folder(folder)?;
        let (old, selectable) = (known.path.clone(), known.selectable);
        let from = self.name(folder)?;
        let to = self.standby.session().name_for(path);
        if selectable || self.folders.values().any(|other| other.path.is_below(&old)) {
            self.standby.close().await?;
            if let Err(error) = self.standby.session().rename(&from, &to).await {
                // Done already before a crash, or a level that the standby does not have.
                let there = self.standby.session().status(&from).await?.is_some();
                if there || !matches!(error, Error::Refused { .. }) {
                    return Err(error.into());
                }
                self.standby.session().create(&to, &[]).await?;
            }
        }
        let mut tree: BTreeMap<FolderId, FolderPath> =
            self.folders.values().map(|folder| (folder.folder, folder.path.clone())).collect();
        rebase(&mut tree, &old, path);
        for (id, path) in tree {
            let Some(known) = self.folders.get_mut(&id).filter(|known| known.path != path) else { continue };
            known.standby_name = spelled(&self.standby.session().name_for(&path));
            known.path = path;
            self.effects.folders.insert(id, known.clone());
        }
        Ok(())
    }

    async fn subscribe(&mut self, path: &FolderPath, subscribed: bool) -> anyhow::Result<()> {
        let name = self.standby.session().name_for(path);
        if !subscribed {
            unless_refused(self.standby.session().unsubscribe(&name).await)?;
        } else if let Err(error) = self.standby.session().subscribe(&name).await {
            if !matches!(error, Error::Refused { .. }) {
                return Err(error.into());
            }
            self.subscribe_to_nothing(path, &name).await?;
        }
        self.effects.subscriptions.push((path.clone(), subscribed));
        Ok(())
    }

    /// A subscription outlives its folder (RFC 9051 §6.3.7), but Dovecot takes none to a name without a folder: so there is
    /// one for a moment. A standby that still refuses has no such subscription; verification says so.
    async fn subscribe_to_nothing(&mut self, path: &FolderPath, name: &FolderName) -> anyhow::Result<()> {
        if self.folders.values().any(|folder| folder.path == *path) {
            return Ok(());
        }
        unless_refused(self.standby.session().create(name, &[]).await)?;
        unless_refused(self.standby.session().subscribe(name).await)?;
        unless_refused(self.standby.session().delete(name).await)?;
        Ok(())
    }

    /// Puts a batch of additions into their folder, or takes over messages that are there already.
    async fn append(&mut self, folder: FolderId, messages: &[AddedMessage]) -> anyhow::Result<()> {
        let name = self.name(folder)?;
        let wanted: Vec<ContentRef> = messages.iter().map(|message| message.content).collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; messages.len()];
        self.adopt_from_namesake(folder, messages, &mut outcomes).await?;
        self.adopt_strays(folder, messages, &wanted, &mut outcomes).await?;

        let rest: Vec<usize> = (0..messages.len()).filter(|&index| outcomes[index].is_none()).collect();
        if !rest.is_empty() {
            let wanted: Vec<ContentRef> = rest.iter().map(|&index| wanted[index]).collect();
            let mut contents = self.applier.store.contents(self.target.tenant, &wanted).await?;
            let to_append: Vec<&AddedMessage> = rest.iter().map(|&index| &messages[index]).collect();
            let done = append::append(&mut self.standby, &name, &to_append, &mut contents).await?;
            self.appended(folder, &done)?;
            for (index, outcome) in rest.into_iter().zip(done.outcomes) {
                outcomes[index] = Some(outcome);
            }
        }
        for (message, outcome) in messages.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|| Outcome::Refused("it was not tried".to_owned()));
            self.effects.added.push(mirrored(message, outcome));
        }
        Ok(())
    }

    /// Notes the folder's numbers after an append.
    fn appended(&mut self, folder: FolderId, done: &append::Done) -> anyhow::Result<()> {
        let highest = done
            .outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Stored(uid) | Outcome::Altered(uid, _) => Some(*uid),
                Outcome::Refused(_) => None,
            })
            .max();
        let (Some(uid_validity), Some(highest)) = (done.uid_validity, highest) else { return Ok(()) };
        let known = self.folders.get_mut(&folder).context("appended to a folder that is not there")?;
        if known.standby_uid_validity != uid_validity && known.standby_uid_validity != UidValidity(0) {
            return Err(StandbyReset.into());
        }
        known.standby_uid_validity = uid_validity;
        known.standby_uid_next = known.standby_uid_next.max(Uid(highest.0.saturating_add(1)));
        self.effects.folders.insert(folder, known.clone());
        Ok(())
    }

    /// A folder that came back under another UIDVALIDITY shares its standby folder with the one it replaces: what both
    /// have stays where it is.
    async fn adopt_from_namesake(
        &mut self,
        folder: FolderId,
        messages: &[AddedMessage],
        outcomes: &mut [Option<Outcome>],
    ) -> anyhow::Result<()> {
        let name = self.folder(folder)?.standby_name.clone();
        let namesakes: Vec<FolderId> = self
            .folders
            .values()
            .filter(|other| other.folder != folder && other.selectable && other.standby_name == name)
            .map(|other| other.folder)
            .collect();
        for namesake in namesakes {
            let digests: Vec<Digest> = messages.iter().map(|message| message.content.digest).collect();
            let mut free = mirror::by_digest(self.pool(), self.mailbox(), namesake, &digests).await?;
            let taken: BTreeSet<Uid> = self
                .effects
                .expunged
                .iter()
                .filter(|(other, _)| *other == namesake)
                .flat_map(|(_, uids)| uids.iter())
                .collect();
            free.retain(|(uid, ..)| !taken.contains(uid));
            for (message, outcome) in messages.iter().zip(outcomes.iter_mut()).filter(|(_, outcome)| outcome.is_none())
            {
                let Some(at) = free.iter().position(|(.., digest)| *digest == message.content.digest) else { continue };
                let (uid, standby_uid, _) = free.remove(at);
                self.effects.expunged.push((namesake, UidSet::range(uid, uid)));
                *outcome = Some(Outcome::Stored(standby_uid));
                self.restore_flags(folder, message, standby_uid).await?;
            }
        }
        Ok(())
    }

    /// Takes over strays with the same content.
    async fn adopt_strays(
        &mut self,
        folder: FolderId,
        messages: &[AddedMessage],
        wanted: &[ContentRef],
        outcomes: &mut [Option<Outcome>],
    ) -> anyhow::Result<()> {
        let mailbox = self.mailbox();
        let mut free = std::mem::take(self.strays.of(&self.applier.pool, mailbox, folder).await?);
        if free.is_empty() {
            return Ok(());
        }
        let mut contents = self.applier.store.contents(self.target.tenant, wanted).await?;
        let mut adopted = Vec::new();
        for (index, message) in
            messages.iter().enumerate().filter(|(index, _)| outcomes[*index].is_none()).collect::<Vec<_>>()
        {
            let loose = strays::loose_digest(&mut contents, index, message.content.size).await?;
            let wanted = Wanted { digest: message.content.digest, loose_digest: Some(loose) };
            let Some((stray, exact)) = strays::take(&mut free, &wanted) else { continue };
            outcomes[index] = Some(if exact {
                Outcome::Stored(stray.standby_uid)
            } else {
                Outcome::Altered(stray.standby_uid, "the standby stored other bytes than it was given".to_owned())
            });
            self.effects.adopted.push((folder, stray.standby_uid));
            adopted.push((index, stray.standby_uid));
        }
        self.strays.found(folder, free);
        for (index, standby_uid) in adopted {
            self.restore_flags(folder, &messages[index], standby_uid).await?;
            if let Some(known) = self.folders.get_mut(&folder) {
                known.standby_uid_next = known.standby_uid_next.max(Uid(standby_uid.0.saturating_add(1)));
                self.effects.folders.insert(folder, known.clone());
            }
        }
        Ok(())
    }

    /// A message taken over may have other flags than the addition says.
    async fn restore_flags(&mut self, folder: FolderId, message: &AddedMessage, uid: Uid) -> anyhow::Result<()> {
        self.open(folder).await?;
        let command = Command::StoreFlags { uids: UidSet::range(uid, uid), flags: message.flags.clone() };
        self.standby.session().run_all(&[command]).await?;
        Ok(())
    }

    /// Opens a folder of the mirror for writing, and makes sure it is still the one we filled.
    async fn open(&mut self, folder: FolderId) -> anyhow::Result<()> {
        let name = self.name(folder)?;
        let Some(selected) = self.standby.select(&name).await? else { return Ok(()) };
        let known = self.folders.get_mut(&folder).context("opened a folder that is not there")?;
        if known.standby_uid_validity == UidValidity(0) {
            known.standby_uid_validity = selected.uid_validity;
        } else if known.standby_uid_validity != selected.uid_validity {
            return Err(StandbyReset.into());
        }
        Ok(())
    }

    /// Flags and removals of one folder, as many as follow each other, in one go.
    async fn store(&mut self, folder: FolderId, steps: &[Step]) -> anyhow::Result<usize> {
        let mut commands = Vec::new();
        let mut taken = 0;
        for step in steps {
            match step {
                Step::SetFlags { folder: of, uids, flags } if *of == folder => {
                    let there = self.on_standby(folder, uids).await?;
                    if !there.is_empty() {
                        commands.push(Command::StoreFlags { uids: there, flags: flags.clone() });
                    }
                    self.set_flags(folder, uids, flags);
                }
                Step::Expunge { folder: of, uids } if *of == folder => {
                    let there = self.on_standby(folder, uids).await?;
                    if !there.is_empty() {
                        commands.push(Command::Expunge { uids: there });
                    }
                    self.effects.added.retain(|added| added.folder != folder || !uids.contains(added.uid));
                    self.effects.expunged.push((folder, uids.clone()));
                    self.expunged = true;
                }
                _ => break,
            }
            taken += 1;
        }
        if !commands.is_empty() {
            self.open(folder).await?;
            self.run(&commands).await?;
        }
        Ok(taken)
    }

    /// Runs commands on the open folder. Flags that the standby does not take are set as far as it takes them.
    async fn run(&mut self, commands: &[Command]) -> anyhow::Result<()> {
        let verdicts = self.standby.session().run_all(commands).await?;
        for (command, verdict) in commands.iter().zip(verdicts) {
            let said = match verdict {
                Tagged::Ok { .. } => continue,
                Tagged::No { text, .. } | Tagged::Bad { text } => text,
                Tagged::Unsupported { needs } => return Err(Error::Unsupported(needs).into()),
            };
            let Command::StoreFlags { uids, flags } = command else {
                return Err(Error::Refused { command: "UID EXPUNGE", code: None, text: said, done: 0 }.into());
            };
            metrics::counter!("understudy_apply_errors_total", "reason" => "flags").increment(1);
            tracing::warn!(mailbox.id = %self.target.mailbox, count = uids.len(), "The standby did not take keywords; set without them");
            let flags = flags.iter().filter(|flag| is_system_flag(flag)).cloned().collect();
            let command = Command::StoreFlags { uids: uids.clone(), flags };
            self.standby.session().run_all(&[command]).await?;
        }
        Ok(())
    }

    /// Where messages with these primary UIDs are, those of the transaction at hand included.
    async fn on_standby(&self, folder: FolderId, uids: &UidSet) -> anyhow::Result<UidSet> {
        let known = mirror::standby_uids(self.pool(), self.mailbox(), folder, uids).await?;
        let mut there: UidSet = known.into_iter().map(|(_, standby_uid)| standby_uid).collect();
        for added in self.effects.added.iter().filter(|added| added.folder == folder && uids.contains(added.uid)) {
            if let Some(uid) = added.standby_uid {
                there.insert(uid);
            }
        }
        Ok(there)
    }

    fn set_flags(&mut self, folder: FolderId, uids: &UidSet, flags: &[String]) {
        for added in &mut self.effects.added {
            if added.folder == folder && uids.contains(added.uid) {
                added.flags = flags.to_vec();
            }
        }
        self.effects.flags.push((folder, uids.clone(), flags.to_vec()));
    }

    async fn delete(&mut self, folder: FolderId) -> anyhow::Result<()> {
        let Some(known) = self.folders.get(&folder).cloned() else { return Ok(()) };
        let name = self.name(folder)?;
        let shared = self
            .folders
            .values()
            .any(|other| other.folder != folder && other.selectable && other.standby_name == known.standby_name);
        if known.selectable && (shared || known.path.is_inbox()) {
            // The name lives on: only what was in this folder goes.
            let uids = self.on_standby(folder, &UidSet::range(Uid(1), Uid(u32::MAX))).await?;
            let taken: BTreeSet<Uid> = self.taken_over(folder, &known.standby_name);
            let there: UidSet = uids.iter().filter(|uid| !taken.contains(uid)).collect();
            if !there.is_empty() {
                self.open(folder).await?;
                self.run(&[Command::Expunge { uids: there }]).await?;
            }
        } else if known.selectable {
            self.standby.close().await?;
            self.standby.session().delete(&name).await?;
        } else if !self.folders.values().any(|other| other.folder != folder && other.standby_name == known.standby_name)
        {
            unless_refused(self.standby.session().delete(&name).await)?;
        }
        self.folders.remove(&folder);
        self.effects.folders.remove(&folder);
        self.effects.added.retain(|added| added.folder != folder);
        self.effects.deleted.push(folder);
        self.expunged = true;
        Ok(())
    }

    /// Standby UIDs that now belong to a namesake of this folder.
    fn taken_over(&self, folder: FolderId, standby_name: &str) -> BTreeSet<Uid> {
        let namesake = |other: FolderId| {
            other != folder && self.folders.get(&other).is_some_and(|other| other.standby_name == standby_name)
        };
        self.effects.added.iter().filter(|added| namesake(added.folder)).filter_map(|added| added.standby_uid).collect()
    }

    /// Tries messages again that the standby refused, where that may help now.
    async fn retry_refused(&mut self) -> anyhow::Result<()> {
        let refused = mirror::refused(self.pool(), self.mailbox(), REFUSED_BATCH).await?;
        if refused.is_empty() {
            return Ok(());
        }
        let mut by_folder: BTreeMap<FolderId, Vec<AddedMessage>> = BTreeMap::new();
        for message in refused {
            by_folder.entry(message.folder).or_default().push(addition(message));
        }
        let folders = by_folder.keys().map(|folder| {
            let known = self.folders.get(folder);
            let next = known.map_or(Uid(1), |known| known.standby_uid_next);
            (*folder, (known.map_or(UidValidity(0), |known| known.standby_uid_validity), next))
        });
        let intent = Intent { folders: folders.collect() };
        journal::begin(self.pool(), self.mailbox(), Seq(0), &intent).await?;
        for (folder, messages) in by_folder {
            self.append(folder, &messages).await?;
            let keywords: Vec<Step> =
                plan(&messages.into_iter().map(understudy_protocol::Change::MessageAdded).collect::<Vec<_>>())
                    .into_iter()
                    .filter(|step| matches!(step, Step::SetFlags { .. }))
                    .collect();
            if !keywords.is_empty() {
                self.store(folder, &keywords).await?;
            }
        }
        let effects = std::mem::take(&mut self.effects);
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        journal::settle(&mut *db, self.target.mailbox).await?;
        db.commit().await?;
        self.strays = Strays::default();
        Ok(())
    }
}

/// A name as its column holds it. Names we make are ASCII (modified UTF-7, RFC 3501 §5.1.3).
fn spelled(name: &FolderName) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// The outcome of a command that the standby may refuse.
fn unless_refused(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Refused { .. }) => Ok(()),
        outcome => outcome,
    }
}

/// The standby's folder is not the one we filled.
#[derive(Debug, thiserror::Error)]
#[error("a folder on the standby has another UIDVALIDITY than when it was filled: it was deleted, rebuilt or restored")]
pub(crate) struct StandbyReset;

fn mirrored(message: &AddedMessage, outcome: Outcome) -> MirrorMessage {
    let (standby_uid, set_aside) = match outcome {
        Outcome::Stored(uid) => (Some(uid), None),
        Outcome::Altered(uid, reason) => (Some(uid), Some(SetAside::Altered { reason })),
        Outcome::Refused(reason) => (None, Some(SetAside::Refused { reason })),
    };
    MirrorMessage {
        folder: message.folder,
        uid: message.uid,
        standby_uid,
        content: message.content,
        flags: message.flags.clone(),
        internal_date: message.internal_date.clone(),
        set_aside,
    }
}

fn addition(message: MirrorMessage) -> AddedMessage {
    AddedMessage {
        folder: message.folder,
        uid: message.uid,
        flags: message.flags,
        internal_date: message.internal_date,
        content: message.content,
    }
}
