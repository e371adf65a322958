//! What every handler shares.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use understudy_database::PgPool;

use crate::{
    api::nginx::Nginx,
    config::NginxConfig,
    events::{Events, Hub},
    news::News,
};

/// A cheap handle on everything handlers share.
#[derive(Clone)]
pub struct Api {
    pub(crate) pool: PgPool,
    pub(crate) events: Events,
    pub(crate) metrics: Option<Arc<PrometheusHandle>>,
    pub(crate) shutdown: CancellationToken,
    /// What nginx doors ask; none when they may not.
    pub(crate) nginx: Option<Arc<Nginx>>,
    pub(crate) news: News,
}

impl Api {
    /// The handle, and the hub to run beside it until `shutdown`.
    pub fn new(pool: PgPool, metrics: Option<PrometheusHandle>, shutdown: CancellationToken) -> (Self, Hub) {
        let (events, hub) = Events::new(pool.clone(), shutdown.clone());
        (Self { pool, events, metrics: metrics.map(Arc::new), shutdown, nginx: None, news: News::new() }, hub)
    }

    /// Lets nginx doors ask for routes.
    #[must_use]
    pub fn with_nginx(mut self, nginx: Option<NginxConfig>) -> Self {
        self.nginx = nginx.map(Into::into);
        self
    }
}
