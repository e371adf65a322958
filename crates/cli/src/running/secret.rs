//! Secrets that lie in files: read, or, where both ends are ours, made.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::Rng;
use rand::distr::Alphanumeric;
use secrecy::SecretString;

use crate::config::LinkSecret;
use crate::failure::{Failure, Result};

const LENGTH: usize = 48;
/// What a person chose must be at least so long.
const SHORTEST: usize = 16;

/// Whether both ends of the link are in this process, so that it can make up their secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnds {
    BothHere,
    OneHere,
}

/// The secret both ends of the link know.
pub(crate) fn link_secret(secret: &LinkSecret, data_dir: &Path, ends: LinkEnds) -> Result<SecretString> {
    match secret {
        LinkSecret::Given(secret) => Ok(secret.clone()),
        LinkSecret::File(path) => {
            let text = first_line(path, "the link's secret")?;
            match text.len() >= SHORTEST {
                true => Ok(SecretString::from(text)),
                false => Err(Failure::usage(
                    "the link's secret is too short",
                    format!("{} holds fewer than {SHORTEST} characters", path.display()),
                    "write a longer one to it, at both sites: openssl rand -hex 32",
                )),
            }
        }
        LinkSecret::Own if ends == LinkEnds::OneHere => Err(Failure::usage(
            "the link has no secret",
            "the two gateways run apart and must know the same one",
            "write one to a file at both sites (openssl rand -hex 32) and name it as `secret_file` under [link]",
        )),
        LinkSecret::Own => own(&data_dir.join("link.secret")),
    }
}

fn own(path: &Path) -> Result<SecretString> {
    if path.exists() {
        return first_line(path, "the link's secret").map(SecretString::from);
    }
    let secret: String = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
    // Written beside and renamed: a crash half way leaves no half a secret.
    let fresh = path.with_extension("new");
    let written = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| writeln!(file, "{secret}").and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| {
        Failure::new(
            format!("{} cannot be written", path.display()),
            error.to_string(),
            "check that this user may write to data_dir",
        )
    })?;
    Ok(SecretString::from(secret))
}

/// The first line of a file that holds a secret.
pub(crate) fn first_line(path: &Path, what: &str) -> Result<String> {
    let failure = |why: String| {
        Failure::usage(
            format!("{what} cannot be read"),
            format!("{}: {why}", path.display()),
            "name a file that this user can read and whose first line it is",
        )
    };
    let text = fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(failure("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn an_own_secret_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = link_secret(&LinkSecret::Own, dir.path(), LinkEnds::BothHere).unwrap();
        let again = link_secret(&LinkSecret::Own, dir.path(), LinkEnds::BothHere).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        assert_eq!(first.expose_secret().len(), LENGTH);
        let mode = fs::metadata(dir.path().join("link.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn gateways_apart_must_be_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let refused = link_secret(&LinkSecret::Own, dir.path(), LinkEnds::OneHere).unwrap_err().to_string();
        assert!(refused.contains("secret_file"), "{refused}");
        let short = dir.path().join("short");
        fs::write(&short, "abc\n").unwrap();
        assert!(link_secret(&LinkSecret::File(short), dir.path(), LinkEnds::OneHere).is_err());
    }
}
