//! The configuration of every role: defaults, then the file, then the environment.
//!
//! In: `--config`, `UNDERSTUDY_CONFIG` or `/etc/understudy/understudy.toml`; `UNDERSTUDY__…` variables. Out: [`Config`].
//! Keeps true: what is not understood is refused with its place; `Debug` of a [`Config`] shows no secret.

mod content;
mod environment;
mod front_door;
mod notices;
mod read;
mod schema;
mod server;
mod settings;
mod show;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use understudy_admin_api::Setting;
use understudy_database::front_door::Configured;
use understudy_gateway_recovery::BrakeConfig;
use understudy_protocol::server::Server;

use crate::duration::parse_duration;

pub(crate) use content::{Content, SecretKey};
pub(crate) use front_door::MailDoor;
pub(crate) use schema::nearest;
pub(crate) use settings::Problem;
use settings::{Origin, Settings};
pub(crate) use show::show;

/// Where the configuration is looked for when nobody says where it is.
pub(crate) const SYSTEM_CONFIG: &str = "/etc/understudy/understudy.toml";

const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_RECOVERY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// What the source gateway keeps of a recovery site that is away, in bytes.
const DEFAULT_JOURNAL: u64 = 20_000_000_000;
/// How long a certificate of the link is good; it is renewed after two thirds.
const DEFAULT_CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

const DEFAULT_VERIFY: Duration = Duration::from_secs(24 * 3600);

/// Everything a role needs to know before it starts.
#[derive(Debug)]
pub(crate) struct Config {
    /// The file it was read from, if there was one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) data_dir: PathBuf,
    /// The recovery site's database; none for a private cluster under `data_dir`.
    pub(crate) database: Option<DatabaseUrl>,
    /// The source gateway's own database, where it runs alone.
    pub(crate) source_database: Option<DatabaseUrl>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) public_url: Option<String>,
    pub(crate) recovery_listen: SocketAddr,
    /// Where commands and secrets of hooks lie.
    pub(crate) hooks: Option<PathBuf>,
    /// The link is taken in clear text, on this machine.
    pub(crate) recovery_plaintext: bool,
    /// Where the source site reaches the recovery gateway, as tokens name it.
    pub(crate) recovery_public_urls: Option<Vec<String>>,
    /// The recovery site is reached in clear text, on this machine.
    pub(crate) source_plaintext: bool,
    pub(crate) certificate_life: Duration,
    /// None when nothing was said: `up` then uses its own recovery gateway.
    pub(crate) recovery_urls: Option<Vec<String>>,
    /// How much the source gateway keeps before capturing waits, in bytes.
    pub(crate) journal_limit: u64,
    /// Where a recovery gateway that runs alone shows its metrics; none for nowhere.
    pub(crate) recovery_metrics: Option<SocketAddr>,
    /// Where a source gateway that runs alone shows its metrics; none for nowhere.
    pub(crate) source_metrics: Option<SocketAddr>,
    /// Capabilities that are not used even where a server offers them.
    pub(crate) capability_mask: Vec<String>,
    pub(crate) content: Content,
    /// How much may be removed from a mailbox before a person is asked.
    pub(crate) brake: BrakeConfig,
    /// How often every mailbox is verified by itself; none for never.
    pub(crate) verify_every: Option<Duration>,
    pub(crate) link_secret: LinkSecret,
    pub(crate) servers: Vec<Server>,
    /// Front doors, domains and clients treated in their own way.
    pub(crate) front_doors: Configured,
    /// Where Dovecot proxies take incoming mail.
    pub(crate) mail_doors: Vec<MailDoor>,
    /// Host and port of everybody who is asked after a change of side to try deferred mail again.
    pub(crate) mail_exchangers: Vec<(String, u16)>,
    /// Where the copy of the routes is kept for Dovecot proxies on this machine.
    pub(crate) routes_file: Option<PathBuf>,
    /// Where the private cluster has a second socket, for front doors.
    pub(crate) door_dir: Option<PathBuf>,
    /// The password of the role `understudy_door`.
    pub(crate) door_password_file: Option<PathBuf>,
    /// The key that nginx shows when it asks for routes.
    pub(crate) nginx_key_file: Option<PathBuf>,
    /// nginx may speak to mail servers without TLS.
    pub(crate) nginx_plaintext: bool,
    /// By which relays people are told, and which programs.
    pub(crate) notices: notices::Notices,
    /// All of it as people may see it, with the place each value comes from.
    pub(crate) shown: Vec<Setting>,
    /// Settings that work, but not as one might think.
    pub(crate) notes: Vec<Problem>,
}

/// Where a database is: a URL that may hold a password, or a file that holds the URL.
#[derive(Debug)]
pub(crate) enum DatabaseUrl {
    Written(SecretString),
    File(PathBuf),
}

/// Where the secret comes from that both ends of the link know.
#[derive(Debug)]
pub(crate) enum LinkSecret {
    Given(SecretString),
    File(PathBuf),
    /// Made by `up` in `data_dir`, both ends being its own.
    Own,
}

/// Why there is no configuration to work with.
#[derive(Debug)]
pub(crate) enum ConfigError {
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// At least one.
    Problems(Vec<Problem>),
}

/// A configuration and how it was written.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    settings: Settings,
}

/// Finds and reads the configuration; `given` is what `--config` or `UNDERSTUDY_CONFIG` said.
pub(crate) fn load(given: Option<&Path>) -> Result<Loaded, ConfigError> {
    let file = match given {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from(SYSTEM_CONFIG)).filter(|path| path.exists()),
    };
    let text = match &file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?
        }
        None => String::new(),
    };
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    parse(file, &text, variables)
}

/// Reads `text`, the content of `file`, under the `variables` of the environment.
fn parse(
    file: Option<PathBuf>,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::default();
    if let Some(path) = &file {
        read::read_file(&mut settings, path, text);
    }
    environment::read_environment(&mut settings, variables);
    let config = Config::build(&mut settings, file);
    match settings.problems.is_empty() {
        true => {
            let mut loaded = Loaded { config, settings };
            loaded.config.shown = show::values(&loaded);
            Ok(loaded)
        }
        false => Err(ConfigError::Problems(settings.problems)),
    }
}

impl Config {
    fn build(settings: &mut Settings, file: Option<PathBuf>) -> Self {
        let data_dir = path(settings, "data_dir").unwrap_or_else(default_data_dir);
        let listen = |settings: &Settings, key, default| settings.text(key).and_then(listen_address).unwrap_or(default);
        let config = Self {
            admin_listen: listen(settings, "admin.listen", DEFAULT_ADMIN),
            public_url: settings.text("admin.public_url").map(str::to_owned),
            recovery_listen: listen(settings, "recovery.listen", DEFAULT_RECOVERY),
            hooks: path(settings, "recovery.hooks"),
            recovery_plaintext: settings.flag("recovery.plaintext"),
            recovery_public_urls: settings.list("recovery.url").map(<[String]>::to_vec),
            source_plaintext: settings.flag("source.plaintext"),
            certificate_life: settings
                .text("link.certificate_life")
                .and_then(|text| parse_duration(text).ok())
                .unwrap_or(DEFAULT_CERTIFICATE_LIFE),
            recovery_urls: settings.list("source.recovery_url").map(<[String]>::to_vec),
            recovery_metrics: settings.text("recovery.metrics_listen").and_then(listen_address),
            source_metrics: settings.text("source.metrics_listen").and_then(listen_address),
            capability_mask: settings.list("source.capability_mask").map(<[String]>::to_vec).unwrap_or_default(),
            content: content::content(settings),
            journal_limit: settings.text("source.journal_limit").and_then(settings::size).unwrap_or(DEFAULT_JOURNAL),
            brake: brake(settings),
            verify_every: verify_every(settings),
            database: database_url(settings, "database.url"),
            source_database: database_url(settings, "database.source_url"),
            link_secret: link_secret(settings),
            servers: server::servers(settings),
            front_doors: front_door::configured(settings),
            mail_doors: front_door::mail_doors(settings),
            mail_exchangers: front_door::mail_exchangers(settings),
            routes_file: path(settings, "routes.file"),
            door_dir: path(settings, "routes.database_socket"),
            door_password_file: path(settings, "routes.database_password_file"),
            nginx_key_file: path(settings, "nginx.key_file"),
            nginx_plaintext: settings.flag("nginx.plaintext"),
            notices: notices::notices(settings),
            shown: Vec::new(),
            notes: Vec::new(),
            data_dir,
            file,
        };
        check_link(settings, &config);
        config
    }

    /// The socket through which this machine's administrator speaks without a token.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// Every file that holds a secret.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for url in [&self.database, &self.source_database].into_iter().flatten() {
            if let DatabaseUrl::File(path) = url {
                files.push(path.clone());
            }
        }
        if let LinkSecret::File(path) = &self.link_secret {
            files.push(path.clone());
        }
        for server in &self.servers {
            files.extend(server.login.password_file.clone());
            files.extend(server.manage.as_ref().map(|manage| manage.key_file.clone()));
        }
        for door in &self.front_doors.doors {
            files.extend(door.doveadm.as_ref().map(|(_, key_file)| PathBuf::from(key_file)));
        }
        files.extend(self.door_password_file.clone());
        files.extend(self.content.secret_files());
        files.extend(self.nginx_key_file.clone());
        files.extend(self.notices.secret_files());
        files.sort();
        files.dedup();
        files
    }
}

/// `ADDRESS:PORT`; `localhost` is taken as 127.0.0.1.
pub(super) fn listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// An absolute path; a relative one counts from the folder of the file it was written in.
fn path(settings: &Settings, key: &str) -> Option<PathBuf> {
    let written = Path::new(settings.text(key)?);
    let base = match settings.origin(key)? {
        Origin::File { path, .. } => path.parent().map(Path::to_owned).unwrap_or_default(),
        Origin::Environment(_) => PathBuf::new(),
    };
    let joined = base.join(written);
    Some(std::path::absolute(&joined).unwrap_or(joined))
}

fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/understudy");
    }
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    home("XDG_DATA_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(std::env::temp_dir)
        .join("understudy")
}

fn database_url(settings: &mut Settings, key: &str) -> Option<DatabaseUrl> {
    let file_key = format!("{key}_file");
    let (written, file) = (settings.text(key).map(SecretString::from), path(settings, &file_key));
    match (written, file) {
        (Some(_), Some(_)) => {
            let origin = settings.origin(&file_key).cloned();
            let what = format!("both \"{key}\" and \"{file_key}\" are set");
            settings.problem(origin, what, "keep one of the two");
            None
        }
        (Some(url), None) => Some(DatabaseUrl::Written(url)),
        (None, Some(path)) => Some(DatabaseUrl::File(path)),
        (None, None) => None,
    }
}

fn brake(settings: &Settings) -> BrakeConfig {
    let mut brake = BrakeConfig::default();
    match settings.text("brake.share") {
        Some(settings::OFF) => brake.enabled = false,
        Some(text) => brake.share = settings::share(text).unwrap_or(brake.share),
        None => {}
    }
    if let Some(messages) = settings.text("brake.messages").and_then(|text| text.parse().ok()) {
        brake.messages = messages;
    }
    if let Some(within) = settings.text("brake.within").and_then(|text| parse_duration(text).ok()) {
        brake.within = within;
    }
    brake
}

fn verify_every(settings: &Settings) -> Option<Duration> {
    match settings.text("verify.every") {
        Some(settings::OFF) => None,
        Some(text) => parse_duration(text).ok(),
        None => Some(DEFAULT_VERIFY),
    }
}

fn link_secret(settings: &Settings) -> LinkSecret {
    match (settings.text("link.secret"), path(settings, "link.secret_file")) {
        (Some(secret), _) => LinkSecret::Given(SecretString::from(secret)),
        (None, Some(path)) => LinkSecret::File(path),
        (None, None) => LinkSecret::Own,
    }
}

/// In clear text the link stays on this machine, and only when asked for.
fn check_link(settings: &mut Settings, config: &Config) {
    if config.recovery_plaintext && !config.recovery_listen.ip().is_loopback() {
        let origin = settings.origin("recovery.listen").cloned();
        settings.problem(
            origin,
            format!(
                "\"recovery.listen\" {} is not on this machine, and the link would be in clear text",
                config.recovery_listen
            ),
            "remove `plaintext` under [recovery] and pair the sites: `understudy link invite` makes the token",
        );
    }
    for written in config.recovery_urls.iter().flatten() {
        let Ok(url) = url::Url::parse(written) else { continue };
        let problem = match (url.scheme(), config.source_plaintext) {
            ("https", true) => Some((
                "is encrypted, and `plaintext` under [source] asks for clear text",
                "remove `plaintext`, or write http://",
            )),
            ("http", _) if !on_this_machine(&url) => Some((
                "is not on this machine, and the link would be in clear text",
                "write https:// and pair the sites: `understudy link join` takes the token",
            )),
            ("http", false) => Some((
                "is in clear text",
                "write https:// and pair the sites (`understudy link join`); on one machine `plaintext = true` under [source] \
                 allows clear text",
            )),
            _ => None,
        };
        if let Some((what, remedy)) = problem {
            let origin = settings.origin("source.recovery_url").cloned();
            settings.problem(origin, format!("\"source.recovery_url\" {written} {what}"), remedy);
        }
    }
}

/// Whether a URL points at this machine itself.
pub(super) fn on_this_machine(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        // Schemes that `url` does not know keep their host as text.
        None => false,
    }
}

#[cfg(test)]
mod tests;
