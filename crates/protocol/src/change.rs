//! The closed set of changes a mailbox can undergo.

use serde::{Deserialize, Serialize};

use crate::{Digest, FolderId, FolderPath, Uid, UidSet, UidValidity};

/// One thing that happened in a folder. A transaction lists them so that every prefix is safe to apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A folder appeared, or a known name came back under another UIDVALIDITY: then the old folder's
    /// [`Change::FolderDeleted`] follows once the new one's messages have been added.
    FolderCreated {
        folder: FolderId,
        path: FolderPath,
        uid_validity: UidValidity,
        /// `\Sent`, `\Drafts`, … (RFC 6154), lower-cased without the backslash.
        special_use: Vec<String>,
        /// False for a `\Noselect` level that only holds other folders.
        selectable: bool,
    },
    /// The folder is called `path` now; folders below it are listed on their own.
    FolderRenamed { folder: FolderId, path: FolderPath },
    /// The folder and the messages still in it are gone. Its path may already belong to another folder.
    FolderDeleted { folder: FolderId },
    /// The folder has exactly these special uses now, written as in [`Change::FolderCreated`].
    SpecialUsesChanged { folder: FolderId, special_use: Vec<String> },
    /// A subscription was set or removed. The name need not be a folder's.
    SubscriptionChanged { path: FolderPath, subscribed: bool },
    /// A message is there that was not.
    MessageAdded(AddedMessage),
    /// These messages have exactly these flags and keywords now.
    FlagsSet { folder: FolderId, uids: UidSet, flags: Vec<String> },
    /// These messages are gone. May name UIDs never added (RFC 7162 §3.2.10).
    MessagesExpunged { folder: FolderId, uids: UidSet },
}

/// A message new in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedMessage {
    pub folder: FolderId,
    pub uid: Uid,
    /// System flags (with backslash) and keywords, sorted, without `\Recent`.
    pub flags: Vec<String>,
    /// INTERNALDATE as the primary wrote it: `17-Jul-1996 02:44:25 -0700`.
    pub internal_date: String,
    pub content: ContentRef,
}

/// Which bytes a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRef {
    pub digest: Digest,
    /// Octets of the whole message.
    pub size: u64,
}
