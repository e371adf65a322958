//! The role at the recovery site: takes in transactions, keeps their contents, applies them to the standby.
//!
//! In: the source gateway's requests; runs that people asked for. Out: acknowledgements, directives, a mirror.
//! Keeps true: acknowledged means durable here; applied means visible on the standby and recorded.
//! Not here: reading the primary, talking to people.

mod alarm;
mod append;
mod applier;
mod bounds;
mod brake;
mod canary;
mod compare;
mod directives;
mod dispatcher;
mod hooks;
mod ingest;
mod join;
mod known;
mod numbering;
mod outage;
mod pairing;
mod quiet;
mod repairing;
mod router;
mod runs;
mod serve;
mod standby;
mod store;
mod strays;
mod switch;
mod trace;
mod turns;
mod verify;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    alone::{self, Gateway},
    pairing as database_pairing,
};

pub use brake::BrakeConfig;
pub use store::{BadKeys, BucketConfig, ContentConfig, MasterKeys};
pub use switch::MailExchangers;

/// What the recovery gateway needs to run.
#[derive(Debug)]
pub struct RecoveryConfig {
    pub pool: PgPool,
    pub data_dir: PathBuf,
    /// Where the source gateway reaches us.
    pub listener: TcpListener,
    /// How it proves who it is.
    pub link: LinkSecurity,
    pub content: ContentConfig,
    /// The spool folder of a source gateway on the same machine: its files are taken over instead of being sent.
    pub shared_spool: Option<PathBuf>,
    /// How much may be removed before a person is asked.
    pub brake: BrakeConfig,
    /// How often every mailbox is verified by itself; none for never.
    pub verify_every: Option<Duration>,
    /// Where commands and secrets of hooks lie; without it there are none.
    pub hooks: Option<PathBuf>,
    /// Who is asked after a change of side to try deferred mail again.
    pub exchangers: MailExchangers,
}

/// How the two gateways prove to each other who they are.
#[derive(Clone, Debug)]
pub enum LinkSecurity {
    /// By a secret in clear text: on this machine only.
    Clear(SecretString),
    /// By certificates that this site gives out; each is good for so long.
    Paired { certificate_life: Duration },
}

/// Runs until `shutdown`, once no other recovery gateway works on its database; fails when it cannot start, and when
/// another has taken its place.
pub async fn run(config: RecoveryConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let pool = config.pool.clone();
    let ran = alone::run(&pool, Gateway::Recovery, shutdown, |own| run_alone(config, own)).await;
    ran.context("could not work on this database alone")?.unwrap_or(Ok(()))
}

async fn run_alone(config: RecoveryConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let store = store::Store::open(config.pool.clone(), config.content, config.shared_spool)
        .await
        .context("could not open the content store")?;
    let listen = config.listener.local_addr().context("could not tell where the link listens")?;
    let (front, secret) = match config.link {
        LinkSecurity::Clear(_) if !listen.ip().is_loopback() => {
            anyhow::bail!("the link would be in clear text at {listen}, which is not on this machine alone");
        }
        LinkSecurity::Clear(secret) => {
            database_pairing::serves_in_clear(&config.pool).await?;
            (serve::Front::Clear, Some(secret.into()))
        }
        LinkSecurity::Paired { certificate_life } => {
            let pairing = pairing::Pairing::open(config.pool.clone(), &config.data_dir, certificate_life, listen);
            (serve::Front::Paired(pairing.await?), None)
        }
    };
    // There from the start: a first difference is an increase then, and not the beginning of a series.
    metrics::counter!("understudy_verifications_total", "equal" => "no").increment(0);
    let directives = directives::DirectiveBoard::new(config.pool.clone());
    let dispatcher = dispatcher::Dispatcher::new(config.pool.clone(), store.clone(), config.brake);
    let applying = dispatcher.handle();
    let alarm = alarm::Alarm::default();
    let watcher = alarm::Watcher::new(config.pool.clone(), alarm.clone());
    let verifying = turns::verify_by_turns(config.pool.clone(), config.verify_every, shutdown.clone());
    let hooks = hooks::Hooks::new(config.hooks);
    let outages = outage::Watch::new(config.pool.clone(), hooks.clone());
    let canaries = canary::Keeper { pool: config.pool.clone() };
    let bounds = bounds::Bounds::default();
    let state = router::LinkState {
        pool: config.pool.clone(),
        store: store.clone(),
        directives: directives.clone(),
        applying: applying.clone(),
        alarm: alarm.clone(),
        looks: outages.looks(),
        front: front.clone(),
        secret,
        current: router::Current::default(),
        before: ingest::Before::default(),
        bounds: bounds.clone(),
    };
    let content = store.clone();
    let runner = runs::Runner::new(config.pool, store, directives.clone(), applying, hooks, config.exchangers);
    let sweeper = switch::Sweeper::new(runner.clone());

    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(store::ContentSweeper::new(content.clone()).run(shutdown.clone()));
    tasks.spawn(store::Scrubber::new(content.clone()).run(shutdown.clone()));
    tasks.spawn(store::Mender::new(content, directives.clone()).run(shutdown.clone()));
    tasks.spawn(directives.run(shutdown.clone()));
    tasks.spawn(dispatcher.run(shutdown.clone()));
    tasks.spawn(runner.run(shutdown.clone()));
    tasks.spawn(watcher.run(shutdown.clone()));
    tasks.spawn(verifying);
    tasks.spawn(outages.run(shutdown.clone()));
    tasks.spawn(sweeper.run(shutdown.clone()));
    tasks.spawn(canaries.run(shutdown.clone()));
    if let serve::Front::Paired(pairing) = &front {
        tasks.spawn(pairing.clone().run(shutdown.clone()));
    }
    tasks.close();
    let router = router::router(state, shutdown.clone());
    serve::serve(config.listener, router, front, &alarm, &bounds, shutdown.clone()).await;
    shutdown.cancel();
    tasks.wait().await;
    Ok(())
}
