//! A set of UIDs as ascending ranges, the way IMAP writes one (RFC 9051 §9, `sequence-set`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Uid;

/// Ascending, disjoint, non-adjacent inclusive ranges of UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UidSet(Vec<(u32, u32)>);

impl UidSet {
    /// The set that holds `low` to `high`, both included; empty when `low > high`.
    #[must_use]
    pub fn range(low: Uid, high: Uid) -> Self {
        if low > high { Self::default() } else { Self(vec![(low.0, high.0)]) }
    }

    /// Adds a range in any order; overlaps and neighbours grow together.
    pub fn insert_range(&mut self, low: Uid, high: Uid) {
        let (low, high) = (low.0.min(high.0), low.0.max(high.0));
        // Servers list UIDs in ascending order, so this nearly always appends.
        let start = self.0.partition_point(|&(_, end)| end.saturating_add(1) < low);
        let end = start + self.0[start..].partition_point(|&(begin, _)| begin <= high.saturating_add(1));
        let merged = self.0[start..end].iter().fold((low, high), |(l, h), &(begin, end)| (l.min(begin), h.max(end)));
        self.0.splice(start..end, [merged]);
    }

    /// Adds one UID.
    pub fn insert(&mut self, uid: Uid) {
        self.insert_range(uid, uid);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many UIDs the set holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(low, high)| u64::from(high - low) + 1).sum()
    }

    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        let at = self.0.partition_point(|&(_, high)| high < uid.0);
        self.0.get(at).is_some_and(|&(low, _)| low <= uid.0)
    }

    /// Does the set hold any UID from `low` to `high`?
    #[must_use]
    pub fn overlaps(&self, low: Uid, high: Uid) -> bool {
        let at = self.0.partition_point(|&(_, end)| end < low.0);
        self.0.get(at).is_some_and(|&(begin, _)| begin <= high.0)
    }

    /// The highest UID in the set.
    #[must_use]
    pub fn last(&self) -> Option<Uid> {
        self.0.last().map(|&(_, high)| Uid(high))
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (Uid, Uid)> + '_ {
        self.0.iter().map(|&(low, high)| (Uid(low), Uid(high)))
    }

    /// Every UID, ascending. Beware of ranges that a server made up.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.0.iter().flat_map(|&(low, high)| (low..=high).map(Uid))
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        let mut set = Self::default();
        for uid in uids {
            set.insert(uid);
        }
        set
    }
}

impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(low, high)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}:{high}")?;
            }
        }
        Ok(())
    }
}

/// Not a set of UIDs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a set of UIDs")]
pub struct NotAUidSet;

impl FromStr for UidSet {
    type Err = NotAUidSet;

    /// Reads `1,5:9` in any order. `*` and 0 are refused: a set in an answer names real UIDs.
    fn from_str(text: &str) -> Result<Self, NotAUidSet> {
        let number = |digits: &str| match digits.parse::<u32>() {
            Ok(uid) if uid > 0 && !digits.starts_with('+') => Ok(Uid(uid)),
            _ => Err(NotAUidSet),
        };
        let mut set = Self::default();
        for part in text.split(',') {
            let (low, high) = part.split_once(':').unwrap_or((part, part));
            set.insert_range(number(low)?, number(high)?);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str, len: u64) {
        let set: UidSet = text.parse().expect("a set");
        assert_eq!((set.to_string().as_str(), set.len()), (expected, len));
        assert_eq!(set.iter().collect::<UidSet>(), set);
    }

    #[test]
    fn ranges_merge_whatever_their_order() {
        check("1", "1", 1);
        check("3,1,2", "1:3", 3);
        check("9:5,1,7:12", "1,5:12", 9);
        check("1,3,5,2:4", "1:5", 5);
        check("4294967295,4294967294", "4294967294:4294967295", 2);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "0", "*", "1:*", "a", "1,,2", "+1", "4294967296"] {
            assert_eq!(text.parse::<UidSet>(), Err(NotAUidSet), "{text}");
        }
    }

    #[test]
    fn membership() {
        let set: UidSet = "2:4,9".parse().expect("a set");
        let members: Vec<u32> = (0..12).filter(|&uid| set.contains(Uid(uid))).collect();
        assert_eq!(members, [2, 3, 4, 9]);
    }
}
