//! `understudy audit list|export|verify`: who did what, and whether the record is whole.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::client::decode;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The newest entries
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// Only what this one did, such as "user ann"
        #[arg(long)]
        who: Option<String>,
        /// Only this action ("mailbox changed"), or those of a kind of thing ("mailbox")
        #[arg(long)]
        action: Option<String>,
        /// Only what was done to this
        #[arg(long)]
        subject: Option<String>,
    },
    /// All entries, one JSON object a line or CSV
    Export {
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Write there instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read the whole chain and say whether anything was changed, removed or moved; exit 1 where it was
    Verify,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, Deserialize)]
struct Entry {
    position: Option<i64>,
    at: DateTime<Utc>,
    who: String,
    action: String,
    subject: String,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    intact: bool,
    entries: i64,
    position: Option<i64>,
    hash: Option<String>,
    heads_compared: i64,
    problems: Vec<Broken>,
}

#[derive(Debug, Deserialize)]
struct Broken {
    position: i64,
    reason: String,
}

impl AuditCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::List { .. } => "list the audit",
            Self::Export { .. } => "export the audit",
            Self::Verify => "verify the audit",
        }
    }
}

pub(crate) async fn run(command: &AuditCommand, context: &Context) -> Result<Exit> {
    match command {
        AuditCommand::List { limit, who, action, subject } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            for (name, value) in [("who", who), ("action", action), ("subject", subject)] {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            list(context, &context.client()?.get(&["audit"], &query).await?)
        }
        AuditCommand::Export { format, output } => export(context, *format, output.as_ref()).await,
        AuditCommand::Verify => verify(context).await,
    }
}

fn list(context: &Context, page: &Value) -> Result<Exit> {
    if context.json {
        output::json(&page["items"]);
        return Ok(Exit::Done);
    }
    let entries: Vec<Entry> = decode(&page["items"])?;
    let mut table = Table::new(&["ENTRY", "AT", "WHO", "ACTION", "WHAT", "WHY"]);
    for entry in entries {
        table.row([
            entry.position.map(|position| position.to_string()).unwrap_or_default().into(),
            output::moment(Some(entry.at)).into(),
            entry.who.into(),
            entry.action.into(),
            entry.subject.into(),
            entry.why.into(),
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

async fn export(context: &Context, format: Format, file: Option<&PathBuf>) -> Result<Exit> {
    let word = if matches!(format, Format::Csv) { "csv" } else { "jsonl" };
    let mut response = context.client()?.stream(&["audit", "export"], &[("format", word)], None).await?;
    let broken = |error: String| Failure::new("the export broke off", error, "try again");
    let mut sink: Box<dyn std::io::Write> = match file {
        Some(path) => Box::new(std::fs::File::create(path).map_err(|error| {
            Failure::new("the export cannot be written", format!("{}: {error}", path.display()), "check --output")
        })?),
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(part) = response.chunk().await.map_err(|error| broken(error.to_string()))? {
        sink.write_all(&part).map_err(|error| broken(error.to_string()))?;
    }
    sink.flush().map_err(|error| broken(error.to_string()))?;
    Ok(Exit::Done)
}

async fn verify(context: &Context) -> Result<Exit> {
    let answer = context.client()?.post(&["audit", "verify"], &[], &json!({})).await?.body;
    let verdict: Verdict = decode(&answer)?;
    let exit = if verdict.intact { Exit::Done } else { Exit::Failed };
    if context.json {
        output::json(&answer);
        return Ok(exit);
    }
    let whole = if verdict.intact { "whole" } else { "NOT whole" };
    let entries = output::count(verdict.entries, "entry", "entries");
    let heads = output::count(verdict.heads_compared, "head", "heads");
    output::line(format!("The audit is {whole}: {entries}, compared with {heads} kept outside."));
    if !verdict.intact {
        for broken in &verdict.problems {
            output::line(format!("entry {}: {}", broken.position, broken.reason));
        }
    }
    if let (Some(position), Some(hash)) = (verdict.position, verdict.hash) {
        output::line(format!("Its end, to be kept elsewhere: entry {position}, {hash}"));
    }
    Ok(exit)
}
