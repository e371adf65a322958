//! Differences → the transactions that should have made them equal, looked for in the journal from its newest on.
//!
//! In: what each difference is about. Out: its transaction, where the journal names one, and what that means in words.
//! Keeps true: the whole journal is looked through until everything is found, a few transactions at a time; nothing is named on a
//! guess: a copy that nobody knows is traced by size and date (and digest, when known), and its words say so.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgPool;
use understudy_database::journal::{self, Target};
use understudy_protocol::{Change, Digest, FolderId, FolderPath, Seq, Transaction, Uid, UidSet};
use understudy_replication::inventory::instant;

use crate::compare::{At, Difference, NOT_IN_THE_MIRROR};

/// Transactions read at once.
const AT_ONCE: i64 = 100;

/// Names of each difference the last transaction that changed what it is about.
pub(crate) async fn name_transactions(
    pool: &PgPool,
    target: &Target,
    differences: &mut [Difference],
) -> understudy_database::Result<()> {
    let mut copies = Copies::of(differences);
    newest_first(pool, target, |transaction| copies.look(transaction)).await?;
    for (index, folder, uid) in copies.found {
        let difference = &mut differences[index];
        difference.at = Some(At::Message(folder, uid));
        difference.detail.push_str(&format!("; by size and date it is what the primary had as UID {uid}"));
    }
    let mut search = Search::of(differences);
    newest_first(pool, target, |transaction| search.look(transaction)).await?;
    for (index, seq) in search.found {
        differences[index].seq = Some(seq.0);
    }
    differences.iter_mut().for_each(explain);
    Ok(())
}

/// Shows the journal's transactions, those applied, from the newest on, until nothing is looked for any more.
async fn newest_first(
    pool: &PgPool,
    target: &Target,
    mut goes_on_after: impl FnMut(Option<&Transaction>) -> bool,
) -> understudy_database::Result<()> {
    let mut before = target.applied.next();
    let mut goes_on = goes_on_after(None);
    while goes_on {
        let transactions = journal::before(pool, target.mailbox, before, AT_ONCE).await?;
        let Some(oldest) = transactions.last() else { break };
        before = oldest.seq;
        for transaction in &transactions {
            goes_on = goes_on && goes_on_after(Some(transaction));
        }
    }
    Ok(())
}

/// What the journal does, or does not, say of a difference.
fn explain(difference: &mut Difference) {
    if difference.detail == NOT_IN_THE_MIRROR {
        difference.detail = match difference.seq {
            Some(seq) => format!("transaction {seq} took it away"),
            None => "no transaction brought it".to_owned(),
        };
    } else if difference.seq.is_none()
        && matches!(difference.what, "extra_on_standby" | "folder_extra" | "subscription")
    {
        difference.detail.push_str("; no transaction tells of it");
    }
}

/// Messages that only the standby has, looked for among those that were once added.
#[derive(Default)]
struct Copies {
    open: HashMap<FolderId, Vec<Copy>>,
    found: Vec<(usize, FolderId, Uid)>,
}

struct Copy {
    index: usize,
    size: u64,
    instant: i64,
    digest: Option<Digest>,
}

impl Copies {
    fn of(differences: &[Difference]) -> Self {
        let mut copies = Self::default();
        for (index, difference) in differences.iter().enumerate() {
            if let Some(At::Copy { folder, size, instant, digest }) = difference.at {
                copies.open.entry(folder).or_default().push(Copy { index, size, instant, digest });
            }
        }
        copies
    }

    /// Answers whether something is looked for still.
    fn look(&mut self, transaction: Option<&Transaction>) -> bool {
        for change in transaction.into_iter().flat_map(|transaction| &transaction.changes) {
            let Change::MessageAdded(added) = change else { continue };
            let Some(open) = self.open.get_mut(&added.folder) else { continue };
            open.retain(|copy| {
                let is_it = copy.size == added.content.size
                    && copy.digest.is_none_or(|digest| digest == added.content.digest)
                    && instant(&added.internal_date) == Some(copy.instant);
                if is_it {
                    self.found.push((copy.index, added.folder, added.uid));
                }
                !is_it
            });
            if open.is_empty() {
                self.open.remove(&added.folder);
            }
        }
        !self.open.is_empty()
    }
}

/// What is looked for, by what changes name it by.
#[derive(Default)]
struct Search {
    messages: HashMap<FolderId, BTreeMap<Uid, Vec<usize>>>,
    folders: Vec<(FolderId, FolderPath, usize)>,
    names: Vec<(FolderPath, usize)>,
    subscriptions: Vec<(FolderPath, usize)>,
    /// The transaction by which each folder next changed its name or went, as seen from the one at hand.
    left: HashMap<FolderId, Seq>,
    found: Vec<(usize, Seq)>,
}

impl Search {
    fn of(differences: &[Difference]) -> Self {
        let mut search = Self::default();
        for (index, difference) in differences.iter().enumerate() {
            match &difference.at {
                Some(At::Message(folder, uid)) => {
                    search.messages.entry(*folder).or_default().entry(*uid).or_default().push(index);
                }
                Some(At::Folder(folder, path)) => search.folders.push((*folder, path.clone(), index)),
                Some(At::Name(path)) => search.names.push((path.clone(), index)),
                Some(At::Subscription(path)) => search.subscriptions.push((path.clone(), index)),
                Some(At::Copy { .. }) | None => {}
            }
        }
        search
    }

    /// Answers whether something is looked for still.
    fn look(&mut self, transaction: Option<&Transaction>) -> bool {
        if let Some(transaction) = transaction {
            let seq = transaction.seq;
            transaction.changes.iter().rev().for_each(|change| self.take(change, seq));
        }
        !(self.messages.is_empty() && self.folders.is_empty() && self.names.is_empty() && self.subscriptions.is_empty())
    }

    fn take(&mut self, change: &Change, seq: Seq) {
        match change {
            Change::MessageAdded(added) => self.messages_of(added.folder, &UidSet::range(added.uid, added.uid), seq),
            Change::FlagsSet { folder, uids, .. } | Change::MessagesExpunged { folder, uids } => {
                self.messages_of(*folder, uids, seq);
            }
            Change::SubscriptionChanged { path, .. } => {
                let found = self.subscriptions.extract_if(.., |(wanted, _)| wanted == path);
                self.found.extend(found.map(|(_, index)| (index, seq)));
            }
            Change::FolderCreated { folder, path, .. } | Change::FolderRenamed { folder, path } => {
                // What lies below moves along, and is not named.
                let moves = matches!(change, Change::FolderRenamed { .. });
                let found =
                    self.folders.extract_if(.., |(wanted, at, _)| wanted == folder || (moves && at.is_below(path)));
                self.found.extend(found.map(|(.., index)| (index, seq)));
                // The folder that had this name: it is gone from there since the change of it that comes next.
                let since = self.left.insert(*folder, seq).unwrap_or(seq);
                let found = self.names.extract_if(.., |(wanted, _)| wanted == path);
                self.found.extend(found.map(|(_, index)| (index, since)));
            }
            Change::FolderDeleted { folder } => {
                let all = self.messages.remove(folder).unwrap_or_default();
                self.found.extend(all.into_values().flatten().map(|index| (index, seq)));
                let found = self.folders.extract_if(.., |(wanted, ..)| wanted == folder);
                self.found.extend(found.map(|(.., index)| (index, seq)));
                self.left.insert(*folder, seq);
            }
            Change::SpecialUsesChanged { .. } => {}
        }
    }

    fn messages_of(&mut self, folder: FolderId, uids: &UidSet, seq: Seq) {
        let Some(open) = self.messages.get_mut(&folder) else { return };
        for (low, high) in uids.ranges() {
            let named: Vec<Uid> = open.range(low..=high).map(|(uid, _)| *uid).collect();
            let indexes = named.iter().filter_map(|uid| open.remove(uid)).flatten();
            self.found.extend(indexes.map(|index| (index, seq)));
        }
        if open.is_empty() {
            self.messages.remove(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_protocol::{AddedMessage, ContentRef, Direction, Epoch, MailboxId, Position, UidValidity};

    use super::*;

    fn transaction(seq: i64, changes: Vec<Change>) -> Transaction {
        Transaction {
            mailbox: MailboxId(1),
            direction: Direction::Outbound,
            seq: Seq(seq),
            epoch: Epoch(1),
            seed: false,
            captured_at: chrono::DateTime::UNIX_EPOCH,
            changes,
            position: Position::default(),
            previous: Digest::default(),
        }
    }

    fn path(text: &str) -> FolderPath {
        FolderPath::new(text.split('/').map(str::to_owned).collect())
    }

    fn created(folder: i32, at: &str) -> Change {
        Change::FolderCreated {
            folder: FolderId(folder),
            path: path(at),
            uid_validity: UidValidity(1),
            special_use: Vec::new(),
            selectable: true,
        }
    }

    fn added(folder: i32, uid: u32, size: u64) -> Change {
        Change::MessageAdded(AddedMessage {
            folder: FolderId(folder),
            uid: Uid(uid),
            flags: Vec::new(),
            internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
            content: ContentRef { digest: Digest::of(&size.to_be_bytes()), size },
        })
    }

    /// Folder 1 is INBOX, 2 is Work with Work/Old (3) below, which moves to Play and Play/Old; 4 is Gone, which goes.
    fn journal() -> Vec<Transaction> {
        let uids = |set: &str| -> UidSet { set.parse().unwrap() };
        let flags = |uids| Change::FlagsSet { folder: FolderId(1), uids, flags: Vec::new() };
        let subscribed = |subscribed| Change::SubscriptionChanged { path: path("Work"), subscribed };
        vec![
            transaction(1, vec![created(1, "INBOX"), created(2, "Work"), created(3, "Work/Old"), created(4, "Gone")]),
            transaction(2, vec![added(1, 1, 10), added(1, 2, 20), added(1, 3, 30), added(4, 1, 40), subscribed(true)]),
            transaction(3, vec![flags(uids("2:3"))]),
            transaction(4, vec![Change::MessagesExpunged { folder: FolderId(1), uids: uids("3") }]),
            transaction(5, vec![Change::FolderRenamed { folder: FolderId(2), path: path("Play") }, subscribed(false)]),
            transaction(6, vec![Change::FolderDeleted { folder: FolderId(4) }]),
        ]
    }

    fn difference(at: At) -> Difference {
        Difference { folder: String::new(), uid: None, what: "flags", detail: String::new(), seq: None, at: Some(at) }
    }

    #[track_caller]
    fn check(at: At, expected: Option<i64>) {
        let mut differences = [difference(at)];
        let mut copies = Copies::of(&differences);
        let all: Vec<Transaction> = journal().into_iter().rev().collect();
        for transaction in &all {
            copies.look(Some(transaction));
        }
        for (index, folder, uid) in copies.found {
            differences[index].at = Some(At::Message(folder, uid));
        }
        let mut search = Search::of(&differences);
        let mut going = search.look(None);
        for transaction in &all {
            going = going && search.look(Some(transaction));
        }
        assert_eq!(search.found.first().map(|(_, seq)| seq.0), expected, "{:?}", differences[0].at);
        assert_eq!(going, expected.is_none() && !matches!(differences[0].at, Some(At::Copy { .. })));
    }

    #[test]
    fn a_message_is_traced_to_what_changed_it_last() {
        let message = |folder, uid| At::Message(FolderId(folder), Uid(uid));
        check(message(1, 1), Some(2));
        check(message(1, 2), Some(3));
        check(message(1, 3), Some(4));
        check(message(4, 1), Some(6));
        check(message(1, 9), None);
    }

    #[test]
    fn a_copy_is_traced_by_what_it_looks_like_to_what_removed_it() {
        let copy = |folder, size, digest| At::Copy { folder: FolderId(folder), size, instant: 837_596_665, digest };
        check(copy(1, 30, None), Some(4));
        check(copy(1, 30, Some(Digest::of(&30_u64.to_be_bytes()))), Some(4));
        check(copy(1, 30, Some(Digest::of(b"another"))), None);
        check(copy(1, 31, None), None);
    }

    #[test]
    fn folders_names_and_subscriptions_are_traced() {
        check(At::Folder(FolderId(1), path("INBOX")), Some(1));
        check(At::Folder(FolderId(2), path("Play")), Some(5));
        check(At::Folder(FolderId(3), path("Play/Old")), Some(5));
        check(At::Name(path("Work")), Some(5));
        check(At::Name(path("Gone")), Some(6));
        check(At::Name(path("Nobody's")), None);
        check(At::Subscription(path("Work")), Some(5));
        check(At::Subscription(path("INBOX")), None);
    }
}
