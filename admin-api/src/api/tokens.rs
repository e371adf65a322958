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
use understudy_database::token;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
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
pub(crate) struct NewToken {
    /// What it is for; must be new.
    name: String,
    role: Role,
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
    let created = token::create(&api.pool, caller.tenant, &new.name, new.role.as_str(), new.expires_at, &digest).await;
    let token = created.map_err(|error| match error.constraint() {
        Some("token_name_unique") => ApiError::new(
            Kind::Conflict,
            format!("there is or was a token `{}`", new.name),
            "choose another name; names of ended tokens stay taken, so that records stay clear",
        ),
        _ => error.into(),
    })?;
    let body = CreatedToken {
        name: token.name,
        role: token.role,
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
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

/// Ends a token at once. Safe to repeat.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    if token::revoke(&api.pool, caller.tenant, &name).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("token", &name, None, "`understudy token list` names them all"))
}
