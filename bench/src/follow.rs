//! Following: what a round of changes to one message in a hundred costs after the first copy.
//!
//! In: one large mailbox that mbsync and Understudy have both copied. Out: seconds and CPU until both have the changes.
//! Keeps true: both follow the same changes on the same primary, each into a standby of its own.

use anyhow::{Context, Result};
use understudy_tests::dovecot::Dovecot;

use crate::imap::Client;
use crate::load;
use crate::mbsync::Mbsync;
use crate::meter::{Cost, Meter};
use crate::peer::Peer;
use crate::random::Random;
use crate::report::{Report, Section, median};
use crate::seed::check_complete;
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::understudy::{Installation, Understudy};
use crate::workload::{Workload, small_message};

const CHANGED_SHARE: f64 = 0.01;
const LEAST_CHANGES: u32 = 20;
const DELIVERED_BYTES: usize = 20 * 1024;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let store = settings.quick_store();
    let workload = Workload::one_large(settings.scale);
    let changes = ((f64::from(workload.messages_each) * CHANGED_SHARE) as u32).max(LEAST_CHANGES);
    let mut section = Section::new(format!(
        "Following {changes} changes in a mailbox of {} messages, {}",
        workload.messages_each,
        store.kind()
    ));
    let folder = store.folder("follow")?;
    let names = workload.names();
    let primary = servers::start(folder.path(), "primary", &names)?;
    load::fill(&primary, &workload)?;
    let followers = Followers::start(settings, folder.path(), &primary, &names)?;
    let mut costs = Vec::new();
    for round in 0..settings.rounds {
        let cost = followers.follow(&primary, &names, changes, round)?;
        section.note(format!("round {}: {}", round + 1, describe(&cost)));
        costs.extend(cost);
    }
    add_figures(&mut section, &costs);
    report.add(section);
    Ok(())
}

/// The peers, each with its standby, after their first copy.
struct Followers {
    mbsync: Option<(Mbsync, Dovecot)>,
    understudy: Option<(Understudy, Dovecot)>,
}

impl Followers {
    fn start(settings: &Settings, place: &std::path::Path, primary: &Dovecot, names: &[String]) -> Result<Self> {
        let mut followers = Self { mbsync: None, understudy: None };
        if settings.measures(Peer::Mbsync) {
            let standby = servers::start(place, "mbsync-standby", names)?;
            let mbsync = Mbsync::configure(place, primary, &standby, names)?;
            mbsync.pass()?;
            followers.mbsync = Some((mbsync, standby));
        }
        if settings.measures(Peer::Understudy) {
            let standby = servers::start(place, "understudy-standby", names)?;
            let installation = Installation::create(settings.program()?, place, primary, &standby)?;
            let understudy = installation.start()?;
            understudy.protect(names)?;
            understudy.wait_all()?;
            followers.understudy = Some((understudy, standby));
        }
        Ok(followers)
    }

    /// Makes the changes, then lets each peer finish. Understudy has been following meanwhile, and its CPU counts from
    /// the first change on; its wall time is what is left to wait after the last.
    fn follow(&self, primary: &Dovecot, names: &[String], changes: u32, round: usize) -> Result<Vec<(Peer, Cost)>> {
        let mut costs = Vec::new();
        let ours = self
            .understudy
            .as_ref()
            .map(|(understudy, standby)| (understudy, standby, Meter::start(&[standby], Some(understudy.pid()))));
        for name in names {
            change(&mut log_in(primary, name)?, changes, round)?;
        }
        if let Some((understudy, standby, meter)) = ours {
            let waiting = Meter::start(&[], None);
            understudy.wait_all()?;
            let wall_seconds = waiting.read().wall_seconds;
            costs.push((Peer::Understudy, Cost { wall_seconds, ..meter.read() }));
            check_complete(primary, standby, names)?;
        }
        if let Some((mbsync, standby)) = &self.mbsync {
            let meter = Meter::start(&[standby], None);
            mbsync.pass()?;
            costs.push((Peer::Mbsync, meter.read()));
            check_complete(primary, standby, names)?;
        }
        Ok(costs)
    }
}

/// Two in five delivered, a fifth each flagged, moved and expunged.
fn change(client: &mut Client, changes: u32, round: usize) -> Result<()> {
    let mut random = Random::new(7, round as u64);
    let delivered: Vec<_> = (0..changes * 2 / 5)
        .map(|number| {
            let id = format!("follow-{round}-{number}@bench");
            small_message(&id, DELIVERED_BYTES, &mut random)
        })
        .collect();
    for message in delivered {
        client.append("INBOX", &[message])?;
    }
    client.command("SELECT INBOX")?;
    let found = client.command("UID SEARCH NOT FLAGGED")?;
    let uids: Vec<&str> = found
        .iter()
        .find_map(|response| response.text.strip_prefix("* SEARCH "))
        .context("the mailbox has no message left to change")?
        .split(' ')
        .collect();
    // Spread over the folder, no message twice.
    let each = changes as usize / 5;
    let step = (uids.len() / (each * 3).max(1)).max(1);
    for (number, uid) in uids.iter().step_by(step).take(each * 3).enumerate() {
        match number % 3 {
            0 => client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Flagged)"))?,
            1 => client.command(&format!("UID MOVE {uid} Archive"))?,
            _ => {
                client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"))?;
                client.command(&format!("UID EXPUNGE {uid}"))?
            }
        };
    }
    Ok(())
}

fn describe(costs: &[(Peer, Cost)]) -> String {
    let each: Vec<_> = costs
        .iter()
        .map(|(peer, cost)| format!("{} {:.2} s, {:.2} CPU s", peer.name(), cost.wall_seconds, cost.cpu_seconds))
        .collect();
    each.join(" | ")
}

fn add_figures(section: &mut Section, costs: &[(Peer, Cost)]) {
    let of = |peer: Peer, value: fn(&Cost) -> f64| -> f64 {
        let values: Vec<_> = costs.iter().filter(|(found, _)| *found == peer).map(|(_, cost)| value(cost)).collect();
        median(&values)
    };
    let mut ours_and_theirs = |name: &str, ours: &str, theirs: &str, value: fn(&Cost) -> f64| {
        let (ours_took, theirs_took) = (of(Peer::Understudy, value), of(Peer::Mbsync, value));
        for (what, took) in [(theirs, theirs_took), (ours, ours_took)] {
            if took.is_finite() {
                section.figure(what, took, "s");
            }
        }
        if (ours_took / theirs_took).is_finite() {
            section.figure(format!("understudy / mbsync, {name}"), ours_took / theirs_took, "x");
        }
    };
    ours_and_theirs("wall", "understudy: from the last change until all is visible", "mbsync: one pass", |cost| {
        cost.wall_seconds
    });
    ours_and_theirs(
        "CPU",
        "understudy: CPU of gateways, database and standby",
        "mbsync: CPU of the tool and the standby",
        |cost| cost.cpu_seconds,
    );
}
