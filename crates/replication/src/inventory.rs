//! What a mailbox holds on one side, listed from the server itself, piece by piece.
//!
//! Keeps true: at most one piece is in memory; a listing that fails half-way is an error, never a short list.

use std::{collections::BTreeSet, io};

use chrono::DateTime;
use understudy_imap_session::{BodySink, Error, Session};
use understudy_protocol::{
    Digest, FolderPath, Uid, UidSet,
    messages::{FolderRange, InventoryFrame, InventoryMessage},
};

/// Messages listed at once.
const SLICE: usize = 1000;

/// Takes in the frames of an inventory.
pub trait Frames {
    /// The next frame. An error ends the inventory.
    fn frame(&mut self, frame: InventoryFrame) -> impl Future<Output = io::Result<()>> + Send;
}

/// How a mailbox is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With a digest of every message.
    pub bodies: bool,
    /// Digests of slices instead of messages.
    pub summary: bool,
    /// Only these; everything when there are none.
    pub only: Vec<FolderRange>,
    /// Messages without a body to be had: they are listed without a digest.
    pub unreadable: Vec<(FolderPath, UidSet)>,
}

/// Lists the mailbox into `out`. Reads only.
pub async fn list<F: Frames + Send>(session: &mut Session, wanted: &Wanted, out: &mut F) -> Result<(), Error> {
    let sweep = session.sweep().await?;
    out.frame(InventoryFrame::Start { subscriptions: sweep.subscriptions }).await.map_err(Error::Sink)?;
    for folder in sweep.folders {
        let only: Vec<(Uid, Uid)> =
            wanted.only.iter().filter(|range| range.path == folder.path).map(|range| (range.low, range.high)).collect();
        if only.is_empty() && !wanted.only.is_empty() {
            continue;
        }
        let opened = if folder.selectable { session.examine(&folder.name).await? } else { None };
        if folder.selectable && opened.is_none() {
            // Gone since the listing.
            continue;
        }
        let mut unreadable = UidSet::default();
        for (_, uids) in wanted.unreadable.iter().filter(|(path, _)| *path == folder.path) {
            uids.iter().for_each(|uid| unreadable.insert(uid));
        }
        out.frame(InventoryFrame::Folder {
            path: folder.path,
            special_use: folder.special_use,
            selectable: folder.selectable,
        })
        .await
        .map_err(Error::Sink)?;
        if opened.is_some() {
            list_open_folder(session, wanted, &only, &unreadable, out).await?;
        }
    }
    out.frame(InventoryFrame::End).await.map_err(Error::Sink)
}

async fn list_open_folder<F: Frames + Send>(
    session: &mut Session,
    wanted: &Wanted,
    only: &[(Uid, Uid)],
    unreadable: &UidSet,
    out: &mut F,
) -> Result<(), Error> {
    let named = |uid: &Uid| only.is_empty() || only.iter().any(|(low, high)| (low..=high).contains(&uid));
    let uids: Vec<Uid> = session.uids(Uid(1)).await?.iter().filter(named).collect();
    for slice in uids.chunks(SLICE) {
        let set: UidSet = slice.iter().copied().collect();
        let messages = messages_but(session, &set, wanted.bodies, unreadable).await?;
        let frame = match slice.last() {
            Some(&through) if wanted.summary => InventoryFrame::Slice {
                through,
                messages: u32::try_from(messages.len()).unwrap_or(u32::MAX),
                digest: summary(messages.iter().map(|message| (message.uid, message))),
            },
            _ => InventoryFrame::Messages(messages),
        };
        out.frame(frame).await.map_err(Error::Sink)?;
    }
    Ok(())
}

/// These messages of the open folder, ascending by UID; those that are gone are left out.
pub async fn messages(session: &mut Session, uids: &UidSet, bodies: bool) -> Result<Vec<InventoryMessage>, Error> {
    messages_but(session, uids, bodies, &UidSet::default()).await
}

/// The same, asking for no body of those that are `unreadable`.
async fn messages_but(
    session: &mut Session,
    uids: &UidSet,
    bodies: bool,
    unreadable: &UidSet,
) -> Result<Vec<InventoryMessage>, Error> {
    let rows = session.rows(uids).await?;
    let mut digests = Digests::default();
    if bodies {
        let readable = uids.iter().filter(|&uid| !unreadable.contains(uid)).collect();
        session.bodies(&readable, &mut digests).await?;
    }
    let mut messages: Vec<InventoryMessage> = rows
        .into_iter()
        .map(|row| InventoryMessage {
            digest: digests.of(row.uid),
            uid: row.uid,
            flags: row.flags,
            internal_date: row.internal_date,
            size: row.size,
        })
        .collect();
    messages.sort_unstable_by_key(|message| message.uid);
    Ok(messages)
}

/// The digest of messages under these UIDs, ascending: the same on two sides exactly when nothing that verification compares
/// differs.
pub fn summary<'m>(messages: impl IntoIterator<Item = (Uid, &'m InventoryMessage)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (uid, message) in messages {
        hasher.update(&uid.0.to_be_bytes());
        for flag in folded(&message.flags) {
            hasher.update(flag.as_bytes()).update(b" ");
        }
        match instant(&message.internal_date) {
            Some(seconds) => hasher.update(b"\n").update(&seconds.to_be_bytes()),
            None => hasher.update(b"\r").update(message.internal_date.as_bytes()).update(b"\0"),
        };
        hasher.update(&message.size.to_be_bytes());
        match &message.digest {
            Some(digest) => hasher.update(b"1").update(&digest.0),
            None => hasher.update(b"0"),
        };
    }
    hasher.finalize().into()
}

/// Flags as servers compare them: keywords fold to the first spelling a folder saw.
#[must_use]
pub fn folded(flags: &[String]) -> BTreeSet<String> {
    flags.iter().map(|flag| flag.to_ascii_lowercase()).collect()
}

/// The second an INTERNALDATE names, in whatever zone.
#[must_use]
pub fn instant(internal_date: &str) -> Option<i64> {
    DateTime::parse_from_str(internal_date.trim(), "%d-%b-%Y %H:%M:%S %z").ok().map(|date| date.timestamp())
}

/// Digests of bodies that stream by.
#[derive(Debug, Default)]
pub struct Digests {
    current: Option<(Uid, blake3::Hasher)>,
    done: std::collections::HashMap<Uid, Digest>,
}

impl Digests {
    /// The digest of a message that came by whole.
    #[must_use]
    pub fn of(&self, uid: Uid) -> Option<Digest> {
        self.done.get(&uid).copied()
    }
}

impl BodySink for Digests {
    fn start(&mut self, uid: Uid, _size: u64) -> io::Result<()> {
        self.current = Some((uid, blake3::Hasher::new()));
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, hasher)) = &mut self.current {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some((uid, hasher)) = self.current.take() {
            self.done.insert(uid, hasher.finalize().into());
        }
        Ok(())
    }

    fn missing(&mut self, _uid: Uid) {}
}
