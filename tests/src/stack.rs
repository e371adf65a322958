//! A running Understudy: the built program with a configuration of its own.
//!
//! In: servers. Out: commands run as a person would run them. Everything it does can be killed and started again.
//! Keeps true: only processes it started are ended; when dropped none is left and the logs' tails are printed, which a passing test
//! swallows.

mod role;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::dovecot::{Dovecot, MASTER, free_port};
use crate::failpoint::Failpoints;
use crate::front_door::Plan;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::{process, wait};

use role::Role;

/// Until everything answers; the first start makes a database cluster.
const READY_PATIENCE: Duration = Duration::from_secs(180);
/// A command that should take moments.
const COMMAND_PATIENCE: Duration = Duration::from_secs(300);

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Fails with what the command said, unless it ended with `code`.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "ended with {} instead of {code}:\n{}{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }
}

/// Understudy in one process or in three.
pub struct Stack {
    dir: PathBuf,
    temp: Option<TempDir>,
    roles: Vec<Role>,
    /// Only where the roles run apart: their databases, and the link between the gateways.
    apart: Option<Apart>,
}

struct Apart {
    postgres: Postgres,
    link: Proxy,
    /// Further ways between paired sites.
    more: Vec<Proxy>,
}

impl Stack {
    /// `understudy up` with a private PostgreSQL, with these servers in its configuration.
    pub async fn up(servers: &[(&str, &Dovecot)]) -> Result<Self> {
        Self::up_with(servers, "").await
    }

    /// The same with more lines at the head of the configuration, or after its own tables.
    pub async fn up_with(servers: &[(&str, &Dovecot)], extra: &str) -> Result<Self> {
        let temp = crate::temp_dir("us-stack-")?;
        let mut stack = Self::up_in(temp.path(), "127.0.0.1:0", servers, extra).await?;
        stack.temp = Some(temp);
        Ok(stack)
    }

    /// The same in a folder that stays, with the web at `listen`.
    pub async fn up_in(dir: &Path, listen: &str, servers: &[(&str, &Dovecot)], extra: &str) -> Result<Self> {
        let head = format!(
            "data_dir = \"data\"\n[admin]\nlisten = \"{listen}\"\n[recovery]\nlisten = \"127.0.0.1:0\"\n{extra}\n"
        );
        write_config(dir, &head, servers)?;
        let role = Role::new("up", dir, &["--ready-file", "ready"]);
        let mut stack = Self { dir: dir.to_owned(), temp: None, roles: vec![role], apart: None };
        stack.start().await?;
        Ok(stack)
    }

    /// Source gateway, recovery gateway and admin API as three processes, with a [`Proxy`] between the gateways.
    pub async fn apart(servers: &[(&str, &Dovecot)]) -> Result<Self> {
        Self::apart_with(servers, "").await
    }

    /// The same with more lines in `[source]`.
    pub async fn apart_with(servers: &[(&str, &Dovecot)], source: &str) -> Result<Self> {
        Self::apart_from(servers, source, Postgres::start().await?, "127.0.0.1:0", "").await
    }

    /// The same behind the front door of a plan.
    pub async fn apart_behind(servers: &[(&str, &Dovecot)], plan: &Plan) -> Result<Self> {
        let postgres = Postgres::start_for(Some(plan.database_socket())).await?;
        Self::apart_from(servers, "", postgres, &plan.admin.to_string(), &plan.configuration()).await
    }

    async fn apart_from(
        servers: &[(&str, &Dovecot)],
        source: &str,
        postgres: Postgres,
        listen: &str,
        extra: &str,
    ) -> Result<Self> {
        let temp = crate::temp_dir("us-stack-")?;
        let dir = temp.path().to_owned();
        postgres.create("source").await?;
        let recovery = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?));
        let link = Proxy::to(recovery).await?;
        let secret = dir.join("link.secret");
        fs::write(&secret, "a secret that both ends of the link know\n")?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let head = format!(
            "data_dir = \"data\"\n[database]\nurl = \"{}\"\nsource_url = \"{}\"\n[admin]\nlisten = \"{listen}\"\n\
             [recovery]\nlisten = \"{recovery}\"\nplaintext = true\n[source]\nplaintext = true\nrecovery_url = \"http://{}\"\n{source}\n[link]\nsecret_file = \"link.secret\"\n{extra}\n",
            postgres.url("understudy")?,
            postgres.url("source")?,
            link.address(),
        );
        write_config(&dir, &head, servers)?;
        let roles = ["recovery", "admin", "source"].map(|name| Role::new(name, &dir, &[]));
        let apart = Some(Apart { postgres, link, more: Vec::new() });
        let mut stack = Self { dir, temp: Some(temp), roles: roles.into(), apart };
        stack.start().await?;
        Ok(stack)
    }

    /// Two paired sites with `ways` ways between them: the recovery site's two roles, and a source gateway with a configuration
    /// and a folder of its own (`source_command`). `extra` goes to the end of the recovery site's configuration.
    pub async fn paired(servers: &[(&str, &Dovecot)], ways: usize, extra: &str) -> Result<Self> {
        let temp = crate::temp_dir("us-stack-")?;
        let dir = temp.path().to_owned();
        let postgres = Postgres::start().await?;
        postgres.create("source").await?;
        let recovery = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?));
        let (link, mut more) = (Proxy::to(recovery).await?, Vec::new());
        for _ in 1..ways {
            more.push(Proxy::to(recovery).await?);
        }
        let head = format!(
            "data_dir = \"data\"\n[database]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [recovery]\nlisten = \"{recovery}\"\n{extra}\n",
            postgres.url("understudy")?,
        );
        write_config(&dir, &head, servers)?;
        let source = dir.join("source");
        fs::create_dir(&source)?;
        let text = format!("data_dir = \"data\"\n[database]\nsource_url = \"{}\"\n", postgres.url("source")?);
        fs::write(config_file(&source), text)?;
        let roles = ["recovery", "admin"].map(|name| Role::new(name, &dir, &[]));
        let mut stack =
            Self { dir, temp: Some(temp), roles: roles.into(), apart: Some(Apart { postgres, link, more }) };
        stack.start().await?;
        wait::until("the recovery gateway has its keys", READY_PATIENCE, async || {
            Ok(!stack.json(&["link", "list"]).await?["authority"].is_null())
        })
        .await?;
        Ok(stack)
    }

    /// A token of the recovery site for all ways, and what else its maker says.
    pub async fn invite(&self, more: &[&str]) -> Result<Answer> {
        let apart = self.apart.as_ref().context("the gateways are one process")?;
        let urls = std::iter::once(&apart.link).chain(&apart.more).map(|way| format!("https://{}", way.address()));
        let urls: Vec<String> = urls.flat_map(|url| ["--url".to_owned(), url]).collect();
        let arguments: Vec<&str> = ["link", "invite"].into_iter().chain(urls.iter().map(String::as_str)).collect();
        let answer = self.command(&[arguments.as_slice(), more].concat()).await?.expect(0)?;
        Ok(Answer { stdout: answer.stdout.trim().to_owned(), ..answer })
    }

    /// Runs a command at the source site.
    pub async fn source_command(&self, arguments: &[&str]) -> Result<Answer> {
        command(&self.dir.join("source"), arguments).await
    }

    /// Starts the source gateway of a paired site.
    pub fn start_paired_source(&mut self) -> Result<()> {
        let mut role = Role::new("source", &self.dir.join("source"), &[]);
        role.start()?;
        self.roles.push(role);
        Ok(())
    }

    /// The same in a time zone (as POSIX writes `TZ`).
    pub fn start_paired_source_in(&mut self, zone: &str) -> Result<()> {
        let mut role = Role::new("source", &self.dir.join("source"), &[]).in_zone(zone);
        role.start()?;
        self.roles.push(role);
        Ok(())
    }

    /// What the source gateway of a paired site has said.
    pub fn paired_source_log(&self) -> String {
        fs::read_to_string(self.dir.join("source/source.log")).unwrap_or_default()
    }

    /// One of the ways between paired sites.
    pub fn way(&self, number: usize) -> Result<&Proxy> {
        let apart = self.apart.as_ref().context("the gateways are one process")?;
        std::iter::once(&apart.link).chain(&apart.more).nth(number).context("there are fewer ways")
    }

    /// Starts what is not running, and returns once it answers.
    pub async fn start(&mut self) -> Result<()> {
        let ready = self.dir.join("ready");
        let _ = fs::remove_file(&ready);
        for role in &mut self.roles {
            role.start()?;
        }
        let (dir, is_apart) = (self.dir.clone(), self.apart.is_some());
        let answers = wait::until("Understudy answers", READY_PATIENCE, async || {
            if let Some(ended) = self.roles.iter_mut().find_map(Role::ended) {
                bail!("{ended}");
            }
            if !is_apart {
                return Ok(ready.exists());
            }
            // The admin API may answer before the servers of the configuration are known to it.
            let servers = command(&dir, &["server", "list", "--json"]).await?;
            Ok(servers.code == 0 && servers.stdout.contains("\"name\""))
        });
        answers.await.with_context(|| format!("Understudy did not start:\n{}", self.log_tail()))
    }

    /// Starts again what ended because it found no database when it started, as whatever runs services does. Answers whether
    /// anything had.
    pub async fn start_what_ended(&mut self) -> Result<bool> {
        let ended = self.roles.iter_mut().filter_map(|role| role.give_up_ended().then_some(())).count();
        if ended > 0 {
            self.start().await?;
        }
        Ok(ended > 0)
    }

    /// Everything at once, as in a power failure, its PostgreSQL included.
    pub fn kill(&mut self) -> Result<()> {
        self.roles.iter_mut().try_for_each(|role| role.end(Signal::KILL, true))
    }

    /// Waits until a role has aborted at a failpoint; [`Self::start`] starts it again.
    pub async fn aborted(&mut self) -> Result<()> {
        let roles = &mut self.roles;
        wait::until("a role aborts", COMMAND_PATIENCE, async || Ok(roles.iter_mut().any(Role::aborted))).await
    }

    /// The places at which it can be stopped.
    pub fn failpoints(&self) -> Failpoints {
        Failpoints::in_dir(&self.dir)
    }

    /// The source gateway's database is gone, and comes back empty; for when that gateway is not running.
    pub async fn lose_source_database(&self) -> Result<()> {
        let apart = self.apart.as_ref().context("the gateways share one database")?;
        apart.postgres.drop_database("source").await?;
        apart.postgres.create("source").await
    }

    /// A copy of the recovery site's database under another name, or of such a copy; for when nobody works with either.
    pub async fn copy_recovery_database(&self, from: &str, to: &str) -> Result<()> {
        let apart = self.apart.as_ref().context("the gateways share one database")?;
        apart.postgres.copy(from, to).await
    }

    /// A database of a gateway, where they have their own: `understudy` the recovery site's, `source` the other.
    pub async fn database(&self, name: &str) -> Result<sqlx::PgPool> {
        let apart = self.apart.as_ref().context("the gateways share one database")?;
        Ok(sqlx::PgPool::connect(&apart.postgres.url(name)?).await?)
    }

    /// Nobody may connect to the source gateway's database, or everybody again.
    pub async fn shut_source_database(&self, shut: bool) -> Result<()> {
        let apart = self.apart.as_ref().context("the gateways share one database")?;
        apart.postgres.shut("source", shut).await
    }

    /// What the source gateway's journal holds, where it has its own database.
    pub async fn source_journal_bytes(&self) -> Result<u64> {
        Ok(understudy_database::source::held(&self.database("source").await?).await?)
    }

    /// Only the program of one role (`up`, `source`, `recovery`, `admin`): children go on until they notice.
    pub fn kill_role(&mut self, name: &str) -> Result<()> {
        let role = self.roles.iter_mut().find(|role| role.name == name).with_context(|| format!("no role {name}"))?;
        role.end(Signal::KILL, false)
    }

    /// Its private PostgreSQL; Understudy should bring it back. It may just be doing so after an earlier time.
    pub async fn kill_postgres(&self) -> Result<()> {
        wait::until("there is a PostgreSQL to kill", READY_PATIENCE, async || {
            let pid = match &self.apart {
                Some(apart) => apart.postgres.pid(),
                None => process::pid_in(&self.data_dir().join("postgres/data/postmaster.pid")),
            };
            let pid = pid.ok().filter(|pid| process::is_alive(*pid));
            if let Some(pid) = pid {
                process::signal(pid, Signal::KILL);
                process::wait_gone(&[pid], READY_PATIENCE)?;
            }
            Ok(pid.is_some())
        })
        .await
    }

    /// A clean stop, as Ctrl-C asks for.
    pub fn stop(&mut self) -> Result<()> {
        self.roles.iter_mut().rev().try_for_each(|role| role.end(Signal::INT, false))
    }

    /// Until it can work again: it answers, which takes its database.
    pub async fn answers(&self) -> Result<()> {
        let status = ["status", "--json"];
        wait::until("Understudy answers", READY_PATIENCE, async || Ok(self.command(&status).await?.code == 0)).await
    }

    /// Another source gateway for the same recovery site, with a database and a folder of its own; as role `second`.
    pub async fn start_second_source(&mut self) -> Result<()> {
        let apart = self.apart.as_ref().context("the gateways are one process")?;
        apart.postgres.create("second").await?;
        let dir = self.dir.join("second");
        fs::create_dir_all(&dir)?;
        let text = format!(
            "data_dir = \"data\"\n[database]\nurl = \"{}\"\nsource_url = \"{}\"\n[source]\nplaintext = true\nrecovery_url = \"http://{}\"\n\
             [link]\nsecret_file = \"{}\"\n",
            apart.postgres.url("understudy")?,
            apart.postgres.url("second")?,
            apart.link.address(),
            self.dir.join("link.secret").display(),
        );
        fs::write(config_file(&dir), text)?;
        let mut role = Role::new("source", &dir, &[]);
        role.start()?;
        self.roles.push(role);
        Ok(())
    }

    /// What the second source gateway has said.
    pub fn second_source_log(&self) -> String {
        fs::read_to_string(self.dir.join("second/source.log")).unwrap_or_default()
    }

    /// The connection between the gateways, where they run apart.
    pub fn link(&self) -> Result<&Proxy> {
        Ok(&self.apart.as_ref().context("the gateways are one process")?.link)
    }

    /// Runs a command with whatever outcome.
    pub async fn command(&self, arguments: &[&str]) -> Result<Answer> {
        command(&self.dir, arguments).await
    }

    /// The same for one that may take longer than moments.
    pub async fn command_within(&self, patience: Duration, arguments: &[&str]) -> Result<Answer> {
        command_within(patience, &self.dir, arguments).await
    }

    /// The same, while other things are done.
    pub fn command_beside(&self, patience: Duration, arguments: &[&str]) -> JoinHandle<Result<Answer>> {
        let dir = self.dir.clone();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        tokio::spawn(async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            command_within(patience, &dir, &arguments).await
        })
    }

    /// Runs a command that must succeed, and gives what it prints with `--json`.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.command(&[arguments, &["--json"]].concat()).await?;
        let answer = answer.expect(0).with_context(|| format!("understudy {}", arguments.join(" ")))?;
        serde_json::from_str(&answer.stdout).with_context(|| format!("not JSON: {}", answer.stdout))
    }

    /// Where the web and the API are.
    pub fn address(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("ready"))?.trim().to_owned())
    }

    /// What `/metrics` of the admin API serves.
    pub async fn metrics(&self) -> Result<String> {
        // Names of tokens are given once.
        let name = format!("metrics-{:016x}", rand::random::<u64>());
        let token = self.json(&["token", "create", "--role", "viewer", "--name", &name]).await?;
        let token = token["token"].as_str().context("no token")?.to_owned();
        // The client has several to choose from; a second time it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked =
            reqwest::Client::new().get(format!("{}/metrics", self.address()?)).bearer_auth(token).send().await?;
        Ok(asked.error_for_status()?.text().await?)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn config_file(&self) -> PathBuf {
        config_file(&self.dir)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// CPU seconds of all its processes, its PostgreSQL included.
    pub fn cpu_seconds(&self) -> f64 {
        self.roles.iter().filter_map(Role::pid).map(process::cpu_seconds).sum()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.roles.iter().filter_map(Role::pid).map(process::memory_bytes).sum()
    }

    pub fn log_tail(&self) -> String {
        self.roles.iter().map(Role::log_tail).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // In a folder that stays, so does the log.
        if self.temp.is_some() {
            eprint!("{}", self.log_tail());
        }
        if let Err(error) = self.kill() {
            eprintln!("Understudy is left running: {error:#}");
        }
        process::remove_shared_memory(&self.data_dir().join("postgres/data/postmaster.pid"));
    }
}

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// This program is to be run instead of the built one; the first choice counts.
pub fn use_program(path: &Path) {
    let _ = CHOSEN.set(path.to_owned());
}

/// The program chosen, or the built one: `UNDERSTUDY_BIN`, or the one beside the running test.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = CHOSEN.get() {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("UNDERSTUDY_BIN") {
        return Ok(path.into());
    }
    let running = std::env::current_exe()?;
    let beside = running.ancestors().skip(1).map(|dir| dir.join("understudy")).take(2).find(|path| path.is_file());
    beside.context("the program is not built: cargo build -p understudy-cli")
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("understudy.toml")
}

async fn command(dir: &Path, arguments: &[&str]) -> Result<Answer> {
    command_within(COMMAND_PATIENCE, dir, arguments).await
}

async fn command_within(patience: Duration, dir: &Path, arguments: &[&str]) -> Result<Answer> {
    let mut command = Command::new(program()?);
    command.args(arguments).env("UNDERSTUDY_CONFIG", config_file(dir)).current_dir(dir);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output()).await;
    let output = output
        .with_context(|| format!("understudy {} did not end in {} s", arguments.join(" "), patience.as_secs()))??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) })
}

fn write_config(dir: &Path, head: &str, servers: &[(&str, &Dovecot)]) -> Result<()> {
    let mut text = head.to_owned();
    for (role, server) in servers {
        text += &format!(
            "\n[[server]]\nname = \"{}\"\nrole = \"{role}\"\nimap = \"{}\"\n\
             login = {{ as = \"master\", user = \"{MASTER}\", password_file = \"{}\" }}\n",
            server.name(),
            server.imap_url(),
            server.master_password_file().display(),
        );
        text += &format!("lmtp = \"lmtp://{}\"\n", server.lmtp_address());
        if let Some(ca) = server.ca_file() {
            text += &format!("ca_file = \"{}\"\n", ca.display());
        }
        if let Some(passwords) = server.return_password_file().filter(|_| *role == "primary") {
            text += &format!("return_login = {{ as = \"each\", password_file = \"{}\" }}\n", passwords.display());
        }
        if let Some((user, file)) = server.canary() {
            text += &format!("canary = {{ address = \"{user}\", password_file = \"{}\" }}\n", file.display());
        }
        if let Some(key_file) = server.key_file() {
            let url = server.doveadm_url();
            text += &format!("manage = {{ doveadm = \"{url}\", key_file = \"{}\" }}\n", key_file.display());
        }
    }
    Ok(fs::write(config_file(dir), text)?)
}
