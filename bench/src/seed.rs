//! Seeding: how long and how much CPU until a standby holds everything, beside mbsync and the limit.
//!
//! In: a store and a workload. Out: one section with a line a round and the ratios.
//! Keeps true: peers run in turn within a round, each into a standby and a state of its own, and a copy that is
//! not complete is an error, not a fast time.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use understudy_tests::dovecot::Dovecot;

use crate::copy::copy;
use crate::load;
use crate::mbsync::Mbsync;
use crate::meter::{Cost, Meter};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section, median};
use crate::servers::{self, log_in};
use crate::settings::{Settings, Store};
use crate::understudy::Installation;
use crate::workload::{Summary, Workload};

const PEERS: [Peer; 3] = [Peer::Mbsync, Peer::Understudy, Peer::Copy];

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    for store in &settings.stores {
        for workload in [Workload::one_large(settings.scale), Workload::many(settings.scale)] {
            report.add(measure_one(settings, store, &workload)?);
        }
    }
    Ok(())
}

/// What each peer needed in one round.
type Round = Vec<(Peer, Cost)>;

fn measure_one(settings: &Settings, store: &Store, workload: &Workload) -> Result<Section> {
    let mut section =
        Section::new(format!("Seeding {} x {} messages, {}", workload.mailboxes, workload.messages_each, store.kind()));
    let folder = store.folder("seed")?;
    let names = workload.names();
    let primary = servers::start(folder.path(), "primary", &names)?;
    let summary = load::fill(&primary, workload)?;
    section.note(describe(&summary));
    load::warm(&primary, &names)?;
    section.note(format!("mbsync runs as: {}", Mbsync::command_line()));
    let peers: Vec<_> = PEERS.into_iter().filter(|peer| settings.measures(*peer)).collect();
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        let mut round = Round::new();
        for position in 0..peers.len() {
            // Another peer goes first in each round: what the machine does besides falls on all of them.
            let peer = peers[(position + number) % peers.len()];
            let place = store.folder(peer.name())?;
            let cost = seed(settings, peer, place.path(), &primary, &names)
                .with_context(|| format!("{} could not seed", peer.name()))?;
            round.push((peer, cost));
        }
        section.note(describe_round(number, &round, summary.messages));
        rounds.push(round);
    }
    add_figures(&mut section, &rounds, store, &summary);
    Ok(section)
}

fn seed(settings: &Settings, peer: Peer, place: &Path, primary: &Dovecot, names: &[String]) -> Result<Cost> {
    let standby = servers::start(place, "standby", names)?;
    let both = [primary, &standby];
    let cost = match peer {
        Peer::Mbsync => {
            let mbsync = Mbsync::configure(place, primary, &standby, names)?;
            let meter = Meter::start(&both, None);
            mbsync.pass()?;
            meter.read()
        }
        Peer::Copy => {
            let meter = Meter::start(&both, None);
            copy(primary, &standby, names)?;
            meter.read()
        }
        Peer::Understudy => {
            let installation = Installation::create(settings.program()?, place, primary, &standby)?;
            let understudy = installation.start()?;
            let meter = Meter::start(&both, Some(understudy.pid()));
            understudy.protect(names)?;
            understudy.wait_all()?;
            let cost = meter.read();
            understudy.stop();
            cost
        }
        Peer::Replicator => anyhow::bail!("the replicator is measured by `live` only"),
    };
    check_complete(primary, &standby, names)?;
    Ok(cost)
}

/// As many messages on the standby as on the primary, in every mailbox.
pub(crate) fn check_complete(primary: &Dovecot, standby: &Dovecot, names: &[String]) -> Result<()> {
    for name in names {
        let expected = log_in(primary, name)?.count_messages()?;
        let found = log_in(standby, name)?.count_messages()?;
        ensure!(expected == found, "{name} has {found} messages on the standby instead of {expected}");
    }
    Ok(())
}

fn describe(summary: &Summary) -> String {
    format!(
        "{} messages, {} MB, median {:.1} KiB, p90 {} KiB, largest {:.1} MiB, {} over 10 MiB; {:.1}% with attachment, {:.0}% of those repeat",
        summary.messages,
        summary.bytes / 1_000_000,
        summary.median_bytes as f64 / 1024.0,
        summary.p90_bytes / 1024,
        summary.max_bytes as f64 / 1_048_576.0,
        summary.over_10_mib,
        summary.attachment_share * 100.0,
        summary.repeated_attachment_share * 100.0
    )
}

fn describe_round(number: usize, round: &Round, messages: u64) -> String {
    let mut sorted = round.clone();
    sorted.sort_by_key(|(peer, _)| *peer);
    let costs: Vec<_> = sorted
        .iter()
        .map(|(peer, cost)| {
            let each = cost.cpu_seconds * 1_000.0 / messages as f64;
            let part = |seconds: f64| seconds * 1_000.0 / messages as f64;
            format!(
                "{} {:.2} s, {each:.2} CPU s per 1,000 (servers {:.2}, program {:.2}, database {:.2}, commands {:.2})",
                peer.name(),
                cost.wall_seconds,
                part(cost.parts.servers),
                part(cost.parts.program),
                part(cost.parts.started),
                part(cost.parts.commands)
            )
        })
        .collect();
    format!("round {}: {}", number + 1, costs.join(" | "))
}

fn add_figures(section: &mut Section, rounds: &[Round], store: &Store, summary: &Summary) {
    for peer in PEERS {
        let walls = each_round(rounds, |round| Some(find(round, peer)?.wall_seconds));
        if walls.is_empty() {
            continue;
        }
        let cpu = each_round(rounds, |round| Some(find(round, peer)?.cpu_seconds));
        let name = peer.name();
        section.figure(format!("{name}: wall, median"), median(&walls), "s");
        section.figure(format!("{name}: messages a second, median"), summary.messages as f64 / median(&walls), "1/s");
        section.figure(
            format!("{name}: CPU per 1,000 messages, all processes, median"),
            median(&cpu) * 1_000.0 / summary.messages as f64,
            "s",
        );
    }
    let one_mailbox = summary.mailboxes == 1;
    if one_mailbox && !store.in_memory {
        let faster = ratios(rounds, Peer::Mbsync, Peer::Understudy, |cost| cost.wall_seconds);
        add_ratio(section, "times as fast as mbsync, wall", &faster, Some(Goal::AtLeast(2.0)));
    } else {
        let wall = ratios(rounds, Peer::Understudy, Peer::Mbsync, |cost| cost.wall_seconds);
        add_ratio(section, "understudy / mbsync, wall", &wall, Some(Goal::AtMost(1.0)));
    }
    let cpu = ratios(rounds, Peer::Understudy, Peer::Mbsync, |cost| cost.cpu_seconds);
    add_ratio(section, "understudy / mbsync, CPU of all processes", &cpu, Some(Goal::AtMost(1.0)));
    let limit = ratios(rounds, Peer::Understudy, Peer::Copy, |cost| cost.wall_seconds);
    add_ratio(section, "understudy / copy (the limit), wall", &limit, None);
    let limit = ratios(rounds, Peer::Mbsync, Peer::Copy, |cost| cost.wall_seconds);
    add_ratio(section, "mbsync / copy (the limit), wall", &limit, None);
}

fn add_ratio(section: &mut Section, name: &str, ratios: &[f64], goal: Option<Goal>) {
    if ratios.is_empty() {
        return;
    }
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let name = format!("{name}, median of {}", each.join(" "));
    match goal {
        Some(goal) => section.goal(name, median(ratios), "x", goal),
        None => section.figure(name, median(ratios), "x"),
    }
}

/// One ratio a round: only what ran next to each other may be divided.
fn ratios(rounds: &[Round], above: Peer, below: Peer, value: impl Fn(Cost) -> f64) -> Vec<f64> {
    each_round(rounds, |round| Some(value(find(round, above)?) / value(find(round, below)?)))
}

fn each_round(rounds: &[Round], value: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
    rounds.iter().filter_map(value).collect()
}

fn find(round: &Round, peer: Peer) -> Option<Cost> {
    round.iter().find(|(found, _)| *found == peer).map(|(_, cost)| *cost)
}
