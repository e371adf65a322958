//! What the machine itself must offer: a folder, room, open files, and secrets that stay secret.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::super::server::check::Finding;
use super::{finding, ok};
use crate::config::Config;
use crate::output::bytes;

/// Less room than this and nothing can be promised.
const ROOM_NEEDED: u64 = 1 << 30;
/// Less than this fills up before anybody looks.
const ROOM_WANTED: u64 = 10 << 30;
/// One connection a mailbox on each side, and what the database and the web take.
const OPEN_FILES_WANTED: u64 = 4096;
/// Dovecot takes one inotify instance for each connection that watches; the kernel's default serves 128.
const INOTIFY_WANTED: u64 = 1024;
const INOTIFY: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Whether to correct what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    Yes,
    No,
}

/// Whether a role runs in `data_dir` now.
pub(super) fn running(data_dir: &Path) -> bool {
    ["source", "recovery", "admin"].iter().any(|role| {
        let file = OpenOptions::new().read(true).open(data_dir.join(format!("{role}.lock")));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
    })
}

pub(super) fn data_dir(path: &Path, fix: Fix) -> Finding {
    const NAME: &str = "data_dir";
    if !path.exists() {
        return match fix {
            Fix::No => finding(
                "warning",
                NAME,
                format!("{} does not exist; `understudy up` will make it", path.display()),
                "understudy preflight --fix",
            ),
            Fix::Yes => match crate::running::create_data_dir(path) {
                Ok(()) => ok(NAME, format!("{} has been made", path.display())),
                Err(failure) => finding("failed", NAME, failure.why(), failure.remedy()),
            },
        };
    }
    let probe = path.join(format!(".preflight-{}", std::process::id()));
    let written = fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => ok(NAME, format!("{} can be written to", path.display())),
        Err(error) => finding(
            "failed",
            NAME,
            format!("{}: {error}", path.display()),
            "give it to the user that runs Understudy, or set another data_dir",
        ),
    }
}

pub(super) fn disk(data_dir: &Path) -> Finding {
    const NAME: &str = "disk space";
    let existing = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(room) = rustix::fs::statvfs(existing) else {
        return finding("note", NAME, "the free space could not be read", "");
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let text = format!("{} free at {}", bytes(free), existing.display());
    let remedy = "the recovery site keeps a copy of all content: give data_dir a larger disk";
    match free {
        free if free < ROOM_NEEDED => finding("failed", NAME, text, remedy),
        free if free < ROOM_WANTED => finding("warning", NAME, text, remedy),
        _ => ok(NAME, text),
    }
}

pub(super) fn open_files() -> Finding {
    const NAME: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_WANTED => finding(
            "warning",
            NAME,
            format!("at most {limit}, enough for about {} mailboxes", limit.saturating_sub(200) / 2),
            "raise it: LimitNOFILE=65536 in the service, or ulimit -n 65536",
        ),
        Some(limit) => ok(NAME, format!("at most {limit}")),
        None => ok(NAME, "unlimited"),
    }
}

/// Only of interest where a Dovecot runs on this machine; the limit is the mail server's, not ours.
pub(super) fn inotify() -> Option<Finding> {
    let limit: u64 = fs::read_to_string(INOTIFY).ok()?.trim().parse().ok()?;
    let name = "inotify";
    Some(match limit {
        limit if limit < INOTIFY_WANTED => finding(
            "note",
            name,
            format!(
                "a Dovecot on this machine can watch only {limit} connections at once (fs.inotify.max_user_instances)"
            ),
            "on machines with a protected Dovecot: sysctl fs.inotify.max_user_instances=8192",
        ),
        _ => ok(name, format!("{limit} instances a user")),
    })
}

/// Whether contents rest sealed, under a key that whoever carries them away does not have.
pub(super) fn contents(key_file: Option<&Path>, in_bucket: bool, data_dir: &Path) -> Finding {
    const NAME: &str = "contents";
    const ELSEWHERE: &str = "keep the key on another disk, and a copy in a safe; name it as `key_file` under [content]";
    let Some(key_file) = key_file else {
        let why = "messages rest in the clear at the recovery site: whoever has its disk or bucket can read them";
        return finding("note", NAME, why, ELSEWHERE);
    };
    // Of what is not there yet: of the folder that it will be in.
    let disk = |path: &Path| path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|there| there.dev());
    if !in_bucket && key_file.starts_with(data_dir) {
        let why =
            format!("{} lies in data_dir, beside what it seals: whoever copies that has both", key_file.display());
        return finding("warning", NAME, why, ELSEWHERE);
    }
    if !in_bucket && disk(key_file) == disk(data_dir) {
        let why =
            format!("{} lies on the disk that holds what it seals: whoever has that has both", key_file.display());
        return finding("note", NAME, why, ELSEWHERE);
    }
    ok(NAME, "sealed, under a key that lies elsewhere")
}

/// Every file that holds a secret can be read by us and by nobody else.
pub(super) fn secrets(config: &Config, fix: Fix) -> Vec<Finding> {
    config.secret_files().iter().filter_map(|path| secret(path, fix)).collect()
}

/// Nothing to say about a secret that is as it should be.
fn secret(path: &Path, fix: Fix) -> Option<Finding> {
    const NAME: &str = "secret";
    let metadata = match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) => metadata,
        Err(error) => {
            let why = format!("{}: {error}", path.display());
            return Some(finding(
                "failed",
                NAME,
                why,
                "write the secret to it, readable for the user that runs Understudy",
            ));
        }
    };
    let mode = metadata.permissions().mode();
    if mode & 0o004 == 0 {
        return None;
    }
    if fix == Fix::Yes && fs::set_permissions(path, Permissions::from_mode(mode & 0o770)).is_ok() {
        return Some(ok(NAME, format!("{} is closed to others now", path.display())));
    }
    let why = format!("everybody on this machine can read {}", path.display());
    Some(finding("warning", NAME, why, format!("chmod 600 {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_data_dir_is_made_only_when_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(data_dir(&path, Fix::No).level, "warning");
        assert!(!path.exists());
        assert_eq!(data_dir(&path, Fix::Yes).level, "ok");
        assert!(path.is_dir());
        assert_eq!(data_dir(&path, Fix::No).level, "ok");
    }

    #[test]
    fn an_open_secret_is_named_and_closed_when_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert_eq!(secret(&path, Fix::No).unwrap().level, "failed");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(secret(&path, Fix::No).unwrap().level, "warning");
        assert_eq!(secret(&path, Fix::Yes).unwrap().level, "ok");
        assert!(secret(&path, Fix::No).is_none());
    }

    #[test]
    fn a_key_beside_what_it_seals_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (data, key) = (dir.path().join("data"), dir.path().join("content.keys"));
        assert_eq!(contents(None, false, &data).level, "note");
        assert_eq!(contents(Some(&data.join("content.keys")), false, &data).level, "warning");
        assert_eq!(contents(Some(&key), false, &data).level, "note", "the same disk");
        assert_eq!(contents(Some(&key), true, &data).level, "ok", "they are in a bucket");
        assert_eq!(contents(Some(Path::new("/proc/self/content.keys")), false, &data).level, "ok", "another disk");
    }

    #[test]
    fn a_running_role_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!running(dir.path()));
        let _lock = crate::running::DataDir::lock(dir.path(), &["admin"]).unwrap();
        assert!(running(dir.path()));
    }
}
