//! `understudy mailbox list|show`: mailboxes as a table, or one with all that is known of it.

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::super::Context;
use super::{One, on_primary};
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those in this state
    #[arg(long, value_parser = ["seeding", "mirroring", "paused", "held", "faulted", "switching_over", "on_standby", "switching_back"])]
    state: Option<String>,
    /// Only those on this primary or standby
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only those of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only those whose address contains this
    #[arg(value_name = "TEXT")]
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Mailbox {
    address: String,
    primary: String,
    standby: String,
    standby_address: String,
    policy: String,
    group: Option<String>,
    state: String,
    active_side: String,
    lag: Lag,
    progress: Progress,
    journal: Journal,
    #[serde(default)]
    capability: String,
    #[serde(default)]
    uid_continuity: bool,
    #[serde(default)]
    uid_continuity_lost: Vec<LostFolder>,
    #[serde(default)]
    traffic: Traffic,
    last_transaction_at: Option<DateTime<Utc>>,
    last_verified_at: Option<DateTime<Utc>>,
    #[serde(default)]
    differences: Option<u64>,
    #[serde(default)]
    unproven: Option<Unproven>,
    swept_at: Option<DateTime<Utc>>,
    #[serde(default)]
    set_aside: u64,
    detail: Option<Detail>,
}

/// A folder whose UIDs on the standby are not the primary's.
#[derive(Debug, Deserialize)]
pub(super) struct LostFolder {
    pub(super) folder: String,
    pub(super) reason: String,
}

/// What is not yet applied.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Lag {
    pub(crate) transactions: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// What messages came to on the link.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) message_bytes: u64,
    new_bytes: u64,
    deduplicated_bytes: u64,
    compressed_bytes: u64,
}

impl Traffic {
    pub(crate) fn in_words(&self) -> String {
        format!(
            "{} for {} of messages: {} were there already, {} compressed away",
            output::bytes(self.new_bytes),
            output::bytes(self.message_bytes),
            output::bytes(self.deduplicated_bytes),
            output::bytes(self.compressed_bytes)
        )
    }
}

#[derive(Debug, Deserialize)]
struct Progress {
    messages_done: u64,
    messages_total: u64,
    bytes_done: u64,
    bytes_total: u64,
}

#[derive(Debug, Deserialize)]
struct Journal {
    captured: u64,
    received: u64,
    applied: u64,
}

#[derive(Debug, Deserialize)]
struct Detail {
    reason: String,
    #[serde(default)]
    remedy: String,
}

pub(super) async fn list(context: &Context, client: &Client, list: &List) -> Result<Exit> {
    let filters = [("state", &list.state), ("server", &list.server), ("group", &list.group), ("q", &list.text)];
    let query: Vec<(&str, &str)> =
        filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let items = client.list(&["mailboxes"], &query).await?;
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        output::line(match query.is_empty() {
            true => format!(
                "No mailbox is protected yet. Protect one: {} mailbox protect ADDRESS --primary NAME --standby NAME",
                context.program()
            ),
            false => "No protected mailbox fits.".to_owned(),
        });
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ADDRESS", "STATE", "LAG", "PROGRESS", "PRIMARY", "STANDBY", "DETAIL"]);
    for item in &items {
        let mailbox: Mailbox = decode(item)?;
        table.row([
            mailbox.address.as_str().into(),
            Cell::toned(mailbox.state.as_str(), Tone::of_state(&mailbox.state)),
            mailbox.lag.short().into(),
            mailbox.progress.short().into(),
            mailbox.primary.as_str().into(),
            mailbox.standby.as_str().into(),
            mailbox.short_detail().into(),
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

impl Lag {
    /// `none`, or `3 tx, 0.4 s`
    pub(crate) fn short(&self) -> String {
        match self.transactions {
            0 => "none".to_owned(),
            n => format!("{n} tx, {}", output::seconds(self.seconds)),
        }
    }
}

impl Progress {
    fn short(&self) -> String {
        match self.messages_total {
            0 => "-".to_owned(),
            total => format!("{}/{total}", self.messages_done),
        }
    }
}

/// Where a pipeline stopped, and since when.
#[derive(Debug, Deserialize)]
struct Unproven {
    place: String,
    since: DateTime<Utc>,
}

impl Mailbox {
    fn short_detail(&self) -> String {
        match (&self.detail, self.set_aside) {
            (Some(detail), _) => detail.reason.clone(),
            (None, 0) => String::new(),
            (None, n) => format!("{n} set aside"),
        }
    }
}

pub(super) async fn show(context: &Context, client: &Client, one: &One) -> Result<Exit> {
    let query = on_primary(one.primary.as_ref());
    let (mailbox, mut value) = client.read::<Mailbox>(&["mailboxes", &one.address], &query).await?;
    let problems = match mailbox.set_aside {
        0 => Vec::new(),
        _ => client.list(&["mailboxes", &one.address, "problems"], &query).await?,
    };
    if context.json {
        value["problems"] = problems.into();
        output::json(&value);
        return Ok(Exit::Done);
    }
    let now = Utc::now();
    let mut facts = Table::default();
    let mut fact = |name: &'static str, value: Cell| facts.row([Cell::toned(name, Tone::Faint), value]);
    fact("Address", mailbox.address.as_str().into());
    fact("State", Cell::toned(mailbox.state.as_str(), Tone::of_state(&mailbox.state)));
    if let Some(detail) = &mailbox.detail {
        fact("Why", detail.reason.as_str().into());
        fact("What to do", detail.remedy.as_str().into());
    }
    fact("Primary", mailbox.primary.as_str().into());
    fact("Standby", format!("{} as {}", mailbox.standby, mailbox.standby_address).into());
    fact("Active side", mailbox.active_side.as_str().into());
    fact("Policy", mailbox.policy.as_str().into());
    if let Some(group) = mailbox.group.as_deref().filter(|group| !group.is_empty()) {
        fact("Group", group.into());
    }
    fact("Lag", format!("{}, {}", mailbox.lag.short(), output::bytes(mailbox.lag.bytes)).into());
    let progress = &mailbox.progress;
    fact(
        "Progress",
        format!(
            "{} of {}, {} of {}",
            progress.messages_done,
            output::count(progress.messages_total, "message", "messages"),
            output::bytes(progress.bytes_done),
            output::bytes(progress.bytes_total)
        )
        .into(),
    );
    let journal = &mailbox.journal;
    fact(
        "Journal",
        format!("captured {}, received {}, applied {}", journal.captured, journal.received, journal.applied).into(),
    );
    if mailbox.traffic.message_bytes > 0 {
        fact("Link bytes", mailbox.traffic.in_words().into());
    }
    fact("Watched by", if mailbox.capability.is_empty() { "-".into() } else { mailbox.capability.as_str().into() });
    fact("Same UIDs", if mailbox.uid_continuity { "yes".into() } else { "no".into() });
    for lost in &mailbox.uid_continuity_lost {
        fact("Other UIDs in", Cell::toned(format!("{}: {}", lost.folder, lost.reason), Tone::Bad));
    }
    if mailbox.set_aside > 0 {
        let messages = output::count(mailbox.set_aside, "message", "messages");
        let text = format!("{messages} not on the standby as on the primary; listed below");
        fact("Set aside", Cell::toned(text, Tone::Bad));
    }
    fact("Last change", output::ago(mailbox.last_transaction_at, now).into());
    fact("Last look", output::ago(mailbox.swept_at, now).into());
    fact("Verified", output::ago(mailbox.last_verified_at, now).into());
    if let Some(differences) = mailbox.differences.filter(|differences| *differences > 0) {
        let differences = output::count(differences, "difference", "differences");
        let text = format!("{differences} when last compared: `understudy mailbox verify`");
        fact("Differences", Cell::toned(text, Tone::Bad));
    }
    if let Some(unproven) = &mailbox.unproven {
        let text = format!("since {}; it stopped at: {}", output::ago(Some(unproven.since), now), unproven.place);
        fact("Unproven", Cell::toned(text, Tone::Bad));
    }
    output::print(&facts.render());
    if !problems.is_empty() {
        output::print(&format!("\n{}", table_of(&problems)?.render()));
    }
    Ok(Exit::Done)
}

/// The messages that the standby does not hold as they are, and why.
fn table_of(problems: &[Value]) -> Result<Table> {
    #[derive(Deserialize)]
    struct Problem {
        folder: String,
        uid: u64,
        size: u64,
        kind: String,
        reason: String,
    }
    let mut table = Table::new(&["FOLDER", "UID", "SIZE", "WHAT", "WHY"]);
    for item in problems {
        let problem: Problem = decode(item)?;
        table.row([
            problem.folder.into(),
            problem.uid.to_string().into(),
            output::bytes(problem.size).into(),
            problem.kind.into(),
            problem.reason.into(),
        ]);
    }
    Ok(table)
}
