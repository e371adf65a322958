//! A private Dovecot 2.3 in a folder of its own, on a loopback address of its own.
//!
//! In: options. Out: a running server with ports, users and a master user; it can be killed and started again on the same ports.
//! Keeps true: only processes that it started are ended; when dropped, none is left.

mod config;
mod tls;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::front_door::{Plan, filled};
use crate::{process, wait};

/// The master user that Understudy logs in as; the separator is `*`.
pub const MASTER: &str = "understudy";
pub const MASTER_PASSWORD: &str = "master-secret";
/// What every user's password is unless said otherwise.
pub const PASSWORD: &str = "user-secret";
pub const API_KEY: &str = "doveadm-secret";

const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How Dovecot keeps mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Mdbox,
    Sdbox,
    Maildir,
}

/// What the server is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shows in logs and process lists.
    pub name: String,
    /// Where its folder is made; a temporary one by default. Must be passable for the unprivileged user.
    pub dir: Option<PathBuf>,
    /// A loopback address of its own by default.
    pub address: Option<Ipv4Addr>,
    /// A free one by default.
    pub imap_port: Option<u16>,
    pub format: Format,
    pub users: Vec<String>,
    /// The master user may look (`lr`) and nothing else.
    pub read_only_master: bool,
    /// For all protocols, such as `quota`.
    pub mail_plugins: Vec<String>,
    /// For IMAP besides, such as `imap_quota`.
    pub imap_plugins: Vec<String>,
    pub mail_fsync: String,
    /// The whole CAPABILITY line after log-in, for servers that offer less.
    pub capability: Option<String>,
    /// Offers STARTTLS and IMAPS with a certificate of an authority of its own.
    pub tls: bool,
    /// For how many days its certificate is good.
    pub certificate_days: u32,
    /// Understudy is told of a log-in that may write: each user's own.
    pub way_home: bool,
    /// Understudy is told of its management interface.
    pub managed: bool,
    /// Sessions in one IMAP process, and how many it serves before it ends (0: no end).
    pub imap_client_limit: u32,
    pub imap_service_count: u32,
    /// Users get in from this address only, as from a front door; the master from everywhere.
    pub users_only_from: Option<Ipv4Addr>,
    /// It asks Understudy's database at each log-in and delivery whether the user is its own now: how it reaches that.
    pub lease: Option<Vec<(&'static str, String)>>,
    /// Understudy is told that this user's mailbox is there for checks, with its password.
    pub canary: Option<String>,
    /// Lines at the end of the configuration.
    pub extra: String,
}

impl Options {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: None,
            address: None,
            imap_port: None,
            format: Format::Mdbox,
            users: Vec::new(),
            read_only_master: false,
            mail_plugins: Vec::new(),
            imap_plugins: Vec::new(),
            mail_fsync: "optimized".to_owned(),
            capability: None,
            tls: false,
            certificate_days: 30,
            way_home: true,
            managed: false,
            imap_client_limit: 1,
            imap_service_count: 1,
            users_only_from: None,
            lease: None,
            canary: None,
            extra: String::new(),
        }
    }

    #[must_use]
    pub fn users<'a>(mut self, users: impl IntoIterator<Item = &'a str>) -> Self {
        self.users.extend(users.into_iter().map(str::to_owned));
        self
    }

    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    #[must_use]
    pub fn read_only_master(mut self) -> Self {
        self.read_only_master = true;
        self
    }

    #[must_use]
    pub fn users_only_from(mut self, address: Ipv4Addr) -> Self {
        self.users_only_from = Some(address);
        self
    }

    /// Asks the database of this plan's Understudy, under its own name.
    #[must_use]
    pub fn with_lease(mut self, plan: &Plan) -> Self {
        self.lease = Some(plan.lease_values());
        self
    }

    #[must_use]
    pub fn canary(mut self, user: &str) -> Self {
        self.canary = Some(user.to_owned());
        self
    }

    /// For many sessions: a hundred in one process. With one process each, the 129th of one system user has no inotify.
    #[must_use]
    pub fn many_sessions(mut self) -> Self {
        self.imap_client_limit = 100;
        self.imap_service_count = 0;
        self
    }

    /// Memory-backed stores do not sync anyway; for tests whose subject is not the disk.
    #[must_use]
    pub fn without_fsync(mut self) -> Self {
        self.mail_fsync = "never".to_owned();
        self
    }

    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Understudy is told of no log-in but the master user's.
    #[must_use]
    pub fn without_way_home(mut self) -> Self {
        self.way_home = false;
        self
    }

    /// Understudy may use its management interface.
    #[must_use]
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    #[must_use]
    pub fn capability(mut self, capability: &str) -> Self {
        self.capability = Some(capability.to_owned());
        self
    }

    /// `limit` in Dovecot's words, such as `*:storage=100K`.
    #[must_use]
    pub fn quota(mut self, limit: &str) -> Self {
        self.mail_plugins.push("quota".to_owned());
        self.extra.push_str(&format!("plugin {{\n  quota = count:User quota\n  quota_vsizes = yes\n  quota_rule = {limit}\n  quota_grace = 0\n}}\n"));
        self
    }

    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub imap: u16,
    /// Zero without TLS.
    pub imaps: u16,
    pub lmtp: u16,
    pub doveadm: u16,
}

/// A running (or, for the moment, killed) server.
pub struct Dovecot {
    options: Options,
    dir: PathBuf,
    temp: Option<TempDir>,
    address: Ipv4Addr,
    ports: Ports,
    /// The unprivileged system user and group that own the mail.
    mail_ids: (u32, u32),
    master: Option<Child>,
    /// Where others are told that it is: a proxy before it.
    proxy: Option<SocketAddr>,
}

impl Dovecot {
    pub fn start(options: Options) -> Result<Self> {
        let (dir, temp) = place(&options)?;
        let address = options.address.unwrap_or_else(loopback_address);
        let ports = Ports {
            imap: options.imap_port.map_or_else(|| free_port(address), Ok)?,
            imaps: if options.tls { free_port(address)? } else { 0 },
            lmtp: free_port(address)?,
            doveadm: free_port(address)?,
        };
        let mail_ids = if is_root() {
            own_ids(ports.imap)
        } else {
            (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
        };
        let mut server = Self { options, dir, temp, address, ports, mail_ids, master: None, proxy: None };
        server.write_files().with_context(|| format!("could not prepare Dovecot {}", server.options.name))?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], on the same ports and mail.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.master.is_none(), "Dovecot {} runs already", self.options.name);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("console.log"))?;
        let master = Command::new("dovecot")
            .args(["-F", "-c"])
            .arg(self.config_file())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not run dovecot (Debian: apt-get install dovecot-imapd dovecot-lmtpd)")?;
        self.master = Some(master);
        let answers = wait::until_blocking("Dovecot answers", START_PATIENCE, || {
            if let Some(Ok(Some(status))) = self.master.as_mut().map(Child::try_wait) {
                bail!("Dovecot ended at once with {status}");
            }
            Ok(std::net::TcpStream::connect(self.imap_address()).is_ok())
        });
        answers.with_context(|| format!("Dovecot {} did not start:\n{}", self.options.name, self.log_tail()))
    }

    /// A clean stop; sessions are ended.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// All of its processes at once, as in a power failure.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.master.take().map_or(Ok(()), |master| process::end(master, signal, STOP_PATIENCE))
    }

    /// Stops answering without closing anything; [`Self::resume`] goes on.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.master.iter().flat_map(|master| process::tree(master.id())) {
            process::signal(pid, signal);
        }
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    pub fn format(&self) -> Format {
        self.options.format
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    pub fn imap_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), self.ports.imap)
    }

    /// As in `server add --imap`.
    pub fn imap_url(&self) -> String {
        match self.ports.imaps {
            0 => format!("imap+insecure://{}", self.proxy.unwrap_or_else(|| self.imap_address())),
            port => format!("imaps://{}:{port}", self.address),
        }
    }

    /// Understudy shall reach it through a proxy; the tests' own clients do not.
    pub fn behind(&mut self, proxy: SocketAddr) {
        self.proxy = Some(proxy);
    }

    pub fn lmtp_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), self.ports.lmtp)
    }

    pub fn doveadm_url(&self) -> String {
        format!("http://{}:{}/doveadm/v1", self.address, self.ports.doveadm)
    }

    /// A file with every user's password, where Understudy may write as the user.
    pub fn return_password_file(&self) -> Option<PathBuf> {
        self.options.way_home.then(|| self.dir.join("passwords"))
    }

    /// A file with the key of the management interface, where Understudy may use that.
    pub fn key_file(&self) -> Option<PathBuf> {
        self.options.managed.then(|| self.dir.join("doveadm.key"))
    }

    /// The authority that signed its certificate, where it has one.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.dir.join("tls/ca.pem"))
    }

    /// A file with the master user's password.
    /// Whose mailbox is there for checks, and the file with its password.
    pub fn canary(&self) -> Option<(&str, PathBuf)> {
        Some((self.options.canary.as_deref()?, self.dir.join("canary-password")))
    }

    pub fn master_password_file(&self) -> PathBuf {
        self.dir.join("master-password")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("dovecot.log")
    }

    pub fn log_tail(&self) -> String {
        ["console.log", "dovecot.log"].map(|name| tail(&self.dir.join(name), 30)).join("")
    }

    /// What its log has that is worse than information.
    pub fn complaints(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let is_bad = |line: &&str| ["Error:", "Panic:", "Fatal:", "Warning:"].iter().any(|level| line.contains(level));
        log.lines().filter(is_bad).map(|line| format!("  {line}\n")).collect()
    }

    /// CPU seconds of all its processes since it was started.
    pub fn cpu_seconds(&self) -> f64 {
        self.master.as_ref().map_or(0.0, |master| process::cpu_seconds(master.id()))
    }

    pub fn memory_bytes(&self) -> u64 {
        self.master.as_ref().map_or(0, |master| process::memory_bytes(master.id()))
    }

    /// Adds a user, or gives one another password; a server that runs knows it then.
    pub fn set_user(&mut self, user: &str, password: &str) -> Result<()> {
        let path = self.dir.join("users");
        let known = fs::read_to_string(&path).unwrap_or_default();
        let mut lines: Vec<&str> = known.lines().filter(|line| line.split(':').next() != Some(user)).collect();
        let line = self.user_line(user, password);
        lines.push(&line);
        replace_file(&path, &(lines.join("\n") + "\n"))?;
        self.lets_in(user, password)
    }

    /// A server that runs looks at its files once a second at most: waits until it takes this log-in.
    fn lets_in(&self, user: &str, password: &str) -> Result<()> {
        if self.master.is_none() {
            return Ok(());
        }
        let log_in = ["auth", "test", user, password];
        wait::until_blocking("Dovecot has the new password", START_PATIENCE, || Ok(self.doveadm(&log_in).is_ok()))
    }

    /// Gives a user another quota, in Dovecot's words. Sessions have it from their log-in on.
    pub fn set_quota(&self, user: &str, limit: &str) -> Result<()> {
        let path = self.dir.join("users");
        let known = fs::read_to_string(&path)?;
        ensure!(known.lines().any(|line| line.split(':').next() == Some(user)), "there is no user {user}");
        let lines = known.lines().map(|line| match line.split(':').next() == Some(user) {
            true => format!("{}:userdb_quota_rule={limit}\n", line.split(':').take(7).collect::<Vec<_>>().join(":")),
            false => format!("{line}\n"),
        });
        replace_file(&path, &lines.collect::<String>())?;
        // It looks at its file once a second at most.
        wait::until_blocking("Dovecot has the new quota", START_PATIENCE, || {
            Ok(self.doveadm(&["user", "-f", "quota_rule", user])?.trim() == limit)
        })
    }

    fn user_line(&self, user: &str, password: &str) -> String {
        let (uid, gid) = self.mail_ids;
        format!("{user}:{{PLAIN}}{password}:{uid}:{gid}::{}/home/{user}::", self.dir.display())
    }

    /// Changes what the master user must give to log in; a server that runs knows it then.
    pub fn set_master_password(&self, password: &str) -> Result<()> {
        replace_file(&self.dir.join("masters"), &format!("{MASTER}:{{PLAIN}}{password}\n"))?;
        self.options.users.first().map_or(Ok(()), |user| self.lets_in(&format!("{user}*{MASTER}"), password))
    }

    /// Runs `doveadm` on this server.
    pub fn doveadm(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("doveadm").arg("-c").arg(self.config_file()).args(arguments).output()?;
        ensure!(output.status.success(), "doveadm {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("dovecot.conf")
    }

    fn write_files(&mut self) -> Result<()> {
        for name in ["home", "run", "state"] {
            fs::create_dir_all(self.dir.join(name))?;
        }
        let (uid, gid) = self.mail_ids;
        chown(self.dir.join("home"), Some(uid), Some(gid))?;
        replace_file(&self.dir.join("acl"), &format!("* owner lrwstipekxa\n* user={MASTER} lr\n"))?;
        fs::write(self.master_password_file(), MASTER_PASSWORD)?;
        if let Some(key_file) = self.key_file() {
            fs::write(key_file, API_KEY)?;
        }
        let passwords: String = self.options.users.iter().map(|user| format!("{user}:{PASSWORD}\n")).collect();
        fs::write(self.dir.join("passwords"), passwords)?;
        fs::write(self.dir.join("canary-password"), PASSWORD)?;
        self.set_master_password(MASTER_PASSWORD)?;
        if self.options.tls {
            tls::make(&self.dir.join("tls"), self.address, self.options.certificate_days)?;
        }
        let users: String = self.options.users.iter().map(|user| self.user_line(user, PASSWORD) + "\n").collect();
        replace_file(&self.dir.join("users"), &users)?;
        if let Some(values) = &self.options.lease {
            let values = [values.as_slice(), &[("SERVER", self.options.name.clone())]].concat();
            fs::write(self.dir.join("understudy-lease-sql.conf"), filled("understudy-lease-sql.conf", &values)?)?;
        }
        fs::write(self.config_file(), config::text(&self.options, &self.dir, self.address, self.ports)?)?;
        Ok(())
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let complaints = self.complaints();
        if self.temp.is_some() && !complaints.is_empty() {
            eprintln!("Dovecot {} complained:\n{complaints}", self.options.name);
        }
        if let Err(error) = self.kill() {
            eprintln!("Dovecot {} is left running: {error:#}", self.options.name);
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Each server has a system user of its own: the kernel's limits on file watching count by user. It needs no name.
fn own_ids(port: u16) -> (u32, u32) {
    (100_000 + u32::from(port), 100_000 + u32::from(port))
}

/// Its folder. Short, because sockets lie below it, and passable for everyone.
fn place(options: &Options) -> Result<(PathBuf, Option<TempDir>)> {
    let (dir, temp) = match &options.dir {
        Some(dir) => {
            fs::create_dir_all(dir)?;
            (fs::canonicalize(dir)?, None)
        }
        None => {
            let temp = crate::temp_dir(&format!("us-{}-", options.name))?;
            (temp.path().to_owned(), Some(temp))
        }
    };
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    Ok((dir, temp))
}

/// One that no other server of any test process uses, so that ports stay ours while it is down.
pub(crate) fn loopback_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let [_, _, high, low] = pid.to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed).max(1))
}

/// What a Dovecot needs besides when nobody is root; nothing otherwise.
pub(crate) fn settings_of_account() -> String {
    if is_root() { String::new() } else { config::as_ordinary_user() }
}

/// A port that nobody listens on now.
pub fn free_port(address: Ipv4Addr) -> Result<u16> {
    // Not one twice, and none of those that outgoing connections take.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..10_000 {
        let port = rand::random_range(12_000_u16..32_000);
        if !given.contains(&port) && TcpListener::bind((address, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("could not find a free port")
}

/// Whole or not at all: Dovecot may read it at any moment. It looks at whole seconds to see whether to read again.
fn replace_file(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    if let Ok(before) = fs::metadata(path).and_then(|metadata| metadata.modified()) {
        file.set_modified(SystemTime::now().max(before + Duration::from_secs(1)))?;
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    Ok(fs::rename(new, path)?)
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let skip = text.lines().count().saturating_sub(lines);
    text.lines().skip(skip).map(|line| format!("  {line}\n")).collect()
}
