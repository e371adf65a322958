//! What no program can go below by much: every attachment once and decoded, with all the rest.
//!
//! In: messages. Out: their unique bytes, plain and through one `zstd -3`.

use std::collections::HashSet;
use std::io::{self, Write};

use anyhow::{Context, Result};
use understudy_content::{copy, split};
use understudy_protocol::PartKey;

use crate::workload::Workload;

/// Counts messages that pass by.
pub(crate) struct Bound {
    key: PartKey,
    seen: HashSet<understudy_protocol::Digest>,
    stream: zstd::stream::Encoder<'static, Count>,
    plain: u64,
}

impl Bound {
    pub(crate) fn new() -> Result<Self> {
        let stream = zstd::stream::Encoder::new(Count(0), 3).context("could not begin to compress")?;
        Ok(Self { key: PartKey::new([0; 32]), seen: HashSet::new(), stream, plain: 0 })
    }

    pub(crate) fn add(&mut self, message: &[u8]) -> Result<()> {
        let (stream, plain) = (&mut self.stream, &mut self.plain);
        let mut write = |piece: &[u8]| {
            *plain += piece.len() as u64;
            stream.write_all(piece)
        };
        let Some(split) = split(message, &self.key)? else { return Ok(write(message)?) };
        for cut in split.cuts.iter().filter(|cut| self.seen.insert(cut.part.digest)) {
            cut.copy(message, &mut write)?;
        }
        for (start, end) in split.own() {
            copy(message, start, end, &mut write)?;
        }
        Ok(())
    }

    /// Unique bytes: plain, and packed.
    pub(crate) fn finish(self) -> Result<(u64, u64)> {
        Ok((self.plain, self.stream.finish()?.0))
    }
}

/// Of a whole workload, packed.
pub(crate) fn bound(workload: &Workload) -> Result<u64> {
    let mut bound = Bound::new()?;
    for mailbox in 0..workload.mailboxes {
        for index in 0..workload.messages_each {
            bound.add(&workload.message(mailbox, index).message.bytes)?;
        }
    }
    Ok(bound.finish()?.1)
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
