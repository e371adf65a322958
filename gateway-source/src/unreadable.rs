//! Messages of one mailbox that its primary lists and cannot give, and when to ask for them again.
//!
//! Keeps true: what is in memory is what the database holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sqlx::PgPool;
use tokio::time::Instant;
use understudy_database::source::{self, UnreadableMessage};
use understudy_protocol::{FolderId, FolderPath, MailboxId, Uid, UidSet};

/// Asked for again this often, and whenever a person waits for the mailbox.
const RETRY_PAUSE: Duration = Duration::from_secs(300);

/// How long a folder that cannot be looked into may be one where messages went.
const BLIND_PATIENCE: Duration = Duration::from_secs(60);

/// What could not be read, by folder and UID.
pub(crate) struct Unreadables {
    folders: BTreeMap<FolderId, BTreeMap<Uid, UnreadableMessage>>,
    /// When they are asked for again. A new life of the tail asks at once.
    due_at: Instant,
    /// Folders that are listed and cannot be looked into, and since when.
    blind: BTreeMap<FolderPath, Instant>,
}

impl Unreadables {
    pub(crate) async fn read(pool: &PgPool, mailbox: MailboxId) -> anyhow::Result<Self> {
        let mut read = Self { folders: BTreeMap::new(), due_at: Instant::now(), blind: BTreeMap::new() };
        read.note(source::unreadable(pool, mailbox).await?);
        Ok(read)
    }

    pub(crate) fn note(&mut self, messages: Vec<UnreadableMessage>) {
        for message in messages {
            self.folders.entry(message.folder).or_default().insert(message.uid, message);
        }
    }

    /// Answers whether any of them was here.
    pub(crate) fn forget(&mut self, folder: FolderId, uids: &[Uid]) -> bool {
        let Some(messages) = self.folders.get_mut(&folder) else { return false };
        let before = messages.len();
        for uid in uids {
            messages.remove(uid);
        }
        let forgot = messages.len() < before;
        if messages.is_empty() {
            self.folders.remove(&folder);
        }
        forgot
    }

    /// The UIDs of a folder that could not be read.
    pub(crate) fn of(&self, folder: FolderId) -> UidSet {
        self.folders.get(&folder).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    pub(crate) fn folders(&self) -> BTreeSet<FolderId> {
        self.folders.keys().copied().collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &UnreadableMessage> {
        self.folders.values().flat_map(BTreeMap::values)
    }

    /// Is it time to ask for them again? Then not again for a while.
    pub(crate) fn take_due(&mut self) -> bool {
        let due = !self.folders.is_empty() && Instant::now() >= self.due_at;
        if due {
            self.due_at = Instant::now() + RETRY_PAUSE;
        }
        due
    }

    /// Has this folder, which cannot be looked into, only lately been so? Dovecot's Maildir++ may list a name for ever that
    /// it does not have: nothing waits for that.
    pub(crate) fn is_newly_blind(&mut self, path: &FolderPath) -> bool {
        self.blind.entry(path.clone()).or_insert_with(Instant::now).elapsed() < BLIND_PATIENCE
    }

    /// Somebody waits for the mailbox: ask at once.
    pub(crate) fn hurry(&mut self) {
        self.due_at = Instant::now();
    }
}
