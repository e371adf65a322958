//! `/sessions`: logging in and out, and who is logged in.
//!
//! Keeps true: a log-in gets a new secret, whatever the request carried; whatever is wrong with it, the answer is the same.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use understudy_database::{
    account::{self, Proof},
    audit, session,
};
use understudy_protocol::{Digest, TenantId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::me::{self, Me},
    auth::{Caller, Role},
    caller::{self, Acting, By},
    error::{ApiError, Kind, Problem, Result},
    extract::{Body, Name, Params},
    login::matching_step,
    state::Api,
};

/// Of the browser's own description of itself, so much is kept.
const LONGEST_AGENT: usize = 200;
/// Names longer than any account's are not even looked up.
const LONGEST_NAME: usize = 100;

/// Logging in: the one write that needs nobody known.
pub(crate) fn open_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(log_in))
}

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end))
}

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ann", "password": "correct horse battery"}))]
pub(crate) struct LogIn {
    name: String,
    #[schema(value_type = String)]
    password: SecretString,
    /// Six digits of the second factor, or one of the recovery codes, where the account has them.
    #[serde(default)]
    code: Option<String>,
}

/// Somebody is logged in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    session_id: Uuid,
    user: String,
    /// From where.
    address: String,
    /// What the browser says it is.
    agent: String,
    created_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    /// At the latest; half an hour without use ends it too.
    expires_at: DateTime<Utc>,
    /// The one that asks.
    is_own: bool,
}

/// Those that are logged in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sessions {
    items: Vec<Session>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Everybody's of the tenant; for administrators.
    all: Option<bool>,
}

/// Logs in. The answer sets the session's cookie.
#[utoipa::path(post, path = "/api/v1/sessions", tag = "sessions", request_body = LogIn, security(()),
    responses((status = 201, body = Me), (status = 401, body = Problem,
        description = "`second_factor_required` where only the code lacks; otherwise the same answer, whatever is wrong"),
        (status = 429, body = Problem)))]
async fn log_in(State(api): State<Api>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    caller::check_origin(&parts)?;
    let Body(wanted): Body<LogIn> = Body::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let address = address_of(&parts);
    limited(api.login.limits.lock().map(|mut limits| limits.log_in(&wanted.name, address)))?;
    let known = match wanted.name.len() <= LONGEST_NAME && !wanted.name.contains('\0') {
        true => account::proof(&api.pool, &wanted.name).await?.filter(|proof| !proof.is_disabled),
        false => None,
    };
    let kept = known.as_ref().and_then(|proof| proof.password.clone());
    let is_right = api.login.passwords.is(wanted.password.expose_secret().to_owned(), kept).await?;
    let Some(known) = known else { return Err(wrong()) };
    if !is_right {
        return refuse(&api, &known, "password", address).await;
    }
    if let Some(sealed) = &known.second_factor {
        let Some(code) = wanted.code.as_deref().filter(|code| !code.trim().is_empty()) else {
            return Err(ApiError::new(
                Kind::SecondFactor,
                "this account has a second factor",
                "send the six digits your app shows as `code`, or a recovery code",
            ));
        };
        limited(api.login.limits.lock().map(|mut limits| limits.code(known.account_id)))?;
        let secret = api.login.seal.open(known.account_id, sealed)?;
        if !is_code(&api, known.account_id, &secret, code).await? {
            return refuse(&api, &known, "code", address).await;
        }
    }
    begin(&api, &parts, known, address).await
}

/// Begins the session of somebody who proved who they are, and ends the one whose cookie the request carried.
async fn begin(api: &Api, parts: &Parts, known: Proof, address: Option<IpAddr>) -> Result<Response> {
    let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let digest = Digest::of(secret.as_bytes());
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent: String = agent.chars().take(LONGEST_AGENT).collect();
    let tenant = TenantId(known.tenant_id);
    let who = format!("user {}", known.name);
    let mut transaction = Acting::begin(api, tenant, &who, "").await?;
    if let Some(old) = caller::cookie(parts, caller::cookie_name(api.is_https)) {
        let old = session::live(&mut *transaction, &Digest::of(old.as_bytes())).await?;
        if let Some(old) = old {
            let (tenant, account) = (TenantId(old.tenant_id), Some(old.account_id));
            session::end(&mut *transaction, tenant, account, old.session_id).await?;
        }
    }
    session::begin(&mut *transaction, known.account_id, &digest, &address, &agent).await?;
    account::logged_in(&mut *transaction, known.account_id).await?;
    let from = json!({"address": address}).to_string();
    audit::record(&mut *transaction, tenant, &who, "log-in", &known.name, Some(&from)).await?;
    transaction.commit().await?;

    let live = session::live(&api.pool, &digest).await?.ok_or_else(ApiError::unauthorized)?;
    let caller = Caller::of_session(live, digest);
    let me = me::shown(api, &caller, Some(caller::csrf_of(&secret))).await?;
    let cookie = cookie(api, &secret, session::LONGEST.as_secs())?;
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(me)).into_response())
}

/// Notes a log-in that failed, and answers as to whoever has no account at all.
async fn refuse<T>(api: &Api, known: &Proof, what: &str, address: Option<IpAddr>) -> Result<T> {
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    let (tenant, detail) = (TenantId(known.tenant_id), json!({"address": address, "wrong": what}).to_string());
    let mut transaction = Acting::begin(api, tenant, "somebody", "").await?;
    audit::record(&mut *transaction, tenant, "somebody", "log-in refused", &known.name, Some(&detail)).await?;
    transaction.commit().await?;
    Err(wrong())
}

fn wrong() -> ApiError {
    ApiError::new(
        Kind::Unauthorized,
        "name, password or code is wrong",
        "try again; an administrator can give the account another password with `understudy user passwd NAME`",
    )
}

/// Whether a code is the second factor's of now, or a recovery code. Each works once.
pub(crate) async fn is_code(api: &Api, account_id: i64, secret: &[u8], code: &str) -> Result<bool> {
    if let Some(step) = matching_step(secret, code, Utc::now().timestamp()) {
        return Ok(account::use_step(&api.pool, account_id, step).await?);
    }
    Ok(account::use_recovery_code(&api.pool, account_id, &me::recovery_digest(code)).await?)
}

pub(crate) fn limited<E>(tried: std::result::Result<std::result::Result<(), std::time::Duration>, E>) -> Result<()> {
    // A poisoned lock means that a thread panicked while it counted: nobody gets in until a restart.
    let wait = match tried {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(wait)) => wait.as_secs() + 1,
        Err(_) => 60,
    };
    Err(ApiError::new(
        Kind::TooMany,
        format!("there were {} log-ins within a minute", crate::login::TRIES),
        format!("wait {wait} seconds and try again"),
    )
    .retry_after(wait))
}

/// From where the request comes; what a proxy on this machine says of it.
fn address_of(parts: &Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if peer.is_some_and(|peer| !peer.to_canonical().is_loopback()) {
        return peer;
    }
    let mut forwarded = parts.headers.get_all("x-forwarded-for").into_iter().filter_map(|value| value.to_str().ok());
    // The last is what the nearest proxy saw itself; the others are hearsay.
    let nearest = forwarded.next_back().and_then(|value| value.rsplit(',').next());
    let nearest = nearest.and_then(|text| text.trim().parse().ok());
    nearest.or(peer)
}

fn cookie(api: &Api, secret: &str, seconds: u64) -> Result<HeaderValue> {
    let secure = if api.is_https { "; Secure" } else { "" };
    let name = caller::cookie_name(api.is_https);
    let text = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).map_err(|error| anyhow::Error::from(error).into())
}

/// Who is logged in: oneself, and for administrators everybody of the tenant.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions", params(ListParams),
    responses((status = 200, body = Sessions)))]
async fn list(State(api): State<Api>, caller: Caller, Params(params): Params<ListParams>) -> Result<Json<Sessions>> {
    let own = match (caller.account_id(), params.all.unwrap_or(false)) {
        (_, true) if caller.role == Role::Administrator => None,
        (_, true) => {
            return Err(ApiError::new(
                Kind::Forbidden,
                "only administrators see other people's sessions",
                "leave `all` out to see your own",
            ));
        }
        // A token has no sessions.
        (account, false) => Some(account.unwrap_or_default()),
    };
    let tenant = if own.is_some() { caller.home } else { caller.tenant };
    let sessions = session::list(&api.pool, tenant, own).await?;
    let current = if let By::Session { session_id, .. } = caller.by { Some(session_id) } else { None };
    let items = sessions.into_iter().map(|session| Session {
        is_own: Some(session.session_id) == current,
        session_id: session.session_id,
        user: session.account,
        address: session.address,
        agent: session.agent,
        created_at: session.created_at,
        seen_at: session.seen_at,
        expires_at: session.expires_at,
    });
    Ok(Json(Sessions { items: items.collect() }))
}

/// Ends a session: one's own (`current` is the one that asks), and for administrators anybody's of the tenant.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn end(State(api): State<Api>, caller: Caller, Name(id): Name) -> Result<Response> {
    let current = if let By::Session { session_id, .. } = caller.by { Some(session_id) } else { None };
    let wanted = if id == "current" { current } else { id.parse().ok() };
    let is_administrator = caller.role == Role::Administrator;
    let mut transaction = caller.begin(&api, "").await?;
    let ended = match wanted {
        None => false,
        Some(wanted) if is_administrator && Some(wanted) != current => {
            session::end(&mut *transaction, caller.tenant, None, wanted).await?
        }
        Some(wanted) => {
            let own = Some(caller.account_id().unwrap_or_default());
            session::end(&mut *transaction, caller.home, own, wanted).await?
        }
    };
    if !ended {
        return Err(ApiError::not_found("session", &id, None, "`GET /api/v1/sessions` lists them"));
    }
    let text = wanted.map(|wanted| wanted.to_string()).unwrap_or_default();
    audit::record(&mut *transaction, caller.tenant, &caller.name, "log-out", &text, None).await?;
    transaction.commit().await?;
    if wanted != current {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(&api, "", 0)?)]).into_response())
}
