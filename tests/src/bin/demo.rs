//! The demo: two real mail servers with a front door, Understudy between them, three mailboxes under live traffic until Ctrl-C.
//!
//! Keeps true: nothing is written outside its folder; whatever an earlier, killed demo left running there is ended first.

use std::fs;
use std::io::{ErrorKind, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::signal::unix::{SignalKind, signal};
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Dovecot, Options, PASSWORD, free_port};
use understudy_tests::front_door::{DovecotProxy, Plan};
use understudy_tests::mail::Mail;
use understudy_tests::process;
use understudy_tests::stack::{Stack, program};

const USERS: [&str; 3] = ["ana@example.org", "bob@example.org", "cleo@example.org"];
const PRIMARY: &str = "mail-a";
const STANDBY: &str = "dr-1";
/// The administrator of the web.
const ACCOUNT: &str = "demo";
/// Messages that each mailbox begins with.
const MESSAGES: usize = 60;
/// Above this a mailbox loses mail rather than getting more.
const MESSAGES_MAX: usize = 300;
/// Between two changes of the live traffic.
const TRAFFIC_PAUSE: Duration = Duration::from_millis(700);
/// A socket's path takes some 100 bytes; this much is left for the folder.
const FOLDER_LENGTH_MAX: usize = 60;
/// Preferred ports: web, primary IMAP, standby IMAP, front door.
const PORTS: [u16; 4] = [8080, 1143, 2143, 3143];

/// What is printed to be tried, in this order; `--check` runs it.
const TO_TRY: [(&[&str], &str); 8] = [
    (&["status"], "how things are; --watch keeps looking"),
    (&["mailbox", "show", USERS[0]], "one mailbox, its lag and its folders"),
    (&["mailbox", "wait", "--all"], "returns when every change made until now is on the standby"),
    (&["mailbox", "verify", "--all"], "compares both sides"),
    (&["switchover", USERS[0], "--wait"], "Ana works on the standby, through the same front door"),
    (&["switchback", USERS[0], "--dry-run", "--wait"], "what coming home would change"),
    (&["switchback", USERS[0], "--wait"], "Ana is home again"),
    (&["audit", "list"], "who did all that"),
];

#[tokio::main]
async fn main() -> Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("{other} is not known; ./demo takes --check or nothing"),
    };
    let folder = Folder::prepare()?;
    let mut stop = std::pin::pin!(interrupted());
    let started = tokio::select! {
        started = Demo::start(folder.path()) => Some(started?),
        // What was started until now is ended by being dropped.
        () = &mut stop => None,
    };
    match started {
        Some(demo) if check => demo.check().await?,
        Some(demo) => demo.run(stop).await?,
        None => {}
    }
    drop(folder);
    if !check {
        println!("\nStopped. Nothing is left behind.");
    }
    Ok(())
}

/// Ends when somebody wants it to, or when the terminal is closed.
async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else { return };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

struct Demo {
    stack: Stack,
    door: DovecotProxy,
    primary: Dovecot,
    standby: Dovecot,
    /// Of the account `demo`.
    password: String,
    traffic: Traffic,
}

impl Demo {
    async fn start(folder: &Path) -> Result<Self> {
        println!("Starting two Dovecot servers, a front door and Understudy");
        let server = |name: &str, port: u16| {
            let options = Options {
                dir: Some(folder.join(name)),
                address: Some(Ipv4Addr::LOCALHOST),
                imap_port: free(port),
                ..Options::new(name)
            };
            Dovecot::start(options.users(USERS))
        };
        let primary = server(PRIMARY, PORTS[1])?;
        let standby = server(STANDBY, PORTS[2])?;
        let web = format!("127.0.0.1:{}", free(PORTS[0]).unwrap_or(0));
        let dir = folder.join("understudy");
        fs::create_dir_all(&dir)?;
        let door_port = free(PORTS[3]).map_or_else(|| free_port(Ipv4Addr::LOCALHOST), Ok)?;
        let plan = Plan::in_dir(&folder.join("door"), Ipv4Addr::LOCALHOST, door_port)?;
        let servers = [("primary", &primary), ("standby", &standby)];
        let stack = Stack::up_in(&dir, &web, &servers, &plan.configuration()).await?;
        let door = DovecotProxy::start(&plan)?.quiet();
        println!("Filling three mailboxes and protecting them");
        for (number, user) in USERS.iter().enumerate() {
            fill(&primary, user, number as u64).await?;
        }
        let protect =
            [&["mailbox", "protect"], USERS.as_slice(), &["--primary", PRIMARY, "--standby", STANDBY]].concat();
        stack.command(&protect).await?.expect(0)?;
        let made = stack.json(&["user", "add", ACCOUNT, "--role", "administrator", "--generate"]).await?;
        let password = made["password"].as_str().context("no password was made")?.to_owned();
        let traffic = Traffic { random: StdRng::from_os_rng(), mail: Mail::from_seed(rand::random()), changes: 0 };
        Ok(Self { stack, door, primary, standby, password, traffic })
    }

    /// Proves that it mirrors and that what is shown works, and stops.
    async fn check(mut self) -> Result<()> {
        for _ in 0..20 {
            self.traffic.change(self.door.imap_address()).await?;
        }
        self.stack.command(&["mailbox", "wait", "--all"]).await?.expect(0)?;
        self.stack.command(&["mailbox", "verify", "--all"]).await?.expect(0)?;
        println!("The mailboxes are the same on both sides");
        self.log_in_to_the_web().await?;
        for (arguments, _) in TO_TRY {
            let shown = format!("understudy {}", arguments.join(" "));
            self.stack.command(arguments).await?.expect(0).with_context(|| shown.clone())?;
            println!("Works: {shown}");
        }
        self.stack.stop()
    }

    async fn log_in_to_the_web(&self) -> Result<()> {
        // The client has several to choose from; a second time it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let log_in = serde_json::json!({"name": ACCOUNT, "password": self.password});
        let url = format!("{}/api/v1/sessions", self.stack.address()?);
        let answer = reqwest::Client::new().post(url).json(&log_in).send().await?;
        answer.error_for_status().context("the log-in that is shown does not work")?;
        println!("The log-in to the web works");
        Ok(())
    }

    async fn run(mut self, mut stop: impl Future<Output = ()> + Unpin) -> Result<()> {
        self.explain()?;
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(TRAFFIC_PAUSE) => {}
            }
            tokio::select! {
                () = &mut stop => break,
                // A user who tries things may get in the way of a change; the next one is as good.
                _ = self.traffic.change(self.door.imap_address()) => {}
            }
            if std::io::stdout().is_terminal() {
                print!("\r{} changes made through the front door so far; Ctrl-C ends the demo ", self.traffic.changes);
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
        }
        println!("\nStopping");
        self.stack.stop()
    }

    fn explain(&self) -> Result<()> {
        let program = program()?;
        let width = TO_TRY.iter().map(|(arguments, _)| arguments.join(" ").len()).max().unwrap_or_default();
        let mut to_try = String::new();
        for (arguments, what) in TO_TRY {
            to_try += &format!("  understudy {:width$}  # {what}\n", arguments.join(" "));
        }
        println!(
            "
Understudy is running, and three users are at work.

  Web       {web}
            log in as {ACCOUNT} with the password {password}
            (for this demo only: an administrator that ends with it)
  Door      IMAP on {door}, without TLS: where the users work
  Primary   IMAP on {primary}, without TLS
  Standby   IMAP on {standby}, without TLS
            log in as {users} with the password {PASSWORD}

To try, in another terminal:

  export UNDERSTUDY_CONFIG={config}
  alias understudy={program}
{to_try}
Or connect a mail program to the front door and to the standby, change something at the door and watch the standby.
Ctrl-C ends the demo and removes everything.
",
            web = self.stack.address()?,
            password = self.password,
            door = self.door.imap_address(),
            primary = self.primary.imap_address(),
            standby = self.standby.imap_address(),
            users = USERS.join(", "),
            config = self.stack.config_file().display(),
            program = program.display(),
        );
        Ok(())
    }
}

async fn fill(primary: &Dovecot, user: &str, seed: u64) -> Result<()> {
    let mut mail = Mail::from_seed(seed);
    let mut client = Client::log_in(primary.imap_address(), user, PASSWORD).await?;
    for folder in ["Sent", "Archive", "Projects/Étude", "Projects/2026"] {
        client.create(folder).await?;
        client.subscribe(folder).await?;
        client.append(folder, &["\\Seen"], None, &mail.any()).await?;
    }
    for number in 0..MESSAGES {
        let flags: &[&str] = if number % 3 == 0 { &[] } else { &["\\Seen"] };
        client.append("INBOX", flags, None, &mail.any()).await?;
    }
    client.log_out().await;
    Ok(())
}

/// What users do all day.
struct Traffic {
    random: StdRng,
    mail: Mail,
    changes: u64,
}

impl Traffic {
    async fn change(&mut self, door: SocketAddr) -> Result<()> {
        let user = USERS.choose(&mut self.random).copied().unwrap_or(USERS[0]);
        let mut client = Client::log_in(door, user, PASSWORD).await?;
        let uids = client.uids("INBOX").await?;
        let uid = uids.choose(&mut self.random).copied().unwrap_or_default().to_string();
        let crowded = uids.len() > MESSAGES_MAX;
        match self.random.random_range(0..10) {
            _ if uids.is_empty() => client.append("INBOX", &[], None, &self.mail.any()).await.map(drop)?,
            0..5 if !crowded => client.append("INBOX", &[], None, &self.mail.any()).await.map(drop)?,
            0..7 => client.store(&uid, "+FLAGS (\\Seen)").await?,
            7 => client.store(&uid, "+FLAGS (\\Flagged $Important)").await?,
            8 => client.move_to(&uid, "Archive").await?,
            _ => client.expunge(&uid).await?,
        }
        self.changes += 1;
        client.log_out().await;
        Ok(())
    }
}

/// The port, if nobody listens on it.
fn free(port: u16) -> Option<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
}

/// Where the demo lives, removed at its end.
struct Folder {
    path: PathBuf,
    /// Two demos in one folder would end each other.
    _lock: fs::File,
}

impl Folder {
    fn prepare() -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no checkout")?;
        let own = checkout.join(".demo");
        let path = if own.as_os_str().len() <= FOLDER_LENGTH_MAX && is_passable(checkout) {
            own
        } else {
            // Found again by the next demo, should this one be killed.
            PathBuf::from(format!("/tmp/us-demo-{}", rustix::process::geteuid().as_raw()))
        };
        make_own(&path)?;
        let lock = fs::File::options().create(true).truncate(false).write(true).open(path.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another demo runs in {}; end that one first", path.display());
        }
        process::end_all_in(&path)?;
        remove_contents(&path)?;
        Ok(Self { path, _lock: lock })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("Could not remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the folder, or takes one that is ours: what lies in it is about to be removed, and anybody may make one in `/tmp`.
fn make_own(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.with_context(|| format!("could not make {}", path.display())),
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        bail!("{} is not a folder of this user; remove it, then start the demo again", path.display());
    }
    // Servers that run as other users must get in.
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// All but the lock.
fn remove_contents(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether servers that run as other users can reach what lies below. Without root everything runs as one user.
fn is_passable(dir: &Path) -> bool {
    !rustix::process::geteuid().is_root()
        || dir.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|metadata| metadata.mode() & 0o001 != 0))
}
