//! One process of Understudy.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{config_file, program};
use crate::failpoint::{self, Failpoints};
use crate::process;

/// A clean stop includes that of PostgreSQL.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
const LOG_LINES: usize = 60;

pub(super) struct Role {
    pub(super) name: &'static str,
    dir: PathBuf,
    arguments: Vec<String>,
    /// Its time zone, where it matters.
    zone: Option<String>,
    child: Option<Child>,
}

impl Role {
    pub(super) fn new(name: &'static str, dir: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { name, dir: dir.to_owned(), arguments, zone: None, child: None }
    }

    pub(super) fn in_zone(self, zone: &str) -> Self {
        Self { zone: Some(zone.to_owned()), ..self }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(program()?);
        command
            .arg(self.name)
            .args(&self.arguments)
            .env("UNDERSTUDY_CONFIG", config_file(&self.dir))
            .env(failpoint::VARIABLE, Failpoints::in_dir(&self.dir).dir())
            .current_dir(&self.dir)
            .envs(self.zone.as_ref().map(|zone| ("TZ", zone)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("could not start understudy {}", self.name))?);
        Ok(())
    }

    /// How it ended, if it did by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.as_mut()?.try_wait() {
            Ok(Some(status)) => Some(format!("understudy {} ended with {status}", self.name)),
            _ => None,
        }
    }

    /// Whether it aborted; then it can be started again.
    pub(super) fn aborted(&mut self) -> bool {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let aborted = status.is_some_and(|status| status.signal() == Some(Signal::ABORT.as_raw()));
        if aborted {
            self.child = None;
        }
        aborted
    }

    /// Whether it ended by itself; then it can be started again.
    pub(super) fn give_up_ended(&mut self) -> bool {
        let ended = self.ended().is_some();
        if ended {
            self.child = None;
        }
        ended
    }

    /// `whole`: its children get the signal too.
    pub(super) fn end(&mut self, signal: Signal, whole: bool) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let tree = process::tree(child.id());
        for pid in if whole { tree.as_slice() } else { &tree[..1] } {
            process::signal(*pid, signal);
        }
        let stopped = process::wait_gone(&tree[..1], STOP_PATIENCE);
        if stopped.is_err() {
            process::signal(child.id(), Signal::KILL);
        }
        child.wait()?;
        if whole {
            process::wait_gone(&tree, STOP_PATIENCE)?;
        }
        stopped
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(LOG_LINES);
        let lines = text.lines().skip(skip).map(|line| format!("  {line}\n")).collect::<String>();
        format!("understudy {}, end of its log:\n{lines}", self.name)
    }
}
