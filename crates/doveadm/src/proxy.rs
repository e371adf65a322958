//! Sessions, and the caches of log-ins: ended and emptied.
//!
//! `proxyKick` and `authCacheFlush` are for a Dovecot proxy, `kick` for the server that holds the mail.

use serde_json::{Value, json};

use crate::{Answer, Call, Doveadm, Error, Result};

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
    /// Forgets what a proxy remembers of these users' routes, and ends their sessions. Says how many there were, as far
    /// as the proxy tells: it counts by log-in process.
    pub async fn proxy_cut(&self, users: &[String]) -> Result<u64> {
        let calls =
            [Call::new("authCacheFlush", json!({ "user": users })), Call::new("proxyKick", json!({ "user": users }))];
        let mut answers = self.call(&calls).await?.into_iter();
        // Without a cache there is nothing to flush, and an older proxy may say so with an error.
        answers.next();
        counted(answers.next().unwrap_or(Err(UNANSWERED)))
    }

    /// Ends every session that a proxy passes on to `host`, an IP address. A list here panics the process (2.3.19).
    pub async fn proxy_cut_host(&self, host: &str) -> Result<u64> {
        let calls = [Call::new("authCacheFlush", json!({})), Call::new("proxyKick", json!({ "host": host }))];
        counted(self.call(&calls).await?.into_iter().nth(1).unwrap_or(Err(UNANSWERED)))
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
        let rows = self.call_one(Call::new("proxyList", json!({}))).await?;
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

    /// Reads the configuration again and starts log-in checks afresh; sessions go on. A proxy whose database was away
    /// asks it again only minutes later otherwise.
    pub async fn reload(&self) -> Result<()> {
        self.call_one(Call::new("reload", json!({}))).await.map(drop)
    }
}

/// How many sessions a kick ended; none is fine.
fn counted(answer: Answer) -> Result<u64> {
    let count = |row: &Value| match &row["count"] {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    Ok(answer?.as_array().into_iter().flatten().filter_map(count).sum())
}
