//! Octets as they arrive → whole responses, or the start of a body to stream.
//!
//! Keeps true: every octet is looked at once, however the network cuts; memory follows what has arrived, never what was
//! announced. Not here: what a response means (`response`).

use bytes::{Buf, BytesMut};

use crate::{Error, Result, response::is_status, token::announced_literal};

/// The longest response taken, without the body it may hold: 64 MiB. A million UIDs need 8.
const LONGEST_RESPONSE: usize = 64 << 20;
/// The longest literal that is not a body: names and short strings. 1 MiB.
const LONGEST_LITERAL: u64 = 1 << 20;
/// Reading starts with this much room, so that an idle session stays small. 4 KiB.
const SMALL_READ: usize = 4 << 10;
/// And grows to this while data keeps coming. 64 KiB.
const LARGE_READ: usize = 64 << 10;

/// The octets received and not yet consumed.
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: BytesMut,
    /// Where the line being looked at begins; after a literal, where the response goes on.
    line: usize,
    /// Up to here there is no line end. May lie beyond the buffer, inside a literal that has not arrived.
    scanned: usize,
    room: usize,
}

/// What lies at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// More must arrive first.
    Partial,
    /// A whole response of `end` octets, followed by a line end up to `next`.
    Whole { end: usize, next: usize },
    /// A FETCH response up to and including the announcement of its body of `size` octets.
    Body { prefix: usize, size: u64 },
}

/// How to look at what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// A body is to be streamed.
    Streamed,
    /// A body would be out of place.
    Unexpected,
    /// This is the rest of a response whose body has been streamed.
    Passed,
}

impl Framer {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), line: 0, scanned: 0, room: SMALL_READ }
    }

    /// What has arrived and was not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The buffer with room for the next read.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(self.room);
        &mut self.buffer
    }

    /// Learns from a read of `count` octets how much room the next one should have.
    pub(crate) fn arrived(&mut self, count: usize) {
        if count >= self.room {
            self.room = (self.room * 2).min(LARGE_READ);
        }
    }

    /// Gives back memory when nothing is waiting.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > SMALL_READ {
            self.buffer = BytesMut::new();
            self.room = SMALL_READ;
        }
    }

    /// Drops `count` octets from the front; what follows is looked at as a new line.
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.advance(count);
        self.line = 0;
        self.scanned = 0;
    }

    /// Looks at what has arrived. Asking again after more arrived costs only the new octets.
    pub(crate) fn frame(&mut self, bodies: Bodies) -> Result<Frame> {
        loop {
            let Some(unseen) = self.buffer.get(self.scanned..) else { return self.partial() };
            let Some(found) = memchr::memchr(b'\n', unseen) else {
                self.scanned = self.buffer.len();
                return self.partial();
            };
            let next = self.scanned + found + 1;
            let line = &self.buffer[self.line..next - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let end = self.line + line.len();
            let literal =
                announced_literal(line).filter(|_| self.line > 0 || bodies == Bodies::Passed || holds_literals(line));
            let Some((brace, size)) = literal else { return Ok(Frame::Whole { end, next }) };
            if bodies == Bodies::Streamed && announces_body(&line[..brace]) {
                return Ok(Frame::Body { prefix: next, size });
            }
            if size > LONGEST_LITERAL {
                return Err(Error::Protocol("it announced a literal that is too long"));
            }
            self.line = next + usize::try_from(size).unwrap_or(usize::MAX - next);
            self.scanned = self.line;
        }
    }

    fn partial(&self) -> Result<Frame> {
        if self.buffer.len() > LONGEST_RESPONSE {
            return Err(Error::Protocol("it sent a response that is too long"));
        }
        Ok(Frame::Partial)
    }
}

/// Only data holds literals. A remark may end in `{5}` because a person wrote it so.
fn holds_literals(line: &[u8]) -> bool {
    line.strip_prefix(b"* ").is_some_and(|rest| {
        let word = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
        !is_status(word)
    })
}

fn announces_body(before_brace: &[u8]) -> bool {
    let before = before_brace.strip_suffix(b"~").unwrap_or(before_brace);
    let ends_with = |suffix: &[u8]| {
        before.len() > suffix.len() && before[before.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    ends_with(b"BODY[] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step` and shows what came out.
    fn frames(bytes: &[u8], first: usize, bodies: Bodies) -> Vec<String> {
        let mut framer = Framer::new();
        let mut shown = Vec::new();
        for piece in [&bytes[..first], &bytes[first..]] {
            framer.space().extend_from_slice(piece);
            loop {
                match framer.frame(bodies).expect("no error") {
                    Frame::Partial => break,
                    Frame::Whole { end, next } => {
                        shown.push(framer.bytes()[..end].escape_ascii().to_string());
                        framer.consume(next);
                    }
                    Frame::Body { prefix, size } => {
                        shown.push(format!("body {size}"));
                        framer.consume(prefix);
                    }
                }
            }
        }
        shown
    }

    #[test]
    fn it_does_not_matter_where_the_network_cuts() {
        let bytes = b"* OK hi {3}\r\n* LIST () \"/\" {5}\r\na\r\nb{\r\nu1 OK done\n* X {0}\r\n {2}\r\n\n\n z\r\n";
        let expected =
            ["* OK hi {3}", "* LIST () \"/\" {5}\\r\\na\\r\\nb{", "u1 OK done", "* X {0}\\r\\n {2}\\r\\n\\n\\n z"]
                .map(|line| line.replace('"', "\\\""));
        for first in 0..bytes.len() {
            assert_eq!(frames(bytes, first, Bodies::Unexpected), expected, "cut at {first}");
        }
    }

    #[test]
    fn a_body_is_announced_and_not_waited_for() {
        let bytes = b"* 1 FETCH (UID 2 BODY[] {400000000}\r\n";
        for first in 0..bytes.len() {
            assert_eq!(frames(bytes, first, Bodies::Streamed), ["body 400000000"]);
        }
        let mut framer = Framer::new();
        framer.space().extend_from_slice(bytes);
        assert!(framer.frame(Bodies::Unexpected).is_err());
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let mut framer = Framer::new();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..80).any(|_| {
            framer.space().extend_from_slice(&piece);
            framer.frame(Bodies::Unexpected).is_err()
        });
        assert!(refused);
    }
}
