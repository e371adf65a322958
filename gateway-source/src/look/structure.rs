//! What a look finds of the folders: created, renamed, gone, subscribed to.
//!
//! Keeps true: a listing that lacks INBOX is none; a folder counts as deleted only when the server, asked for it by name,
//! knows nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use understudy_imap_session::{ListedFolder, Sweep};
use understudy_protocol::{Change, FolderId, FolderPath, UidValidity};
use understudy_replication::folders::{self, Known, Seen};

use super::{Listed, Look};
use crate::mailbox::new_folder;

impl Look<'_> {
    /// Folders created, renamed, deleted; subscriptions. Answers which folder each listed one is.
    pub(super) fn take_structure<'s>(&mut self, sweep: &'s Sweep) -> anyhow::Result<Vec<Listed<'s>>> {
        // A log-in without rights is shown INBOX by name and nothing of it: that is no listing of a mailbox.
        let readable =
            |folder: &ListedFolder| folder.path.is_inbox() && (folder.status.is_some() || !folder.selectable);
        anyhow::ensure!(sweep.folders.iter().any(readable), NoInbox);
        let known: Vec<Known> = self
            .mailbox
            .folders
            .values()
            .map(|folder| Known {
                folder: folder.folder,
                path: folder.path.clone(),
                identity: folder.identity.clone(),
                // None that a server gives: nothing listed is this folder any more.
                uid_validity: match self.mailbox.gone_back.contains(&folder.folder) {
                    true => UidValidity(0),
                    false => folder.position.uid_validity,
                },
                selectable: folder.selectable,
            })
            .collect();
        let by_path: BTreeMap<&FolderPath, &Known> =
            known.iter().filter(|known| known.selectable).map(|known| (&known.path, known)).collect();
        let mut listed: Vec<&ListedFolder> = Vec::new();
        let mut seen: Vec<Seen> = Vec::new();
        for folder in &sweep.folders {
            let Some(seen_folder) = see(folder, by_path.get(&folder.path).copied()) else {
                if self.mailbox.unreadable.is_newly_blind(&folder.path) {
                    self.blind = Some(folder.path.clone());
                }
                continue;
            };
            listed.push(folder);
            seen.push(seen_folder);
        }
        let changes = folders::reconcile(&known, &seen, self.mailbox.next_folder);
        self.mailbox.next_folder = changes.next_folder;
        self.late.deleted = changes.deleted;
        for change in changes.changes {
            if let Change::FolderCreated { folder, path, uid_validity, special_use, selectable } = &change {
                let fresh = new_folder(*folder, path.clone(), None, *uid_validity, special_use.clone(), *selectable);
                self.mailbox.folders.insert(*folder, fresh);
                self.gathering.touch(*folder);
            }
            if let Change::FolderRenamed { folder, path } = &change {
                self.rename(*folder, path);
            }
            self.gathering.folder_change(change);
        }
        for (id, seen) in changes.folders.iter().zip(&seen) {
            let Some(folder) = self.mailbox.folders.get_mut(id) else { continue };
            if seen.identity.is_some() && folder.identity != seen.identity {
                folder.identity = seen.identity.clone();
                self.gathering.touch(*id);
            }
            if folder.special_use != seen.special_use {
                folder.special_use = seen.special_use.clone();
                self.gathering.touch(*id);
                let special_use = seen.special_use.clone();
                self.gathering.folder_change(Change::SpecialUsesChanged { folder: *id, special_use });
            }
        }
        self.take_subscriptions(sweep);
        Ok(changes
            .folders
            .into_iter()
            .zip(listed)
            .filter_map(|(folder, listed)| Some(Listed { folder, listed, status: listed.status? }))
            .collect())
    }

    /// Renames a folder and those below it, as the other side will.
    fn rename(&mut self, folder: FolderId, to: &FolderPath) {
        let mut tree: BTreeMap<FolderId, FolderPath> =
            self.mailbox.folders.values().map(|folder| (folder.folder, folder.path.clone())).collect();
        let Some(from) = tree.get(&folder).cloned() else { return };
        folders::rebase(&mut tree, &from, to);
        for (id, path) in tree {
            if self.mailbox.folders.get(&id).is_some_and(|folder| folder.path != path) {
                self.update(id, |folder| folder.path = path);
            }
        }
    }

    fn take_subscriptions(&mut self, sweep: &Sweep) {
        let subscribed: BTreeSet<FolderPath> = sweep.subscriptions.iter().cloned().collect();
        for path in subscribed.difference(&self.mailbox.subscriptions) {
            self.gathering.subscription(path.clone(), true);
        }
        for path in self.mailbox.subscriptions.difference(&subscribed) {
            self.gathering.subscription(path.clone(), false);
        }
        self.mailbox.subscriptions = subscribed;
    }

    /// A folder counts as deleted only when the server, asked for it by name, knows nothing of it: after Dovecot's list index
    /// was damaged (2.3.19, "Corrupted mailbox list index", under quick changes of folders), a listing may be all but empty.
    pub(super) async fn confirm_gone(&mut self, sweep: &Sweep) -> anyhow::Result<()> {
        let listed: BTreeSet<&FolderPath> = sweep.folders.iter().map(|folder| &folder.path).collect();
        let gone = self.late.deleted.iter().filter_map(|folder| self.mailbox.folders.get(folder));
        let gone: Vec<FolderPath> =
            gone.filter(|folder| folder.selectable && !listed.contains(&folder.path)).map(|f| f.path.clone()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let session = self.reader.session().await?;
        // STATUS of an open folder says what was true when it was opened.
        session.unselect().await?;
        self.open = None;
        for path in gone {
            let name = session.name_for(&path);
            anyhow::ensure!(session.status(&name).await?.is_none(), Unlisted(path));
        }
        Ok(())
    }
}

/// The listing lacks a folder that is there.
#[derive(Debug, thiserror::Error)]
#[error("the listing lacks the folder {0}, which can be opened all the same")]
pub(crate) struct Unlisted(FolderPath);

/// The log-in sees no INBOX, or may not read it.
#[derive(Debug, thiserror::Error)]
#[error("the listing has no INBOX that can be read")]
pub(crate) struct NoInbox;

/// Levels without messages that hold no folders either.
pub(super) fn hollow_levels(sweep: &Sweep) -> BTreeSet<FolderPath> {
    // Sorted by path: what a level holds comes right after it.
    let after = sweep.folders.iter().skip(1).map(Some).chain([None]);
    let holds =
        |level: &ListedFolder, next: Option<&ListedFolder>| next.is_some_and(|next| next.path.is_below(&level.path));
    let levels = sweep.folders.iter().zip(after).filter(|(folder, next)| !folder.selectable && !holds(folder, *next));
    levels.map(|(folder, _)| folder.path.clone()).collect()
}

/// A listed folder as a listing shows it; `None` when it can't be told just now and was not known before.
fn see(folder: &ListedFolder, known: Option<&Known>) -> Option<Seen> {
    let (uid_validity, identity) = match (&folder.status, folder.selectable, known) {
        (Some(status), true, _) => (status.uid_validity, folder.identity.clone()),
        (_, false, _) => (UidValidity(0), None),
        // Its STATUS failed: it is what it was.
        (None, true, Some(known)) => (known.uid_validity, known.identity.clone()),
        (None, true, None) => return None,
    };
    Some(Seen {
        path: folder.path.clone(),
        identity,
        uid_validity,
        special_use: folder.special_use.clone(),
        selectable: folder.selectable,
    })
}
