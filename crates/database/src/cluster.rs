//! The private PostgreSQL cluster: made, started, supervised and cleanly stopped by us.
//!
//! In: a directory. Out: connect options for a running server that nobody else reaches (a socket, no port).
//! Keeps true: `fsync` is on; at most one server works on the directory; the server is a direct child in a process group of
//! its own, so that Ctrl-C at the terminal reaches it only through [`Cluster::stop`]; it never runs as root.
//! Not here: the schema ([`crate::migrate`]), databases that an administrator runs.

mod account;
mod binaries;
mod files;
mod orphan;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use account::Account;
use binaries::Binaries;
use files::{Files, SocketDir};

/// The database that a new cluster gets.
pub const DATABASE: &str = "understudy";
/// Its only role.
const ROLE: &str = "understudy";
/// Part of the socket's name; no port is opened.
const PORT: u16 = 5432;
/// From start to first answer; replaying the log after a crash is part of it.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const READY_PAUSE: Duration = Duration::from_millis(30);
/// How long a fast shutdown (sessions are ended, a checkpoint is written) may take before an immediate one follows.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to bring a dead server back.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Given on the command line at each start, so that a new version of us brings its own.
const SETTINGS: &[(&str, &str)] = &[
    ("cluster_name", "understudy"),
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    // What we acknowledge rests on these three.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // The roles take half a hundred; a front door with its own connections may take as many again.
    ("max_connections", "200"),
    ("shared_buffers", "64MB"),
    // Stays in the data directory, where a killed server leaves nothing behind for others.
    ("dynamic_shared_memory_type", "mmap"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("autovacuum_naptime", "1min"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] "),
    // Statements may hold names of people and folders.
    ("log_min_error_statement", "panic"),
];

/// Where the cluster lives.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Data, password and log; made if missing, and belongs to the cluster alone.
    pub dir: PathBuf,
    /// The socket; made if missing, and belongs to the cluster alone. A path too long for a socket is replaced by a short
    /// private one.
    pub run_dir: PathBuf,
    /// A second socket, for front doors of other system users: they must show a password too. Made if missing; the folders
    /// above it must let them pass.
    pub door_dir: Option<PathBuf>,
}

impl ClusterConfig {
    /// A cluster that nobody else reaches.
    #[must_use]
    pub fn private(dir: PathBuf, run_dir: PathBuf) -> Self {
        Self { dir, run_dir, door_dir: None }
    }
}

/// What can go wrong with the private cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no PostgreSQL server programs were found")]
    NoBinaries,
    #[error("the data was written by PostgreSQL {data}, and only {found} is installed")]
    OtherVersion { data: String, found: String },
    #[error("the user {user} may not enter {}", dir.display())]
    NotTraversable { user: String, dir: PathBuf },
    #[error("there is no unprivileged user to run PostgreSQL as")]
    NoAccount,
    #[error("another running Understudy uses {}", dir.display())]
    InUse { dir: PathBuf },
    #[error("{} is missing, and without it nobody can log in to the data beside it", path.display())]
    NoPassword { path: PathBuf },
    #[error("could not {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("could not run {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("could not make the data directory: {output}")]
    Initdb { output: String },
    #[error("PostgreSQL ended with {status} while starting: {log}")]
    Ended { status: ExitStatus, log: String },
    #[error("PostgreSQL did not answer within {} s", timeout.as_secs())]
    NotReady { timeout: Duration, source: sqlx::Error },
    #[error("an earlier PostgreSQL (process {pid}) on the same data could not be stopped")]
    Orphan { pid: i32 },
    #[error("could not create the database {DATABASE}")]
    Create { source: sqlx::Error },
}

impl ClusterError {
    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoBinaries => "install PostgreSQL (Debian: apt-get install postgresql), name its programs' directory in PG_BIN, or set [database] url".into(),
            Self::OtherVersion { data, .. } => format!("install PostgreSQL {data} again (Debian: postgresql-{data}), or move the data with pg_upgrade"),
            Self::NotTraversable { dir, .. } => format!(
                "choose a data_dir outside {0}, such as /var/lib/understudy, or allow passing through: chmod o+x {0}",
                dir.display()
            ),
            Self::NoAccount => "create a user for it (adduser --system postgres), or start Understudy as an ordinary user".into(),
            Self::InUse { .. } => "stop the other one, or give this one a data_dir of its own".into(),
            Self::NoPassword { .. } => "restore the file from a backup".into(),
            Self::File { .. } | Self::Spawn { .. } | Self::Initdb { .. } => {
                "check the directory's owner, its rights and the free space".into()
            }
            Self::Ended { log, .. } if log.contains("No space left on device") => {
                "Make room on the disk that holds the cluster's directory; it goes on by itself. Nothing is lost meanwhile".into()
            }
            Self::Ended { .. } | Self::NotReady { .. } | Self::Create { .. } => {
                "read postgres.log in the cluster's directory; it is tried again by the next start".into()
            }
            Self::Orphan { pid } => format!("end process {pid}, then start again"),
        }
    }

    /// Whether trying again may help without anybody doing something.
    fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::NoBinaries
                | Self::OtherVersion { .. }
                | Self::NotTraversable { .. }
                | Self::NoAccount
                | Self::NoPassword { .. }
        )
    }
}

/// A running private PostgreSQL server. Dropped without [`Cluster::stop`], the server is told to end at once.
pub struct Cluster {
    files: Files,
    socket: SocketDir,
    door_dir: Option<PathBuf>,
    account: Option<Account>,
    binaries: Binaries,
    password: String,
    /// The process that now is the server; empty only after `stop`.
    server: Mutex<Option<Child>>,
    /// The same server for `drop`, which cannot wait for the lock.
    pid: std::sync::Mutex<Option<Pid>>,
}

impl Cluster {
    /// Makes the cluster if there is none, replaces a server that an earlier, killed Understudy left behind, and returns
    /// once the database answers.
    pub async fn start(config: ClusterConfig) -> Result<Self, ClusterError> {
        let account = Account::for_server()?;
        let files = Files::open(&config.dir, account.as_ref())?;
        let binaries = Binaries::find(files.data_version()?.as_deref())?;
        let password = files.password()?;
        if !files.is_made() {
            initdb(&files, account.as_ref(), &binaries).await?;
        }
        let socket = SocketDir::open(&config.run_dir, &files, account.as_ref())?;
        if let Some(dir) = &config.door_dir {
            files::make_door_dir(dir, account.as_ref())?;
        }
        let cluster = Self {
            files,
            socket,
            door_dir: config.door_dir,
            account,
            binaries,
            password,
            server: Mutex::new(None),
            pid: std::sync::Mutex::new(None),
        };
        let mut server = cluster.server.lock().await;
        cluster.launch(&mut server).await?;
        drop(server);
        cluster.create_database().await?;
        info!(version = %cluster.binaries.version, "Private PostgreSQL is ready");
        Ok(cluster)
    }

    /// How to reach `database` on this cluster.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.socket.path())
            .port(PORT)
            .username(ROLE)
            .password(&self.password)
            .database(database)
    }

    /// Brings the server back whenever it dies, until `shutdown`. Fails only where trying again cannot help.
    pub async fn supervise(&self, shutdown: CancellationToken) -> Result<(), ClusterError> {
        let mut server = self.server.lock().await;
        loop {
            let Some(child) = server.as_mut() else { return Ok(()) };
            let ended = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                ended = child.wait() => ended,
            };
            match ended {
                Ok(status) => warn!(%status, "Private PostgreSQL ended, starting it again"),
                Err(error) => warn!(%error, "Private PostgreSQL could not be watched, starting it again"),
            }
            let mut pause = RESTART_PAUSE;
            while let Err(error) = self.launch(&mut server).await {
                if !error.may_pass() {
                    return Err(error);
                }
                let remedy = error.remedy();
                warn!(%error, remedy, "Private PostgreSQL did not start, trying again in {} ms", pause.as_millis());
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(RESTART_PAUSE_MAX);
            }
            info!("Private PostgreSQL is ready again");
        }
    }

    /// Ends all sessions, writes a checkpoint and stops the server.
    pub async fn stop(self) {
        let Some(mut child) = self.server.lock().await.take() else { return };
        for (signal, timeout) in
            [(Signal::INT, STOP_TIMEOUT), (Signal::QUIT, QUIT_TIMEOUT), (Signal::KILL, QUIT_TIMEOUT)]
        {
            send(&child, signal);
            if tokio::time::timeout(timeout, child.wait()).await.is_ok() {
                break;
            }
            warn!("Private PostgreSQL did not stop within {} s", timeout.as_secs());
        }
        self.remember(None);
        self.socket.remove();
    }

    /// Starts the server and waits until it answers.
    async fn launch(&self, server: &mut Option<Child>) -> Result<(), ClusterError> {
        orphan::replace(&self.files.data(), self.socket.path()).await?;
        let program = self.binaries.program("postgres");
        let log = self.files.log()?;
        let mut command = command(&program, self.account.as_ref(), self.files.dir());
        command.arg("-D").arg(self.files.data()).stdin(Stdio::null());
        let mut sockets = self.socket.path().as_os_str().to_owned();
        for (name, value) in SETTINGS {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        if let Some(dir) = &self.door_dir {
            sockets.push(",");
            sockets.push(dir);
            // The folder of the first socket stays closed to others.
            command.args(["-c", "unix_socket_permissions=0777"]);
        }
        command.arg("-k").arg(sockets).args(["-p", &PORT.to_string()]);
        let log_twin = log.try_clone().map_err(|source| self.files.error("open", "postgres.log", source))?;
        command.stdout(log).stderr(log_twin).process_group(0);
        let child = command.spawn().map_err(|source| ClusterError::Spawn { program, source })?;
        self.remember(child.id());
        let child = server.insert(child);
        let ready = self.wait_until_ready(child).await;
        if ready.is_err() {
            send(child, Signal::QUIT);
            if tokio::time::timeout(QUIT_TIMEOUT, child.wait()).await.is_err() {
                send(child, Signal::KILL);
            }
        }
        ready
    }

    async fn wait_until_ready(&self, child: &mut Child) -> Result<(), ClusterError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let refused = match PgConnection::connect_with(&self.connect_options("postgres")).await {
                Ok(connection) => {
                    // It answered; a farewell that gets lost changes nothing.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) => error,
            };
            if let Ok(Some(status)) = child.try_wait() {
                return Err(ClusterError::Ended { status, log: self.files.log_tail() });
            }
            if Instant::now() > deadline {
                return Err(ClusterError::NotReady { timeout: READY_TIMEOUT, source: refused });
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    async fn create_database(&self) -> Result<(), ClusterError> {
        let create = async {
            let mut connection = PgConnection::connect_with(&self.connect_options("postgres")).await?;
            let there = sqlx::query_scalar!(
                r#"select exists (select from pg_database where datname = $1) as "there!""#,
                DATABASE
            )
            .fetch_one(&mut connection)
            .await?;
            if !there {
                sqlx::raw_sql("create database understudy").execute(&mut connection).await?;
            }
            connection.close().await
        };
        create.await.map_err(|source| ClusterError::Create { source })
    }

    fn remember(&self, pid: Option<u32>) {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        *self.pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = pid;
    }
}

impl Drop for Cluster {
    /// An immediate shutdown: it cannot be held up, and the next start replays the log.
    fn drop(&mut self) {
        let running = self.server.get_mut().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        let pid = self.pid.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let (true, Some(pid)) = (running, pid) {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

async fn initdb(files: &Files, account: Option<&Account>, binaries: &Binaries) -> Result<(), ClusterError> {
    let program = binaries.program("initdb");
    // Made beside and renamed, so that a crash half way leaves nothing that looks like a cluster.
    let data = files.prepare_new_data()?;
    let output = command(&program, account, files.dir())
        .args(["-A", "scram-sha-256", "-k", "--locale=C.UTF-8", "-E", "UTF8", "-U", ROLE])
        .arg("--pwfile")
        .arg(files.password_path())
        .arg("-D")
        .arg(&data)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| ClusterError::Spawn { program, source })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(ClusterError::Initdb { output });
    }
    files.accept_new_data(&data)
}

/// A PostgreSQL program as the right user, with nothing of our environment that could change what it does.
fn command(program: &Path, account: Option<&Account>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TZ"));
    command.env("LC_ALL", "C.UTF-8").current_dir(dir);
    if let Some(account) = account {
        // Started as root, std clears the supplementary groups when it changes the user.
        command.uid(account.uid).gid(account.gid);
    }
    command
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already is as good.
        let _ = kill_process(pid, signal);
    }
}
