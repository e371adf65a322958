//! Memory while one very large message passes through the whole chain.
//!
//! In: a protected mailbox at rest and a message of 100 MB. Out: by how much the process grew at its peak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use understudy_tests::process;

use crate::load::fill_small;
use crate::memory::{forget_peak, peak_rss_bytes, rss_bytes};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section};
use crate::seed::check_complete;
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::understudy::Installation;
use crate::workload::huge_message;

const FULL_BYTES: u32 = 100 << 20;
const LEAST_BYTES: u32 = 10 << 20;
/// From the first copies to rest.
const REST: Duration = Duration::from_secs(5);
/// A message needs about a second, so that a peak is not missed.
const SAMPLE: Duration = Duration::from_millis(25);
const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    let store = settings.quick_store();
    let bytes = settings.scaled(FULL_BYTES, LEAST_BYTES);
    let mut section = Section::new(format!("A message of {:.0} MiB passes, {}", f64::from(bytes) / MIB, store.kind()));
    let folder = store.folder("large")?;
    let names = [String::from("large")];
    let primary = servers::start(folder.path(), "primary", &names)?;
    let standby = servers::start(folder.path(), "standby", &names)?;
    fill_small(&primary, &names[0], "INBOX", 0, 50)?;
    let message = huge_message(bytes as usize);
    let installation = Installation::create(settings.program()?, folder.path(), &primary, &standby)?;
    let understudy = installation.start()?;
    understudy.protect(&names)?;
    understudy.wait_all()?;
    std::thread::sleep(REST);
    let pid = understudy.pid();
    let before = rss_bytes(pid)?;
    let tree_before = process::memory_bytes(pid);
    forget_peak(pid)?;
    let passed = AtomicBool::new(false);
    let tree_peak = std::thread::scope(|scope| {
        let sampling = scope.spawn(|| highest_tree(pid, &passed));
        let result = log_in(&primary, &names[0])
            .and_then(|mut client| client.append("INBOX", &[message]))
            .and_then(|()| understudy.wait_all());
        passed.store(true, Ordering::Relaxed);
        result.map(|()| sampling.join().expect("the sampling thread panicked"))
    })?;
    let peak = peak_rss_bytes(pid)?;
    check_complete(&primary, &standby, &names)?;
    section.figure("gateways, resident memory before", before as f64 / MIB, "MiB");
    section.goal("gateways, growth at the peak", peak.saturating_sub(before) as f64 / MIB, "MiB", Goal::AtMost(64.0));
    section.figure(
        "gateways and database, growth of the tree at its sampled peak",
        tree_peak.saturating_sub(tree_before) as f64 / MIB,
        "MiB",
    );
    understudy.stop();
    report.add(section);
    Ok(())
}

fn highest_tree(pid: u32, passed: &AtomicBool) -> u64 {
    let mut highest = 0;
    while !passed.load(Ordering::Relaxed) {
        highest = highest.max(process::memory_bytes(pid));
        std::thread::sleep(SAMPLE);
    }
    highest
}
