//! What a server offers, and how well a mailbox on it can be followed.

use std::{collections::BTreeSet, fmt};

/// The capabilities a server announced after log-in, upper-cased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    names: BTreeSet<String>,
}

/// How a mailbox on this server can be followed, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every folder is watched by one connection; changes and expunges are asked since a position.
    NotifyQresync,
    /// Changes and expunges are asked since a position; waking is by IDLE on one folder, or by polling.
    IdleQresync,
    /// Flag changes are asked since a position; expunges show by comparing lists of UIDs.
    Condstore,
    /// Everything shows by comparing listings.
    None,
}

impl Capabilities {
    pub(crate) fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(|name| name.as_ref().to_ascii_uppercase()).collect() }
    }

    /// Is `name` offered? In any case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            self.names.contains(&name.to_ascii_uppercase())
        } else {
            self.names.contains(name)
        }
    }

    /// Every capability, upper-cased, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        self.names.iter().map(String::as_str)
    }

    /// These capabilities without `names`.
    #[must_use]
    pub fn masked(&self, names: &[String]) -> Self {
        let masked = Self::new(names);
        Self { names: self.names.difference(&masked.names).cloned().collect() }
    }

    /// How well a mailbox on this server can be followed. QRESYNC with neither NOTIFY nor IDLE is followed by polling.
    #[must_use]
    pub fn level(&self) -> Level {
        // RFC 7162 §3.2.3: QRESYNC needs ENABLE, and brings CONDSTORE with it.
        match (self.has("QRESYNC") && self.has("ENABLE"), self.has("NOTIFY"), self.has("CONDSTORE")) {
            (true, true, _) => Level::NotifyQresync,
            (true, false, _) => Level::IdleQresync,
            (false, _, true) => Level::Condstore,
            (false, _, false) => Level::None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotifyQresync => "notify+qresync",
            Self::IdleQresync => "idle+qresync",
            Self::Condstore => "condstore",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &str, level: &str) {
        assert_eq!(Capabilities::new(names.split_ascii_whitespace()).level().to_string(), level);
    }

    #[test]
    fn levels_follow_what_is_offered() {
        check("IMAP4rev1 enable qresync condstore notify idle", "notify+qresync");
        check("IMAP4rev1 ENABLE QRESYNC IDLE", "idle+qresync");
        check("IMAP4rev1 ENABLE QRESYNC", "idle+qresync");
        check("IMAP4rev1 CONDSTORE NOTIFY", "condstore");
        check("IMAP4rev1 NOTIFY", "none");
    }

    #[test]
    fn masking_hides_in_any_case() {
        let all = Capabilities::new(["Move", "IDLE"]);
        assert!(all.has("move") && all.has("MOVE"));
        let masked = all.masked(&["move".to_owned()]);
        assert_eq!(masked.iter().collect::<Vec<_>>(), ["IDLE"]);
    }
}
