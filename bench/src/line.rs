//! Two sites at the ends of a thin line, and of a bad one.
//!
//! In: 20 Mbit/s; 40 ms each way with live changes during a first copy, then a round trip of 100 ms with one packet in a hundred lost.
//! Out: how long live changes take, how full the line is, and whether all of it arrived.
//! Keeps true: what is full is counted where the packets come out, with the heads of IP and TCP.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use understudy_tests::dovecot::Dovecot;

use crate::live::observe;
use crate::load;
use crate::packets::{Packets, Way};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section};
use crate::seed::check_complete;
use crate::servers;
use crate::settings::Settings;
use crate::traffic::{self, CHANGES_A_SECOND, MAILBOXES};
use crate::two_sites::TwoSites;
use crate::workload::Workload;

const RATE: u64 = 20_000_000 / 8;
const THIN: Duration = Duration::from_millis(40);
const BAD: Duration = Duration::from_millis(50);
const LOST: f64 = 0.01;
/// Seconds of live changes.
const FULL_SECONDS: u32 = 60;
const LEAST_SECONDS: u32 = 10;
/// So many messages keep the line busy for a second; and how long besides the changes it must be.
const MESSAGES_A_SECOND: f64 = 130.0;
const BESIDES_SECONDS: u32 = 30;
/// What must have passed of a first copy before it counts as running, in bytes.
const RUNNING: u64 = 4 << 20;
/// The first and the last bytes of a copy fill no line.
const MIDDLE: [f64; 2] = [0.05, 0.95];
const SAMPLE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(300);
const MB: f64 = 1_000_000.0;

const CONGESTION_CONTROLS: [&str; 2] = ["bbr", "cubic"];

/// Why no line can be laid on this machine, if none can: it takes root, and a kernel that has what it is made of.
pub(crate) fn obstacle() -> Option<anyhow::Error> {
    CONGESTION_CONTROLS.iter().find_map(|congestion_control| {
        Packets::lay(Way { delay: THIN, bytes_a_second: RATE, lost: 0.0, congestion_control }).err()
    })
}

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    report.add(thin(settings)?);
    for congestion_control in CONGESTION_CONTROLS {
        report.add(bad(settings, congestion_control)?);
    }
    Ok(())
}

fn thin(settings: &Settings) -> Result<Section> {
    let seconds = settings.scaled(FULL_SECONDS, LEAST_SECONDS);
    let mut section = Section::new(format!(
        "20 Mbit/s, {} ms each way: {CHANGES_A_SECOND} changes a second in {MAILBOXES} mailboxes for {seconds} s during a first copy",
        THIN.as_millis()
    ));
    let folder = settings.quick_store().folder("thin")?;
    let live = Workload::live(MAILBOXES, settings.scale);
    let messages = f64::from(seconds + BESIDES_SECONDS) * MESSAGES_A_SECOND;
    // Mailboxes of 300 messages, as a first copy of a server has many.
    let many = Workload::many(messages / Workload::many(1.0).total_messages() as f64);
    let names = live.names();
    let all = [live.names(), many.names()].concat();
    let primary = servers::start(folder.path(), "primary", &all)?;
    let standby = servers::start(folder.path(), "standby", &all)?;
    traffic::prepare(&primary, &live, seconds)?;
    load::fill(&primary, &many)?;
    let way = Way { delay: THIN, bytes_a_second: RATE, lost: 0.0, congestion_control: "cubic" };
    let packets = lay(&mut section, way)?;
    let sites = start(settings, folder.path(), &primary, &standby, &packets)?;
    sites.protect("primary", &names)?;
    sites.wait_all()?;
    let before = packets.bytes_there();
    sites.protect("primary", &many.names())?;
    let deadline = Instant::now() + DEADLINE;
    while packets.bytes_there() < before + RUNNING {
        ensure!(Instant::now() < deadline, "the first copy did not begin within {DEADLINE:?}");
        std::thread::sleep(SAMPLE);
    }
    let (trial, samples) =
        sampled(&packets, || observe(Peer::Understudy, [&primary, &standby], None, &names, seconds, 0))?;
    let running = sites.command(&["mailbox", "list", "--state", "seeding", "--json"])?;
    let began = samples.first().context("no sample was taken")?.0;
    let full = rate(&samples, began, samples.last().map_or(began, |last| last.0)) / RATE as f64;
    ensure!(
        running.contains("address"),
        "the first copy ended before the changes did; nothing can be said of the line"
    );
    for (label, share) in [("p50", 0.5), ("p90", 0.9), ("longest", 1.0)] {
        section.figure(format!("live change to visible: {label}"), trial.at(share) / 1000.0, "s");
    }
    section.goal("live change to visible: p99", trial.at(0.99) / 1000.0, "s", Goal::AtMost(2.0));
    section.goal("live changes not seen in time", trial.not_seen as f64, "", Goal::AtMost(0.0));
    section.figure("packets lost where a router would run full", packets.lost() as f64, "");
    section.goal("the line towards the recovery site is full to", full * 100.0, "%", Goal::AtLeast(95.0));
    finish(&mut section, sites, &primary, &standby, &all)?;
    Ok(section)
}

fn bad(settings: &Settings, congestion_control: &'static str) -> Result<Section> {
    let mut section = Section::new(format!(
        "20 Mbit/s, round trip {} ms, {} % of packets lost, {congestion_control}: a first copy",
        2 * BAD.as_millis(),
        LOST * 100.0
    ));
    let folder = settings.quick_store().folder("bad")?;
    let workload = Workload::one_large((settings.scale * 0.3).max(0.06));
    let names = workload.names();
    let primary = servers::start(folder.path(), "primary", &names)?;
    let standby = servers::start(folder.path(), "standby", &names)?;
    load::fill(&primary, &workload)?;
    let packets = lay(&mut section, Way { delay: BAD, bytes_a_second: RATE, lost: LOST, congestion_control })?;
    let sites = start(settings, folder.path(), &primary, &standby, &packets)?;
    let ((), samples) = sampled(&packets, || {
        sites.protect("primary", &names)?;
        sites.wait_all()
    })?;
    let (first, last) = (samples.first().context("no sample was taken")?.1, samples.last().map_or(0, |last| last.1));
    let [from, to] = MIDDLE.map(|share| {
        let passed = first + ((last - first) as f64 * share) as u64;
        samples.iter().find(|sample| sample.1 >= passed).map(|sample| sample.0)
    });
    let (from, to) = (from.context("nothing passed")?, to.context("nothing passed")?);
    section.figure("came through towards the recovery site", (last - first) as f64 / MB, "MB");
    section.figure("packets lost, both directions", packets.lost() as f64, "");
    let full = rate(&samples, from, to) / RATE as f64;
    section.goal("the line towards the recovery site is full to", full * 100.0, "%", Goal::AtLeast(60.0));
    finish(&mut section, sites, &primary, &standby, &names)?;
    Ok(section)
}

fn lay(section: &mut Section, way: Way) -> Result<Packets> {
    section.note(format!(
        "network namespaces, and packets that a relay in user space delays, paces and drops (no tc netem); {} at both ends; TLS",
        way.congestion_control
    ));
    Packets::lay(way).context("the line could not be laid")
}

fn start(
    settings: &Settings,
    folder: &std::path::Path,
    primary: &Dovecot,
    standby: &Dovecot,
    packets: &Packets,
) -> Result<TwoSites> {
    TwoSites::start_apart(settings.program()?, folder, &[("primary".to_owned(), primary)], standby, packets)
}

/// All has arrived, and each message as it was.
fn finish(
    section: &mut Section,
    sites: TwoSites,
    primary: &Dovecot,
    standby: &Dovecot,
    names: &[String],
) -> Result<()> {
    sites.wait_all()?;
    check_complete(primary, standby, names)?;
    let said = sites.command(&["mailbox", "verify", "--all", "--deep"])?;
    ensure!(said.contains("equal"), "verification found differences:\n{said}");
    section.goal("mailboxes not equal afterwards, content by content", 0.0, "", Goal::AtMost(0.0));
    sites.stop();
    Ok(())
}

type Sample = (Instant, u64);

/// What has come through towards the recovery site, again and again.
fn sampled<T>(packets: &Packets, act: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Sample>)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let mut samples = Vec::new();
            while !done.load(Ordering::Relaxed) {
                samples.push((Instant::now(), packets.bytes_there()));
                std::thread::sleep(SAMPLE);
            }
            samples
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        Ok((result?, sampling.join().expect("the sampling thread panicked")))
    })
}

/// Bytes a second between two samples.
fn rate(samples: &[Sample], from: Instant, to: Instant) -> f64 {
    let within: Vec<_> = samples.iter().filter(|sample| sample.0 >= from && sample.0 <= to).collect();
    let (Some(first), Some(last)) = (within.first(), within.last()) else { return 0.0 };
    (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
}
