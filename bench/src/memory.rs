//! How much memory one process holds, and held at most.

use std::fs;

use anyhow::{Context, Result};

pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The highest resident memory since the process began or [`forget_peak`] was called.
pub(crate) fn peak_rss_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Lets [`peak_rss_bytes`] start again from the present.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .with_context(|| format!("could not reset the memory peak of process {pid}"))
}

fn status_bytes(pid: u32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Ok(kib.with_context(|| format!("process {pid} shows no {key}"))? * 1024)
}
