//! One command as octets.
//!
//! Keeps true: nothing a server or a user named can end the line or start another command.

use understudy_protocol::{Uid, UidSet};

use crate::FolderName;

/// The longest set of UIDs written into one command. RFC 7162 §4 asks servers to take 8192 octets a line.
const LONGEST_SET: usize = 7 << 10;

/// A command without its tag and line end.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    bytes: Vec<u8>,
    /// Where the octets of literals begin: the server must ask for them.
    literals: Vec<usize>,
}

impl Line {
    pub(crate) fn new(text: impl Into<Vec<u8>>) -> Self {
        Self { bytes: text.into(), literals: Vec::new() }
    }

    /// Adds a space and a folder's name: quoted, or as a literal when it cannot be (RFC 9051 §9, `quoted`).
    #[must_use]
    pub(crate) fn name(mut self, name: &FolderName) -> Self {
        let name = name.as_bytes();
        if name.iter().all(|&byte| matches!(byte, 0x20..=0x7e)) {
            self.bytes.extend_from_slice(b" \"");
            for &byte in name {
                if matches!(byte, b'"' | b'\\') {
                    self.bytes.push(b'\\');
                }
                self.bytes.push(byte);
            }
            self.bytes.push(b'"');
        } else {
            self.bytes.extend_from_slice(format!(" {{{}}}\r\n", name.len()).as_bytes());
            self.literals.push(self.bytes.len());
            self.bytes.extend_from_slice(name);
        }
        self
    }

    /// Adds text as it is.
    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn literals(&self) -> &[usize] {
        &self.literals
    }
}

/// `uids` as sets short enough for one line each; none for the empty set.
pub(crate) fn short_sets(uids: &UidSet) -> Vec<String> {
    let mut sets: Vec<String> = Vec::new();
    for (low, high) in uids.ranges() {
        if sets.last().is_none_or(|set| set.len() > LONGEST_SET) {
            sets.push(String::new());
        }
        let Some(set) = sets.last_mut() else { continue };
        if !set.is_empty() {
            set.push(',');
        }
        set.push_str(&UidSet::range(low, high).to_string());
    }
    sets
}

/// Reads a set of UIDs in the order the server wrote it, as ranges that may descend.
pub(crate) fn read_ranges(text: &[u8], mut on: impl FnMut(Uid, Uid)) -> Option<()> {
    for part in text.split(|&byte| byte == b',') {
        let (low, high) = match memchr::memchr(b':', part) {
            Some(colon) => (&part[..colon], &part[colon + 1..]),
            None => (part, part),
        };
        on(read_uid(low)?, read_uid(high)?);
    }
    Some(())
}

/// Expands a set in the order written; `None` when it holds more than `most`.
pub(crate) fn expand(text: &[u8], most: usize) -> Option<Vec<Uid>> {
    let mut uids = Vec::new();
    let mut too_many = false;
    read_ranges(text, |low, high| {
        let count = low.0.abs_diff(high.0) as usize + 1;
        if too_many || uids.len() + count > most {
            too_many = true;
        } else if low <= high {
            uids.extend((low.0..=high.0).map(Uid));
        } else {
            uids.extend((high.0..=low.0).rev().map(Uid));
        }
    })?;
    (!too_many).then_some(uids)
}

fn read_uid(digits: &[u8]) -> Option<Uid> {
    u32::try_from(crate::token::number(digits)?).ok().filter(|&uid| uid > 0).map(Uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &[u8], expected: &str, literals: usize) {
        let line = Line::new("X").name(&FolderName::new(name)).text(" y");
        assert_eq!(line.bytes().escape_ascii().to_string(), expected);
        assert_eq!(line.literals().len(), literals);
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        check(b"a b", r#"X \"a b\" y"#, 0);
        check(br#"a"b\"#, r#"X \"a\\\"b\\\\\" y"#, 0);
        check(b"a\r\nA1 DELETE INBOX", r"X {18}\r\na\r\nA1 DELETE INBOX y", 1);
        check(b"\xc3\xa9", r"X {2}\r\n\xc3\xa9 y", 1);
        check(b"", r#"X \"\" y"#, 0);
    }

    #[test]
    fn long_sets_are_cut_between_ranges() {
        let uids: UidSet = (0..20_000).map(|n| Uid(n * 2 + 1)).collect();
        let sets = short_sets(&uids);
        assert!(sets.len() > 10 && sets.iter().all(|set| set.len() < 8000));
        let back: UidSet = sets.join(",").parse().expect("a set");
        assert_eq!(back, uids);
        assert!(short_sets(&UidSet::default()).is_empty());
    }

    #[test]
    fn sets_expand_in_the_order_written() {
        let numbers = |text: &str, most| expand(text.as_bytes(), most).map(|uids| uids.iter().map(|u| u.0).collect());
        assert_eq!(numbers("5:7,2,9:8", 6), Some(vec![5, 6, 7, 2, 9, 8]));
        assert_eq!(numbers("1:4294967295", 6), None::<Vec<u32>>);
        assert_eq!(numbers("1,x", 6), None);
        assert_eq!(numbers("0", 6), None);
        assert_eq!(numbers("1:*", 6), None);
    }
}
