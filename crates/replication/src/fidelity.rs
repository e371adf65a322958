//! Telling the bytes that mail servers are known to alter, and recognising a message they altered.
//!
//! Dovecot's APPEND turns NUL into 0x80, drops a CR of CR CR LF and completes a bare LF (measured on 2.3.19); others
//! refuse such bytes. A message without them is stored as it is given.

use understudy_protocol::Digest;

/// Looks for bytes that a server may alter, in a message that passes by in pieces.
#[derive(Clone, Debug, Default)]
pub struct Oddities {
    last: Option<u8>,
    found: bool,
}

impl Oddities {
    /// Looks at the next piece.
    pub fn look(&mut self, piece: &[u8]) {
        if self.found || piece.is_empty() {
            return;
        }
        // A CR that ended the piece before must be followed by this piece's LF, and only such a CR may be.
        let cr_before = self.last == Some(b'\r');
        if cr_before != (piece[0] == b'\n') {
            self.found |= cr_before || piece[0] == b'\n';
        }
        self.found |= memchr::memchr3_iter(b'\r', b'\n', 0, piece).any(|at| match piece[at] {
            b'\r' => piece.get(at + 1).is_some_and(|&next| next != b'\n'),
            b'\n' => at > 0 && piece[at - 1] != b'\r',
            _ => true,
        });
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
    size: u64,
}

impl Default for BothDigests {
    fn default() -> Self {
        Self { exact: blake3::Hasher::new(), loose: blake3::Hasher::new(), size: 0 }
    }
}

impl BothDigests {
    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.exact.update(piece);
        self.size += piece.len() as u64;
        let mut rest = piece;
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
    }

    #[test]
    fn an_altered_message_keeps_its_loose_digest() {
        let digest = |bytes: &[u8]| {
            let mut both = BothDigests::default();
            both.update(bytes);
            both.finish()
        };
        let (given, stored) = (digest(b"a\0b\r\r\nc\n"), digest(b"a\x80b\r\nc\r\n"));
        assert_ne!(given.0, stored.0);
        assert_eq!(given.1, stored.1);
    }
}
