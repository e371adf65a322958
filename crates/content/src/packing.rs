//! Bytes packed for a thin line: one zstd stream, interrupted by what is compressed already.
//!
//! A packed stream is a row of sections: a byte of kind, the number of plain bytes it yields (four bytes, big-endian), and for a
//! compressed one the number of bytes that follow. All compressed sections are one zstd frame with one window. Before them may stand the name of
//! what both sides have seen before ([`Seen`]), which the window then begins with.
//! Keeps true: a section yields exactly what it stated, and no more than [`SECTION`]; the window is bounded on both sides.

use understudy_protocol::Digest;
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::{Seen, seen::keep};

/// The most plain bytes in one section.
const SECTION: usize = 256 << 10;
/// Plain bytes gathered before they are compressed.
const GATHERED: usize = 128 << 10;
/// Logarithm of the window: what repeats within 8 MiB is found again.
const WINDOW_LOG: u32 = 23;
const LEVEL: i32 = 3;

const AS_IT_IS: u8 = 0x80;
const COMPRESSED: u8 = 0x81;
const AFTER: u8 = 0x82;
/// Bytes of the name of what was seen before, with its kind.
const AFTER_BYTES: usize = 33;

/// Foreign bytes that are no packed stream, or one that yields more than it stated.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    #[error("a packed section is of an unknown kind")]
    Unknown,
    #[error("a packed section states more than {SECTION} bytes")]
    TooLong,
    #[error("a packed section does not yield what it stated")]
    Misstated,
    #[error("a packed stream builds on bytes that are not known here any more")]
    Unseen,
    #[error("a packed stream ends within a section")]
    Truncated,
    #[error("a packed section cannot be decompressed")]
    Zstd(#[source] std::io::Error),
}

/// Packs bytes.
pub struct Packer {
    encoder: Encoder<'static>,
    gathered: Vec<u8>,
    out: Vec<u8>,
    before: Seen,
    since: Vec<u8>,
}

impl Packer {
    /// After what the other side has seen, too.
    pub fn new(before: &Seen) -> Result<Self, PackingError> {
        let mut encoder = Encoder::with_dictionary(LEVEL, before.bytes()).map_err(PackingError::Zstd)?;
        for parameter in [
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            encoder.set_parameter(parameter).map_err(PackingError::Zstd)?;
        }
        let mut out = Vec::new();
        if before.size() > 0 {
            out.push(AFTER);
            out.extend_from_slice(&before.name().0);
        }
        Ok(Self { encoder, gathered: Vec::new(), out, before: before.clone(), since: Vec::new() })
    }

    /// Appends bytes that are worth compressing.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), PackingError> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(SECTION - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() >= GATHERED {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Appends bytes as they are.
    pub fn write_as_is(&mut self, bytes: &[u8]) -> Result<(), PackingError> {
        self.flush()?;
        for section in bytes.chunks(SECTION) {
            self.out.push(AS_IT_IS);
            self.out.extend_from_slice(&length(section.len()));
            self.out.extend_from_slice(section);
        }
        Ok(())
    }

    /// Bytes that may be taken now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.out.len()
    }

    /// What is ready.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The rest, and what will have been seen once it has arrived.
    pub fn finish(mut self) -> Result<(Vec<u8>, Seen), PackingError> {
        self.flush()?;
        Ok((self.out, self.before.and(&self.since)))
    }

    fn flush(&mut self) -> Result<(), PackingError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.out.push(COMPRESSED);
        self.out.extend_from_slice(&length(self.gathered.len()));
        let header = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let start = self.out.len();
        let mut input = InBuffer::around(&self.gathered);
        loop {
            // Room for whatever zstd may hold back, too.
            self.out.reserve(zstd::zstd_safe::compress_bound(self.gathered.len()) + 64);
            let written = self.out.len();
            let mut output = OutBuffer::around_pos(&mut self.out, written);
            let left = if input.pos() < input.src.len() {
                self.encoder.run(&mut input, &mut output).map_err(PackingError::Zstd)?;
                1
            } else {
                self.encoder.flush(&mut output).map_err(PackingError::Zstd)?
            };
            if left == 0 {
                break;
            }
        }
        let coded = length(self.out.len() - start);
        self.out[header..start].copy_from_slice(&coded);
        keep(&mut self.since, &self.gathered);
        self.gathered.clear();
        Ok(())
    }
}

fn length(length: usize) -> [u8; 4] {
    // Never above `SECTION` and what compression adds to it.
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Takes packed bytes apart as they arrive.
pub struct Unpacker<F> {
    /// What was seen before, by its name.
    find: F,
    decoder: Option<Decoder<'static>>,
    before: Seen,
    since: Vec<u8>,
    held: Vec<u8>,
    /// Plain bytes still to come of a section that is passed on as it is.
    left: usize,
}

/// Do these bytes begin a packed stream? The length that a row of frames begins with is never that large.
#[must_use]
pub fn is_packed(start: &[u8]) -> bool {
    matches!(start.first(), Some(&AS_IT_IS | &COMPRESSED | &AFTER))
}

impl<F: Fn(&Digest) -> Option<Seen>> Unpacker<F> {
    /// `find` gives what was seen before by its name.
    pub fn new(find: F) -> Self {
        let (before, since) = (Seen::default(), Vec::new());
        Self { find, decoder: None, before, since, held: Vec::new(), left: 0 }
    }

    /// Takes what has arrived; `sink` gets what it yields.
    pub fn take<E: From<PackingError>>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.left > 0 {
                if bytes.is_empty() {
                    return Ok(());
                }
                let (now, rest) = bytes.split_at(bytes.len().min(self.left));
                self.left -= now.len();
                bytes = rest;
                sink(now.to_vec())?;
                continue;
            }
            // Gathered up to what this section needs, and no further.
            let needed = match (self.held.first(), self.held.len()) {
                (None, _) => 5,
                (Some(&AS_IT_IS), _) => 5,
                (Some(&COMPRESSED), 0..9) => 9,
                (Some(&COMPRESSED), _) => 9 + number(&self.held[5..9]),
                (Some(&AFTER), _) if self.decoder.is_none() => AFTER_BYTES,
                (Some(_), _) => return Err(PackingError::Unknown.into()),
            };
            if self.held.len() < needed {
                if bytes.is_empty() {
                    return Ok(());
                }
                let (now, rest) = bytes.split_at(bytes.len().min(needed - self.held.len()));
                self.held.extend_from_slice(now);
                bytes = rest;
                if self.held[0] == COMPRESSED
                    && self.held.len() >= 9
                    && number(&self.held[5..9]) > zstd::zstd_safe::compress_bound(SECTION) + 64
                {
                    return Err(PackingError::TooLong.into());
                }
                continue;
            }
            if self.held[0] == AFTER {
                let name = Digest::try_from(&self.held[1..]).map_err(|_| PackingError::Unknown)?;
                self.before = (self.find)(&name).ok_or(PackingError::Unseen)?;
                self.start()?;
                self.held.clear();
                continue;
            }
            let stated = number(&self.held[1..5]);
            if stated > SECTION {
                return Err(PackingError::TooLong.into());
            }
            if self.held[0] == AS_IT_IS {
                self.left = stated;
            } else {
                let plain = self.decompress(stated)?;
                sink(plain)?;
            }
            self.held.clear();
        }
    }

    /// All has arrived; answers what has been seen now.
    pub fn finish(self) -> Result<Seen, PackingError> {
        if self.left > 0 || !self.held.is_empty() {
            return Err(PackingError::Truncated);
        }
        Ok(self.before.and(&self.since))
    }

    fn start(&mut self) -> Result<&mut Decoder<'static>, PackingError> {
        let mut decoder = Decoder::with_dictionary(self.before.bytes()).map_err(PackingError::Zstd)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(PackingError::Zstd)?;
        Ok(self.decoder.insert(decoder))
    }

    fn decompress(&mut self, stated: usize) -> Result<Vec<u8>, PackingError> {
        // One byte more, to see that there is none.
        let mut plain = vec![0; stated + 1];
        if self.decoder.is_none() {
            self.start()?;
        }
        let Some(decoder) = &mut self.decoder else { return Err(PackingError::Unknown) };
        let mut input = InBuffer::around(&self.held[9..]);
        let mut filled = 0;
        loop {
            let (read, written) = (input.pos(), filled);
            let mut output = OutBuffer::around_pos(&mut plain[..], filled);
            decoder.run(&mut input, &mut output).map_err(PackingError::Zstd)?;
            filled = output.pos();
            if filled > stated {
                return Err(PackingError::Misstated);
            }
            if input.pos() == read && filled == written {
                break;
            }
        }
        if filled != stated || input.pos() != input.src.len() {
            return Err(PackingError::Misstated);
        }
        plain.truncate(stated);
        keep(&mut self.since, &plain);
        Ok(plain)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(pieces: &[(&[u8], bool)]) -> Vec<u8> {
        let mut packer = Packer::new(&Seen::default()).expect("packs");
        let mut out = Vec::new();
        for (piece, compress) in pieces {
            if *compress { packer.write(piece) } else { packer.write_as_is(piece) }.expect("packs");
            if packer.ready() > 1000 {
                out.extend(packer.take());
            }
        }
        out.extend(packer.finish().expect("packs").0);
        out
    }

    fn unpacked(packed: &[u8], step: usize) -> Result<Vec<u8>, PackingError> {
        let mut unpacker = Unpacker::new(|_: &Digest| None);
        let mut out = Vec::new();
        for piece in packed.chunks(step) {
            unpacker.take(piece, |plain| {
                assert!(plain.len() <= SECTION);
                out.extend(plain);
                Ok::<_, PackingError>(())
            })?;
        }
        unpacker.finish()?;
        Ok(out)
    }

    #[test]
    fn what_is_packed_comes_back_in_pieces_of_any_size() {
        let text = "the same words again and again, ".repeat(40_000);
        let mut random = vec![0; 700_000];
        rand::fill(&mut random[..]);
        let pieces: [(&[u8], bool); 6] = [
            (b"a", true),
            (text.as_bytes(), true),
            (&random, false),
            (b"", true),
            (&random, true),
            (text.as_bytes(), true),
        ];
        let plain: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.iter().copied()).collect();
        let packed = packed(&pieces);
        // The second text is found in the window.
        assert!(packed.len() < 2 * random.len() + 20_000, "{}", packed.len());
        for step in [1 << 20, 1000, 17] {
            assert!(unpacked(&packed, step).expect("unpacks") == plain, "{step}");
        }
        for cut in [1, 5, 9, packed.len() - 1] {
            assert!(matches!(unpacked(&packed[..cut], 100), Err(PackingError::Truncated)), "{cut}");
        }
    }

    #[test]
    fn what_was_seen_before_need_not_be_said_again() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let mut first = Packer::new(&Seen::default()).expect("packs");
        first.write(&text).expect("packs");
        let (packed, seen) = first.finish().expect("packs");
        assert!(packed.len() > 300_000);
        let mut unpacker = Unpacker::new(|_: &Digest| None);
        unpacker.take(&packed, |_| Ok::<_, PackingError>(())).expect("unpacks");
        let there = unpacker.finish().expect("all of it");
        assert_eq!(there.name(), seen.name());

        let mut second = Packer::new(&seen).expect("packs");
        second.write(&text[1000..]).expect("packs");
        let (packed, after) = second.finish().expect("packs");
        assert!(packed.len() < 1000, "{}", packed.len());
        let mut unpacker = Unpacker::new(|name: &Digest| (*name == there.name()).then(|| there.clone()));
        let mut out = Vec::new();
        for piece in packed.chunks(20) {
            unpacker
                .take(piece, |plain| {
                    out.extend(plain);
                    Ok::<_, PackingError>(())
                })
                .expect("unpacks");
        }
        assert_eq!(out, text[1000..]);
        assert_eq!(unpacker.finish().expect("all of it").name(), after.name());
        let mut elsewhere = Unpacker::new(|_: &Digest| None);
        let refused = elsewhere.take(&packed, |_| Ok::<_, PackingError>(()));
        assert!(matches!(refused, Err(PackingError::Unseen)));
    }

    #[test]
    fn a_bomb_is_cut_at_its_stated_size() {
        let zeros = vec![0; SECTION];
        let mut bomb = packed(&[(&zeros, true)]);
        assert!(bomb.len() < 1000);
        bomb[1..5].copy_from_slice(&1000u32.to_be_bytes());
        assert!(matches!(unpacked(&bomb, 1 << 20), Err(PackingError::Misstated)));
        bomb[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(unpacked(&bomb, 1 << 20), Err(PackingError::TooLong)));
        bomb[5..9].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(unpacked(&bomb, 1 << 20), Err(PackingError::TooLong)));
        assert!(matches!(unpacked(&[9, 0, 0, 0, 0], 1 << 20), Err(PackingError::Unknown)));
    }
}
