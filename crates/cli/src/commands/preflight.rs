//! `understudy preflight [--fix]`: is this machine ready, and what to do where it is not.
//!
//! Keeps true: without `--fix` nothing is changed; the private PostgreSQL is tried in a scratch folder that is removed.

mod deliveries;
mod doors;
mod exchangers;
mod hello;
mod machine;
mod servers;

use std::path::Path;

use clap::Args;

use self::machine::Fix;
use super::Context;
use super::server::check::{Finding, render};
use crate::config::{self, Config, ConfigError};
use crate::failure::{Exit, Result, in_a_row};
use crate::output;
use crate::running::{Database, Door, cluster_config, cluster_failure};

/// Check the environment; each finding comes with its remedy
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy preflight\n  sudo understudy preflight --fix\n\nExit code 0: nothing stands in the way; 1: something does."
)]
pub(crate) struct Preflight {
    /// Correct what can be corrected safely: make the data folder, close secrets to others
    #[arg(long)]
    fix: bool,
}

pub(crate) async fn run(preflight: &Preflight, context: &Context) -> Result<Exit> {
    let findings = match config::load(context.config.as_deref()) {
        Ok(loaded) => look(preflight, context, &loaded.config).await,
        Err(error) => bad_configuration(error)?,
    };
    match context.json {
        true => output::json(&findings),
        false => {
            output::print(&render(&findings));
            output::line(verdict(&findings));
        }
    }
    Ok(if findings.iter().any(|finding| finding.level == "failed") { Exit::Failed } else { Exit::Done })
}

fn verdict(findings: &[Finding]) -> String {
    let count = |level: &str| findings.iter().filter(|finding| finding.level == level).count();
    match (count("failed"), count("warning")) {
        (0, 0) => "\nReady.".to_owned(),
        (0, warnings) => format!("\nReady, with {}.", output::count(warnings, "warning", "warnings")),
        (failed, _) => format!("\nNot ready: {} to correct.", output::count(failed, "thing", "things")),
    }
}

fn bad_configuration(error: ConfigError) -> Result<Vec<Finding>> {
    match error {
        ConfigError::Problems(problems) => Ok(problems
            .iter()
            .map(|problem| finding("failed", "configuration", problem.to_string(), problem.remedy.clone()))
            .collect()),
        unreadable @ ConfigError::Unreadable { .. } => Err(unreadable.into()),
    }
}

async fn look(preflight: &Preflight, context: &Context, config: &Config) -> Vec<Finding> {
    let place = config.file.as_ref().map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
    let mut findings = vec![ok("configuration", place)];
    findings.extend(
        config.notes.iter().map(|note| finding("note", "configuration", note.to_string(), note.remedy.clone())),
    );
    let fix = if preflight.fix { Fix::Yes } else { Fix::No };
    let running = machine::running(&config.data_dir);
    findings.push(machine::data_dir(&config.data_dir, fix));
    findings.push(database(config, running).await);
    findings.extend(ports(config, running));
    findings.push(machine::disk(&config.data_dir));
    findings.push(machine::open_files());
    findings.extend(machine::inotify());
    findings.extend(machine::secrets(config, fix));
    let content = &config.content;
    findings.push(machine::contents(content.key_file.as_deref(), content.bucket.is_some(), &config.data_dir));
    findings.extend(servers::look(context, config, running).await);
    findings.extend(doors::look(config).await);
    findings.extend(exchangers::look(config).await);
    findings
}

async fn database(config: &Config, running: bool) -> Finding {
    const NAME: &str = "database";
    if running {
        return ok(NAME, "in use by the Understudy that runs here");
    }
    if config.database.is_some() {
        return match reach(config).await {
            Ok(place) => ok(NAME, format!("{place} answers")),
            Err(why) => finding("failed", NAME, why, "check that it runs and that [database] url is right"),
        };
    }
    match scratch_cluster(&config.data_dir).await {
        Ok(()) => ok(NAME, "a private PostgreSQL can be made, started and stopped"),
        Err((why, remedy)) => finding("failed", NAME, why, remedy),
    }
}

async fn reach(config: &Config) -> Result<String, String> {
    let database = Database::named(config.database.as_ref()).map_err(|failure| failure.why())?;
    match database.answers().await {
        Ok(()) => Ok(database.place()),
        Err(error) => Err(format!("{} does not answer: {}", database.place(), in_a_row(error.chain()))),
    }
}

/// Makes, starts and stops a real cluster beside the real one: the only proof that it will work.
async fn scratch_cluster(data_dir: &Path) -> Result<(), (String, String)> {
    let name = format!("understudy-preflight-{}", std::process::id());
    let scratch = if data_dir.is_dir() { data_dir.join(name) } else { std::env::temp_dir().join(name) };
    let outcome = match crate::running::create_data_dir(&scratch) {
        Err(failure) => Err((failure.to_string(), String::new())),
        Ok(()) => match understudy_database::cluster::Cluster::start(cluster_config(&scratch)).await {
            Ok(cluster) => {
                cluster.stop().await;
                Ok(())
            }
            Err(error) => {
                let failure = cluster_failure(&error);
                Err((failure.why(), error.remedy()))
            }
        },
    };
    // A left-over scratch folder harms nobody, and its name says what it is.
    let _ = std::fs::remove_dir_all(&scratch);
    outcome
}

fn ports(config: &Config, running: bool) -> Vec<Finding> {
    let wanted = [("admin", config.admin_listen), ("recovery", config.recovery_listen)];
    let look = |(name, address): (&str, std::net::SocketAddr)| {
        let label = format!("port {name}");
        if running {
            return ok(&label, format!("{address}, in use by the Understudy that runs here"));
        }
        match Door::open(address, &format!("`listen` under [{name}]")) {
            Ok(_) => ok(&label, format!("{address} is free")),
            Err(failure) => {
                finding("failed", &label, format!("{}: {}", failure.what(), failure.why()), failure.remedy())
            }
        }
    };
    wanted.into_iter().map(look).collect()
}

fn ok(name: &str, meaning: impl Into<String>) -> Finding {
    finding("ok", name, meaning, "")
}

fn finding(level: &str, name: &str, meaning: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: level.into(), name: name.into(), meaning: meaning.into(), remedy: remedy.into() }
}
