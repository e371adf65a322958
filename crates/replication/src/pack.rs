//! Files that hold many contents one after another: the source's spool and the recovery site's content store.
//!
//! Keeps true: [`PackWriter::sync`] returns only when everything written before is on the disk, the file's name included.
//! Not here: which content lies where (`database::content`, `database::source`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// How much is gathered before the file is written to.
const BUFFER_BYTES: usize = 256 << 10;

/// A pack being written.
#[derive(Debug)]
pub struct PackWriter {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes handed to the file.
    written: u64,
    /// Is the file's name known to be on the disk?
    named: bool,
}

impl PackWriter {
    /// A new, empty pack. Only its owner may read it.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, path: path.to_owned(), buffer: Vec::new(), written: 0, named: false })
    }

    /// Where the next byte will lie.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends a piece.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.buffer.len() + piece.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if piece.len() >= BUFFER_BYTES {
            self.file.write_all_at(piece, self.written)?;
            self.written += piece.len() as u64;
        } else {
            self.buffer.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Forgets everything from `offset` on.
    pub fn truncate(&mut self, offset: u64) -> io::Result<()> {
        if let Some(kept) = offset.checked_sub(self.written) {
            self.buffer.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
            return Ok(());
        }
        self.buffer.clear();
        self.file.set_len(offset)?;
        self.written = offset;
        Ok(())
    }

    /// Hands everything gathered to the file, where others can read it; it may not be on the disk yet.
    pub fn flush(&mut self) -> io::Result<()> {
        // At a place of our own: what a failed write (a full disk) left behind lies beyond it and is written over.
        self.file.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Waits until everything written is on the disk. Blocks.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.buffer.shrink_to(0);
        self.file.sync_data()?;
        if !self.named {
            if let Some(folder) = self.path.parent() {
                sync_folder(folder)?;
            }
            self.named = true;
        }
        Ok(())
    }

    /// Where the pack is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads up to `buffer.len()` bytes of the pack at `offset`.
pub fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

/// Waits until the names in `folder` are on the disk. Blocks.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes `folder` and its parents, readable by the owner only.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_taken_back() {
        let folder = std::env::temp_dir().join(format!("understudy-pack-{}", std::process::id()));
        create_folder(&folder).expect("folder");
        let path = folder.join("a.pack");
        let mut pack = PackWriter::create(&path).expect("pack");
        pack.write(b"first").expect("write");
        let large = vec![7u8; BUFFER_BYTES + 1];
        pack.write(&large).expect("write");
        let kept = pack.offset();
        pack.write(b"dropped").expect("write");
        pack.truncate(kept).expect("truncate");
        pack.write(b"!").expect("write");
        pack.sync().expect("sync");
        pack.truncate(5).expect("truncate behind what was flushed");
        pack.write(b"?").expect("write");
        pack.sync().expect("sync");
        assert_eq!(fs::read(&path).expect("read"), b"first?");
        fs::remove_dir_all(folder).expect("clean");
    }
}
