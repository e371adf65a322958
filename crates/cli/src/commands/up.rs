//! `understudy up`: every role in one process, with a private PostgreSQL where no database is named.
//!
//! Keeps true: the ready file is there only while everything answers; roles stop before the database does.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tracing::{info, warn};

use understudy_gateway_recovery::LinkSecurity;
use understudy_gateway_source::LinkAccess;

use super::Context;
use super::roles::{
    Neighbours, RoleArguments, metrics, role_failure, say_notes, start_admin, start_doors, start_notices,
    start_recovery, start_source, sync_servers,
};
use crate::client::Client;
use crate::config::{self, Config};
use crate::failure::{Exit, Failure, Result};
use crate::output;
use crate::running::{DataDir, Database, Door, LinkEnds, Roles, Signals, content_config, link_secret, web_address};

/// How long the roles may take until they answer.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(50);
/// How long the source gateway may take to introduce itself, once the rest answers, before we go on without.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);

/// Run every role in one process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  understudy up
  understudy --config /etc/understudy/understudy.toml up --log-format json
  UNDERSTUDY__ADMIN__LISTEN=127.0.0.1:9090 understudy up

With no [database] url it makes and runs a private PostgreSQL under data_dir.")]
pub(crate) struct Up {
    /// Write the web address to this file once everything answers
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) role: RoleArguments,
}

/// What was opened before anything could fail later.
struct Prepared {
    secret: secrecy::SecretString,
    admin: Door,
    recovery: Door,
    content: understudy_gateway_recovery::ContentConfig,
    socket: PathBuf,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

pub(crate) async fn run(up: &Up, context: &Context) -> Result<Exit> {
    let config = config::load(context.config.as_deref())?.config;
    say_notes(&config);
    if config.source_database.is_some() || config.recovery_urls.is_some() {
        warn!(
            "`up` runs both gateways on one database: [database] source_url and [source] recovery_url are for `understudy source`"
        );
    }
    let link_listen = link_listen(config.recovery_listen)?;
    let signals = Signals::listen()?;
    let data_dir = DataDir::lock(&config.data_dir, &["source", "recovery", "admin"])?;
    if let Some(path) = &up.ready_file {
        remove_ready_file(path)?;
    }
    let prepared = Prepared {
        secret: link_secret(&config.link_secret, &config.data_dir, LinkEnds::BothHere)?,
        admin: Door::open(config.admin_listen, "`listen` under [admin], or UNDERSTUDY__ADMIN__LISTEN")?,
        recovery: Door::open(link_listen, "`listen` under [recovery], or UNDERSTUDY__RECOVERY__LISTEN")?,
        content: content_config(&config)?,
        socket: data_dir.socket(config.admin_socket())?,
        metrics: metrics()?,
    };
    let database = tokio::select! {
        database = Database::open(config.database.as_ref(), &config.data_dir, config.door_dir.as_deref()) => database?,
        () = signals.stop.cancelled() => return Ok(Exit::Done),
    };
    let mut roles = Roles::new();
    let outcome = serve(up, context, &config, prepared, &database, &mut roles, &signals).await;
    if let Some(path) = &up.ready_file {
        // What it promised is about to end; a file that cannot be removed now will be at the next start.
        let _ = remove_ready_file(path);
    }
    info!("Stopping; a second signal stops at once");
    let stopping = async {
        roles.stop().await;
        database.stop().await;
    };
    tokio::select! {
        () = stopping => info!("Stopped"),
        () = signals.now.cancelled() => {
            warn!("Stopped at once; the next start recovers what was in flight");
            return Ok(Exit::Failed);
        }
    }
    outcome.map(|()| Exit::Done)
}

/// Runs the roles until a signal asks to stop or one of them cannot start.
/// Where the link listens: both gateways are in this process, and their link is in clear text, so it stays on this machine.
fn link_listen(wanted: SocketAddr) -> Result<SocketAddr> {
    let here = match wanted.ip() {
        ip if ip.is_loopback() => return Ok(wanted),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.port())),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => SocketAddr::from((Ipv6Addr::LOCALHOST, wanted.port())),
        _ => {
            return Err(Failure::usage(
                format!("`up` does not listen on {wanted} for the link"),
                "both gateways are in this process, and their link is in clear text: it stays on this machine",
                "remove `listen` under [recovery]; for a source site elsewhere run `understudy recovery` and `understudy admin`",
            ));
        }
    };
    warn!(
        "`up` has both ends of the link: it listens on {here} alone, not on {wanted}. For a source site elsewhere run `understudy recovery` \
         and `understudy admin`"
    );
    Ok(here)
}

async fn serve(
    up: &Up,
    context: &Context,
    config: &Config,
    prepared: Prepared,
    database: &Database,
    roles: &mut Roles,
    signals: &Signals,
) -> Result<()> {
    sync_servers(config, database).await?;
    let Prepared { secret, admin, recovery, content, socket, metrics } = prepared;
    let web = web_address(admin.address());
    let recovery_url = web_address(recovery.address());
    start_recovery(roles, config, database, LinkSecurity::Clear(secret.clone()), recovery, content, Neighbours::Both);
    let link = LinkAccess::Clear { recovery_urls: vec![recovery_url], secret };
    start_source(roles, config, database, link, Neighbours::Both);
    start_doors(roles, config, database);
    start_admin(roles, config, database, admin, socket.clone(), metrics);
    start_notices(roles, config, database)?;
    tokio::select! {
        ready = wait_until_ready(&socket) => ready?,
        (name, error) = roles.failed() => return Err(role_failure(name, &error)),
        () = signals.stop.cancelled() => return Ok(()),
    }
    roles.is_ready();
    if let Some(path) = &up.ready_file {
        write_ready_file(path, &web)?;
    }
    greet(context, config, database, &web);
    tokio::select! {
        () = signals.stop.cancelled() => Ok(()),
        (name, error) = roles.failed() => Err(role_failure(name, &error)),
    }
}

/// Returns once the API answers and the gateways have met.
async fn wait_until_ready(socket: &Path) -> Result<()> {
    let began = tokio::time::Instant::now();
    let mut answered_at = None;
    let mut last = None;
    while began.elapsed() < READY_TIMEOUT {
        match gateways_have_met(socket).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let since = *answered_at.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > LINK_TIMEOUT {
                    warn!("The gateways have not met yet; going on, `understudy status` says when they have");
                    return Ok(());
                }
            }
            Err(failure) => last = Some(failure),
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
    Err(last.unwrap_or_else(|| Failure::new("the roles do not answer", "they took too long", "read the log above")))
}

async fn gateways_have_met(socket: &Path) -> Result<bool> {
    let status = Client::over_socket(socket.to_owned())?.get(&["status"], &[]).await?;
    Ok(status.pointer("/link/connected").and_then(serde_json::Value::as_bool).unwrap_or(false))
}

fn remove_ready_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ready_file_failure(path, &error)),
        _ => Ok(()),
    }
}

/// Whoever waits for the file never sees half of it.
fn write_ready_file(path: &Path, web: &str) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let written = std::fs::File::create(&fresh)
        .and_then(|mut file| file.write_all(web.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&fresh, path));
    written.map_err(|error| ready_file_failure(path, &error))
}

fn ready_file_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("the ready file {} cannot be written", path.display()),
        error.to_string(),
        "name a file in a folder that exists and that this user may write to",
    )
}

fn greet(context: &Context, config: &Config, database: &Database, web: &str) {
    let program = context.program();
    let shown = config.public_url.as_deref().unwrap_or(web);
    output::print(&format!(
        "\nUnderstudy {version} is running.\n
  Web       {shown}
  Data      {data}
  Database  {place}\n
To log in to the web, make an account:  {program} user add NAME --role administrator
First steps:                          {program} server add --help
                                      {program} mailbox protect --help
How it is:                            {program} status
Stop with Ctrl-C.\n\n",
        version = env!("CARGO_PKG_VERSION"),
        data = config.data_dir.display(),
        place = database.place(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_both_gateways_stays_on_this_machine() {
        let check = |wanted: &str, listens: Option<&str>| {
            let found = link_listen(wanted.parse().expect("an address")).ok();
            assert_eq!(found, listens.map(|listens| listens.parse().expect("an address")), "{wanted}");
        };
        check("127.0.0.9:8443", Some("127.0.0.9:8443"));
        check("0.0.0.0:8443", Some("127.0.0.1:8443"));
        check("[::]:8443", Some("[::1]:8443"));
        check("192.0.2.1:8443", None);
    }
}
