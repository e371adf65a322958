//! Makes a standby equal to what its mirror says, where a verification found that it is not.
//!
//! In: repairs, and the transaction after which they were found. Out: commands on the standby, the UID map in line with them.
//! Keeps true: repairs found before something else was applied are not carried out; contents come from the store; what is removed
//! was never wanted by the mirror and is not parked or kept; the intent makes an interrupted repair safe to repeat.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;
use understudy_database::{
    brake,
    journal::{self, Intent},
    mirror::{self, MirrorFolder},
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Command, FolderName};
use understudy_protocol::{AddedMessage, Change, FolderId, FolderPath, MailboxId, Seq, Uid, UidSet, UidValidity};
use understudy_replication::plan::{Step, plan};

use super::{Work, again::Again, folders::spelled, messages::addition, unless_refused};
use crate::{
    compare::Repair,
    store::Missing,
    strays::{self, Strays},
};

/// Messages appended again at once.
const BATCH: usize = 500;

/// Repairs of one mailbox, waiting for its turn.
struct Order {
    repairs: Vec<Repair>,
    applied: Seq,
    done: oneshot::Sender<Outcome>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Carried out, but for those named.
    Done(Vec<String>),
    /// Something was applied since they were found: look again.
    Stale,
    Failed(String),
}

/// Repairs that wait for their mailbox's turn.
#[derive(Default)]
pub(crate) struct Repairs {
    orders: Mutex<HashMap<MailboxId, Order>>,
}

impl Repairs {
    /// Leaves repairs for the mailbox's next turn; the answer tells what became of them. Nothing comes when a later order takes the
    /// place of this one.
    pub(crate) fn order(&self, mailbox: MailboxId, repairs: Vec<Repair>, applied: Seq) -> oneshot::Receiver<Outcome> {
        let (done, answer) = oneshot::channel();
        let order = Order { repairs, applied, done };
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).insert(mailbox, order);
        answer
    }

    fn take(&self, mailbox: MailboxId) -> Option<Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(&mailbox)
    }
}

impl Work<'_> {
    /// Carries out repairs, if any wait.
    pub(super) async fn repair_ordered(&mut self) -> anyhow::Result<()> {
        let Some(order) = self.applier.repairs.take(self.target.mailbox) else { return Ok(()) };
        if order.done.is_closed() {
            return Ok(());
        }
        let numbers = journal::numbers(self.pool(), self.target.mailbox).await?;
        if numbers.is_none_or(|numbers| numbers.applied != order.applied) {
            let _ = order.done.send(Outcome::Stale);
            return Ok(());
        }
        failpoint::here("repair.taken");
        let outcome = self.repair(order.repairs).await;
        let said = match &outcome {
            Ok(left) => Outcome::Done(left.clone()),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let _ = order.done.send(said);
        outcome.map(drop)
    }

    /// Carries out repairs; answers what could not be done.
    async fn repair(&mut self, repairs: Vec<Repair>) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        let mut again: BTreeMap<FolderId, Vec<(Uid, Option<Uid>)>> = BTreeMap::new();
        let mut flags: BTreeMap<FolderId, BTreeMap<Vec<String>, UidSet>> = BTreeMap::new();
        let mut remove: BTreeMap<FolderPath, UidSet> = BTreeMap::new();
        // First: what is written down of these comes all at once.
        for repair in &repairs {
            if let Repair::ApplyAgain { folder } | Repair::CreateFolder { folder } = repair {
                self.fill_again(*folder, &mut left).await?;
            }
        }
        for repair in repairs {
            match repair {
                Repair::CreateFolder { folder } => self.create_again(folder).await?,
                Repair::ApplyAgain { .. } => {}
                Repair::Append { folder, uid } => again.entry(folder).or_default().push((uid, None)),
                Repair::Replace { folder, uid, standby_uid } => {
                    again.entry(folder).or_default().push((uid, Some(standby_uid)));
                }
                Repair::Flags { folder, uid, flags: now } => {
                    flags.entry(folder).or_default().entry(now).or_default().insert(uid);
                }
                Repair::Remove { path, standby_uid } => remove.entry(path).or_default().insert(standby_uid),
                Repair::Subscribe { path, subscribed } => self.subscribe(&path, subscribed).await?,
                Repair::DeleteFolder { path } => self.delete_unwanted(&path, &mut left).await?,
                // The source gateway's.
                Repair::Capture { .. } => {}
            }
        }
        self.intend(again.keys().copied().collect()).await?;
        failpoint::here("repair.intended");
        for (folder, messages) in again {
            self.append_again(folder, &messages, &mut left).await?;
            failpoint::here("repair.appended");
        }
        for (folder, wanted) in flags {
            let steps: Vec<Step> =
                wanted.into_iter().map(|(flags, uids)| Step::SetFlags { folder, uids, flags }).collect();
            self.store(folder, &steps).await?;
        }
        self.record_repairs().await?;
        for (path, uids) in remove {
            self.remove_unwanted(&path, &uids).await?;
        }
        Ok(left)
    }

    async fn intend(&mut self, folders: Vec<FolderId>) -> anyhow::Result<()> {
        let folders = folders
            .into_iter()
            .filter_map(|id| {
                let known = self.folders.get(&id)?;
                Some((id, (known.standby_uid_validity, known.standby_uid_next)))
            })
            .collect();
        journal::begin(self.pool(), self.target.mailbox, Seq(0), &Intent { folders }).await?;
        Ok(())
    }

    async fn record_repairs(&mut self) -> anyhow::Result<()> {
        let effects = std::mem::take(&mut self.effects);
        let added = crate::brake::added(&effects, &self.folders);
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        for (standby_name, uids) in &added {
            brake::taken_over(&mut *db, self.target.mailbox, standby_name, uids).await?;
        }
        journal::settle(&mut *db, self.target.mailbox).await?;
        failpoint::here("repair.written");
        db.commit().await?;
        failpoint::here("repair.committed");
        self.strays = Strays::default();
        Ok(())
    }

    /// A folder of the mirror is gone from the standby, or another one has its place.
    async fn fill_again(&mut self, folder: FolderId, left: &mut Vec<String>) -> anyhow::Result<()> {
        let Some(known) = self.folders.get(&folder).filter(|known| known.standby_uid_validity != UidValidity(0)) else {
            return Ok(());
        };
        let path = known.path.clone();
        match self.hindrance(folder).await? {
            None => self.apply_again(folder, Again::IfSo).await?,
            Some(why) => left.push(format!("{path}: {why}")),
        }
        Ok(())
    }

    /// A folder that the standby did not take before: an empty one, to be filled by the next repair.
    async fn create_again(&mut self, folder: FolderId) -> anyhow::Result<()> {
        let untaken = |known: &&MirrorFolder| known.standby_uid_validity == UidValidity(0);
        let Some(mut known) = self.folders.get(&folder).filter(untaken).cloned() else { return Ok(()) };
        let name = FolderName::new(known.standby_name.as_str());
        self.standby.close().await?;
        self.standby.session().create(&name, &known.special_use).await?;
        if let Some(selected) = self.standby.select(&name).await? {
            known.standby_uid_validity = selected.uid_validity;
            known.standby_uid_next = selected.uid_next.max(Uid(1));
        }
        self.effects.folders.insert(folder, known.clone());
        self.folders.insert(folder, known);
        Ok(())
    }

    /// Puts messages of the mirror into their folder once more; what was in the place of one goes after that.
    async fn append_again(
        &mut self,
        folder: FolderId,
        messages: &[(Uid, Option<Uid>)],
        left: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let mailbox = self.target.mailbox;
        let Ok(name) = self.name(folder) else { return Ok(()) };
        // What lies there unknown may be it.
        let found = strays::find(&self.applier.pool, &mut self.standby, mailbox, folder, &name, Uid(1)).await?;
        if !found.is_empty() {
            let mut known = mirror::strays(self.pool(), mailbox, folder).await?;
            known.extend(found.iter().cloned());
            self.strays.found(folder, known);
            self.effects.strays.extend(found);
        }
        for batch in messages.chunks(BATCH) {
            let mut wanted: Vec<AddedMessage> = Vec::new();
            for (uid, _) in batch {
                let rows = mirror::between(self.pool(), mailbox, folder, Uid(uid.0 - 1), *uid).await?;
                wanted.extend(rows.into_iter().map(addition));
            }
            wanted.sort_unstable_by_key(|message| message.uid);
            if let Err(error) = self.append(folder, &wanted).await {
                if !error.is::<Missing>() {
                    return Err(error);
                }
                left.push(format!("{}: {error}", self.folder(folder)?.path));
                continue;
            }
            let changes: Vec<Change> = wanted.into_iter().map(Change::MessageAdded).collect();
            let keywords: Vec<Step> =
                plan(&changes).into_iter().filter(|step| matches!(step, Step::SetFlags { .. })).collect();
            if !keywords.is_empty() {
                self.store(folder, &keywords).await?;
            }
            let replaced: UidSet = batch.iter().filter_map(|(_, replaced)| *replaced).collect();
            if !replaced.is_empty() {
                self.open(folder).await?;
                self.run(&[Command::Expunge { uids: replaced }]).await?;
            }
        }
        Ok(())
    }

    /// Removes what nobody ever wanted, as far as that still is so.
    async fn remove_unwanted(&mut self, path: &FolderPath, uids: &UidSet) -> anyhow::Result<()> {
        let mailbox = self.target.mailbox;
        let name = self.standby.session().name_for(path);
        let standby_name = spelled(&name);
        let mut wanted = UidSet::default();
        for folder in self.folders.values().filter(|folder| folder.standby_name == standby_name) {
            for uid in mirror::standby_uids_of(self.pool(), mailbox, folder.folder).await?.iter() {
                wanted.insert(uid);
            }
        }
        for parked in brake::folders(self.pool(), mailbox).await?.iter().filter(|p| p.standby_name == standby_name) {
            for uid in brake::uids(self.pool(), parked).await?.iter() {
                wanted.insert(uid);
            }
        }
        let unwanted: UidSet = uids.iter().filter(|&uid| !wanted.contains(uid)).collect();
        if unwanted.is_empty() || self.standby.session().status(&name).await?.is_none() {
            return Ok(());
        }
        self.standby.select(&name).await?;
        self.run(&[Command::Expunge { uids: unwanted.clone() }]).await?;
        failpoint::here("repair.removed");
        for folder in self.folders.values().filter(|folder| folder.standby_name == standby_name) {
            mirror::forget_strays(&self.applier.pool, mailbox, folder.folder, &unwanted).await?;
        }
        Ok(())
    }

    /// Deletes a folder that neither the mirror nor a person wants.
    async fn delete_unwanted(&mut self, path: &FolderPath, left: &mut Vec<String>) -> anyhow::Result<()> {
        let name = self.standby.session().name_for(path);
        let standby_name = spelled(&name);
        let parked = brake::folders(self.pool(), self.target.mailbox).await?;
        if self.folders.values().any(|folder| folder.standby_name == standby_name)
            || parked.iter().any(|folder| folder.standby_name == standby_name)
        {
            return Ok(());
        }
        self.standby.close().await?;
        unless_refused(self.standby.session().delete(&name).await)?;
        if self.standby.session().status(&name).await?.is_some() {
            left.push(format!("{path}: the standby does not let it be deleted"));
        }
        Ok(())
    }
}
