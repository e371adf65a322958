//! A message put together again, read from any place: says which stored octets are needed, and makes the message's of them.

use understudy_protocol::ContentRef;

use crate::{Piece, Recipe, Wrapping};

/// The most octets made at once.
const AT_ONCE: usize = 64 << 10;

/// Where each stretch of a message comes from.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Ascending.
    stretches: Vec<Stretch>,
    parts: Vec<ContentRef>,
    size: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Where it begins in the message.
    start: u64,
    source: Source,
    /// Where it begins in its source.
    from: u64,
    /// Octets of it there.
    size: u64,
    wrapping: Wrapping,
}

/// What octets are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The octets in the skeleton behind its recipe.
    Own,
    /// A part, by its number in [`Layout::parts`].
    Part(usize),
}

/// Stored octets that are needed for the next ones of the message.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub source: Source,
    pub start: u64,
    pub length: usize,
    wrapping: Wrapping,
    /// In the wrapped part.
    offset: u64,
    room: usize,
}

impl Layout {
    #[must_use]
    pub fn new(recipe: &Recipe) -> Self {
        let parts = recipe.parts();
        let numbers: std::collections::HashMap<_, _> =
            parts.iter().zip(0..).map(|(part, at)| (part.digest, at)).collect();
        let (mut start, mut own) = (0u64, 0u64);
        let mut stretches = Vec::with_capacity(recipe.pieces.len());
        for piece in &recipe.pieces {
            let (source, from, size, wrapping) = match piece {
                Piece::Own(length) => {
                    own = own.saturating_add(*length);
                    (Source::Own, own - length, *length, Wrapping::AsItIs)
                }
                Piece::Part(part, wrapping) => {
                    (Source::Part(numbers.get(&part.digest).copied().unwrap_or(usize::MAX)), 0, part.size, *wrapping)
                }
            };
            stretches.push(Stretch { start, source, from, size, wrapping });
            start = start.saturating_add(wrapping.wrapped_size(size).unwrap_or(u64::MAX));
        }
        Self { stretches, parts, size: start }
    }

    /// The parts needed, each once.
    #[must_use]
    pub fn parts(&self) -> &[ContentRef] {
        &self.parts
    }

    /// Octets of the message.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is needed for the next octets from `offset` on, `room` of them at most; `None` at the end.
    #[must_use]
    pub fn need(&self, offset: u64, room: usize) -> Option<Need> {
        if offset >= self.size || room == 0 {
            return None;
        }
        // The last that begins here or before; empty ones lie before it.
        let index = self.stretches.partition_point(|stretch| stretch.start <= offset).checked_sub(1)?;
        let Stretch { start, source, from, size, wrapping } = self.stretches[index];
        let offset = offset - start;
        let left = wrapping.wrapped_size(size)?.checked_sub(offset)?;
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(room).min(AT_ONCE);
        let (first, length) = wrapping.needed(size, offset, room);
        Some(Need { source, start: from + first, length, wrapping, offset, room })
    }
}

impl Need {
    /// Makes the message's octets of the stored ones; answers how many. `stored` must be what was asked for, whole.
    pub fn render(&self, stored: &[u8], buffer: &mut [u8]) -> Option<usize> {
        if stored.len() != self.length || buffer.len() < self.room {
            return None;
        }
        self.wrapping.render(self.offset, stored, &mut buffer[..self.room])
    }
}
