//! A folder's name, free of any server's spelling.
//!
//! Servers differ in hierarchy separator, namespace prefix and encoding; the two sides of a mailbox meet in this form:
//! the decoded components from the top. `imap-session` translates to and from a server's own name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The components of a folder's name, outermost first, decoded to Unicode. INBOX is always spelled `INBOX`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FolderPath(Vec<String>);

impl FolderPath {
    /// A path of `components`; a first component that spells INBOX in any case becomes `INBOX` (RFC 9051 §5.1).
    #[must_use]
    pub fn new(components: Vec<String>) -> Self {
        let mut components = components;
        if let Some(first) = components.first_mut()
            && first.eq_ignore_ascii_case("INBOX")
        {
            *first = "INBOX".to_owned();
        }
        Self(components)
    }

    /// INBOX.
    #[must_use]
    pub fn inbox() -> Self {
        Self(vec!["INBOX".to_owned()])
    }

    /// The components, outermost first.
    #[must_use]
    pub fn components(&self) -> &[String] {
        &self.0
    }

    /// How deep the folder lies: INBOX is 1.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Is this INBOX itself?
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0.len() == 1 && self.0[0] == "INBOX"
    }

    /// The folder that contains this one, if it has one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        (self.0.len() > 1).then(|| Self(self.0[..self.0.len() - 1].to_vec()))
    }

    /// Does this folder lie somewhere below `other`?
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// This path with the leading `from` replaced by `to`; `None` when it does not start with `from`.
    #[must_use]
    pub fn rebased(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.0.as_slice())?;
        Some(Self(to.0.iter().chain(rest).cloned().collect()))
    }
}

/// For people: components joined with `/`. Not reversible where a component has a slash.
impl fmt::Display for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FolderPath {
        FolderPath::new(text.split('/').map(str::to_owned).collect())
    }

    #[test]
    fn inbox_has_one_spelling_and_only_at_the_top() {
        assert!(path("inBox").is_inbox());
        assert_eq!(path("inbox/x").to_string(), "INBOX/x");
        assert_eq!(path("x/inbox").to_string(), "x/inbox");
    }

    #[test]
    fn rebasing_moves_a_subtree() {
        assert_eq!(path("a/b/c").rebased(&path("a/b"), &path("z")), Some(path("z/c")));
        assert_eq!(path("ab/c").rebased(&path("a"), &path("z")), None);
        assert!(path("a/b").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
    }
}
