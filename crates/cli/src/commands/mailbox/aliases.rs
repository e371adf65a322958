//! `understudy mailbox aliases`: the further names of a mailbox's user, shown and changed.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::super::Context;
use crate::client::{Client, decode};
use crate::failure::{Exit, Failure, Result};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Aliases {
    address: String,
    /// A further address or log-in of this user
    #[arg(long, value_name = "ALIAS")]
    add: Vec<String>,
    /// One that is to mean this mailbox no longer
    #[arg(long, value_name = "ALIAS")]
    remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    aliases: Vec<String>,
}

pub(super) async fn run(context: &Context, client: &Client, wanted: &Aliases) -> Result<Exit> {
    let path = ["mailboxes", &wanted.address, "aliases"];
    let mut answer = client.get(&path, &[]).await?;
    let mut shown: Shown = decode(&answer)?;
    if !(wanted.add.is_empty() && wanted.remove.is_empty()) {
        for alias in &wanted.remove {
            // As they are kept: in lower case.
            let alias = alias.to_lowercase();
            let Some(position) = shown.aliases.iter().position(|known| *known == alias) else {
                return Err(Failure::new(
                    format!("{} has no alias {alias}", wanted.address),
                    "nothing was changed",
                    format!("see those it has: {} mailbox aliases {}", context.program(), wanted.address),
                ));
            };
            shown.aliases.remove(position);
        }
        let new = wanted.add.iter().map(|alias| alias.to_lowercase());
        for alias in new {
            if !shown.aliases.contains(&alias) {
                shown.aliases.push(alias);
            }
        }
        answer = client.put(&path, &[], &json!({ "aliases": shown.aliases })).await?.body;
        shown = decode(&answer)?;
    }
    match (context.json, shown.aliases.as_slice()) {
        (true, _) => output::json(&answer),
        (false, []) => output::line(format!("{} has no aliases.", wanted.address)),
        (false, aliases) => aliases.iter().for_each(output::line),
    }
    Ok(Exit::Done)
}
