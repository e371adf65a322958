//! `/routes/nginx-auth`: what nginx's mail proxy asks before it passes a log-in on (`auth_http`).
//!
//! In: nginx's headers, its key among them. Out: where to, or why not, as headers; no answer while the route is on hold.
//! Keeps true: an answer is the truth of the database at that moment, and only while that is away the last one; passwords
//! are neither looked at nor kept: the mail server behind checks them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use understudy_database::{
    Error,
    route::{self, Target, Tls},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{config::NginxConfig, state::Api};

/// How long a log-in is held back before it is refused for now: below nginx's `auth_http_timeout` of 60 s.
const LONGEST_HOLD: Duration = Duration::from_secs(45);
/// How often a held log-in looks by itself.
const LOOK: Duration = Duration::from_secs(2);
/// How long the database may take; then the last answer is given.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many last answers are kept.
const REMEMBERED: usize = 200_000;
/// Seconds that nginx makes a client wait after a refusal that will not change.
const WAIT: &str = "2";

const AUTH_STATUS: HeaderName = HeaderName::from_static("auth-status");
const AUTH_SERVER: HeaderName = HeaderName::from_static("auth-server");
const AUTH_PORT: HeaderName = HeaderName::from_static("auth-port");
const AUTH_USER: HeaderName = HeaderName::from_static("auth-user");
const AUTH_WAIT: HeaderName = HeaderName::from_static("auth-wait");
const AUTH_ERROR_CODE: HeaderName = HeaderName::from_static("auth-error-code");
/// For a cache in nginx: kept for when we do not answer, and asked again each time until then.
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(nginx_auth))
}

/// What the answers rest on.
pub(crate) struct Nginx {
    key_digest: blake3::Hash,
    plaintext: bool,
    /// The last answer by log-in and protocol.
    last: Mutex<HashMap<(String, String), Target>>,
}

impl From<NginxConfig> for Arc<Nginx> {
    fn from(config: NginxConfig) -> Self {
        Self::new(Nginx {
            key_digest: blake3::hash(config.key.expose_secret().as_bytes()),
            plaintext: config.plaintext,
            last: Mutex::default(),
        })
    }
}

impl Nginx {
    fn remember(&self, question: &Question, target: &Target) {
        if target.special {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (question.login.clone(), question.protocol.clone());
        if last.len() < REMEMBERED || last.contains_key(&key) {
            last.insert(key, target.clone());
        }
    }

    fn last(&self, question: &Question) -> Option<Target> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&(question.login.clone(), question.protocol.clone())).cloned()
    }
}

/// Who wants in.
struct Question {
    login: String,
    /// `imap`, `pop3` or `smtp`.
    protocol: String,
    client: Option<String>,
}

impl Question {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let protocol = text("auth-protocol").unwrap_or("imap");
        Some(Self {
            login: decode(text("auth-user")?)?,
            protocol: protocol.to_owned(),
            client: text("client-ip").filter(|client| client.parse::<IpAddr>().is_ok()).map(str::to_owned),
        })
    }
}

/// Why nobody is let through.
#[derive(Clone, Copy)]
enum Refusal {
    /// Nobody is called so.
    Unknown,
    /// Not now: it changes sides.
    Held,
    /// Something is wrong here.
    Broken,
}

/// nginx's question where a log-in goes. Answers with headers, as `auth_http` wants them.
///
/// Needs the header `X-Auth-Key` with the secret of `[nginx] key_file` instead of a token. `Auth-User` names the log-in,
/// `Auth-Protocol` is `imap`, `pop3` or `smtp`, `Client-IP` the client. While the mailbox changes sides, the answer waits
/// for up to 45 s.
#[utoipa::path(get, path = "/api/v1/routes/nginx-auth", tag = "routes", security(()),
    responses(
        (status = 200, description = "Where to, or why not: `Auth-Status`, `Auth-Server`, `Auth-Port`, `Auth-User`, `Auth-Wait`, `Auth-Error-Code`"),
        (status = 403, description = "The key is wrong, or nginx may not ask"),
        (status = 503, description = "The database does not answer, and this log-in was not asked for before")))]
async fn nginx_auth(State(api): State<Api>, headers: HeaderMap) -> Response {
    let Some(nginx) = api.nginx.clone() else {
        warn!("nginx asks for routes, but the configuration has no [nginx] key_file");
        return StatusCode::FORBIDDEN.into_response();
    };
    let shown = headers.get("x-auth-key").map(HeaderValue::as_bytes).unwrap_or_default();
    // Digests compare in constant time.
    if blake3::hash(shown) != nginx.key_digest {
        warn!("Somebody asks for routes with a wrong X-Auth-Key");
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(question) = Question::of(&headers) else { return refused("imap", Refusal::Unknown) };
    match settle(&api, &nginx, &question).await {
        Ok(Ok(target)) => routed(&nginx, &question, &target).await,
        Ok(Err(refusal)) => refused(&question.protocol, refusal),
        Err(unanswered) => unanswered.into_response(),
    }
}

/// Where the log-in goes, once it is not on hold.
async fn settle(api: &Api, nginx: &Nginx, question: &Question) -> Result<Result<Target, Refusal>, StatusCode> {
    let deadline = Instant::now() + LONGEST_HOLD;
    loop {
        let mut news = api.news.subscribe();
        let looked = route::lookup(&api.pool, &question.login, &question.protocol, question.client.as_deref());
        let target = match tokio::time::timeout(PATIENCE, looked).await {
            Ok(Ok(Some(target))) => target,
            Ok(Ok(None)) => return Ok(Err(Refusal::Unknown)),
            Ok(Err(Error::Sql(sqlx::Error::Database(error)))) if !is_going_away(error.code().as_deref()) => {
                // Ambiguous, or the server has no address for this service: the text holds no log-in.
                warn!(error = %error, "A log-in through nginx cannot be routed");
                return Ok(Err(Refusal::Broken));
            }
            Ok(Err(_)) | Err(_) => {
                debug!("The database does not answer; nginx gets the last answer");
                return nginx.last(question).map(Ok).ok_or(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        let Some(mailbox) = target.mailbox.filter(|_| target.held) else {
            nginx.remember(question, &target);
            return Ok(Ok(target));
        };
        if Instant::now() >= deadline || api.shutdown.is_cancelled() {
            return Ok(Err(Refusal::Held));
        }
        let look = deadline.min(Instant::now() + LOOK);
        tokio::select! {
            // Either way the next look decides.
            _ = timeout_at(look, news.changed(mailbox.0)) => {}
            () = api.shutdown.cancelled() => {}
        }
    }
}

/// A database that is starting or stopping (class 57) is as good as none.
fn is_going_away(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("57") || code.starts_with("08"))
}

async fn routed(nginx: &Nginx, question: &Question, target: &Target) -> Response {
    let Some(address) = address_of(&target.host).await else {
        warn!(server.host = target.host, "The address of a mail server cannot be found, so nginx cannot reach it");
        return refused(&question.protocol, Refusal::Broken);
    };
    let Some(port) = port_of(nginx, question, target) else {
        warn!("nginx speaks to mail servers without TLS, and `plaintext = true` is not set under [nginx]");
        return refused(&question.protocol, Refusal::Broken);
    };
    let Ok(login) = HeaderValue::from_bytes(target.login.as_bytes()) else {
        return refused(&question.protocol, Refusal::Unknown);
    };
    let expires = if target.special { "0" } else { "@1" };
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(AUTH_STATUS, HeaderValue::from_static("OK"));
    headers.insert(AUTH_SERVER, text(address.to_string()));
    headers.insert(AUTH_PORT, text(port.to_string()));
    headers.insert(AUTH_USER, login);
    headers.insert(ACCEL_EXPIRES, HeaderValue::from_static(expires));
    response
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("addresses and numbers are plain text")
}

/// nginx takes addresses, not names.
async fn address_of(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let mut found = tokio::net::lookup_host((host, 0)).await.ok()?;
    found.next().map(|address| address.ip())
}

/// The port that takes the service in the clear; nginx's mail proxy cannot do TLS towards servers.
fn port_of(nginx: &Nginx, question: &Question, target: &Target) -> Option<u16> {
    let usual = match question.protocol.as_str() {
        "smtp" => 587,
        "pop3" => 110,
        _ => 143,
    };
    match target.tls {
        None => Some(target.port.unwrap_or(usual)),
        Some(_) if !nginx.plaintext => None,
        Some(Tls::StartTls) => Some(target.port.unwrap_or(usual)),
        Some(Tls::Ssl) => Some(usual),
    }
}

fn refused(protocol: &str, refusal: Refusal) -> Response {
    let (status, code, wait) = match refusal {
        Refusal::Unknown => ("Invalid login or password", "535 5.7.8", true),
        Refusal::Held => ("[UNAVAILABLE] The mailbox is being moved, try again in a moment", "451 4.3.2", false),
        Refusal::Broken => ("[UNAVAILABLE] The mailbox cannot be reached at the moment", "451 4.3.5", false),
    };
    // The bracketed word is IMAP's (RFC 5530).
    let status = if protocol == "imap" { status } else { status.trim_start_matches("[UNAVAILABLE] ") };
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(AUTH_STATUS, HeaderValue::from_static(status));
    headers.insert(ACCEL_EXPIRES, HeaderValue::from_static("0"));
    if protocol == "smtp" {
        headers.insert(AUTH_ERROR_CODE, HeaderValue::from_static(code));
    }
    if wait {
        headers.insert(AUTH_WAIT, HeaderValue::from_static(WAIT));
    }
    response
}

/// nginx writes spaces, per cents and controls as `%` and two hex digits; a plus is a plus.
fn decode(written: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let Some(hex) = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())
            && let Ok(value) = u8::from_str_radix(hex, 16)
        {
            bytes.push(value);
            rest = &after[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_is_read_as_nginx_writes_it() {
        assert_eq!(decode("ana+news@example.org").as_deref(), Some("ana+news@example.org"));
        assert_eq!(decode("a%20b%25%C3%BC").as_deref(), Some("a b%ü"));
        assert_eq!(decode("100%").as_deref(), Some("100%"));
        assert_eq!(decode("%FF"), None);
    }
}
