//! A Dovecot's management interface: its doveadm HTTP API.
//!
//! In: commands, as many as one likes in one request. Out: one answer for each, in order.
//! Keeps true: a command counts as done only when the server answered it by its own tag; every wait ends.
//! Not here: when to use it.

mod error;
mod mailbox;
mod proxy;

pub use error::{Error, Result};
pub use mailbox::MailboxUpdate;
pub use proxy::ProxySession;

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take, once the request has gone out. Commands wait for locks of the mailbox.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most commands sent in one request.
const MAX_COMMANDS: usize = 500;
/// The longest answer taken, in bytes: `proxyList` of a busy proxy is long.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The path below which the API answers; version 1 is the only one.
const PATH: &str = "/doveadm/v1";

/// One command, as the API spells it: `mailboxUpdate`, with its parameters. Types are strict: numbers are strings, a
/// mailbox is a string and not a list, and some get it wrong at the price of the process. `GET /doveadm/v1` lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub command: &'static str,
    pub parameters: Value,
}

impl Call {
    #[must_use]
    pub fn new(command: &'static str, parameters: Value) -> Self {
        Self { command, parameters }
    }
}

/// What the server made of one command: its rows, or why not.
pub type Answer = Result<Value>;

/// The management interface of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doveadm {
    client: Client,
    url: Url,
    /// Host and port, for people.
    server: String,
}

impl Doveadm {
    /// `url` is the server's base URL, with or without `/doveadm/v1`. With `ca_file` only its certificates are trusted,
    /// otherwise the system's.
    pub fn new(url: &str, key: &SecretString, ca_file: Option<&Path>) -> Result<Self> {
        let url = endpoint(url)?;
        let mut authorization = STANDARD.encode(key.expose_secret());
        authorization.insert_str(0, "X-Dovecot-API ");
        let mut authorization = header::HeaderValue::from_str(&authorization).map_err(|_| Error::Key)?;
        authorization.set_sensitive(true);
        let trust = understudy_imap_session::trust(ca_file)
            .map_err(|source| Error::CaFile { path: ca_file.map(Path::to_owned), source })?;
        let client = Client::builder()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(PATIENCE)
            .tcp_nodelay(true)
            // The server closes after each answer (Dovecot 2.3), so a kept connection is only ever found dead.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .default_headers([(header::AUTHORIZATION, authorization)].into_iter().collect())
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&trust))
            .build()
            .map_err(Error::Client)?;
        let host = url.host_str().unwrap_or_default();
        let server = url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { client, url, server })
    }

    /// As [`Self::new`], with the key that is the first line of a file.
    pub async fn open(url: &str, key_file: &Path, ca_file: Option<&Path>) -> Result<Self> {
        let unusable = |source| Error::KeyFile { path: key_file.to_owned(), source };
        let text = SecretString::from(tokio::fs::read_to_string(key_file).await.map_err(unusable)?);
        let key = match text.expose_secret().lines().next() {
            Some(line) if !line.is_empty() => SecretString::from(line),
            _ => return Err(unusable(std::io::ErrorKind::UnexpectedEof.into())),
        };
        Self::new(url, &key, ca_file)
    }

    /// Sends commands and answers what became of each, in their order. They are carried out one after the other; one
    /// that fails stops no other.
    pub async fn call(&self, calls: &[Call]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(calls.len());
        for calls in calls.chunks(MAX_COMMANDS) {
            answers.extend(self.request(calls).await?);
        }
        Ok(answers)
    }

    /// Sends one command.
    pub async fn call_one(&self, call: Call) -> Result<Value> {
        let answers = self.call(&[call]).await?;
        answers.into_iter().next().unwrap_or(Err(Error::Answer("it answered nothing")))
    }

    /// Raises numbers of mailboxes, and answers for each whether that was done.
    pub async fn mailbox_update(&self, updates: &[MailboxUpdate]) -> Result<Vec<Result<()>>> {
        let calls: Vec<Call> = updates.iter().map(MailboxUpdate::call).collect();
        Ok(self.call(&calls).await?.into_iter().map(|answer| answer.map(drop)).collect())
    }

    /// All users of the server's user database, where that can list them.
    pub async fn users(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Listed {
            user_list: Vec<String>,
        }
        let answer = self.call_one(Call::new("user", json!({ "userMask": ["*"] }))).await?;
        let Listed { user_list } =
            serde_json::from_value(answer).map_err(|_| Error::Answer("its list of users is no list"))?;
        Ok(user_list)
    }

    /// The commands that the server offers: shows that it answers and takes the key, and changes nothing.
    pub async fn commands(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Offered {
            command: String,
        }
        let body = self.send(self.client.get(self.url.clone())).await?;
        // Dovecot's own list of itself ends in a comma, which is no JSON.
        let text = String::from_utf8_lossy(&body);
        let text = text.trim_end().trim_end_matches(']').trim_end().trim_end_matches(',');
        let offered: Vec<Offered> =
            serde_json::from_str(&format!("{text}]")).map_err(|_| Error::Answer("its list of commands is no list"))?;
        Ok(offered.into_iter().map(|offered| offered.command).collect())
    }

    async fn request(&self, calls: &[Call]) -> Result<Vec<Answer>> {
        let commands: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(tag, call)| json!([call.command, call.parameters, tag.to_string()]))
            .collect();
        let body = self.send(self.client.post(self.url.clone()).json(&commands)).await?;
        let spoken: Vec<Spoken> =
            serde_json::from_slice(&body).map_err(|_| Error::Answer("its answer is not what the API promises"))?;
        if spoken.len() != calls.len() {
            return Err(Error::Answer("it did not answer every command"));
        }
        spoken.into_iter().zip(calls).enumerate().map(|(tag, (spoken, call))| spoken.answer(tag, call)).collect()
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>> {
        let failed = |source: reqwest::Error| {
            let server = self.server.clone();
            match source.is_timeout() && !source.is_connect() {
                true => Error::Timeout { server },
                false => Error::Unreachable { server, source },
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Error::KeyRefused { server: self.server.clone() });
            }
            status => return Err(Error::Status { server: self.server.clone(), status: status.as_u16() }),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::Answer("its answer is longer than any should be"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// One answer as it is written: `["doveadmResponse" or "error", rows or why, tag]`.
#[derive(Deserialize)]
struct Spoken(String, Value, String);

impl Spoken {
    fn answer(self, tag: usize, call: &Call) -> Result<Answer> {
        let Self(kind, value, spoken_tag) = self;
        if spoken_tag != tag.to_string() {
            return Err(Error::Answer("it answered commands in another order"));
        }
        Ok(match kind.as_str() {
            "doveadmResponse" => Ok(value),
            "error" => Err(Error::Refused {
                command: call.command,
                kind: value.get("type").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
                exit_code: value.get("exitCode").and_then(Value::as_i64).unwrap_or_default(),
            }),
            _ => Err(Error::Answer("it answered something that the API does not know")),
        })
    }
}

fn endpoint(url: &str) -> Result<Url> {
    let refuse = |reason| Error::Url { reason };
    let mut parsed = Url::parse(url).map_err(|_| refuse("it is no URL"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refuse("it must begin with https:// or http://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refuse("the key belongs into its file"));
    }
    if matches!(parsed.path(), "" | "/") {
        parsed.set_path(PATH);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_may_leave_out_the_path() {
        let spelled = |url| endpoint(url).map(|url| url.to_string()).map_err(|error| error.to_string());
        assert_eq!(spelled("https://dr-1:8080").as_deref(), Ok("https://dr-1:8080/doveadm/v1"));
        assert_eq!(spelled("http://dr-1:8080/").as_deref(), Ok("http://dr-1:8080/doveadm/v1"));
        assert_eq!(spelled("http://dr-1/x/doveadm/v1").as_deref(), Ok("http://dr-1/x/doveadm/v1"));
        assert!(spelled("imap://dr-1").is_err());
        assert!(spelled("http://key@dr-1").is_err());
    }

    #[test]
    fn answers_belong_to_their_commands() {
        let call = Call::new("mailboxUpdate", json!({}));
        let spoken = |text: &str| serde_json::from_str::<Spoken>(text).expect("an answer").answer(0, &call);
        assert_eq!(spoken(r#"["doveadmResponse",[],"0"]"#).ok().and_then(Result::ok), Some(json!([])));
        let refused = spoken(r#"["error",{"type":"exitCode","exitCode":68},"0"]"#).expect("an answer");
        assert!(matches!(refused, Err(Error::Refused { exit_code: 68, .. })));
        assert!(spoken(r#"["doveadmResponse",[],"1"]"#).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let doveadm = Doveadm::new("http://127.0.0.1:1", &"very-secret".into(), None).expect("a client");
        let shown = format!("{doveadm:?}");
        assert!(!shown.contains("very-secret") && !shown.contains(&STANDARD.encode("very-secret")), "{shown}");
    }
}
