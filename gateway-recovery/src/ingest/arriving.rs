//! A shipment as it comes in: unpacked, frame by frame, its contents passed on to the store.
//!
//! Keeps true: memory is bounded whatever comes; nothing counts before [`Arriving::end`].

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};
use understudy_content::{Recipe, Seen, Unpacker, is_packed};
use understudy_protocol::{
    Digest, PartKey, TenantId, Transaction,
    codec::{self, CodecError},
    messages::Shipment,
};

use crate::{
    bounds::HeldFrames,
    store::{Receiving, Store},
};

use super::{FRAME_BYTES, IngestError, SHIPMENT_BYTES, TRANSACTIONS};

/// A shipment as it comes in.
pub(super) struct Arriving {
    /// Only where the shipment is packed.
    unpacker: Option<Unpacker<Find>>,
    part_key: Option<PartKey>,
    /// Bytes as they came.
    wire: u64,
    buffer: BytesMut,
    /// Bytes still to come of the content at hand.
    left: u64,
    total: u64,
    /// Bytes of the messages that skeletons stand for: one part may be named in many places.
    rebuilt: u64,
    /// Bytes of frames: these stay in memory until all has come.
    frames: usize,
    /// … together with those of other shipments.
    held: HeldFrames,
    receiving: Receiving,
    transactions: Vec<Arrived>,
    recipes: HashMap<Digest, Recipe>,
}

/// A shipment that came whole.
pub(super) struct Whole {
    pub(super) transactions: Vec<Arrived>,
    pub(super) receiving: Receiving,
    /// Of the messages that came as a skeleton.
    pub(super) recipes: HashMap<Digest, Recipe>,
    /// Bytes as they came; none where it was not packed.
    pub(super) packed: Option<u64>,
    /// What has been seen with it.
    pub(super) seen: Option<Seen>,
    pub(super) held: HeldFrames,
}

/// What was seen before, by its name.
pub(super) type Find = Box<dyn Fn(&Digest) -> Option<Seen> + Send + Sync>;

/// A transaction, and the digest of its octets as they came: another version may write it differently.
pub(super) struct Arrived {
    pub(super) transaction: Transaction,
    pub(super) digest: Digest,
}

impl Arriving {
    pub(super) async fn new(store: &Store, tenant: Option<TenantId>, held: HeldFrames) -> Result<Self, IngestError> {
        Ok(Self {
            unpacker: None,
            part_key: None,
            wire: 0,
            buffer: BytesMut::new(),
            left: 0,
            total: 0,
            rebuilt: 0,
            frames: 0,
            held,
            receiving: store.begin(tenant).await.map_err(IngestError::Store)?,
            transactions: Vec::new(),
            recipes: HashMap::new(),
        })
    }

    /// Is it the beginning of a packed shipment? Then [`Arriving::is_packed`] must be told first.
    pub(super) fn begins_packed(&self, piece: &[u8]) -> bool {
        self.wire == 0 && is_packed(piece)
    }

    /// It is packed; parts are under digests by this key, and what was seen before is found so.
    pub(super) fn is_packed(&mut self, part_key: Option<PartKey>, find: Find) {
        self.unpacker = Some(Unpacker::new(find));
        self.part_key = part_key;
    }

    /// Takes what has arrived.
    pub(super) fn take(&mut self, piece: Bytes) -> Result<(), IngestError> {
        self.wire += piece.len() as u64;
        let Some(mut unpacker) = self.unpacker.take() else { return self.plain(piece) };
        let taken = unpacker.take(&piece, |plain| self.plain(plain.into()));
        self.unpacker = Some(unpacker);
        taken
    }

    fn plain(&mut self, mut piece: Bytes) -> Result<(), IngestError> {
        loop {
            // Content passes by without being gathered.
            if self.left > 0 {
                let (bytes, rest) = if self.buffer.is_empty() {
                    let length = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    (piece.split_to(length), true)
                } else {
                    let length = self.buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    (self.buffer.split_to(length).freeze(), false)
                };
                self.content_bytes(&bytes)?;
                if rest && piece.is_empty() {
                    return Ok(());
                }
                continue;
            }
            if piece.has_remaining() {
                self.buffer.extend_from_slice(&piece);
                piece = Bytes::new();
            }
            self.held.hold(self.frames + self.buffer.len())?;
            let Some((frame, taken)) = codec::decode_frame::<Shipment>(&self.buffer)? else { return Ok(()) };
            self.buffer.advance(taken);
            self.frames += taken;
            if self.frames > FRAME_BYTES {
                return Err(IngestError::TooManyFrames);
            }
            self.frame(frame)?;
        }
    }

    fn frame(&mut self, frame: Shipment) -> Result<(), IngestError> {
        match frame {
            Shipment::Content(content) => {
                self.receiving.content(content).map_err(IngestError::Store)?;
                self.begin(content.size)?;
            }
            Shipment::Part(part) => {
                let key = self.part_key.as_ref().ok_or(IngestError::Foreign)?;
                self.receiving.part(part, key).map_err(IngestError::Store)?;
                self.begin(part.size)?;
            }
            Shipment::Skeleton { content, recipe: bytes } => {
                let recipe = Recipe::decode(&bytes, content.size)?;
                self.rebuilt = self.rebuilt.saturating_add(content.size);
                if self.rebuilt > SHIPMENT_BYTES {
                    return Err(IngestError::TooLarge);
                }
                self.receiving.skeleton(content, &bytes).map_err(IngestError::Store)?;
                self.begin(recipe.own_bytes())?;
                self.recipes.insert(content.digest, recipe);
            }
            Shipment::Handed { file, contents } => {
                self.receiving.handed(&file, &contents).map_err(IngestError::Store)?;
            }
            Shipment::Transaction(body) => {
                if self.transactions.len() >= TRANSACTIONS {
                    return Err(IngestError::TooManyFrames);
                }
                let (transaction, digest) = (codec::decode(&body)?, Digest::of(&body));
                self.transactions.push(Arrived { transaction, digest });
            }
        }
        Ok(())
    }

    /// So many bytes follow of what has begun.
    fn begin(&mut self, size: u64) -> Result<(), IngestError> {
        self.total = self.total.saturating_add(size);
        if self.total > SHIPMENT_BYTES {
            return Err(IngestError::TooLarge);
        }
        self.left = size;
        if size == 0 {
            self.receiving.end().map_err(IngestError::Store)?;
        }
        Ok(())
    }

    fn content_bytes(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        self.receiving.write(bytes).map_err(IngestError::Store)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            self.receiving.end().map_err(IngestError::Store)?;
        }
        Ok(())
    }

    /// It broke off; what of it need not come again, if that is worth keeping.
    pub(super) fn broken_off(self) -> Option<Receiving> {
        self.receiving.only_parts().ok().flatten()
    }

    /// All of it has come.
    pub(super) fn end(self) -> Result<Whole, IngestError> {
        if self.left > 0 || !self.buffer.is_empty() {
            return Err(CodecError::Truncated.into());
        }
        let packed = self.unpacker.is_some().then_some(self.wire);
        let seen = self.unpacker.map(Unpacker::finish).transpose()?;
        let Self { transactions, receiving, recipes, held, .. } = self;
        Ok(Whole { transactions, receiving, recipes, packed, seen, held })
    }
}
