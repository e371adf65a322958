//! `understudy witness`: one more pair of eyes, somewhere else. Looks whether mail servers answer and tells Understudy.
//!
//! Needs no passwords of mail servers: it connects, takes the greeting and leaves.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use understudy_health::looking::{Lookers, Target};
use understudy_health::verdict::{Outcome, QUICK_EVERY, REPORT_EVERY};
use understudy_protocol::server::{LoginConfig, LoginMethod, Server, ServerRole};

use super::Context;
use crate::client::decode;
use crate::failure::{Exit, Result};

/// How often it is asked which servers there are.
const REFRESH: Duration = Duration::from_secs(30);

/// Look whether mail servers answer, from here, and vote on outages
#[derive(Debug, Args)]
#[command(after_help = "Runs until it is stopped. Give it a token of its own, with the role operator:\n  \
    UNDERSTUDY_URL=https://understudy.example.org UNDERSTUDY_TOKEN=… understudy witness --name office")]
pub(crate) struct Witness {
    /// How it is named among the observers
    #[arg(long, default_value = "witness")]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Known {
    name: String,
    role: String,
    imap: String,
}

pub(crate) async fn run(command: &Witness, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    let (sender, mut found) = mpsc::channel(256);
    let mut lookers = Lookers::new(sender);
    let mut refreshed: Option<Instant> = None;
    let mut said: std::collections::HashMap<String, (bool, Instant)> = std::collections::HashMap::new();
    loop {
        if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
            let first = refreshed.is_none();
            refreshed = Some(Instant::now());
            match client.list(&["servers"], &[]).await {
                Ok(items) => lookers.follow(targets(&items)?),
                Err(failure) if first => return Err(failure),
                Err(failure) => eprintln!("{failure}"),
            }
        }
        let next = tokio::time::timeout(REFRESH, found.recv()).await;
        let Ok(Some((server, observation))) = next else { continue };
        let (up, reason) = match observation.outcome {
            Outcome::Good | Outcome::Unknown(_) => (true, String::new()),
            Outcome::Bad(why) => (false, why),
        };
        let known = said.get(&server);
        if up && known.is_some_and(|(was_up, at)| *was_up && at.elapsed() < REPORT_EVERY) {
            continue;
        }
        said.insert(server.clone(), (up, Instant::now()));
        let body = json!({
            "observer": command.name, "up": up, "seconds": observation.took.as_secs_f64(), "reason": reason,
        });
        if let Err(failure) = client.post(&["servers", &server, "observations"], &[], &body).await {
            eprintln!("{failure}");
            said.remove(&server);
        }
    }
}

fn targets(items: &[Value]) -> Result<Vec<Target>> {
    let target = |item: &Value| -> Result<Target> {
        let known: Known = decode(item)?;
        // Only what a quick look needs; nobody is logged in.
        let login = LoginConfig { method: LoginMethod::Each, user: None, password_file: None, form: None };
        let server = Server {
            name: known.name,
            role: if known.role == "standby" { ServerRole::Standby } else { ServerRole::Primary },
            imap: known.imap,
            ca_file: None,
            login,
            return_login: None,
            lmtp: None,
            submission: None,
            manage: None,
            canary: None,
        };
        Ok(Target { quick_every: QUICK_EVERY, deep_every: None, ..Target::new(server, None) })
    };
    items.iter().map(target).collect()
}
