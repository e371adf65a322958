//! `understudy config check|show`: is the configuration right, and what does it come to?

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::config::{self, Problem};
use crate::failure::{Exit, Result};
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration; every mistake is named with its line and the nearest valid key
    #[command(after_help = "Examples:\n  understudy config check\n  understudy --config understudy.toml config check")]
    Check,
    /// Print the effective configuration and where each value comes from, without secrets
    Show,
}

pub(crate) fn run(command: &ConfigCommand, context: &Context) -> Result<Exit> {
    match command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Show => show(context),
    }
}

fn check(context: &Context) -> Result<Exit> {
    let config = config::load(context.config.as_deref())?.config;
    let place = config.file.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let notes: Vec<&Problem> = config.notes.iter().collect();
    let authorities = config.servers.iter().filter_map(|server| server.ca_file.clone());
    let unreadable: Vec<String> = config
        .secret_files()
        .into_iter()
        .chain(authorities)
        .filter_map(|path| std::fs::File::open(&path).err().map(|error| format!("{}: {error}", path.display())))
        .collect();
    if context.json {
        output::json(&json!({
            "valid": true, "file": config.file, "servers": config.servers.len(),
            "notes": notes.iter().map(|note| note.to_string()).chain(unreadable).collect::<Vec<_>>(),
        }));
        return Ok(Exit::Done);
    }
    output::line(format!("Valid: {place} ({})", output::count(config.servers.len(), "server", "servers")));
    for note in notes {
        output::line(format!("note: {note}"));
    }
    for file in unreadable {
        output::line(format!("note: cannot be read by this user: {file}"));
    }
    Ok(Exit::Done)
}

fn show(context: &Context) -> Result<Exit> {
    let loaded = config::load(context.config.as_deref())?;
    let text = config::show(&loaded);
    if context.json {
        // What is shown is TOML by construction, so it can be said in JSON as well.
        let value: toml::Table = toml::from_str(&text).unwrap_or_default();
        output::json(&value);
    } else {
        output::print(&text);
    }
    Ok(Exit::Done)
}
