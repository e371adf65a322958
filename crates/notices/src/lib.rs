//! Tells people by mail and programs by hook what happened: turns notices into messages, and sends those.
//!
//! In: notices, which triggers note with the events they tell of. Out: mail by relays that do not depend on a broken server,
//! signed hooks, a log of each attempt.
//! Keeps true: a notice becomes messages once; a message keeps its Message-ID however often it is sent; nothing here delays what
//! it tells of.

mod certificates;
mod gather;
mod hook;
mod mail;
mod post;
mod quiet;
mod relay;
mod template;
mod topic;
mod watch;

use std::path::PathBuf;

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_webhook::Target;

pub use relay::{Relay, RelayError};
pub use template::{Rendered, Template, TemplateError, check, render};
pub use topic::{LANGUAGES, Topic};

/// What telling people needs.
#[derive(Clone, Debug)]
pub struct NoticesConfig {
    pub pool: PgPool,
    /// Tried in this order.
    pub relays: Vec<Relay>,
    /// Who the mails are from.
    pub sender: String,
    /// Told of everything, of every tenant's things too, beside those that a tenant names.
    pub administrators: Vec<String>,
    pub hooks: Vec<Hook>,
    pub public_url: Option<String>,
    /// Whose disk is watched.
    pub data_dir: PathBuf,
}

/// A program that is told too.
#[derive(Clone, Debug)]
pub struct Hook {
    pub name: String,
    pub target: Target,
    /// All, when empty.
    pub topics: Vec<String>,
}

/// A log-in at a relay.
#[derive(Clone, Debug)]
pub struct RelayLogin {
    pub user: String,
    pub password: SecretString,
}

/// Runs until `shutdown`; fails only when it cannot start.
pub async fn run(config: NoticesConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let sender = config.sender.parse().with_context(|| format!("`{}` cannot send mail", config.sender))?;
    let tasks = TaskTracker::new();
    tasks.spawn(gather::run(config.clone(), shutdown.clone()));
    tasks.spawn(watch::run(config.pool.clone(), config.data_dir.clone(), shutdown.clone()));
    tasks.spawn(certificates::run(config.pool.clone(), shutdown.clone()));
    tasks.spawn(post::run(config, sender, shutdown.clone()));
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Can mail be sent to this text?
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.len() <= 254 && text.parse::<lettre::Address>().is_ok()
}
