//! `understudy status [--watch]`: one screen on how everything is.

use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::mailbox::{Lag, Traffic};
use super::{Context, run as runs, server::Server};
use crate::client::{Client, Run, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

const INTERVAL: Duration = Duration::from_secs(1);
/// Runs shown; the rest is in `run list`.
const RUNS_SHOWN: usize = 8;

/// Show servers, link, mailboxes, lag and runs on one screen
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy status\n  understudy status --watch\n  understudy status --json | jq .lag"
)]
pub(crate) struct StatusCommand {
    /// Again each second on a terminal; elsewhere a line for each change
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    now: DateTime<Utc>,
    sentence: String,
    #[serde(default)]
    servers: Vec<Value>,
    link: Link,
    mailboxes: Mailboxes,
    lag: TotalLag,
    runs: Runs,
    #[serde(default)]
    set_aside: u64,
    #[serde(default)]
    canaries: Canaries,
    #[serde(default)]
    content: ContentStore,
    #[serde(default)]
    traffic: Traffic,
}

#[derive(Debug, Default, Deserialize)]
struct Canaries {
    total: u64,
    late: u64,
    slowest_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
struct ContentStore {
    #[serde(default)]
    place: String,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    damaged: u64,
    refusing: Option<Refusing>,
}

#[derive(Debug, Deserialize)]
struct Refusing {
    reason: String,
    remedy: String,
}

impl ContentStore {
    fn cell(&self) -> Cell {
        if let Some(Refusing { reason, remedy }) = &self.refusing {
            return Cell::toned(format!("{reason} {remedy}"), Tone::Bad);
        }
        let place = if self.place.is_empty() { "file" } else { &self.place };
        let sealed = if self.encrypted { "encrypted" } else { "not encrypted" };
        match self.damaged {
            0 => format!("{place}, {sealed}").into(),
            damaged => Cell::toned(format!("{place}, {sealed}; {damaged} damaged, being brought back"), Tone::Bad),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Link {
    connected: bool,
    heard_at: Option<DateTime<Utc>>,
    #[serde(default)]
    second_gateway_at: Option<DateTime<Utc>>,
    #[serde(default)]
    paths: Vec<LinkPath>,
    #[serde(default)]
    bytes_out: u64,
    #[serde(default)]
    bytes_in: u64,
}

#[derive(Debug, Deserialize)]
struct LinkPath {
    url: String,
    state: String,
}

#[derive(Debug, Deserialize)]
struct Mailboxes {
    total: u64,
    by_state: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct TotalLag {
    lagging: u64,
    transactions: u64,
    seconds: f64,
    bytes: u64,
    worst: Option<Worst>,
}

#[derive(Debug, Deserialize)]
struct Worst {
    address: String,
    lag: Lag,
}

#[derive(Debug, Deserialize)]
struct Runs {
    open: u64,
    #[serde(default)]
    items: Vec<Value>,
}

pub(crate) async fn run(command: &StatusCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    if command.watch {
        return watch(&client, context).await;
    }
    let (status, value) = client.read::<Status>(&["status"], &[]).await?;
    match context.json {
        true => output::json(&value),
        false => output::print(&status.render(context)?),
    }
    Ok(Exit::Done)
}

async fn watch(client: &Client, context: &Context) -> Result<Exit> {
    let redraw = std::io::stdout().is_terminal() && !context.json;
    let mut last = String::new();
    loop {
        match client.read::<Status>(&["status"], &[]).await {
            Ok((status, _)) if redraw => {
                // Home, draw, clear what the last picture had below: less flicker than clearing first.
                let picture = status.render(context)?.replace('\n', "\x1b[K\n");
                output::print(&format!("\x1b[H{picture}\x1b[J"));
            }
            Ok((status, value)) => {
                let line = if context.json { value_without_time(&value) } else { status.line() };
                if line != last {
                    match context.json {
                        true => output::line(value.to_string()),
                        false => output::line(format!("{}  {line}", status.now.format("%H:%M:%S"))),
                    }
                    last = line;
                }
            }
            // Before the first picture a person wants to know; later it may be a restart.
            Err(failure) if last.is_empty() && !redraw => return Err(failure),
            Err(failure) if redraw => output::print(&format!("\x1b[H{failure}\n\x1b[J")),
            Err(_) => {
                let line = "no answer, trying again".to_owned();
                if line != last {
                    output::line(&line);
                    last = line;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What has to differ for a new line: not the time that passed.
fn value_without_time(value: &Value) -> String {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("now");
        if let Some(link) = fields.get_mut("link").and_then(Value::as_object_mut) {
            link.remove("heard_at");
            link.remove("age_seconds");
            link.remove("bytes_out");
            link.remove("bytes_in");
        }
    }
    value.to_string()
}

impl Canaries {
    fn cell(&self) -> Cell {
        let took = self.slowest_seconds.map_or_else(
            || "none has arrived yet".to_owned(),
            |seconds| format!("the slowest took {}", output::seconds(seconds)),
        );
        match self.late {
            0 => format!("{}; {took}", self.total).into(),
            late => Cell::toned(format!("{late} of {} late", self.total), Tone::Bad),
        }
    }
}

impl Status {
    fn states(&self) -> Vec<(&str, u64)> {
        let counts = self.mailboxes.by_state.iter();
        counts.filter_map(|(state, count)| Some((state.as_str(), count.as_u64().filter(|count| *count > 0)?))).collect()
    }

    /// All that matters, on a line.
    fn line(&self) -> String {
        let states: Vec<String> = self.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
        let link = if self.link.connected { "link up" } else { "link down" };
        let lag = Lag { transactions: self.lag.transactions, seconds: self.lag.seconds, bytes: self.lag.bytes };
        format!(
            "{link}; {}; lag {}; {} open",
            if states.is_empty() { "no mailboxes".to_owned() } else { states.join(", ") },
            lag.short(),
            output::count(self.runs.open, "run", "runs")
        )
    }

    fn render(&self, context: &Context) -> Result<String> {
        let mut text = format!("Understudy {}: {}\n\n", self.version, self.sentence);
        let mut facts = Table::default();
        let link = match (self.link.connected, self.link.heard_at) {
            (true, heard) => Cell::toned(format!("connected, heard {}", output::ago(heard, self.now)), Tone::Good),
            (false, None) => Cell::toned("no source gateway has connected yet", Tone::Busy),
            (false, heard) => Cell::toned(format!("down, last heard {}", output::ago(heard, self.now)), Tone::Bad),
        };
        facts.row(["Link".into(), link]);
        if let Some(at) = self.link.second_gateway_at {
            let text = format!(
                "a second source gateway was turned away {}: stop one of the two",
                output::ago(Some(at), self.now)
            );
            facts.row(["".into(), Cell::toned(text, Tone::Bad)]);
        }
        if let Some(way) = self.link.paths.iter().find(|way| way.state == "used") {
            let others = self.link.paths.len() - 1;
            let down = self.link.paths.iter().filter(|way| way.state == "down").count();
            let others = match (others, down) {
                (0, _) => String::new(),
                (others, 0) => format!(", {others} standing by"),
                (others, down) => format!(", {down} of {others} others down"),
            };
            let (out, back) = (output::bytes(self.link.bytes_out), output::bytes(self.link.bytes_in));
            facts.row(["Way".into(), format!("{}{others}; {out} out, {back} in", way.url).into()]);
        }
        let mut mailboxes = vec![format!("{} protected", self.mailboxes.total)];
        mailboxes.extend(
            self.states()
                .iter()
                .map(|(state, count)| output::paint(&format!("{count} {state}"), Tone::of_state(state))),
        );
        facts.row(["Mailboxes".into(), mailboxes.join(", ").into()]);
        facts.row(["Lag".into(), self.lag_in_words().into()]);
        if self.set_aside > 0 {
            facts.row([
                "Set aside".into(),
                Cell::toned(
                    format!("{} the standby refused or altered", output::count(self.set_aside, "message", "messages")),
                    Tone::Bad,
                ),
            ]);
        }
        if self.content.refusing.is_some()
            || self.content.damaged > 0
            || self.content.encrypted
            || self.content.place.starts_with("s3")
        {
            facts.row(["Contents".into(), self.content.cell()]);
        }
        if self.traffic.message_bytes > 0 {
            facts.row(["Link bytes".into(), self.traffic.in_words().into()]);
        }
        if self.canaries.total > 0 {
            facts.row(["Canaries".into(), self.canaries.cell()]);
        }
        facts.row(["Runs".into(), format!("{} open", self.runs.open).into()]);
        text.push_str(&facts.render());
        text.push_str(&self.servers(context)?);
        if !self.runs.items.is_empty() {
            let mut table = Table::new(&["RUN", "KIND", "STATE", "SUBJECT", "CREATED", "TOOK"]);
            for item in self.runs.items.iter().take(RUNS_SHOWN) {
                let run: Run = decode(item)?;
                table.row(runs::row(&run));
            }
            text.push_str(&format!("\n{}", table.render()));
        }
        Ok(text)
    }

    fn lag_in_words(&self) -> String {
        if self.lag.lagging == 0 {
            return "none".to_owned();
        }
        let mut words = format!(
            "{} in {}, oldest {}, {}",
            output::count(self.lag.transactions, "transaction", "transactions"),
            output::count(self.lag.lagging, "mailbox", "mailboxes"),
            output::seconds(self.lag.seconds),
            output::bytes(self.lag.bytes)
        );
        if let Some(worst) = &self.lag.worst {
            words.push_str(&format!("; most: {} ({})", worst.address, worst.lag.short()));
        }
        words
    }

    fn servers(&self, context: &Context) -> Result<String> {
        if self.servers.is_empty() {
            return Ok(format!("\nNo mail servers yet. Add the first: {} server add --help\n", context.program()));
        }
        let mut table = Table::new(&["SERVER", "ROLE", "MAILBOXES", "IS", "CHECKED", "STATE"]);
        for item in &self.servers {
            let server: Server = decode(item)?;
            let (state, is) = (server.state(), server.verdict());
            let checked = output::ago(server.last_checked_at, self.now);
            table.row([
                server.name.into(),
                server.role.into(),
                server.mailboxes.to_string().into(),
                is,
                checked.into(),
                state,
            ]);
        }
        Ok(format!("\n{}", table.render()))
    }
}
