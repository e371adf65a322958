//! The content store: pack files, indexed in the database.
//!
//! Keeps true: a content is in the index only after its pack was synced; what is read has the length that was promised.
//! A pack's tail that no row names is left by a crash and harmless.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::PgPool;
use understudy_database::content::{self, Place};
use understudy_imap_session::ContentSource;
use understudy_protocol::{ContentRef, Digest, TenantId};
use understudy_replication::{
    fidelity::Oddities,
    pack::{self, PackWriter},
};
use uuid::Uuid;

/// A pack is closed when it has grown past this, in bytes.
const PACK_BYTES: u64 = 64 << 20;
/// Packs kept open for the next shipment.
const OPEN_PACKS: usize = 8;

/// The content store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    folder: Box<Path>,
    /// A spool folder on the same file system: its files become packs by a link.
    shared_spool: Option<PathBuf>,
    open: Mutex<Vec<PackWriter>>,
}

impl Store {
    pub(crate) fn open(pool: PgPool, folder: &Path, shared_spool: Option<PathBuf>) -> io::Result<Self> {
        pack::create_folder(folder)?;
        let shared_spool = match shared_spool {
            Some(spool) => {
                pack::create_folder(&spool)?;
                // A link cannot cross file systems; then contents are sent as between two sites.
                (fs::metadata(&spool)?.dev() == fs::metadata(folder)?.dev()).then_some(spool)
            }
            None => None,
        };
        Ok(Self { shared: Arc::new(Shared { pool, folder: folder.into(), shared_spool, open: Mutex::default() }) })
    }

    /// Can a source gateway hand its spool files over by name?
    pub(crate) fn takes_over(&self) -> bool {
        self.shared.shared_spool.is_some()
    }

    /// A pack for one shipment; nobody else writes to it meanwhile.
    pub(crate) fn begin(&self) -> io::Result<Receiving> {
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pack = match open {
            Some(pack) => pack,
            None => PackWriter::create(&self.shared.folder.join(format!("{}.pack", Uuid::now_v7())))?,
        };
        let name = pack.path().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Ok(Receiving {
            store: self.clone(),
            start: pack.offset(),
            pack: Some(pack),
            name,
            places: Vec::new(),
            current: None,
            linked: Vec::new(),
        })
    }

    fn give_back(&self, pack: PackWriter) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if pack.offset() < PACK_BYTES && open.len() < OPEN_PACKS {
            open.push(pack);
        }
    }

    /// These contents, ready to be read.
    pub(crate) async fn contents(&self, tenant: TenantId, wanted: &[ContentRef]) -> anyhow::Result<Contents> {
        let digests: Vec<Digest> = wanted.iter().map(|content| content.digest).collect();
        let places = content::places(&self.shared.pool, tenant, &digests).await?;
        let mut files: HashMap<String, Arc<File>> = HashMap::new();
        let mut found = Vec::with_capacity(wanted.len());
        for content in wanted {
            let place = places.get(&content.digest).ok_or_else(|| anyhow::anyhow!(Missing(content.digest)))?;
            let file = match files.get(&place.pack) {
                Some(file) => file.clone(),
                None => {
                    let file = Arc::new(File::open(self.shared.folder.join(&place.pack)).map_err(|error| {
                        anyhow::anyhow!(error).context(format!("could not open the pack {}", place.pack))
                    })?);
                    files.insert(place.pack.clone(), file.clone());
                    file
                }
            };
            found.push(Found { file, offset: place.offset, content: place.content, looked: Looked::default() });
        }
        Ok(Contents { found, first: 0 })
    }
}

/// A content that should be in the store is not.
#[derive(Debug, thiserror::Error)]
#[error("the content store lacks {0}")]
pub(crate) struct Missing(pub(crate) Digest);

/// Contents of one shipment on their way into a pack.
pub(crate) struct Receiving {
    store: Store,
    start: u64,
    pack: Option<PackWriter>,
    name: String,
    places: Vec<Place>,
    current: Option<(ContentRef, u64, blake3::Hasher)>,
    /// Spool files that became packs of their own.
    linked: Vec<PathBuf>,
}

impl Receiving {
    fn pack(&mut self) -> io::Result<&mut PackWriter> {
        self.pack.as_mut().ok_or_else(|| io::Error::other("the pack is closed"))
    }

    /// The next content begins.
    pub(crate) fn content(&mut self, content: ContentRef) -> io::Result<()> {
        let offset = self.pack()?.offset();
        self.current = Some((content, offset, blake3::Hasher::new()));
        Ok(())
    }

    /// Its next bytes.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some((_, _, hasher)) = &mut self.current {
            hasher.update(piece);
        }
        self.pack()?.write(piece)
    }

    /// It is whole; its digest must be the one announced.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let Some((content, offset, hasher)) = self.current.take() else { return Ok(()) };
        if Digest::from(hasher.finalize()) != content.digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a content does not have the digest it came under"));
        }
        self.places.push(Place { content, pack: self.name.clone(), offset });
        Ok(())
    }

    /// A content begins whose digest is known only when it has come by.
    pub(crate) fn unnamed(&mut self, size: u64) -> io::Result<()> {
        self.content(ContentRef { digest: Digest([0; 32]), size })
    }

    /// It is whole; answers which it is.
    pub(crate) fn end_unnamed(&mut self) -> io::Result<ContentRef> {
        let (_, offset, hasher) = self.current.take().ok_or_else(|| io::Error::other("no content has begun"))?;
        let digest = Digest::from(hasher.finalize());
        let size = self.pack()?.offset() - offset;
        let content = ContentRef { digest, size };
        self.places.push(Place { content, pack: self.name.clone(), offset });
        Ok(content)
    }

    /// The file `name` of the shared spool, which its writer has synced, becomes a pack. Its contents are compared with
    /// their digests when they are read, as all are.
    pub(crate) fn handed(&mut self, name: &str, contents: &[(ContentRef, u64)]) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let spool = self.store.shared.shared_spool.as_ref().ok_or_else(|| invalid("no spool folder is shared"))?;
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(invalid("a file was handed over under a name that is none"));
        }
        // Under a name of this shipment's own: one that was given up must not take the file from its repetition.
        let pack = format!("{}.pack", Uuid::now_v7());
        let linked = self.store.shared.folder.join(&pack);
        fs::hard_link(spool.join(name), &linked)?;
        self.linked.push(linked.clone());
        let size = fs::metadata(&linked)?.len();
        for (content, offset) in contents {
            if offset.checked_add(content.size).is_none_or(|end| end > size) {
                return Err(invalid("a file that was handed over is shorter than its contents"));
            }
            self.places.push(Place { content: *content, pack: pack.clone(), offset: *offset });
        }
        Ok(())
    }

    /// Makes everything durable; the places may be written to the index now.
    pub(crate) async fn finish(mut self) -> io::Result<Vec<Place>> {
        let places = std::mem::take(&mut self.places);
        let Some(mut pack) = self.pack.take() else { return Ok(places) };
        let written = pack.offset() > self.start;
        let folder = (!self.linked.is_empty()).then(|| self.store.shared.folder.clone());
        if written || folder.is_some() {
            pack = tokio::task::spawn_blocking(move || {
                if written {
                    pack.sync()?;
                }
                folder.map_or(Ok(()), |folder| pack::sync_folder(&folder)).map(|()| pack)
            })
            .await
            .map_err(io::Error::other)??;
        }
        self.linked.clear();
        self.store.give_back(pack);
        Ok(places)
    }
}

/// A shipment that was given up leaves nothing.
impl Drop for Receiving {
    fn drop(&mut self) {
        for linked in &self.linked {
            let _ = fs::remove_file(linked);
        }
        if let Some(mut pack) = self.pack.take()
            && pack.truncate(self.start).is_ok()
        {
            self.store.give_back(pack);
        }
    }
}

/// Contents to be read in the order in which they were asked for.
pub(crate) struct Contents {
    found: Vec<Found>,
    /// The content that index 0 of the next append means.
    first: usize,
}

/// A content in its pack.
struct Found {
    file: Arc<File>,
    offset: u64,
    content: ContentRef,
    looked: Looked,
}

/// What was seen of a content while it was read from its start.
#[derive(Clone, Default)]
struct Looked {
    through: u64,
    oddities: Oddities,
    hasher: blake3::Hasher,
}

impl Contents {
    /// From now on, index 0 is this content.
    pub(crate) fn start_at(&mut self, first: usize) {
        self.first = first;
    }

    /// Did this content, having been read, hold bytes that servers are known to alter?
    pub(crate) fn is_odd(&self, index: usize) -> bool {
        self.found.get(index).is_some_and(|found| found.looked.oddities.found())
    }
}

impl Contents {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// The byte a content ends in; `None` where it has none.
    pub(crate) fn last_byte(&self, index: usize) -> io::Result<Option<u8>> {
        let found = self.found.get(index).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let Some(last) = found.content.size.checked_sub(1) else { return Ok(None) };
        let mut byte = [0];
        let read = pack::read_at(&found.file, found.offset + last, &mut byte)?;
        Ok((read == 1).then_some(byte[0]))
    }
}

impl Found {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.content.size;
        let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let read = pack::read_at(&self.file, self.offset + offset, &mut buffer[..room])?;
        if read == 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a pack is shorter than the index says"));
        }
        if offset == 0 {
            self.looked = Looked::default();
        }
        if self.looked.through == offset {
            self.looked.oddities.look(&buffer[..read]);
            self.looked.hasher.update(&buffer[..read]);
            self.looked.through += read as u64;
            // Before the last bytes go out: a command that never ends stores nothing.
            if self.looked.through == size && Digest::from(self.looked.hasher.finalize()) != self.content.digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged(self.content.digest)));
            }
        }
        Ok(read)
    }
}

/// A content in the store is not what it was.
#[derive(Debug, thiserror::Error)]
#[error("the content {0} in the store is damaged")]
pub(crate) struct Damaged(Digest);

impl ContentSource for Contents {
    async fn read(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let found = self.found.get_mut(self.first + index);
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.read(offset, buffer)
    }
}
