//! The role for people and programs: REST, events, metrics and the web, over the one database.
//!
//! In: HTTP on a TCP listener and on a unix socket. Out: rows that the gateways act on; what they report, as JSON.
//! Keeps true: no handler waits for a run, talks to a mail server or decides what a gateway should.

mod api;
mod audit_heads;
mod auth;
mod books;
mod caller;
mod config;
mod cursor;
mod error;
mod events;
mod extract;
mod health;
mod idempotency;
mod login;
mod metrics;
mod nearest;
mod news;
mod router;
mod serve;
mod state;
mod web;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use config::{AdminConfig, NginxConfig, Setting, SettingOrigin};
pub use events::Hub;
pub use router::{openapi, router};
pub use state::Api;

/// Serves until `shutdown`.
pub async fn run(config: AdminConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let address = config.listener.local_addr().context("could not tell the address of the admin listener")?;
    let socket = serve::open_socket(config.socket).await?;
    let (api, hub) = Api::new(config.pool, config.metrics, shutdown.clone());
    let api = api.with_data_dir(&config.data_dir)?;
    let api = api.with_settings(config.settings);
    let api = api.with_nginx(config.nginx).with_public_url(config.public_url.as_deref());
    let news = tokio::spawn(news::listen(api.clone()));
    let hub = tokio::spawn(hub.run());
    let keeper = tokio::spawn(idempotency::forget_old_answers(api.clone()));
    let heads = tokio::spawn(audit_heads::keep(api.clone()));
    let router = router::router(api);
    let public_url = config.public_url.as_deref().unwrap_or("none");
    info!(http.address = %address, http.public_url = public_url, "Admin API and web answer at http://{address}");

    let tcp = serve::tcp(config.listener, router.clone(), shutdown.clone());
    let unix = serve::unix(socket, router, shutdown.clone());
    let served = tokio::try_join!(tcp, unix);
    shutdown.cancel();
    hub.await.context("the event hub stopped")?;
    news.await.context("the listener for routes stopped")?;
    heads.await.context("the keeper of the audit's heads stopped")?;
    keeper.await.context("the housekeeping of answers stopped")?;
    served.map(|_| ())
}
