//! What two sides of a mailbox hold → how they differ. Pure.
//!
//! Keeps true: a message counts as equal only where the UID map, flags, date and size (and digests, when both are known)
//! agree; one that the standby refused or altered never does.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde::Serialize;
use understudy_database::mirror::{MirrorMessage, SetAside};
use understudy_protocol::{FolderPath, Uid, messages::InventoryMessage};

/// The most differences named of one mailbox; the rest is counted.
const NAMED: usize = 1000;

/// A mailbox as one side shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) subscriptions: BTreeSet<FolderPath>,
    /// Folders that hold messages.
    pub(crate) folders: BTreeMap<FolderPath, Vec<InventoryMessage>>,
}

/// One difference, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) folder: String,
    pub(crate) uid: Option<u32>,
    pub(crate) what: &'static str,
    pub(crate) detail: String,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) messages: u64,
    pub(crate) folders: u64,
    pub(crate) differences: Vec<Difference>,
    /// Differences beyond those named.
    pub(crate) more: u64,
}

impl Comparison {
    fn add(&mut self, folder: &FolderPath, uid: Option<Uid>, what: &'static str, detail: String) {
        if self.differences.len() < NAMED {
            self.differences.push(Difference { folder: folder.to_string(), uid: uid.map(|uid| uid.0), what, detail });
        } else {
            self.more += 1;
        }
    }
}

/// Compares the sides. `mirror` is the UID map of each folder.
pub(crate) fn compare(
    primary: &Holdings,
    standby: &Holdings,
    mirror: &BTreeMap<FolderPath, Vec<MirrorMessage>>,
) -> Comparison {
    let mut found = Comparison::default();
    for path in primary.subscriptions.symmetric_difference(&standby.subscriptions) {
        let (on, off) =
            if primary.subscriptions.contains(path) { ("primary", "standby") } else { ("standby", "primary") };
        found.add(path, None, "subscription", format!("subscribed on the {on}, not on the {off}"));
    }
    for (path, messages) in &primary.folders {
        found.folders += 1;
        found.messages += messages.len() as u64;
        match standby.folders.get(path) {
            Some(there) => {
                let map = mirror.get(path).map_or(&[][..], Vec::as_slice);
                compare_folder(&mut found, path, messages, there, map);
            }
            None => found.add(path, None, "folder_missing", format!("with {} messages", messages.len())),
        }
    }
    for (path, messages) in standby.folders.iter().filter(|(path, _)| !primary.folders.contains_key(path)) {
        found.add(path, None, "folder_extra", format!("with {} messages, on the standby only", messages.len()));
    }
    found
}

fn compare_folder(
    found: &mut Comparison,
    path: &FolderPath,
    primary: &[InventoryMessage],
    standby: &[InventoryMessage],
    map: &[MirrorMessage],
) {
    let map: BTreeMap<Uid, &MirrorMessage> = map.iter().map(|message| (message.uid, message)).collect();
    let mut there: BTreeMap<Uid, &InventoryMessage> = standby.iter().map(|message| (message.uid, message)).collect();
    for message in primary {
        let uid = Some(message.uid);
        let Some(mapped) = map.get(&message.uid) else {
            found.add(path, uid, "missing_on_standby", "no transaction brought it".to_owned());
            continue;
        };
        let altered = match &mapped.set_aside {
            Some(SetAside::Refused { reason } | SetAside::Altered { reason }) => {
                found.add(path, uid, "set_aside", reason.clone());
                true
            }
            None => false,
        };
        let Some(standby_uid) = mapped.standby_uid else { continue };
        match there.remove(&standby_uid) {
            Some(copy) => compare_message(found, path, message, copy, altered),
            None => found.add(path, uid, "missing_on_standby", format!("it was there as UID {standby_uid}")),
        }
    }
    for copy in there.values() {
        let detail = "on the standby only; the UID is the standby's".to_owned();
        found.add(path, Some(copy.uid), "extra_on_standby", detail);
    }
}

fn compare_message(
    found: &mut Comparison,
    path: &FolderPath,
    message: &InventoryMessage,
    copy: &InventoryMessage,
    altered: bool,
) {
    let uid = Some(message.uid);
    if folded(&message.flags) != folded(&copy.flags) {
        let detail = format!("primary ({}), standby ({})", message.flags.join(" "), copy.flags.join(" "));
        found.add(path, uid, "flags", detail);
    }
    if !same_instant(&message.internal_date, &copy.internal_date) {
        let detail = format!("primary {}, standby {}", message.internal_date, copy.internal_date);
        found.add(path, uid, "date", detail);
    }
    if altered {
        return;
    }
    if message.size != copy.size {
        found.add(path, uid, "size", format!("primary {} bytes, standby {}", message.size, copy.size));
    } else if let (Some(ours), Some(theirs)) = (message.digest, copy.digest)
        && ours != theirs
    {
        found.add(path, uid, "bytes", format!("primary {ours}, standby {theirs}"));
    }
}

/// Flags as servers compare them: keywords fold to the first spelling a folder saw.
fn folded(flags: &[String]) -> BTreeSet<String> {
    flags.iter().map(|flag| flag.to_ascii_lowercase()).collect()
}

/// Do two INTERNALDATEs name the same second, in whatever zone?
fn same_instant(one: &str, other: &str) -> bool {
    let parse = |text: &str| DateTime::parse_from_str(text.trim(), "%d-%b-%Y %H:%M:%S %z").ok();
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use understudy_protocol::{ContentRef, Digest, FolderId};

    use super::*;

    fn message(uid: u32) -> InventoryMessage {
        InventoryMessage {
            uid: Uid(uid),
            flags: vec!["$Work".into(), "\\Seen".into()],
            internal_date: "17-Jul-1996 02:44:25 -0700".into(),
            size: 10,
            digest: None,
        }
    }

    fn mapped(uid: u32, standby_uid: Option<u32>, set_aside: Option<SetAside>) -> MirrorMessage {
        MirrorMessage {
            folder: FolderId(1),
            uid: Uid(uid),
            standby_uid: standby_uid.map(Uid),
            content: ContentRef { digest: Digest::of(b"x"), size: 10 },
            flags: vec![],
            internal_date: String::new(),
            set_aside,
        }
    }

    #[track_caller]
    fn check(
        primary: Vec<InventoryMessage>,
        standby: Vec<InventoryMessage>,
        map: Vec<MirrorMessage>,
        expected: &[&str],
    ) {
        let holdings =
            |messages| Holdings { subscriptions: BTreeSet::new(), folders: [(FolderPath::inbox(), messages)].into() };
        let found = compare(&holdings(primary), &holdings(standby), &[(FolderPath::inbox(), map)].into());
        let found: Vec<String> = found
            .differences
            .iter()
            .map(|difference| format!("{} {}", difference.uid.unwrap_or(0), difference.what))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_messages_may_differ_in_uid_zone_and_case() {
        let mut copy = message(70);
        copy.internal_date = "17-Jul-1996 09:44:25 +0000".into();
        copy.flags = vec!["\\Seen".into(), "$work".into()];
        check(vec![message(7)], vec![copy], vec![mapped(7, Some(70), None)], &[]);
    }

    #[test]
    fn every_difference_is_named() {
        let mut copy = message(70);
        copy.internal_date = "17-Jul-1996 09:44:26 +0000".into();
        copy.flags = vec![];
        copy.size = 11;
        check(vec![message(7)], vec![copy], vec![mapped(7, Some(70), None)], &["7 flags", "7 date", "7 size"]);
        check(vec![message(7)], vec![message(7)], vec![], &["7 missing_on_standby", "7 extra_on_standby"]);
        check(vec![message(7)], vec![], vec![mapped(7, Some(70), None)], &["7 missing_on_standby"]);
        check(vec![], vec![message(1)], vec![], &["1 extra_on_standby"]);
    }

    #[test]
    fn what_the_standby_refused_or_altered_is_never_equal() {
        let refused = SetAside::Refused { reason: "quota".into() };
        check(vec![message(7)], vec![], vec![mapped(7, None, Some(refused))], &["7 set_aside"]);
        let altered = SetAside::Altered { reason: "NUL".into() };
        check(vec![message(7)], vec![message(9)], vec![mapped(7, Some(9), Some(altered))], &["7 set_aside"]);
    }

    #[test]
    fn digests_are_compared_when_both_are_known() {
        let with = |uid, bytes: &[u8]| InventoryMessage { digest: Some(Digest::of(bytes)), ..message(uid) };
        check(vec![with(7, b"a")], vec![with(8, b"b")], vec![mapped(7, Some(8), None)], &["7 bytes"]);
        check(vec![with(7, b"a")], vec![with(8, b"a")], vec![mapped(7, Some(8), None)], &[]);
    }
}
