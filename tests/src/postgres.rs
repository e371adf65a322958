//! A PostgreSQL cluster of a test's own: the product's, in a temporary folder.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use understudy_database::cluster::{Cluster, ClusterConfig, DATABASE};

use crate::process;

/// Runs until [`Self::stop`]; dropped, it ends at once.
pub struct Postgres {
    cluster: Cluster,
    dir: TempDir,
}

impl Postgres {
    pub async fn start() -> Result<Self> {
        let dir = crate::temp_dir("us-pg-")?;
        let config = ClusterConfig { dir: dir.path().join("postgres"), run_dir: dir.path().join("run") };
        let cluster = Cluster::start(config).await.map_err(|error| {
            let remedy = error.remedy();
            anyhow!(error).context(format!("no PostgreSQL for the test; {remedy}"))
        })?;
        Ok(Self { cluster, dir })
    }

    /// Makes an empty database.
    pub async fn create(&self, database: &str) -> Result<()> {
        let mut connection = PgConnection::connect_with(&self.cluster.connect_options(DATABASE)).await?;
        let statement = sqlx::AssertSqlSafe(format!("create database \"{database}\""));
        sqlx::raw_sql(statement).execute(&mut connection).await.context("could not create a database")?;
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
        self.cluster.stop().await;
    }
}
