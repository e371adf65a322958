//! What the source gateway remembers of one mailbox, and the transaction it is gathering.
//!
//! Keeps true: what is in memory is what the database holds plus the changes gathered; after any error it is dropped
//! and read anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use understudy_database::source::{self, Captured, SourceFolder, SourceMessage, UnreadableMessage};
use understudy_failpoint as failpoint;
use understudy_imap_session::Row;
use understudy_protocol::{
    AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, FolderPath, FolderPosition, MailboxId,
    Position, Seq, TenantId, Transaction, Uid, UidSet, UidValidity,
    messages::{Assignment, Known, SeedProgress, Unreadable},
};
use understudy_replication::shipping::{Held, Received, must_rebuild};

use crate::{
    link::Link,
    room::Room,
    shipper::ShipperHandle,
    spool::{Spool, Spooling},
    turns::Turns,
    unreadable::Unreadables,
};

/// What a transaction takes in the journal besides its contents, about, in bytes.
const ROW_BYTES: u64 = 512;
/// A transaction is closed when it holds this much content, in bytes, …
const TRANSACTION_BYTES: u64 = 16 << 20;
/// … or this many additions.
const TRANSACTION_ADDITIONS: usize = 1000;

/// Identities kept in memory, at most.
const IDENTITIES: usize = 10_000;

/// One protected mailbox as last captured.
pub(crate) struct Mailbox {
    pub(crate) id: MailboxId,
    pub(crate) epoch: Epoch,
    pub(crate) captured: Seq,
    /// Of the transaction last captured.
    digest: Digest,
    pub(crate) seeded: bool,
    pub(crate) next_folder: FolderId,
    pub(crate) folders: BTreeMap<FolderId, SourceFolder>,
    pub(crate) subscriptions: BTreeSet<FolderPath>,
    pub(crate) unreadable: Unreadables,
    /// Levels that held nothing when last listed.
    hollow: BTreeSet<FolderPath>,
    /// Folders in which UIDs are now other messages' than they were: they are folders of another generation from the next look on.
    pub(crate) gone_back: BTreeSet<FolderId>,
    /// Positions as the recovery site has them or is about to.
    told: BTreeMap<FolderId, FolderPosition>,
    /// Every message remembered, by identity, while they are few and none has gone: the first full copy asks for all.
    identities: Option<HashMap<String, ContentRef>>,
    pool: PgPool,
    spool: Spool,
    shipper: ShipperHandle,
    room: Room,
}

/// What a mailbox works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) pool: PgPool,
    pub(crate) spool: Spool,
    pub(crate) link: Link,
    pub(crate) shipper: ShipperHandle,
    pub(crate) room: Room,
    pub(crate) turns: Turns,
}

impl Mailbox {
    /// Reads what is remembered; when the recovery site holds another journal than ours, ours is rebuilt from its.
    /// `compared`: that was done for this assignment; what was received has grown since, and ours with it.
    pub(crate) async fn open(tools: &Tools, assignment: &Assignment, compared: bool) -> anyhow::Result<Self> {
        let Tools { pool, spool, link, shipper, room, .. } = tools;
        let Assignment { mailbox: id, tenant, epoch, received, digest, .. } = *assignment;
        let mut journal = source::open(pool, id, tenant, epoch).await?;
        let held = Held {
            epoch: journal.epoch,
            captured: journal.captured,
            dropped: journal.received,
            digest: journal.digest,
        };
        if must_rebuild(held, epoch, (!compared).then_some(Received { seq: received, digest })) {
            tracing::warn!(mailbox.id = %id, captured = %journal.captured, received = %received,
                "Rebuilding this mailbox's journal from what the recovery site holds");
            journal = rebuild(pool, spool, link, id, tenant, journal.received).await?;
        }
        let folders = source::folders(pool, id).await?;
        Ok(Self {
            id,
            epoch: journal.epoch,
            captured: journal.captured,
            digest: journal.digest,
            seeded: journal.seeded,
            next_folder: journal.next_folder,
            told: folders.iter().map(|folder| (folder.folder, folder.position)).collect(),
            identities: folders.iter().all(|folder| folder.messages == 0).then(HashMap::new),
            folders: folders.into_iter().map(|folder| (folder.folder, folder)).collect(),
            subscriptions: source::subscriptions(pool, id).await?.into_iter().collect(),
            unreadable: Unreadables::read(pool, id).await?,
            hollow: BTreeSet::new(),
            gone_back: BTreeSet::new(),
            pool: pool.clone(),
            spool: spool.clone(),
            shipper: shipper.clone(),
            room: room.clone(),
        })
    }

    /// Notes messages that the primary could not give. Before any position moves past them.
    pub(crate) async fn note_unreadable(&mut self, messages: Vec<UnreadableMessage>) -> anyhow::Result<()> {
        if !messages.is_empty() {
            tracing::warn!(mailbox.id = %self.id, count = messages.len(), "The primary could not give messages; going on without them");
            source::note_unreadable(&self.pool, self.id, &messages).await?;
            self.unreadable.note(messages);
        }
        Ok(())
    }

    /// These levels hold nothing now. Answers whether one did not before.
    pub(crate) fn note_hollow(&mut self, levels: BTreeSet<FolderPath>) -> bool {
        let news = !levels.is_subset(&self.hollow);
        self.hollow = levels;
        news
    }

    /// These messages of a folder have been captured since, or are gone.
    pub(crate) async fn forget_unreadable(&mut self, folder: FolderId, uids: &[Uid]) -> anyhow::Result<()> {
        if self.unreadable.forget(folder, uids) {
            source::forget_unreadable(&self.pool, self.id, folder, uids).await?;
        }
        Ok(())
    }

    /// What the primary could not give, for people.
    pub(crate) fn unreadable_messages(&self) -> Vec<Unreadable> {
        let path = |folder: &FolderId| self.folders.get(folder).map(|folder| folder.path.clone());
        self.unreadable
            .all()
            .filter_map(|message| {
                Some(Unreadable {
                    folder: message.folder,
                    path: path(&message.folder)?,
                    uid: message.uid,
                    size: message.size,
                    reason: message.reason.clone(),
                })
            })
            .collect()
    }

    /// How much has been captured of `total` messages.
    pub(crate) fn progress(&self, total: u64) -> SeedProgress {
        let messages: u64 = self.folders.values().map(|folder| folder.messages).sum();
        let bytes: u64 = self.folders.values().map(|folder| folder.bytes).sum();
        let total = total.max(messages);
        SeedProgress {
            messages_done: messages,
            messages_total: total,
            bytes_done: bytes,
            bytes_total: if messages == total { bytes } else { 0 },
        }
    }

    /// Content already captured under these identities.
    pub(crate) async fn known_identities(&self, identities: &[String]) -> anyhow::Result<HashMap<String, ContentRef>> {
        if identities.is_empty() {
            return Ok(HashMap::new());
        }
        if let Some(known) = &self.identities {
            let known = |identity: &String| Some((identity.clone(), *known.get(identity)?));
            return Ok(identities.iter().filter_map(known).collect());
        }
        Ok(source::by_identity(&self.pool, self.id, identities).await?)
    }

    pub(crate) async fn known_digests(&self, digests: &[Digest]) -> anyhow::Result<Vec<Digest>> {
        Ok(source::known_digests(&self.pool, self.id, digests).await?)
    }

    pub(crate) async fn flags_between(
        &self,
        folder: FolderId,
        low: Uid,
        high: Uid,
    ) -> anyhow::Result<Vec<(Uid, Vec<String>)>> {
        Ok(source::message_flags(&self.pool, self.id, folder, low, high).await?)
    }

    /// What messages were known by when they were captured: identity, if the server names one, and size.
    pub(crate) async fn marks_between(
        &self,
        folder: FolderId,
        low: Uid,
        high: Uid,
    ) -> anyhow::Result<HashMap<Uid, (Option<String>, u64)>> {
        Ok(source::message_marks(&self.pool, self.id, folder, low, high).await?)
    }

    pub(crate) async fn known_uids(&self, folder: FolderId) -> anyhow::Result<UidSet> {
        Ok(source::message_uids(&self.pool, self.id, folder).await?)
    }

    /// Starts gathering the changes of one look.
    pub(crate) fn gather(&self) -> Gathering {
        Gathering::new(&self.spool)
    }

    /// Writes what was gathered as the next transaction, with the positions of the folders it touched. Answers whether
    /// there was anything to write.
    pub(crate) async fn commit(&mut self, gathering: &mut Gathering) -> anyhow::Result<bool> {
        let gathered = std::mem::replace(gathering, Gathering::new(&self.spool));
        let touched: Vec<SourceFolder> =
            gathered.touched.iter().filter_map(|folder| self.folders.get(folder).cloned()).collect();
        // Numbers that moved without a change to show for it travel too: a message came and went between two looks, and
        // its UID must not be given again on the standby.
        let moved = touched.iter().any(|folder| {
            let told = self.told.get(&folder.folder).copied().unwrap_or_default();
            (told.uid_next, told.mod_seq) != (folder.position.uid_next, folder.position.mod_seq)
        });
        if gathered.changes.is_empty() && !moved {
            if !touched.is_empty() {
                let mut db = self.pool.begin().await?;
                source::move_on(&mut db, self.id, &touched).await?;
                db.commit().await?;
                failpoint::here("capture.moved_on");
            }
            return Ok(false);
        }
        // Nothing is written, and the primary asked for nothing more, until there is room.
        self.room.wait(self.id, !self.seeded).await?;
        failpoint::here("look.done");
        let (contents, spooled) = gathered.spooling.finish().await.context("could not write to the spool folder")?;
        failpoint::here("capture.spooled");
        let positions: BTreeMap<_, _> = touched.iter().map(|folder| (folder.folder, folder.position)).collect();
        let told = positions.clone();
        let captured = Captured {
            transaction: Transaction {
                mailbox: self.id,
                direction: Direction::Outbound,
                seq: self.captured.next(),
                epoch: self.epoch,
                seed: !self.seeded,
                captured_at: gathered.started_at,
                changes: gathered.changes,
                position: Position { folders: positions },
                previous: self.digest,
            },
            contents,
            spooled,
            folders: touched,
            deleted: gathered.deleted,
            added: gathered.added,
            flags: gathered.flags,
            expunged: gathered.expunged,
            subscribed: gathered.subscribed,
            unsubscribed: gathered.unsubscribed,
            next_folder: self.next_folder,
        };
        let mut db = self.pool.begin().await?;
        let (gained, digest) = source::capture(&mut db, &captured).await?;
        failpoint::here("capture.written");
        db.commit().await?;
        failpoint::here("capture.committed");
        (self.captured, self.digest) = (captured.transaction.seq, digest);
        self.told.extend(told);
        self.shipper.captured(self.id, captured.transaction.seed);
        self.room.captured(captured.contents.iter().map(|(content, _)| content.size).sum::<u64>() + ROW_BYTES);
        for (folder, gained) in gained {
            if let Some(folder) = self.folders.get_mut(&folder) {
                folder.messages = folder.messages.saturating_add_signed(gained.messages);
                folder.bytes = folder.bytes.saturating_add_signed(gained.bytes);
            }
        }
        self.remember(&captured);
        count(&captured);
        tracing::debug!(mailbox.id = %self.id, txn.seq = %self.captured, changes = captured.transaction.changes.len(),
            "Captured transaction {}", self.captured);
        Ok(true)
    }

    /// Adds what was captured to the identities at hand, or leaves them to the database from now on.
    fn remember(&mut self, captured: &Captured) {
        let Some(known) = &mut self.identities else { return };
        for message in &captured.added {
            known.extend(message.identity.clone().map(|identity| (identity, message.content)));
        }
        let gone = !captured.expunged.is_empty() || !captured.deleted.is_empty();
        if gone || self.seeded || known.len() > IDENTITIES {
            self.identities = None;
        }
    }

    /// Everything that was there at first has been captured.
    pub(crate) async fn finish_seeding(&mut self) -> anyhow::Result<()> {
        if !self.seeded {
            source::seeded(&self.pool, self.id).await?;
            failpoint::here("capture.seeded");
            (self.seeded, self.identities) = (true, None);
            tracing::info!(mailbox.id = %self.id, txn.seq = %self.captured, "Captured the first full copy");
        }
        Ok(())
    }
}

/// Counts a captured transaction, and how much of its content the recovery site has already.
fn count(captured: &Captured) {
    let added: u64 = captured.added.iter().map(|message| message.content.size).sum();
    let new: u64 = captured.contents.iter().map(|(content, _)| content.size).sum();
    metrics::counter!("understudy_transactions_captured_total").increment(1);
    for (result, bytes) in [("new", new), ("known", added.saturating_sub(new))] {
        metrics::counter!("understudy_content_dedup_bytes_total", "result" => result).increment(bytes);
    }
}

/// Replaces our journal of a mailbox by what the recovery site knows; through `told` it had said to have it.
async fn rebuild(
    pool: &PgPool,
    spool: &Spool,
    link: &Link,
    id: MailboxId,
    tenant: TenantId,
    told: Seq,
) -> anyhow::Result<source::SourceMailbox> {
    let mut frames = link.known(id, told).await?;
    let Known::Start { received, epoch, subscriptions, digest } = frames.next().await? else {
        anyhow::bail!("the recovery gateway began its answer in the middle");
    };
    let mut db = pool.begin().await?;
    let files = source::forget(&mut db, id).await?;
    failpoint::here("rebuild.forgotten");
    source::open(&mut *db, id, tenant, epoch).await?;
    let mut current = None;
    let mut next_folder = FolderId(1);
    loop {
        match frames.next().await? {
            Known::Start { .. } => anyhow::bail!("the recovery gateway began its answer twice"),
            Known::Folder { folder, path, special_use, selectable, position, .. } => {
                // Whether it was whole is not known: the next look finds what lacks.
                let known = SourceFolder {
                    position,
                    ..new_folder(folder, path, None, position.uid_validity, special_use, selectable)
                };
                source::move_on(&mut db, id, &[known]).await?;
                current = Some(folder);
                next_folder = next_folder.max(FolderId(folder.0 + 1));
            }
            Known::Messages(messages) => {
                let folder = current.context("the recovery gateway sent messages of no folder")?;
                source::rebuild_messages(&mut db, id, folder, &messages).await?;
            }
            Known::End => break,
        }
    }
    source::rebuild(&mut db, id, (received, digest), next_folder, &subscriptions).await?;
    let journal = source::open(&mut *db, id, tenant, epoch).await?;
    db.commit().await?;
    failpoint::here("rebuild.committed");
    spool.remove(&files);
    Ok(journal)
}

/// The changes of one look, until they are written.
pub(crate) struct Gathering {
    started_at: DateTime<Utc>,
    changes: Vec<Change>,
    touched: BTreeSet<FolderId>,
    deleted: Vec<FolderId>,
    added: Vec<SourceMessage>,
    flags: Vec<(FolderId, Uid, Vec<String>)>,
    expunged: Vec<(FolderId, UidSet)>,
    subscribed: Vec<FolderPath>,
    unsubscribed: Vec<FolderPath>,
    pub(crate) spooling: Spooling,
}

impl Gathering {
    fn new(spool: &Spool) -> Self {
        Self {
            started_at: Utc::now(),
            changes: Vec::new(),
            touched: BTreeSet::new(),
            deleted: Vec::new(),
            added: Vec::new(),
            flags: Vec::new(),
            expunged: Vec::new(),
            subscribed: Vec::new(),
            unsubscribed: Vec::new(),
            spooling: spool.begin(),
        }
    }

    /// Is it time to write?
    pub(crate) fn is_full(&self) -> bool {
        self.added.len() >= TRANSACTION_ADDITIONS || self.spooling.bytes() >= TRANSACTION_BYTES
    }

    /// How much more content fits, in bytes.
    pub(crate) fn room(&self) -> u64 {
        TRANSACTION_BYTES.saturating_sub(self.spooling.bytes())
    }

    /// How many more additions fit.
    pub(crate) fn room_for_messages(&self) -> usize {
        TRANSACTION_ADDITIONS.saturating_sub(self.added.len())
    }

    /// This folder's position or name moved.
    pub(crate) fn touch(&mut self, folder: FolderId) {
        self.touched.insert(folder);
    }

    pub(crate) fn folder_change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn subscription(&mut self, path: FolderPath, subscribed: bool) {
        let list = if subscribed { &mut self.subscribed } else { &mut self.unsubscribed };
        list.push(path.clone());
        self.changes.push(Change::SubscriptionChanged { path, subscribed });
    }

    pub(crate) fn add(&mut self, folder: FolderId, row: &Row, content: ContentRef) {
        self.changes.push(Change::MessageAdded(AddedMessage {
            folder,
            uid: row.uid,
            flags: row.flags.clone(),
            internal_date: row.internal_date.clone(),
            content,
        }));
        self.added.push(SourceMessage {
            folder,
            uid: row.uid,
            identity: row.identity.clone(),
            content,
            flags: row.flags.clone(),
        });
    }

    /// These messages have these flags now; messages with equal flags travel as one change.
    pub(crate) fn set_flags(&mut self, folder: FolderId, changed: Vec<(Uid, Vec<String>)>) {
        let mut groups: BTreeMap<Vec<String>, UidSet> = BTreeMap::new();
        for (uid, flags) in changed {
            groups.entry(flags.clone()).or_default().insert(uid);
            self.flags.push((folder, uid, flags));
        }
        self.changes.extend(groups.into_iter().map(|(flags, uids)| Change::FlagsSet { folder, uids, flags }));
    }

    pub(crate) fn expunge(&mut self, folder: FolderId, uids: UidSet) {
        self.changes.push(Change::MessagesExpunged { folder, uids: uids.clone() });
        self.expunged.push((folder, uids));
    }

    pub(crate) fn delete_folder(&mut self, folder: FolderId) {
        self.changes.push(Change::FolderDeleted { folder });
        self.deleted.push(folder);
        self.touched.remove(&folder);
    }
}

/// A folder nothing is known of yet but that it is there.
pub(crate) fn new_folder(
    folder: FolderId,
    path: FolderPath,
    identity: Option<String>,
    uid_validity: UidValidity,
    special_use: Vec<String>,
    selectable: bool,
) -> SourceFolder {
    SourceFolder {
        folder,
        path,
        identity,
        position: FolderPosition { uid_validity, uid_next: Uid(1), ..FolderPosition::default() },
        special_use,
        selectable,
        messages: 0,
        bytes: 0,
        // A level without messages has nothing to seed.
        seeded: !selectable,
    }
}
