//! Failpoints of a running debug build: arm one, see that it is reached, let it go on.
//!
//! In: a name of [`ALL`]. Out: a process that aborts or waits there. Not here: where they are (`understudy_failpoint`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
pub use understudy_failpoint::{ALL, CANARY, MENDING, MERGE, SWITCH, UIDS, VARIABLE};
use understudy_failpoint::{ARMED, REACHED};

use crate::wait;

/// How long traffic may take to get to a place it passes.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a process does at the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ends on the spot, without unwinding, flushing or closing anything in good order.
    Abort,
    /// Waits for [`Failpoints::let_go`].
    Pause,
}

/// The folder in which processes look what is armed.
#[derive(Debug, Clone)]
pub struct Failpoints {
    dir: PathBuf,
}

impl Failpoints {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.join("failpoints") }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// At the `times`th passing from now on.
    pub fn arm(&self, name: &str, times: u32, action: Action) -> Result<()> {
        ensure!(
            [ALL, SWITCH, UIDS, CANARY, MERGE, MENDING].iter().any(|names| names.contains(&name)),
            "there is no failpoint {name}"
        );
        self.let_go()?;
        fs::create_dir_all(&self.dir)?;
        let action = match action {
            Action::Abort => "abort",
            Action::Pause => "pause",
        };
        let new = self.dir.join("new");
        fs::write(&new, format!("{name} {times} {action}\n"))?;
        fs::rename(new, self.dir.join(ARMED)).context("could not arm a failpoint")
    }

    pub fn is_armed(&self) -> bool {
        self.dir.join(ARMED).exists()
    }

    pub fn is_reached(&self) -> bool {
        self.dir.join(REACHED).exists()
    }

    pub async fn reached(&self) -> Result<()> {
        wait::until("the failpoint is reached", PATIENCE, async || Ok(self.is_reached())).await
    }

    /// What is armed is no more.
    pub fn disarm(&self) -> Result<()> {
        self.remove(ARMED)
    }

    /// What waits goes on; what is armed is no more.
    pub fn let_go(&self) -> Result<()> {
        self.disarm()?;
        self.remove(REACHED)
    }

    fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
