//! Folders and subscriptions of the mirror, as steps of a transaction.
//!
//! Keeps true: each step may be taken twice with the same result.

use std::collections::{BTreeMap, BTreeSet};

use understudy_database::{
    brake,
    continuity::Continuity,
    mirror::{self, Effects, MirrorFolder},
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Command, Error, FolderName};
use understudy_protocol::{FolderId, FolderPath, FolderPosition, ModSeq, Uid, UidSet, UidValidity};
use understudy_replication::folders::rebase;

use super::{Work, unless_refused};
use crate::strays;

impl Work<'_> {
    pub(super) async fn create(
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
            standby_mod_seq: ModSeq(0),
            continuity: Continuity::None,
        };
        let mut opened = None;
        if selectable {
            if let Err(error) = self.standby.session().create(&name, special_use).await {
                return self.set_folder_aside(created, error);
            }
            failpoint::here("folder.created");
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
                } else if shared && self.parked {
                    let mailbox = self.target.mailbox;
                    let parked = brake::offered(&self.applier.pool, mailbox, folder, &created.standby_name).await?;
                    self.strays.found(folder, parked.clone());
                    self.effects.strays.extend(parked);
                }
                opened = Some(selected);
            }
        } else if let Some(level) = self.level(path) {
            // It comes with the folders it holds; some servers can make it without any.
            self.create_level(&name, &level).await?;
        }
        self.effects.folders.insert(folder, created.clone());
        self.folders.insert(folder, created);
        if let Some(selected) = opened {
            self.begin_continuity(folder, &selected, shared);
        }
        Ok(())
    }

    /// A level may have gone with the last folder below it, though the primary still shows it.
    pub(super) async fn restore_levels(&mut self) -> anyhow::Result<()> {
        let levels: Vec<FolderPath> =
            self.folders.values().filter(|folder| !folder.selectable).map(|folder| folder.path.clone()).collect();
        for path in levels {
            let name = self.standby.session().name_for(&path);
            if let Some(level) = self.level(&path) {
                self.create_level(&name, &level).await?;
            }
        }
        Ok(())
    }

    /// Some servers (Dovecot with Maildir++) make a folder of it, which nobody sees on the primary.
    async fn create_level(&mut self, name: &FolderName, level: &FolderName) -> anyhow::Result<()> {
        let session = self.standby.session();
        if session.is_listed(name).await? {
            return Ok(());
        }
        unless_refused(session.create(level, &[]).await)?;
        match session.status(name).await {
            Ok(Some(status)) if status.messages == 0 => Ok(unless_refused(session.delete(name).await)?),
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A name that asks for a level which only holds other folders: it ends in the separator (RFC 9051 §6.3.4).
    pub(super) fn level(&mut self, path: &FolderPath) -> Option<FolderName> {
        let mut below = path.components().to_vec();
        below.push("x".to_owned());
        let name = self.standby.session().name_for(&FolderPath::new(below));
        name.as_bytes().strip_suffix(b"x").map(FolderName::new)
    }

    pub(super) async fn rename(&mut self, folder: FolderId, path: &FolderPath) -> anyhow::Result<()> {
        self.raise().await?;
        let known = self.folder(folder)?;
        if known.path == *path {
            // Done and noted before a crash.
            return Ok(());
        }
        let (old, selectable) = (known.path.clone(), known.selectable);
        let from = self.name(folder)?;
        let to = self.standby.session().name_for(path);
        self.make_room(&old, path).await?;
        let mut stays = false;
        if selectable || self.folders.values().any(|other| other.path.is_below(&old)) {
            self.standby.close().await?;
            if let Err(error) = self.standby.session().rename(&from, &to).await {
                // Done already before a crash, or a level that the standby does not have.
                let there = match self.standby.session().status(&from).await {
                    Ok(status) => status.is_some(),
                    // A level has no STATUS.
                    Err(Error::Refused { .. }) => false,
                    Err(error) => return Err(error.into()),
                };
                if !matches!(error, Error::Refused { .. }) {
                    return Err(error.into());
                }
                if there {
                    stays = !self.rename_once_more(&from, &to, error).await?;
                } else {
                    unless_refused(self.standby.session().create(&to, &[]).await)?;
                }
            }
            // What was set aside under the old name may be taken under the new one.
            self.expunged = true;
            failpoint::here("folder.renamed");
        }
        let mut tree: BTreeMap<FolderId, FolderPath> =
            self.folders.values().map(|folder| (folder.folder, folder.path.clone())).collect();
        rebase(&mut tree, &old, path);
        let mut renamed = Effects::default();
        for (id, path) in tree {
            let Some(known) = self.folders.get_mut(&id).filter(|known| known.path != path) else { continue };
            if !stays {
                known.standby_name = spelled(&self.standby.session().name_for(&path));
            }
            known.path = path;
            renamed.folders.insert(id, known.clone());
        }
        self.note_renames(renamed).await?;
        if stays { Ok(()) } else { self.drop_levels(&old).await }
    }

    /// At once, not when the transaction is complete: a chain of renames (two folders swap names) cannot be told from what it
    /// leaves, and what a crash leaves is looked for under the names that folders have by then. So the mirror is never more
    /// than one rename behind the standby. Renames come before everything else in a transaction.
    async fn note_renames(&mut self, renamed: Effects) -> anyhow::Result<()> {
        let mut db = self.applier.pool.begin().await?;
        self.parking.note_renames(&mut db, self.target.mailbox).await?;
        mirror::record(&mut db, self.target.mailbox, &renamed).await?;
        db.commit().await?;
        failpoint::here("folder.noted");
        Ok(())
    }

    /// The standby may not let anyone: then its own configuration says what each folder is for, and stays.
    pub(super) async fn set_special_uses(&mut self, folder: FolderId, special_use: &[String]) -> anyhow::Result<()> {
        let name = self.name(folder)?;
        if !self.standby.session().set_special_uses(&name, special_use).await? {
            tracing::info!(mailbox.id = %self.target.mailbox, folder.id = %folder,
                "The standby does not let a folder's special use be set");
        }
        let Some(known) = self.folders.get_mut(&folder) else { return Ok(()) };
        let before = std::mem::replace(&mut known.special_use, special_use.to_vec());
        self.effects.folders.insert(folder, known.clone());
        let freed: Vec<String> = before.into_iter().filter(|name| !special_use.contains(name)).collect();
        self.hand_on(&freed).await
    }

    /// Gives special uses that a folder had to those that should have them: Cyrus lets no two folders have the same, so
    /// whoever asked while another had it was refused.
    async fn hand_on(&mut self, freed: &[String]) -> anyhow::Result<()> {
        let due =
            |folder: &&MirrorFolder| folder.selectable && folder.special_use.iter().any(|name| freed.contains(name));
        let heirs: Vec<MirrorFolder> = self.folders.values().filter(due).cloned().collect();
        for heir in heirs {
            let name = self.name(heir.folder)?;
            self.standby.session().set_special_uses(&name, &heir.special_use).await?;
        }
        Ok(())
    }

    pub(super) async fn subscribe(&mut self, path: &FolderPath, subscribed: bool) -> anyhow::Result<()> {
        let name = self.standby.session().name_for(path);
        if !subscribed && self.parking.holds() {
            self.parking.keep_subscription(path);
        } else if !subscribed {
            unless_refused(self.standby.session().unsubscribe(&name).await)?;
        } else {
            // A level without messages is no folder to the standby.
            let to_nothing = !self.folders.values().any(|folder| folder.selectable && folder.path == *path);
            match self.standby.session().subscribe(&name).await {
                Ok(()) if to_nothing => self.take_back(path, &name).await?,
                Err(Error::Refused { .. }) if to_nothing => self.subscribe_to_nothing(path, &name).await?,
                outcome => unless_refused(outcome)?,
            }
        }
        failpoint::here("folder.subscribed");
        self.effects.subscriptions.push((path.clone(), subscribed));
        Ok(())
    }

    /// A subscription outlives its folder (RFC 9051 §6.3.7), but Dovecot takes none to a name without a folder: so there is
    /// one for a moment. A standby that still refuses has no such subscription; verification says so.
    pub(super) async fn subscribe_to_nothing(&mut self, path: &FolderPath, name: &FolderName) -> anyhow::Result<()> {
        if (self.parked || self.parking.holds()) && self.standby.session().status(name).await?.is_some() {
            // A folder that waits for a person: not one to lend.
            return Ok(());
        }
        unless_refused(self.standby.session().create(name, &[]).await)?;
        failpoint::here("folder.lent");
        unless_refused(self.standby.session().subscribe(name).await)?;
        unless_refused(self.standby.session().delete(name).await)?;
        self.drop_levels(path).await
    }

    /// The folder that there was for a moment, if a crash left it: one that never held a message.
    async fn take_back(&mut self, path: &FolderPath, name: &FolderName) -> anyhow::Result<()> {
        let there = match self.standby.session().status(name).await {
            Err(Error::Refused { .. }) => None,
            there => there?,
        };
        if !self.parked && there.is_some_and(|status| status.messages == 0 && status.uid_next == Uid(1)) {
            unless_refused(self.standby.session().delete(name).await)?;
            self.drop_levels(path).await?;
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, folder: FolderId) -> anyhow::Result<()> {
        let Some(known) = self.folders.get(&folder).cloned() else { return Ok(()) };
        let name = self.name(folder)?;
        let shared = self
            .folders
            .values()
            .any(|other| other.folder != folder && other.selectable && other.standby_name == known.standby_name);
        let lives_on = shared || known.path.is_inbox();
        if known.selectable && (lives_on || self.parking.holds()) {
            // The name lives on: only what was in this folder goes.
            if !lives_on {
                self.parking.keep_folder(&known);
            }
            let going = self.parking.spare(&known, &UidSet::range(Uid(1), Uid(u32::MAX)));
            let uids = self.on_standby(folder, &going).await?;
            let taken: BTreeSet<Uid> = self.taken_over(folder, &known.standby_name);
            let there: UidSet = uids.iter().filter(|uid| !taken.contains(uid)).collect();
            if !there.is_empty() {
                self.open(folder).await?;
                self.run(&[Command::Expunge { uids: there }]).await?;
            }
        } else if known.selectable {
            self.standby.close().await?;
            if let Err(error) = self.standby.session().delete(&name).await {
                self.empty(folder, error).await?;
            }
            failpoint::here("folder.deleted");
        } else if !self.folders.values().any(|other| other.folder != folder && other.standby_name == known.standby_name)
        {
            unless_refused(self.standby.session().delete(&name).await)?;
        }
        self.folders.remove(&folder);
        self.effects.folders.remove(&folder);
        self.effects.added.retain(|added| added.folder != folder);
        self.effects.deleted.push(folder);
        self.expunged = true;
        self.hand_on(&known.special_use).await?;
        if self.parking.holds() { Ok(()) } else { self.drop_levels(&known.path).await }
    }

    /// Standby UIDs that now belong to a namesake of this folder.
    pub(super) fn taken_over(&self, folder: FolderId, standby_name: &str) -> BTreeSet<Uid> {
        let namesake = |other: FolderId| {
            other != folder && self.folders.get(&other).is_some_and(|other| other.standby_name == standby_name)
        };
        self.effects.added.iter().filter(|added| namesake(added.folder)).filter_map(|added| added.standby_uid).collect()
    }
}

/// A name as its column holds it. Names we make are ASCII (modified UTF-7, RFC 3501 §5.1.3).
pub(super) fn spelled(name: &FolderName) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}
