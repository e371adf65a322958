//! Sessions, and the caches of log-ins: ended and emptied.
//!
//! `proxyKick` and `authCacheFlush` are for a Dovecot proxy, `kick` for the server that holds the mail.

use serde_json::{Value, json};

use crate::{Call, Doveadm, Error, Result};

/// What Dovecot answers when there was nothing to end.
const NOTHING_THERE: i64 = 68;

const UNANSWERED: Error = Error::Answer("it did not answer every command");

/// A session that a proxy passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySession {
    pub user: String,
    pub service: String,
    /// Where it goes: an IP address and a port.
    pub destination: String,
    pub port: u16,
}

impl Doveadm {
    /// Forgets what a proxy remembers of these users' routes, and ends their sessions. Says how many there were.
    pub async fn proxy_cut(&self, users: &[String]) -> Result<u64> {
        let flush = Call::new("authCacheFlush", json!({ "user": users }));
        let kick = Call::new("proxyKick", json!({ "user": users }));
        self.proxy_end(flush, kick, |session| users.contains(&session.user)).await
    }

    /// Ends every session that a proxy passes on to `host`, an IP address. A list here panics the process (2.3.19).
    pub async fn proxy_cut_host(&self, host: &str) -> Result<u64> {
        let flush = Call::new("authCacheFlush", json!({}));
        let kick = Call::new("proxyKick", json!({ "host": host }));
        self.proxy_end(flush, kick, |session| session.destination == host).await
    }

    /// Counted from the list just before: the answer to a kick has the count of one log-in process alone (2.3.19), often 0.
    async fn proxy_end(&self, flush: Call, kick: Call, is_meant: impl Fn(&ProxySession) -> bool) -> Result<u64> {
        let mut answers = self.call(&[flush, list(), kick]).await?.into_iter();
        // Without a cache there is nothing to flush, and an older proxy may say so with an error.
        answers.next();
        let there = sessions(&answers.next().unwrap_or(Err(UNANSWERED))?)?;
        answers.next().unwrap_or(Err(UNANSWERED))?;
        Ok(there.iter().filter(|session| is_meant(session)).count() as u64)
    }

    /// Ends the sessions of a user of this mail server; with `from`, only those from this address.
    pub async fn kick(&self, user: &str, from: Option<&str>) -> Result<u64> {
        let mask: Vec<&str> = [Some(user), from].into_iter().flatten().collect();
        match self.call_one(Call::new("kick", json!({ "mask": mask }))).await {
            Ok(rows) => Ok(rows.as_array().map_or(0, Vec::len) as u64),
            Err(Error::Refused { exit_code: NOTHING_THERE, .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The sessions that a proxy passes on.
    pub async fn proxy_sessions(&self) -> Result<Vec<ProxySession>> {
        sessions(&self.call_one(list()).await?)
    }

    /// Reads the configuration again and starts log-in checks afresh; sessions go on. A proxy whose database was away
    /// asks it again only minutes later otherwise.
    pub async fn reload(&self) -> Result<()> {
        self.call_one(Call::new("reload", json!({}))).await.map(drop)
    }
}

fn list() -> Call {
    Call::new("proxyList", json!({}))
}

/// What `proxyList` answers.
fn sessions(rows: &Value) -> Result<Vec<ProxySession>> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().ok_or(Error::Answer("its list of sessions is no list"))?;
    Ok(rows
        .iter()
        // Each log-in process but the first puts a line of headings before its own (2.3.19).
        .filter(|row| row["service"] != "service")
        .map(|row| ProxySession {
            user: text(row, "username"),
            service: text(row, "service"),
            destination: text(row, "dest-ip"),
            port: text(row, "dest-port").parse().unwrap_or_default(),
        })
        .collect())
}
