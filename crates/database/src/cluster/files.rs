//! The cluster's files: the data, the password, the log, the lock and the directory of the socket.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::distr::Alphanumeric;

use super::account::Account;
use super::{ClusterError, PORT};

/// Linux takes 107 bytes for a socket's path, others fewer.
const SOCKET_PATH_MAX: usize = 100;
const PASSWORD_LENGTH: usize = 32;
/// At a start, a longer log becomes `postgres.log.old`.
const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// How much of the log goes into an error.
const LOG_TAIL_BYTES: u64 = 600;

/// The cluster's own directory, locked for as long as this lives.
pub(super) struct Files {
    dir: PathBuf,
    account: Option<Account>,
    /// Two of us on one directory would take each other's server for an orphan.
    _lock: File,
}

impl Files {
    pub(super) fn open(dir: &Path, account: Option<&Account>) -> Result<Self, ClusterError> {
        make_dir(dir, account)?;
        // The server's working directory is compared with what /proc says, which knows no links.
        let dir = fs::canonicalize(dir).map_err(|source| file_error("find", dir, source))?;
        if let Some(account) = account {
            account.check_can_reach(&dir)?;
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|source| file_error("open", &path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, account: account.cloned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ClusterError::InUse { dir }),
            Err(TryLockError::Error(source)) => Err(file_error("lock", &path, source)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn is_made(&self) -> bool {
        self.data().exists()
    }

    /// The major version that wrote the data; `None` before there is any.
    pub(super) fn data_version(&self) -> Result<Option<String>, ClusterError> {
        let path = self.data().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => Ok(Some(version.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_made() => Ok(None),
            Err(source) => Err(file_error("read", &path, source)),
        }
    }

    pub(super) fn password_path(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// The password of the cluster's only role, made before the cluster is.
    pub(super) fn password(&self) -> Result<String, ClusterError> {
        let path = self.password_path();
        match fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(file_error("read", &path, source)),
        }
        if self.is_made() {
            return Err(ClusterError::NoPassword { path });
        }
        let password: String = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect();
        write_private(&path, &password).map_err(|source| file_error("write", &path, source))?;
        if let Some(account) = &self.account {
            account.own(&path)?;
        }
        Ok(password)
    }

    /// An empty place for `initdb`; what an interrupted one left is removed.
    pub(super) fn prepare_new_data(&self) -> Result<PathBuf, ClusterError> {
        let path = self.dir.join("data.new");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", &path, error)),
            _ => Ok(path),
        }
    }

    pub(super) fn accept_new_data(&self, new: &Path) -> Result<(), ClusterError> {
        fs::rename(new, self.data()).map_err(|source| file_error("rename", new, source))?;
        let sync = File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync.map_err(|source| file_error("sync", &self.dir, source))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// The server's log, to be written to.
    pub(super) fn log(&self) -> Result<File, ClusterError> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_MAX_BYTES) {
            fs::rename(&path, self.dir.join("postgres.log.old"))
                .map_err(|source| file_error("rename", &path, source))?;
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        log.map_err(|source| file_error("open", &path, source))
    }

    /// The log's last words, in one line.
    pub(super) fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).trim().replace('\n', "; "))
        };
        read().unwrap_or_default()
    }

    pub(super) fn error(&self, action: &'static str, name: &str, source: io::Error) -> ClusterError {
        file_error(action, &self.dir.join(name), source)
    }
}

/// Where the socket lies.
pub(super) struct SocketDir {
    path: PathBuf,
    /// Holds the path of a short directory that stands in for the configured one.
    note: Option<PathBuf>,
}

impl SocketDir {
    pub(super) fn open(run_dir: &Path, files: &Files, account: Option<&Account>) -> Result<Self, ClusterError> {
        let note = files.dir.join("socket_dir");
        remove_noted(&note);
        make_dir(run_dir, account)?;
        let path = fs::canonicalize(run_dir).map_err(|source| file_error("find", run_dir, source))?;
        if path.join(format!(".s.PGSQL.{PORT}")).as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
            if let Some(account) = account {
                account.check_can_reach(&path)?;
            }
            return Ok(Self { path, note: None });
        }
        let name: String = rand::rng().sample_iter(Alphanumeric).take(12).map(char::from).collect();
        let path = PathBuf::from(format!("/tmp/understudy-{name}"));
        // Noted first, so that a crash leaves nothing behind for ever. Created new: nobody else can have put it there.
        write_private(&note, &path.to_string_lossy()).map_err(|source| file_error("write", &note, source))?;
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|source| file_error("create", &path, source))?;
        if let Some(account) = account {
            account.own(&path)?;
        }
        Ok(Self { path, note: Some(note) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a stand-in directory.
    pub(super) fn remove(&self) {
        if let Some(note) = &self.note {
            remove_noted(note);
        }
    }
}

/// Removes the stand-in directory that `note` names, if there is one; a left-over there harms nobody.
fn remove_noted(note: &Path) {
    let Ok(path) = fs::read_to_string(note) else { return };
    if path.starts_with("/tmp/understudy-") {
        let _ = fs::remove_dir_all(path);
    }
    let _ = fs::remove_file(note);
}

/// Makes the directory of the socket for others, where everybody may enter and only the server may write.
pub(super) fn make_door_dir(dir: &Path, account: Option<&Account>) -> Result<(), ClusterError> {
    make_dir(dir, account)?;
    let opened = fs::set_permissions(dir, Permissions::from_mode(0o755));
    opened.map_err(|source| file_error("open to others", dir, source))
}

/// Makes a private directory (those above it can be passed by others) and hands it over.
fn make_dir(dir: &Path, account: Option<&Account>) -> Result<(), ClusterError> {
    let create = |dir: &Path| match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    };
    let above = dir.parent().map_or(Ok(()), |above| fs::DirBuilder::new().recursive(true).mode(0o755).create(above));
    above.and_then(|()| create(dir)).map_err(|source| file_error("create", dir, source))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|source| file_error("restrict", dir, source))?;
    account.map_or(Ok(()), |account| account.own(dir))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> ClusterError {
    ClusterError::File { action, path: path.to_owned(), source }
}
