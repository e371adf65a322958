//! What the role needs to run.

use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio::net::TcpListener;
use understudy_database::PgPool;

/// Everything [`crate::run`] is given.
pub struct AdminConfig {
    pub pool: PgPool,
    pub listener: TcpListener,
    /// How people reach the web, where that is not the listener's own address.
    pub public_url: Option<String>,
    /// A socket only this system user can open: whoever can is a full administrator, without a token.
    pub socket: Option<PathBuf>,
    /// Where the role keeps its key and the heads of the audit.
    pub data_dir: PathBuf,
    /// The process's metrics, shown at `/metrics` beside those computed from the database.
    pub metrics: Option<PrometheusHandle>,
    /// Lets nginx doors ask for routes.
    pub nginx: Option<NginxConfig>,
}

/// What the answers to nginx rest on.
#[derive(Clone, Debug)]
pub struct NginxConfig {
    /// What nginx shows in `X-Auth-Key`.
    pub key: SecretString,
    /// nginx may speak to mail servers without TLS: it knows no other way.
    pub plaintext: bool,
}
