//! `/servers/{name}/health`: whether a mail server is there, as its observers find; and what a witness says of it.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_database::health;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::servers,
    auth::Caller,
    error::{ApiError, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    state::Api,
};

/// Hours of history shown when nobody says how many, and at most.
const HOURS: i64 = 6;
const MOST_HOURS: i64 = 30 * 24;
/// The longest name of an observer.
const LONGEST_NAME: usize = 64;
/// The gateways' own names; a witness has another.
const GATEWAYS: [&str; 2] = [RECOVERY, SOURCE];
const RECOVERY: &str = "recovery";
const SOURCE: &str = "source";

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(observe))
}

/// Whether a server is there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerHealth)]
pub(crate) struct Health {
    server: String,
    /// `up`, `suspect`, `down`, or `unknown` while nobody has looked.
    verdict: String,
    reason: String,
    since: Option<DateTime<Utc>>,
    /// What each observer says: `up`, `down`, `unsure` or `silent`.
    #[schema(value_type = Object)]
    votes: Value,
    /// Whether users reach it past the front doors; null until that was tried.
    fence: Option<Fence>,
    /// Oldest first.
    history: Vec<Minute>,
}

/// Whether users reach a primary past the front doors.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Fence {
    /// `holds`, `open` or `unknown`.
    state: String,
    reason: String,
    at: DateTime<Utc>,
}

/// What one observer found in one minute.
#[derive(Debug, Serialize, ToSchema)]
struct Minute {
    minute: DateTime<Utc>,
    observer: String,
    /// `quick` or `deep`.
    check: String,
    good: i32,
    bad: i32,
    seconds_mean: f64,
    seconds_max: f64,
    /// Why the last bad one failed.
    reason: String,
}

impl From<health::Minute> for Minute {
    fn from(minute: health::Minute) -> Self {
        let count = f64::from(minute.good + minute.bad).max(1.0);
        Self {
            minute: minute.minute,
            observer: minute.observer,
            check: minute.kind,
            good: minute.good,
            bad: minute.bad,
            seconds_mean: minute.seconds_sum / count,
            seconds_max: minute.seconds_max,
            reason: minute.reason,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HealthParams {
    /// How many hours of history; 6 unless said otherwise, at most 720.
    hours: Option<i64>,
}

/// Whether a mail server is there, and what was found of it lately.
#[utoipa::path(get, path = "/api/v1/servers/{name}/health", tag = "servers",
    params(("name" = String, Path), HealthParams),
    responses((status = 200, body = Health), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn health(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Params(params): Params<HealthParams>,
) -> Result<Json<Health>> {
    let hours = params.hours.unwrap_or(HOURS);
    if !(1..=MOST_HOURS).contains(&hours) {
        let detail = format!("`hours` is from 1 to {MOST_HOURS}");
        return Err(ApiError::invalid(vec![ProblemItem { detail, ..ProblemItem::default() }]));
    }
    let stored = servers::find(&api, &caller, &name).await?;
    let known = health::health(&api.pool, stored.server_id).await?.unwrap_or_default();
    let text = |key: &str, other: &str| known[key].as_str().unwrap_or(other).to_owned();
    let minutes = health::minutes(&api.pool, stored.server_id, Utc::now() - TimeDelta::hours(hours)).await?;
    Ok(Json(Health {
        server: stored.definition.name,
        verdict: text("verdict", "unknown"),
        reason: text("reason", "nobody has looked at it yet: servers are watched once a protected mailbox uses them"),
        since: serde_json::from_value(known["since"].clone()).ok(),
        votes: if known["votes"].is_object() { known["votes"].clone() } else { serde_json::json!({}) },
        fence: serde_json::from_value(known["fence"].clone()).ok(),
        history: minutes.into_iter().map(Minute::from).collect(),
    }))
}

/// What a witness saw.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"observer": "front-door-1", "up": false, "seconds": 2.5, "reason": "no greeting within two seconds"}))]
pub(crate) struct Seen {
    /// How the witness is named; not `recovery` or `source`.
    observer: String,
    up: bool,
    /// How long the look took.
    #[serde(default)]
    seconds: f64,
    /// Why it is down.
    #[serde(default)]
    reason: String,
}

/// A witness says whether a server answers. Said again and again: what is older than 15 seconds does not count.
#[utoipa::path(post, path = "/api/v1/servers/{name}/observations", tag = "servers", params(("name" = String, Path)),
    request_body = Seen,
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn observe(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(seen): Body<Seen>,
) -> Result<StatusCode> {
    let mut errors = Vec::new();
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if seen.observer.is_empty() || seen.observer.len() > LONGEST_NAME || !seen.observer.chars().all(known) {
        let detail = format!("an observer is named with 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.`");
        errors.push(ProblemItem::at("/observer", detail));
    }
    if GATEWAYS.contains(&seen.observer.as_str()) {
        errors.push(ProblemItem::at("/observer", "the gateways speak for themselves; name the witness otherwise"));
    }
    if !(0.0..=3600.0).contains(&seen.seconds) {
        errors.push(ProblemItem::at("/seconds", "it is from 0 to 3600"));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let stored = servers::find(&api, &caller, &name).await?;
    let reason: String = seen.reason.chars().take(500).collect();
    health::vote(&api.pool, stored.server_id, &seen.observer, seen.up, seen.seconds, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}
