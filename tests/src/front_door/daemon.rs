//! One program that runs in the foreground until it is told to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{process, wait};

const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct Daemon {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it and waits until `answers` says so.
    pub(super) fn start(
        name: &'static str,
        dir: &Path,
        arguments: &[&str],
        answers: impl Fn() -> bool,
    ) -> Result<Self> {
        let log = dir.join("console.log");
        let out = fs::File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(name);
        command.args(arguments).env("PATH", PATH).current_dir(dir);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("could not run {name}"))?;
        let mut daemon = Self { name, log, child };
        wait::until_blocking(&format!("{name} answers"), START_PATIENCE, || {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{name} ended at once with {status}:\n{}", daemon.log_tail());
            }
            Ok(answers())
        })
        .with_context(|| fs::read_to_string(&daemon.log).unwrap_or_default())?;
        Ok(daemon)
    }

    pub(super) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(30);
        text.lines().skip(skip).map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let tree = process::tree(self.child.id());
        // Postfix's script does not pass it on.
        for pid in &tree {
            process::signal(*pid, Signal::TERM);
        }
        if process::wait_gone(&tree, STOP_PATIENCE).is_err() {
            for pid in &tree {
                process::signal(*pid, Signal::KILL);
            }
        }
        if let Err(error) = self.child.wait() {
            eprintln!("{} is left running: {error}", self.name);
        }
    }
}
