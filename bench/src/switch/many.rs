//! Very many mailboxes change sides in one run, because their server is gone.
//!
//! Keeps true: it is the run that a person would start, with each mailbox's own steps in the record. Not here: their mail: the
//! primary was never seen, so that there is nothing to mirror and nothing to wait for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use understudy_tests::client;
use understudy_tests::dovecot::{Options, PASSWORD};

use super::site::Site;
use crate::report::{Goal, Report, Section};
use crate::settings::Settings;

const FULL_MAILBOXES: u32 = 14_000;
const LEAST_MAILBOXES: u32 = 50;
/// Afterwards so many of them log in through the front door.
const SAMPLE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(1_800);

pub(super) async fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let count = settings.scaled(FULL_MAILBOXES, LEAST_MAILBOXES);
    let users: Vec<String> = (0..count).map(|number| format!("many{number:05}")).collect();
    let mut section =
        Section::new(format!("Routes of {count} mailboxes in one run, {}", settings.quick_store().kind()));
    let mut site = Site::start(settings, &users, Options::new("primary"), false, |_| Ok(())).await?;
    site.primary.kill()?;
    site.protect(&users, "default").await?;
    let asked = Instant::now();
    let started =
        site.stack.json(&["switchover", "--all", "--mode", "emergency", "--max-loss", "any", "--yes"]).await?;
    section.figure("the command, which says what may be lost", asked.elapsed().as_secs_f64(), "s");
    let id = started["run_id"].as_str().context("no run")?.to_owned();
    let open = ["run", "list", "--open", "--kind", "switchover", "--limit", "1"];
    site.until("the run has ended", PATIENCE, &open, |runs| runs.as_array().is_some_and(Vec::is_empty)).await?;
    let runs = site.stack.json(&["run", "list", "--kind", "switchover", "--limit", "1"]).await?;
    let run = &runs[0];
    ensure!(run["run_id"] == id.as_str(), "another run ended");
    let time = |key: &str| -> Result<DateTime<Utc>> { Ok(run[key].as_str().context("a time of the run")?.parse()?) };
    let seconds = (time("ended_at")? - time("created_at")?).as_seconds_f64();
    section.goal("all routes changed, the run's bookkeeping included", seconds, "s", Goal::AtMost(10.0));
    section.figure("mailboxes a second", f64::from(count) / seconds, "");
    let failed = run["result"]["failed"].as_f64().unwrap_or(f64::NAN);
    section.goal("mailboxes not moved", failed, "", Goal::AtMost(0.0));
    // The primary is dead: who is let in is on the standby.
    for user in users.iter().step_by((users.len() / SAMPLE).max(1)) {
        client::Client::log_in(site.door(), user, PASSWORD).await.with_context(|| format!("{user} is not served"))?;
    }
    report.add(section);
    Ok(())
}
