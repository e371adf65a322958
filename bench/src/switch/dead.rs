//! A whole server dies under its connected users, and the policy moves them by itself.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::Value;
use understudy_tests::dovecot::{Dovecot, MASTER, MASTER_PASSWORD, Options};

use super::program::{Program, Work};
use super::site::{DOOR, Site};
use crate::imap::Client;
use crate::random::Random;
use crate::report::{Goal, Report, Section, percentile};
use crate::settings::Settings;
use crate::workload::small_message;

const FULL_USERS: u32 = 200;
const LEAST_USERS: u32 = 10;
const MESSAGES_EACH: u32 = 20;
/// Each user asks for news so often.
const WORK: Work = Work { pause: Duration::from_millis(500), drafts: None };
/// Seconds of silence after which the primary counts as dead, and within how many everybody must be served again. The second is
/// the policy's own.
pub(super) const THRESHOLDS: [(u32, f64); 2] = [(5, 10.0), (15, 30.0)];
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) async fn measure(settings: &Settings, report: &mut Report, (threshold, goal): (u32, f64)) -> Result<()> {
    let count = settings.scaled(FULL_USERS, LEAST_USERS);
    let users: Vec<String> = (0..count).map(|number| format!("dead{number:04}")).collect();
    let mut section = Section::new(format!(
        "Server killed under {count} connected users behind a Dovecot proxy, threshold {threshold} s, {}",
        settings.quick_store().kind()
    ));
    let options = Options::new("primary").without_way_home().users_only_from(DOOR).canary(&users[0]);
    let mut site = Site::start(settings, &users, options, false, |primary| fill(primary, &users)).await?;
    let silent = format!("threshold_seconds={threshold}");
    site.run(&["policy", "set", "gold", "switchover=on", &silent]).await?;
    site.protect(&users, "gold").await?;
    site.settled(&users).await?;
    let health = ["server", "health", "primary"];
    site.until("users reach the primary through the front door only", PATIENCE, &health, |health| {
        health["fence"]["state"] == "holds"
    })
    .await?;
    let mut programs = Vec::new();
    for user in &users {
        programs.push(Program::start(site.door(), user, WORK));
    }
    while programs.iter().any(|program| program.sessions() == 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let (fault, fault_time) = (Instant::now(), DateTime::<Utc>::from(SystemTime::now()));
    site.primary.kill()?;
    while programs.iter().any(|program| program.sessions() < 2) {
        ensure!(fault.elapsed() < PATIENCE, "somebody is not served {PATIENCE:?} after the fault");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut served, mut refused) = (Vec::new(), 0);
    for program in programs {
        let lived = program.stop().await?;
        let (_, session) = lived.reconnected_after(fault).context("a mail program was never let in again")?;
        served.push((session.first - fault).as_secs_f64());
        refused += lived.refused.len();
    }
    served.sort_by(f64::total_cmp);
    let runs = site
        .until("the run has ended", PATIENCE, &["run", "list", "--kind", "switchover"], |runs| {
            runs.as_array().is_some_and(|runs| !runs.is_empty() && runs.iter().all(|run| run["ended_at"].is_string()))
        })
        .await?;
    let runs = runs.as_array().context("no list of runs")?;
    let after = |value: &Value| -> Result<f64> {
        let time: DateTime<Utc> = value.as_str().context("a time")?.parse()?;
        Ok((time - fault_time).as_seconds_f64())
    };
    for kind in ["outage", "verdict"] {
        let told = site.stack.json(&["events", "--past", "--kind", kind]).await?;
        for event in told.as_array().into_iter().flatten().rev() {
            let (detail, seconds) = (&event["detail"], after(&event["created_at"])?);
            section.note(format!("after {seconds:.1} s: {}: {}", detail["decision"], detail["reason"]));
        }
    }
    let sum = |key: &str| runs.iter().filter_map(|run| run["result"][key].as_f64()).sum::<f64>();
    // The newest is the first.
    let (first, last) = (runs.last().context("no run")?, runs.first().context("no run")?);
    section.goal("fault to all served", percentile(&served, 1.0), "s", Goal::AtMost(goal));
    section.figure("fault to served, p50 of the users", percentile(&served, 0.5), "s");
    section.figure("fault to served, p99 of the users", percentile(&served, 0.99), "s");
    section.figure("fault to verdict", after(&first["created_at"])?, "s");
    section.figure("fault to the end of the last run", after(&last["ended_at"])?, "s");
    section.figure("runs", runs.len() as f64, "");
    section.goal("mailboxes moved", sum("done"), "", Goal::AtLeast(f64::from(count)));
    section.figure("log-ins refused meanwhile, of each user", refused as f64 / f64::from(count), "");
    report.add(section);
    Ok(())
}

/// As the master user: users are let in from the front door only.
fn fill(primary: &Dovecot, users: &[String]) -> Result<()> {
    let mut random = Random::new(8, 0);
    for user in users {
        let mut client = Client::connect(primary.imap_address(), &format!("{user}*{MASTER}"), MASTER_PASSWORD)?;
        let messages: Vec<_> = (0..MESSAGES_EACH)
            .map(|number| small_message(&format!("{user}-{number}@bench"), 2_000, &mut random))
            .collect();
        client.append("INBOX", &messages)?;
    }
    Ok(())
}
