//! `understudy server health NAME`: whether a mail server is there, as each observer finds it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::client::Client;
use crate::commands::Context;
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Deserialize)]
struct Health {
    verdict: String,
    reason: String,
    since: Option<DateTime<Utc>>,
    votes: BTreeMap<String, String>,
    fence: Option<Fence>,
    history: Vec<Minute>,
}

#[derive(Debug, Deserialize)]
struct Fence {
    state: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Minute {
    observer: String,
    check: String,
    good: u64,
    bad: u64,
    seconds_mean: f64,
    seconds_max: f64,
    reason: String,
}

pub(super) async fn run(context: &Context, client: &Client, name: &str, hours: u32) -> Result<Exit> {
    let hours = hours.to_string();
    let (health, value) = client.read::<Health>(&["servers", name, "health"], &[("hours", hours.as_str())]).await?;
    if context.json {
        output::json(&value);
        return Ok(Exit::Done);
    }
    let since = health.since.map(|since| format!(" since {}", output::moment(Some(since)))).unwrap_or_default();
    output::line(format!(
        "{name} is {}{since}: {}.",
        output::paint(&health.verdict, tone(&health.verdict)),
        health.reason
    ));
    if let Some(fence) = &health.fence {
        output::line(format!("The way past the front doors: {}; {}.", fence.state, fence.reason));
    }
    let mut table = Table::new(&["OBSERVER", "SAYS", "CHECK", "GOOD", "BAD", "MEAN", "SLOWEST", "LAST FAILURE"]);
    // By observer and check: good, bad, seconds in all, the slowest, the last failure.
    type Sum<'h> = (u64, u64, f64, f64, &'h str);
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for minute in &health.history {
        let sum = sums.entry((&minute.observer, &minute.check)).or_default();
        sum.0 += minute.good;
        sum.1 += minute.bad;
        sum.2 += minute.seconds_mean * (minute.good + minute.bad) as f64;
        sum.3 = sum.3.max(minute.seconds_max);
        if !minute.reason.is_empty() {
            sum.4 = &minute.reason;
        }
    }
    for ((observer, check), (good, bad, seconds, slowest, reason)) in sums {
        let says = health.votes.get(observer).map_or("silent", String::as_str);
        table.row([
            observer.into(),
            Cell::toned(says, tone(says)),
            check.into(),
            good.to_string().into(),
            bad.to_string().into(),
            format!("{:.0} ms", seconds * 1000.0 / ((good + bad).max(1) as f64)).into(),
            format!("{:.0} ms", slowest * 1000.0).into(),
            reason.into(),
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

pub(super) fn tone(word: &str) -> Tone {
    match word {
        "up" => Tone::Good,
        "down" => Tone::Bad,
        "silent" | "unknown" => Tone::Faint,
        _ => Tone::Busy,
    }
}
