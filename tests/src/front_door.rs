//! Front doors for a test: a Dovecot proxy, an nginx mail proxy and a Postfix, from the configuration that the documentation gives.
//!
//! In: a plan, made before Understudy starts, since each must know the other. Out: running doors with addresses of their own.
//! Keeps true: only processes that it started are ended; the text under `docs/front-doors` is what runs.

mod daemon;
mod dovecot;
mod nginx;
mod postfix;
mod smtp;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::dovecot::{free_port, loopback_address};

pub use dovecot::{DovecotProxy, LastRoutes};
pub use nginx::Nginx;
pub use postfix::Postfix;
pub use smtp::{deliver, hand_over, submit};

/// The domain of everybody's addresses.
pub const DOMAIN: &str = "example.org";
const DATABASE_PASSWORD: &str = "door-secret";
const NGINX_KEY: &str = "nginx-secret";
const DOVEADM_KEY: &str = "proxy-secret";

/// Where everything will be, before anything runs.
pub struct Plan {
    dir: PathBuf,
    /// Where the folder goes with the plan.
    _temp: Option<TempDir>,
    address: Ipv4Addr,
    /// Where Understudy's web and API answer.
    pub admin: SocketAddr,
    /// Where Postfix takes mail.
    pub smtp: SocketAddr,
    proxy: ProxyPorts,
}

#[derive(Clone, Copy)]
struct ProxyPorts {
    imap: u16,
    lmtp: u16,
    last_lmtp: u16,
    doveadm: u16,
}

impl Plan {
    pub fn new() -> Result<Self> {
        let (temp, address) = (crate::temp_dir("us-doors-")?, loopback_address());
        let plan = Self::in_dir(temp.path(), address, free_port(address)?)?;
        Ok(Self { _temp: Some(temp), ..plan })
    }

    /// In a folder that stays, with the Dovecot proxy at this address and port.
    pub fn in_dir(dir: &Path, address: Ipv4Addr, imap: u16) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        let port = || free_port(address);
        let plan = Self {
            address,
            admin: SocketAddr::from((address, port()?)),
            smtp: SocketAddr::from((address, port()?)),
            proxy: ProxyPorts { imap, lmtp: port()?, last_lmtp: port()?, doveadm: port()? },
            dir: dir.to_owned(),
            _temp: None,
        };
        for (name, secret) in
            [("database-password", DATABASE_PASSWORD), ("nginx-key", NGINX_KEY), ("doveadm-key", DOVEADM_KEY)]
        {
            let path = plan.file(name);
            fs::write(&path, secret)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        Ok(plan)
    }

    /// A folder in which Understudy can run.
    pub fn stack_dir(&self) -> Result<PathBuf> {
        let dir = self.file("understudy");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Where Understudy writes the routes down.
    pub fn routes_file(&self) -> PathBuf {
        self.file("routes")
    }

    /// The folder of the socket by which the Dovecot proxy reaches the database.
    pub fn database_socket(&self) -> PathBuf {
        self.file("socket")
    }

    /// What Understudy's configuration says of the Dovecot proxy.
    pub fn configuration(&self) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        format!(
            "[routes]\nfile = \"{routes}\"\ndatabase_socket = \"{socket}\"\ndatabase_password_file = \"{password}\"\n\
             bypass_from = [\"127.0.0.77\"]\nprimary_from = [\"127.0.0.78\"]\n\
             [[domain]]\nname = \"{DOMAIN}\"\n\
             [[front_door]]\nname = \"imap-1\"\nkind = \"dovecot\"\ndoveadm = \"http://{address}:{doveadm}\"\n\
             key_file = \"{key}\"\nimap = \"imap+insecure://{address}:{imap}\"\n",
            routes = self.routes_file().display(),
            socket = file("socket"),
            password = file("database-password"),
            key = file("doveadm-key"),
            address = self.address,
            doveadm = self.proxy.doveadm,
            imap = self.proxy.imap,
        )
    }

    /// What it says besides of the mail that this proxy takes; follows at once.
    pub fn mail_configuration(&self) -> String {
        let ProxyPorts { lmtp, last_lmtp, .. } = self.proxy;
        let address = self.address;
        format!("lmtp = \"lmtp://{address}:{lmtp}\"\nlmtp_fallback = \"lmtp://{address}:{last_lmtp}\"\n")
    }

    /// What it says of nginx besides.
    pub fn nginx_configuration(&self) -> String {
        let key = self.file("nginx-key").display().to_string();
        format!(
            "[nginx]\nkey_file = \"{key}\"\n[[front_door]]\nname = \"imap-2\"\nkind = \"nginx\"\nsource = \"127.0.0.1\"\n"
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What the programs' own configuration leaves open.
    fn values(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.file(name).display().to_string();
        vec![
            ("CONFIG_DIR", file("dovecot")),
            ("ROUTES_FILE", self.routes_file().display().to_string()),
            ("DOVEADM_KEY", DOVEADM_KEY.to_owned()),
            ("DOVEADM_HOST", self.address.to_string()),
            ("DOVEADM_PORT", self.proxy.doveadm.to_string()),
            ("DATABASE_SOCKET", file("socket")),
            ("DATABASE", "understudy".to_owned()),
            ("DATABASE_PASSWORD", DATABASE_PASSWORD.to_owned()),
            ("UNDERSTUDY", self.admin.to_string()),
            ("AUTH_KEY", NGINX_KEY.to_owned()),
            ("CACHE_DIR", file("nginx/cache")),
            ("DOMAIN", DOMAIN.to_owned()),
            ("LMTP_HOST", self.address.to_string()),
            ("LMTP_PORT", self.proxy.lmtp.to_string()),
            ("LAST_LMTP_PORT", self.proxy.last_lmtp.to_string()),
            ("LAST_RUN_DIR", file("last-routes/run")),
        ]
    }

    /// The text of `docs/front-doors/NAME`, filled in.
    fn filled(&self, name: &str, more: &[(&'static str, String)]) -> Result<String> {
        filled(name, &[&self.values(), more].concat())
    }

    /// What a mail server needs besides its own folder and name to ask for its lease.
    pub(crate) fn lease_values(&self) -> Vec<(&'static str, String)> {
        self.values().into_iter().filter(|(name, _)| name.starts_with("DATABASE")).collect()
    }
}

/// The text of `docs/front-doors/NAME` with these values.
pub(crate) fn filled(name: &str, values: &[(&'static str, String)]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/front-doors").join(name);
    let mut text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    // Only what is configuration: a remark may speak of ${…}.
    text = text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect();
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    ensure!(!text.contains("${"), "{name} has a place that the test does not fill in:\n{text}");
    Ok(text)
}
