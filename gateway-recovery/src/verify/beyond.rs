//! What a standby has beyond what its primary showed: messages and folders that nobody accounts for, and those kept on purpose.
//!
//! Keeps true: memory grows with the messages named, not with those there are.

use std::collections::{BTreeMap, HashMap};

use understudy_database::{
    brake,
    mirror::{self, MirrorFolder},
};
use understudy_imap_session::FolderName;
use understudy_protocol::{FolderPath, Uid, UidSet, messages::InventoryMessage, words::counted};
use understudy_replication::inventory::{self, instant};

use super::{Broken, Current, Verifier, at};
use crate::compare::{At, Repair};

/// Rows of the UID map read at once.
const ROWS: i64 = 5000;
/// The most UIDs of one folder that nobody wants named one by one.
const EXTRAS: usize = 1000;

/// What the mirror wants in a folder beyond what the primary showed.
#[derive(Default)]
struct Wanted {
    /// UIDs of the standby.
    all: UidSet,
    /// Some of them, with the primary's.
    uids: BTreeMap<Uid, Uid>,
}

impl Verifier<'_> {
    /// What the standby has in the current folder beyond the UID map.
    pub(super) async fn finish_folder(&mut self) -> Result<(), Broken> {
        let Some(Current { path, mirror, there: Some((there, seen)), through }) = self.current.take() else {
            return Ok(());
        };
        let beyond: UidSet = there.iter().filter(|&uid| !seen.contains(uid)).collect();
        if beyond.is_empty() {
            return Ok(());
        }
        let wanted = match &mirror {
            Some(mirror) => self.wanted(mirror, through).await?,
            None => Wanted::default(),
        };
        let standby_name = mirror.as_ref().map(|mirror| mirror.standby_name.as_str());
        self.beyond(&path, standby_name, mirror.as_ref(), &beyond, &wanted).await
    }

    /// What the mirror has after this UID, all that the primary showed: where it is on the standby, and under which UID it was on the primary.
    async fn wanted(&self, mirror: &MirrorFolder, through: Uid) -> Result<Wanted, Broken> {
        let all = mirror::standby_uids_of(self.pool, self.target.mailbox, mirror.folder).await?;
        let mut wanted = Wanted { all, uids: BTreeMap::new() };
        let mut after = through;
        while wanted.uids.len() < EXTRAS {
            let rows = mirror::messages(self.pool, self.target.mailbox, mirror.folder, after, ROWS).await?;
            let Some(last) = rows.last() else { break };
            after = last.uid;
            wanted.uids.extend(rows.iter().filter_map(|row| Some((row.standby_uid?, row.uid))));
        }
        Ok(wanted)
    }

    async fn beyond(
        &mut self,
        path: &FolderPath,
        standby_name: Option<&str>,
        mirror: Option<&MirrorFolder>,
        beyond: &UidSet,
        wanted: &Wanted,
    ) -> Result<(), Broken> {
        let parked = match standby_name.and_then(|name| self.parked.get(name)) {
            Some(parked) => brake::uids(self.pool, parked).await?,
            None => UidSet::default(),
        };
        let mut extra: Vec<Uid> = Vec::new();
        let mut named = 0;
        for uid in beyond.iter() {
            if parked.contains(uid) {
                self.found.keep(path, Some(uid));
                continue;
            }
            named += 1;
            match (wanted.uids.get(&uid), mirror) {
                _ if named > EXTRAS => self.found.more += 1,
                (Some(&on_primary), Some(mirror)) => self.found.gone(path, mirror.folder, on_primary),
                _ if wanted.all.contains(uid) => {
                    let detail = "the primary shows it no longer; the UID is the standby's".to_owned();
                    self.found.add(path, None, Some(uid), "missing_on_primary", detail);
                }
                _ => extra.push(uid),
            }
            if !wanted.all.contains(uid) {
                self.found.repair(Repair::Remove { path: path.clone(), standby_uid: uid });
            }
        }
        self.extra(path, mirror, &extra).await
    }

    /// Names messages of the open folder that nobody accounts for.
    async fn extra(&mut self, path: &FolderPath, mirror: Option<&MirrorFolder>, uids: &[Uid]) -> Result<(), Broken> {
        if uids.is_empty() {
            return Ok(());
        }
        let set: UidSet = uids.iter().copied().collect();
        let messages = inventory::messages(&mut self.session, &set, self.bodies).await?;
        let looks: HashMap<Uid, &InventoryMessage> = messages.iter().map(|message| (message.uid, message)).collect();
        for &uid in uids {
            let copy = |message: &&InventoryMessage| {
                let (size, digest) = (message.size, message.digest);
                Some(At::Copy { folder: mirror?.folder, size, instant: instant(&message.internal_date)?, digest })
            };
            let detail = "on the standby only; the UID is the standby's".to_owned();
            self.found.add(path, looks.get(&uid).and_then(copy), Some(uid), "extra_on_standby", detail);
        }
        Ok(())
    }

    /// Folders that only the standby has.
    pub(super) async fn only_here(&mut self) -> Result<(), Broken> {
        let extra: Vec<(FolderPath, FolderName)> = self
            .listed
            .iter()
            .filter(|(path, _)| !self.shown.contains(*path))
            .filter_map(|(path, name)| Some((path.clone(), name.clone()?)))
            .collect();
        for (path, name) in extra {
            let Some(opened) = self.session.examine(&name).await? else { continue };
            let standby_name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            if let Some(deletion) = self.parked.get(&standby_name).map(|parked| parked.deletion.is_some()) {
                if deletion {
                    self.found.keep(&path, None);
                }
                let uids = self.session.uids(Uid(1)).await?;
                let mirror = self.mirror.get(&path).cloned();
                self.beyond(&path, Some(&standby_name), mirror.as_ref(), &uids, &Wanted::default()).await?;
                continue;
            }
            // A level that only holds other folders is a folder on some servers (Cyrus): without messages, no difference.
            let is_level = self.mirror.contains_key(&path) || self.shown.iter().any(|shown| shown.is_below(&path));
            if opened.exists == 0 && is_level {
                continue;
            }
            let detail = format!("with {}, on the standby only", counted(opened.exists, "message", "messages"));
            let at = at(&path, self.mirror.get(&path));
            self.found.add(&path, Some(at), None, "folder_extra", detail);
            self.found.repair(Repair::DeleteFolder { path });
        }
        Ok(())
    }
}
