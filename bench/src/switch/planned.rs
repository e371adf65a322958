//! One user after the other is moved to the standby and home again, while all of them work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use understudy_tests::dovecot::Options;

use super::program::{Lived, Program, Work};
use super::site::Site;
use crate::load;
use crate::report::{Goal, Report, Section, percentile};
use crate::settings::Settings;
use crate::workload::Workload;

const MAILBOXES: u32 = 10;
/// There and back, in each round.
const CHANGES_A_ROUND: u32 = 10;
/// Twenty commands a second of each user, and a draft every second.
const WORK: Work = Work { pause: Duration::from_millis(50), drafts: Some(20) };

/// One change of side, as its user's mail program saw it; in seconds.
struct Change {
    way: &'static str,
    gap: f64,
    /// From the command until it was let in on the other side, and until the command said that all is done.
    let_in: f64,
    ended: f64,
    held: f64,
}

pub(super) async fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let workload = Workload::live(MAILBOXES, settings.scale);
    let users = workload.names();
    let pairs = settings.scaled(CHANGES_A_ROUND * settings.rounds as u32, 2) as usize;
    let mut section = Section::new(format!(
        "Planned change of side: {} users at work behind a Dovecot proxy, {pairs} there and back, {}",
        users.len(),
        settings.quick_store().kind()
    ));
    let site = Site::start(settings, &users, Options::new("primary"), false, |primary| {
        load::fill(primary, &workload).map(drop)
    })
    .await?;
    site.protect(&users, "default").await?;
    site.settled(&users).await?;
    let programs: Vec<_> = users.iter().map(|user| Program::start(site.door(), user, WORK)).collect();
    while programs.iter().any(|program| program.sessions() == 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut made = Vec::new();
    for pair in 0..pairs {
        let number = pair % users.len();
        for way in ["switchover", "switchback"] {
            let asked = Instant::now();
            let (_, said) = site.change(way, &users[number]).await?;
            made.push((number, way, asked, asked.elapsed(), said["rto_seconds"].as_f64().unwrap_or(f64::NAN)));
        }
    }
    let mut lived = Vec::new();
    for program in programs {
        lived.push(program.stop().await?);
    }
    let mut changes = Vec::new();
    for (number, way, asked, took, held) in made {
        let (old, new) =
            lived[number].reconnected_after(asked).with_context(|| format!("no new session after a {way}"))?;
        changes.push(Change {
            way,
            gap: (new.first - old.last).as_secs_f64(),
            let_in: (new.first - asked).as_secs_f64(),
            ended: took.as_secs_f64(),
            held,
        });
    }
    add_figures(&mut section, &changes, &lived);
    let verified = site.stack.command(&["mailbox", "verify", "--all"]).await?;
    section.goal("mailboxes verified afterwards: differences", f64::from(verified.code), "", Goal::AtMost(0.0));
    report.add(section);
    Ok(())
}

fn add_figures(section: &mut Section, changes: &[Change], lived: &[Lived]) {
    for way in ["switchover", "switchback"] {
        let sorted = |value: fn(&Change) -> f64| {
            let mut values: Vec<f64> = changes.iter().filter(|change| change.way == way).map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let gaps = sorted(|change| change.gap);
        section.goal(format!("{way}: last answer to first, p50"), percentile(&gaps, 0.5), "s", Goal::AtMost(0.5));
        section.goal(format!("{way}: last answer to first, p99"), percentile(&gaps, 0.99), "s", Goal::AtMost(1.5));
        let held = sorted(|change| change.held);
        section.figure(format!("{way}: log-ins held, p50"), percentile(&held, 0.5), "s");
        section.figure(format!("{way}: log-ins held, longest"), percentile(&held, 1.0), "s");
        let let_in = sorted(|change| change.let_in);
        section.figure(format!("{way}: command to log-in on the other side, p50"), percentile(&let_in, 0.5), "s");
        section.figure(format!("{way}: command to log-in on the other side, longest"), percentile(&let_in, 1.0), "s");
        let ended = sorted(|change| change.ended);
        section.figure(format!("{way}: command with --wait, p50"), percentile(&ended, 0.5), "s");
    }
    let refused: usize = lived.iter().map(|lived| lived.refused.len()).sum();
    section.goal("failed log-ins", refused as f64, "", Goal::AtMost(0.0));
    let reconnects: usize = lived.iter().map(|lived| lived.sessions.len().saturating_sub(1)).sum();
    section.goal("reconnects a change", reconnects as f64 / changes.len() as f64, "", Goal::AtMost(1.0));
}
