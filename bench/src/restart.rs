//! From the start of the program to caught up, when nothing has changed meanwhile.
//!
//! In: one folder with few, then with very many messages. Out: seconds for both; the cost must not grow with messages.
//! Keeps true: the clock starts before the process and stops when the barrier says that the standby has everything.

use std::time::Instant;

use anyhow::Result;
use understudy_tests::dovecot::Dovecot;

use crate::load::fill_small;
use crate::meter::{Cost, Meter};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section, median};
use crate::seed::check_complete;
use crate::servers;
use crate::settings::Settings;
use crate::understudy::{Installation, Understudy};

const FULL_MESSAGES: u32 = 100_000;
const LEAST_MESSAGES: u32 = 2_000;
/// What is restarted first, to compare with.
const FEW_MESSAGES: u32 = 100;
const FOLDER: &str = "INBOX";

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    let store = settings.quick_store();
    let messages = settings.scaled(FULL_MESSAGES, LEAST_MESSAGES);
    let mut section =
        Section::new(format!("Restart, nothing changed, {messages} messages in one folder, {}", store.kind()));
    let folder = store.folder("restart")?;
    let names = [String::from("restart")];
    let primary = servers::start(folder.path(), "primary", &names)?;
    let standby = servers::start(folder.path(), "standby", &names)?;
    fill_small(&primary, &names[0], FOLDER, 0, FEW_MESSAGES)?;
    let installation = Installation::create(settings.program()?, folder.path(), &primary, &standby)?;
    let understudy = installation.start()?;
    understudy.protect(&names)?;
    understudy.wait_all()?;
    let (understudy, few) = restart(settings, &installation, understudy, [&primary, &standby])?;
    fill_small(&primary, &names[0], FOLDER, FEW_MESSAGES, messages)?;
    let seeding = Instant::now();
    understudy.wait_all()?;
    section.note(format!(
        "the other {} messages were copied in {:.1} s",
        messages - FEW_MESSAGES,
        seeding.elapsed().as_secs_f64()
    ));
    let (understudy, many) = restart(settings, &installation, understudy, [&primary, &standby])?;
    check_complete(&primary, &standby, &names)?;
    understudy.stop();
    let wall = |costs: &[Cost]| median(&costs.iter().map(|cost| cost.wall_seconds).collect::<Vec<_>>());
    let cpu = |costs: &[Cost]| median(&costs.iter().map(|cost| cost.cpu_seconds).collect::<Vec<_>>());
    section.goal("start to caught up", wall(&many), "s", Goal::AtMost(5.0));
    section.figure(format!("the same with {FEW_MESSAGES} messages"), wall(&few), "s");
    section.figure("CPU, gateways, database and both servers", cpu(&many), "s");
    section.figure(format!("the same with {FEW_MESSAGES} messages"), cpu(&few), "s");
    report.add(section);
    Ok(())
}

/// Stops and starts the program as often as there are rounds.
fn restart(
    settings: &Settings,
    installation: &Installation,
    mut understudy: Understudy,
    servers: [&Dovecot; 2],
) -> Result<(Understudy, Vec<Cost>)> {
    let mut costs = Vec::new();
    for _ in 0..settings.rounds {
        understudy.stop();
        let meter = Meter::start(&servers, None);
        understudy = installation.start()?;
        understudy.wait_all()?;
        let cost = meter.read();
        let own = understudy_tests::process::cpu_seconds(understudy.pid());
        costs.push(Cost { cpu_seconds: cost.cpu_seconds + own, ..cost });
    }
    Ok((understudy, costs))
}
