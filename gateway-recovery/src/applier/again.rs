//! Applies a folder again when the one on the standby is not the one that was filled: it has another UIDVALIDITY, gives out UIDs once
//! more that it had given (it was restored as it had been before), or is gone.
//!
//! What is there is recognised by its content, wherever it stands; what is not there comes from the content store. No message
//! crosses the link, and the rest of the mailbox goes on.
//! Keeps true: nothing is removed from the standby; between the intent and the end no UID of one folder is taken for one of the
//! other, since whatever is interrupted is begun anew before anything else is done; by itself a folder is applied again once, and then
//! not for an hour or until a person asks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use serde_json::json;
use tokio::time::Instant;
use understudy_database::{
    brake,
    continuity::Continuity,
    event,
    journal::{self, Intent, Target},
    mirror::{self, Effects, MirrorFolder, MirrorMessage},
};
use understudy_imap_session::{Error, FolderName, Selected};
use understudy_protocol::{Change, Digest, FolderId, MailboxId, Seq, Uid, UidSet, UidValidity};
use understudy_replication::plan::{Step, plan};

use super::{REBUILD_PAUSE, Work, messages::addition};
use crate::{
    standby::GONE,
    strays::{self, Strays},
};

/// Rows of the UID map read, and messages appended, at once.
const SLICE: i64 = 500;
/// Why a folder lost its UIDs.
const ANOTHER: &str = "the folder on the standby got another UIDVALIDITY, or was restored or deleted there";

/// The standby's folder is not the one we filled.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} on the standby is another folder than was filled, or gone: it was deleted, rebuilt or restored there{}",
    why.map(|why| format!(" ({why})")).unwrap_or_default()
)]
pub(super) struct StandbyReset {
    folder: FolderId,
    path: String,
    /// Why it cannot be applied again by itself.
    why: Option<&'static str>,
}

impl StandbyReset {
    /// Which one, where it can be applied again.
    pub(super) fn folder(&self) -> Option<FolderId> {
        self.why.is_none().then_some(self.folder)
    }

    pub(super) fn remedy(&self) -> &'static str {
        match self.why {
            None => {
                "It was applied again less than an hour ago. See what gives folders there another UIDVALIDITY; then `understudy \
                 mailbox resume ADDRESS`: it is applied again, and what is there is recognised, not copied twice."
            }
            Some(_) => {
                "Decide on what waits (`understudy mailbox held ADDRESS`), then `understudy mailbox resume ADDRESS`. Where messages \
                 are kept on the standby by a person's word, unprotect the mailbox and protect it again: what is there is \
                 recognised, not copied twice."
            }
        }
    }
}

/// The applier may not write to this mailbox any more.
#[derive(Debug, thiserror::Error)]
#[error("the mailbox was paused, unprotected or switched over meanwhile")]
pub(super) struct Stopped;

/// Folders found to be others than were filled: to be applied again, and when they last were.
#[derive(Default)]
pub(crate) struct Resets {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether it is so for sure, or is to be looked at once more.
    noted: HashMap<MailboxId, BTreeMap<FolderId, bool>>,
    /// When, and the attempt (of a person) it was.
    done: HashMap<(MailboxId, FolderId), (Instant, i32)>,
}

impl Resets {
    /// To be looked at in the mailbox's next turn.
    pub(crate) fn note(&self, mailbox: MailboxId, folder: FolderId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.noted.entry(mailbox).or_default().entry(folder).or_insert(false);
    }

    /// The same, whatever its numbers are by then: messages appended since may have raised them.
    pub(super) fn note_for_sure(&self, mailbox: MailboxId, folder: FolderId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.noted.entry(mailbox).or_default().insert(folder, true);
    }

    fn take(&self, mailbox: MailboxId) -> BTreeMap<FolderId, bool> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).noted.remove(&mailbox).unwrap_or_default()
    }

    /// Has it not been applied again lately, or has a person asked since?
    pub(super) fn may(&self, target: &Target, folder: FolderId) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let done = state.done.get(&(target.mailbox, folder));
        done.is_none_or(|(at, attempt)| at.elapsed() >= REBUILD_PAUSE || *attempt != target.attempt)
    }

    fn done(&self, target: &Target, folder: FolderId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done.insert((target.mailbox, folder), (Instant::now(), target.attempt));
    }
}

/// Why a folder is applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// If it is still found to be another one than was filled.
    IfSo,
    /// It was.
    Sure,
    /// That had been begun.
    Interrupted,
}

/// What tells that a folder was begun to be applied again, in the place of the UID from which on messages are ours.
pub(super) const BEGUN: Uid = Uid(0);

/// Is a folder of the standby, now with these numbers, not the one that was filled?
pub(crate) fn is_another(known: &MirrorFolder, uid_validity: UidValidity, uid_next: Uid) -> bool {
    let is_filled = known.standby_uid_validity != UidValidity(0);
    is_filled && (uid_validity != known.standby_uid_validity || gives_again(known, uid_next))
}

/// UIDs are never given twice, unless the folder became what it had been before.
pub(super) fn gives_again(known: &MirrorFolder, uid_next: Uid) -> bool {
    uid_next != Uid(0) && uid_next < known.standby_uid_next
}

/// Messages on the standby that nothing has been matched with yet.
struct Free(HashMap<Digest, BTreeSet<Uid>>);

impl Free {
    /// Takes the one with this content: where it was before, then under the primary's UID, then the oldest.
    fn take(&mut self, message: &MirrorMessage) -> Option<Uid> {
        let uids = self.0.get_mut(&message.content.digest)?;
        let best = message.standby_uid.into_iter().chain([message.uid]).find(|uid| uids.contains(uid));
        let uid = best.or_else(|| uids.first().copied())?;
        uids.remove(&uid);
        Some(uid)
    }

    fn has(&self, digest: &Digest, uid: Uid) -> bool {
        self.0.get(digest).is_some_and(|uids| uids.contains(&uid))
    }
}

impl Work<'_> {
    /// A folder that turned out to be another one.
    pub(super) fn reset(&self, folder: FolderId) -> anyhow::Error {
        let path = self.folders.get(&folder).map(|known| known.path.to_string()).unwrap_or_default();
        StandbyReset { folder, path, why: None }.into()
    }

    /// The same, where that is what this error of opening it says.
    pub(super) fn unless_gone(&self, folder: FolderId, error: Error) -> anyhow::Error {
        match error {
            Error::Protocol(said) if said == GONE => self.reset(folder),
            error => error.into(),
        }
    }

    /// Applies folders again that turned out to be others than were filled.
    pub(super) async fn apply_resets(&mut self) -> anyhow::Result<()> {
        for (folder, is_sure) in self.applier.resets.take(self.mailbox()) {
            let Some(known) = self.folders.get(&folder) else { continue };
            let is_filled = known.selectable && known.standby_uid_validity != UidValidity(0);
            let may = self.applier.resets.may(self.target, folder);
            if may && is_filled && known.continuity != Continuity::Swapping {
                self.apply_reset(folder, is_sure).await?;
            }
        }
        Ok(())
    }

    /// Applies a folder again, where that may be done by itself.
    pub(super) async fn apply_reset(&mut self, folder: FolderId, is_sure: bool) -> anyhow::Result<()> {
        if !self.applier.resets.may(self.target, folder) || self.hindrance(folder).await?.is_some() {
            return Err(self.reset(folder));
        }
        self.apply_again(folder, if is_sure { Again::Sure } else { Again::IfSo }).await
    }

    /// Why a folder may not be applied again.
    pub(super) async fn hindrance(&self, folder: FolderId) -> anyhow::Result<Option<&'static str>> {
        let name = &self.folder(folder)?.standby_name;
        let shares = |other: &MirrorFolder| other.folder != folder && other.selectable && other.standby_name == *name;
        if self.folders.values().any(shares) {
            return Ok(Some("the folder that it replaces is not all gone yet"));
        }
        if self.parked && brake::folders(self.pool(), self.mailbox()).await?.iter().any(|it| it.standby_name == *name) {
            return Ok(Some("removals that the mass-change brake stopped rest in it"));
        }
        Ok(None)
    }

    /// Says of an error that stops the mailbox why it was not made good.
    pub(super) async fn explain_reset(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<StandbyReset>() {
            Ok(mut reset) => {
                reset.why = self.hindrance(reset.folder).await.ok().flatten();
                reset.into()
            }
            Err(error) => error,
        }
    }

    /// Applies a folder again that is another one than was filled.
    pub(super) async fn apply_again(&mut self, folder: FolderId, again: Again) -> anyhow::Result<()> {
        let before = self.folder(folder)?.clone();
        let name = self.name(folder)?;
        self.may_write().await?;
        let selected = self.opened_or_made(&before, &name).await?;
        if again == Again::IfSo && !is_another(&before, selected.uid_validity, selected.uid_next) {
            return Ok(());
        }
        tracing::warn!(mailbox.id = %self.mailbox(), folder.id = %folder,
            "A folder on the standby is another one than was filled; it is applied again");
        (self.effects, self.strays) = (Effects::default(), Strays::default());
        if again != Again::Interrupted {
            let intent = Intent { folders: [(folder, (selected.uid_validity, BEGUN))].into() };
            journal::begin(self.pool(), self.mailbox(), Seq(0), &intent).await?;
        }
        self.lose(folder, ANOTHER.to_owned());
        if let Some(known) = self.folders.get_mut(&folder) {
            known.standby_uid_validity = selected.uid_validity;
            known.standby_uid_next = selected.uid_next.max(Uid(1));
            known.standby_mod_seq = selected.mod_seq;
        }
        let there = strays::all(&mut self.standby, folder, &name).await?;
        let mut free = Free(HashMap::new());
        for stray in &there {
            free.0.entry(stray.digest).or_default().insert(stray.standby_uid);
        }
        let (taken_over, missing) = self.take_over(folder, &mut free).await?;
        // What was altered there is known by less than its content; what looks like it was not needed for anything else.
        let left = there.into_iter().filter(|stray| free.has(&stray.digest, stray.standby_uid)).collect();
        self.strays.found(folder, left);
        self.keeps_all = true;
        self.bring_back(folder, &missing).await?;
        self.keeps_all = false;
        self.applied_again(&before, taken_over, missing.len()).await
    }

    /// The standby's folder as it is now; an empty one where there is none.
    async fn opened_or_made(&mut self, known: &MirrorFolder, name: &FolderName) -> anyhow::Result<Selected> {
        self.standby.close().await?;
        if let Some(selected) = self.standby.examine(name).await? {
            return Ok(selected);
        }
        self.standby.session().create(name, &known.special_use).await?;
        self.standby.examine(name).await?.context("a folder made on the standby is not there")
    }

    /// Somebody may be about to work on the standby.
    async fn may_write(&self) -> anyhow::Result<()> {
        match journal::target(self.pool(), self.mailbox()).await? {
            Some(target) if !target.stopped => Ok(()),
            _ => Err(Stopped.into()),
        }
    }

    /// Finds each message of the mirror that is in the folder byte for byte. Answers how many, and the primary's UIDs of the others.
    async fn take_over(&mut self, folder: FolderId, free: &mut Free) -> anyhow::Result<(u64, UidSet)> {
        let (mut taken_over, mut missing, mut after) = (0, UidSet::default(), Uid(0));
        loop {
            let slice = mirror::messages(self.pool(), self.mailbox(), folder, after, SLICE).await?;
            let Some(last) = slice.last() else { return Ok((taken_over, missing)) };
            after = last.uid;
            let mut flags: BTreeMap<Vec<String>, UidSet> = BTreeMap::new();
            // One that was refused is tried again by itself.
            for message in slice.into_iter().filter(|message| message.standby_uid.is_some()) {
                let Some(standby_uid) = free.take(&message) else {
                    missing.insert(message.uid);
                    continue;
                };
                taken_over += 1;
                flags.entry(message.flags.clone()).or_default().insert(message.uid);
                self.effects.added.push(MirrorMessage { standby_uid: Some(standby_uid), ..message });
            }
            self.may_write().await?;
            let steps: Vec<Step> =
                flags.into_iter().map(|(flags, uids)| Step::SetFlags { folder, uids, flags }).collect();
            self.store(folder, &steps).await?;
            self.note_again().await?;
        }
    }

    /// Adds what is not there; what the standby had altered is known by what it looks like.
    async fn bring_back(&mut self, folder: FolderId, missing: &UidSet) -> anyhow::Result<()> {
        let mut after = Uid(0);
        while Some(after) < missing.last() {
            let slice = mirror::messages(self.pool(), self.mailbox(), folder, after, SLICE).await?;
            let Some(last) = slice.last() else { break };
            after = last.uid;
            let wanted = slice.into_iter().filter(|message| missing.contains(message.uid));
            let changes: Vec<Change> = wanted.map(|message| Change::MessageAdded(addition(message))).collect();
            if changes.is_empty() {
                continue;
            }
            self.may_write().await?;
            let steps = plan(&changes);
            let mut at = 0;
            while at < steps.len() {
                at += self.step(&steps[at..]).await?;
            }
            self.note_again().await?;
        }
        Ok(())
    }

    /// Writes a part down. The folder's own numbers stay what they were until all of it is.
    async fn note_again(&mut self) -> anyhow::Result<()> {
        let mut effects = std::mem::take(&mut self.effects);
        effects.folders.clear();
        effects.continuity.clear();
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        db.commit().await?;
        Ok(())
    }

    async fn applied_again(&mut self, before: &MirrorFolder, taken_over: u64, missing: u64) -> anyhow::Result<()> {
        let (mailbox, folder) = (self.target.mailbox, before.folder);
        let known = self.folder(folder)?.clone();
        let strays = std::mem::take(self.strays.of(&self.applier.pool, mailbox, folder).await?);
        let detail = json!({
            "folder": known.path.to_string(),
            "reason": ANOTHER,
            "uid_validity": { "was": before.standby_uid_validity.0, "is": known.standby_uid_validity.0 },
            "taken_over": taken_over,
            "brought_back": missing,
            "unknown": strays.len(),
        });
        let lost = known.continuity != before.continuity;
        let uids = Effects {
            folders: [(folder, known.clone())].into(),
            continuity: if lost { vec![folder] } else { Vec::new() },
            strays,
            ..Effects::default()
        };
        let mut db = self.applier.pool.begin().await?;
        mirror::forget_strays(&mut *db, mailbox, folder, &UidSet::range(Uid(1), Uid(u32::MAX))).await?;
        mirror::record(&mut db, mailbox, &uids).await?;
        journal::settle(&mut *db, mailbox).await?;
        event::record(&mut *db, "folder_applied_again", Some(mailbox), None, &detail).await?;
        if lost {
            let detail = json!({ "folder": known.path.to_string(), "kept": false, "reason": ANOTHER });
            event::record(&mut *db, "uid_continuity", Some(mailbox), None, &detail).await?;
        }
        db.commit().await?;
        (self.effects, self.strays) = (Effects::default(), Strays::default());
        self.applier.resets.done(self.target, folder);
        metrics::counter!("understudy_folders_applied_again_total").increment(1);
        tracing::info!(mailbox.id = %mailbox, folder.id = %folder, taken_over, brought_back = missing, "Applied a folder again");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use understudy_protocol::ContentRef;

    use super::*;

    #[test]
    fn each_copy_is_taken_once_the_likeliest_first() {
        let digest = Digest::of(b"x");
        let message = |uid, standby_uid| MirrorMessage {
            folder: FolderId(1),
            uid: Uid(uid),
            standby_uid: Some(Uid(standby_uid)),
            content: ContentRef { digest, size: 1 },
            flags: Vec::new(),
            internal_date: String::new(),
            set_aside: None,
        };
        let mut free = Free(HashMap::from([(digest, [3, 5, 7, 9].map(Uid).into())]));
        assert_eq!(free.take(&message(9, 7)), Some(Uid(7)), "where it was before");
        assert_eq!(free.take(&message(9, 7)), Some(Uid(9)), "under the primary's UID");
        assert_eq!(free.take(&message(9, 7)), Some(Uid(3)), "the oldest");
        assert!(free.has(&digest, Uid(5)) && !free.has(&digest, Uid(3)));
        assert_eq!(free.take(&message(9, 7)), Some(Uid(5)));
        assert_eq!(free.take(&message(9, 7)), None);
    }
}
