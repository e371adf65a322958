//! `/me`: who asks, and what one may change about one's own account: the password and the second factor.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use understudy_database::{
    account::{self, Account},
    tenant,
};
use understudy_protocol::Digest;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::sessions::{is_code, limited},
    auth::{Caller, Role},
    caller::{self, By},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::Body,
    idempotency::ShownOnce,
    login::{Totp, password_problem, random_words},
    state::Api,
};

/// Recovery codes an account gets.
const CODES: usize = 10;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(set_password))
        .routes(routes!(offer))
        .routes(routes!(confirm))
        .routes(routes!(remove))
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The account's or the token's.
    #[schema(example = "ann")]
    name: String,
    role: Role,
    /// Whom one acts for.
    tenant: String,
    /// One belongs to the provider and may act for other tenants: `Understudy-Tenant: NAME`.
    is_provider: bool,
    /// Only the mailboxes of this group.
    group: Option<String>,
    /// Only this mailbox.
    mailbox: Option<String>,
    by: Means,
    /// Null unless logged in.
    session: Option<OwnSession>,
}

/// How one proved who one is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Means {
    Local,
    Token,
    Session,
}

/// What concerns whoever logged in.
#[derive(Debug, Serialize, ToSchema)]
struct OwnSession {
    session_id: Uuid,
    /// To be sent as `Understudy-Csrf` with everything but GET.
    csrf: String,
    /// The second factor is in force.
    second_factor: bool,
    recovery_codes_left: i64,
    last_login_at: Option<DateTime<Utc>>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current": "correct horse battery", "new": "staple of a different kind"}))]
pub(crate) struct NewPassword {
    #[schema(value_type = String)]
    current: SecretString,
    #[schema(value_type = String)]
    new: SecretString,
}

/// One's password, to show that it is oneself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"password": "correct horse battery"}))]
pub(crate) struct Oneself {
    #[schema(value_type = String)]
    password: SecretString,
}

/// What the app shows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "492039"}))]
pub(crate) struct Code {
    code: String,
}

/// A second factor to set up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Offer {
    /// Null when this answer is given again to the same `Idempotency-Key`.
    #[schema(value_type = Option<Setup>)]
    setup: Setup,
}

/// For the authenticator app.
#[derive(Debug, Serialize, ToSchema)]
struct Setup {
    /// To type in.
    secret: String,
    /// To show as a picture, or to open on the phone itself.
    uri: String,
}

/// The second factor is in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Confirmed {
    /// Each logs in once where the app is lost. Null when this answer is given again to the same `Idempotency-Key`.
    #[schema(value_type = Option<Vec<String>>)]
    recovery_codes: Vec<String>,
}

/// Who asks.
#[utoipa::path(get, path = "/api/v1/me", tag = "me", responses((status = 200, body = Me)))]
async fn me(State(api): State<Api>, caller: Caller, request: axum::extract::Request) -> Result<Json<Me>> {
    let (parts, _) = request.into_parts();
    let secret = caller::cookie(&parts, caller::cookie_name(api.is_https));
    Ok(Json(shown(&api, &caller, secret.map(caller::csrf_of)).await?))
}

pub(crate) async fn shown(api: &Api, caller: &Caller, csrf: Option<String>) -> Result<Me> {
    let (by, session) = match caller.by {
        By::Local => (Means::Local, None),
        By::Token { .. } => (Means::Token, None),
        By::Session { account_id, session_id, .. } => {
            let account = account::by_id(&api.pool, account_id).await?.ok_or_else(ApiError::unauthorized)?;
            let session = OwnSession {
                session_id,
                csrf: csrf.unwrap_or_default(),
                second_factor: account.second_factor_at.is_some(),
                recovery_codes_left: account::recovery_codes_left(&api.pool, account_id).await?,
                last_login_at: account.last_login_at,
            };
            (Means::Session, Some(session))
        }
    };
    let name = caller.name.split_once(' ').map_or(caller.name.as_str(), |(_, name)| name);
    Ok(Me {
        name: if session.is_some() { name.to_owned() } else { caller.name.clone() },
        role: caller.role,
        tenant: tenant::name(&api.pool, caller.tenant).await?,
        is_provider: caller.home == tenant::PROVIDER && caller.scope.is_whole() && caller.role != Role::User,
        group: caller.scope.group.clone(),
        mailbox: caller.scope.mailbox.clone(),
        by,
        session,
    })
}

/// The account and session of somebody who is logged in; tokens and the local socket have none.
async fn own(api: &Api, caller: &Caller) -> Result<(Account, Uuid)> {
    let By::Session { account_id, session_id, .. } = caller.by else {
        return Err(ApiError::new(
            Kind::Conflict,
            "only somebody who is logged in has a password and a second factor",
            "log in with name and password, or use `/users`",
        ));
    };
    let account = account::by_id(&api.pool, account_id).await?.ok_or_else(ApiError::unauthorized)?;
    Ok((account, session_id))
}

/// Refuses whoever sits at somebody else's open browser.
async fn prove(api: &Api, account: &Account, password: &SecretString, pointer: &str) -> Result<()> {
    limited(api.login.limits.lock().map(|mut limits| limits.log_in(&account.name, None)))?;
    let kept = account::proof(&api.pool, &account.name).await?.and_then(|proof| proof.password);
    if api.login.passwords.is(password.expose_secret().to_owned(), kept).await? {
        return Ok(());
    }
    Err(ApiError::invalid(vec![ProblemItem::at(pointer, "this is not your password")]))
}

/// Changes one's password, and ends one's other sessions.
#[utoipa::path(put, path = "/api/v1/me/password", tag = "me", request_body = NewPassword,
    responses((status = 204), (status = 409, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem)))]
async fn set_password(State(api): State<Api>, caller: Caller, Body(wanted): Body<NewPassword>) -> Result<StatusCode> {
    let (account, session_id) = own(&api, &caller).await?;
    if let Some(detail) = password_problem(&account.name, wanted.new.expose_secret()) {
        return Err(ApiError::invalid(vec![ProblemItem::at("/new", detail)]));
    }
    prove(&api, &account, &wanted.current, "/current").await?;
    let kept = api.login.passwords.keep(wanted.new.expose_secret().to_owned()).await?;
    let mut transaction = caller.begin(&api, "").await?;
    account::set_password(&mut transaction, account.account_id, &kept, Some(session_id)).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a second factor for an authenticator app. It is in force once confirmed.
#[utoipa::path(post, path = "/api/v1/me/second-factor", tag = "me", request_body = Oneself,
    responses((status = 200, body = Offer), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
async fn offer(State(api): State<Api>, caller: Caller, Body(oneself): Body<Oneself>) -> Result<Response> {
    let (account, _) = own(&api, &caller).await?;
    prove(&api, &account, &oneself.password, "/password").await?;
    let totp = Totp::random();
    let sealed = api.login.seal.close(account.account_id, totp.bytes())?;
    if !account::offer_second_factor(&api.pool, account.account_id, &sealed).await? {
        return Err(ApiError::new(
            Kind::Conflict,
            "your account has a second factor",
            "remove it first: `POST /api/v1/me/second-factor/remove`",
        ));
    }
    let setup = Setup { secret: totp.text(), uri: totp.uri(&account.name) };
    Ok((Extension(ShownOnce("setup")), Json(Offer { setup })).into_response())
}

/// Puts the second factor in force, with the code the app shows now; answers recovery codes, this once.
#[utoipa::path(post, path = "/api/v1/me/second-factor/confirm", tag = "me", request_body = Code,
    responses((status = 200, body = Confirmed), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
async fn confirm(State(api): State<Api>, caller: Caller, Body(code): Body<Code>) -> Result<Response> {
    let (account, session_id) = own(&api, &caller).await?;
    limited(api.login.limits.lock().map(|mut limits| limits.code(account.account_id)))?;
    let Some((sealed, false)) = account::second_factor(&api.pool, account.account_id).await? else {
        return Err(ApiError::new(
            Kind::Conflict,
            "there is no second factor to confirm",
            "begin with `POST /api/v1/me/second-factor`",
        ));
    };
    let secret = api.login.seal.open(account.account_id, &sealed)?;
    if !is_code(&api, account.account_id, &secret, &code.code).await? {
        let detail = "this is not the code of now; compare the clocks of the server and of the phone";
        return Err(ApiError::invalid(vec![ProblemItem::at("/code", detail)]));
    }
    let recovery_codes: Vec<String> = (0..CODES).map(|_| random_words(2, 5)).collect();
    let digests: Vec<Digest> = recovery_codes.iter().map(|code| recovery_digest(code)).collect();
    let mut transaction = caller.begin(&api, "").await?;
    account::confirm_second_factor(&mut transaction, account.account_id, &digests, Some(session_id)).await?;
    transaction.commit().await?;
    Ok((Extension(ShownOnce("recovery_codes")), Json(Confirmed { recovery_codes })).into_response())
}

/// Takes one's second factor away.
#[utoipa::path(post, path = "/api/v1/me/second-factor/remove", tag = "me", request_body = Oneself,
    responses((status = 204), (status = 409, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem)))]
async fn remove(State(api): State<Api>, caller: Caller, Body(oneself): Body<Oneself>) -> Result<StatusCode> {
    let (account, session_id) = own(&api, &caller).await?;
    prove(&api, &account, &oneself.password, "/password").await?;
    let mut transaction = caller.begin(&api, "").await?;
    account::drop_second_factor(&mut transaction, account.account_id, Some(session_id)).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is kept of a recovery code, however it is typed.
pub(crate) fn recovery_digest(code: &str) -> Digest {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    Digest::of(code.as_bytes())
}
