//! Folder paths ↔ one server's names: namespace prefix, separator, modified UTF-7, escapes.
//!
//! Keeps true: path → name → path gives the same path, and so does name → path → name for every name of a listing.
//!
//! A component may hold what its name on this server cannot: the separator, a control character, or what the server's
//! software forbids. Such a character is written `=XX`, two upper-case hex digits. So that nothing is mistaken for such an escape, a `=` that would read as the
//! beginning of one is written `=3D`. Every other `=` stays as it is.

use std::collections::HashMap;

use understudy_protocol::FolderPath;

use crate::{FolderName, token::Tokens, utf7};

/// Stands in where a server says it has no hierarchy.
const ASSUMED_SEPARATOR: u8 = b'/';

/// The path of a folder that is called INBOX behind the server's prefix, and is not the INBOX.
const NOT_INBOX: &str = "=49NBOX";

/// What Cyrus answers with "Invalid mailbox name" (measured on 3.6.1).
const CYRUS_FORBIDS: &str = "!\"%/;<>\\`{|}\u{7f}";
const CYRUS_FORBIDS_WITH_CARET: &str = "!\"%;<>\\^`{|}\u{7f}";
/// The control character that only some servers take.
const DOUBTFUL: &str = "\u{7f}";

/// Is this how Cyrus says its name (RFC 2971)?
pub(crate) fn is_cyrus(software: &str) -> bool {
    software.starts_with("Cyrus")
}

/// How one server spells the folders of one mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    prefix: Vec<u8>,
    separator: u8,
    /// Other personal namespaces; their folders keep the prefix in their path.
    personal: Vec<Vec<u8>>,
    /// Namespaces of other people and of everybody.
    foreign: Vec<Vec<u8>>,
    /// Characters that this server's software takes in no name.
    forbidden: String,
    /// Listed names that their path would not give back.
    odd: HashMap<FolderPath, FolderName>,
}

impl Default for Naming {
    fn default() -> Self {
        Self::new(Vec::new(), Some(ASSUMED_SEPARATOR))
    }
}

impl Naming {
    pub(crate) fn new(prefix: Vec<u8>, separator: Option<u8>) -> Self {
        let separator = separator.unwrap_or(ASSUMED_SEPARATOR);
        Self {
            prefix,
            separator,
            personal: Vec::new(),
            foreign: Vec::new(),
            forbidden: DOUBTFUL.to_owned(),
            odd: HashMap::new(),
        }
    }

    /// Learns which software it is, in the words of its ID (RFC 2971).
    pub(crate) fn learn_software(&mut self, name: &str) {
        if is_cyrus(name) {
            // Inside, one of `.` and `^` stands for the separator, so that the other is free in names.
            let forbidden = if self.separator == b'.' { CYRUS_FORBIDS } else { CYRUS_FORBIDS_WITH_CARET };
            self.forbidden = forbidden.to_owned();
        } else if name.starts_with("Dovecot") {
            // It refuses only those below the blank (measured on 2.3.19).
            self.forbidden.clear();
        }
    }

    /// Is it worth asking whether names may hold a dot? Dovecot's Maildir++ takes none, whatever the separator.
    pub(crate) fn dots_are_doubtful(&self, software: &str) -> bool {
        software.starts_with("Dovecot") && self.separator != b'.'
    }

    /// Names on this server hold no dot.
    pub(crate) fn forbid_dots(&mut self) {
        self.forbidden.push('.');
    }

    /// Reads the arguments of a NAMESPACE response (RFC 2342 §5). `None` when there is no personal namespace.
    pub(crate) fn read_namespace(mut arguments: Tokens<'_>) -> Option<Self> {
        let mut groups: Vec<Vec<(Vec<u8>, Option<u8>)>> = Vec::new();
        for _ in 0..3 {
            let mut group = Vec::new();
            if arguments.open() {
                while arguments.open() {
                    let prefix = arguments.string()?.into_owned();
                    let separator = arguments.nil_or_string()?.and_then(|text| text.first().copied());
                    group.push((prefix, separator));
                    // Extensions until the end of this namespace.
                    loop {
                        match arguments.next()? {
                            crate::token::Token::Close => break,
                            crate::token::Token::Open => {
                                while !matches!(arguments.next()?, crate::token::Token::Close) {}
                            }
                            _ => {}
                        }
                    }
                }
                arguments.next()?;
            } else {
                arguments.next()?;
            }
            groups.push(group);
        }
        let mut groups = groups.into_iter();
        let mut personal = groups.next()?;
        let default = personal.iter().position(|(prefix, _)| prefix.is_empty()).unwrap_or(0);
        if personal.is_empty() {
            return None;
        }
        let (prefix, separator) = personal.swap_remove(default);
        let mut naming = Self::new(prefix, separator);
        naming.personal = personal.into_iter().map(|(prefix, _)| prefix).collect();
        naming.foreign = groups.flatten().map(|(prefix, _)| prefix).filter(|prefix| !prefix.is_empty()).collect();
        Some(naming)
    }

    /// The path of a listed name; `None` when it is not in a personal namespace.
    pub(crate) fn path(&self, name: &[u8]) -> Option<FolderPath> {
        if name.eq_ignore_ascii_case(b"INBOX") {
            return Some(FolderPath::inbox());
        }
        if self.foreign.iter().any(|prefix| self.is_in(name, prefix)) {
            return None;
        }
        let relative = match self.strip_prefix(name) {
            Some(relative) => relative,
            None if self.personal.iter().any(|prefix| self.is_in(name, prefix)) => name,
            None => return None,
        };
        let relative = relative.strip_suffix(&[self.separator]).unwrap_or(relative);
        if relative.is_empty() {
            return None;
        }
        let components = relative.split(|&byte| byte == self.separator).map(|component| self.read(component));
        let path = FolderPath::new(components.collect());
        // Behind a prefix there may be another folder, or a level, of that name: `INBOX.INBOX`.
        Some(if path.is_inbox() { FolderPath::new(vec![NOT_INBOX.to_owned()]) } else { path })
    }

    /// This server's name for `path`.
    pub(crate) fn name(&self, path: &FolderPath) -> FolderName {
        self.odd.get(path).cloned().unwrap_or_else(|| self.regular_name(path))
    }

    /// Remembers a listed name whose path alone would not give it back.
    pub(crate) fn learn(&mut self, path: &FolderPath, name: &FolderName) {
        if self.regular_name(path) == *name {
            self.odd.remove(path);
        } else {
            self.odd.insert(path.clone(), name.clone());
        }
    }

    fn regular_name(&self, path: &FolderPath) -> FolderName {
        if path.is_inbox() {
            return FolderName::from("INBOX");
        }
        let mut name = self.prefix.clone();
        for (index, component) in path.components().iter().enumerate() {
            if index > 0 {
                name.push(self.separator);
            }
            name.extend_from_slice(utf7::encode(&self.escape(component)).as_bytes());
        }
        FolderName::new(name)
    }

    fn strip_prefix<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let (start, rest) = name.split_at_checked(self.prefix.len())?;
        // `INBOX.` is INBOX in any case and a separator.
        let same = if self.prefix.get(..5).is_some_and(|p| p.eq_ignore_ascii_case(b"INBOX")) {
            start.eq_ignore_ascii_case(&self.prefix)
        } else {
            start == self.prefix
        };
        same.then_some(rest)
    }

    fn is_in(&self, name: &[u8], prefix: &[u8]) -> bool {
        name.starts_with(prefix) || prefix.strip_suffix(&[self.separator]) == Some(name)
    }

    fn escape(&self, component: &str) -> String {
        let mut out = String::with_capacity(component.len());
        for (at, c) in component.char_indices() {
            if self.is_impossible(c) {
                out.push_str(&format!("={:02X}", u32::from(c)));
            } else if c == '=' && self.is_escape(&component.as_bytes()[at..]) {
                out.push_str("=3D");
            } else {
                out.push(c);
            }
        }
        out
    }

    fn unescape(&self, component: &str) -> String {
        let mut out = String::with_capacity(component.len());
        let mut rest = component;
        while let Some(equals) = rest.find('=') {
            out.push_str(&rest[..equals]);
            rest = &rest[equals..];
            if self.is_escape(rest.as_bytes())
                && let Some(byte) = hex_digits(&rest.as_bytes()[1..])
            {
                out.push(char::from(byte));
                rest = &rest[3..];
            } else {
                out.push('=');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }

    fn is_impossible(&self, c: char) -> bool {
        c < ' ' || c == char::from(self.separator) || self.forbidden.contains(c)
    }

    /// Does `text` begin with an escape of something impossible, or of a `=` that would read as the beginning of one?
    /// That is `=`, any number of `3D`, and the digits of something impossible.
    fn is_escape(&self, text: &[u8]) -> bool {
        let Some(mut digits) = text.strip_prefix(b"=") else { return false };
        while let Some(byte) = hex_digits(digits) {
            if self.is_impossible(char::from(byte)) {
                return true;
            }
            if byte != b'=' {
                return false;
            }
            digits = &digits[2..];
        }
        false
    }

    /// The text of one component. What is not modified UTF-7 is read as UTF-8, and what is not even that as `=XX`, so
    /// that two names never become one path without [`Naming::learn`] noticing.
    fn read(&self, component: &[u8]) -> String {
        if let Some(text) = utf7::decode(component) {
            return self.unescape(&text);
        }
        let mut out = String::new();
        for chunk in component.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '&' {
                    out.push_str("=26");
                } else {
                    out.push(c);
                }
            }
            for byte in chunk.invalid() {
                out.push_str(&format!("={byte:02X}"));
            }
        }
        out
    }
}

/// The octet that two upper-case hex digits in front stand for.
fn hex_digits(text: &[u8]) -> Option<u8> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let [high, low, ..] = text else { return None };
    Some(value(*high)? << 4 | value(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(components: &[&str]) -> FolderPath {
        FolderPath::new(components.iter().map(|&c| c.to_owned()).collect())
    }

    #[track_caller]
    fn check(naming: &Naming, components: &[&str], expected: &str) {
        let path = path(components);
        let name = naming.name(&path);
        assert_eq!(String::from_utf8_lossy(name.as_bytes()), expected);
        assert_eq!(naming.path(name.as_bytes()), Some(path));
    }

    #[test]
    fn impossible_characters_are_escaped_and_come_back() {
        let slash = Naming::new(Vec::new(), Some(b'/'));
        let dot = Naming::new(b"INBOX.".to_vec(), Some(b'.'));
        check(&slash, &["inbox"], "INBOX");
        check(&dot, &["INBOX"], "INBOX");
        check(&dot, &["INBOX", "x"], "INBOX.INBOX.x");
        check(&slash, &["a", "b.c"], "a/b.c");
        check(&dot, &["a", "b.c"], "INBOX.a.b=2Ec");
        check(&slash, &["a/b"], "a=2Fb");
        check(&slash, &["1=2", "a=2Eb", "=", "=3D"], "1=2/a=2Eb/=/=3D");
        check(&slash, &["a=2Fb"], "a=3D2Fb");
        check(&slash, &["a=3D2Fb"], "a=3D3D2Fb");
        check(&slash, &["=/=2F="], "==2F=3D2F=");
        check(&slash, &["a\r\nb\u{7f}ü&"], "a=0D=0Ab=7F&APw-&-");
    }

    #[test]
    fn what_the_software_forbids_is_escaped_too() {
        let mut slash = Naming::new(Vec::new(), Some(b'/'));
        slash.learn_software("Cyrus IMAPD");
        check(&slash, &["R&D \"q\" \\ *%", "a.b^c"], "R&-D =22q=22 =5C *=25/a.b=5Ec");
        check(&slash, &["a=22b"], "a=3D22b");
        let mut dot = Naming::new(b"INBOX.".to_vec(), Some(b'.'));
        dot.learn_software("Cyrus IMAPD");
        check(&dot, &["a.b^c/d", "<é>"], "INBOX.a=2Eb^c=2Fd.=3C&AOk-=3E");
        let mut other = Naming::new(Vec::new(), Some(b'/'));
        other.learn_software("Dovecot");
        check(&other, &["a^b\"%"], "a^b\"%");
        check(&other, &["a\tb", "x\u{7f}", "=7F"], "a=09b/x&AH8-/=7F");
    }

    #[test]
    fn any_text_comes_back_on_any_server() {
        let pieces = ["=", "3D", "2F", "2E", "0A", "/", ".", "\n", "x", "&", "é", "\""];
        for separator in [b'/', b'.', b'\\', b'^'] {
            let naming = Naming::new(Vec::new(), Some(separator));
            for n in 0..pieces.len().pow(4) {
                let text: String = (0..4).map(|k| pieces[n / pieces.len().pow(k) % pieces.len()]).collect();
                let path = path(&["t", &text]);
                let name = naming.name(&path);
                assert_eq!(naming.path(name.as_bytes()), Some(path), "{text:?} as {name:?}");
                // And a name of the server's own, made of the same pieces, keeps its spelling.
                if let Some(own) = naming.path(utf7::encode(&format!("t{text}")).as_bytes()) {
                    let mut learnt = naming.clone();
                    let name = FolderName::new(utf7::encode(&format!("t{text}")));
                    learnt.learn(&own, &name);
                    assert!(text.contains('\n') || text.ends_with(char::from(separator)) || learnt.odd.is_empty());
                    assert_eq!(learnt.name(&own), name);
                }
            }
        }
    }

    #[test]
    fn a_folder_called_inbox_behind_the_prefix_is_not_inbox() {
        let mut dot = Naming::new(b"INBOX.".to_vec(), Some(b'.'));
        let name = FolderName::from("INBOX.INBOX");
        let path = dot.path(name.as_bytes()).expect("personal");
        assert!(!path.is_inbox());
        dot.learn(&path, &name);
        assert_eq!(dot.name(&path), name);
        assert_eq!(dot.path(b"INBOX.INBOX.x"), Some(self::path(&["INBOX", "x"])));
    }

    #[test]
    fn names_of_no_encoding_keep_their_spelling_once_listed() {
        let mut naming = Naming::default();
        for raw in [&b"a&b"[..], b"caf\xe9", "é".as_bytes(), b"&AGE-"] {
            let name = FolderName::new(raw);
            let path = naming.path(raw).expect("personal");
            naming.learn(&path, &name);
            assert_eq!(naming.name(&path), name);
        }
    }

    #[test]
    fn only_personal_folders_have_a_path() {
        let naming = Naming::read_namespace(Tokens::new(
            br#"(("INBOX." "." "X-EXT" ("a" "b"))("old." ".")) (("~" "/")) (("shared." "."))"#,
        ))
        .expect("namespaces");
        assert_eq!(naming.path(b"inbox.Sent"), Some(path(&["Sent"])));
        assert_eq!(naming.path(b"old.x"), Some(path(&["old", "x"])));
        for foreign in [&b"shared.x"[..], b"shared", b"~bob/x", b"Elsewhere", b"INBOX."] {
            assert_eq!(naming.path(foreign), None, "{foreign:?}");
        }
        assert!(Naming::read_namespace(Tokens::new(b"NIL NIL NIL")).is_none());
        let flat = Naming::read_namespace(Tokens::new(br#"(("" NIL)) NIL NIL"#)).expect("flat");
        assert_eq!(flat.path(b"a"), Some(path(&["a"])));
    }
}
