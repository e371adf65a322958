//! The role beside the primary: captures every protected mailbox's changes and ships them.
//!
//! In: the primary over IMAP (read only), directives from the recovery site. Out: transactions, reports.
//! Keeps true: a transaction is durable here before it is shipped; the receiver's word on where to go on is final.
//! Not here: writing to any mail server, choosing sides.

mod inquiry;
mod link;
mod look;
mod mailbox;
mod shipper;
mod spool;
mod supervisor;
mod tail;
mod watch;

use std::path::PathBuf;

use anyhow::Context;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// What the source gateway needs to run.
#[derive(Debug)]
pub struct SourceConfig {
    pub pool: PgPool,
    /// Contents wait here, in `spool/`, until the recovery site has them.
    pub data_dir: PathBuf,
    /// The recovery site, several paths in order of preference.
    pub recovery_urls: Vec<String>,
    pub link_secret: SecretString,
    /// Capabilities to pretend no primary has; for tests of the ways to capture.
    pub capability_mask: Vec<String>,
}

/// Runs until `shutdown`; fails only when it cannot start.
pub async fn run(config: SourceConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let spool = spool::Spool::open(&config.data_dir.join("spool"), &config.pool)
        .await
        .context("could not open the spool folder")?;
    let link = link::Link::new(&config.recovery_urls, &config.link_secret).context("could not set up the link")?;
    let shipper = shipper::Shipper::new(config.pool.clone(), link.clone(), spool.clone());
    let tools = mailbox::Tools { pool: config.pool, spool, link, shipper: shipper.handle() };
    let supervisor = supervisor::Supervisor::new(tools, config.capability_mask);
    let shipping = tokio::spawn(shipper.run(shutdown.child_token()));
    supervisor.run(shutdown).await;
    shipping.await.context("the shipper did not end well")
}
