//! `understudy source|recovery|admin`: one role of a site, and the pieces of all of them.
//!
//! Not here: all three in one process (`up`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use secrecy::SecretString;
use tracing::{info, warn};
use understudy_admin_api::{AdminConfig, NginxConfig};
use understudy_database::PgPool;
use understudy_gateway_recovery::{ContentConfig, LinkSecurity, MailExchangers, RecoveryConfig};
use understudy_gateway_source::{LinkAccess, SourceConfig};
use understudy_protocol::TenantId;

use super::Context;
use crate::config::{self, Config};
use crate::failure::{Exit, Failure, Result};
use crate::logging::LogFormat;
use crate::running::{DataDir, Database, Door, LinkEnds, Roles, Signals, content_config, link_secret, web_address};

/// Connections to the database, each role its own: together well below what the private cluster takes.
/// Few: each takes its time to start, and plans every statement anew. Nobody keeps one while a mail server is waited for.
const SOURCE_CONNECTIONS: u32 = 5;
/// Besides those that keep mailboxes held while they change sides: these are apart.
const RECOVERY_CONNECTIONS: u32 = 12;
const ADMIN_CONNECTIONS: u32 = 8;
const DOOR_CONNECTIONS: u32 = 4;
const NOTICE_CONNECTIONS: u32 = 6;

/// A role that stands for so long has started; from then on it is brought back when it falls.
const STARTED: Duration = Duration::from_secs(3);

/// A plain install has one tenant, and the configuration file speaks for it.
const TENANT: TenantId = TenantId(1);

/// Upper bounds of the histograms of times, in seconds.
const TIME_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
/// How often the recorder tidies up what it holds.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct RoleArguments {
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// Where the other gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbours {
    /// In this process, on the same data folder.
    Both,
    Apart,
}

/// Which role runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    Source,
    Recovery,
    Admin,
}

impl Alone {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Recovery => "recovery",
            Self::Admin => "admin",
        }
    }
}

pub(crate) async fn run(role: Alone, context: &Context) -> Result<Exit> {
    let config = config::load(context.config.as_deref())?.config;
    say_notes(&config);
    let signals = Signals::listen()?;
    let data_dir = DataDir::lock(&config.data_dir, &[role.name()])?;
    let url = match role {
        Alone::Source => config.source_database.as_ref(),
        Alone::Recovery => config.database.as_ref(),
        Alone::Admin if config.database.is_none() => return Err(admin_needs_a_database()),
        Alone::Admin => config.database.as_ref(),
    };
    let mut roles = Roles::new();
    // Whatever can be refused is refused before a database is started.
    let prepared = Prepared::new(role, &config, &data_dir)?;
    let database = tokio::select! {
        database = Database::open(url, &config.data_dir, config.door_dir.as_deref().filter(|_| role == Alone::Recovery)) => database?,
        () = signals.stop.cancelled() => return Ok(Exit::Done),
    };
    let outcome = async {
        prepared.start(&mut roles, &config, &database).await?;
        tokio::select! {
            () = signals.stop.cancelled() => return Ok(()),
            (name, error) = roles.failed() => return Err(role_failure(name, &error)),
            () = tokio::time::sleep(STARTED) => roles.is_ready(),
        }
        tokio::select! {
            () = signals.stop.cancelled() => Ok(()),
            (name, error) = roles.failed() => Err(role_failure(name, &error)),
        }
    };
    let outcome = outcome.await;
    let stopping = async {
        roles.stop().await;
        database.stop().await;
    };
    tokio::select! {
        () = stopping => info!("Stopped"),
        () = signals.now.cancelled() => warn!("Stopped at once"),
    }
    outcome.map(|()| Exit::Done)
}

fn admin_needs_a_database() -> Failure {
    Failure::usage(
        "the admin role has no database",
        "it works on the recovery site's, and none is named",
        "set [database] url, or run every role in one process with `understudy up`",
    )
}

/// What one role alone needs that can go wrong before it starts.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
enum Prepared {
    Source { link: LinkAccess, shown: Option<Shown> },
    Recovery { link: LinkSecurity, door: Door, content: ContentConfig, shown: Option<Shown> },
    Admin { door: Door, socket: PathBuf, metrics: PrometheusHandle },
}

/// The metrics of a gateway that runs alone, and where they are shown.
struct Shown {
    door: Door,
    metrics: PrometheusHandle,
}

impl Shown {
    /// At `address`, the value of `setting`; without one, nowhere.
    fn at(address: Option<SocketAddr>, setting: &str) -> Result<Option<Self>> {
        address.map(|address| Ok(Self { door: Door::open(address, setting)?, metrics: metrics()? })).transpose()
    }

    /// Nobody is asked who he is there: they name nobody.
    fn start(self, roles: &mut Roles, gateway: &str, journal: Option<PgPool>) {
        let Self { door, metrics } = self;
        info!("The {gateway} gateway shows its metrics at {}/metrics", web_address(door.address()));
        roles.start("metrics", move |stop| {
            Ok(super::role_metrics::serve(door.listener()?, journal.clone(), metrics.clone(), stop))
        });
    }
}

impl Prepared {
    fn new(role: Alone, config: &Config, data_dir: &DataDir) -> Result<Self> {
        let secret = || link_secret(&config.link_secret, &config.data_dir, LinkEnds::OneHere);
        Ok(match role {
            Alone::Source => Self::Source {
                link: link_access(config, secret)?,
                shown: Shown::at(config.source_metrics, "`metrics_listen` under [source]")?,
            },
            Alone::Recovery => Self::Recovery {
                link: match config.recovery_plaintext {
                    true => LinkSecurity::Clear(secret()?),
                    false => LinkSecurity::Paired { certificate_life: config.certificate_life },
                },
                door: Door::open(config.recovery_listen, "`listen` under [recovery]")?,
                content: content_config(config)?,
                shown: Shown::at(config.recovery_metrics, "`metrics_listen` under [recovery]")?,
            },
            Alone::Admin => Self::Admin {
                door: Door::open(config.admin_listen, "`listen` under [admin]")?,
                socket: data_dir.socket(config.admin_socket())?,
                metrics: metrics()?,
            },
        })
    }

    async fn start(self, roles: &mut Roles, config: &Config, database: &Database) -> Result<()> {
        match self {
            Self::Source { link, shown } => {
                start_source(roles, config, database, link, Neighbours::Apart);
                if let Some(shown) = shown {
                    shown.start(roles, "source", Some(database.pool(1)));
                }
            }
            Self::Recovery { link, door, content, shown } => {
                sync_servers(config, database).await?;
                if let Some(shown) = shown {
                    shown.start(roles, "recovery", None);
                }
                start_recovery(roles, config, database, link, door, content, Neighbours::Apart);
                start_doors(roles, config, database);
            }
            Self::Admin { door, socket, metrics } => {
                info!("The admin role answers at {}", web_address(door.address()));
                start_admin(roles, config, database, door, socket, metrics);
                start_notices(roles, config, database)?;
            }
        }
        Ok(())
    }
}

/// How the recovery site is reached, if that is known.
fn link_access(config: &Config, secret: impl Fn() -> Result<SecretString>) -> Result<LinkAccess> {
    if config.source_plaintext {
        let recovery_urls = config.recovery_urls.clone().ok_or_else(|| {
            Failure::usage(
                "the source gateway does not know the recovery site",
                "`plaintext` under [source] asks for clear text, and no recovery_url says where",
                "set `recovery_url = [\"http://127.0.0.1:8443\"]` under [source], or remove `plaintext` and pair the sites",
            )
        })?;
        return Ok(LinkAccess::Clear { recovery_urls, secret: secret()? });
    }
    match understudy_pairing::Identity::open(&config.data_dir) {
        Ok(Some(_)) => Ok(LinkAccess::Paired { recovery_urls: config.recovery_urls.clone() }),
        Ok(None) => Err(super::link::not_paired()),
        Err(error) => Err(Failure::usage(
            "the keys of this site cannot be read",
            error.to_string(),
            "correct that, or pair the sites again (`understudy link join`)",
        )),
    }
}

pub(super) fn start_source(
    roles: &mut Roles,
    config: &Config,
    database: &Database,
    link: LinkAccess,
    neighbours: Neighbours,
) {
    let pool = database.pool(SOURCE_CONNECTIONS);
    let (data_dir, capability_mask) = (config.data_dir.clone(), config.capability_mask.clone());
    let journal_limit = config.journal_limit;
    roles.start("source", move |stop| {
        let config = SourceConfig {
            pool: pool.clone(),
            data_dir: data_dir.clone(),
            link: link.clone(),
            shares_spool: neighbours == Neighbours::Both,
            capability_mask: capability_mask.clone(),
            journal_limit,
        };
        Ok(understudy_gateway_source::run(config, stop))
    });
}

pub(super) fn start_recovery(
    roles: &mut Roles,
    config: &Config,
    database: &Database,
    link: LinkSecurity,
    door: Door,
    content: ContentConfig,
    neighbours: Neighbours,
) {
    let pool = database.pool(RECOVERY_CONNECTIONS);
    let data_dir = config.data_dir.clone();
    let (brake, verify_every) = (config.brake, config.verify_every);
    let hooks = config.hooks.clone();
    let exchangers = MailExchangers {
        servers: config.mail_exchangers.clone(),
        domains: config.front_doors.domains.iter().map(|domain| domain.name.clone()).collect(),
    };
    roles.start("recovery", move |stop| {
        let config = RecoveryConfig {
            pool: pool.clone(),
            data_dir: data_dir.clone(),
            listener: door.listener()?,
            link: link.clone(),
            content: content.clone(),
            shared_spool: (neighbours == Neighbours::Both).then(|| understudy_gateway_source::spool_folder(&data_dir)),
            brake,
            verify_every,
            hooks: hooks.clone(),
            exchangers: exchangers.clone(),
        };
        Ok(understudy_gateway_recovery::run(config, stop))
    });
}

/// Lets front doors log in to the database with the password of the configuration.
async fn set_door_password(config: &Config, pool: &PgPool) {
    let Some(path) = &config.door_password_file else { return };
    let set = async {
        let password = crate::running::first_line(path, "the password of understudy_door");
        let password = password.map_err(|failure| anyhow::anyhow!("{}", failure.why()))?;
        understudy_database::front_door::set_password(pool, &password).await?;
        anyhow::Ok(())
    };
    if let Err(error) = set.await {
        warn!(error = %format!("{error:#}"), "The role understudy_door has no new password; front doors may not get in. Set it yourself: alter role understudy_door login password '…'");
    }
}

/// Keeps front doors in step with the routes.
pub(super) fn start_doors(roles: &mut Roles, config: &Config, database: &Database) {
    let pool = database.pool(DOOR_CONNECTIONS);
    let watch = understudy_front_door::Watch { routes_file: config.routes_file.clone() };
    roles.start("doors", move |stop| {
        let followed = understudy_front_door::run(pool.clone(), watch.clone(), stop);
        Ok(async move {
            followed.await;
            Ok(())
        })
    });
}

fn nginx(key_file: Option<&Path>, plaintext: bool) -> anyhow::Result<Option<NginxConfig>> {
    let Some(path) = key_file else { return Ok(None) };
    let key = crate::running::first_line(path, "the key for nginx").map_err(|failure| anyhow::anyhow!("{failure}"))?;
    Ok(Some(NginxConfig { key: SecretString::from(key), plaintext }))
}

pub(super) fn start_admin(
    roles: &mut Roles,
    config: &Config,
    database: &Database,
    door: Door,
    socket: PathBuf,
    metrics: PrometheusHandle,
) {
    let pool = database.asking_pool(ADMIN_CONNECTIONS);
    let (public_url, data_dir) = (config.public_url.clone(), config.data_dir.clone());
    let settings = config.shown.clone();
    let (nginx_key_file, plaintext) = (config.nginx_key_file.clone(), config.nginx_plaintext);
    roles.start("admin", move |stop| {
        let config = AdminConfig {
            pool: pool.clone(),
            listener: door.listener()?,
            public_url: public_url.clone(),
            socket: Some(socket.clone()),
            metrics: Some(metrics.clone()),
            nginx: nginx(nginx_key_file.as_deref(), plaintext)?,
            data_dir: data_dir.clone(),
            settings: settings.clone(),
        };
        Ok(understudy_admin_api::run(config, stop))
    });
}

/// Tells people and programs what happened.
pub(super) fn start_notices(roles: &mut Roles, config: &Config, database: &Database) -> Result<()> {
    let notices = super::notices::notices(config, database.pool(NOTICE_CONNECTIONS))?;
    roles.start("notices", move |stop| Ok(understudy_notices::run(notices.clone(), stop)));
    Ok(())
}

/// Makes the servers of the configuration known to the recovery site.
pub(super) async fn sync_servers(config: &Config, database: &Database) -> Result<()> {
    let pool = database.pool(1);
    let synced = async {
        let mut transaction = pool.begin().await?;
        let kept = understudy_database::server::sync_configured(&mut transaction, TENANT, &config.servers).await?;
        understudy_database::front_door::sync_configured(&mut transaction, TENANT, &config.front_doors).await?;
        transaction.commit().await?;
        anyhow::Ok(kept)
    };
    let synced = synced.await;
    set_door_password(config, &pool).await;
    pool.close().await;
    let kept = synced.map_err(|error| {
        Failure::because("the configured servers could not be stored", &error, "check the database, then start again")
    })?;
    for name in kept {
        warn!(server.name = name, "Server {name} is no longer in the configuration but has mailboxes, so it stays");
    }
    Ok(())
}

/// The process's metrics, and the task that keeps them tidy.
pub(super) fn metrics() -> Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), TIME_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder);
    let handle = recorder
        .map_err(|error| Failure::new("metrics cannot be recorded", error.to_string(), "report this, please"))?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// A role that could not start, in three lines.
pub(super) fn role_failure(name: &str, error: &anyhow::Error) -> Failure {
    Failure::because(
        format!("the {name} role could not start"),
        error,
        "correct that, then start again; the log above says more",
    )
}

pub(super) fn say_notes(config: &Config) {
    for note in &config.notes {
        warn!("{note}: {}", note.remedy);
    }
}
