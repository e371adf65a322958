//! The key under which a tenant's parts are known.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The key of the digests of one tenant's parts. Who does not have it cannot tell from a digest whether a file is known.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartKey(#[serde(with = "serde_bytes")] [u8; 32]);

impl PartKey {
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// To be fed with a part's octets.
    #[must_use]
    pub fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }

    /// The digest of a part.
    #[must_use]
    pub fn digest(&self, part: &[u8]) -> Digest {
        blake3::keyed_hash(&self.0, part).into()
    }
}

/// Never in a log.
impl fmt::Debug for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartKey")
    }
}
