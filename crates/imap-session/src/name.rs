//! A folder's name as one server spells it.

use std::fmt;

use crate::utf7;

/// A folder's name exactly as its server writes it: prefix, separator and modified UTF-7 included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderName(Box<[u8]>);

impl FolderName {
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>) -> Self {
        Self(name.into().into_boxed_slice())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As interfaces other than IMAP spell it: the server's prefix and separator, in UTF-8 (RFC 3501 §5.1.3).
    #[must_use]
    pub fn to_utf8(&self) -> String {
        utf7::decode(&self.0).unwrap_or_else(|| String::from_utf8_lossy(&self.0).into_owned())
    }
}

impl From<&str> for FolderName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Debug for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
