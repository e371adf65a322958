//! Tells another program that something happened: one signed POST to an address that somebody typed in.
//!
//! In: a target, an id that stays the same however often it is sent, a JSON body. Out: what the other side answered.
//! Keeps true: nothing is sent to an address that is not allowed, also when a name changes its address in between, and no
//! redirect is followed. Not here: when to send, and when to send again.

mod address;
mod sign;

use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, StatusCode, header, redirect::Policy};
use secrecy::SecretString;
use url::{Host, Url};

pub use address::{Allowed, is_private};
pub use sign::signature;

/// How long one attempt may take, name look-up included.
const TIMEOUT: Duration = Duration::from_secs(15);
/// So much of an answer is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Where a hook goes and what it is signed with.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: Url,
    /// `whsec_` and base64, or any text: see [`signature`].
    pub secret: SecretString,
    /// Private networks that may be reached all the same.
    pub allowed: Allowed,
}

/// What the other side said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub status: u16,
    /// The beginning of its answer, for the delivery log.
    pub answer: String,
}

/// Why it did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Url(String),
    #[error("the address {0} is private and not among those allowed")]
    Forbidden(std::net::IpAddr),
    #[error("the name {0} has no address")]
    NoAddress(String),
    #[error("the other side answered {status}")]
    Refused { status: u16, answer: String },
    #[error("the other side did not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("the other side could not be reached: {0}")]
    Connection(String),
}

impl Error {
    /// Would trying again change nothing?
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_) | Self::Forbidden(_) => true,
            // Gone for good, by its own words.
            Self::Refused { status, .. } => *status == 410,
            Self::NoAddress(_) | Self::Timeout | Self::Connection(_) => false,
        }
    }
}

/// May this be a target? Says what is wrong with it before anything is sent: scheme, log-in, host.
pub fn check_url(url: &Url, allowed: &Allowed) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Url(why.to_owned()));
    match url.scheme() {
        "https" => {}
        "http" if !allowed.is_empty() => {}
        "http" => return wrong("a hook goes to https:// only, except to networks that are allowed by name"),
        _ => return wrong("a hook goes to https:// only"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("a hook's address carries no log-in; the signature says who sends it");
    }
    let literal = match url.host() {
        None => return wrong("the address names no host"),
        Some(Host::Domain(_)) => return Ok(()),
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
    };
    if allowed.may(literal) { Ok(()) } else { Err(Error::Forbidden(literal)) }
}

/// Sends `body` once. `id` names the message: the other side forgets what it had already.
pub async fn send(target: &Target, id: &str, body: &str) -> Result<Delivered, Error> {
    tokio::time::timeout(TIMEOUT, attempt(target, id, body)).await.unwrap_or(Err(Error::Timeout))
}

async fn attempt(target: &Target, id: &str, body: &str) -> Result<Delivered, Error> {
    check_url(&target.url, &target.allowed)?;
    let addresses = resolve(&target.url, &target.allowed).await?;
    let timestamp = chrono::Utc::now().timestamp();
    let signature = signature(&target.secret, id, timestamp, body);
    let mut client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")));
    if let Some(Host::Domain(name)) = target.url.host() {
        // Connected to what was checked, whatever the name means by then.
        client = client.resolve_to_addrs(name, &addresses);
    }
    let client = client.build().map_err(|error| Error::Connection(reasons(&error)))?;
    let mut response = client
        .post(target.url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.to_owned())
        .send()
        .await
        .map_err(|error| Error::Connection(reasons(&error)))?;
    let status = response.status();
    let mut answer = Vec::new();
    while answer.len() < LONGEST_ANSWER
        && let Ok(Some(piece)) = response.chunk().await
    {
        answer.extend_from_slice(&piece[..piece.len().min(LONGEST_ANSWER - answer.len())]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    judge(status, answer)
}

fn judge(status: StatusCode, answer: String) -> Result<Delivered, Error> {
    let code = status.as_u16();
    if status.is_success() {
        Ok(Delivered { status: code, answer })
    } else {
        Err(Error::Refused { status: code, answer })
    }
}

/// The addresses of the target's name: all of them allowed, or none is used.
async fn resolve(url: &Url, allowed: &Allowed) -> Result<Vec<SocketAddr>, Error> {
    let port = url.port_or_known_default().unwrap_or(443);
    let Some(Host::Domain(name)) = url.host() else { return Ok(Vec::new()) };
    let found = tokio::net::lookup_host((name, port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|_| Error::NoAddress(name.to_owned()))?.collect();
    if addresses.is_empty() {
        return Err(Error::NoAddress(name.to_owned()));
    }
    match addresses.iter().find(|address| !allowed.may(address.ip())) {
        Some(forbidden) => Err(Error::Forbidden(forbidden.ip())),
        None => Ok(addresses),
    }
}

/// An error and what caused it, without the address, which may carry a secret in its path.
fn reasons(error: &reqwest::Error) -> String {
    let mut reasons = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        reasons.push(next.to_string());
        cause = next.source();
    }
    if reasons.is_empty() { "the request failed".to_owned() } else { reasons.join(": ") }
}

#[cfg(test)]
mod tests;
