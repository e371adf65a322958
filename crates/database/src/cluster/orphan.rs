//! A server that outlived the Understudy that started it: found, stopped, and its traces made harmless.
//!
//! Keeps true: no process is signalled unless it works on our directory; a pid file is removed only when certainly nobody does.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tracing::{info, warn};

use super::{ClusterError, PORT, QUIT_TIMEOUT, STOP_TIMEOUT};

const PAUSE: Duration = Duration::from_millis(20);

/// Stops whatever server still works on `data`, and removes a pid file that would keep a new one from starting.
pub(super) async fn replace(data: &Path, socket_dir: &Path) -> Result<(), ClusterError> {
    let pid_file = data.join("postmaster.pid");
    let Some(pid) = pid_in(&pid_file) else { return Ok(()) };
    if is_ours(pid, data) {
        info!(pid = pid.as_raw_nonzero().get(), "A PostgreSQL left by an earlier run is still there, stopping it");
        stop(pid, data).await?;
    }
    let deadline = Instant::now() + QUIT_TIMEOUT;
    // Sessions of a killed server notice within moments.
    while somebody_works_on(data) && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    if somebody_works_on(data) {
        // PostgreSQL itself refuses to start beside them, and says so.
        warn!("Processes of an earlier PostgreSQL are still ending");
        return Ok(());
    }
    // The number may by now be anybody's, or a zombie's: PostgreSQL would then refuse to start.
    for stale in [pid_file, socket_dir.join(format!(".s.PGSQL.{PORT}.lock"))] {
        match fs::remove_file(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ClusterError::File { action: "remove", path: stale, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

async fn stop(pid: Pid, data: &Path) -> Result<(), ClusterError> {
    for (signal, timeout) in [(Signal::INT, STOP_TIMEOUT), (Signal::QUIT, QUIT_TIMEOUT), (Signal::KILL, QUIT_TIMEOUT)] {
        // Gone already is as good.
        let _ = kill_process(pid, signal);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if test_kill_process(pid).is_err() || !is_ours(pid, data) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(ClusterError::Orphan { pid: pid.as_raw_nonzero().get() })
}

fn pid_in(pid_file: &Path) -> Option<Pid> {
    let text = fs::read_to_string(pid_file).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

/// Whether `pid` is a server on `data`: by its working directory or, where that may not be read, its command line.
fn is_ours(pid: Pid, data: &Path) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    if let Ok(dir) = fs::read_link(process.join("cwd")) {
        return dir == data;
    }
    let command_line = fs::read(process.join("cmdline")).unwrap_or_default();
    command_line.split(|byte| *byte == 0).any(|argument| OsStr::from_bytes(argument) == data.as_os_str())
}

/// Whether any PostgreSQL process works on `data`, or might: one whose directory we may not read.
fn somebody_works_on(data: &Path) -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let process = entry.path();
        if !fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("postgres")) {
            return false;
        }
        match fs::read_link(process.join("cwd")) {
            Ok(dir) => dir == data,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    })
}
