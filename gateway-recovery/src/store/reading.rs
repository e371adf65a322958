//! Contents of the store, read in the order in which they were asked for.
//!
//! Keeps true: memory is bounded whatever the size; a content read to its end has its digest, or its last bytes are an error.

use std::{collections::HashMap, io, sync::Arc};

use bytes::Bytes;
use understudy_database::{
    content::{self, Form, Place},
    part,
};
use understudy_imap_session::ContentSource;
use understudy_protocol::{ContentRef, Digest, PartKey, TenantId};
use understudy_replication::{fidelity::Oddities, pack};

use super::{
    Store,
    packs::OpenPack,
    seal::{DataKey, PREFIX, SEGMENT, TAG, sealed_size},
    whole::Whole,
};

/// How much of a bucket's object is fetched at once, in bytes.
const WINDOW_BYTES: u64 = 4 << 20;

/// A content that should be in the store is not.
#[derive(Debug, thiserror::Error)]
#[error("the content store lacks {0}")]
pub(crate) struct Missing(pub(crate) Digest);

/// A content in the store is not what it was.
#[derive(Debug, thiserror::Error)]
#[error("the content {0} in the store is damaged")]
pub(crate) struct Damaged(Digest);

impl Store {
    /// These contents, ready to be read.
    pub(crate) async fn contents(&self, tenant: TenantId, wanted: &[ContentRef]) -> anyhow::Result<Contents> {
        self.contents_at(tenant, wanted, &self.places(tenant, wanted).await?).await
    }

    /// Where these contents rest, for [`Self::contents_at`]. What moves meanwhile can still be read where it was, for hours.
    pub(crate) async fn places(
        &self,
        tenant: TenantId,
        wanted: &[ContentRef],
    ) -> anyhow::Result<HashMap<Digest, Place>> {
        Ok(content::places(&self.shared.pool, tenant, &super::wanted(wanted)).await?)
    }

    /// These contents, of which it is known where they rest.
    pub(crate) async fn contents_at(
        &self,
        tenant: TenantId,
        wanted: &[ContentRef],
        places: &HashMap<Digest, Place>,
    ) -> anyhow::Result<Contents> {
        let mut places_wanted = Vec::with_capacity(wanted.len());
        for content in wanted {
            let place = places.get(&content.digest).ok_or_else(|| anyhow::anyhow!(Missing(content.digest)))?;
            places_wanted.push(place.clone());
        }
        self.at(tenant, places_wanted).await
    }

    /// What rests at these places: messages, and parts by themselves.
    pub(super) async fn at(&self, tenant: TenantId, places: Vec<Place>) -> anyhow::Result<Contents> {
        let looked = places.iter().map(|_| Looked::default()).collect();
        let has_parts = places.iter().any(|place| place.form == Form::Part);
        let part_key = if has_parts { part::key_of(&self.shared.pool, tenant).await? } else { None };
        let mut pieces = self.pieces(tenant, places).await?;
        let wholes = self.wholes(tenant, &mut pieces, &HashMap::new()).await?;
        Ok(Contents { pieces, wholes, part_key, looked, first: 0 })
    }

    /// The bytes that rest at these places.
    pub(super) async fn pieces(&self, tenant: TenantId, places: Vec<Place>) -> anyhow::Result<Pieces> {
        let mut packs: HashMap<String, OpenPack> = HashMap::new();
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            let pack = match packs.get(&place.pack) {
                Some(pack) => pack.clone(),
                None => {
                    let pack = match self.shared.packs.open_pack(&place.pack) {
                        Ok(pack) => pack,
                        Err(error) => {
                            if error.kind() == io::ErrorKind::NotFound {
                                self.damaged(tenant, &place, "its pack is gone").await;
                            }
                            let failed = format!("could not open the pack {}", place.pack);
                            return Err(anyhow::Error::from(error).context(failed));
                        }
                    };
                    packs.insert(place.pack.clone(), pack.clone());
                    pack
                }
            };
            let key = place.key.map(|key| self.opening_key(key)).transpose()?;
            found.push(Found { pack, place, key, prefix: None });
        }
        Ok(Pieces { store: self.clone(), tenant, found, window: None, segment: None })
    }
}

/// Contents to be read in the order in which they were asked for.
pub(crate) struct Contents {
    /// Those that were asked for, and behind them the parts that they are put together from.
    pieces: Pieces,
    /// How those that rest as a skeleton are put together.
    wholes: Vec<Option<Whole>>,
    /// Where parts by themselves are among them.
    part_key: Option<PartKey>,
    looked: Vec<Looked>,
    /// The content that index 0 of the next append means.
    first: usize,
}

/// Contents in their packs, to be read from anywhere.
pub(super) struct Pieces {
    store: Store,
    tenant: TenantId,
    found: Vec<Found>,
    /// A part of an object: its pack, where it begins, its bytes.
    window: Option<(String, u64, Bytes)>,
    /// An opened segment: of which content, its number, its bytes.
    segment: Option<(usize, u64, Vec<u8>)>,
}

/// A content in its pack.
struct Found {
    pack: OpenPack,
    place: Place,
    key: Option<Arc<DataKey>>,
    prefix: Option<[u8; PREFIX]>,
}

/// What was seen of a content while it was read from its start.
#[derive(Clone, Default)]
struct Looked {
    through: u64,
    oddities: Oddities,
    hasher: Option<blake3::Hasher>,
}

impl Found {
    /// Bytes it takes in its pack.
    fn stored(&self) -> u64 {
        let size = self.place.stored;
        if self.key.is_some() { sealed_size(size) } else { size }
    }
}

impl Contents {
    /// From now on, index 0 is this content.
    pub(crate) fn start_at(&mut self, first: usize) {
        self.first = first;
    }

    /// Did this content, having been read, hold bytes that servers are known to alter?
    pub(crate) fn is_odd(&self, index: usize) -> bool {
        self.looked.get(index).is_some_and(|looked| looked.oddities.found())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.looked.len()
    }

    /// The byte a content ends in; `None` where it has none.
    pub(crate) async fn last_byte(&mut self, index: usize) -> io::Result<Option<u8>> {
        let found = self.pieces.found.get(index).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let Some(last) = found.place.content.size.checked_sub(1) else { return Ok(None) };
        let mut byte = [0];
        let read = self.some(index, last, &mut byte).await?;
        Ok((read == 1).then_some(byte[0]))
    }
}

impl Contents {
    /// Some bytes of a message, wherever they rest.
    async fn some(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.wholes.get(index) {
            Some(Some(whole)) => whole.read(&mut self.pieces, offset, buffer).await,
            _ => self.pieces.bytes(index, offset, buffer).await,
        }
    }
}

impl Pieces {
    /// The contents they were made of, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.found.iter().map(|found| &found.place)
    }

    /// Adds contents; the first gets the number that is answered.
    pub(super) fn append(&mut self, other: Self) -> usize {
        let first = self.found.len();
        self.found.extend(other.found);
        first
    }

    /// Some bytes of a content from `offset` on, at least one unless it ends there.
    pub(super) async fn bytes(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let found = self.found.get(index).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let size = found.place.stored;
        let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        if found.key.is_some() {
            return self.opened(index, offset, &mut buffer[..room]).await;
        }
        if let OpenPack::File(file) = &found.pack {
            let read = pack::read_at(file, found.place.offset + offset, &mut buffer[..room])?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a pack is shorter than the index says"));
            }
            return Ok(read);
        }
        let room = room.min(SEGMENT);
        let bytes = self.raw(index, offset, room).await?;
        buffer[..room].copy_from_slice(&bytes);
        Ok(room)
    }

    /// The same of a sealed content.
    async fn opened(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let number = offset / SEGMENT as u64;
        if !matches!(&self.segment, Some((of, at, _)) if *of == index && *at == number) {
            let prefix = match self.found[index].prefix {
                Some(prefix) => prefix,
                None => {
                    let prefix = self.raw(index, 0, PREFIX).await?;
                    let prefix = <[u8; PREFIX]>::try_from(&prefix[..]).map_err(io::Error::other)?;
                    self.found[index].prefix = Some(prefix);
                    prefix
                }
            };
            let size = self.found[index].place.stored;
            let begins = number * SEGMENT as u64;
            let plain = usize::try_from(size - begins).unwrap_or(SEGMENT).min(SEGMENT);
            let at = (PREFIX as u64) + number * (SEGMENT + TAG) as u64;
            let mut segment = self.raw(index, at, plain + TAG).await?.to_vec();
            let last = begins + plain as u64 == size;
            let opened = match &self.found[index].key {
                Some(key) => key.open(&prefix, number, last, &mut segment),
                None => Ok(()),
            };
            if opened.is_err() {
                return Err(self.damage(index).await);
            }
            self.segment = Some((index, number, segment));
        }
        let Some((_, _, segment)) = &self.segment else { return Ok(0) };
        let from = usize::try_from(offset % SEGMENT as u64).unwrap_or_default();
        let length = buffer.len().min(segment.len().saturating_sub(from));
        buffer[..length].copy_from_slice(&segment[from..from + length]);
        Ok(length)
    }

    /// Bytes as they lie in the pack. Of an object, more is fetched with them: what is wanted next lies beside it.
    async fn raw(&mut self, index: usize, from: u64, length: usize) -> io::Result<Bytes> {
        let found = &self.found[index];
        let at = found.place.offset + from;
        if found.pack.is_file() {
            return found.pack.range(at, length).await;
        }
        if let Some((pack, begins, bytes)) = &self.window
            && *pack == found.place.pack
            && at >= *begins
            && at + length as u64 <= begins + bytes.len() as u64
        {
            let start = usize::try_from(at - begins).unwrap_or_default();
            return Ok(bytes.slice(start..start + length));
        }
        let ends = |other: &Found| other.place.offset + other.stored();
        let (start, end) = if found.stored() > WINDOW_BYTES {
            (at, ends(found).min(at + WINDOW_BYTES))
        } else {
            let start = found.place.offset;
            let beside = self.found.iter().filter(|other| other.place.pack == found.place.pack).map(ends);
            (start, beside.filter(|end| *end <= start + WINDOW_BYTES).max().unwrap_or(start).max(ends(found)))
        };
        let fetched = found.pack.range(start, usize::try_from(end - start).unwrap_or(length)).await?;
        let skip = usize::try_from(at - start).unwrap_or_default();
        let bytes = fetched.slice(skip..skip + length);
        self.window = Some((found.place.pack.clone(), start, fetched));
        Ok(bytes)
    }

    /// Notes that a content is not what it was.
    pub(super) async fn damage(&self, index: usize) -> io::Error {
        let place = &self.found[index].place;
        self.store.damaged(self.tenant, place, "its bytes are not those of its digest").await;
        io::Error::new(io::ErrorKind::InvalidData, Damaged(place.content.digest))
    }
}

impl ContentSource for Contents {
    async fn read(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let index = self.first + index;
        let read = self.some(index, offset, buffer).await?;
        let (Some(looked), Some(found)) = (self.looked.get_mut(index), self.pieces.found.get(index)) else {
            return Ok(read);
        };
        if offset == 0 {
            let hasher = match (found.place.form, &self.part_key) {
                (Form::Part, Some(key)) => key.hasher(),
                _ => blake3::Hasher::new(),
            };
            *looked = Looked { hasher: Some(hasher), ..Looked::default() };
        }
        let content = found.place.content;
        if looked.through == offset
            && let Some(hasher) = &mut looked.hasher
        {
            looked.oddities.look(&buffer[..read]);
            hasher.update(&buffer[..read]);
            looked.through += read as u64;
            // Before the last bytes go out: a command that never ends stores nothing.
            if looked.through == content.size && Digest::from(hasher.finalize()) != content.digest {
                return Err(self.pieces.damage(index).await);
            }
        }
        Ok(read)
    }
}
