//! What a look finds in one folder: messages that came, changed and went.
//!
//! Keeps true: a folder's position moves over a message only once that is gathered or noted as unreadable.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;
use understudy_database::source::UnreadableMessage;
use understudy_imap_session::{Level, Row};
use understudy_protocol::{ContentRef, FolderId, Uid, UidSet};

use super::{Depth, Flags, Listed, Look, folder_messages, folder_position};
use crate::fetch::{self, Unread};

/// How many UIDs a listing names at once.
const LISTING_UIDS: usize = 2000;
/// How many rows are compared at once where the server keeps no journal.
const COMPARE_UIDS: usize = 10_000;

impl Look<'_> {
    /// Captures what changed in one folder. Answers whether nothing is left of it.
    pub(super) async fn look_at(&mut self, listed: &Listed<'_>) -> anyhow::Result<bool> {
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
        // A server that was restored as it had been before gives UIDs out again.
        let uid_next_back = selected.uid_next != Uid(0) && selected.uid_next < below;
        let went_back = uid_next_back || (journalled && selected.mod_seq < position.mod_seq);
        if went_back && !self.still_holds(listed.folder, below).await? {
            return Ok(self.gone_back(listed));
        }
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
        let mut same = true;
        if !journalled {
            same = self.compare(listed.folder, below).await?;
        } else if went_back {
            // The server lost its index (RFC 7162 §3.1.2.2 aside, measured on Dovecot): its journal is another one now.
            tracing::warn!(mailbox.id = %self.mailbox.id, folder.id = %listed.folder, "The server's journal went back; comparing");
            same = self.compare(listed.folder, below).await?;
        } else if selected.mod_seq == position.mod_seq {
            if u64::from(selected.exists) != expected {
                same = self.compare(listed.folder, below).await?;
            }
        } else {
            let changes = self.reader.session().await?.changes(below, position.mod_seq).await?;
            let vanished = changes.vanished;
            self.late_flags(listed.folder, changes.flags);
            if self.reader.level() == Level::Condstore {
                if u64::from(selected.exists) != expected {
                    same = self.compare_uids(listed.folder, below).await?;
                }
            } else {
                self.late_expunged(listed.folder, vanished);
            }
        }
        if !same {
            return Ok(self.gone_back(listed));
        }
        if uid_next_back {
            self.late.back.insert(listed.folder, (below, selected.uid_next));
        }
        self.late.positions.insert(listed.folder, selected.mod_seq);
        Ok(true)
    }

    /// The folder's UIDs are other messages' than they were: nothing that is known by them holds any more.
    fn gone_back(&mut self, listed: &Listed<'_>) -> bool {
        tracing::warn!(mailbox.id = %self.mailbox.id, folder.id = %listed.folder,
            "The server was restored as it had been before, and gave UIDs to other messages; the folder is captured anew");
        self.mailbox.gone_back.insert(listed.folder);
        self.not_yet(&listed.listed.path, "was restored, and gave UIDs to other messages")
    }

    /// Are the messages of the open folder below `below` those that were captured under their UIDs?
    async fn still_holds(&mut self, folder: FolderId, below: Uid) -> anyhow::Result<bool> {
        let there: Vec<Uid> =
            self.reader.session().await?.uids(Uid(1)).await?.iter().filter(|&uid| uid < below).collect();
        for slice in there.chunks(LISTING_UIDS) {
            let (Some(&low), Some(&high)) = (slice.first(), slice.last()) else { continue };
            let known = self.mailbox.marks_between(folder, low, high).await?;
            let (rows, _) = fetch::rows(self.reader, &self.open_folder()?, &slice.iter().copied().collect()).await?;
            let is_another = |row: &Row| {
                known.get(&row.uid).is_some_and(|(identity, size)| match (identity, &row.identity) {
                    (Some(known), Some(now)) => known != now,
                    _ => *size != row.size,
                })
            };
            if rows.iter().any(is_another) {
                return Ok(false);
            }
        }
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

    /// Captures every message from `from` on, in the open folder. Answers how many, and whether all of them.
    pub(super) async fn add_from(&mut self, folder: FolderId, from: Uid) -> anyhow::Result<(u64, bool)> {
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

    /// Compares all flags below `below` in the open folder with those remembered; finds removals and additions too. Answers whether
    /// the UIDs still are those messages'.
    async fn compare(&mut self, folder: FolderId, below: Uid) -> anyhow::Result<bool> {
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
    async fn compare_uids(&mut self, folder: FolderId, below: Uid) -> anyhow::Result<bool> {
        let there = self.reader.session().await?.uids(Uid(1)).await?.iter().filter(|&uid| uid < below).collect();
        self.compare_with(folder, below, there).await
    }

    async fn compare_with(&mut self, folder: FolderId, below: Uid, there: UidSet) -> anyhow::Result<bool> {
        let known = self.mailbox.known_uids(folder).await?;
        let unreadable = self.mailbox.unreadable.of(folder);
        let gone = |&uid: &Uid| uid < below && !there.contains(uid);
        self.late_expunged(folder, known.iter().chain(unreadable.iter()).filter(gone).collect());
        let fresh: UidSet = there.iter().filter(|&uid| !known.contains(uid) && !unreadable.contains(uid)).collect();
        if !fresh.is_empty() {
            // What was gone and is there again may not be all that is other than it was.
            if !self.still_holds(folder, below).await? {
                return Ok(false);
            }
            self.add(folder, &fresh, false).await?;
        }
        Ok(true)
    }
}
