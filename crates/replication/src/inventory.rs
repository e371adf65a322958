//! What a mailbox holds on one side, listed from the server itself, piece by piece.
//!
//! Keeps true: at most one piece is in memory; a listing that fails half-way is an error, never a short list.

use std::io;

use understudy_imap_session::{BodySink, Error, Session};
use understudy_protocol::{
    Digest, Uid, UidSet,
    messages::{InventoryFrame, InventoryMessage},
};

/// Messages listed at once.
const SLICE: usize = 1000;

/// Takes in the frames of an inventory.
pub trait Frames {
    /// The next frame. An error ends the inventory.
    fn frame(&mut self, frame: InventoryFrame) -> impl Future<Output = io::Result<()>> + Send;
}

/// Lists the whole mailbox into `out`, with a digest of every message when `bodies` is set. Reads only.
pub async fn list<F: Frames + Send>(session: &mut Session, bodies: bool, out: &mut F) -> Result<(), Error> {
    let sweep = session.sweep().await?;
    out.frame(InventoryFrame::Start { subscriptions: sweep.subscriptions }).await.map_err(Error::Sink)?;
    for folder in sweep.folders {
        let opened = if folder.selectable { session.examine(&folder.name).await? } else { None };
        if folder.selectable && opened.is_none() {
            // Gone since the listing.
            continue;
        }
        out.frame(InventoryFrame::Folder {
            path: folder.path,
            special_use: folder.special_use,
            selectable: folder.selectable,
        })
        .await
        .map_err(Error::Sink)?;
        if opened.is_some() {
            list_open_folder(session, bodies, out).await?;
        }
    }
    out.frame(InventoryFrame::End).await.map_err(Error::Sink)
}

async fn list_open_folder<F: Frames + Send>(session: &mut Session, bodies: bool, out: &mut F) -> Result<(), Error> {
    let uids: Vec<Uid> = session.uids(Uid(1)).await?.iter().collect();
    for slice in uids.chunks(SLICE) {
        let set: UidSet = slice.iter().copied().collect();
        let rows = session.rows(&set).await?;
        let mut digests = Digests::default();
        if bodies {
            session.bodies(&set, &mut digests).await?;
        }
        let messages = rows
            .into_iter()
            .map(|row| InventoryMessage {
                digest: digests.of(row.uid),
                uid: row.uid,
                flags: row.flags,
                internal_date: row.internal_date,
                size: row.size,
            })
            .collect();
        out.frame(InventoryFrame::Messages(messages)).await.map_err(Error::Sink)?;
    }
    Ok(())
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
