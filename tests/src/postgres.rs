//! A PostgreSQL cluster of a test's own: the product's, in a temporary folder.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use understudy_database::cluster::{Cluster, ClusterConfig, DATABASE};

use crate::process;

/// Runs until [`Self::stop`]; dropped, it ends at once.
pub struct Postgres {
    cluster: Arc<Cluster>,
    /// Brings it back when it is killed.
    watch: JoinHandle<()>,
    shutdown: DropGuard,
    dir: TempDir,
}

impl Postgres {
    pub async fn start() -> Result<Self> {
        Self::start_for(None).await
    }

    /// The same with a second socket in a folder, for front doors.
    pub async fn start_for(doors: Option<PathBuf>) -> Result<Self> {
        let dir = crate::temp_dir("us-pg-")?;
        let mut config = ClusterConfig::private(dir.path().join("postgres"), dir.path().join("run"));
        config.door_dir = doors;
        let cluster = Cluster::start(config).await.map_err(|error| {
            let remedy = error.remedy();
            anyhow!(error).context(format!("no PostgreSQL for the test; {remedy}"))
        })?;
        let (cluster, shutdown) = (Arc::new(cluster), CancellationToken::new());
        let (watched, ended) = (cluster.clone(), shutdown.clone());
        let watch = tokio::spawn(async move {
            if let Err(error) = watched.supervise(ended).await {
                eprintln!("the test's PostgreSQL does not come back: {error}");
            }
        });
        Ok(Self { cluster, watch, shutdown: shutdown.drop_guard(), dir })
    }

    /// Makes an empty database.
    pub async fn create(&self, database: &str) -> Result<()> {
        self.run(format!("create database \"{database}\"")).await.context("could not create a database")
    }

    /// Loses one, whoever is connected to it.
    pub async fn drop_database(&self, database: &str) -> Result<()> {
        self.run(format!("drop database \"{database}\" with (force)")).await.context("could not drop a database")
    }

    /// Makes `to` what `from` is; nobody may be connected to that.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let none = format!("drop database if exists \"{to}\" with (force)");
        self.run_in("postgres", none).await?;
        self.run_in("postgres", format!("create database \"{to}\" template \"{from}\""))
            .await
            .context("could not copy a database")
    }

    /// Lets nobody connect to one, and ends who is; or lets everybody in again.
    pub async fn shut(&self, database: &str, shut: bool) -> Result<()> {
        self.run(format!("alter database \"{database}\" with allow_connections {}", !shut)).await?;
        if shut {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname";
            self.run(format!("{end} = '{database}'")).await?;
        }
        Ok(())
    }

    async fn run(&self, statement: String) -> Result<()> {
        self.run_in(DATABASE, statement).await
    }

    async fn run_in(&self, database: &str, statement: String) -> Result<()> {
        let mut connection = PgConnection::connect_with(&self.cluster.connect_options(database)).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// A URL for programs.
    pub fn url(&self, database: &str) -> Result<String> {
        let password = fs::read_to_string(self.dir.path().join("postgres/password"))?;
        let socket_dir = self.socket_dir().display().to_string().replace('/', "%2F");
        Ok(format!("postgres://understudy:{}@{socket_dir}/{database}", password.trim()))
    }

    fn socket_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The server process.
    pub fn pid(&self) -> Result<u32> {
        process::pid_in(&self.dir.path().join("postgres/data/postmaster.pid"))
    }

    pub async fn stop(self) {
        self.shutdown.disarm().cancel();
        let _ = self.watch.await;
        if let Some(cluster) = Arc::into_inner(self.cluster) {
            cluster.stop().await;
        }
    }
}
