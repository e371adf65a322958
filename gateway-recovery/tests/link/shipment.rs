//! Bodies of shipments, made piece by piece.

use chrono::DateTime;
use understudy_protocol::{
    AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, MailboxId, Position, Seq, Transaction, Uid,
    codec,
    messages::{Ack, Refusal, Shipment},
};

/// A shipment's body, growing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cargo {
    pub(crate) bytes: Vec<u8>,
}

impl Cargo {
    pub(crate) fn frame(mut self, frame: &Shipment) -> Self {
        codec::encode_frame(frame, &mut self.bytes).unwrap();
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn content(self, content: &[u8]) -> Self {
        self.frame(&Shipment::Content(content_ref(content))).raw(content)
    }

    pub(crate) fn transaction(self, transaction: &Transaction) -> Self {
        self.frame(&Shipment::Transaction(codec::encode(transaction).unwrap()))
    }

    /// A transaction and before it the contents it names.
    pub(crate) fn whole(self, mailbox: MailboxId, seq: i64, contents: &[&[u8]]) -> Self {
        let cargo = contents.iter().fold(self, |cargo, content| cargo.content(content));
        cargo.transaction(&transaction(mailbox, seq, contents))
    }
}

impl From<Cargo> for reqwest::Body {
    fn from(cargo: Cargo) -> Self {
        cargo.bytes.into()
    }
}

pub(crate) fn content_ref(content: &[u8]) -> ContentRef {
    ContentRef { digest: Digest::of(content), size: content.len() as u64 }
}

/// A transaction that adds a message of each content; the UIDs tell it from others.
pub(crate) fn transaction(mailbox: MailboxId, seq: i64, contents: &[&[u8]]) -> Transaction {
    let first = u32::try_from(seq).unwrap() * 100;
    let added = (first..).zip(contents).map(|(uid, content)| {
        Change::MessageAdded(AddedMessage {
            folder: FolderId(1),
            uid: Uid(uid),
            flags: vec!["\\Seen".to_owned()],
            internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
            content: content_ref(content),
        })
    });
    Transaction {
        mailbox,
        direction: Direction::Outbound,
        seq: Seq(seq),
        epoch: Epoch(1),
        seed: false,
        // The same transaction is the same whenever it is made.
        captured_at: DateTime::UNIX_EPOCH,
        changes: added.collect(),
        position: Position::default(),
        previous: Digest::default(),
    }
}

/// The acknowledgement of everything through `seq`.
pub(crate) fn received(mailbox: MailboxId, seq: i64) -> Ack {
    Ack { mailbox, received: Seq(seq), applied: Seq(0), refused: None }
}

/// The acknowledgement through `seq` of a shipment that went on with something not taken.
pub(crate) fn refused(mailbox: MailboxId, seq: i64, refusal: Refusal) -> Ack {
    Ack { refused: Some(refusal), ..received(mailbox, seq) }
}
