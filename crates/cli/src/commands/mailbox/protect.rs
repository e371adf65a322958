//! `understudy mailbox protect`: addresses, a file, or everyone the primary serves.
//!
//! Keeps true: a list with something wrong in it changes nothing, unless `--skip-invalid` says to take the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Context;
use super::super::server::confirm;
use super::rows::{self, BadRow, Rows};
use crate::client::{Client, ProblemItem, decode};
use crate::failure::{Exit, Failure, Result};
use crate::output;

/// Naming all users of a large server takes its time.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(300);
/// How many single items are printed before the rest is only counted.
const SHOWN: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct Protect {
    /// What the primary takes as log-in, such as ana or ana@example.org
    #[arg(value_name = "ADDRESS", required_unless_present_any = ["from_file", "discover"])]
    addresses: Vec<String>,
    /// Take them from a CSV file
    #[arg(long, value_name = "CSV", conflicts_with_all = ["addresses", "discover"])]
    from_file: Option<PathBuf>,
    /// Ask the primary for all its users, show them, and protect them
    #[arg(long, conflicts_with = "addresses", requires = "primary")]
    discover: bool,
    /// The server they are on now
    #[arg(long, value_name = "NAME", required_unless_present = "from_file")]
    primary: Option<String>,
    /// The server that gets their copies
    #[arg(long, value_name = "NAME", required_unless_present = "from_file")]
    standby: Option<String>,
    /// The log-in on the standby, if it is another (one address only)
    #[arg(long, value_name = "ADDRESS")]
    standby_address: Option<String>,
    /// How they are to be treated
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The set they are handled with
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Protect the good ones of a list even if others are wrong (exit code 3)
    #[arg(long)]
    skip_invalid: bool,
    /// Do not protect, but say how much they have, how long the first copy takes and what it costs
    #[arg(long, conflicts_with = "discover")]
    estimate: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Deserialize)]
struct Protected {
    protected: usize,
    #[serde(default)]
    unchanged: usize,
    #[serde(default)]
    skipped: Vec<ProblemItem>,
}

impl Protect {
    /// The request without what it is about.
    fn defaults(&self) -> Value {
        let mut body = json!({"skip_invalid": self.skip_invalid});
        for (key, value) in [
            ("primary", &self.primary),
            ("standby", &self.standby),
            ("standby_address", &self.standby_address),
            ("policy", &self.policy),
            ("group", &self.group),
        ] {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        body
    }
}

pub(super) async fn run(context: &Context, client: &Client, protect: &Protect) -> Result<Exit> {
    let mut body = protect.defaults();
    let mut bad: Vec<BadRow> = Vec::new();
    if let Some(path) = &protect.from_file {
        let rows = read_file(path)?;
        if !rows.bad.is_empty() && !protect.skip_invalid {
            return Err(refused(path, &rows.bad));
        }
        if rows.good.is_empty() {
            return Err(Failure::usage(
                format!("{} names no mailbox to protect", path.display()),
                "no row of it could be taken",
                "write one address a line, or a header such as address,group and rows below it",
            ));
        }
        body["items"] = rows.good.iter().map(rows::Row::item).collect();
        bad = rows.bad;
    } else if protect.discover {
        let Some(users) = discover(context, client, protect).await? else { return Ok(Exit::Done) };
        body["addresses"] = json!(users);
    } else {
        body["addresses"] = json!(protect.addresses);
    }
    if protect.estimate {
        body["estimate"] = json!(true);
        return estimate(context, client, &body).await;
    }
    let answer = client.post(&["mailboxes"], &[], &body).await?;
    report(context, &answer.body, &bad)
}

fn read_file(path: &Path) -> Result<Rows> {
    let cannot = |why: String| {
        Failure::usage(
            format!("cannot read {}", path.display()),
            why,
            "name a CSV file in UTF-8 that this user can read",
        )
    };
    let bytes = match path == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        }
        false => std::fs::read(path),
    };
    let text = String::from_utf8(bytes.map_err(|error| cannot(error.to_string()))?).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        cannot(format!("line {line} is not UTF-8"))
    })?;
    rows::read(&text).map_err(|bad| refused(path, &[bad]))
}

fn refused(path: &Path, bad: &[BadRow]) -> Failure {
    let mut why: Vec<String> = bad.iter().take(SHOWN).map(sentence).collect();
    if bad.len() > SHOWN {
        why.push(format!("and {} more", bad.len() - SHOWN));
    }
    Failure::usage(
        format!("{} has {}; nothing was changed", path.display(), output::count(bad.len(), "bad row", "bad rows")),
        "",
        "correct them, or take only the good rows with --skip-invalid",
    )
    .reasons(why)
}

fn sentence(bad: &BadRow) -> String {
    format!("line {}: {}", bad.line, bad.why)
}

/// The users the primary serves, once somebody agreed to them; none when there are none.
async fn discover(context: &Context, client: &Client, protect: &Protect) -> Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    struct Discovered {
        users: Vec<String>,
    }
    let primary = protect.primary.as_deref().unwrap_or_default();
    let run =
        client.run_to_end(&["mailboxes"], &json!({"discover": true, "primary": primary}), DISCOVER_TIMEOUT).await?;
    let Discovered { users } = decode(&run.into_result()?)?;
    if users.is_empty() {
        output::line(format!("{primary} names no users."));
        return Ok(None);
    }
    if !context.json {
        output::line(format!("{primary} serves {}:", output::count(users.len(), "user", "users")));
        for user in users.iter().take(SHOWN) {
            output::line(format!("  {user}"));
        }
        if users.len() > SHOWN {
            output::line(format!("  and {} more", users.len() - SHOWN));
        }
    }
    if !protect.yes {
        let standby = protect.standby.as_deref().unwrap_or_default();
        confirm(&format!("Protect {} on {standby}?", output::count(users.len(), "mailbox", "mailboxes")))?;
    }
    Ok(Some(users))
}

/// Looks at some of the list, as the source gateway can, and says what that comes to for all.
async fn estimate(context: &Context, client: &Client, body: &Value) -> Result<Exit> {
    #[derive(Deserialize)]
    struct Estimated {
        mailboxes: i64,
        measured: i64,
        messages: i64,
        bytes: u64,
        seconds: Option<f64>,
        refused: Vec<Unmeasured>,
        #[serde(default)]
        protected: usize,
        #[serde(default)]
        protected_addresses: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Unmeasured {
        address: String,
        reason: String,
        remedy: String,
    }
    let mut result = client.run_to_end(&["mailboxes"], body, DISCOVER_TIMEOUT).await?.into_result()?;
    let said: Estimated = decode(&result)?;
    // Who may not look at prices is told the rest.
    let (mailboxes, bytes) = (said.mailboxes.to_string(), said.bytes.to_string());
    let asked = [("mailboxes", mailboxes.as_str()), ("bytes", bytes.as_str())];
    let price = client.get(&["prices", "estimate"], &asked).await.ok();
    if context.json {
        result["price"] = json!(price);
        output::json(&result);
        return Ok(Exit::Done);
    }
    if said.protected > 0 {
        let (all, named) = (said.protected, said.protected_addresses);
        let are = if all == 1 { "is protected already and is" } else { "are protected already and are" };
        let more = if all > named.len() { format!(" and {} more", all - named.len()) } else { String::new() };
        let mailboxes = output::count(all, "mailbox", "mailboxes");
        output::line(format!("{mailboxes} {are} left out: {}{more}.", named.join(", ")));
    }
    for one in &said.refused {
        eprintln!("{}: {} {}", one.address, one.reason, one.remedy);
    }
    if said.measured == 0 {
        output::line("None of them could be looked at.");
        return Ok(Exit::Failed);
    }
    let all = output::count(said.mailboxes, "mailbox", "mailboxes");
    let (size, messages) = (output::bytes(said.bytes), said.messages);
    output::line(format!("{all}: {size} in {messages} messages, from {} that were looked at.", said.measured));
    output::line(match said.seconds {
        Some(seconds) => format!("The first copy takes about {}, as first copies before it.", output::seconds(seconds)),
        None => "How long the first copy takes can be told once there was one.".to_owned(),
    });
    if let Some(price) = price {
        let text = |key: &str| price[key].as_str().unwrap_or_default().to_owned();
        let (month, once, currency) = (text("month"), text("first_copy"), text("currency"));
        output::line(format!("{month} {currency} more each whole month, {once} {currency} once for the first copy."));
    }
    Ok(Exit::Done)
}

fn report(context: &Context, answer: &Value, bad: &[BadRow]) -> Result<Exit> {
    let protected: Protected = decode(answer)?;
    let exit = if protected.skipped.is_empty() && bad.is_empty() { Exit::Done } else { Exit::Partly };
    if context.json {
        let mut answer = answer.clone();
        if let Some(skipped) = answer.get_mut("skipped").and_then(Value::as_array_mut) {
            skipped.extend(bad.iter().map(|bad| json!({"line": bad.line, "detail": bad.why})));
        }
        output::json(&answer);
        return Ok(exit);
    }
    let mut parts = vec![format!("Protected {}", output::count(protected.protected, "mailbox", "mailboxes"))];
    if protected.unchanged > 0 {
        parts.push(format!("{} already protected", protected.unchanged));
    }
    let skipped = protected.skipped.len() + bad.len();
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    output::line(format!("{}.", parts.join(", ")));
    for line in bad.iter().map(sentence).chain(protected.skipped.iter().map(ProblemItem::sentence)) {
        eprintln!("skipped: {line}");
    }
    if protected.protected > 0 {
        output::line(format!("Watch them: {} status --watch", context.program()));
    }
    Ok(exit)
}
