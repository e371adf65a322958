//! A private Dovecot: everything of it lies in one temporary directory and listens on free loopback ports.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use understudy_imap_session::{Address, Login, Session};

const BINARY: &str = "/usr/sbin/dovecot";

/// How the server stores mail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Mdbox,
    Maildir,
}

/// A running server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Dovecot {
    directory: tempfile::TempDir,
    server: Child,
    pub(crate) port: u16,
    tls_port: u16,
}

/// A port that nobody listens on now: not one twice, and none of those that outgoing connections take.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 18_000).expect("a small number");
    let free = (0..2_000).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
    let mut free = free.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

fn make_directory(path: &Path) -> PathBuf {
    fs::create_dir_all(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("traversable");
    path.to_owned()
}

impl Dovecot {
    pub(crate) async fn start(format: Format) -> Self {
        assert!(
            Path::new(BINARY).exists(),
            "these tests need Dovecot: {BINARY} is missing (apt install dovecot-imapd)"
        );
        let directory = tempfile::Builder::new().prefix("understudy-dovecot-").tempdir().expect("a directory");
        let root = make_directory(directory.path());
        let mail = make_directory(&root.join("mail"));
        // `nobody`: mail must not belong to root.
        std::os::unix::fs::chown(&mail, Some(65534), Some(65534)).expect("run these tests as root");
        let (certificate, key) = (root.join("cert.pem"), root.join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(root.join("users"), "ann:{PLAIN}own\n").expect("users");
        fs::write(root.join("masters"), "gateway:{PLAIN}secret\n").expect("masters");
        let (port, tls_port) = (free_port(), free_port());
        let location = match format {
            Format::Mdbox => "mdbox:~/mdbox",
            Format::Maildir => "maildir:~/Maildir:LAYOUT=fs",
        };
        let config = format!(
            r#"
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
instance_name = test-{port}
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{root}/cert.pem
ssl_key = <{root}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain
auth_master_user_separator = *
auth_failure_delay = 0
mail_location = {location}
mail_fsync = never
first_valid_uid = 1
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
mail_max_userip_connections = 100
passdb {{
  driver = passwd-file
  args = {root}/masters
  master = yes
  result_success = continue
}}
passdb {{
  driver = passwd-file
  args = {root}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={root}/mail/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    special_use = \Sent
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"#,
            root = root.display()
        );
        let path = root.join("dovecot.conf");
        fs::write(&path, config).expect("configuration");
        let output = fs::File::create(root.join("output")).expect("a file");
        let server = Command::new(BINARY)
            .arg("-F")
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("Dovecot starts");
        let server = Self { directory, server, port, tls_port };
        server.wait_until_it_listens().await;
        server
    }

    async fn wait_until_it_listens(&self) {
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(90), listening).await;
        assert!(waited.is_ok(), "Dovecot does not listen: {}", self.log());
    }

    fn log(&self) -> String {
        ["output", "log"].map(|name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()).concat()
    }

    pub(crate) fn address(&self) -> Address {
        Address::parse(&format!("imap+insecure://127.0.0.1:{}", self.port), None).expect("an address")
    }

    pub(crate) fn tls_address(&self, trusted: bool) -> Address {
        self.protected("imaps", self.tls_port, trusted)
    }

    pub(crate) fn starttls_address(&self, trusted: bool) -> Address {
        self.starttls_through(self.port, trusted)
    }

    /// The same by way of somebody who listens on `port`.
    pub(crate) fn starttls_through(&self, port: u16, trusted: bool) -> Address {
        self.protected("imap", port, trusted)
    }

    fn protected(&self, scheme: &str, port: u16, trusted: bool) -> Address {
        let certificate = trusted.then(|| self.directory.path().join("cert.pem"));
        Address::parse(&format!("{scheme}://127.0.0.1:{port}"), certificate).expect("an address")
    }

    pub(crate) fn login(&self, user: &str) -> Login {
        Login::Password { user: format!("{user}*gateway"), password: "secret".to_owned().into() }
    }

    pub(crate) async fn session(&self, user: &str) -> Session {
        match Session::open(&self.address(), &self.login(user)).await {
            Ok(session) => session,
            Err(error) => panic!("no session: {error:?}\n{}", self.log()),
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // The master process ends its children when asked politely.
        let asked: io::Result<_> = Command::new("kill").arg(self.server.id().to_string()).status();
        if asked.is_err() {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
