//! Rebuilds a standby folder whose UIDs or UIDVALIDITY are not the primary's, so that they are.
//!
//! The folder is built beside the one it replaces, from that one's own messages, and then takes its name: no message
//! travels, and the standby holds the whole mirror at every moment but for the renaming.
//! Keeps true: nothing is removed that the mirror does not know and hold elsewhere; from the note `swapping` on, whatever
//! is interrupted is finished before anything else is done.

use anyhow::Context;
use serde_json::json;
use understudy_database::{
    continuity::{self, Continuity, Rebuilt},
    event,
    mirror::{self, MirrorFolder, MirrorMessage},
};
use understudy_doveadm::MailboxUpdate;
use understudy_failpoint as failpoint;
use understudy_imap_session::{Command, FolderName, Tagged};
use understudy_protocol::{AddedMessage, FolderId, Uid, UidSet};

use super::{REBUILD_PAUSE, Work, again::is_another, continuity::floor, messages::addition, swap::Aside};
use crate::{
    append::{self, Outcome},
    numbering::Numbering,
    standby::Manage,
};

/// Rows of the UID map read at once.
const SLICE: i64 = 5_000;

/// Why a folder cannot be rebuilt before a person does something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Hindered(pub(super) String);

/// Messages that one COPY gives their UIDs: contiguous on the primary, ascending on the standby.
#[derive(Default)]
struct Stretch {
    first: Option<Uid>,
    next: Uid,
    last_standby: Uid,
    /// (standby, primary)
    pairs: Vec<(Uid, Uid)>,
}

impl Stretch {
    fn takes(&self, uid: Uid, standby_uid: Uid) -> bool {
        self.first.is_none() || (uid == self.next && standby_uid > self.last_standby)
    }

    fn add(&mut self, uid: Uid, standby_uid: Uid) {
        self.first.get_or_insert(uid);
        self.next = Uid(uid.0.saturating_add(1));
        self.last_standby = standby_uid;
        self.pairs.push((standby_uid, uid));
    }
}

impl Work<'_> {
    /// Finishes what was interrupted while a rebuilt folder took its place.
    pub(super) async fn finish_swaps(&mut self) -> anyhow::Result<()> {
        let swapping = |folder: &&MirrorFolder| folder.continuity == Continuity::Swapping;
        let folders: Vec<FolderId> = self.folders.values().filter(swapping).map(|folder| folder.folder).collect();
        for folder in folders {
            let swapped = self.swap(folder).await;
            self.settle_rebuild(folder, swapped).await?;
        }
        Ok(())
    }

    /// Rebuilds folders that lost continuity, where it is time to.
    pub(super) async fn rebuild_lost(&mut self) -> anyhow::Result<()> {
        let worth_asking = |folder: &MirrorFolder| folder.selectable && folder.continuity != Continuity::Kept;
        let Manage::Yes(doveadm) = self.standby.manage().clone() else { return Ok(()) };
        if !self.folders.values().any(worth_asking) {
            return Ok(());
        }
        let due = continuity::due(self.pool(), self.mailbox(), REBUILD_PAUSE).await?;
        if due.is_empty() {
            return Ok(());
        }
        if let Err(error) = doveadm.commands().await {
            return self.unmanageable(&due, &error).await;
        }
        for folder in due {
            if self.applier.quiets.is_quiet(self.mailbox()) {
                return Ok(());
            }
            let Some(known) = self.folders.get(&folder) else { continue };
            let name = known.standby_name.clone();
            // What it replaces is not all gone yet.
            if self.folders.values().any(|other| other.folder != folder && other.standby_name == name) {
                continue;
            }
            let rebuilt = self.rebuild(folder).await;
            self.settle_rebuild(folder, rebuilt).await?;
        }
        Ok(())
    }

    /// The management interface does not answer as it should: nothing is begun.
    async fn unmanageable(&mut self, due: &[FolderId], error: &understudy_doveadm::Error) -> anyhow::Result<()> {
        let trouble = error.trouble(&self.target.standby.name);
        tracing::warn!(mailbox.id = %self.mailbox(), count = due.len(), "Folders were not rebuilt: {}", trouble.reason);
        self.standby.expire();
        if !trouble.fault {
            return Ok(());
        }
        let reason = format!("{}. {}", trouble.reason, trouble.remedy);
        let mut db = self.applier.pool.begin().await?;
        for folder in due {
            continuity::rebuilding(&mut *db, self.target.mailbox, *folder, self.target.attempt).await?;
            continuity::give_up(&mut db, self.target.mailbox, *folder, &reason).await?;
        }
        db.commit().await?;
        Ok(())
    }

    /// Where a rebuild cannot succeed, notes why; any other failure is tried again.
    async fn settle_rebuild(&mut self, folder: FolderId, rebuilt: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = rebuilt else { return Ok(()) };
        let hindered = error.downcast::<Hindered>()?;
        let reason = hindered.0.as_str();
        tracing::warn!(mailbox.id = %self.mailbox(), folder.id = %folder, "A folder was not rebuilt: {reason}");
        let fresh = self.standby.session().name_for(&Aside::of(folder).fresh);
        self.standby.close().await?;
        self.standby.session().delete(&fresh).await?;
        self.standby.expire();
        let mut db = self.applier.pool.begin().await?;
        continuity::give_up(&mut db, self.target.mailbox, folder, reason).await?;
        db.commit().await?;
        if let Some(known) = self.folders.get_mut(&folder) {
            known.continuity = Continuity::Lost { reason: reason.to_owned() };
        }
        Ok(())
    }

    async fn rebuild(&mut self, folder: FolderId) -> anyhow::Result<()> {
        continuity::rebuilding(self.pool(), self.mailbox(), folder, self.target.attempt).await?;
        let known = self.folder(folder)?.clone();
        let name = self.name(folder)?;
        let fresh = self.standby.session().name_for(&Aside::of(folder).fresh);
        tracing::info!(mailbox.id = %self.mailbox(), folder.id = %folder, "Rebuilding a folder under the primary's UIDs");
        self.standby.close().await?;
        if self.is_whole(folder, &known, &name).await? {
            return Ok(());
        }
        let there = self.only_known(folder, &name).await?;
        self.standby.close().await?;
        // What an interrupted rebuild left.
        self.standby.session().delete(&fresh).await?;
        self.standby.session().create(&fresh, &[]).await?;
        let mut numbering = self.number_afresh(&known, &fresh).await?;
        let mut messages = 0;
        let mut after = Uid(0);
        loop {
            let slice = mirror::messages(self.pool(), self.mailbox(), folder, after, SLICE).await?;
            let Some(last) = slice.last() else { break };
            after = last.uid;
            if self.applier.quiets.is_quiet(self.mailbox()) {
                return self.postpone(folder, &fresh).await;
            }
            messages += self.refill(&name, &fresh, &slice, &there, &mut numbering).await?;
        }
        reach(&mut numbering, known.position.uid_next).await?;
        self.standby.close().await?;
        let built = self.standby.session().status(&fresh).await?.context("a folder being rebuilt vanished")?;
        if built.uid_validity != known.position.uid_validity || u64::from(built.messages) != messages {
            return Err(Hindered(format!(
                "the standby made {} messages under UIDVALIDITY {} of {messages} under {}",
                built.messages, built.uid_validity, known.position.uid_validity
            ))
            .into());
        }
        failpoint::here("uids.built");
        if self.applier.quiets.is_quiet(self.mailbox()) {
            return self.postpone(folder, &fresh).await;
        }
        if let Some(known) = self.folders.get_mut(&folder) {
            known.continuity = Continuity::Swapping;
        }
        let mut db = self.applier.pool.begin().await?;
        continuity::swapping(&mut db, self.target.mailbox, folder).await?;
        db.commit().await?;
        failpoint::here("uids.swapping");
        self.swap(folder).await
    }

    /// The mailbox changes sides: its folders stay as they are.
    async fn postpone(&mut self, folder: FolderId, fresh: &FolderName) -> anyhow::Result<()> {
        tracing::info!(mailbox.id = %self.mailbox(), folder.id = %folder,
            "The mailbox changes sides; a folder is rebuilt later");
        self.standby.close().await?;
        self.standby.session().delete(fresh).await?;
        Ok(continuity::postponed(self.pool(), self.mailbox(), folder).await?)
    }

    /// Has the folder the primary's UIDVALIDITY and UIDs after all, and room for the next ones?
    async fn is_whole(&mut self, folder: FolderId, known: &MirrorFolder, name: &FolderName) -> anyhow::Result<bool> {
        let selected = match self.standby.select(name).await {
            Ok(Some(selected)) => selected,
            Ok(None) => return Ok(false),
            Err(error) => return Err(self.unless_gone(folder, error)),
        };
        let uids = self.standby.session().uids(Uid(1)).await?;
        if selected.uid_validity != known.position.uid_validity
            || selected.uid_next > known.position.uid_next
            || !continuity::has_same_uids(self.pool(), self.mailbox(), folder).await?
            || self.standby_uids(folder).await?.iter().any(|uid| !uids.contains(uid))
        {
            if is_another(known, selected.uid_validity, selected.uid_next) {
                return Err(self.reset(folder));
            }
            return Ok(false);
        }
        let numbers = Rebuilt {
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next.max(Uid(1)),
            mod_seq: selected.mod_seq,
            uids,
        };
        self.rebuilt(folder, known, &numbers, "found as it should be").await?;
        Ok(true)
    }

    /// Notes a folder that serves the primary's UIDs.
    pub(super) async fn rebuilt(
        &mut self,
        folder: FolderId,
        known: &MirrorFolder,
        numbers: &Rebuilt,
        how: &str,
    ) -> anyhow::Result<()> {
        let mut db = self.applier.pool.begin().await?;
        continuity::rebuilt(&mut db, self.target.mailbox, folder, numbers).await?;
        let detail = json!({ "folder": known.path.to_string(), "kept": true, "reason": how });
        event::record(&mut *db, "uid_continuity", Some(self.target.mailbox), None, &detail).await?;
        db.commit().await?;
        failpoint::here("uids.committed");
        let folders = mirror::folders(self.pool(), self.mailbox()).await?;
        self.folders = folders.into_iter().map(|folder| (folder.folder, folder)).collect();
        Ok(())
    }

    /// The UIDs of the folder to be replaced. Every one of them must be the mirror's.
    async fn only_known(&mut self, folder: FolderId, name: &FolderName) -> anyhow::Result<UidSet> {
        self.standby.select(name).await?;
        let there = self.standby.session().uids(Uid(1)).await?;
        let mapped = self.standby_uids(folder).await?;
        let unknown = there.iter().filter(|&uid| !mapped.contains(uid)).count();
        if unknown == 0 {
            return Ok(there);
        }
        Err(Hindered(format!(
            "the standby's folder holds messages that the mirror does not ({unknown}); move or delete them there, then run \
             `understudy mailbox resume`"
        ))
        .into())
    }

    pub(super) async fn standby_uids(&self, folder: FolderId) -> anyhow::Result<UidSet> {
        let all = UidSet::range(Uid(1), Uid(u32::MAX));
        let mapped = mirror::standby_uids(self.pool(), self.mailbox(), folder, &all).await?;
        Ok(mapped.into_iter().map(|(_, standby_uid)| standby_uid).collect())
    }

    /// Copies a slice of the mirror into the new folder, each message under its UID. Answers how many.
    async fn refill(
        &mut self,
        name: &FolderName,
        fresh: &FolderName,
        slice: &[MirrorMessage],
        there: &UidSet,
        numbering: &mut Numbering<'_>,
    ) -> anyhow::Result<u64> {
        let mut filled = 0;
        let mut stretch = Stretch::default();
        for message in slice {
            match message.standby_uid {
                Some(standby_uid) if there.contains(standby_uid) => {
                    if !stretch.takes(message.uid, standby_uid) {
                        filled += self.copy(name, fresh, std::mem::take(&mut stretch), numbering).await?;
                    }
                    stretch.add(message.uid, standby_uid);
                }
                // Somebody removed it from the standby: it comes from the content store once more.
                Some(_) => {
                    filled += self.copy(name, fresh, std::mem::take(&mut stretch), numbering).await?;
                    filled += self.append_anew(fresh, message, numbering).await?;
                }
                // Refused; it is tried again by itself.
                None => {}
            }
        }
        filled += self.copy(name, fresh, stretch, numbering).await?;
        Ok(filled)
    }

    async fn copy(
        &mut self,
        name: &FolderName,
        fresh: &FolderName,
        stretch: Stretch,
        numbering: &mut Numbering<'_>,
    ) -> anyhow::Result<u64> {
        let Some(first) = stretch.first else { return Ok(0) };
        reach(numbering, first).await?;
        self.standby.select(name).await?;
        let uids: UidSet = stretch.pairs.iter().map(|(standby_uid, _)| *standby_uid).collect();
        let command = Command::Copy { uids, to: fresh.clone() };
        let verdicts = self.standby.session().run_all(&[command]).await?;
        let copied = match verdicts.into_iter().next() {
            Some(Tagged::Ok { copied: Some((_, copied)), .. }) => copied,
            Some(Tagged::No { text, .. } | Tagged::Bad { text }) => {
                return Err(Hindered(format!(
                    "the standby did not copy its messages: {text}. It needs room for the folder twice; then run \
                     `understudy mailbox resume`"
                ))
                .into());
            }
            _ => return Err(Hindered("the standby did not say which UIDs its copies got".to_owned()).into()),
        };
        let mut copied = copied;
        copied.sort_unstable();
        if copied != stretch.pairs {
            return Err(Hindered("the standby gave copied messages other UIDs than were next".to_owned()).into());
        }
        numbering.next = stretch.next;
        Ok(stretch.pairs.len() as u64)
    }

    async fn append_anew(
        &mut self,
        fresh: &FolderName,
        message: &MirrorMessage,
        numbering: &mut Numbering<'_>,
    ) -> anyhow::Result<u64> {
        let added: AddedMessage = addition(message.clone());
        let mut contents = self.applier.store.contents(self.target.tenant, &[message.content]).await?;
        let done = append::append(&mut self.standby, fresh, &[&added], &mut contents, Some(numbering)).await?;
        let uid = match done.outcomes.first() {
            Some(Outcome::Stored(uid) | Outcome::Altered(uid, _)) => *uid,
            _ => return Ok(0),
        };
        if uid != message.uid {
            return Err(Hindered(format!("the standby gave message {} UID {uid}", message.uid)).into());
        }
        self.standby.select(fresh).await?;
        self.run(&[Command::StoreFlags { uids: UidSet::range(uid, uid), flags: added.flags }]).await?;
        Ok(1)
    }
}

impl<'a> Work<'a> {
    /// Gives the new folder the primary's UIDVALIDITY and MODSEQ, and answers the means to give its UIDs.
    async fn number_afresh(&self, known: &MirrorFolder, fresh: &FolderName) -> anyhow::Result<Numbering<'a>> {
        let Manage::Yes(doveadm) = self.standby.manage() else {
            return Err(Hindered("the standby has no management interface any more".to_owned()).into());
        };
        let update = MailboxUpdate {
            user: self.target.address.clone(),
            mailbox: fresh.to_utf8(),
            uid_validity: Some(known.position.uid_validity),
            min_next_uid: None,
            min_highest_mod_seq: floor(&known.position).map(|floor| floor.max(known.standby_mod_seq)),
        };
        let server = &self.target.standby.name;
        let answers = match doveadm.mailbox_update(&[update]).await {
            Ok(answers) => answers,
            Err(error) => return Err(Hindered(self.applier.patience.failed(server, error)?).into()),
        };
        for answer in answers {
            answer.map_err(|error| {
                let trouble = error.trouble(server);
                Hindered(format!("{}. {}", trouble.reason, trouble.remedy))
            })?;
        }
        Ok(Numbering {
            doveadm: doveadm.clone(),
            patience: &self.applier.patience,
            server: &self.target.standby.name,
            user: &self.target.address,
            mailbox: fresh.to_utf8(),
            next: Uid(1),
        })
    }
}

async fn reach(numbering: &mut Numbering<'_>, uid: Uid) -> anyhow::Result<()> {
    match numbering.reach(uid).await? {
        None => Ok(()),
        Some(reason) => Err(Hindered(reason).into()),
    }
}
