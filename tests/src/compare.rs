//! Two snapshots side by side: what is different, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::client::{Folder, Message, Snapshot};

/// How many differences are spelled out.
const SHOWN: usize = 40;

/// What differs between the two sides of a mailbox; empty when nothing does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences(pub Vec<String>);

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} differences", self.0.len())?;
        for line in self.0.iter().take(SHOWN) {
            writeln!(formatter, "  {line}")?;
        }
        if self.0.len() > SHOWN {
            writeln!(formatter, "  and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// Folders, subscriptions, special uses (but not levels that hold no folder: nobody sees mail in them, and IMAP has no
/// dependable way to make them); and of messages bytes, flags, keywords, dates, number and order. Not UIDs.
pub fn compare(primary: &Snapshot, standby: &Snapshot) -> Differences {
    let mut found = Vec::new();
    let names: BTreeSet<&String> = primary.folders.keys().chain(standby.folders.keys()).collect();
    for name in names {
        match (primary.folders.get(name), standby.folders.get(name)) {
            (Some(one), Some(other)) => compare_folders(name, one, other, &mut found),
            (Some(folder), None) | (None, Some(folder)) if !folder.selectable => {}
            (Some(folder), None) => found.push(format!("folder {name}{}: missing on the standby", nature(folder))),
            (None, Some(folder)) => found.push(format!("folder {name}{}: only on the standby", nature(folder))),
            (None, None) => {}
        }
    }
    for name in primary.subscriptions.symmetric_difference(&standby.subscriptions) {
        let side = if primary.subscriptions.contains(name) { "primary" } else { "standby" };
        found.push(format!("subscription to {name}: only on the {side}"));
    }
    Differences(found)
}

/// Whether both sides also number everything alike.
pub fn compare_uids(primary: &Snapshot, standby: &Snapshot) -> Differences {
    let mut found = Vec::new();
    for (name, folder) in &primary.folders {
        let Some(other) = standby.folders.get(name) else { continue };
        if folder.uid_validity != other.uid_validity {
            found.push(format!("folder {name}: UIDVALIDITY {} became {}", folder.uid_validity, other.uid_validity));
        }
        let uids = |folder: &Folder| folder.messages.iter().map(|message| message.uid).collect::<Vec<_>>();
        if uids(folder) != uids(other) {
            found.push(format!("folder {name}: UIDs differ"));
        }
    }
    Differences(found)
}

/// A mere level between names, or a folder with messages.
fn nature(folder: &Folder) -> String {
    if folder.selectable { format!(" ({} messages)", folder.messages.len()) } else { " (not selectable)".to_owned() }
}

fn compare_folders(name: &str, one: &Folder, other: &Folder, found: &mut Vec<String>) {
    if one.selectable != other.selectable {
        found.push(format!("folder {name}: selectable {} became {}", one.selectable, other.selectable));
    }
    if one.special_uses != other.special_uses {
        found.push(format!("folder {name}: special use {:?} became {:?}", one.special_uses, other.special_uses));
    }
    let before = found.len();
    let (ours, theirs) = (by_digest(one), by_digest(other));
    for (digest, messages) in &ours {
        let twins = theirs.get(digest).map_or(&[][..], Vec::as_slice);
        compare_copies(name, messages, twins, found);
    }
    for (_, messages) in theirs.iter().filter(|(digest, _)| !ours.contains_key(*digest)) {
        found.extend(messages.iter().map(|message| format!("folder {name}: only on the standby: {}", brief(message))));
    }
    let order = |folder: &Folder| folder.messages.iter().map(|message| message.digest).collect::<Vec<_>>();
    if found.len() == before && order(one) != order(other) {
        found.push(format!("folder {name}: the messages stand in another order"));
    }
}

/// Messages with the same bytes on both sides; there may be several of them.
fn compare_copies(name: &str, ours: &[&Message], theirs: &[&Message], found: &mut Vec<String>) {
    for message in ours.iter().skip(theirs.len()) {
        found.push(format!("folder {name}: missing on the standby: {}", brief(message)));
    }
    for message in theirs.iter().skip(ours.len()) {
        found.push(format!("folder {name}: too often on the standby: {}", brief(message)));
    }
    for (one, other) in ours.iter().zip(theirs) {
        if one.flags != other.flags {
            found.push(format!("folder {name}: {}: flags {:?} became {:?}", brief(one), one.flags, other.flags));
        }
        if one.date != other.date {
            found.push(format!("folder {name}: {}: date {} became {}", brief(one), one.date, other.date));
        }
    }
}

fn by_digest(folder: &Folder) -> BTreeMap<[u8; 32], Vec<&Message>> {
    let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in &folder.messages {
        messages.entry(*message.digest.as_bytes()).or_default().push(message);
    }
    messages
}

fn brief(message: &Message) -> String {
    format!("UID {} ({} bytes, {})", message.uid, message.size, &message.digest.to_hex()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(uid: u32, text: &str, flags: &[&str]) -> Message {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Message { uid, digest: blake3::hash(text.as_bytes()), size: text.len(), flags, date: 0 }
    }

    fn inbox(messages: Vec<Message>) -> Snapshot {
        let folder = Folder { selectable: true, messages, ..Folder::default() };
        Snapshot { folders: BTreeMap::from([("INBOX".to_owned(), folder)]), subscriptions: BTreeSet::new() }
    }

    #[track_caller]
    fn check(ours: Vec<Message>, theirs: Vec<Message>, expected: &[&str]) {
        let Differences(found) = compare(&inbox(ours), &inbox(theirs));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} should contain {expected:?}");
        }
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let two = || vec![message(1, "a", &[]), message(2, "b", &["\\seen"])];
        check(two(), two(), &[]);
        check(two(), vec![message(7, "a", &[]), message(9, "b", &["\\seen"])], &[]);
        check(two(), vec![message(1, "a", &[])], &["missing on the standby: UID 2"]);
        check(two(), vec![message(1, "a", &[]), message(2, "c", &[])], &["missing", "only on the standby"]);
        check(two(), vec![message(1, "b", &["\\seen"]), message(2, "a", &[])], &["another order"]);
        check(two(), vec![message(1, "a", &[]), message(2, "b", &[])], &["flags {\"\\\\seen\"} became {}"]);
        let thrice = ["a", "a", "b"].map(|text| message(1, text, &["\\seen"])).to_vec();
        check(thrice[1..].to_vec(), thrice, &["too often on the standby"]);
    }
}
