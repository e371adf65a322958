//! What the rig needs to know of processes: trees, their CPU and memory, and ending exactly those that it started.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

const PAUSE: Duration = Duration::from_millis(10);

/// One line of `/proc/PID/stat`, as far as we read it.
struct Stat {
    parent: u32,
    state: char,
    /// Own and of children already collected, in clock ticks.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, state: fields.first()?.chars().next()?, ticks })
}

/// `root` and everything that descends from it, parents first.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// CPU seconds of a tree since it began, including its children that have ended.
pub fn cpu_seconds(root: u32) -> f64 {
    let ticks: u64 = tree(root).into_iter().filter_map(stat).map(|stat| stat.ticks).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// CPU seconds of one process alone, including its children that have ended.
pub fn own_cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0, |stat| stat.ticks) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Proportional memory of a tree: what would be free if it were gone. Of a process that may not be looked into, the resident memory.
pub fn memory_bytes(root: u32) -> u64 {
    let kilobytes = |pid: u32| -> Option<u64> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            text.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
        };
        field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:"))
    };
    tree(root).into_iter().filter_map(kilobytes).sum::<u64>() * 1024
}

/// Whether the process still does anything.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// Sends `signal`; a process that is gone already is as good.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until all of `pids` have ended.
pub fn wait_gone(pids: &[u32], patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while let Some(pid) = pids.iter().copied().find(|pid| is_alive(*pid)) {
        if Instant::now() > deadline {
            bail!("process {pid} still runs after {} s", patience.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Ends a server and all that it started, with [`Signal::KILL`] all at once, and waits until they are gone. What does not end
/// in time is killed.
pub fn end(mut root: Child, how: Signal, patience: Duration) -> Result<()> {
    if how == Signal::KILL {
        // Held first, and waited for: otherwise it starts new children while the old ones are being found.
        signal(root.id(), Signal::STOP);
        let is_held = || Ok(stat(root.id()).is_none_or(|stat| matches!(stat.state, 'T' | 'Z')));
        wait::until_blocking("the server holds still", patience, is_held)?;
    }
    let tree = tree(root.id());
    let first = if how == Signal::KILL { tree.as_slice() } else { &tree[..1] };
    for pid in first {
        signal(*pid, how);
    }
    if wait_gone(&tree, patience).is_err() {
        for pid in &tree {
            signal(*pid, Signal::KILL);
        }
    }
    root.wait()?;
    wait_gone(&tree, patience)
}

/// What a PostgreSQL that was killed leaves in the kernel, by its pid file; its next start would remove it. Nothing to do after a clean
/// end. A machine has room for 4,096 of these.
pub fn remove_shared_memory(pid_file: &Path) {
    let Ok(text) = fs::read_to_string(pid_file) else { return };
    // Line 7: the key and the number of the segment.
    if let Some(number) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["-m", number]).stderr(Stdio::null()).status();
    }
}

/// The process number in the first line of a file.
pub fn pid_in(file: &Path) -> Result<u32> {
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    text.lines().next().unwrap_or_default().trim().parse().context("no process number")
}

/// Ends every process that works in `dir` or names it on its command line: what a killed run left there.
pub fn end_all_in(dir: &Path) -> Result<()> {
    let name = dir.as_os_str().as_encoded_bytes();
    let left: Vec<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| *pid != std::process::id())
        .filter(|pid| {
            let process = Path::new("/proc").join(pid.to_string());
            let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            // Servers only: somebody's editor or shell in there is none of ours.
            let is_server = ["dovecot", "understudy", "postgres"]
                .iter()
                .any(|name| fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.starts_with(name)));
            // A folder whose name goes on is another one.
            let ends = |rest: &[u8]| !rest.first().is_some_and(|c| c.is_ascii_alphanumeric() || b"._-".contains(c));
            let names_it = (0..arguments.len()).filter_map(|at| arguments[at..].strip_prefix(name)).any(ends);
            is_server && (works_there || names_it)
        })
        .flat_map(tree)
        .collect();
    for pid in &left {
        signal(*pid, Signal::KILL);
    }
    wait_gone(&left, Duration::from_secs(60))
}
