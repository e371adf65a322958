//! Mail that the standby still took after its user went home, brought home.
//!
//! In: an order, some seconds after a switchback. Out: these messages on the primary, from where they are mirrored like any other; on the
//! standby they are strays, which the mirror then takes over.
//! Keeps true: they are noted as strays before they are appended, and what the primary got already it does not get again: an order that
//! was interrupted may be given again.
//! Not here: when to look (`switch::sweep`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::anyhow;
use tokio::sync::oneshot;
use understudy_database::{
    mirror::{self, Effects, Stray},
    switch,
};
use understudy_failpoint as failpoint;
use understudy_protocol::{Digest, FolderId, MailboxId, Uid, UidSet, UidValidity};

use super::Work;
use crate::{
    strays,
    switch::{Depot, Sides, addition, stored},
};

/// How many messages were brought home, or why they could not be.
pub(crate) type Brought = Result<u64, String>;

/// Mailboxes to be looked through in their next turn.
#[derive(Default)]
pub(crate) struct LateOrders {
    orders: Mutex<HashMap<MailboxId, oneshot::Sender<Brought>>>,
}

impl LateOrders {
    /// Leaves an order for the mailbox's next turn. Nothing comes when a later order takes the place of this one.
    pub(crate) fn order(&self, mailbox: MailboxId) -> oneshot::Receiver<Brought> {
        let (done, answer) = oneshot::channel();
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).insert(mailbox, done);
        answer
    }

    fn take(&self, mailbox: MailboxId) -> Option<oneshot::Sender<Brought>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(&mailbox)
    }
}

impl Work<'_> {
    /// Carries out an order, if one waits. What fails is told to whoever gave it: it concerns the primary too, and is tried again.
    pub(super) async fn late_ordered(&mut self) {
        let Some(done) = self.applier.late.take(self.mailbox()) else { return };
        if done.is_closed() {
            return;
        }
        let brought = Box::pin(self.bring_late_home()).await;
        let _ = done.send(brought.map_err(|error| format!("{error:#}")));
    }

    async fn bring_late_home(&mut self) -> anyhow::Result<u64> {
        // What waits for a person, or is kept by one's word, is not in the mirror either, and is no late mail.
        if self.parked {
            return Ok(0);
        }
        let late = self.find_late().await?;
        if late.is_empty() {
            return Ok(0);
        }
        let subject = switch::subject(self.pool(), self.mailbox()).await?;
        let subject = subject.ok_or_else(|| anyhow!("the mailbox is not protected any more"))?;
        let mut sides = Sides::to_write(&subject).await.map_err(|trouble| anyhow!(trouble.reason))?;
        let depot = Depot { pool: self.pool().clone(), store: self.applier.store.clone(), tenant: subject.tenant };
        let mut brought = 0;
        for (folder, strays) in late {
            brought += self.bring_home(&depot, &mut sides, folder, &strays).await?;
        }
        sides.log_out().await;
        Ok(brought)
    }

    /// Messages on the standby that nothing accounts for, noted as strays.
    async fn find_late(&mut self) -> anyhow::Result<Vec<(FolderId, Vec<Stray>)>> {
        let mut late = Vec::new();
        let selectable = self.folders.values().filter(|folder| folder.selectable).map(|folder| folder.folder);
        for folder in selectable.collect::<Vec<_>>() {
            let name = self.name(folder)?;
            self.standby.close_if(&name).await?;
            let Some(status) = self.standby.session().status(&name).await? else { continue };
            let filled = self.folder(folder)?.standby_uid_validity;
            if filled != UidValidity(0) && filled != status.uid_validity {
                // Nothing in it can be told by its UIDs. The next change in it finds that too, and applies it again.
                continue;
            }
            let mapped = mirror::mapped_standby_uids(self.pool(), self.mailbox(), folder, Uid(1)).await?;
            let mut strays = mirror::strays(self.pool(), self.mailbox(), folder).await?;
            if strays.is_empty() && u64::from(status.messages) == mapped.len() {
                continue;
            }
            let found =
                strays::find(&self.applier.pool, &mut self.standby, self.target.mailbox, folder, &name, Uid(1)).await?;
            let mut db = self.pool().begin().await?;
            let noted = Effects { strays: found.clone(), ..Effects::default() };
            mirror::record(&mut db, self.mailbox(), &noted).await?;
            db.commit().await?;
            strays.extend(found);
            if !strays.is_empty() {
                late.push((folder, strays));
            }
        }
        Ok(late)
    }

    /// Appends strays of one folder to it on the primary, but for those that it has got and that are on their way to us.
    async fn bring_home(
        &mut self,
        depot: &Depot,
        sides: &mut Sides,
        folder: FolderId,
        strays: &[Stray],
    ) -> anyhow::Result<u64> {
        let (known, name) = (self.folder(folder)?.clone(), self.name(folder)?);
        let home = sides.primary.session().name_for(&known.path);
        let Some(there) = sides.primary.examine(&home).await? else { return Ok(0) };
        if there.uid_validity != known.position.uid_validity {
            return Ok(0);
        }
        let newer = sides.primary.session().uids(known.position.uid_next).await?;
        let newer = depot.fetch(&mut sides.primary, &newer).await?;
        let mut got: Vec<Digest> = newer.into_iter().map(|fetched| fetched.content.digest).collect();
        sides.primary.close().await?;
        self.standby.examine(&name).await?;
        let uids: UidSet = strays.iter().map(|stray| stray.standby_uid).collect();
        let mut wanted = Vec::new();
        for fetched in depot.fetch(&mut self.standby, &uids).await? {
            match got.iter().position(|digest| *digest == fetched.content.digest) {
                Some(at) => drop(got.swap_remove(at)),
                None => wanted.push(addition(folder, &fetched, &fetched.row.flags)),
            }
        }
        let outcomes = depot.bring(&mut sides.primary, &home, &wanted).await?;
        failpoint::here("late.appended");
        Ok(outcomes.iter().filter_map(stored).count() as u64)
    }
}
