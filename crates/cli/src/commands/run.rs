//! `understudy run list|show|cancel`: the durable pieces of work that somebody asked for.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use crate::client::{Run, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List runs, newest first
    #[command(
        after_help = "Examples:\n  understudy run list --open\n  understudy run list --kind verify --mailbox ana@example.org"
    )]
    List {
        /// Only those that have not ended
        #[arg(long)]
        open: bool,
        /// Only those in this state: waiting, running, done, failed, cancelled
        #[arg(long)]
        state: Option<String>,
        /// Only those of this kind: barrier, verify, check, discover, pause, resume
        #[arg(long)]
        kind: Option<String>,
        /// Only those of this mailbox
        #[arg(long, value_name = "ADDRESS")]
        mailbox: Option<String>,
        /// Only those of this server
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u16,
    },
    /// Show one run with its steps and what came of it
    Show {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Ask a run to end
    Cancel {
        #[arg(value_name = "ID")]
        id: String,
    },
}

impl RunCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::List { .. } => "list the runs",
            Self::Show { .. } => "show the run",
            Self::Cancel { .. } => "cancel the run",
        }
    }
}

pub(crate) async fn run(command: &RunCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    match command {
        RunCommand::List { open, state, kind, mailbox, server, limit } => {
            let limit = limit.clamp(&1, &1000).to_string();
            let mut query = vec![("limit", limit.as_str())];
            if *open {
                query.push(("open", "true"));
            }
            for (name, value) in [("state", state), ("kind", kind), ("mailbox", mailbox), ("server", server)] {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            let page = client.get(&["runs"], &query).await?;
            let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            list(context, &items)
        }
        RunCommand::Show { id } => {
            let (run, value) = client.read::<Run>(&["runs", id], &[]).await?;
            match context.json {
                true => output::json(&value),
                false => show(&run),
            }
            Ok(Exit::Done)
        }
        RunCommand::Cancel { id } => {
            let answer = client.post(&["runs", id, "cancel"], &[], &json!({})).await?.body;
            match context.json {
                true => output::json(&answer),
                false => output::line(format!("Asked run {id} to end.")),
            }
            Ok(Exit::Done)
        }
    }
}

fn list(context: &Context, items: &[Value]) -> Result<Exit> {
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        output::line("No runs.");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ID", "KIND", "STATE", "SUBJECT", "CREATED", "TOOK"]);
    for item in items {
        let run: Run = decode(item)?;
        table.row(row(&run));
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

/// One run as a row: id, kind, state, subject, created, took.
pub(super) fn row(run: &Run) -> [Cell; 6] {
    let subject = run.address.as_deref().or(run.server.as_deref()).unwrap_or("-");
    [
        run.run_id.as_str().into(),
        run.kind.as_str().into(),
        Cell::toned(run.state.as_str(), Tone::of_state(&run.state)),
        subject.into(),
        output::moment(Some(run.created_at)).into(),
        took(run.started_at, run.ended_at).into(),
    ]
}

fn took(started: Option<DateTime<Utc>>, ended: Option<DateTime<Utc>>) -> String {
    match started {
        None => "-".to_owned(),
        Some(started) => {
            let elapsed = (ended.unwrap_or_else(Utc::now) - started).to_std().unwrap_or_default();
            output::seconds(elapsed.as_secs_f64())
        }
    }
}

fn show(run: &Run) {
    let mut facts = Table::default();
    facts.row(["Run".into(), run.run_id.as_str().into()]);
    facts.row(["Kind".into(), run.kind.as_str().into()]);
    facts.row(["State".into(), Cell::toned(run.state.as_str(), Tone::of_state(&run.state))]);
    for (name, value) in [
        ("Mailbox", run.address.as_deref()),
        ("Server", run.server.as_deref()),
        ("Reason", Some(run.reason.as_str())),
        ("Asked by", Some(run.requested_by.as_str())),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.row([name.into(), value.into()]);
        }
    }
    facts.row(["Created".into(), output::moment(Some(run.created_at)).into()]);
    facts.row(["Ended".into(), output::moment(run.ended_at).into()]);
    facts.row(["Took".into(), took(run.started_at, run.ended_at).into()]);
    output::print(&facts.render());
    if !run.steps.is_empty() {
        let mut steps = Table::new(&["STEP", "NAME", "MAILBOX", "TOOK", "OUTCOME"]);
        for step in &run.steps {
            steps.row([
                step.position.to_string().into(),
                step.name.as_str().into(),
                step.address.as_deref().unwrap_or("-").into(),
                took(Some(step.started_at), step.ended_at).into(),
                if step.outcome.is_empty() { "…".into() } else { step.outcome.as_str().into() },
            ]);
        }
        output::print(&format!("\n{}", steps.render()));
    }
    if let Some(result) = &run.result {
        output::line("\nResult");
        output::json(result);
    }
}
