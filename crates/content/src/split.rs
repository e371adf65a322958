//! Splits a message into its recipe and parts.
//!
//! In: octets that are read by position, so that no message needs to be in memory. Out: where each part stands.

use std::io;

use understudy_protocol::{ContentRef, PartKey};

use crate::{
    Octets, Piece, Recipe, Wrapping,
    scan::{self, Leaf},
    wrapping::unwrap,
};

/// From here on, a base64 body is a part of its own: a picture in a signature is worth knowing again. In bytes as it stands.
pub const LEAST_BASE64: u64 = 4 << 10;
/// The same for other bodies, which are mostly text that stands in one message only. In bytes.
pub const LEAST_RAW: u64 = 32 << 10;
/// A body that is longer than this is several parts of this size, and a rest: a line that is cut again and again brings some of them
/// each time. Lines of 60, 64, 72 and 76 characters end where such a part ends. In bytes, decoded.
pub const LONGEST_PART: u64 = 41_040 * 102;
/// Bodies of one message that are taken apart; what is beyond them stays in the skeleton.
const BODIES: usize = 1024;
/// How much is read at once.
const BLOCK: usize = 128 << 10;

/// A message taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub recipe: Recipe,
    /// The parts in the order of the recipe.
    pub cuts: Vec<Cut>,
}

/// Where a part stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub part: ContentRef,
    pub wrapping: Wrapping,
    pub start: u64,
    pub end: u64,
}

/// Takes a message apart; `None` where it has no part worth it.
pub fn split<O: Octets + ?Sized>(message: &O, key: &PartKey) -> io::Result<Option<Split>> {
    if message.size() < LEAST_BASE64 {
        return Ok(None);
    }
    let worth_it = |leaf: &Leaf| leaf.end - leaf.start >= if leaf.base64 { LEAST_BASE64 } else { LEAST_RAW };
    let mut cuts: Vec<Cut> = Vec::new();
    for leaf in scan::leaves(message, worth_it)?.into_iter().take(BODIES) {
        cuts.extend(cut(message, leaf, key)?);
    }
    if cuts.is_empty() {
        return Ok(None);
    }
    let mut pieces = Vec::with_capacity(cuts.len() * 2 + 1);
    let mut at = 0;
    let own = |from: u64, to: u64, pieces: &mut Vec<Piece>| {
        if to > from {
            pieces.push(Piece::Own(to - from));
        }
    };
    for cut in &cuts {
        own(at, cut.start, &mut pieces);
        pieces.push(Piece::Part(cut.part, cut.wrapping));
        at = cut.end;
    }
    own(at, message.size(), &mut pieces);
    Ok(Some(Split { recipe: Recipe { pieces }, cuts }))
}

/// The parts of one body, in order.
fn cut<O: Octets + ?Sized>(message: &O, leaf: Leaf, key: &PartKey) -> io::Result<Vec<Cut>> {
    if leaf.base64 {
        let mut hashed = Hashed::new(key, leaf.end - leaf.start);
        let unwrapped = unwrap(message, leaf.start, leaf.end, |piece| {
            hashed.update(piece);
            Ok(())
        })?;
        if let Some(found) = unwrapped
            && let Some(cuts) = hashed.cuts(found.wrapping, found.start)
        {
            return Ok(cuts);
        }
    }
    if leaf.end - leaf.start < LEAST_RAW {
        return Ok(Vec::new());
    }
    let mut hashed = Hashed::new(key, leaf.end - leaf.start);
    each_block(message, leaf.start, leaf.end, |piece| {
        hashed.update(piece);
        Ok(())
    })?;
    Ok(hashed.cuts(Wrapping::AsItIs, leaf.start).unwrap_or_default())
}

/// The digests of a body: as one part, and as several.
struct Hashed<'a> {
    key: &'a PartKey,
    whole: blake3::Hasher,
    size: u64,
    /// None where the body cannot be so long.
    several: Option<Several>,
}

struct Several {
    done: Vec<ContentRef>,
    hasher: blake3::Hasher,
    size: u64,
}

impl<'a> Hashed<'a> {
    /// Of a body that takes so many octets in its message.
    fn new(key: &'a PartKey, octets: u64) -> Self {
        let several = (octets > LONGEST_PART).then(|| Several { done: Vec::new(), hasher: key.hasher(), size: 0 });
        Self { key, whole: key.hasher(), size: 0, several }
    }

    fn update(&mut self, mut piece: &[u8]) {
        self.whole.update(piece);
        self.size += piece.len() as u64;
        let Some(several) = &mut self.several else { return };
        while !piece.is_empty() {
            if several.size == LONGEST_PART {
                several.next(self.key);
            }
            let room = usize::try_from(LONGEST_PART - several.size).unwrap_or(usize::MAX);
            let (now, rest) = piece.split_at(room.min(piece.len()));
            several.hasher.update(now);
            several.size += now.len() as u64;
            piece = rest;
        }
    }

    /// Where the parts stand in a message in which the body begins at `start`.
    fn cuts(mut self, wrapping: Wrapping, start: u64) -> Option<Vec<Cut>> {
        if self.size > LONGEST_PART
            && let Some(mut several) = self.several.take()
            && let Some(stride) = wrapping.stride(LONGEST_PART)
        {
            several.next(self.key);
            let cut = |(part, start): (ContentRef, u64)| {
                Some(Cut { part, wrapping, start, end: start + wrapping.wrapped_size(part.size)? })
            };
            return several.done.into_iter().zip((0..).map(|number| start + number * stride)).map(cut).collect();
        }
        let part = ContentRef { digest: self.whole.finalize().into(), size: self.size };
        Some(vec![Cut { part, wrapping, start, end: start + wrapping.wrapped_size(self.size)? }])
    }
}

impl Several {
    /// One is whole.
    fn next(&mut self, key: &PartKey) {
        let hasher = std::mem::replace(&mut self.hasher, key.hasher());
        self.done.push(ContentRef { digest: hasher.finalize().into(), size: self.size });
        self.size = 0;
    }
}

impl Split {
    /// The stretches of the message that stand in its skeleton.
    pub fn own(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut at = 0;
        let mut cuts = self.cuts.iter();
        self.recipe.pieces.iter().filter_map(move |piece| match piece {
            Piece::Own(length) => {
                let start = at;
                at += length;
                Some((start, at))
            }
            Piece::Part(..) => {
                at = cuts.next().map_or(at, |cut| cut.end);
                None
            }
        })
    }
}

impl Cut {
    /// Gives the part's octets, unwrapped, piece by piece.
    pub fn copy<O: Octets + ?Sized>(
        &self,
        message: &O,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.wrapping {
            Wrapping::AsItIs => each_block(message, self.start, self.end, sink),
            Wrapping::Base64 { .. } => {
                let mut given = 0;
                let unwrapped = unwrap(message, self.start, self.end, |piece| {
                    given += piece.len() as u64;
                    sink(piece)
                })?;
                match unwrapped {
                    Some(_) if given == self.part.size => Ok(()),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message changed while it was read")),
                }
            }
        }
    }
}

/// Gives the octets in `start..end` piece by piece.
pub fn copy<O: Octets + ?Sized>(
    octets: &O,
    start: u64,
    end: u64,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    each_block(octets, start, end, sink)
}

fn each_block<O: Octets + ?Sized>(
    octets: &O,
    start: u64,
    end: u64,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX).min(BLOCK)];
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        octets.read_exact_at(at, &mut buffer[..length])?;
        sink(&buffer[..length])?;
        at += length as u64;
    }
    Ok(())
}
