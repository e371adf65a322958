//! Telling the bytes that mail servers are known to alter, and recognising a message they altered.
//!
//! Dovecot's APPEND turns NUL into 0x80, drops a CR of CR CR LF and completes a bare LF (measured on 2.3.19); others
//! refuse such bytes. Cyrus writes X for every octet above 127 in a header, unless it is told not to (`munge8bit: no`;
//! measured on 3.6.1). A message without any of these is stored as it is given.

use understudy_protocol::Digest;

/// Finds the end of a message's header, in pieces: the first line without octets other than CR. Bytes that servers alter
/// do not move it.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    ended: bool,
    in_line: bool,
}

impl Header {
    /// How much of the next piece belongs to the header.
    fn extent(&mut self, piece: &[u8]) -> usize {
        let mut from = 0;
        while !self.ended {
            let end = memchr::memchr(b'\n', &piece[from..]).map(|at| from + at);
            self.in_line |= piece[from..end.unwrap_or(piece.len())].iter().any(|&byte| byte != b'\r');
            let Some(end) = end else { return piece.len() };
            self.ended = !self.in_line;
            self.in_line = false;
            from = end + 1;
        }
        from
    }
}

/// Looks for bytes that a server may alter, in a message that passes by in pieces.
#[derive(Clone, Debug, Default)]
pub struct Oddities {
    last: Option<u8>,
    header: Header,
    found: bool,
}

impl Oddities {
    /// Looks at the next piece.
    pub fn look(&mut self, piece: &[u8]) {
        if self.found || piece.is_empty() {
            return;
        }
        self.found |= !piece[..self.header.extent(piece)].is_ascii();
        // A CR is followed by an LF, only a CR is, and nothing is NUL. Without branches, so that the compiler looks at many
        // bytes at once: on text with line ends this is ten times as fast as searching for them.
        let odd_pair = |before: u8, now: u8| ((before == b'\r') != (now == b'\n')) | (now == 0);
        let odd = piece.iter().zip(&piece[1..]).fold(false, |odd, (&before, &now)| odd | odd_pair(before, now));
        self.found |= odd | odd_pair(self.last.unwrap_or_default(), piece[0]);
        self.last = piece.last().copied();
    }

    /// Did the whole message have any?
    #[must_use]
    pub fn found(&self) -> bool {
        self.found || self.last == Some(b'\r')
    }
}

/// The digest of a message as it is, and of what is left when everything servers alter is taken out.
#[derive(Clone, Debug)]
pub struct BothDigests {
    exact: blake3::Hasher,
    loose: blake3::Hasher,
    header: Header,
    size: u64,
}

impl Default for BothDigests {
    fn default() -> Self {
        Self { exact: blake3::Hasher::new(), loose: blake3::Hasher::new(), header: Header::default(), size: 0 }
    }
}

impl BothDigests {
    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.exact.update(piece);
        self.size += piece.len() as u64;
        let (header, mut rest) = piece.split_at(self.header.extent(piece));
        if !header.is_empty() {
            // One server makes 0x80 of a NUL, another X of every 0x80.
            let kept = header.iter().filter(|&&byte| byte != b'\r' && byte != b'\n');
            let kept: Vec<u8> = kept.map(|&byte| if byte == 0 || byte >= 0x80 { b'X' } else { byte }).collect();
            self.loose.update(&kept);
        }
        while let Some(at) = memchr::memchr3(b'\r', b'\n', 0, rest) {
            self.loose.update(&rest[..at]);
            if rest[at] == 0 {
                self.loose.update(&[0x80]);
            }
            rest = &rest[at + 1..];
        }
        self.loose.update(rest);
    }

    /// The two digests and the size: exact, loose, octets.
    #[must_use]
    pub fn finish(&self) -> (Digest, Digest, u64) {
        (self.exact.finalize().into(), self.loose.finalize().into(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &[u8], odd: bool) {
        for cut in 0..=message.len() {
            let mut oddities = Oddities::default();
            oddities.look(&message[..cut]);
            oddities.look(&message[cut..]);
            assert_eq!(oddities.found(), odd, "{message:?} cut at {cut}");
        }
    }

    #[test]
    fn what_servers_alter_is_told_wherever_it_is_cut() {
        check(b"", false);
        check(b"a: b\r\n\r\nc\r\n", false);
        check(b"no end of line", false);
        check(b"a\nb\r\n", true);
        check(b"a\r\r\nb", true);
        check(b"a\rb", true);
        check(b"a\r", true);
        check(b"a\0b\r\n", true);
        check(b"\n", true);
        check(b"a: caf\xe9\r\n\r\nc\r\n", true);
        check(b"a: b\r\n\r\ncaf\xe9\r\n", false);
        check(b"\r\ncaf\xe9\r\n", false);
        check(b"caf\xe9", true);
    }

    #[test]
    fn an_altered_message_keeps_its_loose_digest() {
        let digest = |bytes: &[u8]| {
            let mut both = BothDigests::default();
            both.update(bytes);
            both.finish()
        };
        let same = |given: &[u8], stored: &[u8]| {
            let (given, stored) = (digest(given), digest(stored));
            assert_ne!(given.0, stored.0);
            assert_eq!(given.1, stored.1);
        };
        same(b"a\0b\r\r\nc\n", b"a\x80b\r\nc\r\n");
        same(b"a: b\n\nc\0\n", b"a: b\r\n\r\nc\x80\r\n");
        same(b"a: caf\xe9 \xc3\xa9\r\n\r\ncaf\xe9\r\n", b"a: cafX XX\r\n\r\ncaf\xe9\r\n");
        let body = |bytes| digest(bytes).1;
        assert_ne!(body(b"a: b\r\n\r\ncaf\xe9\r\n"), body(b"a: b\r\n\r\ncafX\r\n"));
    }

    #[test]
    fn the_loose_digest_does_not_depend_on_the_pieces() {
        let message = b"a: caf\xe9\r\r\nb: \0\r\n\r\r\ncaf\xe9\0\r\n\r\nx";
        let whole = |cuts: [usize; 2]| {
            let mut both = BothDigests::default();
            both.update(&message[..cuts[0]]);
            both.update(&message[cuts[0]..cuts[1]]);
            both.update(&message[cuts[1]..]);
            both.finish().1
        };
        for end in 0..=message.len() {
            for middle in 0..=end {
                assert_eq!(whole([middle, end]), whole([0, 0]));
            }
        }
    }
}
