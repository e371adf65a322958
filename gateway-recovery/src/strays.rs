//! Messages on the standby that no completed transaction put there: found, recognised by content, taken over.
//!
//! This is what makes an append safe to repeat: what a crash left behind is found again here, never appended again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
};

use understudy_database::mirror::{self, Stray};
use understudy_imap_session::{BodySink, FolderName};
use understudy_protocol::{FolderId, MailboxId, Uid, UidSet};
use understudy_replication::fidelity::BothDigests;

use crate::standby::Standby;

/// Bodies looked through at once.
const SLICE: usize = 500;

/// The messages of a standby folder from `from` on that the mirror does not know, with their digests.
pub(crate) async fn find(
    pool: &sqlx::PgPool,
    standby: &mut Standby,
    mailbox: MailboxId,
    folder: FolderId,
    name: &FolderName,
    from: Uid,
) -> anyhow::Result<Vec<Stray>> {
    standby.select(name).await?;
    let there = standby.session().uids(from).await?;
    let mapped = mirror::mapped_standby_uids(pool, mailbox, folder, from).await?;
    let unknown: Vec<Uid> = there.iter().filter(|&uid| !mapped.contains(uid)).collect();
    let found = read(standby, folder, &unknown).await?;
    if !found.is_empty() {
        tracing::info!(mailbox.id = %mailbox, folder.id = %folder, count = found.len(),
            "Found messages on the standby that the journal has not completed");
    }
    Ok(found)
}

/// Every message of a standby folder, whatever the mirror knows of it.
pub(crate) async fn all(standby: &mut Standby, folder: FolderId, name: &FolderName) -> anyhow::Result<Vec<Stray>> {
    standby.select(name).await?;
    let there: Vec<Uid> = standby.session().uids(Uid(1)).await?.iter().collect();
    read(standby, folder, &there).await
}

/// Messages of the open folder, with their digests.
async fn read(standby: &mut Standby, folder: FolderId, uids: &[Uid]) -> anyhow::Result<Vec<Stray>> {
    let mut sink = StraySink { folder, current: None, found: Vec::new() };
    for slice in uids.chunks(SLICE) {
        let uids: UidSet = slice.iter().copied().collect();
        standby.session().bodies(&uids, &mut sink).await?;
    }
    Ok(sink.found)
}

struct StraySink {
    folder: FolderId,
    current: Option<(Uid, BothDigests)>,
    found: Vec<Stray>,
}

impl BodySink for StraySink {
    fn start(&mut self, uid: Uid, _size: u64) -> io::Result<()> {
        self.current = Some((uid, BothDigests::default()));
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, digests)) = &mut self.current {
            digests.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some((uid, digests)) = self.current.take() {
            let (digest, loose_digest, _) = digests.finish();
            self.found.push(Stray { folder: self.folder, standby_uid: uid, digest, loose_digest });
        }
        Ok(())
    }

    fn missing(&mut self, _uid: Uid) {}
}

/// Strays of the folders a transaction touches, until additions take them over.
#[derive(Default)]
pub(crate) struct Strays {
    folders: BTreeMap<FolderId, Vec<Stray>>,
    /// Were any written down when the first folder was asked for? Mostly there is none, and no folder need be asked.
    any: Option<bool>,
}

impl Strays {
    /// The strays known of a folder, read once.
    pub(crate) async fn of(
        &mut self,
        pool: &sqlx::PgPool,
        mailbox: MailboxId,
        folder: FolderId,
    ) -> anyhow::Result<&mut Vec<Stray>> {
        match self.folders.entry(folder) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) => {
                let any = match self.any {
                    Some(any) => any,
                    None => *self.any.insert(mirror::has_strays(pool, mailbox).await?),
                };
                Ok(free.insert(if any { mirror::strays(pool, mailbox, folder).await? } else { Vec::new() }))
            }
        }
    }

    /// Strays found in this transaction, in a folder that had none.
    pub(crate) fn found(&mut self, folder: FolderId, strays: Vec<Stray>) {
        self.folders.insert(folder, strays);
    }
}

/// Takes the stray with this content, if there is one: exact before altered, the one with the same UID before the oldest.
pub(crate) fn take(strays: &mut Vec<Stray>, wanted: &Wanted) -> Option<(Stray, bool)> {
    let best = |strays: &[Stray], fits: &dyn Fn(&Stray) -> bool| {
        let same = strays.iter().position(|stray| stray.standby_uid == wanted.uid && fits(stray));
        same.or_else(|| strays.iter().position(fits))
    };
    if let Some(at) = best(strays, &|stray| stray.digest == wanted.digest) {
        return Some((strays.remove(at), true));
    }
    let loose = wanted.loose_digest?;
    let at = best(strays, &|stray| stray.loose_digest == loose)?;
    Some((strays.remove(at), false))
}

/// The content an addition wants.
pub(crate) struct Wanted {
    /// Its UID on the primary.
    pub(crate) uid: Uid,
    pub(crate) digest: understudy_protocol::Digest,
    /// Known only where it was worth computing.
    pub(crate) loose_digest: Option<understudy_protocol::Digest>,
}

/// The loose digest of a content in the store, and the digest of all but its last byte.
pub(crate) async fn other_digests(
    contents: &mut crate::store::Contents,
    index: usize,
    size: u64,
) -> io::Result<[understudy_protocol::Digest; 2]> {
    use understudy_imap_session::ContentSource;
    let mut digests = BothDigests::default();
    let mut without_last = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut offset = 0;
    contents.start_at(0);
    while offset < size {
        let read = contents.read(index, offset, &mut buffer).await?;
        digests.update(&buffer[..read]);
        offset += read as u64;
        without_last.update(&buffer[..read - usize::from(offset == size && read > 0)]);
    }
    Ok([digests.finish().1, without_last.finalize().into()])
}
