//! The folders of both sides, and those they last had in common → which is which, and what it should be called. Pure.
//!
//! Keeps true: every folder that either side holds has one place, and no two places have one name. The standby, where the
//! user works, has the last word on names.
//! Not here: whether a folder that one side lacks goes or comes back (`pass`, by its messages).

use std::collections::{BTreeMap, BTreeSet};

use understudy_protocol::{Change, FolderId, FolderPath, UidValidity};
use understudy_replication::folders::{Known, Seen, reconcile};

/// A folder that both sides had when they were last made equal.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) folder: FolderId,
    pub(crate) path: FolderPath,
    pub(crate) primary: UidValidity,
    pub(crate) standby: UidValidity,
}

/// A folder as one side lists it.
#[derive(Clone, Debug)]
pub(crate) struct There {
    pub(crate) path: FolderPath,
    pub(crate) uid_validity: UidValidity,
    pub(crate) special_use: Vec<String>,
}

/// One folder, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder: FolderId,
    /// Not in common yet.
    pub(crate) fresh: bool,
    /// What it is called on each side; `None` where it is not.
    pub(crate) primary: Option<FolderPath>,
    pub(crate) standby: Option<FolderPath>,
    /// Its UIDs there are not those that are in common.
    pub(crate) primary_reset: bool,
    pub(crate) standby_reset: bool,
    /// What it should be called.
    pub(crate) wanted: FolderPath,
    pub(crate) special_use: Vec<String>,
}

/// From here on, numbers are only made up to tell new folders apart.
const MADE_UP: i32 = 1 << 30;

/// Finds out which folder is which. New ones are numbered from `next`.
pub(crate) fn places(common: &[Common], primary: &[There], standby: &[There], next: FolderId) -> Vec<Place> {
    let on_primary = Matched::new(common, |common| common.primary, primary);
    let on_standby = Matched::new(common, |common| common.standby, standby);
    let mut places: Vec<Place> = common
        .iter()
        .map(|common| {
            let (p, primary_reset) = on_primary.of(common);
            let (s, standby_reset) = on_standby.of(common);
            let wanted = match (&p, &s) {
                (_, Some(s)) if s.path != common.path && !is_aside(&s.path) => &s.path,
                (Some(p), _) if !is_aside(&p.path) => &p.path,
                _ => &common.path,
            };
            Place {
                folder: common.folder,
                fresh: false,
                wanted: wanted.clone(),
                special_use: p.or(s).map(|there| there.special_use.clone()).unwrap_or_default(),
                primary: p.map(|there| there.path.clone()),
                standby: s.map(|there| there.path.clone()),
                primary_reset,
                standby_reset,
            }
        })
        .collect();
    let mut fresh: BTreeMap<&FolderPath, (Option<&There>, Option<&There>)> = BTreeMap::new();
    on_primary.fresh.values().for_each(|&there| fresh.entry(&there.path).or_default().0 = Some(there));
    on_standby.fresh.values().for_each(|&there| fresh.entry(&there.path).or_default().1 = Some(there));
    for (number, (path, (p, s))) in (next.0..).zip(fresh) {
        places.push(Place {
            folder: FolderId(number),
            fresh: true,
            primary: p.map(|there| there.path.clone()),
            standby: s.map(|there| there.path.clone()),
            primary_reset: false,
            standby_reset: false,
            wanted: path.clone(),
            special_use: p.or(s).map(|there| there.special_use.clone()).unwrap_or_default(),
        });
    }
    name_apart(&mut places);
    places
}

/// Where a folder waits while another takes its name. One that a crash left there has the name it had.
pub(crate) fn aside(folder: FolderId) -> FolderPath {
    FolderPath::new(vec![format!("{ASIDE}{folder}")])
}

/// As `replication::folders` calls them too.
const ASIDE: &str = "understudy-moving-";

fn is_aside(path: &FolderPath) -> bool {
    path.depth() == 1 && path.components()[0].starts_with(ASIDE)
}

/// Two folders that should be called the same: the one whose name the standby knows keeps it.
fn name_apart(places: &mut [Place]) {
    let mut taken = BTreeSet::new();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&index| {
        let place = &places[index];
        (!place.wanted.is_inbox(), place.standby.as_ref() != Some(&place.wanted), place.fresh, place.folder)
    });
    for index in order {
        let place = &mut places[index];
        let plain = place.wanted.clone();
        for count in 2.. {
            if taken.insert(place.wanted.clone()) {
                break;
            }
            let mut components = plain.components().to_vec();
            if let Some(last) = components.last_mut() {
                *last = format!("{last} ({count})");
            }
            place.wanted = FolderPath::new(components);
        }
    }
}

/// Which listed folder is which common one.
struct Matched<'a> {
    by_folder: BTreeMap<FolderId, &'a There>,
    fresh: BTreeMap<FolderPath, &'a There>,
    resets: BTreeMap<FolderId, &'a There>,
}

impl<'a> Matched<'a> {
    fn new(common: &[Common], validity: impl Fn(&Common) -> UidValidity, listed: &'a [There]) -> Self {
        let known: Vec<Known> = common
            .iter()
            .map(|common| Known {
                folder: common.folder,
                path: common.path.clone(),
                identity: None,
                uid_validity: validity(common),
                selectable: true,
            })
            .collect();
        let seen: Vec<Seen> = listed
            .iter()
            .map(|there| Seen {
                path: there.path.clone(),
                identity: None,
                uid_validity: there.uid_validity,
                special_use: Vec::new(),
                selectable: true,
            })
            .collect();
        let found = reconcile(&known, &seen, FolderId(MADE_UP));
        let mut matched = Self { by_folder: BTreeMap::new(), fresh: BTreeMap::new(), resets: BTreeMap::new() };
        for (folder, there) in found.folders.into_iter().zip(listed) {
            if folder.0 >= MADE_UP {
                matched.fresh.insert(there.path.clone(), there);
            } else {
                matched.by_folder.insert(folder, there);
            }
        }
        // A name that lives on under another UIDVALIDITY is the same folder, reset.
        for common in common.iter().filter(|common| !matched.by_folder.contains_key(&common.folder)) {
            if let Some(there) = matched.fresh.remove(&common.path) {
                matched.resets.insert(common.folder, there);
            }
        }
        matched
    }

    fn of(&self, common: &Common) -> (Option<&'a There>, bool) {
        match self.by_folder.get(&common.folder) {
            Some(there) => (Some(there), false),
            None => {
                let reset = self.resets.get(&common.folder).copied();
                (reset, reset.is_some())
            }
        }
    }
}

/// Renames, in an order that a server accepts, that give every folder of one side its wanted name.
pub(crate) fn renames(places: &[Place], on: impl Fn(&Place) -> Option<&FolderPath>) -> Vec<(FolderId, FolderPath)> {
    let there: Vec<&Place> = places.iter().filter(|place| on(place).is_some()).collect();
    let identity = |place: &Place| Some(place.folder.to_string());
    let known: Vec<Known> = there
        .iter()
        .filter_map(|place| {
            Some(Known {
                folder: place.folder,
                path: on(place)?.clone(),
                identity: identity(place),
                uid_validity: UidValidity(1),
                selectable: true,
            })
        })
        .collect();
    let seen: Vec<Seen> = there
        .iter()
        .map(|place| Seen {
            path: place.wanted.clone(),
            identity: identity(place),
            uid_validity: UidValidity(1),
            special_use: Vec::new(),
            selectable: true,
        })
        .collect();
    let changes = reconcile(&known, &seen, FolderId(MADE_UP)).changes;
    changes
        .into_iter()
        .filter_map(|change| match change {
            Change::FolderRenamed { folder, path } => Some((folder, path)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FolderPath {
        FolderPath::new(text.split('/').map(str::to_owned).collect())
    }

    /// `1=A` is folder 1 named A; its UIDVALIDITY on the primary is 1, on the standby 101.
    fn parse(text: &str) -> Vec<(i32, FolderPath)> {
        let item = |item: &str| {
            let (number, name) = item.split_once('=').expect("number=name");
            (number.parse().expect("a number"), path(name))
        };
        text.split_whitespace().map(item).collect()
    }

    #[track_caller]
    fn check(common: &str, primary: &str, standby: &str, expected: &str) {
        let validity = |number: i32, plus: u32| UidValidity(number.unsigned_abs() + plus);
        let common: Vec<Common> = parse(common)
            .into_iter()
            .map(|(number, path)| Common {
                folder: FolderId(number),
                path,
                primary: validity(number, 0),
                standby: validity(number, 100),
            })
            .collect();
        let there = |text: &str, plus: u32| -> Vec<There> {
            let item = |(number, path)| There { path, uid_validity: validity(number, plus), special_use: vec![] };
            parse(text).into_iter().map(item).collect()
        };
        let found = places(&common, &there(primary, 0), &there(standby, 100), FolderId(50));
        let name = |path: &Option<FolderPath>, reset: bool| {
            path.as_ref().map_or("-".to_owned(), |path| format!("{path}{}", if reset { "!" } else { "" }))
        };
        let found: Vec<String> = found
            .iter()
            .map(|place| {
                let (p, s) = (name(&place.primary, place.primary_reset), name(&place.standby, place.standby_reset));
                format!("{}:{p}|{s}>{}", place.folder, place.wanted)
            })
            .collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn folders_are_matched_on_both_sides() {
        check("1=INBOX 2=A", "1=INBOX 2=A", "1=INBOX 2=A", "1:INBOX|INBOX>INBOX 2:A|A>A");
        check("1=INBOX 2=A", "1=INBOX 2=A", "1=INBOX", "1:INBOX|INBOX>INBOX 2:A|->A");
        check("1=INBOX", "1=INBOX 8=P 9=B", "1=INBOX 7=S 6=B", "1:INBOX|INBOX>INBOX 50:B|B>B 51:P|->P 52:-|S>S");
    }

    #[test]
    fn renames_of_either_side_are_found_and_the_standby_wins() {
        check("2=A", "2=A", "2=B", "2:A|B>B");
        check("2=A", "2=C", "2=A", "2:C|A>C");
        check("2=A", "2=C", "2=B", "2:C|B>B");
    }

    #[test]
    fn where_a_folder_waited_when_a_crash_came_is_no_name_of_its_own() {
        check("2=A", "2=understudy-moving-2", "2=A", "2:understudy-moving-2|A>A");
        check("2=A", "2=A", "2=understudy-moving-2", "2:A|understudy-moving-2>A");
    }

    #[test]
    fn the_same_name_under_another_uidvalidity_is_the_same_folder_reset() {
        check("1=INBOX", "9=INBOX", "1=INBOX", "1:INBOX!|INBOX>INBOX");
        check("2=A", "2=A", "9=A", "2:A|A!>A");
    }

    #[test]
    fn no_two_folders_are_called_the_same() {
        check("2=A", "2=A 9=B", "2=B", "2:A|B>B 50:B|->B (2)");
        check("2=A 3=C", "2=A 3=B", "2=B 3=C", "2:A|B>B 3:B|C>B (2)");
    }

    #[test]
    fn names_are_reached_by_renames_in_order() {
        let place = |number, from: &str, to: &str| Place {
            folder: FolderId(number),
            fresh: false,
            primary: Some(path(from)),
            standby: None,
            primary_reset: false,
            standby_reset: false,
            wanted: path(to),
            special_use: vec![],
        };
        let places = [place(1, "A", "B"), place(2, "B", "A"), place(3, "C", "C")];
        let renames = renames(&places, |place| place.primary.as_ref());
        let shown: Vec<String> = renames.iter().map(|(folder, path)| format!("{folder}>{path}")).collect();
        assert_eq!(shown, ["1>understudy-moving-1", "2>A", "1>B"]);
    }
}
