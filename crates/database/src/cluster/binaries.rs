//! Finds the PostgreSQL programs, and the right version of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::ClusterError;

/// Where Debian and Ubuntu put each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// One installed PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    dir: PathBuf,
    /// As in `PG_VERSION`, such as `15`.
    pub(super) version: String,
}

impl Binaries {
    /// The first installed PostgreSQL; where there is data already, the first of the version that wrote it.
    pub(super) fn find(data_version: Option<&str>) -> Result<Self, ClusterError> {
        let installed: Vec<Self> = candidates().into_iter().filter_map(Self::at).collect();
        match data_version {
            None => installed.into_iter().next().ok_or(ClusterError::NoBinaries),
            Some(_) if installed.is_empty() => Err(ClusterError::NoBinaries),
            Some(data) => {
                let found = installed.iter().map(|one| one.version.as_str()).collect::<Vec<_>>().join(", ");
                let fits = installed.into_iter().find(|one| one.version == data);
                fits.ok_or(ClusterError::OtherVersion { data: data.to_owned(), found })
            }
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn at(dir: PathBuf) -> Option<Self> {
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
        let version = major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { dir, version })
    }
}

/// In order of preference; the same directory may come twice.
fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = env::var_os("PG_BIN").map(PathBuf::from).into_iter().collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir(Path::new(DEBIAN))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    dirs.extend(debian.into_iter().map(|(_, dir)| dir));
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    dirs
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → `15`.
fn major(version: &str) -> Option<String> {
    let number = version.split_whitespace().nth(2)?;
    let major: String = number.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_prints() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15"));
        assert_eq!(major("postgres (PostgreSQL) 18beta2").as_deref(), Some("18"));
        assert_eq!(major(""), None);
    }

    #[test]
    fn data_of_another_version_is_refused() {
        let error = Binaries::find(Some("9.4")).unwrap_err();
        assert!(matches!(error, ClusterError::OtherVersion { .. } | ClusterError::NoBinaries), "{error}");
    }
}
