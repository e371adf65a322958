//! What every handler shares.

use std::{path::Path, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use understudy_database::PgPool;

use crate::{
    api::nginx::Nginx,
    config::{NginxConfig, Setting},
    events::{Events, Hub},
    login::Login,
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
    /// People reach the web over TLS, so cookies travel over nothing else.
    pub(crate) is_https: bool,
    pub(crate) login: Login,
    /// The configuration as people may see it.
    pub(crate) settings: Arc<[Setting]>,
    /// The file with the heads of the audit's chain.
    pub(crate) heads: Option<Arc<Path>>,
}

impl Api {
    /// The handle, and the hub to run beside it until `shutdown`.
    pub fn new(pool: PgPool, metrics: Option<PrometheusHandle>, shutdown: CancellationToken) -> (Self, Hub) {
        let (events, hub) = Events::new(pool.clone(), shutdown.clone());
        (
            Self {
                pool,
                events,
                metrics: metrics.map(Arc::new),
                shutdown,
                nginx: None,
                news: News::new(),
                is_https: false,
                login: Login::new(),
                settings: Arc::new([]),
                heads: None,
            },
            hub,
        )
    }

    /// Keeps its key and the heads of the audit in this folder.
    pub fn with_data_dir(mut self, path: &Path) -> anyhow::Result<Self> {
        self.login = Login::with_key_file(&path.join("admin.key"))?;
        self.heads = Some(path.join("audit-heads.jsonl").into());
        Ok(self)
    }

    /// How people reach the web.
    #[must_use]
    pub fn with_public_url(mut self, url: Option<&str>) -> Self {
        self.is_https = url.is_some_and(|url| url.starts_with("https://"));
        self
    }

    /// What people see of the configuration.
    #[must_use]
    pub fn with_settings(mut self, settings: Vec<Setting>) -> Self {
        self.settings = settings.into();
        self
    }

    /// Lets nginx doors ask for routes.
    #[must_use]
    pub fn with_nginx(mut self, nginx: Option<NginxConfig>) -> Self {
        self.nginx = nginx.map(Into::into);
        self
    }
}
