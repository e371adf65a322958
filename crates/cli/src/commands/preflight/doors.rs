//! The front doors: whether each answers, can be told to cut, and finds its routes when the database is away.

use std::path::Path;

use understudy_database::front_door::{self, FrontDoor, FrontDoorKind};
use understudy_doveadm::Doveadm;

use super::super::server::check::Finding;
use super::servers::{host_and_port, reach_port};
use super::{deliveries, finding, ok};
use crate::config::Config;
use crate::running::Database;

/// What a Dovecot proxy must offer.
const CUT: &str = "proxyKick";

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let doors = &config.front_doors.doors;
    let mut findings = Vec::new();
    for door in doors {
        findings.extend(answers(door).await);
        match door.kind {
            FrontDoorKind::Dovecot => findings.push(cuts(door).await),
            FrontDoorKind::Nginx => findings.extend(nginx(config, door)),
        }
    }
    if doors.iter().any(|door| door.kind == FrontDoorKind::Dovecot) {
        findings.push(database(config).await);
        findings.push(routes_file(config.routes_file.as_deref()));
        findings.extend(deliveries::look(config).await);
    }
    if !doors.is_empty() && config.front_doors.domains.is_empty() {
        let why = "no [[domain]] is named, so `ana` and `ana@example.org` are two users to a front door";
        findings.push(finding("note", "domains", why, "add a [[domain]] for each of your mail domains"));
    }
    findings
}

async fn answers(door: &FrontDoor) -> Option<Finding> {
    let (host, port) = host_and_port(door.imap.as_deref()?)?;
    Some(reach_port(&door.name, &host, port).await)
}

/// Asks for the list of commands: shows that it answers and takes the key, and changes nothing.
async fn cuts(door: &FrontDoor) -> Finding {
    let Some((url, key_file)) = &door.doveadm else {
        return finding(
            "failed",
            &door.name,
            "it has no `doveadm`",
            "add `doveadm` and `key_file` to its [[front_door]]",
        );
    };
    let asked = async {
        Doveadm::open(url, Path::new(key_file), door.ca_file.as_deref().map(Path::new)).await?.commands().await
    };
    match asked.await {
        Ok(commands) if commands.iter().any(|command| command == CUT) => {
            ok(&door.name, "its management interface answers; sessions can be cut")
        }
        Ok(_) => finding("failed", &door.name, format!("it does not know {CUT}"), "use Dovecot 2.3 as the proxy"),
        Err(error) => {
            let trouble = error.trouble(&door.name);
            let remedy = if error.remedy().is_some() {
                "put its `doveadm_api_key` into the first line of `key_file`, and see that `doveadm` names its HTTP listener"
            } else {
                "start it, and check `inet_listener http` in its `service doveadm` and the firewalls in between"
            };
            finding("failed", &door.name, trouble.reason, remedy)
        }
    }
}

fn nginx(config: &Config, door: &FrontDoor) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.nginx_key_file.is_none() {
        let remedy = "set `key_file` under [nginx], and the same key in nginx as X-Auth-Key";
        findings.push(finding("failed", &door.name, "nginx may not ask for routes: there is no key", remedy));
    }
    if door.source.is_none() {
        let why = "when a user is cut, Understudy's own sessions end with the user's";
        findings.push(finding(
            "note",
            &door.name,
            why,
            "set `source` to the address from which nginx reaches the servers",
        ));
    }
    for server in &config.servers {
        if server.manage.is_none() {
            let why = format!("nginx cannot cut single users, and {} cannot be managed", server.name);
            let remedy = "add `manage` to the server, or put a Dovecot proxy in front";
            findings.push(finding("warning", &door.name, why, remedy));
        }
        if !server.imap.starts_with("imap+insecure:") && !config.nginx_plaintext {
            let why = format!("nginx speaks to mail servers without TLS, and {} is reached with it", server.name);
            let remedy =
                "where the way between is safe, set `plaintext = true` under [nginx]; else use a Dovecot proxy";
            findings.push(finding("failed", &door.name, why, remedy));
        }
    }
    if findings.is_empty() {
        findings.push(ok(&door.name, "nginx may ask for routes, and its users can be cut at the mail servers"));
    }
    findings
}

async fn database(config: &Config) -> Finding {
    const NAME: &str = "doors' database";
    if config.database.is_none() {
        return match (&config.door_dir, &config.door_password_file) {
            (Some(dir), Some(_)) => ok(NAME, format!("front doors reach the private PostgreSQL at {}", dir.display())),
            _ => finding(
                "failed",
                NAME,
                "front doors cannot reach the private PostgreSQL",
                "set `database_socket` and `database_password_file` under [routes]",
            ),
        };
    }
    let asked = async {
        let database = Database::named(config.database.as_ref()).map_err(|failure| failure.why())?;
        let pool = database.pool(1);
        let sessions = front_door::database_sessions(&pool).await.map_err(|error| error.to_string());
        pool.close().await;
        sessions
    };
    match asked.await {
        Ok(Some(0)) => ok(NAME, "the role understudy_door is there; no front door asks at the moment"),
        Ok(Some(sessions)) => ok(NAME, format!("front doors keep {sessions} sessions open")),
        Ok(None) => finding(
            "failed",
            NAME,
            "the role understudy_door is missing",
            "make it as a superuser: docs/front-doors.md says how",
        ),
        Err(why) => finding("failed", NAME, why, "check that it runs and that [database] url is right"),
    }
}

fn routes_file(path: Option<&Path>) -> Finding {
    const NAME: &str = "routes file";
    let Some(path) = path else {
        let why = "without it nobody gets in at a Dovecot proxy, and no mail, while the database is away";
        return finding(
            "warning",
            NAME,
            why,
            "set `file` under [routes], and name it in the proxy's dovecot.conf and dovecot-last-routes.conf",
        );
    };
    let remedy = "make its folder, writable for the user that runs Understudy and passable for Dovecot";
    match path.parent().map(|folder| folder.is_dir()) {
        Some(true) if path.exists() => ok(NAME, path.display().to_string()),
        Some(true) => ok(NAME, format!("{} will be written", path.display())),
        _ => finding("failed", NAME, format!("the folder of {} does not exist", path.display()), remedy),
    }
}
