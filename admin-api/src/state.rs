//! What every handler shares.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use understudy_database::PgPool;

use crate::events::{Events, Hub};

/// A cheap handle on everything handlers share.
#[derive(Clone)]
pub struct Api {
    pub(crate) pool: PgPool,
    pub(crate) events: Events,
    pub(crate) metrics: Option<Arc<PrometheusHandle>>,
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// The handle, and the hub to run beside it until `shutdown`.
    pub fn new(pool: PgPool, metrics: Option<PrometheusHandle>, shutdown: CancellationToken) -> (Self, Hub) {
        let (events, hub) = Events::new(pool.clone(), shutdown.clone());
        (Self { pool, events, metrics: metrics.map(Arc::new), shutdown }, hub)
    }
}
