//! `/tokens`: what programs and people prove themselves with.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_database::{scope::Scope, token};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::label_problem,
    auth::{Caller, Role},
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    idempotency::ShownOnce,
    state::Api,
};

/// The longest name.
const LONGEST_NAME: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    name: String,
    role: String,
    /// Only the mailboxes of this group.
    group: Option<String>,
    /// Only this mailbox.
    mailbox: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<token::Token> for Token {
    fn from(token: token::Token) -> Self {
        Self {
            name: token.name,
            role: token.role,
            group: token.group,
            mailbox: token.mailbox,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
        }
    }
}

/// A token just made, with its secret: the only time it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    name: String,
    role: String,
    /// Only the mailboxes of this group.
    group: Option<String>,
    /// Only this mailbox.
    mailbox: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    /// Null when this answer is given again to the same `Idempotency-Key`.
    #[schema(value_type = Option<String>, example = "understudy_…")]
    token: String,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "prometheus", "role": "viewer", "expires_at": "2036-01-01T00:00:00Z"}))]
pub(crate) struct NewToken {
    /// What it is for; must be new.
    name: String,
    role: Role,
    /// Only the mailboxes of this group; for a viewer or an operator.
    #[serde(default)]
    group: Option<String>,
    /// The mailbox of a `user`.
    #[serde(default)]
    mailbox: Option<String>,
    /// Never, when left out.
    #[serde(default)]
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

/// All tokens, by name; also those that ended.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", params(Paging),
    responses((status = 200, body = Page<Token>)))]
async fn list(State(api): State<Api>, caller: Caller, Params(paging): Params<Paging>) -> Result<Json<Page<Token>>> {
    let limit = cursor::limit(paging.limit)?;
    let after: Option<String> = cursor::decode(paging.after.as_deref())?;
    let tokens = token::list(&api.pool, caller.tenant, after.as_deref(), limit + 1).await?;
    Ok(Json(Page::of(tokens, limit, |token| token.name.clone(), Token::from)))
}

/// Makes a token and shows it once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create(State(api): State<Api>, caller: Caller, Body(new): Body<NewToken>) -> Result<Response> {
    check(&new)?;
    let secret = format!("understudy_{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let digest = token::digest_of(&secret);
    let scope = Scope { tenant: caller.tenant, group: new.group.clone(), mailbox: new.mailbox.clone() };
    let mut transaction = caller.begin(&api, "").await?;
    let created = token::create(&mut *transaction, &scope, &new.name, new.role.as_str(), new.expires_at, &digest).await;
    let token = created.map_err(|error| match error.constraint() {
        Some("token_name_unique") => ApiError::new(
            Kind::Conflict,
            format!("there is or was a token `{}`", new.name),
            "choose another name; names of ended tokens stay taken, so that records stay clear",
        ),
        _ => error.into(),
    })?;
    transaction.commit().await?;
    let body = CreatedToken {
        name: token.name,
        role: token.role,
        group: token.group,
        mailbox: token.mailbox,
        created_at: token.created_at,
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        revoked_at: token.revoked_at,
        token: secret,
    };
    let location = [(header::LOCATION, "/api/v1/tokens")];
    Ok((StatusCode::CREATED, location, Extension(ShownOnce("token")), Json(body)).into_response())
}

fn check(new: &NewToken) -> Result<()> {
    let mut errors = Vec::new();
    let name = new.name.trim();
    if name.is_empty() || name != new.name || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let detail = format!("a name has 1 to {LONGEST_NAME} characters and no space at its ends");
        errors.push(ProblemItem::at("/name", detail));
    }
    if new.expires_at.is_some_and(|at| at <= Utc::now()) {
        errors.push(ProblemItem::at("/expires_at", "this time has passed already"));
    }
    errors.extend(narrow_problem(new.role, new.group.as_deref(), new.mailbox.as_deref()));
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

/// What is wrong with what narrows a role: a group is for those who look after mailboxes, a mailbox for its user.
pub(crate) fn narrow_problem(role: Role, group: Option<&str>, mailbox: Option<&str>) -> Option<ProblemItem> {
    match (role, group, mailbox) {
        (Role::User, None, Some(address)) if !address.trim().is_empty() => None,
        (Role::User, Some(_), _) => Some(ProblemItem::at("/group", "a user has one mailbox and no group")),
        (Role::User, ..) => Some(ProblemItem::at("/mailbox", "name the mailbox of this user")),
        (_, _, Some(_)) => Some(ProblemItem::at("/mailbox", "only the role `user` is about one mailbox")),
        (Role::Viewer | Role::Operator, Some(group), None) => label_problem("/group", group),
        (_, Some(_), None) => Some(ProblemItem::at("/group", "only a viewer or an operator can be limited to a group")),
        (_, None, None) => None,
    }
}

/// Ends a token at once. Safe to repeat.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    let mut transaction = caller.begin(&api, "").await?;
    if token::revoke(&mut *transaction, caller.tenant, &name).await? {
        transaction.commit().await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("token", &name, None, "`understudy token list` names them all"))
}
