//! The private PostgreSQL cluster against the real programs, killed in every way it can be.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use understudy_database::cluster::{Cluster, ClusterConfig, ClusterError, DATABASE};

const PATIENCE: Duration = Duration::from_secs(60);
/// Set for a copy of this program that plays an Understudy about to be killed.
const HOLD_IN: &str = "UNDERSTUDY_TEST_HOLD_CLUSTER_IN";

/// A directory that PostgreSQL's user may pass through.
fn temp_dir() -> TempDir {
    let mode = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("understudy-cluster-").permissions(mode).tempdir_in("/tmp").unwrap()
}

fn config(dir: &Path) -> ClusterConfig {
    ClusterConfig::private(dir.join("postgres"), dir.join("run"))
}

async fn start(dir: &Path) -> Cluster {
    Cluster::start(config(dir)).await.unwrap_or_else(|error| panic!("{error}: {}", error.remedy()))
}

async fn connect(cluster: &Cluster) -> PgConnection {
    PgConnection::connect_with(&cluster.connect_options(DATABASE)).await.unwrap()
}

async fn write(cluster: &Cluster, text: &'static str) {
    let mut connection = connect(cluster).await;
    sqlx::raw_sql("create table if not exists kept (text text)").execute(&mut connection).await.unwrap();
    sqlx::query("insert into kept values ($1)").bind(text).execute(&mut connection).await.unwrap();
}

async fn kept(cluster: &Cluster) -> Vec<String> {
    sqlx::query_scalar("select text from kept order by text").fetch_all(&mut connect(cluster).await).await.unwrap()
}

fn postmaster(dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(dir.join("postgres/data/postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}

/// Whether any process works in the data directory.
fn is_running(dir: &Path) -> bool {
    let data = dir.join("postgres/data");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited {} s until {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn data_survives_a_stop_and_a_start_and_nothing_keeps_running() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await;
    write(&cluster, "first").await;
    let mut connection = connect(&cluster).await;
    let settings: Vec<String> = sqlx::query_scalar(
        "select name || '=' || setting from pg_settings where name in ('fsync', 'listen_addresses', 'data_checksums', 'server_encoding') order by name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(settings, ["data_checksums=on", "fsync=on", "listen_addresses=", "server_encoding=UTF8"]);
    cluster.stop().await;
    assert!(!is_running(dir.path()), "a stopped server still runs");
    assert!(postmaster(dir.path()).is_none(), "a clean stop removes the pid file");

    let cluster = start(dir.path()).await;
    assert_eq!(kept(&cluster).await, ["first"]);
    cluster.stop().await;
    let password = fs::metadata(dir.path().join("postgres/password")).unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_killed_server_comes_back_by_itself() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await;
    write(&cluster, "before").await;
    let first = postmaster(dir.path()).unwrap();
    let shutdown = CancellationToken::new();
    tokio::join!(async { cluster.supervise(shutdown.clone()).await.unwrap() }, async {
        kill_process(first, Signal::KILL).unwrap();
        until("another server runs", || postmaster(dir.path()).is_some_and(|pid| pid != first)).await;
        let deadline = Instant::now() + PATIENCE;
        while PgConnection::connect_with(&cluster.connect_options(DATABASE)).await.is_err() {
            assert!(Instant::now() < deadline, "waited until the new server answers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(kept(&cluster).await, ["before"]);
        shutdown.cancel();
    });
    cluster.stop().await;
    assert!(!is_running(dir.path()), "a stopped server still runs");
}

/// Starts a copy of this program that starts the cluster in `dir` and then only waits to be killed.
fn hold_in_another_process(dir: &Path) -> Child {
    let args = ["--exact", "holds_a_cluster_when_told_to", "--nocapture"];
    Command::new(env::current_exe().unwrap()).args(args).env(HOLD_IN, dir).stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn holds_a_cluster_when_told_to() {
    let Some(dir) = env::var_os(HOLD_IN).map(PathBuf::from) else { return };
    let cluster = start(&dir).await;
    write(&cluster, "written by the killed one").await;
    fs::write(dir.join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_server_left_by_a_killed_understudy_is_replaced() {
    let dir = temp_dir();
    let mut other = hold_in_another_process(dir.path());
    until("the other one is ready", || dir.path().join("ready").exists()).await;
    let orphan = postmaster(dir.path()).unwrap();

    let refused = Cluster::start(config(dir.path())).await.err().unwrap();
    assert!(matches!(refused, ClusterError::InUse { .. }), "{refused}");
    assert_eq!(postmaster(dir.path()), Some(orphan), "a live Understudy's server must be left alone");

    other.kill().unwrap();
    other.wait().unwrap();
    assert!(is_running(dir.path()), "the orphan must still run for this test to mean anything");
    let cluster = start(dir.path()).await;
    assert_ne!(postmaster(dir.path()), Some(orphan));
    assert_eq!(kept(&cluster).await, ["written by the killed one"]);
    cluster.stop().await;
}

#[tokio::test]
async fn everything_killed_at_once_is_no_obstacle() {
    let dir = temp_dir();
    let mut other = hold_in_another_process(dir.path());
    until("the other one is ready", || dir.path().join("ready").exists()).await;
    other.kill().unwrap();
    other.wait().unwrap();
    kill_process(postmaster(dir.path()).unwrap(), Signal::KILL).unwrap();
    // The pid file now names a process that is gone or, where nobody collects orphans, a zombie.
    let cluster = start(dir.path()).await;
    assert_eq!(kept(&cluster).await, ["written by the killed one"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_is_no_obstacle() {
    let dir = temp_dir();
    start(dir.path()).await.stop().await;
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let pid_file = dir.path().join("postgres/data/postmaster.pid");
    fs::write(&pid_file, format!("{}\n{}\n", stranger.id(), dir.path().join("postgres/data").display())).unwrap();
    start(dir.path()).await.stop().await;
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger's process must be left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn an_interrupted_first_start_is_begun_again() {
    let dir = temp_dir();
    fs::create_dir_all(dir.path().join("postgres/data.new/base")).unwrap();
    fs::write(dir.path().join("postgres/data.new/PG_VERSION"), "15\n").unwrap();
    let cluster = start(dir.path()).await;
    write(&cluster, "works").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one_that_is_removed_again() {
    let dir = temp_dir();
    let run_dir = dir.path().join("long".repeat(30));
    let cluster = Cluster::start(ClusterConfig::private(dir.path().join("postgres"), run_dir)).await.unwrap();
    write(&cluster, "works").await;
    let short = fs::read_to_string(dir.path().join("postgres/socket_dir")).unwrap();
    assert_eq!(fs::metadata(&short).unwrap().permissions().mode() & 0o777, 0o700);
    cluster.stop().await;
    assert!(!Path::new(&short).exists(), "{short} is left behind");
}

#[tokio::test]
async fn data_of_another_version_is_left_alone_and_named() {
    let dir = temp_dir();
    start(dir.path()).await.stop().await;
    fs::write(dir.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let error = Cluster::start(config(dir.path())).await.err().unwrap();
    assert!(matches!(&error, ClusterError::OtherVersion { data, .. } if data == "9"), "{error}");
    assert!(error.remedy().contains("postgresql-9"), "{}", error.remedy());
}

#[tokio::test]
async fn a_dropped_cluster_ends_by_itself() {
    let dir = temp_dir();
    drop(start(dir.path()).await);
    until("the dropped server is gone", || !is_running(dir.path())).await;
}

/// Root cannot test what an ordinary user sees, so it asks one.
#[test]
fn an_ordinary_user_can_run_it_too() {
    if !rustix::process::geteuid().is_root() {
        return; // All the other tests then are this test.
    }
    let dir = temp_dir();
    let copy = dir.path().join("cluster-test");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let args = ["--exact", "data_survives_a_stop_and_a_start_and_nothing_keeps_running"];
    let output = Command::new(copy).args(args).current_dir("/tmp").uid(65534).gid(65534).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn root_is_told_which_directory_keeps_its_server_out() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = temp_dir();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Cluster::start(config(&closed)).await.err().unwrap();
    assert!(matches!(&error, ClusterError::NotTraversable { dir, .. } if *dir == closed), "{error}");
    assert!(error.remedy().contains(&closed.display().to_string()), "{}", error.remedy());
}
