//! What the role needs to run.

use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use understudy_database::PgPool;
use utoipa::ToSchema;

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
    /// The whole configuration, for people to see: without secrets.
    pub settings: Vec<Setting>,
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

/// One value of the configuration. Never a secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Setting {
    /// As in the configuration file: table and name.
    #[schema(example = "verify.every")]
    pub key: String,
    /// A text, a number, true or false, or a list of texts.
    #[schema(example = json!("24h"))]
    pub value: Value,
    pub origin: SettingOrigin,
    /// File and line, or the name in the environment; null for what is built in.
    pub place: Option<String>,
}

/// Who said a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingOrigin {
    File,
    Environment,
    /// Nobody: it is built in.
    Default,
}
