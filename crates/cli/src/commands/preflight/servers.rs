//! The mail servers: asked in full through a running Understudy, or only whether they are there.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use understudy_protocol::server::Server;
use url::Url;

use super::super::Context;
use super::super::server::check::{Finding, ServerCheck};
use super::{finding, ok};
use crate::client::{Client, decode};
use crate::config::Config;
use crate::failure::Result;

/// How long something on the network may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server's full check may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn look(context: &Context, config: &Config, running: bool) -> Vec<Finding> {
    if running && let Ok(client) = context.client() {
        return match through(&client).await {
            Ok(findings) => findings,
            Err(failure) => vec![finding("warning", "servers", failure.what(), failure.remedy())],
        };
    }
    let mut findings = Vec::new();
    for server in &config.servers {
        findings.push(reach(server).await);
    }
    findings
}

/// The checks of `understudy server check`, of every server.
async fn through(client: &Client) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for server in client.list(&["servers"], &[]).await? {
        let Some(name) = server.get("name").and_then(Value::as_str) else { continue };
        let checked = async {
            let run = client.run_to_end(&["servers", name, "check"], &json!({}), CHECK_PATIENCE).await?;
            decode::<ServerCheck>(&run.into_result()?)
        };
        match checked.await {
            Ok(check) => findings.extend(check.findings.into_iter().map(|mut found| {
                found.name = format!("{name}: {}", found.name);
                found
            })),
            Err(failure) => {
                let why = format!("{}: {}", failure.what(), failure.why());
                findings.push(finding("failed", name, why, failure.remedy()));
            }
        }
    }
    Ok(findings)
}

async fn reach(server: &Server) -> Finding {
    let Some((host, port)) = host_and_port(&server.imap) else {
        return finding("failed", &server.name, format!("{} names no host", server.imap), "correct its `imap`");
    };
    let mut found = reach_port(&server.name, &host, port).await;
    if found.level == "ok" {
        found.meaning.push_str("; `understudy server check` says more once `up` runs");
    }
    found
}

/// Whether anybody listens there.
pub(super) async fn reach_port(name: &str, host: &str, port: u16) -> Finding {
    let remedy = "check its name, that it runs, and the firewalls in between";
    match tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => ok(name, format!("{host} port {port} answers")),
        Ok(Err(error)) => finding("failed", name, format!("{host} port {port}: {error}"), remedy),
        Err(_) => {
            let why = format!("{host} port {port} did not answer in {} s", PATIENCE.as_secs());
            finding("failed", name, why, remedy)
        }
    }
}

pub(super) fn host_and_port(imap: &str) -> Option<(String, u16)> {
    let url = Url::parse(imap).ok()?;
    let default = if url.scheme() == "imaps" { 993 } else { 143 };
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port().unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_follows_from_the_scheme() {
        let check = |imap: &str, host: &str, port: u16| {
            assert_eq!(host_and_port(imap), Some((host.to_owned(), port)));
        };
        check("imaps://mail-a.example.org", "mail-a.example.org", 993);
        check("imap://mail-a.example.org", "mail-a.example.org", 143);
        check("imap+insecure://[::1]:1143", "::1", 1143);
    }
}
