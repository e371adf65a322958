//! Is it worth compressing?

/// Marks at the start of formats that are compressed already.
const MARKS: [&[u8]; 12] = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
    b"Rar!",
    b"OggS",
    b"ID3",
];
/// A sample is no larger, in bytes.
const SAMPLE: usize = 32 << 10;
/// Fewer say nothing.
const LEAST: usize = 1 << 10;
/// More bits in a byte than this leave nothing to be saved.
const FULL_BITS: f64 = 7.85;

/// Does it look as if compression made these bytes fewer? `start`: the first bytes of a part.
#[must_use]
pub fn compresses(start: &[u8]) -> bool {
    let start = &start[..start.len().min(SAMPLE)];
    if MARKS.iter().any(|mark| start.starts_with(mark)) || is_film(start) {
        return false;
    }
    start.len() < LEAST || bits(start) < FULL_BITS
}

/// ISO base media: a size, then `ftyp`. RIFF: only WebP among them is compressed.
fn is_film(start: &[u8]) -> bool {
    start.get(4..8) == Some(b"ftyp") || (start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP"))
}

/// Shannon's entropy of single bytes.
fn bits(sample: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let all = sample.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / all;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_already_is_recognised() {
        let mut random = vec![0; SAMPLE];
        rand::fill(&mut random[..]);
        assert!(!compresses(&random));
        assert!(!compresses(b"PK\x03\x04 and so on"));
        assert!(compresses("a text that says something ".repeat(100).as_bytes()));
        assert!(compresses(b"short"));
        assert!(compresses(&(0..=255).cycle().take(900).collect::<Vec<u8>>()));
    }
}
