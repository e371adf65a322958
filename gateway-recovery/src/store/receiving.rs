//! Contents of one shipment on their way into a pack.
//!
//! Keeps true: nothing of it can be read, and nothing is left of it, unless it was finished. Of one that broke off, parts that had come
//! whole may be finished: nothing names them, and they need not come again.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use understudy_database::content::{Form, Place};
use understudy_protocol::{ContentRef, Digest, PartKey, TenantId};
use understudy_replication::pack::{self, PackWriter};

use super::{
    Store,
    seal::{DataKey, Sealing, Unopened},
};

/// How much of a file that was handed over is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Less than this of a shipment that broke off comes again rather than leaving holes in a pack, in bytes.
const WORTH_KEEPING: u64 = 1 << 20;

/// Contents of one shipment on their way into a pack.
pub(crate) struct Receiving {
    store: Store,
    key: Option<(i64, Arc<DataKey>)>,
    /// The pack, its name, and where the shipment begins in it.
    pack: Option<(PackWriter, String, u64)>,
    places: Vec<Place>,
    current: Option<Current>,
    /// Spool files that became packs of their own.
    linked: Vec<(PathBuf, String)>,
}

/// The content that is coming by.
struct Current {
    content: ContentRef,
    offset: u64,
    size: u64,
    hasher: blake3::Hasher,
    sealing: Option<Sealing>,
    form: Form,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn unsealed(error: Unopened) -> io::Error {
    io::Error::other(error)
}

impl Store {
    /// Makes ready for one shipment of this tenant. A source gateway that names none is an older one.
    pub(crate) async fn begin(&self, tenant: Option<TenantId>) -> io::Result<Receiving> {
        let key = match tenant {
            Some(tenant) => self.sealing_key(tenant).await.map_err(io::Error::other)?,
            None if self.shared.config.keys.is_some() => {
                return Err(invalid(
                    "contents are encrypted here, and the shipment names no tenant: upgrade its sender",
                ));
            }
            None => None,
        };
        Ok(Receiving { store: self.clone(), key, pack: None, places: Vec::new(), current: None, linked: Vec::new() })
    }
}

impl Receiving {
    fn pack(&mut self) -> io::Result<&mut PackWriter> {
        if self.pack.is_none() {
            let (pack, name) = self.store.take_pack()?;
            let start = pack.offset();
            self.pack = Some((pack, name, start));
        }
        self.pack.as_mut().map(|(pack, ..)| pack).ok_or_else(|| io::Error::other("the pack is closed"))
    }

    /// The next content begins.
    pub(crate) fn content(&mut self, content: ContentRef) -> io::Result<()> {
        self.start(content, Form::Whole, blake3::Hasher::new())
    }

    /// The next part begins; its digest is by this key.
    pub(crate) fn part(&mut self, part: ContentRef, key: &PartKey) -> io::Result<()> {
        self.start(part, Form::Part, key.hasher())
    }

    /// The next skeleton begins: how the message is put together; what is written next are the octets of its own.
    pub(crate) fn skeleton(&mut self, message: ContentRef, recipe: &[u8]) -> io::Result<()> {
        let length = u32::try_from(recipe.len()).map_err(io::Error::other)?;
        self.start(message, Form::Skeleton, blake3::Hasher::new())?;
        self.write(&length.to_be_bytes())?;
        self.write(recipe)
    }

    fn start(&mut self, content: ContentRef, form: Form, hasher: blake3::Hasher) -> io::Result<()> {
        let offset = self.pack()?.offset();
        let sealing = self.key.as_ref().map(|(_, key)| Sealing::new(key.clone()));
        self.current = Some(Current { content, offset, size: 0, hasher, sealing, form });
        Ok(())
    }

    /// Its next bytes.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Err(io::Error::other("no content has begun")) };
        current.hasher.update(piece);
        current.size += piece.len() as u64;
        let pack = self.pack()?;
        match &mut current.sealing {
            Some(sealing) => sealing.write(piece, &mut |sealed: &[u8]| pack.write(sealed)).map_err(unsealed)??,
            None => pack.write(piece)?,
        }
        self.current = Some(current);
        Ok(())
    }

    /// It is whole; its digest must be the one announced.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let Some(announced) = self.current.as_ref().map(|current| current.content.digest) else { return Ok(()) };
        if self.finish_current()?.digest != announced {
            return Err(invalid("a content does not have the digest it came under"));
        }
        Ok(())
    }

    /// A content begins whose digest is known only when it has come by.
    pub(crate) fn unnamed(&mut self, size: u64) -> io::Result<()> {
        self.content(ContentRef { digest: Digest([0; 32]), size })
    }

    /// It is whole; answers which it is.
    pub(crate) fn end_unnamed(&mut self) -> io::Result<ContentRef> {
        self.finish_current()
    }

    fn finish_current(&mut self) -> io::Result<ContentRef> {
        let current = self.current.take().ok_or_else(|| io::Error::other("no content has begun"))?;
        let content = match current.form {
            // Whether it makes the message is seen when that is put together (`whole`).
            Form::Skeleton => current.content,
            _ => ContentRef { digest: Digest::from(current.hasher.finalize()), size: current.size },
        };
        let key = self.key.as_ref().map(|(key, _)| *key);
        let pack = self.pack()?;
        if let Some(sealing) = current.sealing {
            sealing.finish(&mut |sealed: &[u8]| pack.write(sealed)).map_err(unsealed)??;
        }
        let name = self.pack.as_ref().map(|(_, name, _)| name.clone()).unwrap_or_default();
        self.places.push(Place {
            content,
            form: current.form,
            stored: current.size,
            pack: name,
            offset: current.offset,
            key,
        });
        Ok(content)
    }

    /// The file `name` of the shared spool, which its writer has synced, becomes a pack, or its contents are taken from it. Where it
    /// becomes a pack, contents are compared with their digests when they are read, as all are.
    pub(crate) fn handed(&mut self, name: &str, contents: &[(ContentRef, u64)]) -> io::Result<()> {
        let shared = self.store.shared.clone();
        let spool = shared.shared_spool.as_ref().ok_or_else(|| invalid("no spool folder is shared"))?;
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(invalid("a file was handed over under a name that is none"));
        }
        if !shared.links {
            return self.copied(&spool.join(name), contents);
        }
        // Under a name of this shipment's own: one that was given up must not take the file from its repetition.
        let pack = shared.packs.file_name();
        let linked = shared.packs.folder().join(&pack);
        if let Err(error) = fs::hard_link(spool.join(name), &linked) {
            shared.packs.release(&pack);
            return Err(error);
        }
        self.linked.push((linked.clone(), pack.clone()));
        let size = fs::metadata(&linked)?.len();
        for (content, offset) in contents {
            if offset.checked_add(content.size).is_none_or(|end| end > size) {
                return Err(invalid("a file that was handed over is shorter than its contents"));
            }
            self.places.push(Place {
                content: *content,
                form: Form::Whole,
                stored: content.size,
                pack: pack.clone(),
                offset: *offset,
                key: None,
            });
        }
        Ok(())
    }

    fn copied(&mut self, path: &Path, contents: &[(ContentRef, u64)]) -> io::Result<()> {
        let file = File::open(path)?;
        let mut piece = vec![0; PIECE_BYTES];
        for (content, offset) in contents {
            self.content(*content)?;
            let mut done = 0;
            while done < content.size {
                let room = usize::try_from(content.size - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let read = pack::read_at(&file, offset + done, &mut piece[..room])?;
                if read == 0 {
                    return Err(invalid("a file that was handed over is shorter than its contents"));
                }
                self.write(&piece[..read])?;
                done += read as u64;
            }
            self.end()?;
        }
        Ok(())
    }

    /// It broke off: only parts that have come whole are kept. `None` where they are not worth it.
    pub(crate) fn only_parts(mut self) -> io::Result<Option<Self>> {
        self.places.retain(|place| place.form == Form::Part);
        let bytes: u64 = self.places.iter().map(|place| place.stored).sum();
        if bytes < WORTH_KEEPING || !self.linked.is_empty() {
            return Ok(None);
        }
        if let Some(current) = self.current.take() {
            self.pack()?.truncate(current.offset)?;
        }
        Ok(Some(self))
    }

    /// Makes everything durable; the places may be written to the index now.
    pub(crate) async fn finish(mut self) -> io::Result<Vec<Place>> {
        let shared = self.store.shared.clone();
        if let Some((pack, name, start)) = self.pack.take() {
            if pack.offset() > start {
                match shared.packs.finish(pack, &name).await {
                    Ok(Some(pack)) => self.store.give_back(pack, name),
                    Ok(None) => shared.packs.release(&name),
                    Err(error) => {
                        shared.packs.release(&name);
                        return Err(error);
                    }
                }
            } else {
                self.pack = Some((pack, name, start));
            }
        }
        if !self.linked.is_empty() {
            let folder = shared.packs.folder().to_owned();
            let synced = tokio::task::spawn_blocking(move || pack::sync_folder(&folder)).await;
            synced.map_err(io::Error::other)??;
            for (_, name) in std::mem::take(&mut self.linked) {
                shared.packs.release(&name);
            }
        }
        Ok(std::mem::take(&mut self.places))
    }
}

/// A shipment that was given up leaves nothing.
impl Drop for Receiving {
    fn drop(&mut self) {
        let packs = &self.store.shared.packs;
        for (linked, name) in &self.linked {
            let _ = fs::remove_file(linked);
            packs.release(name);
        }
        let Some((mut pack, name, start)) = self.pack.take() else { return };
        if packs.writes_objects() {
            let _ = fs::remove_file(pack.path());
            packs.release(&name);
        } else if pack.truncate(start).is_ok() {
            self.store.give_back(pack, name);
        } else {
            packs.release(&name);
        }
    }
}
