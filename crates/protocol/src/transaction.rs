//! What one look at a mailbox found, numbered.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Change, Digest, Direction, Epoch, MailboxId, Position, Seq};

/// The ordered changes of one mailbox, shipped and applied as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub mailbox: MailboxId,
    pub direction: Direction,
    pub seq: Seq,
    /// Refused by the recovery site when it is not the mailbox's epoch any more.
    pub epoch: Epoch,
    /// Part of the first full copy: such transactions do not count as lag of live work.
    pub seed: bool,
    /// When the look that found these changes began, by the source gateway's clock.
    pub captured_at: DateTime<Utc>,
    pub changes: Vec<Change>,
    /// The positions of the folders this transaction moved on; the others stand where they stood.
    pub position: Position,
    /// Of the transaction before it, by [`crate::codec::encode`] as it was captured: two journals that agree in their numbers may
    /// still not be the same one. Not known of the first, and from gateways that do not say.
    #[serde(default)]
    pub previous: Digest,
}
