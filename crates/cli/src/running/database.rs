//! The database of a site: the one the configuration names, or a private cluster of our own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use understudy_database::PgPool;
use understudy_database::cluster::{Cluster, ClusterConfig, ClusterError, DATABASE};

use crate::config::DatabaseUrl;
use crate::failure::{Failure, Result, in_a_row};

/// How long a database may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A database that is just being started again is waited for so long, …
const PATIENCE: Duration = Duration::from_secs(10);
/// … and asked this often.
const PAUSE: Duration = Duration::from_millis(250);

/// A migrated database that answers.
pub(crate) struct Database {
    options: PgConnectOptions,
    private: Option<Private>,
}

/// The private cluster, and the task that brings it back when it dies.
struct Private {
    cluster: Arc<Cluster>,
    supervision: JoinHandle<()>,
    end: CancellationToken,
}

/// Where the private cluster of a data folder lies.
pub(crate) fn cluster_config(data_dir: &Path) -> ClusterConfig {
    ClusterConfig::private(data_dir.join("postgres"), data_dir.join("run"))
}

impl Database {
    /// Opens the database at `url`, or starts the private one (with a socket for front doors in `door_dir`), and brings its schema up to date.
    pub(crate) async fn open(url: Option<&DatabaseUrl>, data_dir: &Path, door_dir: Option<&Path>) -> Result<Self> {
        let database = match url {
            Some(url) => Self { options: read_url(url)?, private: None },
            None => Self::start_private(data_dir, door_dir).await?,
        };
        match database.prepare_soon().await {
            Ok(()) => Ok(database),
            Err(error) => {
                let place = database.place();
                database.stop().await;
                Err(Failure::because(
                    format!("the database {place} cannot be used"),
                    &error,
                    "check that it runs, that [database] url is right, and that its user may create tables",
                ))
            }
        }
    }

    /// One that is away for a moment is waited for: PostgreSQL may just be started again beside us.
    async fn prepare_soon(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            match self.prepare().await {
                Err(error) if is_away(&error) && Instant::now() < deadline => {
                    if !told {
                        warn!(error = format!("{error:#}"), "The database does not answer; waiting for it");
                        told = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        self.answers().await?;
        let pool = self.pool(1);
        let migrated = understudy_database::migrate(&pool).await;
        pool.close().await;
        Ok(migrated?)
    }

    /// Connects once: a pool would keep trying and not say what is wrong.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options)).await;
        let connection = connection.with_context(|| format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))??;
        // It answered; a farewell that gets lost changes nothing.
        let _ = connection.close().await;
        Ok(())
    }

    /// The database that the configuration names, not yet asked for anything.
    pub(crate) fn named(url: Option<&DatabaseUrl>) -> Result<Self> {
        let url = url.ok_or_else(|| Failure::usage("no database is named", "[database] url is not set", "set it"))?;
        Ok(Self { options: read_url(url)?, private: None })
    }

    async fn start_private(data_dir: &Path, door_dir: Option<&Path>) -> Result<Self> {
        let config = ClusterConfig { door_dir: door_dir.map(Path::to_owned), ..cluster_config(data_dir) };
        let cluster = Cluster::start(config).await.map_err(|error| cluster_failure(&error))?;
        let cluster = Arc::new(cluster);
        let end = CancellationToken::new();
        let supervision = tokio::spawn({
            let (cluster, end) = (Arc::clone(&cluster), end.clone());
            async move {
                if let Err(error) = cluster.supervise(end).await {
                    let remedy = error.remedy();
                    error!(error = %format!("{:#}", anyhow::Error::new(error)), remedy, "The private PostgreSQL cannot be brought back");
                }
            }
        });
        Ok(Self { options: cluster.connect_options(DATABASE), private: Some(Private { cluster, supervision, end }) })
    }

    /// A pool of its own for one role, so that none starves another.
    pub(crate) fn pool(&self, connections: u32) -> PgPool {
        understudy_database::pool(self.options.clone(), connections)
    }

    /// The same for a role that answers people.
    pub(crate) fn asking_pool(&self, connections: u32) -> PgPool {
        understudy_database::asking_pool(self.options.clone(), connections)
    }

    /// Where it is, for people; no secret.
    pub(crate) fn place(&self) -> String {
        match &self.private {
            Some(_) => "under data_dir".to_owned(),
            None => {
                let name = self.options.get_database().unwrap_or_else(|| self.options.get_username());
                format!("{name} on {}", self.options.get_host())
            }
        }
    }

    /// Stops the private cluster; a database of others is left alone.
    pub(crate) async fn stop(self) {
        let Some(private) = self.private else { return };
        private.end.cancel();
        // It ends at once after `end`; how it ended has been logged.
        let _ = private.supervision.await;
        if let Ok(cluster) = Arc::try_unwrap(private.cluster) {
            cluster.stop().await;
        }
    }
}

/// Is it the server that is not there (yet, or any more), not something that somebody must correct?
fn is_away(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|error| match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        // Being stopped, after a crash of a backend, being started (PostgreSQL, appendix A).
        sqlx::Error::Database(error) => error.code().is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P03")),
        _ => false,
    })
}

/// What went wrong with the private cluster, with its own remedy.
pub(crate) fn cluster_failure(error: &ClusterError) -> Failure {
    let chain = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    let why = in_a_row(chain);
    Failure::new("the private PostgreSQL cannot be started", why, error.remedy())
}

fn read_url(url: &DatabaseUrl) -> Result<PgConnectOptions> {
    let text = match url {
        DatabaseUrl::Written(url) => url.expose_secret().to_owned(),
        DatabaseUrl::File(path) => super::secret::first_line(path, "the database URL")?,
    };
    // The cause may repeat the URL, and with it a password.
    text.parse::<PgConnectOptions>().ok().context("not a PostgreSQL URL").map_err(|error| {
        Failure::because(
            "[database] url cannot be used",
            &error,
            "write it like postgres://user:password@host/database, or leave it out for a private cluster",
        )
    })
}
