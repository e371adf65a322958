//! What a message is made of: octets of its own, and parts it shares with others.

use understudy_protocol::{ContentRef, Digest};

use crate::Wrapping;

/// The longest recipe, in bytes: some ten thousand parts.
pub const MAX_RECIPE_BYTES: usize = 1 << 20;

/// A stretch of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many octets that stand in the skeleton.
    Own(u64),
    /// A part, wrapped.
    Part(ContentRef, Wrapping),
}

/// The stretches of a message in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    pub pieces: Vec<Piece>,
}

/// Foreign bytes that are no recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a recipe cannot be read")]
pub struct RecipeError;

const OWN: u8 = 0;
const AS_IT_IS: u8 = 1;
const BASE64_LF: u8 = 2;
const BASE64_CRLF: u8 = 3;

impl Recipe {
    /// The parts it names, each once.
    #[must_use]
    pub fn parts(&self) -> Vec<ContentRef> {
        let mut seen = std::collections::HashSet::new();
        let parts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Part(part, _) if seen.insert(part.digest) => Some(*part),
            _ => None,
        });
        parts.collect()
    }

    /// Octets that stand in the skeleton.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| if let Piece::Own(length) = piece { *length } else { 0 }).sum()
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.pieces.len() * 24);
        for piece in &self.pieces {
            match piece {
                Piece::Own(length) => {
                    out.push(OWN);
                    put(&mut out, *length);
                }
                Piece::Part(part, wrapping) => {
                    match wrapping {
                        Wrapping::AsItIs => out.push(AS_IT_IS),
                        Wrapping::Base64 { line, crlf } => {
                            out.push(if *crlf { BASE64_CRLF } else { BASE64_LF });
                            put(&mut out, u64::from(*line));
                        }
                    }
                    put(&mut out, part.size);
                    out.extend_from_slice(&part.digest.0);
                }
            }
        }
        out
    }

    /// From exactly these bytes; the message it makes must have `size` octets.
    pub fn decode(mut bytes: &[u8], size: u64) -> Result<Self, RecipeError> {
        if bytes.len() > MAX_RECIPE_BYTES {
            return Err(RecipeError);
        }
        let mut pieces = Vec::new();
        let mut total = 0u64;
        while let Some((&kind, rest)) = bytes.split_first() {
            bytes = rest;
            let wrapping = match kind {
                OWN => {
                    let length = take(&mut bytes)?;
                    total = total.checked_add(length).ok_or(RecipeError)?;
                    pieces.push(Piece::Own(length));
                    continue;
                }
                AS_IT_IS => Wrapping::AsItIs,
                BASE64_LF | BASE64_CRLF => {
                    let line = u32::try_from(take(&mut bytes)?).map_err(|_| RecipeError)?;
                    Wrapping::Base64 { line, crlf: kind == BASE64_CRLF }
                }
                _ => return Err(RecipeError),
            };
            let part = take(&mut bytes)?;
            let (digest, rest) = bytes.split_first_chunk::<32>().ok_or(RecipeError)?;
            bytes = rest;
            let wrapped = wrapping.wrapped_size(part).ok_or(RecipeError)?;
            total = total.checked_add(wrapped).ok_or(RecipeError)?;
            pieces.push(Piece::Part(ContentRef { digest: Digest(*digest), size: part }, wrapping));
        }
        if total != size {
            return Err(RecipeError);
        }
        Ok(Self { pieces })
    }
}

/// Seven bits a byte, the lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, RecipeError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(RecipeError)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(RecipeError);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(RecipeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_comes_back_and_every_cut_is_noticed() {
        let part = |size| ContentRef { digest: Digest::of(b"part"), size };
        let recipe = Recipe {
            pieces: vec![
                Piece::Own(300),
                Piece::Part(part(57), Wrapping::Base64 { line: 76, crlf: true }),
                Piece::Own(0),
                Piece::Part(part(1 << 40), Wrapping::AsItIs),
            ],
        };
        let size = 300 + 76 + (1 << 40);
        let bytes = recipe.encode();
        assert_eq!(Recipe::decode(&bytes, size), Ok(recipe.clone()));
        assert_eq!(recipe.parts(), [part(57)]);
        assert_eq!(recipe.own_bytes(), 300);
        assert_eq!(Recipe::decode(&bytes, size + 1), Err(RecipeError));
        for cut in 0..bytes.len() {
            assert_eq!(Recipe::decode(&bytes[..cut], size), Err(RecipeError), "{cut}");
        }
        let huge = Recipe { pieces: vec![Piece::Own(u64::MAX), Piece::Own(u64::MAX)] };
        assert_eq!(Recipe::decode(&huge.encode(), u64::MAX - 1), Err(RecipeError));
    }
}
