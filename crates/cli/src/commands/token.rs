//! `understudy token create|list|revoke`: who may use the API.

use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;

use super::Context;
use crate::client::decode;
use crate::duration::parse_duration;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token; it is shown this once
    #[command(after_help = "Examples:\n  understudy token create --role administrator --name ann\n  \
        TOKEN=$(understudy token create --role viewer --name dashboard --expires 90d)")]
    Create {
        /// What the token may do
        #[arg(long)]
        role: Role,
        /// Who or what uses it
        #[arg(long)]
        name: String,
        /// Only the mailboxes of this group, for a viewer or an operator
        #[arg(long)]
        group: Option<String>,
        /// The mailbox of a user
        #[arg(long, value_name = "ADDRESS")]
        mailbox: Option<String>,
        /// Valid for so long (12h, 90d); without this it does not expire
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires: Option<std::time::Duration>,
    },
    /// List the tokens, without the tokens themselves
    List,
    /// Make a token worthless
    Revoke { name: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    Viewer,
    Operator,
    Administrator,
    Billing,
    Auditor,
    User,
}

#[derive(Debug, Deserialize)]
struct Token {
    name: String,
    role: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TokenCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::Create { .. } => "make the token",
            Self::List => "list the tokens",
            Self::Revoke { .. } => "revoke the token",
        }
    }
}

pub(crate) async fn run(command: &TokenCommand, context: &Context) -> Result<Exit> {
    match command {
        TokenCommand::Create { role, name, group, mailbox, expires } => {
            let mut body = json!({"name": name});
            for (member, value) in [("group", group), ("mailbox", mailbox)] {
                if let Some(value) = value {
                    body[member] = json!(value);
                }
            }
            create(context, *role, name, *expires, body).await
        }
        TokenCommand::List => list(context).await,
        TokenCommand::Revoke { name } => {
            context.client()?.delete(&["tokens", name], &[]).await?;
            match context.json {
                true => output::json(&json!({"name": name, "revoked": true})),
                false => output::line(format!("Revoked the token {name}.")),
            }
            Ok(Exit::Done)
        }
    }
}

async fn create(
    context: &Context,
    role: Role,
    name: &str,
    expires: Option<std::time::Duration>,
    mut body: serde_json::Value,
) -> Result<Exit> {
    let role = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let expires_at = match expires {
        None => None,
        Some(after) => {
            let after = chrono::TimeDelta::from_std(after).ok().and_then(|after| Utc::now().checked_add_signed(after));
            Some(after.ok_or_else(|| {
                Failure::usage(
                    "the token cannot be made",
                    "it would expire after the end of the calendar",
                    "shorten --expires",
                )
            })?)
        }
    };
    body["role"] = json!(role);
    if let Some(at) = expires_at {
        body["expires_at"] = json!(at);
    }
    let answer = context.client()?.post(&["tokens"], &[], &body).await?.body;
    if context.json {
        output::json(&answer);
        return Ok(Exit::Done);
    }
    #[derive(Deserialize)]
    struct Created {
        token: String,
    }
    let created: Created = decode(&answer)?;
    // Alone on standard output, so that a shell can take it into a variable.
    output::line(created.token);
    let until = expires_at.map(|at| format!(", valid until {}", output::moment(Some(at)))).unwrap_or_default();
    eprintln!("Made the {role} token {name}{until}. It is not shown again; keep it like a password.");
    Ok(Exit::Done)
}

async fn list(context: &Context) -> Result<Exit> {
    let items = context.client()?.list(&["tokens"], &[]).await?;
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        output::line(format!(
            "No tokens yet. Make one: {} token create --role administrator --name NAME",
            context.program()
        ));
        return Ok(Exit::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["NAME", "ROLE", "CREATED", "LAST USED", "EXPIRES", "STATE"]);
    for item in &items {
        let token: Token = decode(item)?;
        let state = match (token.revoked_at, token.expires_at) {
            (Some(_), _) => Cell::toned("revoked", Tone::Faint),
            (None, Some(at)) if at <= now => Cell::toned("expired", Tone::Faint),
            _ => Cell::toned("valid", Tone::Good),
        };
        table.row([
            token.name.into(),
            token.role.into(),
            output::moment(Some(token.created_at)).into(),
            output::ago(token.last_used_at, now).into(),
            output::moment(token.expires_at).into(),
            state,
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}
