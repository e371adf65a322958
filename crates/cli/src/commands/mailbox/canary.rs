//! `understudy mailbox canary`: a mailbox that proves the pipeline end to end, made, shown and ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Context;
use super::{on_primary, timeout};
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

/// How long a message may take when nothing is said.
const USUAL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Canary {
    address: String,
    /// Make it a canary: write a message into it at this pace
    #[arg(long, value_parser = timeout, value_name = "TIME")]
    every: Option<Duration>,
    /// How long each may take until it is seen on the standby [default: 60s]
    #[arg(long, value_parser = timeout, value_name = "TIME", requires = "every")]
    within: Option<Duration>,
    /// It is to be one no longer; what was written into it is removed
    #[arg(long, conflicts_with = "every")]
    off: bool,
    /// Which primary, where the address is on several
    #[arg(long, value_name = "NAME")]
    primary: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    address: String,
    every_seconds: f64,
    within_seconds: f64,
    last_seen_at: Option<DateTime<Utc>>,
    last_seconds: Option<f64>,
    seen_total: u64,
    late_total: u64,
    late: Option<Late>,
}

#[derive(Debug, Deserialize)]
struct Late {
    place: String,
    since: DateTime<Utc>,
    reason: String,
    remedy: String,
}

pub(super) async fn run(context: &Context, client: &Client, canary: &Canary) -> Result<Exit> {
    let (path, query) = (["mailboxes", &canary.address, "canary"], on_primary(canary.primary.as_ref()));
    let answer: Value = match canary.every {
        Some(every) => {
            let within = canary.within.unwrap_or(USUAL_WITHIN);
            let body = json!({"every_seconds": every.as_secs_f64(), "within_seconds": within.as_secs_f64()});
            client.put(&path, &query, &body).await?.body
        }
        None if canary.off => client.delete(&path, &query).await?.body,
        None => client.get(&path, &query).await?,
    };
    match context.json {
        true => output::json(&answer),
        false if canary.off => output::line(format!("No canary any more: {}", canary.address)),
        false => tell(&decode(&answer)?),
    }
    Ok(Exit::Done)
}

fn tell(canary: &Shown) {
    let now = Utc::now();
    let mut facts = Table::default();
    let mut fact = |name: &'static str, value: Cell| facts.row([Cell::toned(name, Tone::Faint), value]);
    fact("Canary", canary.address.as_str().into());
    let pace = format!(
        "a message every {}, each within {}",
        output::seconds(canary.every_seconds),
        output::seconds(canary.within_seconds)
    );
    fact("Pace", pace.into());
    fact("Arrived", format!("{}, late {}", canary.seen_total, canary.late_total).into());
    if let Some(seconds) = canary.last_seconds {
        let text = format!("{}, it took {}", output::ago(canary.last_seen_at, now), output::seconds(seconds));
        fact("Last", text.into());
    }
    if let Some(late) = &canary.late {
        let text = format!("since {}; it stopped at: {}", output::ago(Some(late.since), now), late.place);
        fact("Late", Cell::toned(text, Tone::Bad));
        fact("Why", late.reason.as_str().into());
        fact("What to do", late.remedy.as_str().into());
    }
    output::print(&facts.render());
}
