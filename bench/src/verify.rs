//! Verification: how many messages a second are compared, quickly and byte for byte.
//!
//! In: one protected mailbox at rest, the usual mix and a folder of small messages. Out: messages a second, and what the program's
//! memory grew by.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::load::{fill, fill_small};
use crate::memory::{forget_peak, peak_rss_bytes, rss_bytes};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section, median};
use crate::seed::check_complete;
use crate::servers;
use crate::settings::Settings;
use crate::understudy::Installation;
use crate::workload::Workload;

const MIB: f64 = 1024.0 * 1024.0;
/// Small messages besides the usual mix, at full scale.
const SMALL: u32 = 20_000;
const LEAST_SMALL: u32 = 1_000;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    let store = settings.quick_store();
    let workload = Workload::one_large(settings.scale);
    let names = workload.names();
    let folder = store.folder("verify")?;
    let primary = servers::start(folder.path(), "primary", &names)?;
    let standby = servers::start(folder.path(), "standby", &names)?;
    fill(&primary, &workload)?;
    let small = settings.scaled(SMALL, LEAST_SMALL);
    fill_small(&primary, &names[0], "INBOX", 0, small)?;
    let installation = Installation::create(settings.program()?, folder.path(), &primary, &standby)?;
    let understudy = installation.start()?;
    understudy.protect(&names)?;
    understudy.wait_all()?;
    check_complete(&primary, &standby, &names)?;
    let messages = workload.total_messages() + u64::from(small);
    let mut section = Section::new(format!("Verifying {messages} messages in one mailbox, {}", store.kind()));
    let before = rss_bytes(understudy.pid())?;
    forget_peak(understudy.pid())?;
    for (name, arguments, goal) in [
        ("quick", &["mailbox", "verify", "--all"][..], None),
        ("deep", &["mailbox", "verify", "--all", "--deep"][..], Some(3000.0)),
    ] {
        let mut rates = Vec::new();
        for _ in 0..settings.rounds {
            let started = Instant::now();
            let said = understudy.command(arguments)?;
            ensure!(said.contains("equal"), "verification found differences:\n{said}");
            rates.push(messages as f64 / started.elapsed().as_secs_f64());
        }
        let rate = median(&rates);
        match goal {
            Some(least) => section.goal(format!("{name}, median"), rate, "messages/s", Goal::AtLeast(least)),
            None => section.figure(format!("{name}, median"), rate, "messages/s"),
        }
    }
    let growth = peak_rss_bytes(understudy.pid())?.saturating_sub(before);
    section.figure("gateways, growth of resident memory at the peak", growth as f64 / MIB, "MiB");
    understudy.stop();
    report.add(section);
    Ok(())
}
