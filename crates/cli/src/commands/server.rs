//! `understudy server …`: the mail servers, and what each can do for mirroring.

pub(super) mod check;
mod definition;
mod health;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use self::definition::Definition;
use super::Context;
use crate::client::{Client, decode};
use crate::duration::parse_duration;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Make a mail server known
    #[command(after_help = "Examples:
  understudy server add mail-a --role primary --imap imaps://mail-a.example.org \\
      --login master --user understudy --password-file /etc/understudy/mail-a.password
  understudy server add dr-1 --role standby --imap imap://dr-1.example.org \\
      --login authzid --user understudy --password-file /etc/understudy/dr-1.password")]
    Add(Box<Add>),
    /// Change where a mail server is or how it is entered; what is not named stays
    #[command(after_help = "Example:\n  understudy server change mail-a --imap imaps://mail-a2.example.org")]
    Change(Box<Change>),
    /// List the mail servers
    List,
    /// Show one mail server and what its last check found
    Show { name: String },
    /// Show whether a mail server is there, as each observer finds it
    Health {
        name: String,
        /// So many hours of history
        #[arg(long, default_value_t = 1)]
        hours: u32,
    },
    /// Forget a mail server that no protected mailbox uses
    Remove {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Log in now; print the server's capabilities and what each means for mirroring
    #[command(after_help = "Example:\n  understudy server check mail-a --address ana@example.org")]
    Check {
        name: String,
        /// Look into this user's mailbox as well
        #[arg(long)]
        address: Option<String>,
        /// Give up after so long
        #[arg(long, value_parser = parse_duration, default_value = "60s", value_name = "DURATION")]
        timeout: Duration,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    name: String,
    /// What it is to us
    #[arg(long, value_parser = ["primary", "standby"])]
    role: String,
    #[arg(
        long,
        value_name = "URL",
        help = "Where it is: imaps://HOST, imap://HOST (STARTTLS), imap+insecure://HOST (this machine only)"
    )]
    imap: String,
    /// How one log-in opens every mailbox: a master user, a SASL authorisation identity, or each user's own password
    #[arg(long, value_parser = ["master", "authzid", "each"])]
    login: String,
    #[command(flatten)]
    definition: Definition,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    name: String,
    /// Where it is
    #[arg(long, value_name = "URL")]
    imap: Option<String>,
    /// How one log-in opens every mailbox
    #[arg(long, value_parser = ["master", "authzid", "each"])]
    login: Option<String>,
    #[command(flatten)]
    definition: Definition,
}

/// What the commands show of a server.
#[derive(Debug, Deserialize)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) role: String,
    imap: String,
    ca_file: Option<String>,
    login: Value,
    lmtp: Option<String>,
    #[serde(default)]
    submission: Option<String>,
    manage: Option<Value>,
    #[serde(default)]
    configured: bool,
    #[serde(default)]
    pub(super) mailboxes: u64,
    pub(super) last_checked_at: Option<DateTime<Utc>>,
    last_check: Option<check::ServerCheck>,
    pub(super) trouble: Option<Trouble>,
    #[serde(default)]
    health: Option<Verdict>,
}

/// Whether it is there, as those who watch it find.
#[derive(Debug, Deserialize)]
struct Verdict {
    verdict: String,
    reason: String,
    since: Option<DateTime<Utc>>,
}

/// What stands in the way, why, and what to do.
#[derive(Debug, Deserialize)]
pub(super) struct Trouble {
    pub(super) reason: String,
    #[serde(default)]
    pub(super) remedy: String,
}

impl ServerCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::Add(_) => "add the server",
            Self::Change(_) => "change the server",
            Self::List => "list the servers",
            Self::Show { .. } => "show the server",
            Self::Health { .. } => "show the health of the server",
            Self::Remove { .. } => "remove the server",
            Self::Check { .. } => "check the server",
        }
    }
}

pub(crate) async fn run(command: &ServerCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    match command {
        ServerCommand::Add(add) => {
            let body = add.definition.create(&client, &add.name, &add.role, &add.imap, &add.login)?;
            let answer = client.post(&["servers"], &[], &body).await?;
            saved(context, &answer.body, &add.name, if answer.status.as_u16() == 201 { "Added" } else { "Unchanged:" })
        }
        ServerCommand::Change(change) => {
            let before = client.get(&["servers", &change.name], &[]).await?;
            let body = change.definition.patch(&client, &before, change.imap.as_deref(), change.login.as_deref())?;
            let answer = client.patch(&["servers", &change.name], &[], &body).await?;
            saved(context, &answer.body, &change.name, "Changed")
        }
        ServerCommand::List => list(context, &client).await,
        ServerCommand::Show { name } => {
            let (server, value) = client.read::<Server>(&["servers", name], &[]).await?;
            match context.json {
                true => output::json(&value),
                false => show(&server),
            }
            Ok(Exit::Done)
        }
        ServerCommand::Health { name, hours } => health::run(context, &client, name, *hours).await,
        ServerCommand::Remove { name, yes } => remove(context, &client, name, *yes).await,
        ServerCommand::Check { name, address, timeout } => {
            check::run(context, &client, name, address.as_deref(), *timeout).await
        }
    }
}

fn saved(context: &Context, body: &Value, name: &str, verb: &str) -> Result<Exit> {
    match context.json {
        true => output::json(body),
        false => {
            output::line(format!("{verb} {name}. Try it: {} server check {name}", context.program()));
        }
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, client: &Client) -> Result<Exit> {
    let items = client.list(&["servers"], &[]).await?;
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        output::line(format!(
            "No mail servers yet. Add the first: {} server add NAME --role primary --imap imaps://HOST …",
            context.program()
        ));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["NAME", "ROLE", "IMAP", "LOG-IN", "MAILBOXES", "IS", "CHECKED", "STATE"]);
    for item in &items {
        let server: Server = decode(item)?;
        let login = server.login.get("as").and_then(Value::as_str).unwrap_or("-").to_owned();
        let (state, is) = (server.state(), server.verdict());
        table.row([
            server.name.into(),
            server.role.into(),
            server.imap.into(),
            login.into(),
            server.mailboxes.to_string().into(),
            is,
            output::ago(server.last_checked_at, Utc::now()).into(),
            state,
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

impl Server {
    /// Whether it is there, and since when it is not.
    pub(super) fn verdict(&self) -> Cell {
        let Some(health) = &self.health else { return Cell::toned("-", Tone::Faint) };
        let since = health.since.filter(|_| health.verdict != "up");
        let since = since.map(|since| format!(" since {}", output::moment(Some(since)))).unwrap_or_default();
        Cell::toned(format!("{}{since}", health.verdict), health::tone(&health.verdict))
    }

    /// What is wrong, if anything is known to be.
    pub(super) fn state(&self) -> Cell {
        let failed = || self.last_check.as_ref()?.first_failure();
        match (&self.trouble, failed()) {
            (Some(trouble), _) => Cell::toned(trouble.reason.clone(), Tone::Bad),
            (None, Some(failure)) => Cell::toned(failure.to_owned(), Tone::Bad),
            (None, None) if self.last_check.is_some() => Cell::toned("ok", Tone::Good),
            (None, None) => Cell::toned("not checked", Tone::Faint),
        }
    }
}

fn show(server: &Server) {
    let mut facts = Table::default();
    let mut fact = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value {
            facts.row([Cell::toned(name, Tone::Faint), value.into()]);
        }
    };
    let inner = |value: Option<&Value>, key: &str| value?.get(key)?.as_str().map(str::to_owned);
    fact("Name", Some(&server.name));
    fact("Role", Some(&server.role));
    fact("IMAP", Some(&server.imap));
    fact("Authorities", server.ca_file.as_deref());
    fact("Log-in", inner(Some(&server.login), "as").as_deref());
    fact("User", inner(Some(&server.login), "user").as_deref());
    fact("Password file", inner(Some(&server.login), "password_file").as_deref());
    fact("Form", inner(Some(&server.login), "form").as_deref());
    fact("LMTP", server.lmtp.as_deref());
    fact("Submission", server.submission.as_deref());
    fact("Doveadm", inner(server.manage.as_ref(), "doveadm").as_deref());
    fact("Configured", server.configured.then_some("in the configuration file, which is where to change it"));
    fact("Mailboxes", Some(&server.mailboxes.to_string()));
    let health = server.health.as_ref().map(|health| format!("{}: {}", health.verdict, health.reason));
    fact("Health", health.as_deref());
    fact("Checked", Some(&output::ago(server.last_checked_at, Utc::now())));
    if let Some(trouble) = &server.trouble {
        fact("Trouble", Some(&trouble.reason));
        fact("What to do", Some(&trouble.remedy));
    }
    output::print(&facts.render());
    if let Some(check) = &server.last_check {
        output::print(&format!("\n{}", check.render()));
    }
}

async fn remove(context: &Context, client: &Client, name: &str, yes: bool) -> Result<Exit> {
    // Looked up first: nobody should be asked about a server that does not exist.
    client.get(&["servers", name], &[]).await?;
    if !yes {
        confirm(&format!("Forget the mail server {name}? Its mail is not touched."))?;
    }
    client.delete(&["servers", name], &[]).await?;
    match context.json {
        true => output::json(&serde_json::json!({"name": name, "removed": true})),
        false => output::line(format!("Removed {name}.")),
    }
    Ok(Exit::Done)
}

/// Goes on only with a yes; where nobody can be asked, `--yes` has to have said it.
pub(super) fn confirm(question: &str) -> Result<()> {
    if !output::can_ask() {
        return Err(Failure::usage("this needs a yes", "there is no terminal to ask on", "add --yes if it is meant"));
    }
    match output::ask(question) {
        true => Ok(()),
        false => Err(Failure::new("nothing was changed", "the answer was no", "")),
    }
}
