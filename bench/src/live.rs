//! From a change on the primary to its being visible on the standby, under steady traffic.
//!
//! In: 10 mailboxes with 20 changes a second. Out: p50, p90, p99 and the longest wait, for Understudy, Dovecot's
//! replicator and mbsync in a tight loop, in the same run.
//! Keeps true: each peer has servers of its own, the same traffic and the same watchers; a change that was not seen
//! in time is counted, never left out silently.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use understudy_tests::dovecot::Dovecot;

use crate::mbsync::Mbsync;
use crate::meter::Meter;
use crate::peer::Peer;
use crate::report::{Goal, Report, Section, median, percentile};
use crate::seed::check_complete;
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::traffic::{self, ARCHIVE, CHANGES_A_SECOND, Change, Kind, MAILBOXES, Traffic};
use crate::understudy::Installation;
use crate::watch::{Place, Sight, Sightings, Watcher};
use crate::workload::Workload;

const FULL_SECONDS: u32 = 20;
const LEAST_SECONDS: u32 = 4;
/// What is not visible this long after the last change counts as not seen.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between seeding and the first change, so that everybody starts from rest.
const REST: Duration = Duration::from_secs(2);
const FIRST_COPY_DEADLINE: Duration = Duration::from_secs(120);
/// The replicator's p50 where other work took most of both processors; on a machine at rest it is far quicker.
const BUSY_REPLICATOR: Goal = Goal::AtMost(600.0);
const PEERS: [Peer; 3] = [Peer::Replicator, Peer::Understudy, Peer::Mbsync];

/// One peer's round.
pub(crate) struct Trial {
    peer: Peer,
    /// Milliseconds, sorted.
    waits: Vec<f64>,
    pub(crate) not_seen: usize,
    cpu_ms_a_change: f64,
}

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let store = settings.quick_store();
    let seconds = settings.scaled(FULL_SECONDS, LEAST_SECONDS);
    let mut section = Section::new(format!(
        "Change to visible: {MAILBOXES} mailboxes, {CHANGES_A_SECOND} changes a second for {seconds} s, {}",
        store.kind()
    ));
    let mut trials = Vec::new();
    for round in 0..settings.rounds {
        for peer in PEERS.into_iter().filter(|peer| settings.measures(*peer)) {
            let trial = run(settings, peer, seconds, round)
                .with_context(|| format!("the traffic behind {} could not be measured", peer.name()))?;
            section.note(trial.describe(round));
            trials.push(trial);
        }
    }
    add_figures(&mut section, &trials);
    report.add(section);
    Ok(())
}

fn run(settings: &Settings, peer: Peer, seconds: u32, round: usize) -> Result<Trial> {
    let folder = settings.quick_store().folder("live")?;
    let mailboxes = Workload::live(MAILBOXES, settings.scale);
    let names = mailboxes.names();
    let (primary, standby) = match peer {
        Peer::Replicator => servers::start_replicated(folder.path(), &names)?,
        _ => (servers::start(folder.path(), "primary", &names)?, servers::start(folder.path(), "standby", &names)?),
    };
    traffic::prepare(&primary, &mailboxes, seconds)?;
    let trial = |program| observe(peer, [&primary, &standby], program, &names, seconds, round);
    match peer {
        Peer::Replicator => {
            wait_until_complete(&primary, &standby, &names)?;
            trial(None)
        }
        Peer::Understudy => {
            let place = folder.path();
            let installation = Installation::create(settings.program()?, place, &primary, &standby)?;
            let understudy = installation.start()?;
            understudy.protect(&names)?;
            understudy.wait_all()?;
            let trial = trial(Some(understudy.pid()));
            understudy.stop();
            trial
        }
        Peer::Mbsync => {
            let mbsync = Mbsync::configure(folder.path(), &primary, &standby, &names)?;
            mbsync.pass()?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let passes = scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        mbsync.pass()?;
                    }
                    anyhow::Ok(())
                });
                let trial = trial(None);
                stop.store(true, Ordering::Relaxed);
                passes.join().expect("the thread of mbsync passes panicked")?;
                trial
            })
        }
        Peer::Copy => anyhow::bail!("copy has no way to follow"),
    }
}

/// Traffic on the primary, and when each change of it was visible on the standby.
pub(crate) fn observe(
    peer: Peer,
    [primary, standby]: [&Dovecot; 2],
    program: Option<u32>,
    names: &[String],
    seconds: u32,
    round: usize,
) -> Result<Trial> {
    let traffic = Traffic::plan(primary, names, seconds, round)?;
    let mut watchers = Vec::new();
    for name in names {
        watchers.push(Watcher::open(log_in(standby, name)?, log_in(standby, name)?, ARCHIVE)?);
    }
    std::thread::sleep(REST);
    let stop = AtomicBool::new(false);
    let (changes, cost, sightings) = std::thread::scope(|scope| {
        let watching: Vec<_> = watchers.into_iter().map(|watcher| scope.spawn(|| watcher.run(&stop))).collect();
        let meter = Meter::start(&[primary, standby], program);
        let changes = traffic.run();
        let cost = meter.read();
        // Everyone gets the same time, so that the tail is not cut for the slower.
        std::thread::sleep(PATIENCE.min(Duration::from_secs(u64::from(seconds) + 3)));
        stop.store(true, Ordering::Relaxed);
        let sightings: Result<Vec<Sightings>> =
            watching.into_iter().map(|watcher| watcher.join().expect("a watcher panicked")).collect();
        anyhow::Ok((changes?, cost, sightings?))
    })?;
    let waits: Vec<_> = changes.iter().map(|change| wait_of(change, &sightings)).collect();
    for (change, _) in changes.iter().zip(&waits).filter(|(_, wait)| wait.is_none()) {
        eprintln!("not seen in time: {:?} {} in {}", change.kind, change.message_id, names[change.mailbox]);
    }
    let mut seen: Vec<f64> = waits.iter().flatten().copied().collect();
    seen.sort_by(f64::total_cmp);
    Ok(Trial {
        peer,
        not_seen: waits.len() - seen.len(),
        waits: seen,
        cpu_ms_a_change: cost.cpu_seconds * 1_000.0 / changes.len() as f64,
    })
}

/// Milliseconds from the tagged OK on the primary until a mail program sees the whole change on the standby.
fn wait_of(change: &Change, sightings: &[Sightings]) -> Option<f64> {
    let needed: &[Sight] = match change.kind {
        Kind::Delivered => &[Sight::Arrived(Place::Inbox)],
        Kind::Flagged => &[Sight::Flagged],
        Kind::Moved => &[Sight::Arrived(Place::Archive), Sight::Gone(Place::Inbox)],
    };
    let mut seen_at = change.done_at;
    for sight in needed {
        let key = (*sight, change.message_id.clone());
        seen_at = seen_at.max(*sightings[change.mailbox].get(&key)?);
    }
    Some((seen_at - change.done_at).as_secs_f64() * 1_000.0)
}

fn wait_until_complete(primary: &Dovecot, standby: &Dovecot, names: &[String]) -> Result<()> {
    let deadline = Instant::now() + FIRST_COPY_DEADLINE;
    while let Err(error) = check_complete(primary, standby, names) {
        ensure!(Instant::now() < deadline, "the replicator did not finish its first copy: {error:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

impl Trial {
    /// Milliseconds within which so many of the changes were visible.
    pub(crate) fn at(&self, share: f64) -> f64 {
        percentile(&self.waits, share)
    }

    fn describe(&self, round: usize) -> String {
        format!(
            "round {}: {:<10} {} changes seen, {} not; p50 {:.0} p90 {:.0} p99 {:.0} max {:.0} ms; {:.1} CPU ms a change, watching included",
            round + 1,
            self.peer.name(),
            self.waits.len(),
            self.not_seen,
            self.at(0.5),
            self.at(0.9),
            self.at(0.99),
            self.at(1.0),
            self.cpu_ms_a_change
        )
    }
}

fn add_figures(section: &mut Section, trials: &[Trial]) {
    let of = |peer: Peer, value: &dyn Fn(&Trial) -> f64| -> Vec<f64> {
        trials.iter().filter(|trial| trial.peer == peer).map(value).collect()
    };
    for peer in PEERS {
        let name = peer.name();
        for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("longest", 1.0)] {
            let values = of(peer, &|trial| trial.at(share));
            if !values.is_empty() {
                section.figure(format!("{name}: {label}, median of the rounds"), median(&values), "ms");
            }
        }
    }
    let ratio = |value: &dyn Fn(&Trial) -> f64| -> Option<f64> {
        let ours = of(Peer::Understudy, value);
        let theirs = of(Peer::Replicator, value);
        let each: Vec<_> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        (!each.is_empty()).then(|| median(&each))
    };
    let middle = of(Peer::Understudy, &|trial| trial.at(0.5));
    if !middle.is_empty() {
        section.goal(
            "understudy: p50, beside the replicator on a busy machine",
            median(&middle),
            "ms",
            BUSY_REPLICATOR,
        );
    }
    if let Some(ratio) = ratio(&|trial| trial.at(0.5)) {
        section.goal("understudy / replicator, p50", ratio, "x", Goal::AtMost(1.0));
    }
    if let Some(ratio) = ratio(&|trial| trial.at(0.99)) {
        section.goal("understudy / replicator, p99", ratio, "x", Goal::AtMost(0.5));
    }
    if let Some(ratio) = ratio(&|trial| trial.cpu_ms_a_change) {
        section.figure("understudy / replicator, CPU a change (watching included)", ratio, "x");
    }
    let not_seen = of(Peer::Understudy, &|trial| trial.not_seen as f64);
    if !not_seen.is_empty() {
        section.goal("understudy: changes not seen in time", not_seen.iter().sum(), "", Goal::AtMost(0.0));
    }
}
