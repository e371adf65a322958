//! What protected mailboxes cost in which nothing happens.
//!
//! In: 1,000 small mailboxes. Out: CPU a mailbox and second, memory, and bytes on the link.
//! Keeps true: counted only after the mailboxes have cooled down, over a stretch longer than the slowest heartbeat.

use std::time::Duration;

use anyhow::Result;
use understudy_tests::process;

use crate::link::LinkBytes;
use crate::load::{create_folders, fill_small};
use crate::memory::rss_bytes;
use crate::meter::Meter;
use crate::peer::Peer;
use crate::report::{Goal, Report, Section};
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::understudy::Installation;

const FULL_MAILBOXES: u32 = 1_000;
const LEAST_MAILBOXES: u32 = 20;
const FOLDERS: [&str; 5] = ["INBOX", "Sent", "Drafts", "Archive", "Junk"];
const MESSAGES_EACH: u32 = 10;
/// A mailbox that just changed is asked often for some seconds; after this all are quiet.
const FULL_COOL_DOWN: u32 = 90;
/// Twice the half minute in which a quiet mailbox is asked once.
const FULL_STRETCH: u32 = 60;
const LEAST_SECONDS: u32 = 15;
const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    let store = settings.quick_store();
    let mailboxes = settings.scaled(FULL_MAILBOXES, LEAST_MAILBOXES);
    let mut section = Section::new(format!("{mailboxes} idle mailboxes, {}", store.kind()));
    let folder = store.folder("idle")?;
    let names: Vec<_> = (0..mailboxes).map(|number| format!("idle{number:04}")).collect();
    let primary = servers::start_for_many(folder.path(), "primary", &names)?;
    let standby = servers::start_for_many(folder.path(), "standby", &names)?;
    for name in &names {
        create_folders(&mut log_in(&primary, name)?, &FOLDERS)?;
        fill_small(&primary, name, "INBOX", 0, MESSAGES_EACH)?;
    }
    let installation = Installation::create(settings.program()?, folder.path(), &primary, &standby)?;
    let understudy = installation.start()?;
    understudy.protect(&names)?;
    understudy.wait_all()?;
    std::thread::sleep(Duration::from_secs(settings.scaled(FULL_COOL_DOWN, LEAST_SECONDS).into()));
    let stretch = Duration::from_secs(settings.scaled(FULL_STRETCH, LEAST_SECONDS).into());
    let bytes_before = LinkBytes::read(understudy.link_port())?;
    let meter = Meter::start(&[&primary], Some(understudy.pid()));
    let gateway = Meter::start(&[], Some(understudy.pid()));
    let recovery = Meter::start(&[&standby], None);
    std::thread::sleep(stretch);
    let (all, gateway, recovery) = (meter.read(), gateway.read(), recovery.read());
    let bytes = LinkBytes::read(understudy.link_port())?.since(&bytes_before);
    let bytes_a_second = bytes as f64 / all.wall_seconds;
    let per_mailbox = |cpu: f64, wall: f64| cpu * 1_000.0 / wall / f64::from(mailboxes);
    section.goal(
        "gateways, database and primary, CPU a mailbox and second",
        per_mailbox(all.cpu_seconds, all.wall_seconds),
        "ms",
        Goal::AtMost(0.1),
    );
    section.figure("of these, gateways and database", per_mailbox(gateway.cpu_seconds, gateway.wall_seconds), "ms");
    section.figure(
        "the standby, CPU a mailbox and second",
        per_mailbox(recovery.cpu_seconds, recovery.wall_seconds),
        "ms",
    );
    let allowed = 150.0 + f64::from(mailboxes) / 16.0;
    section.goal(
        "gateways, resident memory of the process",
        rss_bytes(understudy.pid())? as f64 / MIB,
        "MiB",
        Goal::AtMost(allowed),
    );
    section.figure(
        "gateways and database, proportional memory of the tree",
        process::memory_bytes(understudy.pid()) as f64 / MIB,
        "MiB",
    );
    section.figure("primary, proportional memory", primary.memory_bytes() as f64 / MIB, "MiB");
    // One heartbeat for all: whatever grows with mailboxes would pass this at once.
    section.goal("bytes on the link a second, all mailboxes together", bytes_a_second, "B/s", Goal::AtMost(512.0));
    understudy.stop();
    report.add(section);
    Ok(())
}
