//! One conversation with one mail server, in our verbs.
//!
//! In: an [`Address`] and a [`Login`]. Out: folders, rows, bodies and changes as values; verdicts on what was written.
//! Keeps true: a listing is a value only after its tagged OK. A tagged NO or BAD, an end of the connection before the
//! tag, or a BYE is always an error: to a mirror, a failed listing would look like a deleted folder.
//! Not here: what the values mean for a mirror (`replication`).

mod address;
mod append;
mod capability;
mod changes;
mod connect;
mod conversation;
mod counted;
mod error;
mod fetch;
mod folders;
mod framer;
#[cfg(test)]
mod fuzz;
mod line;
mod login;
mod name;
mod naming;
mod response;
mod select;
mod sweep;
mod tls;
mod token;
mod utf7;
mod watch;
mod write;

pub use address::Address;
pub use append::{Append, Appended, ContentSource};
pub use capability::{Capabilities, Level};
pub use changes::Changes;
pub use connect::{Session, certificate, knock};
pub use error::{Code, Error, Result, Verdict};
pub use fetch::{BodySink, Row};
pub use login::Login;
pub use name::FolderName;
pub use select::Selected;
pub use sweep::{FolderStatus, ListedFolder, Sweep};
pub use tls::trust;
pub use watch::Noticed;
pub use write::{Command, Copied, Tagged, keyword_is_writable};
