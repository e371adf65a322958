//! Makes new inputs of old ones.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Numbers at which readers break.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "127",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];

/// Bytes at which readers break.
const BYTES: [&[u8]; 16] = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b"\"",
    b"\\",
    b"(",
    b")",
    b"{",
    b"}",
    b"{3}\r\n",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
];

pub(crate) struct Mutator {
    random: StdRng,
    /// The words of the corpus.
    words: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: &[Vec<u8>]) -> Self {
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || b"()[]{},;:=\"".contains(byte);
        let mut words: Vec<Vec<u8>> =
            corpus.iter().flat_map(|input| input.split(is_between)).map(<[u8]>::to_vec).collect();
        words.sort();
        words.dedup();
        Self { random: StdRng::seed_from_u64(seed), words }
    }

    /// A new input: one of the old, changed a few times.
    pub(crate) fn from(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=4) {
            self.change(&mut input, corpus);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let (start, end) = self.range(input.len());
        match self.random.random_range(0..12) {
            0 if !input.is_empty() => {
                let at = start.min(input.len() - 1);
                input[at] ^= 1 << self.random.random_range(0..8);
            }
            1 if !input.is_empty() => {
                let at = start.min(input.len() - 1);
                input[at] = self.random.random();
            }
            2 => drop(input.drain(start..end)),
            3 => {
                let piece = input[start..end].to_vec();
                let at = self.place(input.len());
                input.splice(at..at, piece);
            }
            4 => {
                let piece = input[start..end].repeat(self.random.random_range(2..20));
                input.splice(start..end, piece);
            }
            5 => {
                let other = corpus.choose(&mut self.random).cloned().unwrap_or_default();
                let (from, to) = self.range(other.len());
                input.splice(start..end, other[from..to].iter().copied());
            }
            6 => input.truncate(start),
            7 | 8 => {
                let bytes = BYTES.choose(&mut self.random).copied().unwrap_or_default();
                input.splice(start..start, bytes.iter().copied());
            }
            9 => self.replace_number(input),
            _ => {
                let word = self.words.choose(&mut self.random).cloned().unwrap_or_default();
                let end = if self.random.random() { start } else { end };
                input.splice(start..end, word);
            }
        }
    }

    /// Another number in the place of one.
    fn replace_number(&mut self, input: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..input.len())
            .filter(|&at| input[at].is_ascii_digit() && (at == 0 || !input[at - 1].is_ascii_digit()))
            .collect();
        let Some(&start) = starts.choose(&mut self.random) else { return };
        let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = NUMBERS.choose(&mut self.random).copied().unwrap_or_default();
        input.splice(start..start + length, number.bytes());
    }

    fn place(&mut self, length: usize) -> usize {
        self.random.random_range(0..=length)
    }

    /// A range, mostly a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let start = self.place(length);
        let longest = if self.random.random_ratio(3, 4) { 8.min(length - start) } else { length - start };
        (start, start + self.random.random_range(0..=longest))
    }
}
