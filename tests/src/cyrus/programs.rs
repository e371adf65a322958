//! Where Cyrus's programs are, and as whom they run.
//!
//! Not here: getting them (`.ci/cyrus`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Cyrus's programs and libraries.
pub(super) struct Programs {
    root: PathBuf,
}

impl Programs {
    /// What `.ci/cyrus` unpacked; where the system user of the server could not go there, a copy in `dir`.
    pub(super) fn find(dir: &Path) -> Result<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project has no folder")?;
        let root = project.join("target/cyrus");
        ensure!(
            root.join("complete").exists(),
            "Cyrus is not there for the tests: run .ci/cyrus, which says why if it cannot"
        );
        let is_open = |dir: &Path| fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
        if !rustix::process::geteuid().is_root() || root.ancestors().all(is_open) {
            return Ok(Self { root });
        }
        let copy = dir.join("programs");
        let copied = Command::new("cp").arg("-r").arg("--preserve=mode,links").arg(&root).arg(&copy).status()?;
        ensure!(copied.success(), "could not copy Cyrus to {}", copy.display());
        Ok(Self { root: copy })
    }

    pub(super) fn bin(&self) -> PathBuf {
        self.root.join("usr/lib/cyrus/bin")
    }

    /// One of them, by its place in the packages.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        let libraries = [self.libraries(), vec![self.root.join("usr/lib/cyrus")]].concat();
        let plugins = self.libraries().into_iter().chain(["/usr/lib".into()].into_iter().flat_map(multiarch));
        let join =
            |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        command.env("LD_LIBRARY_PATH", join(libraries));
        command.env("SASL_PATH", join(plugins.map(|libraries| libraries.join("sasl2")).collect()));
        command
    }

    fn libraries(&self) -> Vec<PathBuf> {
        ["usr/lib", "lib"].into_iter().flat_map(|part| multiarch(self.root.join(part))).collect()
    }
}

/// `x86_64-linux-gnu` and the like in `dir`.
fn multiarch(dir: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")).collect()
}

/// Cyrus asks for a system user by name and never runs as root.
pub(super) fn system_user() -> String {
    name("-un", "nobody")
}

pub(super) fn system_group() -> String {
    name("-gn", "nogroup")
}

fn name(flag: &str, instead_of_root: &str) -> String {
    if rustix::process::geteuid().is_root() {
        return instead_of_root.to_owned();
    }
    let output = Command::new("id").arg(flag).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The number of that user (`-u`) or its group (`-g`).
pub(super) fn number(flag: &str) -> Result<u32> {
    let output = Command::new("id").arg(flag).arg(system_user()).output().context("could not run id")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the system user of Cyrus has no number")
}
