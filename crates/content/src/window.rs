//! A stretch of a message in memory, moved along as it is read.

use std::io;

use crate::Octets;

/// How much is read at once.
const BLOCK: usize = 128 << 10;

/// What lies in memory of some octets.
pub(crate) struct Window<'a, O: ?Sized> {
    octets: &'a O,
    start: u64,
    held: Vec<u8>,
}

impl<'a, O: Octets + ?Sized> Window<'a, O> {
    pub(crate) fn new(octets: &'a O) -> Self {
        Self { octets, start: 0, held: Vec::new() }
    }

    /// Everything held from `at` on: at least `least` bytes, or all to the end.
    pub(crate) fn from(&mut self, at: u64, least: usize) -> io::Result<&[u8]> {
        let size = self.octets.size();
        let least = least.min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
        let has =
            |start: u64, held: usize| at.checked_sub(start).is_some_and(|skip| skip + least as u64 <= held as u64);
        if !has(self.start, self.held.len()) {
            let wanted = least.max(BLOCK).min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
            self.held.resize(wanted, 0);
            self.start = at;
            self.octets.read_exact_at(at, &mut self.held)?;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.held.len());
        Ok(&self.held[skip..])
    }

    /// A few bytes from anywhere, without moving along.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.octets.read_exact_at(at, buffer)
    }

    pub(crate) fn size(&self) -> u64 {
        self.octets.size()
    }
}
