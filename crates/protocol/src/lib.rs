//! What the two gateways say to each other: values, and their bytes on the link. No I/O.
//!
//! Keeps true: every value here can be written by one version and read by the next (see [`codec`]).

pub mod calendar;
pub mod change;
pub mod codec;
pub mod ids;
pub mod messages;
pub mod part_key;
pub mod path;
pub mod policy;
pub mod position;
pub mod server;
pub mod transaction;
pub mod uid_set;
pub mod words;

pub use change::{AddedMessage, Change, ContentRef};
pub use ids::{Digest, Direction, Epoch, FolderId, MailboxId, ModSeq, Seq, Side, TenantId, Uid, UidValidity};
pub use part_key::PartKey;
pub use path::FolderPath;
pub use position::{FolderPosition, Position};
pub use transaction::Transaction;
pub use uid_set::UidSet;
