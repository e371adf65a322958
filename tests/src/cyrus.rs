//! A private Cyrus IMAP 3 in a folder of its own, on a loopback address of its own.
//!
//! In: options. Out: a running server with users and a log-in that may act for any of them; it can be killed and started again on
//! the same port. Its programs come from `.ci/cyrus`, since its package cannot be installed beside Dovecot's.
//! Keeps true: only processes that it started are ended; when dropped, none is left.

mod programs;

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::dovecot::{PASSWORD, free_port, loopback_address};
use crate::{process, wait};

use programs::Programs;

/// The log-in that may act for every user (`proxyservers`).
pub const PROXY: &str = "understudy";
const PROXY_PASSWORD: &str = "proxy-secret";
/// Makes the users' mailboxes.
const ADMIN: &str = "cyrus";
/// Passwords are of this realm.
const REALM: &str = "cyrus.test";

const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// What the server is like.
#[derive(Debug, Clone)]
pub struct Options {
    name: String,
    users: Vec<String>,
    /// Users' folders beside INBOX (`altnamespace`) and not below it.
    beside_inbox: bool,
    /// `/` between levels (`unixhierarchysep`) and not `.`.
    slashes: bool,
    /// Lines at the end of `imapd.conf`.
    extra: String,
}

impl Options {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), users: Vec::new(), beside_inbox: true, slashes: true, extra: String::new() }
    }

    #[must_use]
    pub fn users<'a>(mut self, users: impl IntoIterator<Item = &'a str>) -> Self {
        self.users.extend(users.into_iter().map(str::to_owned));
        self
    }

    /// `INBOX.Work.2026` for what others call `Work/2026`.
    #[must_use]
    pub fn dots_below_inbox(mut self) -> Self {
        (self.beside_inbox, self.slashes) = (false, false);
        self
    }

    /// `Work.2026`, a name in which other servers allow the dot.
    #[must_use]
    pub fn dots(mut self) -> Self {
        self.slashes = false;
        self
    }

    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }
}

/// A running (or, for the moment, killed) server.
pub struct Cyrus {
    options: Options,
    programs: Programs,
    dir: TempDir,
    address: Ipv4Addr,
    port: u16,
    master: Option<Child>,
}

impl Cyrus {
    pub async fn start(options: Options) -> Result<Self> {
        let dir = crate::temp_dir(&format!("us-{}-", options.name))?;
        let programs = Programs::find(dir.path())?;
        let address = loopback_address();
        let port = free_port(address)?;
        let mut server = Self { options, programs, dir, address, port, master: None };
        server.write_files().with_context(|| format!("could not prepare Cyrus {}", server.options.name))?;
        server.start_again()?;
        let mut admin = Client::log_in(server.imap_address(), ADMIN, PASSWORD).await?;
        for user in &server.options.users {
            admin.run(&format!("CREATE user{}{user}", server.separator())).await?;
        }
        admin.log_out().await;
        Ok(server)
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], on the same port and mail.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.master.is_none(), "Cyrus {} runs already", self.options.name);
        let log = fs::File::options().create(true).append(true).open(self.file("console.log"))?;
        let mut command = self.programs.command("usr/lib/cyrus/bin/master");
        command.arg("-C").arg(self.file("imapd.conf")).arg("-M").arg(self.file("cyrus.conf"));
        command.arg("-p").arg(self.file("master.pid")).arg("-D");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.master = Some(command.spawn().context("could not run Cyrus")?);
        let answers = wait::until_blocking("Cyrus answers", START_PATIENCE, || {
            if let Some(Ok(Some(status))) = self.master.as_mut().map(Child::try_wait) {
                bail!("Cyrus ended at once with {status}");
            }
            Ok(std::net::TcpStream::connect(self.imap_address()).is_ok())
        });
        answers.with_context(|| format!("Cyrus {} did not start:\n{}", self.options.name, self.log()))
    }

    /// A clean stop; sessions are ended.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::QUIT)
    }

    /// All of its processes at once, as in a power failure.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.master.take().map_or(Ok(()), |master| process::end(master, signal, STOP_PATIENCE))
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    pub fn imap_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), self.port)
    }

    /// What stands between the levels of a name.
    pub fn separator(&self) -> char {
        if self.options.slashes { '/' } else { '.' }
    }

    /// A session of `user`.
    pub async fn log_in(&self, user: &str) -> Result<Client> {
        Client::log_in(self.imap_address(), user, PASSWORD).await
    }

    /// The table of Understudy's configuration for it.
    pub fn table(&self, role: &str) -> String {
        format!(
            "\n[[server]]\nname = \"{}\"\nrole = \"{role}\"\nimap = \"imap+insecure://{}\"\n\
             login = {{ as = \"authzid\", user = \"{PROXY}\", password_file = \"{}\" }}\n",
            self.options.name,
            self.imap_address(),
            self.file("proxy-password").display(),
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("console.log")).unwrap_or_default()
    }

    fn write_files(&self) -> Result<()> {
        for folder in ["db", "log", "msg", "proc", "ptclient", "quota", "socket", "user"] {
            fs::create_dir_all(self.file("conf").join(folder))?;
        }
        for folder in ["spool", "sieve"] {
            fs::create_dir_all(self.file(folder))?;
        }
        fs::write(self.file("proxy-password"), PROXY_PASSWORD)?;
        fs::write(self.file("imapd.conf"), self.imapd_conf())?;
        fs::write(self.file("cyrus.conf"), self.cyrus_conf())?;
        for user in self.options.users.iter().map(String::as_str).chain([ADMIN]) {
            self.set_password(user, PASSWORD)?;
        }
        self.set_password(PROXY, PROXY_PASSWORD)?;
        let (uid, gid) = (programs::number("-u")?, programs::number("-g")?);
        if rustix::process::geteuid().is_root() { own(self.dir.path(), uid, gid) } else { Ok(()) }
    }

    fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let mut command = self.programs.command("usr/sbin/saslpasswd2");
        command.arg("-p").arg("-c").arg("-f").arg(self.file("sasldb2")).args(["-u", REALM, user]);
        let mut child = command.stdin(Stdio::piped()).spawn().context("could not run saslpasswd2")?;
        child.stdin.take().context("no way to give a password")?.write_all(password.as_bytes())?;
        ensure!(child.wait()?.success(), "saslpasswd2 took no password for {user}");
        Ok(())
    }

    fn imapd_conf(&self) -> String {
        let dir = self.dir.path().display();
        let on = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "configdirectory: {dir}/conf
defaultpartition: default
partition-default: {dir}/spool
sievedir: {dir}/sieve
idlesocket: {dir}/conf/socket/idle
cyrus_user: {user}
cyrus_group: {group}
admins: {ADMIN}
proxyservers: {PROXY}
allowplaintext: yes
sasl_mech_list: PLAIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {dir}/sasldb2
servername: {REALM}
altnamespace: {beside_inbox}
unixhierarchysep: {slashes}
{extra}",
            user = programs::system_user(),
            group = programs::system_group(),
            beside_inbox = on(self.options.beside_inbox),
            slashes = on(self.options.slashes),
            extra = self.options.extra,
        )
    }

    fn cyrus_conf(&self) -> String {
        let bin = self.programs.bin();
        let bin = bin.display();
        let conf = self.file("imapd.conf");
        let conf = conf.display();
        format!(
            "START {{\n  recover cmd=\"{bin}/ctl_cyrusdb -C {conf} -r\"\n}}\n\
             SERVICES {{\n  imap cmd=\"{bin}/imapd -C {conf}\" listen=\"{}\" prefork=0\n}}\n\
             EVENTS {{\n}}\n\
             DAEMON {{\n  idled cmd=\"{bin}/idled -C {conf} -d\"\n}}\n",
            self.imap_address(),
        )
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        let log = self.log();
        if !log.is_empty() {
            eprintln!("Cyrus {} said:\n{log}", self.options.name);
        }
        if let Err(error) = self.kill() {
            eprintln!("Cyrus {} is left running: {error:#}", self.options.name);
        }
    }
}

/// Gives a folder and all in it to a system user.
fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
