//! The REST API as the commands use it, over the local socket or the network.
//!
//! In: `UNDERSTUDY_URL` and `UNDERSTUDY_TOKEN`, or the socket under the configured `data_dir`. Out: JSON, or a [`Failure`]
//! with the server's own reason and remedy.
//! Keeps true: a POST carries an idempotency key, so that sending it again after a broken connection does nothing twice.

mod problem;
mod run;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::config;
use crate::failure::{Failure, Result};

pub(crate) use problem::{Problem, ProblemItem};
pub(crate) use run::Run;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the API holds a request open.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How often a request is sent when its connection breaks, as it does while a role starts again.
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);
/// Rows asked for at once.
const PAGE: &str = "1000";

/// A way to the REST API of a running Understudy.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    /// Where that is, for people.
    place: String,
    local: bool,
}

/// An answer: whether something new was made, and what it says.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Client {
    /// The API that the environment names, or that of the `up` which runs on this machine with the same configuration.
    pub(crate) fn open(given_config: Option<&Path>) -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let token = set("UNDERSTUDY_TOKEN").map(|token| token.trim().to_owned());
        if let Some(url) = set("UNDERSTUDY_URL") {
            return Self::over_network(&url, token);
        }
        let config = config::load(given_config)?.config;
        match Self::over_socket(config.admin_socket()) {
            // Not root, but with a token: the network door of the same machine is as good.
            Err(_) if token.is_some() => Self::over_network(&format!("http://{}", config.admin_listen), token),
            client => client,
        }
    }

    fn over_network(url: &str, token: Option<String>) -> Result<Self> {
        let wrong = |why: String| {
            Failure::usage(
                format!("UNDERSTUDY_URL \"{url}\" cannot be used"),
                why,
                "set it to the web address that `understudy up` prints, such as http://127.0.0.1:8080",
            )
        };
        let base = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong(format!("its scheme is {}://", base.scheme())));
        }
        Self::build(reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT), base, token, url.to_owned(), false)
    }

    /// The API of the Understudy whose local socket this is.
    pub(crate) fn over_socket(socket: PathBuf) -> Result<Self> {
        // Tried here because the reason decides what to advise.
        if let Err(error) = UnixStream::connect(&socket) {
            let what = "no running Understudy can be reached on this machine";
            let why = format!("its socket {}: {error}", socket.display());
            return Err(match error.kind() {
                std::io::ErrorKind::PermissionDenied => Failure::new(
                    what,
                    why,
                    "run this command as the user that runs `understudy up` (sudo), or set UNDERSTUDY_URL and UNDERSTUDY_TOKEN",
                ),
                _ => Failure::new(
                    what,
                    why,
                    "start it with `understudy up`, name its configuration with --config, or set UNDERSTUDY_URL and UNDERSTUDY_TOKEN",
                ),
            });
        }
        let place = socket.display().to_string();
        let base = Url::parse("http://localhost").map_err(|error| unusable(&error))?;
        Self::build(reqwest::Client::builder().unix_socket(socket), base, None, place, true)
    }

    fn build(
        builder: reqwest::ClientBuilder,
        base: Url,
        token: Option<String>,
        place: String,
        local: bool,
    ) -> Result<Self> {
        let agent = concat!("understudy-cli/", env!("CARGO_PKG_VERSION"));
        let http = builder.user_agent(agent).build().map_err(|error| unusable(&error))?;
        Ok(Self { http, base, token, place, local })
    }

    /// Whether files named here are those the gateways see.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    /// The route made of `segments`, each escaped as it needs.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        url
    }

    pub(crate) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        Ok(self.send(Method::GET, segments, query, None).await?.body)
    }

    /// What is there as `T`, and as it was said.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(T, Value)> {
        let value = self.get(segments, query).await?;
        Ok((decode(&value)?, value))
    }

    /// Every item of a list, page by page.
    pub(crate) async fn list(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let mut page = self.get(segments, &query).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
    }

    pub(crate) async fn post(&self, segments: &[&str], query: &[(&str, &str)], body: &Value) -> Result<Answer> {
        self.send(Method::POST, segments, query, Some(body)).await
    }

    pub(crate) async fn patch(&self, segments: &[&str], query: &[(&str, &str)], body: &Value) -> Result<Answer> {
        self.send(Method::PATCH, segments, query, Some(body)).await
    }

    pub(crate) async fn put(&self, segments: &[&str], query: &[(&str, &str)], body: &Value) -> Result<Answer> {
        self.send(Method::PUT, segments, query, Some(body)).await
    }

    pub(crate) async fn delete(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::DELETE, segments, query, None).await
    }

    /// A response that goes on, such as the events; resumed after `last_event` if there was one.
    pub(crate) async fn stream(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        last_event: Option<&str>,
    ) -> Result<reqwest::Response> {
        let mut request = self.request(Method::GET, segments, query).header("accept", "text/event-stream");
        if let Some(id) = last_event {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refused(response).await),
        }
    }

    async fn send(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let key = uuid::Uuid::new_v4().to_string();
        let mut attempt = 1;
        let response = loop {
            let mut request = self.request(method.clone(), segments, query).timeout(REQUEST_TIMEOUT);
            if let Some(body) = body {
                request = request.json(body);
            }
            if method == Method::POST {
                request = request.header("idempotency-key", &key);
            }
            match request.send().await {
                Ok(response) => break response,
                Err(error) if attempt < ATTEMPTS && !error.is_timeout() && !error.is_builder() => attempt += 1,
                Err(error) => return Err(self.unreachable(&error)),
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        };
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response).await);
        }
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|error| not_ours(&self.place, &error.to_string()))?,
        };
        Ok(Answer { status, body })
    }

    fn request(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = innermost(error);
        let remedy = if error.is_timeout() {
            "look at the log of `understudy up`; the database may be overloaded"
        } else {
            "check that `understudy up` runs there and that the address is right"
        };
        Failure::new(format!("Understudy at {} did not answer", self.place), cause, remedy)
    }

    async fn refused(&self, response: reqwest::Response) -> Failure {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.into_failure(status),
            Err(_) => not_ours(&self.place, &format!("it answered {status} without saying why")),
        }
    }
}

/// A JSON answer as the type a command works with.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| {
        Failure::new(
            "the answer of the server was not understood",
            error.to_string(),
            "use an `understudy` program of the same version as the server",
        )
    })
}

fn not_ours(place: &str, why: &str) -> Failure {
    Failure::new(
        format!("what answers at {place} does not speak Understudy's API"),
        why,
        "check UNDERSTUDY_URL; a proxy in between must pass /api/v1 unchanged",
    )
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    Failure::new("the connection could not be prepared", innermost(error), "report this, please")
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
