//! A transaction → the steps that carry it to the other side. Pure.
//!
//! Keeps true: the order of the transaction, except that additions to one folder travel together, and that keywords
//! follow their messages: an APPEND line names system flags only, because a line the server rejects makes it run the
//! message text as commands (Dovecot 2.3.19, see `docs/protocol.md`).

use understudy_protocol::{AddedMessage, Change, FolderId, FolderPath, UidSet, UidValidity};

/// The most messages appended by one command.
pub const MAX_APPEND_MESSAGES: usize = 500;
/// The most content appended by one command, in bytes; a larger message goes alone.
pub const MAX_APPEND_BYTES: u64 = 16 << 20;

/// Something to do on the other side. Each may be done twice with the same result, but for `Append`, for which the
/// applier keeps an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Create {
        folder: FolderId,
        path: FolderPath,
        uid_validity: UidValidity,
        special_use: Vec<String>,
        selectable: bool,
    },
    Rename {
        folder: FolderId,
        path: FolderPath,
    },
    /// Gives a folder exactly these special uses, where the other side lets anyone.
    SpecialUses {
        folder: FolderId,
        special_use: Vec<String>,
    },
    Subscribe {
        path: FolderPath,
        subscribed: bool,
    },
    /// One batch of additions to one folder, ascending by UID.
    Append {
        folder: FolderId,
        messages: Vec<AddedMessage>,
    },
    SetFlags {
        folder: FolderId,
        uids: UidSet,
        flags: Vec<String>,
    },
    Expunge {
        folder: FolderId,
        uids: UidSet,
    },
    Delete {
        folder: FolderId,
    },
}

/// The steps of a list of changes.
#[must_use]
pub fn plan(changes: &[Change]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut batch = Batch::default();
    let mut keywords: Vec<(FolderId, Vec<String>, UidSet)> = Vec::new();
    for change in changes {
        if let Change::MessageAdded(added) = change {
            if !batch.takes(added) {
                batch.flush(&mut steps);
            }
            note_keywords(&mut keywords, added);
            batch.add(added.clone());
            continue;
        }
        batch.flush(&mut steps);
        // Flags and expunges may name what was just added: its keywords come first.
        flush_keywords(&mut keywords, &mut steps);
        steps.push(step(change));
    }
    batch.flush(&mut steps);
    flush_keywords(&mut keywords, &mut steps);
    steps
}

fn step(change: &Change) -> Step {
    match change.clone() {
        Change::FolderCreated { folder, path, uid_validity, special_use, selectable } => {
            Step::Create { folder, path, uid_validity, special_use, selectable }
        }
        Change::FolderRenamed { folder, path } => Step::Rename { folder, path },
        Change::FolderDeleted { folder } => Step::Delete { folder },
        Change::SpecialUsesChanged { folder, special_use } => Step::SpecialUses { folder, special_use },
        Change::SubscriptionChanged { path, subscribed } => Step::Subscribe { path, subscribed },
        Change::MessageAdded(added) => Step::Append { folder: added.folder, messages: vec![added] },
        Change::FlagsSet { folder, uids, flags } => Step::SetFlags { folder, uids, flags },
        Change::MessagesExpunged { folder, uids } => Step::Expunge { folder, uids },
    }
}

/// Is this a flag that the standard defines, and not a keyword?
#[must_use]
pub fn is_system_flag(flag: &str) -> bool {
    flag.starts_with('\\')
}

fn note_keywords(keywords: &mut Vec<(FolderId, Vec<String>, UidSet)>, added: &AddedMessage) {
    if added.flags.iter().all(|flag| is_system_flag(flag)) {
        return;
    }
    let same = keywords.iter_mut().find(|(folder, flags, _)| *folder == added.folder && *flags == added.flags);
    match same {
        Some((_, _, uids)) => uids.insert(added.uid),
        None => keywords.push((added.folder, added.flags.clone(), UidSet::range(added.uid, added.uid))),
    }
}

fn flush_keywords(keywords: &mut Vec<(FolderId, Vec<String>, UidSet)>, steps: &mut Vec<Step>) {
    steps.extend(keywords.drain(..).map(|(folder, flags, uids)| Step::SetFlags { folder, uids, flags }));
}

/// Additions that will travel in one command.
#[derive(Default)]
struct Batch {
    messages: Vec<AddedMessage>,
    bytes: u64,
}

impl Batch {
    fn takes(&self, added: &AddedMessage) -> bool {
        self.messages.first().is_none_or(|first| {
            first.folder == added.folder
                && self.messages.len() < MAX_APPEND_MESSAGES
                && self.bytes + added.content.size <= MAX_APPEND_BYTES
        })
    }

    fn add(&mut self, added: AddedMessage) {
        self.bytes += added.content.size;
        self.messages.push(added);
    }

    fn flush(&mut self, steps: &mut Vec<Step>) {
        let Some(folder) = self.messages.first().map(|first| first.folder) else {
            return;
        };
        self.bytes = 0;
        steps.push(Step::Append { folder, messages: std::mem::take(&mut self.messages) });
    }
}

#[cfg(test)]
mod tests {
    use understudy_protocol::{ContentRef, Digest, Uid};

    use super::*;

    fn added(folder: i32, uid: u32, flags: &[&str], size: u64) -> Change {
        Change::MessageAdded(AddedMessage {
            folder: FolderId(folder),
            uid: Uid(uid),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            internal_date: "01-Jan-2026 00:00:00 +0000".into(),
            content: ContentRef { digest: Digest::of(&uid.to_be_bytes()), size },
        })
    }

    fn show(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| match step {
                Step::Append { folder, messages } => {
                    format!("append {folder} {:?}", messages.iter().map(|message| message.uid.0).collect::<Vec<_>>())
                }
                Step::SetFlags { folder, uids, flags } => format!("flags {folder} {uids} {flags:?}"),
                Step::Expunge { folder, uids } => format!("expunge {folder} {uids}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn additions_to_a_folder_travel_together_and_keywords_follow() {
        let steps = plan(&[
            added(1, 1, &["\\Seen"], 10),
            added(1, 2, &["$Work", "\\Seen"], 10),
            added(1, 3, &["$Work", "\\Seen"], 10),
            added(2, 9, &[], 10),
            Change::MessagesExpunged { folder: FolderId(1), uids: UidSet::range(Uid(2), Uid(2)) },
        ]);
        assert_eq!(
            show(&steps),
            ["append 1 [1, 2, 3]", "append 2 [9]", "flags 1 2:3 [\"$Work\", \"\\\\Seen\"]", "expunge 1 2"]
        );
    }

    #[test]
    fn batches_are_bounded_and_a_large_message_goes_alone() {
        let steps = plan(&[
            added(1, 1, &[], 10 << 20),
            added(1, 2, &[], 10 << 20),
            added(1, 3, &[], 100 << 20),
            added(1, 4, &[], 1),
        ]);
        assert_eq!(show(&steps), ["append 1 [1]", "append 1 [2]", "append 1 [3]", "append 1 [4]"]);
        let many: Vec<Change> = (1..=1001).map(|uid| added(1, uid, &[], 1)).collect();
        assert_eq!(plan(&many).len(), 3);
    }
}
