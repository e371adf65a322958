//! Two lists of folders → the changes that make the first the second. Pure.
//!
//! Keeps true: every prefix of the changes leaves a tree that a server accepts; nothing is deleted before what may have
//! come out of it has been added (deletions are returned apart, to go last).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use understudy_protocol::{Change, FolderId, FolderPath, UidValidity};

/// A folder as it was.
#[derive(Clone, Debug)]
pub struct Known {
    pub folder: FolderId,
    pub path: FolderPath,
    /// X-GUID or MAILBOXID; `None` where the server has none, or after the source's journal was rebuilt.
    pub identity: Option<String>,
    pub uid_validity: UidValidity,
    pub selectable: bool,
}

/// A folder as a listing shows it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: FolderPath,
    pub identity: Option<String>,
    /// `UidValidity(0)` where the level holds no messages.
    pub uid_validity: UidValidity,
    pub special_use: Vec<String>,
    pub selectable: bool,
}

/// What became of the folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderChanges {
    /// Renames, then creations.
    pub changes: Vec<Change>,
    /// Folders that are gone, innermost first.
    pub deleted: Vec<FolderId>,
    /// For each seen folder, in order, which folder it is.
    pub folders: Vec<FolderId>,
    /// The number the next new folder gets.
    pub next_folder: FolderId,
}

/// Compares the folders known with those a complete listing shows.
#[must_use]
pub fn reconcile(known: &[Known], seen: &[Seen], next_folder: FolderId) -> FolderChanges {
    let mut matched = match_folders(known, seen);
    let mut result = FolderChanges { next_folder, ..FolderChanges::default() };
    let staying: BTreeSet<FolderId> = matched.iter().flatten().copied().collect();

    let mut tree = Tree { current: known.iter().map(|k| (k.folder, k.path.clone())).collect(), changes: Vec::new() };
    let mut targets: Vec<(FolderId, &FolderPath)> =
        matched.iter().zip(seen).filter_map(|(folder, seen)| Some(((*folder)?, &seen.path))).collect();
    targets.sort_by_key(|(_, path)| (path.depth(), (*path).clone()));
    tree.settle(&targets);
    result.changes = tree.changes;

    let mut new: Vec<usize> = (0..seen.len()).filter(|&index| matched[index].is_none()).collect();
    new.sort_by_key(|&index| (seen[index].path.depth(), seen[index].path.clone()));
    for index in new {
        let folder = result.next_folder;
        result.next_folder = FolderId(folder.0 + 1);
        matched[index] = Some(folder);
        result.changes.push(Change::FolderCreated {
            folder,
            path: seen[index].path.clone(),
            uid_validity: seen[index].uid_validity,
            special_use: seen[index].special_use.clone(),
            selectable: seen[index].selectable,
        });
    }
    let mut gone: Vec<&Known> = known.iter().filter(|k| !staying.contains(&k.folder)).collect();
    gone.sort_by_key(|k| std::cmp::Reverse((k.path.depth(), k.path.clone())));
    result.deleted = gone.into_iter().map(|k| k.folder).collect();
    result.folders = matched.into_iter().flatten().collect();
    result
}

/// The known folder that each seen one is, if it is one.
fn match_folders(known: &[Known], seen: &[Seen]) -> Vec<Option<FolderId>> {
    let mut matched: Vec<Option<FolderId>> = vec![None; seen.len()];
    let mut free: BTreeMap<FolderId, &Known> = known.iter().map(|k| (k.folder, k)).collect();

    // Where it was, and still itself. Until a deletion is written, two may have had the same name: then it is the newer one.
    let mut by_path: HashMap<&FolderPath, Vec<&Known>> = HashMap::new();
    for k in known {
        by_path.entry(&k.path).or_default().push(k);
    }
    for (slot, seen) in matched.iter_mut().zip(seen) {
        let there = by_path.get(&seen.path).into_iter().flatten();
        if let Some(k) = there.copied().filter(|k| same_generation(k, seen)).max_by_key(|k| k.folder) {
            free.remove(&k.folder);
            *slot = Some(k.folder);
        }
    }
    // Of several that had one name, one at most is anywhere else: on the other side there is but one folder of that name, and whatever
    // renames one of them takes the others along, to and fro for ever. The others are deleted; what they held is captured anew.
    for shared in by_path.values().filter(|shared| shared.len() > 1) {
        let newest = shared.iter().map(|k| k.folder).max();
        let is_there = shared.iter().any(|k| !free.contains_key(&k.folder));
        for k in shared.iter().filter(|k| is_there || Some(k.folder) != newest) {
            free.remove(&k.folder);
        }
    }
    // Elsewhere, by what the server calls it.
    for (slot, seen) in matched.iter_mut().zip(seen).filter(|(slot, seen)| slot.is_none() && seen.identity.is_some()) {
        let moved = free
            .values()
            .find(|k| k.identity == seen.identity && k.uid_validity == seen.uid_validity && may_be_renamed(k, seen));
        if let Some(folder) = moved.map(|k| k.folder) {
            free.remove(&folder);
            *slot = Some(folder);
        }
    }
    // Elsewhere, by a UIDVALIDITY that no other folder in question has. Servers draw it from the clock, so folders made
    // in one second share it: then a rename is taken for a deletion and a creation, which costs no content either.
    for index in 0..seen.len() {
        let candidate = &seen[index];
        if matched[index].is_some() || !candidate.selectable {
            continue;
        }
        let rivals = (0..seen.len())
            .filter(|&other| matched[other].is_none() && seen[other].uid_validity == candidate.uid_validity)
            .count();
        let mut same = free.values().filter(|k| {
            k.selectable
                && k.uid_validity == candidate.uid_validity
                && (k.identity.is_none() || candidate.identity.is_none())
                && may_be_renamed(k, candidate)
        });
        if let (1, Some(only), None) = (rivals, same.next(), same.next()) {
            let folder = only.folder;
            free.remove(&folder);
            matched[index] = Some(folder);
        }
    }
    matched
}

/// INBOX cannot be renamed: a RENAME of it makes a new folder of what it held, and INBOX stays (RFC 9051 §6.3.6). Servers
/// disagree on all the rest: Dovecot's dbox formats pass UIDs and the folders below on to the new name, its Maildir
/// refuses, Cyrus copies. So what INBOX held is a folder of its own from then on, and INBOX one of another generation.
fn may_be_renamed(known: &Known, seen: &Seen) -> bool {
    !known.path.is_inbox() && !seen.path.is_inbox()
}

/// Do the UIDs of `known` still hold for `seen`, a folder of the same name?
fn same_generation(known: &Known, seen: &Seen) -> bool {
    let same_identity = match (&known.identity, &seen.identity) {
        (Some(known), Some(seen)) => known == seen,
        _ => true,
    };
    known.selectable == seen.selectable && known.uid_validity == seen.uid_validity && same_identity
}

/// The folders while they are being renamed, as the other side will see them.
struct Tree {
    current: BTreeMap<FolderId, FolderPath>,
    changes: Vec<Change>,
}

/// How often the plain order of renames is tried before every folder in question steps aside: one that is renamed late
/// can drag along one that had arrived.
const PLAIN_PASSES: usize = 3;

impl Tree {
    /// Renames until every folder is where it belongs; `targets` is in order of depth.
    fn settle(&mut self, targets: &[(FolderId, &FolderPath)]) {
        for _ in 0..PLAIN_PASSES {
            for (folder, path) in targets {
                self.rename(*folder, path);
            }
            if self.misplaced(targets).is_none() {
                return;
            }
        }
        // Innermost first, so that nothing is dragged along twice; each ends alone at the top.
        while let Some(folder) = self.misplaced(targets) {
            self.step_aside(folder);
        }
        for (folder, path) in targets {
            self.rename(*folder, path);
        }
    }

    /// The innermost folder that is neither where it belongs nor stepped aside.
    fn misplaced(&self, targets: &[(FolderId, &FolderPath)]) -> Option<FolderId> {
        targets
            .iter()
            .filter_map(|(folder, path)| Some((*folder, *path, self.current.get(folder)?)))
            .filter(|(folder, path, current)| path != current && **current != aside(*folder))
            .max_by_key(|(_, _, current)| current.depth())
            .map(|(folder, ..)| folder)
    }

    /// Renames `folder` to `to` unless it is called that already. Whoever holds that name, or lies below it, steps aside
    /// first: it is renamed later in this round, or deleted at its end.
    fn rename(&mut self, folder: FolderId, to: &FolderPath) {
        if self.current.get(&folder) == Some(to) {
            return;
        }
        while let Some(holder) = self.in_the_way(folder, to) {
            self.step_aside(holder);
        }
        // No server renames a folder below itself, nor onto a level that exists because of it.
        let nested = |from: &FolderPath| to.is_below(from) || (from.is_below(to) && !to.is_inbox());
        if self.current.get(&folder).is_some_and(nested) {
            self.step_aside(folder);
        }
        self.step(folder, to.clone());
    }

    /// The outermost folder that keeps `to` from being taken by `folder`. INBOX always exists, so what lies below it may
    /// stay.
    fn in_the_way(&self, folder: FolderId, to: &FolderPath) -> Option<FolderId> {
        let from = self.current.get(&folder)?;
        self.current
            .iter()
            .filter(|(id, path)| **id != folder && !path.is_below(from))
            .filter(|(_, path)| *path == to || (path.is_below(to) && !to.is_inbox()))
            .min_by_key(|(_, path)| path.depth())
            .map(|(&holder, _)| holder)
    }

    fn step_aside(&mut self, folder: FolderId) {
        self.step(folder, aside(folder));
    }

    fn step(&mut self, folder: FolderId, to: FolderPath) {
        let Some(from) = self.current.get(&folder).cloned() else {
            return;
        };
        rebase(&mut self.current, &from, &to);
        self.changes.push(Change::FolderRenamed { folder, path: to });
    }
}

/// Where a folder waits while another takes its name.
fn aside(folder: FolderId) -> FolderPath {
    FolderPath::new(vec![format!("understudy-moving-{folder}")])
}

/// Renames `from` to `to` in a tree of folders; those below move along, except below INBOX (RFC 9051 §6.3.6).
pub fn rebase(tree: &mut BTreeMap<FolderId, FolderPath>, from: &FolderPath, to: &FolderPath) {
    for path in tree.values_mut() {
        if (path == from || (path.is_below(from) && !from.is_inbox()))
            && let Some(moved) = path.rebased(from, to)
        {
            *path = moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FolderPath {
        FolderPath::new(text.split('/').map(str::to_owned).collect())
    }

    /// `1=A` is folder 1 named A with identity `g1`; UIDVALIDITY is the number too.
    fn known(text: &str) -> Vec<Known> {
        text.split_whitespace()
            .map(|item| {
                let (number, name) = item.split_once('=').expect("number=name");
                let number: u32 = number.parse().expect("number");
                Known {
                    folder: FolderId(number.cast_signed()),
                    path: path(name),
                    identity: Some(format!("g{number}")),
                    uid_validity: UidValidity(number),
                    selectable: true,
                }
            })
            .collect()
    }

    fn seen(text: &str) -> Vec<Seen> {
        known(text)
            .into_iter()
            .map(|k| Seen {
                path: k.path,
                identity: k.identity,
                uid_validity: k.uid_validity,
                special_use: vec![],
                selectable: true,
            })
            .collect()
    }

    fn show(result: &FolderChanges) -> String {
        let mut words: Vec<String> = result
            .changes
            .iter()
            .map(|change| match change {
                Change::FolderRenamed { folder, path } => format!("{folder}>{path}"),
                Change::FolderCreated { folder, path, .. } => format!("+{folder}={path}"),
                other => format!("{other:?}"),
            })
            .collect();
        words.extend(result.deleted.iter().map(|folder| format!("-{folder}")));
        words.join(" ")
    }

    #[track_caller]
    fn check(before: &str, after: &str, expected: &str) {
        assert_eq!(show(&reconcile(&known(before), &seen(after), FolderId(100))), expected);
    }

    #[test]
    fn nothing_changes_when_nothing_changed() {
        check("1=INBOX 2=A 3=A/b", "1=INBOX 2=A 3=A/b", "");
    }

    #[test]
    fn folders_come_and_go() {
        check("1=INBOX", "1=INBOX 8=A/b 7=A", "+100=A +101=A/b");
        check("1=INBOX 2=A 3=A/b", "1=INBOX", "-3 -2");
    }

    #[test]
    fn a_rename_takes_the_folders_below_along() {
        check("2=A 3=A/b 4=A/b/c", "2=Z 3=Z/b 4=Z/b/c", "2>Z");
        check("2=A 3=A/b", "2=Z 3=Z/x", "2>Z 3>Z/x");
        check("2=A 3=A/b", "2=Z 3=other", "2>Z 3>other");
    }

    #[test]
    fn names_swap_by_stepping_aside() {
        check("2=A 3=B", "3=A 2=B", "2>understudy-moving-2 3>A 2>B");
    }

    #[test]
    fn of_two_that_had_a_name_the_one_that_is_there_stays() {
        check("6=A 16=A", "6=A", "-16");
        check("6=A 16=A", "16=A", "-6");
        check("6=A 16=A", "9=A", "+100=A -6 -16");
    }

    #[test]
    fn of_two_that_had_a_name_one_at_most_has_moved() {
        check("6=A 16=A", "6=X 16=Y", "16>Y +100=X -6");
        check("6=A 16=A", "6=X 16=A", "+100=X -6");
        check("6=A 16=A 7=A/b", "6=B 16=A 7=B/b", "7>B/b +100=B -6");
    }

    #[test]
    fn a_rename_onto_a_deleted_name_moves_the_old_one_away_first() {
        check("2=A 3=B", "3=A", "2>understudy-moving-2 3>A -2");
    }

    #[test]
    fn the_same_name_with_another_uidvalidity_is_another_folder() {
        check("2=A", "9=A", "+100=A -2");
    }

    #[test]
    fn without_identity_a_unique_uidvalidity_tells_a_rename() {
        let mut before = known("2=A 3=B");
        before.iter_mut().for_each(|k| k.identity = None);
        assert_eq!(show(&reconcile(&before, &seen("2=Z 3=B"), FolderId(9))), "2>Z");
        before[1].uid_validity = UidValidity(2);
        let mut after = seen("2=Y 3=Z");
        after[1].uid_validity = UidValidity(2);
        assert_eq!(show(&reconcile(&before, &after, FolderId(9))), "+9=Y +10=Z -3 -2");
    }

    #[test]
    fn a_renamed_inbox_is_a_new_folder_and_another_inbox() {
        check("1=INBOX 2=INBOX/a 3=B", "9=INBOX 1=Old 2=Old/a 3=B", "2>Old/a +100=INBOX +101=Old -1");
        check("1=INBOX 2=A", "2=INBOX", "+100=INBOX -1 -2");
    }

    #[test]
    fn what_was_a_level_and_is_a_folder_now_is_another_folder() {
        let mut before = known("2=A");
        before[0].selectable = false;
        before[0].uid_validity = UidValidity(0);
        assert_eq!(show(&reconcile(&before, &seen("5=A"), FolderId(9))), "+9=A -2");
    }

    /// Several may have had one name, and without identities what moved is told by UIDVALIDITY alone.
    #[test]
    fn any_names_shared_by_several_come_to_an_end() {
        let names = ["A", "B", "A/c", "INBOX", "A/c/d"];
        let mut seed = 1u64;
        for round in 0..20_000 {
            let mut pick = |count: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as usize % count
            };
            let before: String = (1..=5).map(|number| format!("{number}={} ", names[pick(names.len())])).collect();
            let after: String = names.iter().map(|name| format!("{}={name} ", 1 + pick(6))).collect();
            let (mut known, mut seen) = (known(&before), seen(&after));
            if round % 2 == 0 {
                known.iter_mut().for_each(|k| k.identity = None);
                seen.iter_mut().for_each(|s| s.identity = None);
            }
            let result = reconcile(&known, &seen, FolderId(100));
            let mut tree: BTreeMap<FolderId, FolderPath> = known.iter().map(|k| (k.folder, k.path.clone())).collect();
            for change in &result.changes {
                if let Change::FolderRenamed { folder, path } = change {
                    let from = tree[folder].clone();
                    rebase(&mut tree, &from, path);
                }
            }
            for (folder, seen) in result.folders.iter().zip(&seen).filter(|(folder, _)| folder.0 < 100) {
                assert_eq!(tree[folder], seen.path, "{before} -> {after}");
            }
        }
    }

    /// Applies the changes to a model and compares with the listing, over every small shuffle of names.
    #[test]
    fn any_reshuffle_of_names_ends_in_the_listing() {
        let names = ["A", "B", "A/c", "B/c", "INBOX", "D"];
        let mut seed = 1u64;
        for _ in 0..5000 {
            let mut pick = |count: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as usize % count
            };
            let mut arrangement = || {
                let mut text = String::new();
                let mut numbers: Vec<usize> = (1..=6).collect();
                for name in names {
                    if pick(3) > 0 {
                        let number = numbers.remove(pick(numbers.len()));
                        text.push_str(&format!("{number}={name} "));
                    }
                }
                text
            };
            let (before, after) = (arrangement(), arrangement());
            let (known, seen) = (known(&before), seen(&after));
            let result = reconcile(&known, &seen, FolderId(100));
            let mut tree: BTreeMap<FolderId, FolderPath> = known.iter().map(|k| (k.folder, k.path.clone())).collect();
            for change in &result.changes {
                match change {
                    Change::FolderRenamed { folder, path } => {
                        let from = tree[folder].clone();
                        let taken = tree.values().any(|p| p == path || (p.is_below(path) && !path.is_inbox()));
                        assert!(!taken, "{before} -> {after}: {path} is taken");
                        rebase(&mut tree, &from, path);
                    }
                    Change::FolderCreated { folder, path, .. } => {
                        tree.insert(*folder, path.clone());
                    }
                    other => panic!("{other:?}"),
                }
            }
            for folder in &result.deleted {
                tree.remove(folder);
            }
            let expected: BTreeMap<FolderId, FolderPath> =
                result.folders.iter().copied().zip(seen.iter().map(|s| s.path.clone())).collect();
            assert_eq!(tree, expected, "{before} -> {after}");
        }
    }
}
