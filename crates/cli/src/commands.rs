//! One file per command, each a client of the REST API like any other, except those that open the roles.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod link;
pub(crate) mod mailbox;
pub(crate) mod map;
mod notices;
pub(crate) mod policy;
pub(crate) mod preflight;
pub(crate) mod report;
mod role_metrics;
pub(crate) mod roles;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod switch;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod witness;

use std::path::PathBuf;

use crate::client::Client;
use crate::failure::Result;

/// What every command is told besides its own words.
#[derive(Debug)]
pub(crate) struct Context {
    /// What `--config` or `UNDERSTUDY_CONFIG` said.
    pub(crate) config: Option<PathBuf>,
    /// JSON instead of text.
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn client(&self) -> Result<Client> {
        Client::open(self.config.as_deref())
    }

    /// How to call another command so that it meets the same Understudy.
    pub(crate) fn program(&self) -> String {
        match &self.config {
            Some(path) if std::env::var_os("UNDERSTUDY_CONFIG").is_none() => {
                format!("understudy --config {}", path.display())
            }
            _ => "understudy".to_owned(),
        }
    }
}
