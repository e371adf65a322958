//! The folder everything lies in, and the locks that keep a second process out of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// Linux takes 107 bytes for a socket's path.
const SOCKET_PATH_MAX: usize = 100;

/// The data folder, locked for one role or several as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _locks: Vec<File>,
}

impl DataDir {
    /// Makes the folder if it is missing and locks it for `roles`.
    pub(crate) fn lock(path: &Path, roles: &[&str]) -> Result<Self> {
        create(path)?;
        let locks = roles.iter().map(|role| lock(path, role)).collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), _locks: locks })
    }

    /// Where the local socket goes, if the system can take a path of that length.
    pub(crate) fn socket(&self, socket: PathBuf) -> Result<PathBuf> {
        if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
            return Ok(socket);
        }
        Err(Failure::usage(
            format!("the data_dir {} has too long a name", self.path.display()),
            format!("a socket in it would have more than {SOCKET_PATH_MAX} bytes, which the system does not take"),
            "choose a shorter data_dir",
        ))
    }
}

/// Makes the data folder. The private PostgreSQL's unprivileged user passes through it, so others may enter but not look.
pub(crate) fn create(path: &Path) -> Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let above = path.parent().map_or(Ok(()), fs::create_dir_all);
    let made = above.and_then(|()| match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    });
    made.map_err(|error| {
        Failure::new(
            format!("the data_dir {} cannot be made", path.display()),
            error.to_string(),
            "make it and give it to this user, or set another data_dir (UNDERSTUDY__DATA_DIR)",
        )
    })
}

fn lock(dir: &Path, role: &str) -> Result<File> {
    let path = dir.join(format!("{role}.lock"));
    let cannot = |error: std::io::Error| {
        Failure::new(
            format!("the lock {} cannot be taken", path.display()),
            error.to_string(),
            "check that this user may write to data_dir",
        )
    };
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    let mut file = file.map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(cannot(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let pid = file.read_to_string(&mut holder).ok().map(|_| holder.trim()).filter(|pid| !pid.is_empty());
            return Err(Failure::new(
                format!("Understudy runs already in {}", dir.display()),
                format!("process {} holds its {role} lock", pid.unwrap_or("?")),
                match pid {
                    Some(pid) => format!("stop that one (kill {pid}), or give this one a data_dir of its own"),
                    None => "stop that one, or give this one a data_dir of its own".to_owned(),
                },
            ));
        }
    }
    // Only for the sentence above: the lock itself is what counts, and it goes with the process.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(cannot)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_with_the_process_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::lock(&path, &["source", "admin"]).unwrap();
        let refused = DataDir::lock(&path, &["admin"]).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} holds its admin lock", std::process::id())), "{refused}");
        drop(first);
        DataDir::lock(&path, &["admin"]).unwrap();
    }

    #[test]
    fn a_folder_with_too_long_a_name_for_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::lock(&dir.path().join("x".repeat(100)), &[]).unwrap();
        let socket = data.path.join("admin.sock");
        assert!(data.socket(socket).unwrap_err().to_string().contains("choose a shorter data_dir"));
    }
}
