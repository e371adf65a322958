//! The role beside the primary: captures every protected mailbox's changes and ships them.
//!
//! In: the primary over IMAP (read only), directives from the recovery site. Out: transactions, reports.
//! Keeps true: a transaction is durable here before it is shipped; the receiver's word on where to go on is final.
//! Not here: writing to any mail server, choosing sides.

mod again;
mod fetch;
mod gauges;
mod health;
mod inquiry;
mod link;
mod look;
mod mailbox;
mod measure;
mod order;
mod parcel;
mod room;
mod shipper;
mod spool;
mod supervisor;
mod tail;
mod turns;
mod unreadable;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use understudy_database::alone::{self, Gateway};
use uuid::Uuid;

use crate::supervisor::Identity;

pub use gauges::update_gauges;

/// What the source gateway needs to run.
#[derive(Debug)]
pub struct SourceConfig {
    pub pool: PgPool,
    /// Contents wait here, in `spool/`, until the recovery site has them.
    pub data_dir: PathBuf,
    /// Where the recovery site is, and how this one proves who it is.
    pub link: LinkAccess,
    /// Both gateways run on this data folder: contents need not be sent, their files are handed over.
    pub shares_spool: bool,
    /// How much is kept of what the recovery site has not taken, in bytes; then capturing waits.
    pub journal_limit: u64,
    /// Capabilities to pretend no primary has; for tests of the ways to capture.
    pub capability_mask: Vec<String>,
}

/// How the recovery site is reached; several addresses in order of preference.
#[derive(Clone, Debug)]
pub enum LinkAccess {
    /// By a secret in clear text: on this machine only.
    Clear { recovery_urls: Vec<String>, secret: SecretString },
    /// By what pairing left in `data_dir`; none: at the addresses that the recovery site named then.
    Paired { recovery_urls: Option<Vec<String>> },
}

/// Where contents wait until the recovery site has them.
#[must_use]
pub fn spool_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

/// Runs until `shutdown`, once no other source gateway works on its database; fails when it cannot start, and when
/// another has taken its place.
pub async fn run(config: SourceConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let pool = config.pool.clone();
    let ran = alone::run(&pool, Gateway::Source, shutdown, |own| run_alone(config, own)).await;
    ran.context("could not work on this database alone")?.unwrap_or(Ok(()))
}

async fn run_alone(config: SourceConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let spool = spool::Spool::open(&spool_folder(&config.data_dir), &config.pool)
        .await
        .context("could not open the spool folder")?;
    let gateway = Uuid::now_v7();
    let installation = installation(&config.data_dir).context("could not read or make this gateway's own name")?;
    let link = link::Link::new(config.link, &config.data_dir, gateway, config.shares_spool);
    let reports = supervisor::Reports::default();
    let room = room::Room::open(&config.pool, config.journal_limit, reports.clone())
        .await
        .context("could not count what waits in the journal")?;
    let shipper = shipper::Shipper::new(config.pool.clone(), link.clone(), spool.clone(), reports.clone());
    let (turns, shipping_handle) = (turns::Turns::default(), shipper.handle());
    let tools = mailbox::Tools { pool: config.pool, spool, link: link.clone(), shipper: shipping_handle, room, turns };
    let supervisor =
        supervisor::Supervisor::new(tools, reports, config.capability_mask, Identity { gateway, installation });
    let linking = tokio::spawn(link.run(shutdown.clone()));
    let shipping = tokio::spawn(shipper.run(shutdown.child_token()));
    supervisor.run(shutdown).await;
    shipping.await.context("the shipper did not end well")?;
    linking.await.context("the link did not end well")
}

/// Which source gateway this is, through restarts and the loss of its database: a file, made at the first start.
fn installation(data_dir: &Path) -> io::Result<Uuid> {
    let path = data_dir.join("source-installation");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} does not hold a UUID", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let installation = Uuid::new_v4();
            fs::create_dir_all(data_dir)?;
            fs::write(&path, format!("{installation}\n"))?;
            Ok(installation)
        }
        Err(error) => Err(error),
    }
}
