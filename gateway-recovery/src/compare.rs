//! Slices of the two sides of a mailbox → how they differ, and what would make them equal. Pure.
//!
//! Keeps true: a message counts as equal only where the UID map, flags, date and size (and digests, when both are known)
//! agree; one that the standby refused or altered never does; memory does not grow with the mailbox.

use std::collections::BTreeMap;

use serde::Serialize;
use understudy_database::mirror::{MirrorMessage, SetAside};
use understudy_protocol::{Digest, FolderId, FolderPath, Uid, messages::InventoryMessage};
use understudy_replication::inventory::{folded, instant};

/// The most differences named of one mailbox; the rest is counted.
const NAMED: usize = 1000;
/// The most repairs collected at once; a repair that leaves more is followed by another.
const REPAIRS: usize = 5000;

/// What a difference says of a message that the mirror does not have, until the journal has been asked.
pub(crate) const NOT_IN_THE_MIRROR: &str = "it is not in the mirror";

/// What a difference is about, as the journal would name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A message, by its UID on the primary.
    Message(FolderId, Uid),
    /// A message on the standby that the mirror does not know, by what it looks like.
    Copy {
        folder: FolderId,
        size: u64,
        instant: i64,
        digest: Option<Digest>,
    },
    /// A folder of the mirror, and where that is.
    Folder(FolderId, FolderPath),
    /// A name of which the mirror has no folder.
    Name(FolderPath),
    Subscription(FolderPath),
}

/// One difference, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) folder: String,
    pub(crate) uid: Option<u32>,
    pub(crate) what: &'static str,
    pub(crate) detail: String,
    /// The last transaction that changed what it is about: the one that should have made it equal. None where the journal names
    /// none: what nobody brought through it.
    pub(crate) seq: Option<i64>,
    #[serde(skip)]
    pub(crate) at: Option<At>,
}

/// A message or folder that a person decided to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Kept {
    pub(crate) folder: String,
    /// On the standby.
    pub(crate) uid: Option<u32>,
}

/// One thing to do on the standby to make the sides equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The mirror has it, the standby does not.
    Append {
        folder: FolderId,
        uid: Uid,
    },
    /// The standby has something else in its place.
    Replace {
        folder: FolderId,
        uid: Uid,
        standby_uid: Uid,
    },
    Flags {
        folder: FolderId,
        uid: Uid,
        flags: Vec<String>,
    },
    /// Nobody ever wanted it.
    Remove {
        path: FolderPath,
        standby_uid: Uid,
    },
    /// The standby never took it.
    CreateFolder {
        folder: FolderId,
    },
    /// The standby's folder is another one than was filled, or gone.
    ApplyAgain {
        folder: FolderId,
    },
    DeleteFolder {
        path: FolderPath,
    },
    Subscribe {
        path: FolderPath,
        subscribed: bool,
    },
    /// The primary has it, no transaction brought it.
    Capture {
        path: FolderPath,
        uid: Uid,
    },
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) messages: u64,
    pub(crate) folders: u64,
    pub(crate) differences: Vec<Difference>,
    /// Differences beyond those named.
    pub(crate) more: u64,
    pub(crate) kept: u64,
    /// As many of them as are named.
    pub(crate) kept_messages: Vec<Kept>,
    pub(crate) repairs: Vec<Repair>,
}

impl Comparison {
    pub(crate) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.differences.len() as u64 + self.more
    }

    pub(crate) fn add(
        &mut self,
        folder: &FolderPath,
        at: Option<At>,
        uid: Option<Uid>,
        what: &'static str,
        detail: String,
    ) {
        if self.differences.len() < NAMED {
            let (folder, uid) = (folder.to_string(), uid.map(|uid| uid.0));
            self.differences.push(Difference { folder, uid, what, detail, seq: None, at });
        } else {
            self.more += 1;
        }
    }

    /// The primary lacks a message of the mirror.
    pub(crate) fn gone(&mut self, path: &FolderPath, folder: FolderId, uid: Uid) {
        let detail = "the primary shows it no longer, and no transaction said so".to_owned();
        self.add(path, Some(At::Message(folder, uid)), Some(uid), "missing_on_primary", detail);
    }

    pub(crate) fn keep(&mut self, folder: &FolderPath, uid: Option<Uid>) {
        self.kept += u64::from(uid.is_some());
        if self.kept_messages.len() < NAMED {
            self.kept_messages.push(Kept { folder: folder.to_string(), uid: uid.map(|uid| uid.0) });
        }
    }

    pub(crate) fn repair(&mut self, repair: Repair) {
        if self.repairs.len() < REPAIRS {
            self.repairs.push(repair);
        }
    }
}

/// Compares some messages of one folder: those of the primary, the UID map's rows for the same range, and the standby's
/// messages that these rows name. `folder` is what the mirror calls it, where it has it.
pub(crate) fn compare_slice(
    found: &mut Comparison,
    path: &FolderPath,
    folder: Option<FolderId>,
    primary: &[InventoryMessage],
    map: &BTreeMap<Uid, MirrorMessage>,
    standby: &BTreeMap<Uid, InventoryMessage>,
) {
    for message in primary {
        let uid = message.uid;
        let Some(mapped) = map.get(&uid) else {
            let at = folder.map(|folder| At::Message(folder, uid));
            found.add(path, at, Some(uid), "missing_on_standby", NOT_IN_THE_MIRROR.to_owned());
            found.repair(Repair::Capture { path: path.clone(), uid });
            continue;
        };
        let at = || Some(At::Message(mapped.folder, uid));
        let altered = match &mapped.set_aside {
            Some(SetAside::Refused { reason } | SetAside::Altered { reason }) => {
                found.add(path, at(), Some(uid), "set_aside", reason.clone());
                true
            }
            None => false,
        };
        if !is_captured(message, mapped) {
            let detail = "the primary has another message under this UID than the one that was captured".to_owned();
            found.add(path, at(), Some(uid), "missing_on_standby", detail);
            found.repair(Repair::Capture { path: path.clone(), uid });
            continue;
        }
        let Some(standby_uid) = mapped.standby_uid else { continue };
        match standby.get(&standby_uid) {
            Some(copy) => compare_message(found, path, (mapped.folder, uid), message, copy, altered),
            None => {
                let detail = format!("it was there as UID {standby_uid}");
                found.add(path, at(), Some(uid), "missing_on_standby", detail);
                found.repair(Repair::Append { folder: mapped.folder, uid });
            }
        }
    }
    for (uid, mapped) in map {
        if primary.binary_search_by_key(uid, |message| message.uid).is_err() {
            found.gone(path, mapped.folder, *uid);
        }
    }
}

/// Is the primary's message the one that was captured under its UID? Its bytes say so, or else the date, which no message ever changes.
/// Sizes are not to be relied on: some servers make them up.
fn is_captured(message: &InventoryMessage, mapped: &MirrorMessage) -> bool {
    let dates = instant(&message.internal_date).zip(instant(&mapped.internal_date));
    message.digest.map_or(dates.is_none_or(|(now, then)| now == then), |digest| digest == mapped.content.digest)
}

fn compare_message(
    found: &mut Comparison,
    path: &FolderPath,
    at: (FolderId, Uid),
    message: &InventoryMessage,
    copy: &InventoryMessage,
    altered: bool,
) {
    let uid = Some(message.uid);
    let about = || Some(At::Message(at.0, at.1));
    if folded(&message.flags) != folded(&copy.flags) {
        let detail = format!("primary ({}), standby ({})", message.flags.join(" "), copy.flags.join(" "));
        found.add(path, about(), uid, "flags", detail);
        found.repair(Repair::Flags { folder: at.0, uid: at.1, flags: message.flags.clone() });
    }
    let mut replace = false;
    if !same_instant(&message.internal_date, &copy.internal_date) {
        let detail = format!("primary {}, standby {}", message.internal_date, copy.internal_date);
        found.add(path, about(), uid, "date", detail);
        replace = true;
    }
    if !altered && message.size != copy.size {
        let detail = format!("primary {} bytes, standby {}", message.size, copy.size);
        found.add(path, about(), uid, "size", detail);
        replace = true;
    } else if !altered
        && let (Some(ours), Some(theirs)) = (message.digest, copy.digest)
        && ours != theirs
    {
        found.add(path, about(), uid, "bytes", format!("primary {ours}, standby {theirs}"));
        replace = true;
    }
    if replace && !altered {
        found.repair(Repair::Replace { folder: at.0, uid: at.1, standby_uid: copy.uid });
    }
}

/// Do two INTERNALDATEs name the same second, in whatever zone?
fn same_instant(one: &str, other: &str) -> bool {
    match (instant(one), instant(other)) {
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
        let mut found = Comparison::default();
        let map = map.into_iter().map(|row| (row.uid, row)).collect();
        let standby = standby.into_iter().map(|message| (message.uid, message)).collect();
        compare_slice(&mut found, &FolderPath::inbox(), Some(FolderId(1)), &primary, &map, &standby);
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
        check(vec![message(7)], vec![message(7)], vec![], &["7 missing_on_standby"]);
        check(vec![message(7)], vec![], vec![mapped(7, Some(70), None)], &["7 missing_on_standby"]);
        check(vec![], vec![message(1)], vec![mapped(7, Some(1), None)], &["7 missing_on_primary"]);
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
        let captured = |bytes: &[u8]| {
            let content = ContentRef { digest: Digest::of(bytes), size: 10 };
            vec![MirrorMessage { content, ..mapped(7, Some(8), None) }]
        };
        check(vec![with(7, b"a")], vec![with(8, b"b")], captured(b"a"), &["7 bytes"]);
        check(vec![with(7, b"a")], vec![with(8, b"a")], captured(b"a"), &[]);
    }

    #[test]
    fn another_message_under_a_uid_that_was_captured_is_captured_again() {
        let was = MirrorMessage { internal_date: "17-Jul-1996 02:44:26 -0700".into(), ..mapped(7, Some(8), None) };
        check(vec![message(7)], vec![message(8)], vec![was], &["7 missing_on_standby"]);
        let mut other = message(7);
        other.digest = Some(Digest::of(b"y"));
        check(vec![other], vec![message(8)], vec![mapped(7, Some(8), None)], &["7 missing_on_standby"]);
    }
}
