//! `understudy policy list|show|set|remove`: how mailboxes are treated.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::client::decode;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List the policies and how many mailboxes have each
    List,
    /// Show one policy, as JSON
    Show { name: String },
    /// Change a policy, or make one
    #[command(
        after_help = "Each KEY=VALUE replaces one member of the document; VALUE is JSON, or a text without quotes. null takes a \
        member back to what is built in.\n\nExamples:\n  understudy policy set gold switchover=shadow threshold_seconds=10\n  \
        understudy policy set gold 'restart={\"hook\":{\"command\":\"restart-mail-a\"},\"wait_seconds\":20}' brake.share=0.2\n  \
        understudy policy set gold --from-file gold.json"
    )]
    Set {
        name: String,
        #[arg(value_name = "KEY=VALUE", required_unless_present = "from_file")]
        members: Vec<String>,
        /// Begin with this document instead of the policy as it is
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Remove a policy that no mailbox has
    Remove { name: String },
}

#[derive(Debug, Deserialize)]
struct Policy {
    name: String,
    mailboxes: i64,
    document: Value,
}

impl PolicyCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::List => "list the policies",
            Self::Show { .. } => "show the policy",
            Self::Set { .. } => "change the policy",
            Self::Remove { .. } => "remove the policy",
        }
    }
}

pub(crate) async fn run(command: &PolicyCommand, context: &Context) -> Result<Exit> {
    match command {
        PolicyCommand::List => list(context).await,
        PolicyCommand::Show { name } => {
            let (policy, value): (Policy, Value) = context.client()?.read(&["policies", name], &[]).await?;
            output::json(if context.json { &value } else { &policy.document });
            Ok(Exit::Done)
        }
        PolicyCommand::Set { name, members, from_file } => set(context, name, members, from_file.as_deref()).await,
        PolicyCommand::Remove { name } => {
            context.client()?.delete(&["policies", name], &[]).await?;
            match context.json {
                true => output::json(&json!({"name": name, "removed": true})),
                false => output::line(format!("Removed the policy {name}.")),
            }
            Ok(Exit::Done)
        }
    }
}

async fn list(context: &Context) -> Result<Exit> {
    let items = context.client()?.list(&["policies"], &[]).await?;
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["NAME", "MAILBOXES", "SWITCHOVER", "THRESHOLD", "QUORUM", "SWITCHBACK", "PRIORITY"]);
    for item in &items {
        let policy: Policy = decode(item)?;
        let member = |name: &str| match &policy.document[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row([
            policy.name.clone().into(),
            policy.mailboxes.to_string().into(),
            member("switchover").into(),
            format!("{} s", member("threshold_seconds")).into(),
            member("quorum").into(),
            member("switchback").into(),
            member("priority").into(),
        ]);
    }
    output::print(&table.render());
    Ok(Exit::Done)
}

async fn set(context: &Context, name: &str, members: &[String], file: Option<&std::path::Path>) -> Result<Exit> {
    let client = context.client()?;
    let mut document = match file {
        Some(path) => read(path)?,
        None => {
            // What is there already, if it is; anything else is said by the PUT.
            let items = client.list(&["policies"], &[]).await?;
            let known = items.into_iter().find(|item| item["name"] == json!(name));
            known.map_or_else(|| json!({}), |mut known| known["document"].take())
        }
    };
    for member in members {
        let Some((key, value)) = member.split_once('=') else {
            return Err(Failure::usage(
                format!("\"{member}\" names no value"),
                "a member is written KEY=VALUE",
                "write it like switchover=shadow",
            ));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        assign(&mut document, key, value);
    }
    let answer = client.put(&["policies", name], &[], &document).await?;
    match context.json {
        true => output::json(&answer.body),
        false => {
            output::line(format!("The policy {name} is written down. See it: {} policy show {name}", context.program()))
        }
    }
    Ok(Exit::Done)
}

fn read(path: &std::path::Path) -> Result<Value> {
    let failed = |why: String| {
        Failure::usage(format!("{} cannot be used", path.display()), why, "name a file with one JSON object")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Sets a member, which may lie deeper: `brake.share`. Null takes it away.
fn assign(document: &mut Value, key: &str, value: Value) {
    let mut at = document;
    let (way, last) = match key.rsplit_once('.') {
        Some((way, last)) => (way.split('.').collect(), last),
        None => (Vec::new(), key),
    };
    for step in way {
        if !at[step].is_object() {
            at[step] = json!({});
        }
        at = &mut at[step];
    }
    if let Some(object) = at.as_object_mut() {
        match value {
            Value::Null => {
                object.remove(last);
            }
            value => {
                object.insert(last.to_owned(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_set_where_they_lie() {
        let mut document = json!({ "priority": 5, "restart": null });
        assign(&mut document, "brake.share", json!(0.2));
        assign(&mut document, "priority", Value::Null);
        assign(&mut document, "restart.wait_seconds", json!(3));
        assert_eq!(document, json!({ "brake": { "share": 0.2 }, "restart": { "wait_seconds": 3 } }));
    }
}
