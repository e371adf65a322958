//! `understudy mailbox wait`: a barrier, followed to its end.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::super::Context;
use super::{Selection, timeout};
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output;

/// On top of the barrier's own time: to take the run up and to say how it ended.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    selection: Selection,
    /// Give up after so long
    #[arg(long, value_parser = timeout, default_value = "60s", value_name = "DURATION")]
    timeout: Duration,
}

#[derive(Debug, Default, Deserialize)]
struct Reached {
    #[serde(default)]
    mailboxes: Vec<MailboxReached>,
}

#[derive(Debug, Deserialize)]
struct MailboxReached {
    address: String,
    outcome: String,
    detail: Option<Detail>,
}

/// Why, and what to do.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) remedy: String,
}

pub(super) async fn run(context: &Context, client: &Client, wait: &Wait) -> Result<Exit> {
    let mut body = wait.selection.body();
    body["timeout_seconds"] = json!(wait.timeout.as_secs().max(1));
    let run = client.run_to_end(&["barriers"], &body, wait.timeout + GRACE).await?;
    let result = run.into_result()?;
    let reached: Reached = decode(&result)?;
    if context.json {
        output::json(&result);
    } else {
        tell(&reached);
    }
    let late = reached.mailboxes.iter().filter(|mailbox| mailbox.outcome != "reached").count();
    Ok(match late {
        0 => Exit::Done,
        late if late == reached.mailboxes.len() => Exit::Failed,
        _ => Exit::Partly,
    })
}

fn tell(reached: &Reached) {
    let (there, late): (Vec<_>, Vec<_>) = reached.mailboxes.iter().partition(|mailbox| mailbox.outcome == "reached");
    if reached.mailboxes.is_empty() {
        output::line("No mailbox is protected; there is nothing to wait for.");
    } else if !there.is_empty() {
        let subject = match there.as_slice() {
            [one] => one.address.clone(),
            many => output::count(many.len(), "mailbox", "mailboxes"),
        };
        output::line(format!("Reached: {subject}. Everything changed before the call is visible on the other side."));
    }
    for mailbox in late {
        let what = match mailbox.outcome.as_str() {
            "timeout" => "not reached in time",
            _ => "cannot be reached",
        };
        eprintln!("{}: {what}", mailbox.address);
        if let Some(detail) = &mailbox.detail {
            for (label, text) in [("why: ", &detail.reason), ("do:  ", &detail.remedy)] {
                if !text.is_empty() {
                    eprintln!("  {label}{text}");
                }
            }
        }
    }
}
