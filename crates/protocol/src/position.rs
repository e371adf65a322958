//! How far the server journal has been read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{FolderId, ModSeq, Uid, UidValidity};

/// Per folder, where the next look starts. Travels with the transaction it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub folders: BTreeMap<FolderId, FolderPosition>,
}

/// Where the next look at one folder starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderPosition {
    pub uid_validity: UidValidity,
    /// HIGHESTMODSEQ seen at EXAMINE; every flag change after it is still to be read. 0 without CONDSTORE.
    pub mod_seq: ModSeq,
    /// HIGHESTMODSEQ when the folder was last opened: what was captured until then is no newer. Not where to look from.
    #[serde(default)]
    pub seen_mod_seq: ModSeq,
    /// Every message below this UID has been captured or was gone.
    pub uid_next: Uid,
}
