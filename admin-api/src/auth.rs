//! Who asks, and what they may do. One table says which role each route needs.
//!
//! Keeps true: a route that the table does not name is for administrators; every refusal has the same shape.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use understudy_database::token;
use understudy_protocol::TenantId;
use utoipa::ToSchema;

use crate::{
    error::{ApiError, Kind, Result},
    state::Api,
};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenRole)]
pub(crate) enum Role {
    /// Reads.
    Viewer,
    /// Reads, pauses, resumes, verifies, waits at barriers.
    Operator,
    /// Everything.
    Administrator,
    /// Reads.
    Billing,
    /// Reads.
    Auditor,
    /// A user of a mailbox; nothing here yet.
    User,
}

impl Role {
    /// The role of a token as its column says it; an unknown one may do nothing.
    fn from_column(role: &str) -> Self {
        match role {
            "viewer" => Self::Viewer,
            "operator" => Self::Operator,
            "administrator" => Self::Administrator,
            "billing" => Self::Billing,
            "auditor" => Self::Auditor,
            _ => Self::User,
        }
    }

    /// The role as interfaces and columns spell it.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Billing => "billing",
            Self::Auditor => "auditor",
            Self::User => "user",
        }
    }

    fn may(self, need: Need) -> bool {
        match need {
            Need::Read => self != Self::User,
            Need::Operate => matches!(self, Self::Operator | Self::Administrator),
            Need::Administer => self == Self::Administrator,
        }
    }
}

/// What a route asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Operate,
    Administer,
}

/// Which route needs what.
const NEEDS: &[(Method, &str, Need)] = &[
    (Method::GET, "/api/v1/servers", Need::Read),
    (Method::POST, "/api/v1/servers", Need::Administer),
    (Method::GET, "/api/v1/servers/{name}", Need::Read),
    (Method::PATCH, "/api/v1/servers/{name}", Need::Administer),
    (Method::DELETE, "/api/v1/servers/{name}", Need::Administer),
    (Method::POST, "/api/v1/servers/{name}/check", Need::Operate),
    (Method::GET, "/api/v1/mailboxes", Need::Read),
    (Method::POST, "/api/v1/mailboxes", Need::Administer),
    (Method::GET, "/api/v1/mailboxes/{address}", Need::Read),
    (Method::PATCH, "/api/v1/mailboxes/{address}", Need::Administer),
    (Method::DELETE, "/api/v1/mailboxes/{address}", Need::Administer),
    (Method::GET, "/api/v1/mailboxes/{address}/problems", Need::Read),
    (Method::POST, "/api/v1/mailboxes/{address}/pause", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/resume", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/verify", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/barrier", Need::Operate),
    (Method::POST, "/api/v1/barriers", Need::Operate),
    (Method::POST, "/api/v1/verifications", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/switchover", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/switchback", Need::Operate),
    (Method::POST, "/api/v1/switchovers", Need::Operate),
    (Method::POST, "/api/v1/switchbacks", Need::Operate),
    (Method::GET, "/api/v1/runs", Need::Read),
    (Method::GET, "/api/v1/runs/{id}", Need::Read),
    (Method::POST, "/api/v1/runs/{id}/cancel", Need::Operate),
    (Method::GET, "/api/v1/routes", Need::Read),
    (Method::GET, "/api/v1/routes/{address}", Need::Read),
    (Method::GET, "/api/v1/mailboxes/{address}/aliases", Need::Read),
    (Method::PUT, "/api/v1/mailboxes/{address}/aliases", Need::Administer),
    (Method::GET, "/api/v1/events", Need::Read),
    (Method::GET, "/api/v1/history", Need::Read),
    (Method::GET, "/api/v1/status", Need::Read),
    (Method::GET, "/api/v1/tokens", Need::Administer),
    (Method::POST, "/api/v1/tokens", Need::Administer),
    (Method::DELETE, "/api/v1/tokens/{name}", Need::Administer),
    (Method::GET, "/api/openapi.json", Need::Read),
    (Method::GET, "/metrics", Need::Read),
];

/// What the route at `path` needs for `method`; `None` when the table does not know it.
#[must_use]
pub(crate) fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    NEEDS.iter().find(|(known, route, _)| known == method && *route == path).map(|(_, _, need)| *need)
}

/// Whoever sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    /// For the record: `token NAME`, or `local administrator`.
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// Marks what came over the unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// Lets through who has a token and whose role may; every guarded route passes here.
pub(crate) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&api, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn admit(api: &Api, parts: &Parts) -> Result<Caller> {
    let caller = identify(api, parts).await?;
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    // What is nowhere is answered with 404 to whoever has a token, whatever the role.
    let Some(path) = path else { return Ok(caller) };
    let need = need(&parts.method, path).unwrap_or(Need::Administer);
    if caller.role.may(need) {
        return Ok(caller);
    }
    Err(ApiError::new(
        Kind::Forbidden,
        format!("the role `{}` may not do this", caller.role.as_str()),
        "use a token whose role may; an administrator makes one with `understudy token create`",
    ))
}

async fn identify(api: &Api, parts: &Parts) -> Result<Caller> {
    if parts.extensions.get::<Local>().is_some() {
        return Ok(Caller { tenant: TenantId(1), name: "local administrator".to_owned(), role: Role::Administrator });
    }
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, secret) = header.and_then(|value| value.split_once(' ')).ok_or_else(ApiError::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthorized());
    }
    // Looked up by digest: how long that takes says nothing about the secret.
    let digest = token::digest_of(secret.trim());
    let bearer = token::bearer(&api.pool, &digest).await?.ok_or_else(ApiError::unauthorized)?;
    token::touch(&api.pool, bearer.token_id).await?;
    Ok(Caller {
        tenant: TenantId(bearer.tenant_id),
        name: format!("token {}", bearer.name),
        role: Role::from_column(&bearer.role),
    })
}
