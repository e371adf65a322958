//! Files that hold keys: written beside and renamed, for their owner only.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Readable and writable by anybody but the owner.
const OTHERS: u32 = 0o077;

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is open to others than its owner: chmod 600 {}", path.display(), path.display())]
    Open { path: PathBuf },
    #[error("{} does not hold what belongs there: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
}

/// Where the keys of the link lie.
#[must_use]
pub fn link_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("link")
}

/// The text of a file that only its owner may read; none when there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    let cannot = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(cannot)?,
    };
    if metadata.mode() & OTHERS != 0 {
        return Err(FileError::Open { path: path.to_owned() });
    }
    fs::read_to_string(path).map(Some).map_err(cannot)
}

/// Writes a file in the folder of keys below `data_dir`; a crash half way leaves the one before. It belongs to whom `data_dir` belongs,
/// since root may pair what another user runs.
pub(crate) fn write(data_dir: &Path, name: &str, text: &str) -> Result<PathBuf, FileError> {
    let folder = link_folder(data_dir);
    let path = folder.join(name);
    let cannot = |source| FileError::Write { path: path.clone(), source };
    let owner = fs::metadata(data_dir).map_err(cannot)?;
    let give = |path: &Path| match rustix::process::geteuid().is_root() {
        true => std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    };
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.and_then(|()| give(&folder)).map_err(cannot)?,
    }
    let fresh = folder.join(format!("{name}.{}.new", std::process::id()));
    let written = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh);
    let written = written.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        give(&fresh)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        fs::File::open(&folder)?.sync_all()
    });
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.map_err(cannot)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_for_its_owner_and_one_that_is_not_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&link_folder(dir.path()).join("a.pem")).unwrap().is_none());
        let path = write(dir.path(), "a.pem", "key").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(link_folder(dir.path())).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(read(&path).unwrap().as_deref(), Some("key"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(FileError::Open { .. })));
    }
}
