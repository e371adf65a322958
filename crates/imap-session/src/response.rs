//! What one response says: data, a remark, a verdict on a command, or "go ahead".

use crate::{
    Code,
    token::{Tokens, number},
};

/// One whole response.
#[derive(Clone, Debug)]
pub(crate) enum Response<'a> {
    Untagged(Untagged<'a>),
    Tagged(Tagged<'a>),
    /// `+`: the server waits for more of the command.
    Continue,
    /// Nothing we know; skipped.
    Other,
}

/// A response that belongs to no command by name.
#[derive(Clone, Debug)]
pub(crate) enum Untagged<'a> {
    /// `* 12 FETCH (…)`, `* VANISHED 1:3`: the number in front, the name, what follows.
    Data {
        number: Option<u32>,
        name: &'a [u8],
        arguments: Tokens<'a>,
    },
    /// `* OK [UIDNEXT 5] Predicted`; also NO and BAD, which are only warnings here.
    Remark(Remark<'a>),
    Bye(Remark<'a>),
}

/// The verdict on the command `tag`.
#[derive(Clone, Debug)]
pub(crate) struct Tagged<'a> {
    pub(crate) tag: &'a [u8],
    pub(crate) status: Status,
    pub(crate) remark: Remark<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    No,
    Bad,
}

/// A response code and a text for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remark<'a> {
    /// Name and arguments of the code.
    pub(crate) code: Option<(&'a [u8], &'a [u8])>,
    text: &'a [u8],
}

impl<'a> Untagged<'a> {
    /// The arguments, if this is data called `wanted`.
    pub(crate) fn data(&self, wanted: &str) -> Option<Tokens<'a>> {
        match self {
            Self::Data { name, arguments, .. } if name.eq_ignore_ascii_case(wanted.as_bytes()) => Some(*arguments),
            _ => None,
        }
    }

    /// The arguments of the response code `wanted`.
    pub(crate) fn code(&self, wanted: &str) -> Option<&'a [u8]> {
        match self {
            Self::Remark(remark) => remark.code_arguments(wanted),
            _ => None,
        }
    }
}

impl<'a> Remark<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let bytes = bytes.trim_ascii_start();
        let Some(inner) = bytes.strip_prefix(b"[") else { return Self { code: None, text: bytes } };
        // A quoted argument may hold a `]`.
        let mut quoted = false;
        let mut end = None;
        let mut at = 0;
        while let Some(&byte) = inner.get(at) {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => at += 1,
                b']' if !quoted => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
            at += 1;
        }
        let Some(end) = end.or_else(|| memchr::memchr(b']', inner)) else { return Self { code: None, text: bytes } };
        let code = &inner[..end];
        let (name, arguments) = match memchr::memchr(b' ', code) {
            Some(space) => (&code[..space], &code[space + 1..]),
            None => (code, &code[code.len()..]),
        };
        Self { code: Some((name, arguments)), text: inner[end + 1..].trim_ascii() }
    }

    pub(crate) fn code_arguments(&self, wanted: &str) -> Option<&'a [u8]> {
        self.code.filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).map(|(_, arguments)| arguments)
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.code.map(|(name, arguments)| Code {
            name: String::from_utf8_lossy(name).to_ascii_uppercase(),
            // Whole: a COPYUID may name thousands.
            arguments: String::from_utf8_lossy(arguments).into_owned(),
        })
    }

    pub(crate) fn text(&self) -> String {
        printable(self.text)
    }
}

/// Text of a server for people: bounded, and without anything that could steer a terminal or a log.
fn printable(bytes: &[u8]) -> String {
    const LONGEST: usize = 400;
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)])
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', bytes) {
        Some(space) => (&bytes[..space], &bytes[space + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    }
}

/// Reads one response, given without its last line end.
pub(crate) fn parse(bytes: &[u8]) -> Response<'_> {
    if let [b'+', rest @ ..] = bytes
        && (rest.is_empty() || rest[0] == b' ')
    {
        return Response::Continue;
    }
    let (first, rest) = word(bytes);
    let (second, after) = word(rest);
    if first != b"*" {
        let status = match () {
            () if second.eq_ignore_ascii_case(b"OK") => Status::Ok,
            () if second.eq_ignore_ascii_case(b"NO") => Status::No,
            () if second.eq_ignore_ascii_case(b"BAD") => Status::Bad,
            () => return Response::Other,
        };
        return Response::Tagged(Tagged { tag: first, status, remark: Remark::parse(after) });
    }
    if second.eq_ignore_ascii_case(b"BYE") {
        return Response::Untagged(Untagged::Bye(Remark::parse(after)));
    }
    if is_status(second) {
        return Response::Untagged(Untagged::Remark(Remark::parse(after)));
    }
    if let Some(count) = number(second).and_then(|count| u32::try_from(count).ok()) {
        let (name, arguments) = word(after);
        let arguments = Tokens::new(arguments);
        return Response::Untagged(Untagged::Data { number: Some(count), name, arguments });
    }
    if second.is_empty() {
        return Response::Other;
    }
    Response::Untagged(Untagged::Data { number: None, name: second, arguments: Tokens::new(after) })
}

/// OK, NO, BAD, BYE, PREAUTH: what is followed by text for people.
pub(crate) fn is_status(word: &[u8]) -> bool {
    [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|status| word.eq_ignore_ascii_case(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_a_code_and_a_text() {
        let Response::Tagged(tagged) = parse(b"u1 no [badcharset (\"a]b\" X)] Sorry \x1b[1m\xff") else { panic!() };
        assert_eq!((tagged.tag, tagged.status), (&b"u1"[..], Status::No));
        let code = tagged.remark.code().expect("a code");
        assert_eq!((code.name.as_str(), code.arguments.as_str()), ("BADCHARSET", "(\"a]b\" X)"));
        assert_eq!(tagged.remark.text(), "Sorry  [1m\u{fffd}");
    }

    #[test]
    fn data_with_and_without_a_number() {
        let Response::Untagged(untagged) = parse(b"* 12 FETCH (UID 3)") else { panic!() };
        assert!(matches!(untagged, Untagged::Data { number: Some(12), name: b"FETCH", .. }));
        let Response::Untagged(untagged) = parse(b"* vanished (EARLIER) 1:3") else { panic!() };
        assert!(untagged.data("VANISHED").is_some());
        let Response::Untagged(untagged) = parse(b"* OK [UIDNEXT 5] Next") else { panic!() };
        assert_eq!(untagged.code("uidnext"), Some(&b"5"[..]));
    }

    #[test]
    fn nonsense_is_something_else() {
        for line in [&b""[..], b"*", b"* ", b"u1", b"u1 MAYBE", b"hello there", b"++"] {
            assert!(matches!(parse(line), Response::Other), "{line:?}");
        }
        for line in [&b"+"[..], b"+ ", b"+ idling"] {
            assert!(matches!(parse(line), Response::Continue), "{line:?}");
        }
    }
}
