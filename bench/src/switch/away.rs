//! A user works on the standby for as long as an hour's worth of changes, and comes home with them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use understudy_tests::client;
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, Options, PASSWORD};

use super::site::Site;
use crate::imap::{Client, number_after, quote};
use crate::load;
use crate::random::Random;
use crate::report::{Goal, Report, Section};
use crate::settings::Settings;
use crate::workload::{Workload, small_message};

const FULL_CHANGES: u32 = 5_000;
const LEAST_CHANGES: u32 = 50;
/// The mailbox has so many times what a mailbox under live traffic has.
const MAILBOX: f64 = 20.0;
const MESSAGE_BYTES: usize = 4_000;
const BATCH: usize = 100;
const MOVED_TO: &str = "Moved";
const MB: f64 = 1_000_000.0;

/// What coming home took.
struct Home {
    changes: u32,
    caught_up: f64,
    cut: f64,
    bytes: u64,
    new_bytes: u64,
    moved_bytes: u64,
    differences: usize,
}

pub(super) async fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let workload = Workload::live(1, settings.scale * MAILBOX);
    let users = workload.names();
    let changes = settings.scaled(FULL_CHANGES, LEAST_CHANGES);
    let mut section = Section::new(format!(
        "Away and home again, a mailbox of {} messages, {}",
        workload.total_messages(),
        settings.quick_store().kind()
    ));
    let mut mailbox_bytes = 0;
    let site = Site::start(settings, &users, Options::new("primary"), true, |primary| {
        mailbox_bytes = load::fill(primary, &workload)?.bytes;
        Ok(())
    })
    .await?;
    section.figure("the mailbox", mailbox_bytes as f64 / MB, "MB");
    site.protect(&users, "default").await?;
    site.settled(&users).await?;
    let few = home_after(&site, &users[0], changes / 10, 1).await?;
    let many = home_after(&site, &users[0], changes, 2).await?;
    for home in [&few, &many] {
        let Home { changes, .. } = home;
        let is_full = home.changes == many.changes;
        let mut figure = |name: String, value: f64, unit, goal: Option<f64>| match goal.filter(|_| is_full) {
            Some(goal) => section.goal(name, value, unit, Goal::AtMost(goal)),
            None => section.figure(name, value, unit),
        };
        figure(format!("{changes} changes: caught up while the user works"), home.caught_up, "s", Some(30.0));
        figure(format!("{changes} changes: cut"), home.cut, "s", Some(2.0));
        figure(format!("{changes} changes: bytes to and from the primary"), home.bytes as f64 / MB, "MB", None);
        figure(format!("{changes} changes: bytes of new messages"), home.new_bytes as f64 / MB, "MB", None);
        figure(format!("{changes} changes: bytes of moved messages"), home.moved_bytes as f64 / MB, "MB", None);
        figure(format!("{changes} changes: differences afterwards"), home.differences as f64, "", Some(0.0));
    }
    let ratio = f64::from(many.changes) / f64::from(few.changes);
    section.figure("times the changes", ratio, "x");
    let of_messages = |home: &Home| (home.new_bytes + home.moved_bytes) as f64;
    section.figure("times the bytes of new and moved messages", of_messages(&many) / of_messages(&few), "x");
    section.figure("times the bytes to and from the primary", many.bytes as f64 / few.bytes as f64, "x");
    section.figure("times the time", many.caught_up / few.caught_up, "x");
    section.figure("bytes to and from the primary / the mailbox", many.bytes as f64 / mailbox_bytes as f64, "x");
    report.add(section);
    Ok(())
}

async fn home_after(site: &Site, user: &str, changes: u32, round: u64) -> Result<Home> {
    site.change("switchover", user).await?;
    let mut program = Client::connect(site.door(), user, PASSWORD)?;
    let (new_bytes, moved_bytes) = work(&mut program, changes, round)?;
    let worked = snapshot(&site.standby, user).await?;
    let wire = site.wire.as_ref().context("nothing is counted")?;
    let before = wire.bytes();
    let asked = Instant::now();
    let (run, said) = site.change("switchback", user).await?;
    ensure!(asked.elapsed().as_secs() < 170, "the switchback did not end in time");
    let bytes = wire.bytes() - before;
    let run = site.stack.json(&["run", "show", &run]).await?;
    let held = run["steps"].as_array().into_iter().flatten().find(|step| step["name"] == "hold");
    let held: DateTime<Utc> = held.and_then(|step| step["started_at"].as_str()).context("no hold")?.parse()?;
    let began: DateTime<Utc> = run["created_at"].as_str().context("no beginning")?.parse()?;
    let differences = compare(&snapshot(&site.primary, user).await?, &worked);
    if !differences.is_empty() {
        eprintln!("{differences}");
    }
    Ok(Home {
        changes,
        caught_up: (held - began).as_seconds_f64(),
        cut: said["rto_seconds"].as_f64().context("no time away")?,
        bytes,
        new_bytes,
        moved_bytes,
        differences: differences.0.len(),
    })
}

/// Two fifths new messages, a fifth each flagged, moved and removed, and some folders; gives the bytes of the new ones and
/// of the moved ones.
fn work(program: &mut Client, changes: u32, round: u64) -> Result<(u64, u64)> {
    let mut random = Random::new(9, round);
    let folders = folder_changes(program, round)?;
    let rest = changes.saturating_sub(folders);
    let new: Vec<_> = (0..rest * 2 / 5)
        .map(|number| small_message(&format!("away-{round}-{number}@bench"), MESSAGE_BYTES, &mut random))
        .collect();
    for batch in new.chunks(BATCH) {
        program.append("INBOX", batch)?;
    }
    let mut moved_bytes = 0;
    let mut left = rest - new.len() as u32;
    // Every folder in turn, its oldest messages first: each is touched once.
    for folder in Workload::folders() {
        program.command(&format!("SELECT {}", quote(folder)))?;
        let found = program.command("UID SEARCH NOT KEYWORD $Touched NOT HEADER Message-ID away-")?;
        let uids = found.iter().filter_map(|response| response.text.strip_prefix("* SEARCH "));
        let uids: Vec<&str> = uids.flat_map(str::split_whitespace).collect();
        for (number, uid) in uids.iter().enumerate().take(left as usize) {
            match number % 3 {
                0 => program.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Flagged $Touched)"))?,
                1 => {
                    let found = program.command(&format!("UID FETCH {uid} RFC822.SIZE"))?;
                    moved_bytes += found.iter().filter_map(|r| number_after(&r.text, "RFC822.SIZE ")).sum::<u64>();
                    program.command(&format!("UID MOVE {uid} {MOVED_TO}"))?
                }
                _ => {
                    program.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"))?;
                    program.command(&format!("UID EXPUNGE {uid}"))?
                }
            };
            left -= 1;
        }
    }
    ensure!(left == 0, "the mailbox is too small for {changes} changes");
    Ok((new.iter().map(|message| message.bytes.len() as u64).sum(), moved_bytes))
}

/// Folders made, renamed and deleted; gives how many changes that were.
fn folder_changes(program: &mut Client, round: u64) -> Result<u32> {
    if round == 1 {
        program.command(&format!("CREATE {MOVED_TO}"))?;
    }
    let mut count = 0;
    for number in 0..5 {
        program.command(&format!("CREATE Made-{round}-{number}"))?;
        count += 1;
    }
    program.command(&format!("RENAME Made-{round}-0 Renamed-{round}"))?;
    program.command(&format!("DELETE Made-{round}-1"))?;
    Ok(count + 2)
}

async fn snapshot(server: &Dovecot, user: &str) -> Result<client::Snapshot> {
    client::Client::log_in(server.imap_address(), user, PASSWORD).await?.snapshot().await
}
