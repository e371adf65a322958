//! The role at the recovery site: takes in transactions, keeps their contents, applies them to the standby.
//!
//! In: the source gateway's requests; runs that people asked for. Out: acknowledgements, directives, a mirror.
//! Keeps true: acknowledged means durable here; applied means visible on the standby and recorded.
//! Not here: reading the primary, talking to people.

mod alarm;
mod append;
mod applier;
mod brake;
mod compare;
mod directives;
mod dispatcher;
mod ingest;
mod known;
mod numbering;
mod repairing;
mod router;
mod runs;
mod serve;
mod standby;
mod store;
mod strays;
mod switch;
mod verify;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use brake::BrakeConfig;

/// What the recovery gateway needs to run.
#[derive(Debug)]
pub struct RecoveryConfig {
    pub pool: PgPool,
    pub data_dir: PathBuf,
    /// Where the source gateway reaches us.
    pub listener: TcpListener,
    pub link_secret: SecretString,
    pub content: ContentConfig,
    /// The spool folder of a source gateway on the same machine: its files are taken over instead of being sent.
    pub shared_spool: Option<PathBuf>,
    /// How much may be removed before a person is asked.
    pub brake: BrakeConfig,
    /// How often every mailbox is verified by itself; none for never.
    pub verify_every: Option<Duration>,
}

/// Where contents are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentConfig {
    /// In pack files below this folder.
    File(PathBuf),
}

/// Runs until `shutdown`; fails only when it cannot start.
pub async fn run(config: RecoveryConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ContentConfig::File(folder) = &config.content;
    let store = store::Store::open(config.pool.clone(), folder, config.shared_spool)
        .context("could not open the content store")?;
    let directives = directives::DirectiveBoard::new(config.pool.clone());
    let dispatcher = dispatcher::Dispatcher::new(config.pool.clone(), store.clone(), config.brake);
    let applying = dispatcher.handle();
    let alarm = alarm::Alarm::default();
    let watcher = alarm::Watcher::new(config.pool.clone(), alarm.clone(), config.verify_every);
    let state = router::LinkState {
        pool: config.pool.clone(),
        store: store.clone(),
        directives: directives.clone(),
        applying: applying.clone(),
        alarm: alarm.clone(),
        secret: config.link_secret.into(),
        current: router::Current::default(),
    };
    let runner = runs::Runner::new(config.pool, store, directives.clone(), applying);
    let sweeper = switch::Sweeper::new(runner.clone());

    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(directives.run(shutdown.clone()));
    tasks.spawn(dispatcher.run(shutdown.clone()));
    tasks.spawn(runner.run(shutdown.clone()));
    tasks.spawn(watcher.run(shutdown.clone()));
    tasks.spawn(sweeper.run(shutdown.clone()));
    tasks.close();
    serve::serve(config.listener, router::router(state, shutdown.clone()), &alarm, shutdown.clone()).await;
    shutdown.cancel();
    tasks.wait().await;
    Ok(())
}
