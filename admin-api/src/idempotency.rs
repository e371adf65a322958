//! `Idempotency-Key`: the same POST sent twice is carried out once and answered twice.
//!
//! Keeps true: only successes are kept, and never a secret; a key that comes with another request is refused. Requests are compared by
//! a digest under a key that is not in the database, for what somebody puts where no password belongs.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::time::MissedTickBehavior;
use tracing::warn;
use understudy_database::idempotency::{self, Answer, Claim};
use understudy_protocol::{Digest, TenantId};

use crate::{
    caller::Caller,
    error::{ApiError, Kind, Result},
    extract::whole,
    state::Api,
};

/// The header that carries the key.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that marks an answer given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key.
const LONGEST_KEY: usize = 255;
/// Routes whose bodies hold a password: not even a digest of one is kept, from which it could be guessed.
const WITH_PASSWORD: &[&str] = &[
    "/api/v1/users",
    "/api/v1/users/{name}/password",
    "/api/v1/me/second-factor",
    "/api/v1/me/second-factor/confirm",
    "/api/v1/me/second-factor/remove",
];
/// How often old answers are cleared away.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

/// Says that a field of the answer is shown once and must not be kept.
#[derive(Clone, Copy)]
pub(crate) struct ShownOnce(pub(crate) &'static str);

/// Carries out a POST with a key at most once.
pub(crate) async fn once(State(api): State<Api>, caller: Caller, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if request.method() != Method::POST || !request.headers().contains_key(&KEY) || WITH_PASSWORD.contains(&route) {
        return next.run(request).await;
    }
    keyed(&api, &caller, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn keyed(api: &Api, caller: &Caller, request: Request, next: Next) -> Result<Response> {
    let key = key_of(&request)?;
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let digest = digest_of(api.login.seal.hasher(), &caller.name, &parts.uri.to_string(), &body);
    let claim = idempotency::claim(&mut *api.pool.acquire().await?, caller.tenant, &key, &digest).await?;
    match claim {
        Claim::Answered(answer) => Ok(replay(answer)),
        Claim::Busy => Err(ApiError::new(
            Kind::IdempotencyBusy,
            "a request with this key is being carried out",
            "wait a moment and send it again to hear the answer",
        )),
        Claim::OtherRequest => Err(ApiError::new(
            Kind::IdempotencyMismatch,
            "this Idempotency-Key came with another request before",
            "use a fresh key for each new request",
        )),
        Claim::New => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            conclude(api, caller.tenant, &key, response).await
        }
    }
}

/// Keeps the answer for the next time, or gives the key back when nothing was done.
async fn conclude(api: &Api, tenant: TenantId, key: &str, response: Response) -> Result<Response> {
    if !response.status().is_success() {
        idempotency::release(&api.pool, tenant, key).await?;
        return Ok(response);
    }
    let shown_once = response.extensions().get::<ShownOnce>().copied();
    let (parts, body) = response.into_parts();
    let body = whole(body).await?;
    let mut kept: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if let (Some(ShownOnce(field)), Some(fields)) = (shown_once, kept.as_object_mut()) {
        fields.insert(field.to_owned(), Value::Null);
    }
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = Answer { status: i32::from(parts.status.as_u16()), response: kept, location };
    idempotency::keep(&api.pool, tenant, key, &answer).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn key_of(request: &Request) -> Result<String> {
    let key = request.headers().get(&KEY).and_then(|value| value.to_str().ok()).map(str::trim).unwrap_or_default();
    if key.is_empty() || key.len() > LONGEST_KEY {
        return Err(ApiError::new(
            Kind::Malformed,
            format!("an Idempotency-Key has 1 to {LONGEST_KEY} visible characters"),
            "use a random UUID",
        ));
    }
    Ok(key.to_owned())
}

fn digest_of(mut hasher: blake3::Hasher, caller: &str, uri: &str, body: &[u8]) -> Digest {
    hasher.update(&(caller.len() as u64).to_be_bytes()).update(caller.as_bytes());
    hasher.update(&(uri.len() as u64).to_be_bytes()).update(uri.as_bytes()).update(body);
    hasher.finalize().into()
}

fn replay(answer: Answer) -> Response {
    let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::OK);
    let mut response = (status, axum::Json(answer.response)).into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = answer.location.and_then(|location| location.parse().ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Clears old answers away until shutdown.
pub(crate) async fn forget_old_answers(api: Api) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = api.shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = idempotency::forget_old(&api.pool).await {
            warn!(error = %error, "Old answers could not be cleared away; trying again in an hour");
        }
    }
}
