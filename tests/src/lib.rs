//! The rig: real mail servers, a real Understudy, an independent IMAP client and a way to compare.
//!
//! Scenarios (`tests/`), the demo and the benchmark stand on it. Nothing here uses Understudy's own IMAP code: a mirror must not be
//! judged by its own eyes.

pub mod bucket;
pub mod client;
pub mod compare;
pub mod cyrus;
pub mod dovecot;
pub mod failpoint;
pub mod fork;
pub mod front_door;
pub mod mail;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scenario;
pub mod stack;
pub mod wait;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

/// A folder that unprivileged servers may pass through, removed when dropped.
pub fn temp_dir(prefix: &str) -> std::io::Result<tempfile::TempDir> {
    // Not TMPDIR: sockets need a short path, and servers one that is open to them.
    tempfile::Builder::new().prefix(prefix).permissions(Permissions::from_mode(0o755)).tempdir_in("/tmp")
}
