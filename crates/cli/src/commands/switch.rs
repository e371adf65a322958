//! `understudy switchover` and `understudy switchback`: one run for every mailbox meant, followed to its end if wanted.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use crate::client::{Client, Run, decode};
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table, Tone};

/// Longer than any run takes that is not stuck.
const FOLLOW: Duration = Duration::from_secs(24 * 3600);

/// Move mailboxes to their standby: users work on there, without touching their mail program
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy switchover ana@example.org --wait\n  understudy switchover --server mail-a --mode emergency --max-loss 0 --wait\n\nA planned switchover loses nothing or does not happen. Exit code 0: all moved; 1: none; 3: some."
)]
pub(crate) struct Switchover {
    #[command(flatten)]
    which: Which,
    /// `planned` waits for the primary's last word; `emergency` does not
    #[arg(long, value_enum, default_value_t = Mode::Planned)]
    mode: Mode,
    /// In an emergency: how many transactions of a mailbox may be lost, a number or `any`
    #[arg(long, value_parser = max_loss, value_name = "0|N|any")]
    max_loss: Option<MaxLoss>,
    #[command(flatten)]
    how: How,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Bring mailboxes home to their primary, with what changed on either side
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy switchback ana@example.org --dry-run --wait\n  understudy switchback --all --wait\n\nExit code 0: all home; 1: none; 3: some."
)]
pub(crate) struct Switchback {
    #[command(flatten)]
    which: Which,
    /// Only say what would change on either side
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
}

/// Which mailboxes.
#[derive(Debug, Args)]
#[group(id = "selector", required = true, multiple = true)]
struct Which {
    #[arg(value_name = "ADDRESS", conflicts_with_all = ["server", "group", "all"])]
    addresses: Vec<String>,
    /// Every mailbox of this primary
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "all"])]
    server: Option<String>,
    /// Every mailbox of this group
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    group: Option<String>,
    /// Every protected mailbox
    #[arg(long)]
    all: bool,
    /// Which primary, where an address is on several
    #[arg(long, value_name = "NAME", requires = "addresses")]
    primary: Option<String>,
}

#[derive(Debug, Args)]
struct How {
    /// Wait for the end and say what became of each mailbox
    #[arg(long)]
    wait: bool,
    /// Why, for those who look later
    #[arg(long)]
    reason: Option<String>,
    /// Tell no user of it; administrators are told
    #[arg(long)]
    no_notify: bool,
    /// End the run that is under way for these mailboxes, as long as users were not moved yet
    #[arg(long, conflicts_with = "wait")]
    cancel: bool,
}

impl How {
    fn tell_in(&self, body: &mut Value) {
        if self.no_notify {
            body["notify"] = json!(false);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Planned,
    Emergency,
}

#[derive(Clone, Copy, Debug)]
enum MaxLoss {
    Any,
    Number(u32),
}

fn max_loss(text: &str) -> std::result::Result<MaxLoss, String> {
    match text {
        "any" => Ok(MaxLoss::Any),
        text => text.parse().map(MaxLoss::Number).map_err(|_| "a number of transactions, or `any`".to_owned()),
    }
}

impl Which {
    fn selector(&self) -> Value {
        let mut selector = match (&self.server, &self.group) {
            (Some(server), _) => json!({ "server": server }),
            (_, Some(group)) => json!({ "group": group }),
            _ if self.all => json!({ "all": true }),
            _ => json!({ "addresses": self.addresses }),
        };
        if let Some(primary) = &self.primary {
            selector["primary"] = json!(primary);
        }
        selector
    }

    /// The mailboxes meant, as they are now.
    async fn mailboxes(&self, client: &Client) -> Result<Vec<Value>> {
        if self.addresses.is_empty() {
            let mut query = Vec::new();
            query.extend(self.server.as_deref().map(|server| ("server", server)));
            query.extend(self.group.as_deref().map(|group| ("group", group)));
            return client.list(&["mailboxes"], &query).await;
        }
        let query: Vec<(&str, &str)> =
            self.primary.as_deref().map(|primary| ("primary", primary)).into_iter().collect();
        let mut mailboxes = Vec::new();
        for address in &self.addresses {
            mailboxes.push(client.get(&["mailboxes", address], &query).await?);
        }
        Ok(mailboxes)
    }
}

pub(crate) async fn over(command: &Switchover, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    if command.how.cancel {
        return cancel(context, &client, &command.which, "switchover").await;
    }
    if command.mode == Mode::Emergency {
        warn(context, &client, command).await?;
    }
    let mut body = json!({
        "selector": command.which.selector(),
        "mode": if command.mode == Mode::Emergency { "emergency" } else { "planned" },
        "reason": command.how.reason.as_deref().unwrap_or_default(),
    });
    if let Some(MaxLoss::Number(number)) = command.max_loss {
        body["max_loss"] = json!(number);
    }
    command.how.tell_in(&mut body);
    let answer = client.post(&["switchovers"], &[], &body).await?;
    follow(context, &client, &command.how, &answer.body).await
}

pub(crate) async fn back(command: &Switchback, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    if command.how.cancel {
        return cancel(context, &client, &command.which, "switchback").await;
    }
    let mut body = json!({
        "selector": command.which.selector(),
        "dry_run": command.dry_run,
        "reason": command.how.reason.as_deref().unwrap_or_default(),
    });
    command.how.tell_in(&mut body);
    let answer = client.post(&["switchbacks"], &[], &body).await?;
    follow(context, &client, &command.how, &answer.body).await
}

/// What an emergency may cost, before it is asked for.
async fn warn(context: &Context, client: &Client, command: &Switchover) -> Result<()> {
    let mailboxes = command.which.mailboxes(client).await?;
    let behind = |mailbox: &Value| {
        let number = |key: &str| mailbox["journal"][key].as_i64().unwrap_or(0);
        (number("received") - number("applied"), number("captured") - number("received"))
    };
    if !context.json {
        let mut table = Table::new(&["MAILBOX", "NOT APPLIED", "NOT RECEIVED", "LAST SEEN"]);
        for mailbox in &mailboxes {
            let (not_applied, not_received) = behind(mailbox);
            let seen = mailbox["last_transaction_at"].as_str().unwrap_or("never");
            table.row([
                mailbox["address"].as_str().unwrap_or_default().into(),
                Cell::from(not_applied.to_string()),
                not_received.to_string().into(),
                seen.into(),
            ]);
        }
        eprintln!(
            "What may be missing on the standby, in transactions; what the primary did since it was last seen is not known:"
        );
        eprint!("{}", table.render());
    }
    if command.yes {
        return Ok(());
    }
    if !output::can_ask() {
        return Err(Failure::usage(
            "nobody was asked",
            "an emergency switchover may lose what the standby does not have yet",
            "add --yes if that is meant, and --max-loss to limit it",
        ));
    }
    let question =
        format!("Move {} without waiting for the primary?", output::count(mailboxes.len(), "mailbox", "mailboxes"));
    match output::ask(&question) {
        true => Ok(()),
        false => Err(Failure::new("nothing was done", "the answer was no", "ask again when it is meant")),
    }
}

/// Ends open runs of this kind that are about these mailboxes.
async fn cancel(context: &Context, client: &Client, which: &Which, kind: &str) -> Result<Exit> {
    let meant = which.mailboxes(client).await?;
    let meant: Vec<&str> = meant.iter().filter_map(|mailbox| mailbox["address"].as_str()).collect();
    let open = client.list(&["runs"], &[("kind", kind), ("open", "true")]).await?;
    let mut ended = Vec::new();
    for run in open {
        let about = run["request"]["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if about.into_iter().any(|address| meant.contains(&address))
            && let Some(id) = run["run_id"].as_str()
        {
            client.post(&["runs", id, "cancel"], &[], &json!({})).await?;
            ended.push(id.to_owned());
        }
    }
    match (context.json, ended.as_slice()) {
        (true, ended) => output::json(&json!({ "cancelled": ended })),
        (false, []) => output::line(format!("No {kind} of these mailboxes is under way.")),
        (false, ended) => ended.iter().for_each(|id| output::line(format!("Asked run {id} to end."))),
    }
    Ok(if ended.is_empty() { Exit::Failed } else { Exit::Done })
}

async fn follow(context: &Context, client: &Client, how: &How, answer: &Value) -> Result<Exit> {
    let started: Run = decode(answer)?;
    if !how.wait {
        match context.json {
            true => output::json(answer),
            false => {
                output::line(format!("Started run {0}; follow it with `understudy run show {0}`.", started.run_id))
            }
        }
        return Ok(Exit::Done);
    }
    let run = client.follow(started, FOLLOW).await?;
    let result = run.result.clone().unwrap_or_default();
    let Some(mailboxes) = result["mailboxes"].as_array().cloned() else {
        return run.into_result().map(|_| Exit::Done);
    };
    match context.json {
        true => output::json(&json!({ "run_id": run.run_id, "state": run.state, "result": result })),
        false => tell(&run.kind, &mailboxes),
    }
    let good = |mailbox: &&Value| matches!(mailbox["outcome"].as_str(), Some("done" | "already" | "rehearsed"));
    Ok(match mailboxes.iter().filter(good).count() {
        done if done == mailboxes.len() => Exit::Done,
        0 => Exit::Failed,
        _ => Exit::Partly,
    })
}

fn tell(kind: &str, mailboxes: &[Value]) {
    let mut table = Table::new(&["MAILBOX", "OUTCOME", "AWAY", "LOST", "BROUGHT"]);
    for mailbox in mailboxes {
        let outcome = mailbox["outcome"].as_str().unwrap_or_default();
        let words = match outcome {
            "done" if kind == "switchover" => "on the standby",
            "done" => "home",
            "already" => "was there already",
            other => other,
        };
        let tone = if matches!(outcome, "failed" | "cancelled") { Tone::Bad } else { Tone::Good };
        let brought = ["would", "brought"].iter().find_map(|key| mailbox[*key].as_object());
        let sum = |names: &[&str]| -> u64 {
            let number = |name: &&str| brought.and_then(|brought| brought.get(*name)).and_then(Value::as_u64);
            names.iter().filter_map(number).sum()
        };
        let brought = brought.map_or_else(String::new, |_| {
            format!(
                "{} added, {} flagged, {} removed, {}",
                sum(&["added_to_primary", "added_to_standby"]),
                sum(&["flags_on_primary", "flags_on_standby"]),
                sum(&["removed_from_primary", "removed_from_standby"]),
                output::count(sum(&["folders_changed"]), "folder", "folders"),
            )
        });
        table.row([
            mailbox["address"].as_str().unwrap_or_default().into(),
            Cell::toned(words, tone),
            mailbox["rto_seconds"].as_f64().map_or_else(|| "-".to_owned(), output::seconds).into(),
            mailbox["lost_transactions"].as_i64().map_or_else(|| "-".to_owned(), |lost| lost.to_string()).into(),
            brought.into(),
        ]);
    }
    output::print(&table.render());
    for mailbox in mailboxes.iter().filter(|mailbox| mailbox["outcome"] == "failed") {
        let said = |key: &str| mailbox[key].as_str().unwrap_or_default();
        eprintln!("{}: not moved\n  why: {}\n  do:  {}", said("address"), said("reason"), said("remedy"));
    }
}
