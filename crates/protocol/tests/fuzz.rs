//! Foreign bytes on the link: whatever arrives is a value or an error, and a value that is said again is the same.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use understudy_protocol::{
    Transaction, UidSet,
    codec::{decode, decode_frame, decode_frames, encode, encode_frame},
    messages::{
        Directives, Heartbeat, Hello, InventoryFrame, Known, MailboxReport, Report, Shipment, Shipped, Welcome,
    },
};

/// Reads a value; it must come back the same when it is written. Answers how it looks.
fn value<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<String> {
    let value: T = decode(bytes).ok()?;
    let shown = format!("{value:?}");
    let again: T = decode(&encode(&value).unwrap()).unwrap();
    assert_eq!(format!("{again:?}"), shown);
    Some(shown)
}

fn frames<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> usize {
    let Ok(values) = decode_frames::<T>(bytes) else { return usize::MAX };
    let mut again = Vec::new();
    for value in &values {
        encode_frame(value, &mut again).unwrap();
    }
    assert_eq!(format!("{:?}", decode_frames::<T>(&again).unwrap()), format!("{values:?}"));
    values.len()
}

/// A file of the corpus: a letter that says what it is, then the bytes.
#[test]
fn whatever_arrives_on_the_link_is_a_value_or_an_error() {
    understudy_fuzz::run("wire", |input| {
        let Some((kind, bytes)) = input.split_first() else { return (None, 0) };
        let found = match kind {
            b't' => value::<Transaction>(bytes),
            b'h' => value::<Hello>(bytes),
            b'w' => value::<Welcome>(bytes),
            b'b' => value::<Heartbeat>(bytes),
            b'd' => value::<Directives>(bytes),
            b'r' => value::<Report>(bytes),
            b'm' => value::<MailboxReport>(bytes),
            b'a' => value::<Shipped>(bytes),
            _ => None,
        };
        let count = match kind {
            b's' => frames::<Shipment>(bytes),
            b'k' => frames::<Known>(bytes),
            b'i' => frames::<InventoryFrame>(bytes),
            _ => 0,
        };
        // A frame is whole or not, wherever it is cut.
        if let Ok(Some((_, taken))) = decode_frame::<Shipment>(bytes) {
            assert!(decode_frame::<Shipment>(&bytes[..taken - 1]).is_ok_and(|frame| frame.is_none()));
        }
        (
            found.map(|shown| shown.replace(|c: char| c.is_ascii_digit(), "").chars().take(200).collect::<String>()),
            count,
        )
    });
}

#[test]
fn any_set_of_uids_says_itself() {
    understudy_fuzz::run("uid-sets", |input| {
        let Ok(set) = String::from_utf8_lossy(input).parse::<UidSet>() else { return None };
        if !set.is_empty() {
            assert_eq!(
                set.to_string().parse::<UidSet>().unwrap().ranges().collect::<Vec<_>>(),
                set.ranges().collect::<Vec<_>>()
            );
        }
        assert_eq!(set.len(), set.ranges().map(|(low, high)| u64::from(high.0 - low.0) + 1).sum::<u64>());
        Some(set.ranges().count())
    });
}

/// Writes the corpus anew: `UNDERSTUDY_PIN=1 cargo test -p understudy-protocol --test fuzz`.
#[test]
fn the_corpus_holds_one_of_each() {
    let samples = samples::all();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/wire");
    for (name, bytes) in samples {
        let file = folder.join(name);
        if std::env::var_os("UNDERSTUDY_PIN").is_some() {
            std::fs::write(&file, bytes).unwrap();
        } else {
            assert!(file.exists(), "fuzz/corpus/wire/{name} is missing");
        }
    }
}

mod samples {
    use understudy_protocol::{
        AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, FolderPath, FolderPosition, MailboxId,
        Position, Seq, Transaction, Uid, UidValidity,
        codec::{encode, encode_frame},
        messages::{Ack, Directives, Refusal, Shipment, Shipped},
    };

    fn content() -> ContentRef {
        ContentRef { digest: Digest::of(b"hello"), size: 5 }
    }

    fn transaction() -> Transaction {
        let folder = FolderId(1);
        Transaction {
            mailbox: MailboxId(7),
            direction: Direction::Outbound,
            seq: Seq(3),
            epoch: Epoch(1),
            seed: false,
            previous: Digest::of(b"two"),
            captured_at: chrono::DateTime::UNIX_EPOCH,
            changes: vec![
                Change::FolderCreated {
                    folder,
                    path: FolderPath::inbox(),
                    uid_validity: UidValidity(9),
                    special_use: vec!["sent".to_owned()],
                    selectable: true,
                },
                Change::FolderRenamed { folder, path: FolderPath::new(vec!["a".to_owned(), "b".to_owned()]) },
                Change::MessageAdded(AddedMessage {
                    folder,
                    uid: Uid(4),
                    flags: vec!["\\Seen".to_owned()],
                    internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
                    content: content(),
                }),
                Change::FlagsSet { folder, uids: "1,5:9".parse().unwrap(), flags: vec![] },
                Change::MessagesExpunged { folder, uids: "2:4294967295".parse().unwrap() },
                Change::SubscriptionChanged { path: FolderPath::inbox(), subscribed: true },
                Change::FolderDeleted { folder },
            ],
            position: Position { folders: [(folder, FolderPosition::default())].into() },
        }
    }

    /// The corpus by name of file.
    pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
        let tagged = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
        let mut shipment = Vec::new();
        encode_frame(&Shipment::Content(content()), &mut shipment).unwrap();
        encode_frame(&Shipment::Part(content()), &mut shipment).unwrap();
        let recipe = vec![0, 5];
        encode_frame(&Shipment::Skeleton { content: content(), recipe }, &mut shipment).unwrap();
        encode_frame(&Shipment::Transaction(encode(&transaction()).unwrap()), &mut shipment).unwrap();
        let ack = |refused| Ack { mailbox: MailboxId(7), received: Seq(3), applied: Seq(2), refused };
        let lacks = Refusal::LacksContent { digests: vec![Digest::of(b"x")] };
        let shipped = Shipped {
            acks: vec![
                ack(None),
                ack(Some(Refusal::Epoch { current: Epoch(2) })),
                ack(Some(Refusal::Gap)),
                ack(Some(lacks)),
            ],
            unseen: false,
        };
        vec![
            ("transaction", tagged(b't', encode(&transaction()).unwrap())),
            ("shipment", tagged(b's', shipment)),
            ("shipped", tagged(b'a', encode(&shipped).unwrap())),
            ("directives", tagged(b'd', encode(&Directives::default()).unwrap())),
        ]
    }
}
