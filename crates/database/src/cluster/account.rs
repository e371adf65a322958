//! The unprivileged user that PostgreSQL runs as when we are root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use super::ClusterError;

/// In the order in which they are looked for.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A user that is not root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` when we are not root: the server then simply runs as we do.
    pub(super) fn for_server() -> Result<Option<Self>, ClusterError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = USERS.iter().find_map(|name| Self::in_passwd(&passwd, name));
        found.map(Some).ok_or(ClusterError::NoAccount)
    }

    fn in_passwd(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        let (uid, gid) = (ids.next()?.ok()?, ids.next()?.ok()?);
        (uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
    }

    /// Makes `path` this user's.
    pub(super) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        let own = chown(path, Some(self.uid), Some(self.gid));
        own.map_err(|source| ClusterError::File { action: "hand over", path: path.to_owned(), source })
    }

    /// Fails with the first directory above `dir` that this user may not pass. `dir` itself is ours to hand over.
    pub(super) fn check_can_reach(&self, dir: &Path) -> Result<(), ClusterError> {
        let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            let metadata = fs::metadata(dir).map_err(|source| ClusterError::File {
                action: "look at",
                path: dir.to_owned(),
                source,
            })?;
            if !self.may_enter(&metadata) {
                return Err(ClusterError::NotTraversable { user: self.name.clone(), dir: dir.to_owned() });
            }
        }
        Ok(())
    }

    /// The classic permission bits, of which only the first class that fits counts.
    fn may_enter(&self, metadata: &fs::Metadata) -> bool {
        let bit = if metadata.uid() == self.uid {
            0o100
        } else if metadata.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        metadata.mode() & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\nbad:x:y:1::/:\n";

    #[test]
    fn a_user_is_found_by_its_whole_name_and_never_root() {
        let account = Account::in_passwd(PASSWD, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        for name in ["root", "post", "bad", "nobody"] {
            assert!(Account::in_passwd(PASSWD, name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_closed_directory_above_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let closed = temp.path().join("closed");
        fs::create_dir_all(closed.join("data")).unwrap();
        let set = |mode| fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };
        set(0o700);
        let error = stranger.check_can_reach(&closed.join("data")).unwrap_err();
        assert!(matches!(&error, ClusterError::NotTraversable { dir, .. } if *dir == closed), "{error}");
        assert!(error.remedy().contains(&closed.display().to_string()));
        set(0o711);
        stranger.check_can_reach(&closed.join("data")).unwrap();
    }
}
