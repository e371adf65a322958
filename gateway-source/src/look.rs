//! One look at a mailbox: what changed since the positions we hold, into the journal.
//!
//! In: a session that only reads. Out: transactions of bounded size, each committed with its positions.
//! Keeps true: additions are written before any removal found in the same look, so that a moved message is never
//! missing; a folder's MODSEQ moves only with the flags and removals it covers; a failed listing changes nothing.
//! Not here: when to look (`tail`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use anyhow::Context;
use tokio::time::Instant;
use understudy_database::source::{SourceFolder, UnreadableMessage};
use understudy_imap_session::{FolderName, FolderStatus, Level, ListedFolder, Row, Selected, Sweep};
use understudy_protocol::{Change, ContentRef, FolderId, FolderPath, FolderPosition, ModSeq, Uid, UidSet, UidValidity};
use understudy_replication::folders::{self, Known, Seen};

use crate::{
    fetch::{self, Open, Unread},
    mailbox::{Gathering, Mailbox, new_folder},
    watch::Reader,
};

/// How long first copies may keep a look from asking again what changed elsewhere.
const SEED_SLICE: Duration = Duration::from_secs(1);
/// How many UIDs a listing names at once.
const LISTING_UIDS: usize = 2000;
/// How many rows are compared at once where the server keeps no journal.
const COMPARE_UIDS: usize = 10_000;

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

    /// Folders created, renamed, deleted; subscriptions. Answers which folder each listed one is.
    fn take_structure<'s>(&mut self, sweep: &'s Sweep) -> anyhow::Result<Vec<Listed<'s>>> {
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
                uid_validity: folder.position.uid_validity,
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

    /// Captures what changed in one folder. Answers whether nothing is left of it.
    async fn look_at(&mut self, listed: &Listed<'_>) -> anyhow::Result<bool> {
        let Some(folder) = self.mailbox.folders.get(&listed.folder) else { return Ok(true) };
        let (position, status) = (folder.position, &listed.status);
        let journalled = self.reader.level() != Level::None;
        let unchanged = folder.seeded
            && status.uid_validity == position.uid_validity
            && status.mod_seq == position.mod_seq
            && status.uid_next == position.uid_next
            && u64::from(status.messages) == folder.messages + self.mailbox.unreadable.of(listed.folder).len()
            && !self.retry.contains(&listed.folder)
            && (journalled || self.depth == Depth::Changed);
        if unchanged {
            return Ok(true);
        }
        if !folder.seeded && Instant::now() >= self.deadline {
            return Ok(false);
        }
        let Some(selected) = self.examine(&listed.listed.name).await? else {
            // Gone or renamed since the listing: the next one says what became of it.
            return Ok(self.not_yet(&listed.listed.path, "is listed and cannot be opened"));
        };
        if selected.uid_validity != position.uid_validity {
            return Ok(self.not_yet(&listed.listed.path, "has another UIDVALIDITY when opened than when listed"));
        }
        // Folders made in one second share their UIDVALIDITY on some servers (Cyrus), and may change names meanwhile.
        if let (Some(was), Some(opened)) = (&listed.listed.identity, &selected.identity)
            && was != opened
        {
            return Ok(self.not_yet(&listed.listed.path, "is another one when opened than when listed"));
        }
        if selected.mod_seq != position.seen_mod_seq {
            self.update(listed.folder, |folder| folder.position.seen_mod_seq = selected.mod_seq);
        }
        let below = position.uid_next;
        if below == Uid(1) {
            // Nothing captured yet, so nothing can have changed behind this MODSEQ.
            self.update(listed.folder, |folder| folder.position.mod_seq = selected.mod_seq);
        }
        let counted = folder_messages(self.mailbox, listed.folder);
        let again = if self.retry.remove(&listed.folder) { self.ask_again(listed.folder).await? } else { 0 };
        let added = if selected.uid_next == Uid(0) || selected.uid_next > below {
            let (added, done) = self.add_from(listed.folder, below).await?;
            if !done {
                return Ok(false);
            }
            added
        } else {
            0
        };
        self.update(listed.folder, |folder| {
            folder.seeded = true;
            folder.position.uid_next = folder.position.uid_next.max(selected.uid_next);
        });
        if below == Uid(1) {
            return Ok(true);
        }
        let unreadable = self.mailbox.unreadable.of(listed.folder).len();
        let read_again = self.read_again.iter().filter(|(folder, _)| *folder == listed.folder).count() as u64;
        let expected = counted + again + added + unreadable.saturating_sub(read_again);
        let position = folder_position(self.mailbox, listed.folder);
        if !journalled {
            self.compare(listed.folder, below).await?;
        } else if selected.mod_seq < position.mod_seq {
            // The server lost its index (RFC 7162 §3.1.2.2 aside, measured on Dovecot): its journal is another one now.
            tracing::warn!(mailbox.id = %self.mailbox.id, folder.id = %listed.folder, "The server's journal went back; comparing");
            self.compare(listed.folder, below).await?;
        } else if selected.mod_seq == position.mod_seq {
            if u64::from(selected.exists) != expected {
                self.compare(listed.folder, below).await?;
            }
        } else {
            let changes = self.reader.session().await?.changes(below, position.mod_seq).await?;
            let vanished = changes.vanished;
            self.late_flags(listed.folder, changes.flags);
            if self.reader.level() == Level::Condstore {
                if u64::from(selected.exists) != expected {
                    self.compare_uids(listed.folder, below).await?;
                }
            } else {
                self.late_expunged(listed.folder, vanished);
            }
        }
        self.late.positions.insert(listed.folder, selected.mod_seq);
        Ok(true)
    }

    fn late_flags(&mut self, folder: FolderId, changed: Flags) {
        if !changed.is_empty() {
            self.late.flags.push((folder, changed));
        }
    }

    fn late_expunged(&mut self, folder: FolderId, uids: UidSet) {
        if !uids.is_empty() {
            self.late.expunged.push((folder, uids));
        }
    }

    fn update(&mut self, folder: FolderId, change: impl FnOnce(&mut SourceFolder)) {
        if let Some(known) = self.mailbox.folders.get_mut(&folder) {
            change(known);
            self.gathering.touch(folder);
        }
    }

    /// Captures every message from `from` on, in the open folder. Answers how many, and whether all of them.
    async fn add_from(&mut self, folder: FolderId, from: Uid) -> anyhow::Result<(u64, bool)> {
        let uids = self.reader.session().await?.uids(from).await?;
        let seeded = self.mailbox.folders.get(&folder).is_some_and(|folder| folder.seeded);
        self.add(folder, &uids, !seeded).await
    }

    /// Captures these messages of the open folder, in order of UID.
    async fn add(&mut self, folder: FolderId, uids: &UidSet, may_stop: bool) -> anyhow::Result<(u64, bool)> {
        let mut added = 0;
        let all: Vec<Uid> = uids.iter().collect();
        for slice in all.chunks(LISTING_UIDS) {
            let (rows, unread) =
                fetch::rows(self.reader, &self.open_folder()?, &slice.iter().copied().collect()).await?;
            self.note_unread(folder, unread, &[]).await?;
            let identities: Vec<String> = rows.iter().filter_map(|row| row.identity.clone()).collect();
            let known = self.mailbox.known_identities(&identities).await?;
            let mut rest = &rows[..];
            while !rest.is_empty() {
                let fits = self.fitting(rest);
                let (now, later) = rest.split_at(fits);
                added += self.add_rows(folder, now, &known).await?;
                let next = now.last().map_or(Uid(0), |row| Uid(row.uid.0.saturating_add(1)));
                self.update(folder, |folder| folder.position.uid_next = folder.position.uid_next.max(next));
                rest = later;
                if self.gathering.is_full() {
                    self.commit().await?;
                    if may_stop && Instant::now() >= self.deadline {
                        return Ok((added, uids.last().is_none_or(|last| last < next)));
                    }
                }
            }
        }
        Ok((added, true))
    }

    /// How many of these rows go into the transaction at hand; at least one.
    fn fitting(&self, rows: &[Row]) -> usize {
        let mut room = self.gathering.room();
        let fits = rows
            .iter()
            .take(self.gathering.room_for_messages())
            .take_while(|row| {
                let fits = room >= row.size;
                room = room.saturating_sub(row.size);
                fits
            })
            .count();
        fits.max(1)
    }

    /// Captures these rows, fetching the bodies that nobody has yet.
    async fn add_rows(
        &mut self,
        folder: FolderId,
        rows: &[Row],
        known: &HashMap<String, ContentRef>,
    ) -> anyhow::Result<u64> {
        // An EMAILID may be made of the content, and cut short (Cyrus): then the size must agree too.
        let identified = |row: &Row| {
            let content = known.get(row.identity.as_ref()?).copied();
            content.filter(|content| content.size == row.size)
        };
        let wanted: UidSet = rows.iter().filter(|row| identified(row).is_none()).map(|row| row.uid).collect();
        let mut bodies = BTreeMap::new();
        if !wanted.is_empty() {
            let open = self.open_folder()?;
            let unread = fetch::bodies(self.reader, &open, &wanted, &mut self.gathering.spooling).await?;
            self.note_unread(folder, unread, rows).await?;
            let (arrived, missing) = self.gathering.spooling.take_arrived();
            if !missing.is_empty() {
                tracing::debug!(mailbox.id = %self.mailbox.id, count = missing.len(), "Messages vanished before they were captured");
            }
            if rows.iter().any(|row| row.identity.is_none()) {
                let digests: Vec<_> = arrived.iter().map(|(_, content)| content.digest).collect();
                let had = self.mailbox.known_digests(&digests).await?;
                self.gathering.spooling.disregard(&had);
            }
            bodies.extend(arrived);
        }
        let mut added = 0;
        for row in rows {
            // A message without a body any more is gone: its removal, if anyone saw it, names an unknown UID.
            if let Some(content) = identified(row).or_else(|| bodies.get(&row.uid).copied()) {
                self.gathering.add(folder, row, content);
                added += 1;
                if self.mailbox.unreadable.of(folder).contains(row.uid) {
                    self.read_again.push((folder, row.uid));
                }
            }
        }
        Ok(added)
    }

    /// Notes messages that could not be read, before anything moves past them.
    async fn note_unread(&mut self, folder: FolderId, unread: Vec<Unread>, rows: &[Row]) -> anyhow::Result<()> {
        let size = |uid: Uid| rows.iter().find(|row| row.uid == uid).map_or(0, |row| row.size);
        let messages = unread
            .into_iter()
            .map(|Unread { uid, reason }| UnreadableMessage { folder, uid, size: size(uid), reason })
            .collect();
        self.mailbox.note_unreadable(messages).await
    }

    /// Asks once more for what could not be read in the open folder. Answers how many were added.
    async fn ask_again(&mut self, folder: FolderId) -> anyhow::Result<u64> {
        let unreadable = self.mailbox.unreadable.of(folder);
        let there = self.reader.session().await?.uids(Uid(1)).await?;
        self.read_again.extend(unreadable.iter().filter(|&uid| !there.contains(uid)).map(|uid| (folder, uid)));
        let (added, _) =
            self.add(folder, &unreadable.iter().filter(|&uid| there.contains(uid)).collect(), false).await?;
        Ok(added)
    }

    /// Compares all flags below `below` in the open folder with those remembered; finds removals and additions too.
    async fn compare(&mut self, folder: FolderId, below: Uid) -> anyhow::Result<()> {
        let there: Vec<Uid> =
            self.reader.session().await?.uids(Uid(1)).await?.iter().filter(|&uid| uid < below).collect();
        let mut changed = Vec::new();
        for slice in there.chunks(COMPARE_UIDS) {
            let (Some(&low), Some(&high)) = (slice.first(), slice.last()) else { continue };
            let set: UidSet = slice.iter().copied().collect();
            let listed = self.reader.session().await?.flags(&set).await?;
            let known: BTreeMap<Uid, Vec<String>> =
                self.mailbox.flags_between(folder, low, high).await?.into_iter().collect();
            changed
                .extend(listed.into_iter().filter(|(uid, flags)| known.get(uid).is_some_and(|known| known != flags)));
        }
        self.late_flags(folder, changed);
        self.compare_with(folder, below, there.into_iter().collect()).await
    }

    /// Finds what was removed, where the server does not say (CONDSTORE without QRESYNC).
    async fn compare_uids(&mut self, folder: FolderId, below: Uid) -> anyhow::Result<()> {
        let there = self.reader.session().await?.uids(Uid(1)).await?.iter().filter(|&uid| uid < below).collect();
        self.compare_with(folder, below, there).await
    }

    async fn compare_with(&mut self, folder: FolderId, below: Uid, there: UidSet) -> anyhow::Result<()> {
        let known = self.mailbox.known_uids(folder).await?;
        let unreadable = self.mailbox.unreadable.of(folder);
        let gone = |&uid: &Uid| uid < below && !there.contains(uid);
        self.late_expunged(folder, known.iter().chain(unreadable.iter()).filter(gone).collect());
        let fresh: UidSet = there.iter().filter(|&uid| !known.contains(uid) && !unreadable.contains(uid)).collect();
        if !fresh.is_empty() {
            self.add(folder, &fresh, false).await?;
        }
        Ok(())
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

    /// A folder counts as deleted only when the server, asked for it by name, knows nothing of it: after Dovecot's list index
    /// was damaged (2.3.19, "Corrupted mailbox list index", under quick changes of folders), a listing may be all but empty.
    async fn confirm_gone(&mut self, sweep: &Sweep) -> anyhow::Result<()> {
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
        for folder in late.deleted {
            self.read_again.extend(self.mailbox.unreadable.of(folder).iter().map(|uid| (folder, uid)));
            self.mailbox.folders.remove(&folder);
            self.gathering.delete_folder(folder);
        }
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
fn hollow_levels(sweep: &Sweep) -> BTreeSet<FolderPath> {
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

fn folder_position(mailbox: &Mailbox, folder: FolderId) -> FolderPosition {
    mailbox.folders.get(&folder).map(|folder| folder.position).unwrap_or_default()
}

fn folder_messages(mailbox: &Mailbox, folder: FolderId) -> u64 {
    mailbox.folders.get(&folder).map_or(0, |folder| folder.messages)
}
