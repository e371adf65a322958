//! The role at the recovery site: takes in transactions, keeps their contents, applies them to the standby.
//!
//! In: the source gateway's requests; runs that people asked for. Out: acknowledgements, directives, a mirror.
//! Keeps true: acknowledged means durable here; applied means visible on the standby and recorded.
//! Not here: reading the primary, talking to people.

mod append;
mod applier;
mod compare;
mod directives;
mod dispatcher;
mod ingest;
mod known;
mod router;
mod runs;
mod serve;
mod standby;
mod store;
mod strays;
mod verify;

use std::path::PathBuf;

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the recovery gateway needs to run.
#[derive(Debug)]
pub struct RecoveryConfig {
    pub pool: PgPool,
    pub data_dir: PathBuf,
    /// Where the source gateway reaches us.
    pub listener: TcpListener,
    pub link_secret: SecretString,
    pub content: ContentConfig,
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
    let store = store::Store::open(config.pool.clone(), folder).context("could not open the content store")?;
    let directives = directives::DirectiveBoard::new(config.pool.clone());
    let dispatcher = dispatcher::Dispatcher::new(config.pool.clone(), store.clone());
    let applying = dispatcher.handle();
    let state = router::LinkState {
        pool: config.pool.clone(),
        store,
        directives: directives.clone(),
        applying: applying.clone(),
        secret: config.link_secret.into(),
    };
    let runner = runs::Runner::new(config.pool, directives.clone(), applying);

    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(directives.run(shutdown.clone()));
    tasks.spawn(dispatcher.run(shutdown.clone()));
    tasks.spawn(runner.run(shutdown.clone()));
    tasks.close();
    serve::serve(config.listener, router::router(state, shutdown.clone()), shutdown.clone()).await;
    shutdown.cancel();
    tasks.wait().await;
    Ok(())
}
