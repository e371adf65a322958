//! What a pass did, counted.

use serde::Serialize;

/// A message that the primary did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    pub(crate) folder: String,
    /// Its UID on the side that has it.
    pub(crate) uid: u32,
    pub(crate) side: &'static str,
    pub(crate) reason: String,
}

/// What a pass did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Messages that the primary, or the standby, was given.
    pub(crate) added_to_primary: u64,
    pub(crate) added_to_standby: u64,
    pub(crate) flags_on_primary: u64,
    pub(crate) flags_on_standby: u64,
    pub(crate) removed_from_primary: u64,
    pub(crate) removed_from_standby: u64,
    pub(crate) folders_changed: u64,
    pub(crate) subscriptions_changed: u64,
    /// Messages that both sides had got on their own.
    pub(crate) recognised: u64,
    /// Kept although one side had removed them, since the other had changed them.
    pub(crate) kept: u64,
    /// The primary lacked more than anybody removes: given back instead of removed.
    pub(crate) not_believed: u64,
    pub(crate) refused: Vec<Refused>,
    /// Something changed while it was read; the next pass sees it.
    pub(crate) moving: bool,
}

impl Report {
    /// Messages and changes that went across.
    pub(crate) fn effects(&self) -> u64 {
        self.added_to_primary
            + self.added_to_standby
            + self.flags_on_primary
            + self.flags_on_standby
            + self.removed_from_primary
            + self.removed_from_standby
            + self.folders_changed
            + self.subscriptions_changed
            + self.recognised
    }

    /// Adds what another pass did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.added_to_primary += other.added_to_primary;
        self.added_to_standby += other.added_to_standby;
        self.flags_on_primary += other.flags_on_primary;
        self.flags_on_standby += other.flags_on_standby;
        self.removed_from_primary += other.removed_from_primary;
        self.removed_from_standby += other.removed_from_standby;
        self.folders_changed += other.folders_changed;
        self.subscriptions_changed += other.subscriptions_changed;
        self.recognised += other.recognised;
        self.kept += other.kept;
        self.not_believed += other.not_believed;
        self.refused.clone_from(&other.refused);
        self.moving = other.moving;
    }
}
