//! What two sides have both seen lately, so that the next few bytes need not say it again.
//!
//! Keeps true: a window is known by what it holds, so both sides mean the same one or notice that they do not.

use std::sync::Arc;

use understudy_protocol::Digest;

/// The most bytes in a window. More finds more, and costs more time with each shipment.
pub(crate) const WINDOW_BYTES: usize = 512 << 10;
/// What begins like this is taken for a trained dictionary.
const MAGIC: [u8; 4] = 0xec30_a437_u32.to_le_bytes();

/// The last compressed bytes of a row of packed streams, as they were before. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    bytes: Arc<Vec<u8>>,
    name: Digest,
}

impl Seen {
    /// What it is called on the link.
    #[must_use]
    pub fn name(&self) -> Digest {
        self.name
    }

    /// How much it holds, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// With what has been seen since.
    pub(crate) fn and(&self, since: &[u8]) -> Self {
        if since.is_empty() {
            return self.clone();
        }
        let kept = self.bytes.len().min(WINDOW_BYTES.saturating_sub(since.len()));
        let mut bytes = self.bytes[self.bytes.len() - kept..].to_vec();
        bytes.extend_from_slice(&since[since.len().saturating_sub(WINDOW_BYTES)..]);
        while bytes.starts_with(&MAGIC) {
            bytes.remove(0);
        }
        let name = Digest::of(&bytes);
        Self { bytes: Arc::new(bytes), name }
    }
}

/// Keeps the end of what passes by.
pub(crate) fn keep(since: &mut Vec<u8>, bytes: &[u8]) {
    since.extend_from_slice(bytes);
    if since.len() > 2 * WINDOW_BYTES {
        since.drain(..since.len() - WINDOW_BYTES);
    }
}
