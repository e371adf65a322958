//! Ends sessions at every front door.
//!
//! A Dovecot proxy ends single users' sessions itself. nginx cannot: its sessions are ended at the mail server behind, where
//! that can be managed, by the address that nginx comes from. Where a server lets nobody in whose place is elsewhere, sessions past
//! the doors are ended there too.

use std::collections::{HashMap, hash_map::Entry};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use futures_util::future::join_all;
use tracing::warn;
use understudy_database::{
    Error as DatabaseError, PgPool,
    front_door::{self, FrontDoor, FrontDoorKind},
    server::{self as servers, every as every_server},
};
use understudy_doveadm::{Doveadm, Error, ProxySession};
use understudy_protocol::{MailboxId, Side, server};

/// The front doors as they were known at [`FrontDoors::open`]; opening them anew is cheap.
pub struct FrontDoors {
    proxies: Vec<Proxy>,
    servers: Vec<Server>,
    /// The nginx doors, by name and the address they come from.
    nginx: Vec<(String, Option<String>)>,
    unusable: Vec<Uncut>,
}

struct Proxy {
    name: String,
    doveadm: Doveadm,
}

/// A mail server that nginx passes sessions to.
struct Server {
    server_id: i64,
    name: String,
    /// None where it cannot be managed.
    doveadm: Option<Doveadm>,
}

/// What came of cutting.
#[derive(Debug, Default)]
pub struct Cut {
    /// At least so many sessions ended.
    pub sessions: u64,
    pub uncut: Vec<Uncut>,
}

/// A door, or a server behind one, where sessions may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncut {
    pub name: String,
    pub reason: String,
    pub remedy: String,
}

impl Cut {
    /// Every session is over, as far as front doors go.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.uncut.is_empty()
    }

    fn add(&mut self, name: &str, outcome: Result<u64, Error>) {
        match outcome {
            Ok(sessions) => self.sessions += sessions,
            Err(error) => self.uncut.push(uncut(name, &error)),
        }
    }
}

fn uncut(name: &str, error: &Error) -> Uncut {
    let trouble = error.trouble(name);
    warn!(door.name = name, error = trouble.reason, "Sessions could not be cut at {name}");
    Uncut { name: name.to_owned(), reason: trouble.reason, remedy: trouble.remedy }
}

/// Every address that a server's name has.
async fn addresses(place: Option<(String, u16)>) -> Vec<SocketAddr> {
    let Some((host, port)) = place else { return Vec::new() };
    match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(found) => found.collect(),
        Err(_) => Vec::new(),
    }
}

/// The management interface of a server that has one.
async fn manage(server: &server::Server) -> Option<Result<Doveadm, Error>> {
    let manage = server.manage.as_ref()?;
    Some(Doveadm::open(&manage.doveadm, &manage.key_file, server.ca_file.as_deref()).await)
}

/// Ends every session of these users at a mail server, whoever began it: Understudy's own come back by themselves.
async fn end_all(name: &str, doveadm: Result<Doveadm, Error>, logins: &[String], cut: &mut Cut) {
    let doveadm = match doveadm {
        Ok(doveadm) => doveadm,
        Err(error) => return cut.add(name, Err(error)),
    };
    for login in logins {
        let kicked = doveadm.kick(login, None).await;
        let is_gone = matches!(kicked, Err(Error::Unreachable { .. } | Error::Timeout { .. }));
        cut.add(name, kicked);
        if is_gone {
            return;
        }
    }
}

fn is(address: &SocketAddr, session: &ProxySession) -> bool {
    address.port() == session.port && session.destination.parse::<IpAddr>().is_ok_and(|ip| ip == address.ip())
}

impl FrontDoors {
    /// The front doors that are known now, and the servers behind those that cannot cut by themselves.
    pub async fn open(pool: &PgPool) -> Result<Self, DatabaseError> {
        let doors = front_door::list(pool).await?;
        let mut opened = Self { proxies: Vec::new(), servers: Vec::new(), nginx: Vec::new(), unusable: Vec::new() };
        for door in doors {
            opened.add(door).await;
        }
        if !opened.nginx.is_empty() {
            for (server_id, _, server) in every_server(pool).await? {
                let server = opened.server(server_id, server).await;
                opened.servers.push(server);
            }
        }
        Ok(opened)
    }

    /// No front door is known: nobody can be cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.proxies.is_empty() && self.nginx.is_empty() && self.unusable.is_empty()
    }

    async fn add(&mut self, door: FrontDoor) {
        match (door.kind, door.doveadm) {
            (FrontDoorKind::Nginx, _) => self.nginx.push((door.name, door.source)),
            (FrontDoorKind::Dovecot, Some((url, key_file))) => {
                let ca_file = door.ca_file.as_deref().map(Path::new);
                match Doveadm::open(&url, Path::new(&key_file), ca_file).await {
                    Ok(doveadm) => self.proxies.push(Proxy { name: door.name, doveadm }),
                    Err(error) => self.unusable.push(uncut(&door.name, &error)),
                }
            }
            (FrontDoorKind::Dovecot, None) => self.unusable.push(Uncut {
                reason: format!("{} has no management interface, so its sessions cannot be cut.", door.name),
                remedy: "Set `doveadm` and `key_file` in its [[front_door]].".to_owned(),
                name: door.name,
            }),
        }
    }

    async fn server(&mut self, server_id: i64, server: server::Server) -> Server {
        let mut doveadm = None;
        match manage(&server).await {
            Some(Ok(opened)) => doveadm = Some(opened),
            Some(Err(error)) => self.unusable.push(uncut(&server.name, &error)),
            None => {}
        }
        Server { server_id, name: server.name, doveadm }
    }

    /// Ends the sessions of these mailboxes' users on `side` at every door. Log-ins should be held, or they are back at
    /// once.
    pub async fn cut(&self, pool: &PgPool, mailboxes: &[MailboxId], side: Side) -> Result<Cut, DatabaseError> {
        let users = front_door::users(pool, mailboxes, side).await?;
        let mut cut = Cut { sessions: 0, uncut: self.unusable.clone() };
        // As the doors know them: what `route_lookup` gives as `user`.
        let names: Vec<String> = users.iter().map(|user| user.address.clone()).collect();
        let proxies = self.proxies.iter().map(|proxy| async { (&proxy.name, proxy.doveadm.proxy_cut(&names).await) });
        for (name, outcome) in join_all(proxies).await {
            cut.add(name, outcome);
        }
        if self.nginx.is_empty() {
            return Ok(cut);
        }
        for server in &self.servers {
            let logins: Vec<&str> = users
                .iter()
                .filter(|user| user.server_id == server.server_id)
                .map(|user| user.login.as_str())
                .collect();
            if !logins.is_empty() {
                self.cut_at(server, &logins, &mut cut).await;
            }
        }
        Ok(cut)
    }

    async fn cut_at(&self, server: &Server, logins: &[&str], cut: &mut Cut) {
        let Some(doveadm) = &server.doveadm else {
            cut.uncut.push(Uncut {
                name: server.name.clone(),
                reason: format!("nginx cannot cut single users, and {} cannot be managed.", server.name),
                remedy: "Add `manage` to the server, or put a Dovecot proxy in front.".to_owned(),
            });
            return;
        };
        for (_, source) in &self.nginx {
            for login in logins {
                let kicked = doveadm.kick(login, source.as_deref()).await;
                // A server that is gone has no sessions, and there may be hundreds of users to ask about.
                let is_gone = matches!(kicked, Err(Error::Unreachable { .. } | Error::Timeout { .. }));
                cut.add(&server.name, kicked);
                if is_gone {
                    return;
                }
            }
        }
    }

    /// Ends the sessions that are still passed on to `side`, the one that was left, and no others: for right after a change
    /// of side. A proxy that had lost its database for a moment may have let somebody in there during the hold. Also those past the
    /// doors, where the server can be managed and lets nobody back in.
    pub async fn cut_left_behind(
        &self,
        pool: &PgPool,
        mailboxes: &[MailboxId],
        side: Side,
    ) -> Result<Cut, DatabaseError> {
        let mut there: HashMap<i64, Vec<SocketAddr>> = HashMap::new();
        let mut users: HashMap<String, i64> = HashMap::new();
        let mut logins: HashMap<i64, Vec<String>> = HashMap::new();
        for user in front_door::users(pool, mailboxes, side).await? {
            if let Entry::Vacant(unknown) = there.entry(user.server_id) {
                let place = front_door::imap_address(pool, user.server_id).await?;
                unknown.insert(addresses(place).await);
            }
            users.insert(user.address, user.server_id);
            logins.entry(user.server_id).or_default().push(user.login);
        }
        let mut cut = Cut { sessions: 0, uncut: self.unusable.clone() };
        for proxy in &self.proxies {
            let ended = async {
                let sessions = proxy.doveadm.proxy_sessions().await?;
                let mut names: Vec<String> = sessions
                    .into_iter()
                    .filter(|session| {
                        let left = users.get(&session.user).and_then(|server| there.get(server));
                        left.is_some_and(|left| left.iter().any(|address| is(address, session)))
                    })
                    .map(|session| session.user)
                    .collect();
                names.sort();
                names.dedup();
                if names.is_empty() { Ok(0) } else { proxy.doveadm.proxy_cut(&names).await }
            };
            cut.add(&proxy.name, ended.await);
        }
        for (server_id, logins) in logins {
            if front_door::asks_for_lease(pool, server_id).await?
                && let Some(stored) = servers::by_id(pool, server_id).await?
                && let Some(opened) = manage(&stored.definition).await
            {
                end_all(&stored.definition.name, opened, &logins, &mut cut).await;
            }
        }
        Ok(cut)
    }

    /// Ends every session that a Dovecot proxy passes on to `host`, an IP address.
    pub async fn cut_server(&self, host: &str) -> Cut {
        let mut cut = Cut { sessions: 0, uncut: self.unusable.clone() };
        let proxies =
            self.proxies.iter().map(|proxy| async { (&proxy.name, proxy.doveadm.proxy_cut_host(host).await) });
        for (name, outcome) in join_all(proxies).await {
            cut.add(name, outcome);
        }
        cut.uncut.extend(self.nginx.iter().map(|(name, _)| Uncut {
            name: name.clone(),
            reason: format!("{name} is nginx, which cannot cut the sessions of one server."),
            remedy: "Cut mailbox by mailbox, or reload nginx, which ends all sessions.".to_owned(),
        }));
        cut
    }

    /// Has every Dovecot proxy look for its database afresh. Sessions go on.
    pub async fn refresh(&self) {
        for outcome in join_all(
            self.proxies
                .iter()
                .map(|proxy| async { proxy.doveadm.reload().await.map_err(|error| (&proxy.name, error)) }),
        )
        .await
        {
            if let Err((name, error)) = outcome {
                warn!(door.name = name, error = error.trouble(name).reason, "Front door {name} could not be refreshed");
            }
        }
    }
}
