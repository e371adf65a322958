//! Processes and folders of a run, and that none of them stays behind.
//!
//! In: commands to start. Out: children that end when dropped.
//! Keeps true: whatever was started here is ended by its own process id and every folder made here is removed,
//! when the benchmark ends, fails or is interrupted.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use understudy_tests::process::{is_alive, signal, tree, wait_gone};

/// After this a process that was asked to end is ended.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(10);

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A program of this run that ends when asked.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("could not start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end and waits until it and its children have.
    pub(crate) fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        let family = tree(self.pid());
        signal(self.pid(), Signal::TERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(STOP_POLL);
        }
        for pid in family.into_iter().filter(|pid| is_alive(*pid)) {
            eprintln!("process {pid} did not end when asked; ending it");
            signal(pid, Signal::KILL);
        }
        // Nothing is left to do about one that even then does not end.
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder of this run, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new folder in `parent` that mail servers under other accounts may pass through.
    pub(crate) fn create(parent: &Path, prefix: &str) -> Result<Self> {
        let path = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?.keep();
        lock().push(path.clone());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
        lock().retain(|path| *path != self.path);
    }
}

/// Ends everything when the benchmark itself is asked to end; destructors do not run then.
pub(crate) async fn clean_up_on_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal as listen};
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("interrupted: stopping the servers of this run");
    tokio::task::spawn_blocking(clean_up).await?;
    std::process::exit(130)
}

fn clean_up() {
    let ours = &tree(std::process::id())[1..];
    ours.iter().for_each(|pid| signal(*pid, Signal::TERM));
    if wait_gone(ours, STOP_PATIENCE).is_err() {
        ours.iter().for_each(|pid| signal(*pid, Signal::KILL));
    }
    lock().iter().for_each(|folder| remove(folder));
}

fn remove(folder: &Path) {
    // A server that is just ending may still write: once more is enough.
    if std::fs::remove_dir_all(folder).is_err() && folder.exists() {
        std::thread::sleep(Duration::from_millis(300));
        if let Err(error) = std::fs::remove_dir_all(folder) {
            eprintln!("could not remove {}: {error}", folder.display());
        }
    }
}

fn lock() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}
