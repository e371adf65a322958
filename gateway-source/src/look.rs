//! One look at a mailbox: what changed since the positions we hold, into the journal.
//!
//! In: a session that only reads. Out: transactions of bounded size, each committed with its positions.
//! Keeps true: additions are written before any removal found in the same look, so that a moved message is never
//! missing; a folder's MODSEQ moves only with the flags and removals it covers; a failed listing changes nothing.
//! Not here: when to look (`tail`).

mod messages;
mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use tokio::time::Instant;
use understudy_database::source::SourceFolder;
use understudy_imap_session::{FolderName, FolderStatus, ListedFolder, Selected, Sweep};
use understudy_protocol::{FolderId, FolderPath, FolderPosition, ModSeq, Uid, UidSet};

use crate::{
    fetch::Open,
    mailbox::{Gathering, Mailbox},
    watch::Reader,
};

use structure::hollow_levels;
pub(crate) use structure::{NoInbox, Unlisted};

/// How long first copies may keep a look from asking again what changed elsewhere.
const SEED_SLICE: Duration = Duration::from_secs(1);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// At least one transaction was written.
    pub(crate) something: bool,
    /// Nothing that was there when the look began is left to capture.
    pub(crate) complete: bool,
    /// Messages the server counts in all folders.
    pub(crate) messages: u64,
    /// A level that holds nothing was listed for the first time: it may be a moment's remainder of folders that went.
    pub(crate) hollow: bool,
    /// What kept it from capturing all, if not its own measure of time.
    pub(crate) obstacle: Option<Obstacle>,
}

/// Why a look could not capture all there was: what it saw did not fit together. The next look may see it otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the folder {folder} {why}")]
pub(crate) struct Obstacle {
    folder: FolderPath,
    why: &'static str,
}

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Folders whose counts say that they changed.
    Changed,
    /// Compare flags message by message where the server keeps no journal of them.
    Everything,
}

/// Looks once at what `sweep` listed; `reader` opens the folders that changed.
pub(crate) async fn look(
    mailbox: &mut Mailbox,
    sweep: &Sweep,
    reader: &mut Reader,
    depth: Depth,
) -> anyhow::Result<Found> {
    let mut look = Look {
        gathering: mailbox.gather(),
        mailbox,
        reader,
        late: Late::default(),
        deadline: Instant::now() + SEED_SLICE,
        something: false,
        depth,
        open: None,
        blind: None,
        retry: BTreeSet::new(),
        read_again: Vec::new(),
        obstacle: None,
    };
    look.run(sweep).await
}

/// Where a listing leaves the folders.
struct Listed<'a> {
    folder: FolderId,
    listed: &'a ListedFolder,
    status: FolderStatus,
}

/// Which flags messages have now.
type Flags = Vec<(Uid, Vec<String>)>;

/// What goes into the journal after every addition has.
#[derive(Default)]
struct Late {
    flags: Vec<(FolderId, Flags)>,
    expunged: Vec<(FolderId, UidSet)>,
    deleted: Vec<FolderId>,
    /// HIGHESTMODSEQ at EXAMINE, covered once the above is written.
    positions: BTreeMap<FolderId, ModSeq>,
    /// UIDNEXT of folders in which it went back: as we knew it, and as it is.
    back: BTreeMap<FolderId, (Uid, Uid)>,
}

impl Late {
    fn removes(&self) -> bool {
        !self.expunged.is_empty() || !self.deleted.is_empty()
    }
}

struct Look<'a> {
    mailbox: &'a mut Mailbox,
    reader: &'a mut Reader,
    gathering: Gathering,
    late: Late,
    deadline: Instant,
    something: bool,
    depth: Depth,
    /// The folder that the reader has open.
    open: Option<Open>,
    /// A folder that is listed, is not known and cannot be looked into.
    blind: Option<FolderPath>,
    /// Folders whose unreadable messages are to be asked for again.
    retry: BTreeSet<FolderId>,
    /// What could not be read before, and is captured or gone now.
    read_again: Vec<(FolderId, Uid)>,
    obstacle: Option<Obstacle>,
}

impl Look<'_> {
    async fn run(&mut self, sweep: &Sweep) -> anyhow::Result<Found> {
        let listed = self.take_structure(sweep)?;
        if self.mailbox.unreadable.take_due() {
            self.retry = self.mailbox.unreadable.folders();
        }
        let messages = listed.iter().map(|listed| u64::from(listed.status.messages)).sum();
        let mut order: Vec<&Listed<'_>> = listed.iter().collect();
        // Live changes before first copies; INBOX before the rest.
        order.sort_by_key(|listed| {
            let seeded = self.mailbox.folders.get(&listed.folder).is_some_and(|folder| folder.seeded);
            (!seeded, !listed.listed.path.is_inbox(), listed.listed.path.clone())
        });
        let hollow = self.mailbox.note_hollow(hollow_levels(sweep));
        let mut complete = true;
        let mut live_complete = true;
        for listed in order {
            let seeded = self.mailbox.folders.get(&listed.folder).is_some_and(|folder| folder.seeded);
            let done = self.look_at(listed).await?;
            complete &= done;
            // While the first full copy is being made, live removals do not wait for all of it. Later, a folder that is
            // new may hold what others lost: nothing of that goes before it is captured here.
            live_complete &= done || (!seeded && !self.mailbox.seeded);
        }
        // What is being removed may be in a folder that cannot be looked into just now.
        if self.late.removes()
            && let Some(folder) = self.blind.take()
        {
            live_complete =
                self.not_yet(&folder, "is new and cannot be looked into, while messages were being removed");
        }
        // What a removal leaves behind may have arrived elsewhere after we listed that place.
        if live_complete && self.late.removes() {
            live_complete = self.look_again().await?;
        }
        if live_complete {
            self.confirm_gone(sweep).await?;
        }
        if live_complete {
            self.write_late();
        } else {
            complete = false;
        }
        self.commit().await?;
        if complete {
            self.mailbox.finish_seeding().await?;
        }
        Ok(Found { something: self.something, complete, messages, hollow, obstacle: self.obstacle.take() })
    }

    /// Leaves a folder to the next look, because of what was seen of it. Answers that nothing is finished.
    fn not_yet(&mut self, folder: &FolderPath, why: &'static str) -> bool {
        tracing::debug!(mailbox.id = %self.mailbox.id, folder = %folder, "Left to the next look: it {why}");
        self.obstacle.get_or_insert_with(|| Obstacle { folder: folder.clone(), why });
        false
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        self.something |= self.mailbox.commit(&mut self.gathering).await?;
        for (folder, uid) in std::mem::take(&mut self.read_again) {
            self.mailbox.forget_unreadable(folder, &[uid]).await?;
        }
        Ok(())
    }

    /// Opens a folder to read.
    async fn examine(&mut self, name: &FolderName) -> anyhow::Result<Option<Selected>> {
        let selected = self.reader.session().await?.examine(name).await?;
        self.open = selected.as_ref().map(|selected| Open { name: name.clone(), uid_validity: selected.uid_validity });
        Ok(selected)
    }

    fn open_folder(&self) -> anyhow::Result<Open> {
        self.open.clone().context("no folder is open")
    }

    fn update(&mut self, folder: FolderId, change: impl FnOnce(&mut SourceFolder)) {
        if let Some(known) = self.mailbox.folders.get_mut(&folder) {
            change(known);
            self.gathering.touch(folder);
        }
    }

    /// Lists everything once more and captures additions only. Answers whether removals may be written now.
    async fn look_again(&mut self) -> anyhow::Result<bool> {
        let sweep = self.reader.sweep().await?;
        // What is to be deleted may have given its name to another.
        let staying = self.mailbox.folders.values().filter(|folder| !self.late.deleted.contains(&folder.folder));
        let by_path: BTreeMap<&FolderPath, FolderId> = staying.map(|folder| (&folder.path, folder.folder)).collect();
        let mut targets = Vec::new();
        for listed in &sweep.folders {
            let (Some(status), selectable) = (&listed.status, listed.selectable) else {
                let known = by_path.contains_key(&listed.path);
                if listed.selectable && !known && self.mailbox.unreadable.is_newly_blind(&listed.path) {
                    return Ok(self.not_yet(&listed.path, "is new and cannot be looked into"));
                }
                continue;
            };
            match by_path.get(&listed.path) {
                Some(&folder) if folder_position(self.mailbox, folder).uid_validity == status.uid_validity => {
                    let grown = status.uid_next > folder_position(self.mailbox, folder).uid_next;
                    targets.extend(grown.then_some((folder, listed)));
                }
                // A folder that is new since: what was removed may have gone there.
                _ if selectable => return Ok(self.not_yet(&listed.path, "came while messages were being removed")),
                _ => {}
            }
        }
        for (folder, listed) in targets {
            if !self.mailbox.folders.get(&folder).is_some_and(|folder| folder.seeded) {
                continue;
            }
            let Some(selected) = self.examine(&listed.name).await? else {
                return Ok(self.not_yet(&listed.path, "is listed and cannot be opened"));
            };
            let position = folder_position(self.mailbox, folder);
            if selected.uid_validity != position.uid_validity {
                return Ok(self.not_yet(&listed.path, "has another UIDVALIDITY when opened than when listed"));
            }
            self.add_from(folder, position.uid_next).await?;
        }
        Ok(true)
    }

    fn write_late(&mut self) {
        let late = std::mem::take(&mut self.late);
        for (folder, changed) in late.flags {
            self.gathering.set_flags(folder, changed);
        }
        for (folder, uids) in late.expunged {
            let unreadable = self.mailbox.unreadable.of(folder);
            self.read_again.extend(unreadable.iter().filter(|&uid| uids.contains(uid)).map(|uid| (folder, uid)));
            self.gathering.expunge(folder, uids);
        }
        for (folder, mod_seq) in late.positions {
            self.update(folder, |folder| folder.position.mod_seq = mod_seq);
        }
        for (folder, (was, is)) in late.back {
            self.update(folder, |folder| {
                if folder.position.uid_next == was {
                    folder.position.uid_next = is;
                }
            });
        }
        for folder in late.deleted {
            self.read_again.extend(self.mailbox.unreadable.of(folder).iter().map(|uid| (folder, uid)));
            self.mailbox.folders.remove(&folder);
            self.gathering.delete_folder(folder);
        }
    }
}

fn folder_position(mailbox: &Mailbox, folder: FolderId) -> FolderPosition {
    mailbox.folders.get(&folder).map(|folder| folder.position).unwrap_or_default()
}

fn folder_messages(mailbox: &Mailbox, folder: FolderId) -> u64 {
    mailbox.folders.get(&folder).map_or(0, |folder| folder.messages)
}
