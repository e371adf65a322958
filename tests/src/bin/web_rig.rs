//! What the browser's tests run against: `web_rig COMMAND…` starts it, runs the command with its addresses in the environment and
//! ends as the command did.
//!
//! Two real Dovecots filled with mail, and an Understudy that knows of neither yet: the first test makes the acquaintance. And an
//! admin API alone with fifty thousand mailboxes, which no gateway looks at, to scroll through. And a recovery site without a
//! source site: one test pairs it with a source gateway, which starts once it has been.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Dovecot, MASTER, Options, PASSWORD, free_port};
use understudy_tests::mail::Mail;
use understudy_tests::postgres::Postgres;
use understudy_tests::stack::{Stack, program};
use understudy_tests::{process, temp_dir, wait};

const USERS: [&str; 5] =
    ["ana@example.org", "bob@example.org", "cleo@example.org", "dora@example.org", "eve@example.org"];
/// Messages that each mailbox begins with.
const MESSAGES: usize = 30;
/// Mailboxes of the long list.
const MANY: usize = 50_000;
const READY: Duration = Duration::from_secs(180);
/// How often it is looked whether the sites were paired.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().context("usage: web_rig COMMAND [ARGUMENT…]")?;
    let primary = Dovecot::start(Options::new("mail-a").users(USERS).without_fsync())?;
    let standby = Dovecot::start(Options::new("dr-1").users(USERS).without_fsync())?;
    let mut stack = Stack::up(&[]).await?;
    for (seed, user) in (0..).zip(USERS) {
        fill(&primary, user, seed).await?;
    }
    let token = stack.json(&["token", "create", "--role", "administrator", "--name", "browser"]).await?;
    let long = LongList::start().await?;
    let sites = Sites::start(&primary, &standby).await?;
    let passwords = primary.return_password_file().context("the primary has no file of passwords")?;
    let status = Command::new(command)
        .args(arguments)
        .env("UNDERSTUDY_URL", stack.address()?)
        .env("UNDERSTUDY_TOKEN", token["token"].as_str().context("no token")?)
        .env("UNDERSTUDY_MANY_URL", &long.url)
        .env("UNDERSTUDY_MANY_TOKEN", &long.token)
        .env("UNDERSTUDY_SITES_URL", &sites.url)
        .env("UNDERSTUDY_SITES_TOKEN", &sites.token)
        .env("UNDERSTUDY_SITES_WAY", &sites.way)
        .env("UNDERSTUDY_SOURCE_CONFIG", &sites.source_config)
        .env("UNDERSTUDY_PROGRAM", program()?)
        .env("MASTER", MASTER)
        .env("USER_PASSWORD", PASSWORD)
        .env("PRIMARY_URL", primary.imap_url())
        .env("PRIMARY_ADDRESS", primary.imap_address().to_string())
        .env("PRIMARY_PASSWORD_FILE", primary.master_password_file())
        .env("PRIMARY_PASSWORDS", passwords)
        .env("STANDBY_URL", standby.imap_url())
        .env("STANDBY_ADDRESS", standby.imap_address().to_string())
        .env("STANDBY_PASSWORD_FILE", standby.master_password_file())
        .status()?;
    sites.end().await?;
    stack.stop()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fill(primary: &Dovecot, user: &str, seed: u64) -> Result<()> {
    let mut mail = Mail::from_seed(seed);
    let mut client = Client::log_in(primary.imap_address(), user, PASSWORD).await?;
    client.create("Archive").await?;
    for _ in 0..MESSAGES {
        client.append("INBOX", &["\\Seen"], None, &mail.any()).await?;
    }
    client.log_out().await;
    Ok(())
}

/// A recovery site and, once it was paired, a source gateway.
struct Sites {
    url: String,
    token: String,
    /// Where the source gateway reaches the recovery gateway.
    way: String,
    source_config: PathBuf,
    end: oneshot::Sender<()>,
    running: JoinHandle<Result<()>>,
}

impl Sites {
    async fn start(primary: &Dovecot, standby: &Dovecot) -> Result<Self> {
        let mut stack = Stack::paired(&[("primary", primary), ("standby", standby)], 1, "").await?;
        let made = stack.json(&["token", "create", "--role", "administrator", "--name", "browser"]).await?;
        let token = made["token"].as_str().context("no token")?.to_owned();
        let mut log = String::new();
        wait::until("the admin API says where it is", READY, async || {
            log = fs::read_to_string(stack.dir().join("admin.log"))?;
            Ok(log.contains("web answer at "))
        })
        .await?;
        let (_, said) = log.split_once("web answer at ").context("the admin API does not say where it is")?;
        let url = said.split_whitespace().next().context("no address")?.to_owned();
        let way = format!("https://{}", stack.way(0)?.address());
        let source = stack.dir().join("source");
        let (source_config, paired) = (source.join("understudy.toml"), source.join("data/link/source.json"));
        let (end, mut ended) = oneshot::channel();
        let running = tokio::spawn(async move {
            let mut is_started = false;
            while ended.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                if !is_started && paired.exists() {
                    stack.start_paired_source()?;
                    is_started = true;
                }
                tokio::time::sleep(LOOK).await;
            }
            stack.stop()
        });
        Ok(Self { url, token, way, source_config, end, running })
    }

    async fn end(self) -> Result<()> {
        // It may have ended by itself, and says why below.
        let _ = self.end.send(());
        self.running.await?
    }
}

/// The admin API alone, over a database with very many mailboxes.
struct LongList {
    url: String,
    token: String,
    child: Child,
    config: PathBuf,
    _postgres: Postgres,
    _dir: TempDir,
}

impl LongList {
    async fn start() -> Result<Self> {
        let postgres = Postgres::start().await?;
        let dir = temp_dir("us-many-")?;
        let listen = format!("127.0.0.1:{}", free_port(std::net::Ipv4Addr::LOCALHOST)?);
        let database = postgres.url("understudy")?;
        let config = dir.path().join("understudy.toml");
        let text = format!("data_dir = \"data\"\n[database]\nurl = \"{database}\"\n[admin]\nlisten = \"{listen}\"\n");
        fs::write(&config, text)?;
        let log = fs::File::create(dir.path().join("admin.log"))?;
        let child = understudy(&config, &["admin"])?.stdout(log.try_clone()?).stderr(log).spawn()?;
        let url = format!("http://{listen}");
        let mut list = Self { url, token: String::new(), child, config, _postgres: postgres, _dir: dir };
        wait::until("the admin API answers", READY, async || Ok(list.run(&["status", "--json"]).is_ok())).await?;
        let made = list.run(&["token", "create", "--role", "administrator", "--name", "browser", "--json"])?;
        let made: Value = serde_json::from_slice(&made)?;
        made["token"].as_str().context("no token")?.clone_into(&mut list.token);
        list.fill()?;
        Ok(list)
    }

    fn fill(&self) -> Result<()> {
        // No gateway runs that would read it.
        fs::write(self.config.with_file_name("password"), "unused\n")?;
        for (name, role) in [("mail-a", "primary"), ("dr-1", "standby")] {
            let imap = format!("imaps://{name}.example.org");
            let login = ["--login", "master", "--user", MASTER, "--password-file", "password"];
            self.run(&[&["server", "add", name, "--role", role, "--imap", &imap], login.as_slice()].concat())?;
        }
        let numbers: Vec<usize> = (0..MANY).collect();
        // One request may take a minute and a half, and an unoptimised build on a busy machine takes its time.
        for some in numbers.chunks(10_000) {
            let addresses: String = some.iter().map(|number| format!("user{number:05}@example.org\n")).collect();
            fs::write(self.config.with_file_name("users.csv"), format!("address\n{addresses}"))?;
            self.run(&["mailbox", "protect", "--from-file", "users.csv", "--primary", "mail-a", "--standby", "dr-1"])?;
        }
        Ok(())
    }

    /// Runs a command that must succeed, and gives what it prints.
    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = understudy(&self.config, arguments)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "understudy {} failed: {said}", arguments.join(" "));
        Ok(output.stdout)
    }
}

impl Drop for LongList {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::INT);
        // Whatever it says at its end, it ends.
        let _ = self.child.wait();
    }
}

fn understudy(config: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.args(arguments).env("UNDERSTUDY_CONFIG", config).stdin(Stdio::null());
    command.current_dir(config.parent().context("a configuration lies in a folder")?);
    Ok(command)
}
