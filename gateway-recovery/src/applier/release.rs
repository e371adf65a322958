//! Carries out what a person released, and keeps parked folders apart from what the mirror does to their names.
//!
//! Keeps true: a message that the mirror holds is never removed; a folder goes only when it is empty and the mirror has none of its
//! name. Everything may be done twice.

use anyhow::Context;
use understudy_database::{
    brake::{self, ParkedFolder},
    mirror,
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Command, Error, FolderName};
use understudy_protocol::{FolderPath, Seq};

use super::{Work, folders::spelled, unless_refused};

impl Work<'_> {
    /// Removes from the standby what a person let go.
    pub(super) async fn release(&mut self) -> anyhow::Result<()> {
        let (pool, mailbox) = (self.applier.pool.clone(), self.target.mailbox);
        if !self.parked || !brake::is_released(&pool, mailbox).await? {
            return Ok(());
        }
        failpoint::here("release.taken");
        let mut folders = brake::folders(&pool, mailbox).await?;
        // What lies below goes first.
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.path.components().len()));
        for folder in folders {
            self.release_folder(&folder).await?;
        }
        let subscribed = mirror::subscriptions(&pool, mailbox).await?;
        for path in brake::released_subscriptions(&pool, mailbox).await? {
            if !subscribed.contains(&path) {
                let name = self.standby.session().name_for(&path);
                unless_refused(self.standby.session().unsubscribe(&name).await)?;
                failpoint::here("release.unsubscribed");
            }
        }
        let mut db = pool.begin().await?;
        brake::subscriptions_done(&mut *db, mailbox).await?;
        brake::settle(&mut db, mailbox).await?;
        failpoint::here("release.written");
        db.commit().await?;
        failpoint::here("release.committed");
        self.expunged = true;
        self.parked = brake::any(&pool, mailbox).await?;
        Ok(())
    }

    async fn release_folder(&mut self, folder: &ParkedFolder) -> anyhow::Result<()> {
        let (pool, mailbox) = (self.applier.pool.clone(), self.target.mailbox);
        let name = FolderName::new(folder.standby_name.as_str());
        self.standby.close().await?;
        let there = self.standby.session().status(&name).await?;
        let ours = there.as_ref().is_some_and(|status| {
            folder.standby_uid_validity.0 == 0 || status.uid_validity == folder.standby_uid_validity
        });
        let uids = brake::released_uids(&pool, mailbox, folder).await?;
        if ours && !uids.is_empty() {
            self.standby.select(&name).await?;
            self.run(&[Command::Expunge { uids }]).await?;
            failpoint::here("release.expunged");
            self.standby.close().await?;
        } else if !uids.is_empty() {
            tracing::warn!(mailbox.id = %mailbox, count = uids.len(),
                "A folder in which removals were parked is gone or another one; nothing is removed there");
        }
        let mut db = pool.begin().await?;
        brake::carried_out(&mut db, mailbox, folder).await?;
        db.commit().await?;
        failpoint::here("release.noted");
        if folder.deletion.as_deref() != Some("released") {
            return Ok(());
        }
        let live = self.folders.values().any(|live| live.standby_name == folder.standby_name);
        if ours && !live && self.standby.session().status(&name).await?.is_some_and(|status| status.messages == 0) {
            unless_refused(self.standby.session().delete(&name).await)?;
            failpoint::here("release.deleted");
        }
        brake::deletion_done(&pool, folder.id).await?;
        Ok(())
    }

    /// Before a folder is renamed: a parked one of the new name goes aside. One below the old name moves along.
    pub(super) async fn make_room(&mut self, from: &FolderPath, to: &FolderPath) -> anyhow::Result<()> {
        if !self.parked {
            return Ok(());
        }
        let parked = brake::folders(&self.applier.pool, self.target.mailbox).await?;
        let is_live = |path: &FolderPath| self.folders.values().any(|folder| folder.path == *path);
        if parked.iter().any(|folder| folder.path == *to) && !is_live(to) {
            let aside = aside(to, self.seq)?;
            let (name, target) = (self.standby.session().name_for(to), self.standby.session().name_for(&aside));
            let source = self.standby.session().name_for(from);
            // Once the folder to be renamed is gone, what stands in its new place is that folder.
            if self.standby.session().status(&source).await?.is_some() {
                self.standby.close().await?;
                if let Err(error) = self.standby.session().rename(&name, &target).await
                    && (!matches!(error, Error::Refused { .. })
                        || self.standby.session().status(&target).await?.is_none())
                {
                    return Err(error.into());
                }
            }
            self.move_parked(&parked, to, &aside);
        }
        self.move_parked(&parked, from, to);
        Ok(())
    }

    fn move_parked(&mut self, parked: &[ParkedFolder], from: &FolderPath, to: &FolderPath) {
        for folder in parked {
            let path = if folder.path == *from { Some(to.clone()) } else { folder.path.rebased(from, to) };
            let Some(path) = path else { continue };
            let name = spelled(&self.standby.session().name_for(&path));
            self.parking.rename(&folder.standby_name, path, name);
        }
    }
}

/// Where a parked folder goes when its name is needed.
fn aside(path: &FolderPath, seq: Seq) -> anyhow::Result<FolderPath> {
    let mut components = path.components().to_vec();
    let last = components.last_mut().context("a folder without a name")?;
    last.push_str(&format!(" (held {seq})"));
    Ok(FolderPath::new(components))
}
