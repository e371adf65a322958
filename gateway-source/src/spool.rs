//! Contents captured and not yet received: small ones gathered in memory for the journal row, more in a spool file.
//!
//! Keeps true: what [`Spooling::finish`] returns is on the disk, or will be with the journal row.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use sqlx::PgPool;
use understudy_database::source::{self, Spooled};
use understudy_imap_session::BodySink;
use understudy_protocol::{ContentRef, Digest, Uid};
use understudy_replication::pack::{self, PackWriter};
use uuid::Uuid;

/// Up to here, a transaction's contents lie in its journal row: one commit makes both durable. In bytes.
const INLINE_BYTES: usize = 256 << 10;

/// The folder of spool files. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: Arc<Path>,
}

impl Spool {
    /// Opens the folder and clears away files that no waiting transaction needs.
    pub(crate) async fn open(folder: &Path, pool: &PgPool) -> anyhow::Result<Self> {
        pack::create_folder(folder).with_context(|| format!("could not make {}", folder.display()))?;
        let needed: HashSet<String> = source::spool_files(pool).await?.into_iter().collect();
        for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| !needed.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder: folder.into() })
    }

    /// Where a spool file lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes files whose contents have been received.
    pub(crate) fn remove(&self, names: &[String]) {
        for name in names {
            if let Err(error) = fs::remove_file(self.path(name))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(error = %error, "Could not remove a spool file; it is removed at the next start");
            }
        }
    }

    pub(crate) fn begin(&self) -> Spooling {
        Spooling {
            spool: self.clone(),
            memory: Vec::new(),
            pack: None,
            contents: Vec::new(),
            known: HashSet::new(),
            arrived: Vec::new(),
            missing: Vec::new(),
            current: None,
        }
    }
}

/// The contents of one transaction while they are being fetched.
pub(crate) struct Spooling {
    spool: Spool,
    memory: Vec<u8>,
    pack: Option<PackWriter>,
    /// What is held, and where each begins.
    contents: Vec<(ContentRef, u64)>,
    /// Digests held here.
    known: HashSet<Digest>,
    /// Messages whose bodies came, since they were last taken.
    arrived: Vec<(Uid, ContentRef)>,
    missing: Vec<Uid>,
    current: Option<Current>,
}

struct Current {
    uid: Uid,
    start: u64,
    size: u64,
    hasher: blake3::Hasher,
}

impl Spooling {
    fn offset(&self) -> u64 {
        self.pack.as_ref().map_or(self.memory.len() as u64, PackWriter::offset)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset()
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.pack.is_none() {
            if self.memory.len() + piece.len() <= INLINE_BYTES {
                self.memory.extend_from_slice(piece);
                return Ok(());
            }
            let mut pack = PackWriter::create(&self.spool.path(&format!("{}.spool", Uuid::now_v7())))?;
            pack.write(&self.memory)?;
            self.memory = Vec::new();
            self.pack = Some(pack);
        }
        self.pack.as_mut().map_or(Ok(()), |pack| pack.write(piece))
    }

    fn truncate(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.pack {
            Some(pack) => pack.truncate(offset),
            None => {
                self.memory.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
                Ok(())
            }
        }
    }

    /// These contents need no sending: the recovery site has them.
    pub(crate) fn disregard(&mut self, digests: &[Digest]) {
        self.contents.retain(|(content, _)| !digests.contains(&content.digest));
    }

    /// The bodies that arrived since the last call, and the UIDs that had none any more.
    pub(crate) fn take_arrived(&mut self) -> (Vec<(Uid, ContentRef)>, Vec<Uid>) {
        (std::mem::take(&mut self.arrived), std::mem::take(&mut self.missing))
    }

    /// Has this message's body come, or been found gone, since they were last taken?
    pub(crate) fn has_arrived(&self, uid: Uid) -> bool {
        self.arrived.iter().any(|(arrived, _)| *arrived == uid) || self.missing.contains(&uid)
    }

    /// Forgets a body of which only a part came.
    pub(crate) fn give_up_current(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(current) => self.truncate(current.start),
            None => Ok(()),
        }
    }

    /// Makes everything durable. What is returned must be written to the journal or dropped.
    pub(crate) async fn finish(self) -> io::Result<(Vec<(ContentRef, u64)>, Spooled)> {
        let Some(mut pack) = self.pack else {
            let spooled = if self.contents.is_empty() { Spooled::Nothing } else { Spooled::Inline(self.memory) };
            return Ok((self.contents, spooled));
        };
        let name = pack.path().file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| io::Error::other("the spool file has no name"))?;
        tokio::task::spawn_blocking(move || pack.sync()).await.map_err(io::Error::other)??;
        Ok((self.contents, Spooled::File(name)))
    }
}

impl BodySink for Spooling {
    fn start(&mut self, uid: Uid, size: u64) -> io::Result<()> {
        self.current = Some(Current { uid, start: self.offset(), size, hasher: blake3::Hasher::new() });
        Ok(())
    }

    fn chunk(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            current.hasher.update(piece);
        }
        self.write(piece)
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let content = ContentRef { digest: current.hasher.finalize().into(), size: current.size };
        if self.known.insert(content.digest) {
            self.contents.push((content, current.start));
        } else {
            self.truncate(current.start)?;
        }
        self.arrived.push((current.uid, content));
        Ok(())
    }

    fn missing(&mut self, uid: Uid) {
        self.missing.push(uid);
    }
}
