//! Foreign bytes on the link: whatever arrives is a value or an error, and a value that is said again is the same.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod samples;

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use understudy_protocol::{
    Transaction, UidSet,
    codec::{decode, decode_frame, decode_frames, encode, encode_frame},
    messages::{
        Asked, Directives, Heartbeat, Hello, InventoryFrame, Known, Lacks, MailboxReport, Report, Shipment, Shipped,
        Welcome,
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

/// The letters below.
const KINDS: &[u8] = b"thwbdrmaolski";

/// What these bytes of that kind are: a value as it looks, or so many frames.
fn read(kind: u8, bytes: &[u8]) -> (Option<String>, usize) {
    let found = match kind {
        b't' => value::<Transaction>(bytes),
        b'h' => value::<Hello>(bytes),
        b'w' => value::<Welcome>(bytes),
        b'b' => value::<Heartbeat>(bytes),
        b'd' => value::<Directives>(bytes),
        b'r' => value::<Report>(bytes),
        b'm' => value::<MailboxReport>(bytes),
        b'a' => value::<Shipped>(bytes),
        b'o' => value::<Asked>(bytes),
        b'l' => value::<Lacks>(bytes),
        _ => None,
    };
    let count = match kind {
        b's' => frames::<Shipment>(bytes),
        b'k' => frames::<Known>(bytes),
        b'i' => frames::<InventoryFrame>(bytes),
        _ => 0,
    };
    (found, count)
}

/// A file of the corpus: a letter that says what it is, then the bytes.
#[test]
fn whatever_arrives_on_the_link_is_a_value_or_an_error() {
    understudy_fuzz::run("wire", |input| {
        let Some((&kind, bytes)) = input.split_first() else { return (None, 0) };
        let (found, count) = read(kind, bytes);
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
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/wire");
    for (name, bytes) in samples::all() {
        let file = folder.join(name);
        if std::env::var_os("UNDERSTUDY_PIN").is_some() {
            std::fs::write(&file, bytes).unwrap();
        } else {
            assert!(file.exists(), "fuzz/corpus/wire/{name} is missing");
        }
    }
    // And each is still read as what it says it is.
    let mut kinds = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, bytes) = entry.map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap())).unwrap();
        let (kind, bytes) = bytes.split_first().unwrap();
        let (found, count) = read(*kind, bytes);
        assert!(found.is_some() || (1..usize::MAX).contains(&count), "{} is not read any more", path.display());
        kinds.insert(*kind);
    }
    assert_eq!(kinds, KINDS.iter().copied().collect());
}
