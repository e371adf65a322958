//! How a part was wrapped in its message: as it is, or base64 in lines.
//!
//! Keeps true: what is unwrapped wraps to exactly the same octets.

use std::io;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use memchr::memchr;

use crate::Octets;

/// Takes only what it would write itself.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);
/// How many characters are decoded at once, about.
const BLOCK: usize = 64 << 10;
/// More text than this behind the encoded lines: then the body is not that encoding.
const LONGEST_REST: u64 = 4 << 10;

/// How a part stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrapping {
    AsItIs,
    /// In lines of so many characters (0: one line, however long), that end in CR LF or LF; the last has no end.
    Base64 {
        line: u32,
        crlf: bool,
    },
}

impl Wrapping {
    /// The octets that `size` octets take when wrapped; `None` for more than anything has.
    #[must_use]
    pub fn wrapped_size(self, size: u64) -> Option<u64> {
        let Self::Base64 { line, crlf } = self else { return Some(size) };
        let characters = size.checked_add(2)?.checked_div(3)?.checked_mul(4)?;
        let ends = match u64::from(line) {
            0 => 0,
            line => characters.div_ceil(line).saturating_sub(1),
        };
        characters.checked_add(ends.checked_mul(1 + u64::from(crlf))?)
    }

    /// How far apart two parts begin of which the first has `size` octets, where they are pieces of one body: with the end of line that
    /// stands between them. `None` where the first would end within a line.
    pub(crate) fn stride(self, size: u64) -> Option<u64> {
        let wrapped = self.wrapped_size(size)?;
        let Self::Base64 { line, crlf } = self else { return Some(wrapped) };
        match (size % 3, u64::from(line)) {
            (0, 0) => Some(wrapped),
            (0, line) if (size / 3 * 4).is_multiple_of(line) => wrapped.checked_add(1 + u64::from(crlf)),
            _ => None,
        }
    }

    /// Which octets of a part of `size` are needed for `room` wrapped ones from `offset` on: the first, and how many.
    pub(crate) fn needed(self, size: u64, offset: u64, room: usize) -> (u64, usize) {
        let Some((line, stride, _)) = self.lines() else { return (offset, room) };
        let first = offset / stride * line + (offset % stride).min(line);
        let start = first / 4 * 3;
        let wanted = (room as u64 + first % 4).div_ceil(4) * 3;
        (start, usize::try_from(wanted.min(size.saturating_sub(start))).unwrap_or(0))
    }

    /// Makes wrapped octets, from `offset` on, of those that are needed.
    pub(crate) fn render(self, offset: u64, stored: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let Some((line, stride, ending)) = self.lines() else {
            buffer.copy_from_slice(stored);
            return Some(stored.len());
        };
        let mut column = offset % stride;
        let first = offset / stride * line + column.min(line);
        let mut characters = vec![0; stored.len().div_ceil(3) * 4];
        let written = ENGINE.encode_slice(stored, &mut characters).ok()?;
        let mut text = characters.get(usize::try_from(first % 4).ok()?..written).unwrap_or_default();
        let mut filled = 0;
        while filled < buffer.len() {
            if column >= line {
                buffer[filled] = ending[usize::try_from(column - line).ok()?];
                filled += 1;
                column = (column + 1) % stride;
                continue;
            }
            let room = (buffer.len() - filled).min(text.len());
            let length = room.min(usize::try_from(line - column).unwrap_or(usize::MAX));
            if length == 0 {
                return None;
            }
            buffer[filled..filled + length].copy_from_slice(&text[..length]);
            text = &text[length..];
            filled += length;
            column += length as u64;
        }
        Some(filled)
    }

    /// Characters of a line, octets with its end, and the end.
    fn lines(self) -> Option<(u64, u64, &'static [u8])> {
        let Self::Base64 { line, crlf } = self else { return None };
        let ending: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let line = if line == 0 { u64::MAX - 2 } else { u64::from(line) };
        Some((line, line + ending.len() as u64, ending))
    }
}

/// Base64 that would be written in the same way again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwrapped {
    pub(crate) wrapping: Wrapping,
    /// Where its first character is.
    pub(crate) start: u64,
    /// Octets it decodes to.
    pub(crate) size: u64,
}

/// Decodes the body in `start..end` into `sink`; `None`, with `sink` having got something, if it is anything else.
pub(crate) fn unwrap<O: Octets + ?Sized>(
    octets: &O,
    start: u64,
    end: u64,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Option<Unwrapped>> {
    let mut held = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX).min(BLOCK)];
    octets.read_exact_at(start, &mut held)?;
    let skipped = held.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let start = start + skipped as u64;
    let (line, crlf) = match memchr(b'\n', &held[skipped..]) {
        Some(at) => {
            let crlf = at > 0 && held[skipped + at - 1] == b'\r';
            (at - usize::from(crlf), crlf)
        }
        None => (0, false),
    };
    // Without an end of line in sight, one line.
    let (length, ending): (usize, &[u8]) = match line {
        0 => (BLOCK, b""),
        line => (line, if crlf { b"\r\n" } else { b"\n" }),
    };
    let wrapping = Wrapping::Base64 { line: u32::try_from(line).unwrap_or(0), crlf };
    let stride = length + ending.len();
    let block = (BLOCK / stride).max(1) * stride;
    let mut characters = Vec::with_capacity(block + 4);
    let mut decoded = vec![0; (block + 4) / 4 * 3 + 3];
    let mut at = start;
    let mut size = 0;
    let mut last = false;
    while !last {
        held.resize(usize::try_from(end - at).unwrap_or(usize::MAX).min(block), 0);
        octets.read_exact_at(at, &mut held)?;
        at += held.len() as u64;
        last = at >= end;
        for piece in held.chunks(stride) {
            let whole = piece.len() == stride && &piece[length..] == ending;
            let text = if whole {
                &piece[..length]
            } else {
                last = true;
                let text = &piece[..piece.len().min(length)];
                &text[..memchr::memchr2(b'\r', b'\n', text).unwrap_or(text.len())]
            };
            characters.extend_from_slice(text);
            if !whole {
                break;
            }
        }
        let now = if last { characters.len() } else { characters.len() / 4 * 4 };
        let (text, rest) = characters.split_at(now);
        // Padding ends it; what comes behind has not been looked at.
        if !last && text.ends_with(b"=") {
            return Ok(None);
        }
        let Ok(length) = ENGINE.decode_slice(text, &mut decoded) else { return Ok(None) };
        size += length as u64;
        sink(&decoded[..length])?;
        let kept = rest.len();
        characters.copy_within(now.., 0);
        characters.truncate(kept);
    }
    let unwrapped = Unwrapped { wrapping, start, size };
    let fits = wrapping.wrapped_size(size).is_some_and(|wrapped| {
        let text_end = start + wrapped;
        text_end <= end && end - text_end <= LONGEST_REST
    });
    Ok((size > 0 && fits).then_some(unwrapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(data: &[u8], line: usize, ending: &str) -> String {
        let text = ENGINE.encode(data);
        let lines: Vec<&str> =
            text.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).expect("text")).collect();
        lines.join(ending)
    }

    fn unwrapped(text: &str) -> (Option<Unwrapped>, Vec<u8>) {
        let mut out = Vec::new();
        let unwrapped = unwrap(text.as_bytes(), 0, text.len() as u64, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        (unwrapped.expect("bytes in memory"), out)
    }

    #[test]
    fn lines_of_any_length_come_back() {
        let data: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for size in [1, 2, 3, 56, 57, 58, 1000, 49_151, 100_000, 200_000] {
            for line in [1, 3, 4, 60, 72, 75, 76, 77, 998, 60_000, 70_000, usize::MAX / 2] {
                for (ending, crlf) in [("\r\n", true), ("\n", false)] {
                    let text = wrap(&data[..size], line, ending);
                    for rest in ["", "\r\n", "\n\n\nfooter"] {
                        let body = format!("{text}{rest}");
                        let (found, out) = unwrapped(&body);
                        if text.len() > line && line < BLOCK && line > 4 {
                            let expected = Wrapping::Base64 { line: line as u32, crlf };
                            assert_eq!(found.map(|found| found.wrapping), Some(expected), "{size} {line} {crlf}");
                        }
                        let Some(found) = found else { continue };
                        assert_eq!(out, data[..size]);
                        let whole = found.wrapping.wrapped_size(found.size).expect("small") as usize;
                        for step in [1 << 20, 1000, 7] {
                            if step == 7 && size > 1000 {
                                continue;
                            }
                            let mut back = vec![0; whole];
                            let mut at = 0;
                            while at < whole {
                                let end = whole.min(at + step);
                                let (start, length) = found.wrapping.needed(size as u64, at as u64, end - at);
                                let stored = &data[start as usize..start as usize + length];
                                at += found.wrapping.render(at as u64, stored, &mut back[at..end]).expect("fits");
                            }
                            assert!(back == body.as_bytes()[..whole], "{size} {line} {crlf} {step}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_would_be_written_otherwise_is_none() {
        for text in ["AB==", "QQ==QQ==", "QQ", "Q", "", "QUJD!UJD", "QUJD\nQUJDQUJD\nQUJD", "====", "QU JD"] {
            let (found, out) = unwrapped(text);
            if let Some(found) = found {
                // A beginning may be taken, if it comes back.
                let whole = found.wrapping.wrapped_size(found.size).expect("small") as usize;
                let mut back = vec![0; whole];
                found.wrapping.render(0, &out, &mut back).expect("fits");
                assert_eq!(back, text.as_bytes()[..whole], "{text}");
            }
        }
        assert_eq!(unwrapped("AB==").0, None);
        assert_eq!(Wrapping::Base64 { line: 1, crlf: true }.wrapped_size(u64::MAX - 5), None);
    }
}
