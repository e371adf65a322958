//! `understudy map`, `understudy group list`: which primary is mirrored to which standby, and the groups that mailboxes carry.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::client::decode;
use crate::failure::{Exit, Result};
use crate::output::{self, Table};

/// Which primary is mirrored to which standby: how many mailboxes, which way, how far behind
#[derive(Debug, Args)]
pub(crate) struct Map {}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups that mailboxes carry, with their states
    List,
}

#[derive(Debug, Deserialize)]
struct Pair {
    primary: String,
    standby: String,
    mailboxes: i64,
    on_standby: i64,
    lagging: i64,
    lag: Lag,
}

#[derive(Debug, Deserialize)]
struct Lag {
    transactions: i64,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    mailboxes: i64,
    by_state: std::collections::BTreeMap<String, i64>,
}

pub(crate) async fn run(context: &Context) -> Result<Exit> {
    let mut table = Table::new(&["PRIMARY", "STANDBY", "MAILBOXES", "ON STANDBY", "BEHIND", "TRANSACTIONS", "OLDEST"]);
    listed(context, "map", |pair: Pair| {
        let oldest = if pair.lagging > 0 { output::seconds(pair.lag.seconds) } else { String::new() };
        table.row([
            pair.primary.into(),
            pair.standby.into(),
            pair.mailboxes.to_string().into(),
            pair.on_standby.to_string().into(),
            pair.lagging.to_string().into(),
            pair.lag.transactions.to_string().into(),
            oldest.into(),
        ]);
    })
    .await?;
    if !context.json {
        output::print(&table.render());
    }
    Ok(Exit::Done)
}

pub(crate) async fn groups(command: &GroupCommand, context: &Context) -> Result<Exit> {
    let GroupCommand::List = command;
    let mut table = Table::new(&["GROUP", "MAILBOXES", "STATES"]);
    listed(context, "groups", |group: Group| {
        let states = group.by_state.iter().filter(|(_, count)| **count > 0);
        let states: Vec<String> = states.map(|(state, count)| format!("{count} {state}")).collect();
        table.row([group.name.into(), group.mailboxes.to_string().into(), states.join(", ").into()]);
    })
    .await?;
    if !context.json {
        output::print(&table.render());
    }
    Ok(Exit::Done)
}

/// Everything of a list: as JSON at once, or each to `take`.
async fn listed<T: for<'de> Deserialize<'de>>(context: &Context, route: &str, take: impl FnMut(T)) -> Result<()> {
    let items = context.client()?.list(&[route], &[]).await?;
    if context.json {
        output::json(&items);
        return Ok(());
    }
    let items: Vec<T> = decode(&Value::Array(items))?;
    items.into_iter().for_each(take);
    Ok(())
}
