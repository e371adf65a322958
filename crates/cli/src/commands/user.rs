//! `understudy user add|list|show|change|passwd|remove|reset-second-factor`: the accounts of people.
//!
//! Keeps true: a password comes from a terminal without being shown, from a file, or is made and printed once; never from the command
//! line, where others could read it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::token::Role;
use crate::client::decode;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account; asks for a password, or makes one and prints it this once
    #[command(after_help = "Examples:\n  understudy user add ann --role administrator\n  \
        understudy user add desk --role operator --group board --generate\n  \
        understudy user add ana@example.org --role user --mailbox ana@example.org --generate")]
    Add {
        /// What the person logs in with
        name: String,
        /// What the person may do
        #[arg(long)]
        role: Role,
        /// Only the mailboxes of this group, for a viewer or an operator
        #[arg(long)]
        group: Option<String>,
        /// The mailbox of a user
        #[arg(long, value_name = "ADDRESS")]
        mailbox: Option<String>,
        #[command(flatten)]
        password: Password,
    },
    /// List the accounts
    List,
    /// Show an account
    Show { name: String },
    /// Change what somebody may do; ends their sessions
    Change {
        name: String,
        #[arg(long)]
        role: Option<Role>,
        /// Only the mailboxes of this group; empty for all
        #[arg(long)]
        group: Option<String>,
        /// The account opens nothing any more
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// The account opens again
        #[arg(long)]
        enable: bool,
    },
    /// Give an account another password; ends its sessions
    Passwd {
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Take an account away; ends its sessions
    Remove { name: String },
    /// Take the second factor away from somebody who lost it
    ResetSecondFactor { name: String },
}

#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    password_file: Option<PathBuf>,
    /// Make a password and print it once, also on a terminal
    #[arg(long)]
    generate: bool,
}

#[derive(Debug, Deserialize)]
struct User {
    name: String,
    role: String,
    group: Option<String>,
    mailbox: Option<String>,
    second_factor: bool,
    disabled_at: Option<DateTime<Utc>>,
    last_login_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl UserCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::Add { .. } => "make the account",
            Self::List => "list the accounts",
            Self::Show { .. } => "show the account",
            Self::Change { .. } => "change the account",
            Self::Passwd { .. } => "change the password",
            Self::Remove { .. } => "remove the account",
            Self::ResetSecondFactor { .. } => "take the second factor away",
        }
    }
}

pub(crate) async fn run(command: &UserCommand, context: &Context) -> Result<Exit> {
    match command {
        UserCommand::Add { name, role, group, mailbox, password } => {
            let mut body = json!({"name": name, "role": word(*role)});
            set(&mut body, "group", group.as_deref());
            set(&mut body, "mailbox", mailbox.as_deref());
            set(&mut body, "password", password.read(name)?.as_deref());
            let answer = context.client()?.post(&["users"], &[], &body).await?.body;
            made(context, &answer, &format!("Made the account {name} ({}).", word(*role)))
        }
        UserCommand::List => list(context).await,
        UserCommand::Show { name } => {
            let (user, value): (User, Value) = context.client()?.read(&["users", name], &[]).await?;
            if context.json {
                output::json(&value);
            } else {
                show(&user);
            }
            Ok(Exit::Done)
        }
        UserCommand::Change { name, role, group, disable, enable } => {
            let mut body = json!({});
            set(&mut body, "role", role.map(word).as_deref());
            if let Some(group) = group {
                body["group"] = if group.is_empty() { Value::Null } else { json!(group) };
            }
            if *disable || *enable {
                body["disabled"] = json!(disable);
            }
            let answer = context.client()?.patch(&["users", name], &[], &body).await?.body;
            if context.json {
                output::json(&answer);
            } else {
                show(&decode(&answer)?);
            }
            Ok(Exit::Done)
        }
        UserCommand::Passwd { name, password } => {
            let mut body = json!({});
            set(&mut body, "password", password.read(name)?.as_deref());
            let answer = context.client()?.post(&["users", name, "password"], &[], &body).await?.body;
            made(context, &answer, &format!("Changed the password of {name}; their sessions ended."))
        }
        UserCommand::Remove { name } => {
            context.client()?.delete(&["users", name], &[]).await?;
            said(context, name, "removed", format!("Removed the account {name}."))
        }
        UserCommand::ResetSecondFactor { name } => {
            context.client()?.post(&["users", name, "reset-second-factor"], &[], &json!({})).await?;
            let text = format!("{name} logs in with the password alone now, and can set up a second factor again.");
            said(context, name, "second_factor_reset", text)
        }
    }
}

fn word(role: Role) -> String {
    role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn set(body: &mut Value, member: &str, value: Option<&str>) {
    if let Some(value) = value {
        body[member] = json!(value);
    }
}

fn said(context: &Context, name: &str, what: &str, text: String) -> Result<Exit> {
    match context.json {
        true => output::json(&json!({"name": name, what: true})),
        false => output::line(text),
    }
    Ok(Exit::Done)
}

/// Prints a password that was made: alone on standard output, so that a shell can take it into a variable.
fn made(context: &Context, answer: &Value, text: &str) -> Result<Exit> {
    if context.json {
        output::json(answer);
        return Ok(Exit::Done);
    }
    match answer.get("password").and_then(Value::as_str) {
        Some(password) => {
            output::line(password);
            eprintln!("{text} The password is not shown again.");
        }
        None => eprintln!("{text}"),
    }
    Ok(Exit::Done)
}

async fn list(context: &Context) -> Result<Exit> {
    let items = context.client()?.list(&["users"], &[]).await?;
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        let program = context.program();
        output::line(format!("No accounts yet. Make one: {program} user add NAME --role administrator"));
        return Ok(Exit::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["NAME", "ROLE", "FOR", "SECOND FACTOR", "LAST LOG-IN", "STATE"]);
    for item in &items {
        let user: User = decode(item)?;
        let state = match user.disabled_at {
            Some(_) => Cell::toned("disabled", Tone::Faint),
            None => Cell::toned("active", Tone::Good),
        };
        table.row([
            user.name.into(),
            user.role.into(),
            user.group.or(user.mailbox).unwrap_or_default().into(),
            if user.second_factor { "yes" } else { "no" }.into(),
            output::ago(user.last_login_at, now).into(),
            state,
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

fn show(user: &User) {
    let narrowed = match (&user.group, &user.mailbox) {
        (Some(group), _) => format!(", only the group {group}"),
        (_, Some(mailbox)) => format!(", only the mailbox {mailbox}"),
        _ => String::new(),
    };
    output::line(format!("{}: {}{narrowed}", user.name, user.role));
    output::line(format!("second factor: {}", if user.second_factor { "yes" } else { "no" }));
    output::line(format!("made: {}", output::moment(Some(user.created_at))));
    output::line(format!("last log-in: {}", output::ago(user.last_login_at, Utc::now())));
    if let Some(at) = user.disabled_at {
        output::line(format!("disabled: {}", output::moment(Some(at))));
    }
}

impl Password {
    /// What was typed or lies in the file; none where one is to be made.
    fn read(&self, name: &str) -> Result<Option<String>> {
        if let Some(path) = &self.password_file {
            return from_file(path).map(Some);
        }
        if self.generate || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(None);
        }
        let first = prompt(&format!("Password for {name} (empty: make one): "))?;
        if first.is_empty() {
            return Ok(None);
        }
        if prompt("Once more: ")? != first {
            return Err(Failure::usage("the password was not taken", "the two are not the same", "try again"));
        }
        Ok(Some(first))
    }
}

fn prompt(text: &str) -> Result<String> {
    rpassword::prompt_password(text).map_err(|error| {
        Failure::new("no password could be read", error.to_string(), "use --password-file or --generate")
    })
}

fn from_file(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new("the password cannot be read", format!("{}: {error}", path.display()), "check --password-file")
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
