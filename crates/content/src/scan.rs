//! Finds the bodies of a message's parts (RFC 2045, 2046).
//!
//! Keeps true: takes time in proportion to the message and a bounded amount of memory, whatever it holds. What it takes for a part
//! need not be one: nothing but the gain depends on it.

use std::io;

use memchr::{memchr, memmem};

use crate::{Octets, window::Window};

/// The longest header that is read, in bytes.
const HEADER_BYTES: usize = 64 << 10;
/// Deeper nesting is left alone.
const DEPTH: usize = 32;
/// Longer boundaries are none (RFC 2046 §5.1.1 allows 70).
const BOUNDARY_BYTES: usize = 256;
/// A line that may be a delimiter, with blanks after it.
const DELIMITER_BYTES: usize = BOUNDARY_BYTES + 64;
/// More parts than these are left alone.
const PARTS: usize = 4096;

/// The body of a part that holds no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) start: u64,
    /// Without the line end that belongs to the delimiter.
    pub(crate) end: u64,
    pub(crate) base64: bool,
}

/// The bodies of parts, in order. `wanted` says which are worth remembering.
pub(crate) fn leaves<O: Octets + ?Sized>(octets: &O, wanted: impl Fn(&Leaf) -> bool) -> io::Result<Vec<Leaf>> {
    let mut window = Window::new(octets);
    let mut leaves = Vec::new();
    let mut open: Vec<Vec<u8>> = Vec::new();
    // Where the next part's header begins, and how many messages we are inside of.
    let mut at = 0;
    let mut nested = 0;
    loop {
        // Without a header that ends, nothing is known of it.
        let header = read_header(&mut window, at)?;
        let body = header.as_ref().map_or(at, |header| header.body);
        let mut leaf = None;
        match header {
            Some(Header { holds: Holds::Message, base64: false, .. }) if nested < DEPTH => {
                nested += 1;
                at = body;
                continue;
            }
            Some(Header { holds: Holds::Parts(boundary), .. }) if open.len() < DEPTH => open.push(boundary),
            Some(Header { base64, .. }) => leaf = Some(base64),
            None => {}
        }
        let found = next_delimiter(&mut window, body, &open)?;
        if let Some(base64) = leaf {
            let end = found.as_ref().map_or(window.size(), |delimiter| delimiter.text_end.max(body));
            let leaf = Leaf { start: body, end, base64 };
            if wanted(&leaf) {
                leaves.push(leaf);
            }
        }
        let Some(mut delimiter) = found else { break };
        // Behind the last part: nobody's, until the next delimiter.
        while delimiter.closes {
            open.truncate(delimiter.level);
            let Some(next) = next_delimiter(&mut window, delimiter.next, &open)? else { return Ok(leaves) };
            delimiter = next;
        }
        open.truncate(delimiter.level + 1);
        at = delimiter.next;
        nested = 0;
        if leaves.len() >= PARTS {
            break;
        }
    }
    Ok(leaves)
}

struct Header {
    /// Where the body begins.
    body: u64,
    holds: Holds,
    base64: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Holds {
    Parts(Vec<u8>),
    Message,
    Anything,
}

fn read_header<O: Octets + ?Sized>(window: &mut Window<O>, at: u64) -> io::Result<Option<Header>> {
    let held = window.from(at, HEADER_BYTES)?;
    let held = &held[..held.len().min(HEADER_BYTES)];
    let Some(length) = header_length(held) else { return Ok(None) };
    let (mut holds, mut base64) = (Holds::Anything, false);
    for field in fields(&held[..length]) {
        let Some(colon) = memchr(b':', field) else { continue };
        let (name, value) = (field[..colon].trim_ascii(), field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-type") {
            holds = what_it_holds(value);
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            base64 = value.get(..6).is_some_and(|value| value.eq_ignore_ascii_case(b"base64"));
        }
    }
    Ok(Some(Header { body: at + length as u64, holds, base64 }))
}

/// Length of a header with its empty line.
fn header_length(held: &[u8]) -> Option<usize> {
    let mut line = 0;
    while let Some(end) = memchr(b'\n', &held[line..]) {
        let text = &held[line..line + end];
        line += end + 1;
        if text.is_empty() || text == b"\r" {
            return Some(line);
        }
    }
    None
}

/// Fields with the lines that continue them.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            end += memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        Some(field)
    })
}

fn what_it_holds(content_type: &[u8]) -> Holds {
    let starts = |with: &[u8]| content_type.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if starts(b"message/rfc822") || starts(b"message/global") {
        return Holds::Message;
    }
    if starts(b"multipart/") {
        return boundary(content_type).map_or(Holds::Anything, Holds::Parts);
    }
    Holds::Anything
}

fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let name = b"boundary";
    let mut rest = content_type;
    loop {
        let semicolon = memchr(b';', rest)?;
        rest = rest[semicolon + 1..].trim_ascii_start();
        let Some(after) = rest.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name)) else { continue };
        let value = rest[after.len()..].trim_ascii_start();
        let Some(value) = value.strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let boundary: Vec<u8> = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let mut escaped = false;
                let text = quoted.iter().copied().take_while(|&byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    !ends
                });
                let mut text: Vec<u8> = text.filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\\')).collect();
                text.truncate(text.trim_ascii_end().len());
                text
            }
            None => value.iter().copied().take_while(|byte| !byte.is_ascii_whitespace() && *byte != b';').collect(),
        };
        return (!boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES).then_some(boundary);
    }
}

/// A line that ends a part.
struct Delimiter {
    /// Where the text before it ends, without the line end that belongs to it.
    text_end: u64,
    /// Where the line after it begins.
    next: u64,
    /// Whose it is, in the list of open ones.
    level: usize,
    closes: bool,
}

/// The first delimiter of an open boundary from the line on that begins at `from`.
fn next_delimiter<O: Octets + ?Sized>(
    window: &mut Window<O>,
    from: u64,
    open: &[Vec<u8>],
) -> io::Result<Option<Delimiter>> {
    if open.is_empty() {
        return Ok(None);
    }
    let finder = memmem::Finder::new(b"\n--");
    let size = window.size();
    // The line at hand, then each that follows a line end.
    let mut line = from;
    loop {
        let held = window.from(line, DELIMITER_BYTES)?;
        if let Some((level, closes, length)) = delimiter_at(held, open) {
            let next = line + length as u64;
            let before = line.saturating_sub(2).max(from);
            let mut end = [0; 2];
            let end = &mut end[..usize::try_from(line - before).unwrap_or(0)];
            window.read(before, end)?;
            let ending = match end {
                [b'\r', b'\n'] => 2,
                [.., b'\n'] => 1,
                _ => 0,
            };
            return Ok(Some(Delimiter { text_end: line - ending, next, level, closes }));
        }
        let mut at = line;
        loop {
            let held = window.from(at, 4)?;
            if let Some(found) = finder.find(held) {
                line = at + found as u64 + 1;
                break;
            }
            // The last bytes may be the beginning of one.
            let passed = held.len().saturating_sub(2) as u64;
            if at + held.len() as u64 >= size || passed == 0 {
                return Ok(None);
            }
            at += passed;
        }
    }
}

/// Which open boundary's delimiter line begins here, whether it is its last, and its length. The innermost counts.
fn delimiter_at(held: &[u8], open: &[Vec<u8>]) -> Option<(usize, bool, usize)> {
    let text = held.strip_prefix(b"--")?;
    open.iter().enumerate().rev().find_map(|(level, boundary)| {
        let rest = text.strip_prefix(boundary.as_slice())?;
        let (rest, closes) = rest.strip_prefix(b"--").map_or((rest, false), |rest| (rest, true));
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        let taken = held.len() - rest.len() + blanks;
        match rest.get(blanks) {
            Some(b'\n') => Some((level, closes, taken + 1)),
            None => Some((level, closes, taken)),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(message: &str) -> Vec<(String, bool)> {
        let leaves = leaves(message.as_bytes(), |_| true).expect("bytes in memory");
        let text = |leaf: &Leaf| message[leaf.start as usize..leaf.end as usize].to_owned();
        leaves.iter().map(|leaf| (text(leaf), leaf.base64)).collect()
    }

    #[test]
    fn bodies_are_found_however_they_are_nested() {
        let message = "Subject: a\r\nContent-Type: multipart/mixed;\r\n\tBoundary=\"a b\"\r\n\r\npreamble\r\n--a b\r\n\r\none\r\n--a b\r\n\
            Content-type: MULTIPART/alternative; x=y; boundary=in\r\n\r\n--in\r\nContent-Transfer-Encoding:\r\n BASE64\r\n\r\nAAAA\r\n\r\n--in--\r\n\
            after\r\n--a b  \r\nContent-Type: message/rfc822\r\n\r\nSubject: b\r\n\r\ntwo\r\n--a b--\r\nend\r\n";
        let expected = [("one", false), ("AAAA\r\n", true), ("two", false)];
        assert_eq!(bodies(message), expected.map(|(text, base64)| (text.to_owned(), base64)));
        let unix = message.replace("\r\n", "\n");
        assert_eq!(bodies(&unix), expected.map(|(text, base64)| (text.replace("\r\n", "\n"), base64)));
    }

    #[test]
    fn a_message_without_parts_is_one_body_and_junk_is_none() {
        assert_eq!(bodies("A: b\n\nbody"), [("body".to_owned(), false)]);
        assert_eq!(bodies("\r\nbody"), [("body".to_owned(), false)]);
        assert_eq!(bodies("no header at all"), []);
        assert_eq!(bodies(""), []);
        let unclosed = "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nto the end\n--y\n";
        assert_eq!(bodies(unclosed), [("to the end\n--y\n".to_owned(), false)]);
    }

    #[test]
    fn boundaries_are_read_as_they_are_written() {
        for (text, expected) in [
            ("multipart/mixed; boundary=abc; a=b", Some("abc")),
            ("multipart/mixed; xboundary=no; BOUNDARY = \"a;b\"", Some("a;b")),
            ("multipart/mixed; boundary=\"\"", None),
            ("multipart/mixed", None),
        ] {
            assert_eq!(boundary(text.as_bytes()), expected.map(|text| text.as_bytes().to_vec()), "{text}");
        }
    }
}
