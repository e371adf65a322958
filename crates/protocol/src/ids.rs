//! Names for things that must not be mistaken for one another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Who pays and who may see; a plain install has one, number 1.
    TenantId(i64)
}
number! {
    /// One protected mailbox.
    MailboxId(i64)
}
number! {
    /// One folder of one mailbox, named by the source gateway for as long as its UIDVALIDITY lives; a rename keeps it.
    FolderId(i32)
}
number! {
    /// A transaction's number: contiguous per mailbox and direction, from 1.
    Seq(i64)
}
number! {
    /// Counts a mailbox's changes of side.
    Epoch(i64)
}
number! {
    /// A message's number in a folder (RFC 9051 §2.3.1.1); 0 is never one.
    Uid(u32)
}
number! {
    /// The generation of a folder's UIDs (RFC 9051 §2.3.1.1).
    UidValidity(u32)
}
number! {
    /// A folder's place in the server journal (RFC 7162 §3.1); 63 bits. 0 where the server keeps none.
    ModSeq(u64)
}

impl Seq {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which way a transaction travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Primary to standby.
    Outbound,
    /// Standby to primary, after a switchover.
    Return,
}

/// Primary or standby, as seen from one mailbox; its user works on the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Primary,
    Standby,
}

impl Side {
    /// As columns and interfaces spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }

    /// The side that it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Standby,
            Self::Standby => Self::Primary,
        }
    }
}

/// BLAKE3 of some bytes: 32 of them, written as 64 hex digits. The default, all zeros, stands for one that is not known.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Is it known?
    #[must_use]
    pub fn is_known(self) -> bool {
        self != Self::default()
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Not 64 hex digits, or not 32 bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest has 64 hex digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotADigest)?;
        Ok(hash.into())
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = NotADigest;

    fn try_from(bytes: &[u8]) -> Result<Self, NotADigest> {
        bytes.try_into().map(Self).map_err(|_| NotADigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)?;
        Ok(Self(bytes.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_bytes() {
        let digest = Digest::of(b"a");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::try_from(&digest.0[..]), Ok(digest));
        assert_eq!("zz".parse::<Digest>(), Err(NotADigest));
    }
}
