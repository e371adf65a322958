//! A rebuilt folder takes the place of the one it replaces.
//!
//! Keeps true: from wherever an earlier attempt left off, it is finished, or what was to be replaced gets its name back;
//! nothing is removed that the mirror does not know and hold elsewhere.

use anyhow::Context;
use understudy_database::continuity::Rebuilt;
use understudy_failpoint as failpoint;
use understudy_imap_session::{Error, FolderName};
use understudy_protocol::{FolderId, FolderPath, Uid};

use super::{Work, rebuild::Hindered};

/// Where a rebuild keeps a folder while it has not its name yet, or not any more. Both are seen only for moments.
pub(super) struct Aside {
    pub(super) fresh: FolderPath,
    replaced: FolderPath,
}

impl Aside {
    pub(super) fn of(folder: FolderId) -> Self {
        let named = |what: &str| FolderPath::new(vec![format!("Understudy {what} {folder}")]);
        Self { fresh: named("rebuilds"), replaced: named("replaced") }
    }
}

impl Work<'_> {
    /// Lets the rebuilt folder take its place, from wherever an earlier attempt left off.
    pub(super) async fn swap(&mut self, folder: FolderId) -> anyhow::Result<()> {
        let known = self.folder(folder)?.clone();
        let name = self.name(folder)?;
        let aside = Aside::of(folder);
        let (fresh, replaced) = {
            let session = self.standby.session();
            (session.name_for(&aside.fresh), session.name_for(&aside.replaced))
        };
        self.standby.close().await?;
        // Nothing may ask for INBOX between the two renamings: Dovecot would make an empty one.
        if self.standby.session().status(&fresh).await?.is_some() {
            if self.standby.session().status(&replaced).await?.is_none() {
                self.move_aside(&name, &replaced).await?;
                failpoint::here("uids.aside");
            }
            if let Err(error) = self.standby.session().rename(&fresh, &name).await {
                if !matches!(error, Error::Refused { .. }) {
                    return Err(error.into());
                }
                // Somebody asked for it all the same.
                self.rename_onto(&fresh, &name, folder).await?;
            }
            failpoint::here("uids.renamed");
        }
        let there = self.standby.session().status(&name).await?;
        if there.is_none_or(|there| there.uid_validity != known.position.uid_validity) {
            self.put_back(&name, &replaced, folder).await?;
            return Err(Hindered("the rebuilt folder vanished from the standby".to_owned()).into());
        }
        self.bring_back_children(&known.path, &aside.replaced).await?;
        self.delete_replaced(folder, &replaced).await?;
        failpoint::here("uids.replaced");
        let selected = self.standby.select(&name).await?.context("a rebuilt folder is open already")?;
        let rebuilt = Rebuilt {
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next.max(Uid(1)),
            mod_seq: selected.mod_seq,
            uids: self.standby.session().uids(Uid(1)).await?,
        };
        self.rebuilt(folder, &known, &rebuilt, "rebuilt").await?;
        metrics::counter!("understudy_folders_rebuilt_total").increment(1);
        tracing::info!(mailbox.id = %self.mailbox(), folder.id = %folder, messages = rebuilt.uids.len(),
            "Rebuilt a folder under the primary's UIDs");
        Ok(())
    }

    /// Gives a folder a name that an empty folder may just have taken.
    async fn rename_onto(&mut self, from: &FolderName, name: &FolderName, folder: FolderId) -> anyhow::Result<()> {
        let empty = self.standby.session().name_for(&FolderPath::new(vec![format!("Understudy empty {folder}")]));
        self.move_aside(name, &empty).await?;
        self.standby.session().rename(from, name).await?;
        if self.standby.session().status(&empty).await?.is_some_and(|status| status.messages == 0) {
            self.standby.session().delete(&empty).await?;
        }
        Ok(())
    }

    /// The folder that was to be replaced gets its name back, and what lies below it.
    async fn put_back(&mut self, name: &FolderName, replaced: &FolderName, folder: FolderId) -> anyhow::Result<()> {
        if self.standby.session().status(replaced).await?.is_some() {
            self.rename_onto(replaced, name, folder).await?;
        }
        Ok(())
    }

    /// Renames a folder out of the way; what lies below goes with it.
    async fn move_aside(&mut self, name: &FolderName, to: &FolderName) -> anyhow::Result<()> {
        match self.standby.session().rename(name, to).await {
            // Somebody deleted it: then there is nothing to move.
            Err(Error::Refused { .. }) if self.standby.session().status(name).await?.is_none() => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    async fn bring_back_children(&mut self, path: &FolderPath, replaced: &FolderPath) -> anyhow::Result<()> {
        let depth = replaced.components().len();
        let mut children: Vec<String> = Vec::new();
        for listed in self.standby.session().sweep().await?.folders {
            if let Some(child) = listed.path.components().get(depth).filter(|_| listed.path.is_below(replaced))
                && !children.contains(child)
            {
                children.push(child.clone());
            }
        }
        for child in children {
            let below = |path: &FolderPath| {
                let mut components = path.components().to_vec();
                components.push(child.clone());
                FolderPath::new(components)
            };
            let session = self.standby.session();
            let (from, to) = (session.name_for(&below(replaced)), session.name_for(&below(path)));
            session.rename(&from, &to).await?;
        }
        Ok(())
    }

    /// Deletes the folder that was replaced, if all it holds is the mirror's.
    async fn delete_replaced(&mut self, folder: FolderId, replaced: &FolderName) -> anyhow::Result<()> {
        if self.standby.session().status(replaced).await?.is_none() {
            return Ok(());
        }
        let known = self.standby_uids(folder).await?;
        self.standby.select(replaced).await?;
        let there = self.standby.session().uids(Uid(1)).await?;
        self.standby.close().await?;
        if there.iter().all(|uid| known.contains(uid)) {
            self.standby.session().delete(replaced).await?;
        } else {
            tracing::warn!(mailbox.id = %self.mailbox(), folder.id = %folder,
                "The folder that was replaced holds a message that the mirror does not; it was left on the standby");
        }
        Ok(())
    }
}
