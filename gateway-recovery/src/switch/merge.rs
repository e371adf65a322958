//! What both sides of one folder hold, and what they last had in common → what each must still be given. Pure.
//!
//! Keeps true: a message is removed only where the side that lacks it is known to have removed it and the other side has
//! left it alone since; in doubt both keep it. Flags are merged one by one, so no change of a flag is ever lost.
//! Not here: folders (`tree`), talking to servers (`pass`).

use std::collections::{BTreeMap, BTreeSet};

use understudy_protocol::{Digest, Uid};

pub(crate) type Flags = Vec<String>;

/// Which sides may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Both: the user comes home.
    Home,
    /// Only the standby gets what the primary still took; what the standby changed waits for the way home.
    Stragglers,
}

/// A message that both sides had when they were last made equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    /// Its UID on the primary, which is also its row in the UID map.
    pub(crate) row: Uid,
    /// `None` when the standby never took it.
    pub(crate) standby: Option<Uid>,
    pub(crate) digest: Digest,
    pub(crate) flags: Flags,
}

/// A message that only one side is known to have had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) uid: Uid,
    pub(crate) flags: Flags,
    pub(crate) digest: Digest,
    /// The digest of what is left when everything servers alter is taken out.
    pub(crate) loose: Digest,
    /// The digest of what a mail exchanger handed over, where one did: equal in two deliveries of one mail.
    pub(crate) delivery: Option<Digest>,
}

/// One side of a folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// Everything that is there.
    pub(crate) messages: BTreeMap<Uid, Flags>,
    /// Those that are not in common, with what they are.
    pub(crate) fresh: Vec<Fresh>,
    /// UIDs mean other messages than they did: the folder was made again or rebuilt.
    pub(crate) reset: bool,
    /// What is not there was removed, not lost.
    pub(crate) tells: bool,
}

/// A message to bring from one side to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carry {
    /// Where it is now.
    pub(crate) uid: Uid,
    pub(crate) flags: Flags,
    /// The row it replaces, where it was in common before.
    pub(crate) row: Option<Uid>,
}

/// A message that both sides have, as it is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) primary: Uid,
    pub(crate) standby: Uid,
    pub(crate) flags: Flags,
    /// The row it replaces.
    pub(crate) row: Option<Uid>,
    /// The bytes differ as servers alter them.
    pub(crate) altered: bool,
}

/// What is to be done. Additions before removals, over all folders, so that a moved message is never missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) to_primary: Vec<Carry>,
    pub(crate) to_standby: Vec<Carry>,
    pub(crate) primary_flags: Vec<(Uid, Flags)>,
    pub(crate) standby_flags: Vec<(Uid, Flags)>,
    /// Rows whose flags are from now on these.
    pub(crate) common_flags: Vec<(Uid, Flags)>,
    /// UID there and its row.
    pub(crate) expunge_primary: Vec<(Uid, Uid)>,
    pub(crate) expunge_standby: Vec<(Uid, Uid)>,
    /// Rows of messages that are gone from both sides.
    pub(crate) forget: Vec<Uid>,
    /// Messages kept although one side removed them, since the other had changed them.
    pub(crate) kept: u64,
}

impl Merge {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self { kept: self.kept, ..Self::default() }
    }
}

/// Merges the sides of one folder.
pub(crate) fn merge(scope: Scope, common: &[Common], primary: &Side, standby: &Side) -> Merge {
    let mut merging = Merging {
        scope,
        primary,
        standby,
        fresh_primary: primary.fresh.iter().collect(),
        fresh_standby: standby.fresh.iter().collect(),
        merge: Merge::default(),
    };
    // Rows whose folder was reset are found again by content before anything else is.
    let found: Vec<Found<'_>> = common.iter().map(|row| merging.find(row)).collect();
    for found in found {
        merging.row(&found);
    }
    merging.fresh();
    merging.merge
}

/// A row and where its message is.
struct Found<'a> {
    row: &'a Common,
    primary: Option<Uid>,
    standby: Option<Uid>,
    /// One of the two was found by content.
    moved: bool,
}

struct Merging<'a> {
    scope: Scope,
    primary: &'a Side,
    standby: &'a Side,
    fresh_primary: Vec<&'a Fresh>,
    fresh_standby: Vec<&'a Fresh>,
    merge: Merge,
}

impl<'a> Merging<'a> {
    fn find(&mut self, row: &'a Common) -> Found<'a> {
        let primary = if self.primary.reset {
            take(&mut self.fresh_primary, row.digest).map(|fresh| fresh.uid)
        } else {
            Some(row.row).filter(|uid| self.primary.messages.contains_key(uid))
        };
        let standby = if self.standby.reset && row.standby.is_some() {
            take(&mut self.fresh_standby, row.digest).map(|fresh| fresh.uid)
        } else {
            row.standby.filter(|uid| self.standby.messages.contains_key(uid))
        };
        Found { row, primary, standby, moved: self.primary.reset || self.standby.reset }
    }

    fn row(&mut self, found: &Found<'a>) {
        let (row, base) = (found.row.row, &found.row.flags);
        match (found.primary, found.standby) {
            (Some(p), Some(s)) => {
                let before = if found.moved { Some(row) } else { None };
                self.both(p, s, base, before, row, false);
            }
            // The standby never took it: whoever removes it can only be the primary.
            (Some(_), None) if found.row.standby.is_none() => {}
            (None, None) => self.merge.forget.push(row),
            (Some(p), None) => {
                let flags = &self.primary.messages[&p];
                let untouched = same(flags, base);
                if self.scope == Scope::Stragglers {
                    // What the standby removed is brought home, not back.
                } else if self.standby.tells && untouched {
                    self.merge.expunge_primary.push((p, row));
                } else {
                    self.merge.kept += 1;
                    self.merge.to_standby.push(Carry { uid: p, flags: flags.clone(), row: Some(row) });
                }
            }
            (None, Some(s)) => {
                let flags = &self.standby.messages[&s];
                if self.primary.tells && same(flags, base) {
                    self.merge.expunge_standby.push((s, row));
                } else if self.scope == Scope::Home {
                    self.merge.kept += u64::from(self.primary.tells);
                    self.merge.to_primary.push(Carry { uid: s, flags: flags.clone(), row: Some(row) });
                }
            }
        }
    }

    /// Both sides have it: their flags become the same.
    fn both(&mut self, p: Uid, s: Uid, base: &Flags, replaces: Option<Uid>, row: Uid, altered: bool) {
        let none = Flags::new();
        let on_primary = self.primary.messages.get(&p).unwrap_or(&none);
        let on_standby = self.standby.messages.get(&s).unwrap_or(&none);
        let merged = merge_flags(base, on_primary, on_standby);
        if !same(&merged, on_standby) {
            self.merge.standby_flags.push((s, merged.clone()));
        }
        let agreed = match self.scope {
            Scope::Home => {
                if !same(&merged, on_primary) {
                    self.merge.primary_flags.push((p, merged.clone()));
                }
                merged
            }
            // What only the standby changed is still to be brought home.
            Scope::Stragglers => on_primary.clone(),
        };
        if p != row || replaces.is_some() || row == NO_ROW {
            self.merge.pairs.push(Pair { primary: p, standby: s, flags: agreed, row: replaces, altered });
        } else if !same(&agreed, base) {
            self.merge.common_flags.push((row, agreed));
        }
    }

    /// What is new on both sides is one message when its content is; the rest goes to the other side.
    fn fresh(&mut self) {
        let none = Flags::new();
        let mut alone = Vec::new();
        for fresh in std::mem::take(&mut self.fresh_standby) {
            match take(&mut self.fresh_primary, fresh.digest) {
                Some(twin) => self.both(twin.uid, fresh.uid, &none, None, NO_ROW, false),
                None => alone.push(fresh),
            }
        }
        for fresh in alone {
            let altered = take_loose(&mut self.fresh_primary, fresh.loose);
            if altered.is_none()
                && let Some(twin) = take_delivery(&mut self.fresh_primary, fresh)
                && self.scope == Scope::Home
            {
                // The user has the one on the standby; the other was delivered and nobody heard of it.
                self.merge.expunge_primary.push((twin.uid, NO_ROW));
            }
            match altered {
                Some(twin) => self.both(twin.uid, fresh.uid, &none, None, NO_ROW, true),
                None if self.scope == Scope::Home => {
                    self.merge.to_primary.push(Carry { uid: fresh.uid, flags: fresh.flags.clone(), row: None });
                }
                None => {}
            }
        }
        for fresh in std::mem::take(&mut self.fresh_primary) {
            self.merge.to_standby.push(Carry { uid: fresh.uid, flags: fresh.flags.clone(), row: None });
        }
    }
}

/// No message has this UID.
pub(crate) const NO_ROW: Uid = Uid(0);

fn take<'a>(fresh: &mut Vec<&'a Fresh>, digest: Digest) -> Option<&'a Fresh> {
    let at = fresh.iter().position(|fresh| fresh.digest == digest)?;
    Some(fresh.remove(at))
}

fn take_loose<'a>(fresh: &mut Vec<&'a Fresh>, loose: Digest) -> Option<&'a Fresh> {
    let at = fresh.iter().position(|fresh| fresh.loose == loose)?;
    Some(fresh.remove(at))
}

/// The same mail, delivered another time.
fn take_delivery<'a>(fresh: &mut Vec<&'a Fresh>, other: &Fresh) -> Option<&'a Fresh> {
    let at = fresh.iter().position(|fresh| fresh.delivery.is_some() && fresh.delivery == other.delivery)?;
    Some(fresh.remove(at))
}

/// Servers fold keywords to the first spelling a folder saw.
fn folded(flags: &[String]) -> BTreeMap<String, &String> {
    flags.iter().map(|flag| (flag.to_ascii_lowercase(), flag)).collect()
}

/// The flags of `one` that `other` has not.
pub(crate) fn lacking(one: &[String], other: &[String]) -> Flags {
    let other = folded(other);
    one.iter().filter(|flag| !other.contains_key(&flag.to_ascii_lowercase())).cloned().collect()
}

fn same(one: &[String], other: &[String]) -> bool {
    one == other || folded(one).keys().eq(folded(other).keys())
}

/// Each flag as the side that changed it has it. A flag is there or not, so both sides can only have changed it to the same.
fn merge_flags(base: &[String], primary: &[String], standby: &[String]) -> Flags {
    let (base, primary, standby) = (folded(base), folded(primary), folded(standby));
    let names: BTreeSet<&String> = primary.keys().chain(standby.keys()).collect();
    let kept = names.into_iter().filter(|name| {
        let (before, now) = (base.contains_key(*name), primary.contains_key(*name));
        if now == before { standby.contains_key(*name) } else { now }
    });
    let mut flags: Flags = kept.map(|name| (*standby.get(name).unwrap_or_else(|| &primary[name])).clone()).collect();
    flags.sort_unstable();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Flags {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn fresh(uid: u32, content: &str, text: &str) -> Fresh {
        let digest = Digest::of(content.as_bytes());
        Fresh { uid: Uid(uid), flags: flags(text), digest, loose: digest, delivery: None }
    }

    fn row(uid: u32, standby: u32, content: &str, text: &str) -> Common {
        Common {
            row: Uid(uid),
            standby: Some(Uid(standby)),
            digest: Digest::of(content.as_bytes()),
            flags: flags(text),
        }
    }

    fn side(messages: &[(u32, &str)], fresh: Vec<Fresh>) -> Side {
        let mut all: BTreeMap<Uid, Flags> = messages.iter().map(|(uid, text)| (Uid(*uid), flags(text))).collect();
        all.extend(fresh.iter().map(|fresh| (fresh.uid, fresh.flags.clone())));
        Side { messages: all, fresh, reset: false, tells: true }
    }

    fn show(merge: &Merge) -> String {
        let mut words = Vec::new();
        let carry = |name: &str, carries: &[Carry]| -> Vec<String> {
            carries.iter().map(|carry| format!("{name}{}", carry.uid)).collect()
        };
        words.extend(merge.pairs.iter().map(|pair| format!("{}={}", pair.primary, pair.standby)));
        words.extend(carry("p<", &merge.to_primary));
        words.extend(carry("s<", &merge.to_standby));
        words.extend(merge.primary_flags.iter().map(|(uid, flags)| format!("p{uid}({})", flags.join(" "))));
        words.extend(merge.standby_flags.iter().map(|(uid, flags)| format!("s{uid}({})", flags.join(" "))));
        words.extend(merge.common_flags.iter().map(|(uid, flags)| format!("b{uid}({})", flags.join(" "))));
        words.extend(merge.expunge_primary.iter().map(|(uid, _)| format!("p-{uid}")));
        words.extend(merge.expunge_standby.iter().map(|(uid, _)| format!("s-{uid}")));
        words.extend(merge.forget.iter().map(|uid| format!("-{uid}")));
        words.join(" ")
    }

    #[track_caller]
    fn check(scope: Scope, common: &[Common], primary: &Side, standby: &Side, expected: &str) {
        assert_eq!(show(&merge(scope, common, primary, standby)), expected);
    }

    #[test]
    fn nothing_is_done_where_nothing_changed() {
        let rows = [row(1, 11, "a", "\\Seen")];
        check(Scope::Home, &rows, &side(&[(1, "\\Seen")], vec![]), &side(&[(11, "\\Seen")], vec![]), "");
        check(Scope::Home, &rows, &side(&[(1, "\\seen")], vec![]), &side(&[(11, "\\Seen")], vec![]), "");
    }

    #[test]
    fn what_is_new_goes_across_and_twins_are_one_message() {
        let primary = side(&[], vec![fresh(1, "a", ""), fresh(2, "b", "\\Seen")]);
        let standby = side(&[], vec![fresh(7, "b", "$Work"), fresh(8, "b", ""), fresh(9, "c", "")]);
        check(Scope::Home, &[], &primary, &standby, "2=7 p<8 p<9 s<1 p2($Work \\Seen) s7($Work \\Seen)");
        check(Scope::Stragglers, &[], &primary, &standby, "2=7 s<1 s7($Work \\Seen)");
    }

    #[test]
    fn each_flag_is_as_the_side_that_changed_it_has_it() {
        let rows = [row(1, 11, "a", "\\Seen $Old")];
        let (primary, standby) = (side(&[(1, "\\Seen")], vec![]), side(&[(11, "$Old \\Flagged")], vec![]));
        check(Scope::Home, &rows, &primary, &standby, "p1(\\Flagged) s11(\\Flagged) b1(\\Flagged)");
        check(Scope::Stragglers, &rows, &primary, &standby, "s11(\\Flagged) b1(\\Seen)");
    }

    #[test]
    fn removals_hold_only_for_messages_that_the_other_side_left_alone() {
        let rows =
            [row(1, 11, "a", ""), row(2, 12, "b", ""), row(3, 13, "c", ""), row(4, 14, "d", ""), row(5, 15, "e", "")];
        let primary = side(&[(1, ""), (2, "\\Flagged")], vec![]);
        let standby = side(&[(13, ""), (14, "\\Seen")], vec![]);
        check(Scope::Home, &rows, &primary, &standby, "p<14 s<2 p-1 s-13 -5");
        check(Scope::Stragglers, &rows, &primary, &standby, "s-13 -5");
    }

    #[test]
    fn what_was_lost_comes_back_instead_of_going_everywhere() {
        let rows = [row(1, 11, "a", ""), row(2, 12, "b", "")];
        let mut empty = side(&[], vec![]);
        empty.tells = false;
        check(Scope::Home, &rows, &empty, &side(&[(11, ""), (12, "")], vec![]), "p<11 p<12");
        check(Scope::Stragglers, &rows, &empty, &side(&[(11, ""), (12, "")], vec![]), "");
        check(Scope::Home, &rows, &side(&[(1, ""), (2, "")], vec![]), &empty, "s<1 s<2");
    }

    #[test]
    fn a_reset_folder_is_recognised_by_content() {
        let rows = [row(1, 11, "a", ""), row(2, 12, "b", "\\Seen")];
        let mut primary = side(&[], vec![fresh(101, "b", ""), fresh(102, "new", "")]);
        (primary.reset, primary.tells) = (true, false);
        let standby = side(&[(11, ""), (12, "\\Seen")], vec![]);
        check(Scope::Home, &rows, &primary, &standby, "101=12 p<11 s<102 s12()");
    }

    #[test]
    fn what_the_standby_never_took_stays_where_it_is() {
        let rows = [Common { standby: None, ..row(1, 0, "a", "") }];
        check(Scope::Home, &rows, &side(&[(1, "\\Seen")], vec![]), &side(&[], vec![]), "");
        check(Scope::Home, &rows, &side(&[], vec![]), &side(&[], vec![]), "-1");
    }

    #[test]
    fn altered_copies_are_recognised() {
        let mut copy = fresh(7, "a altered", "");
        copy.loose = Digest::of(b"a");
        check(Scope::Home, &[], &side(&[], vec![fresh(1, "a", "")]), &side(&[], vec![copy]), "1=7");
    }

    #[test]
    fn a_mail_that_was_delivered_to_both_sides_stays_once() {
        let copy = |uid, content: &str| Fresh { delivery: Some(Digest::of(b"queued")), ..fresh(uid, content, "") };
        let (primary, standby) =
            (side(&[], vec![copy(1, "to the primary")]), side(&[], vec![copy(7, "to the standby")]));
        check(Scope::Stragglers, &[], &primary, &standby, "");
        check(Scope::Home, &[], &primary, &standby, "p<7 p-1");
        // Two on one side are two.
        let twice = side(&[], vec![copy(1, "to the primary"), copy(2, "to an alias")]);
        check(Scope::Stragglers, &[], &twice, &standby, "s<2");
    }
}
