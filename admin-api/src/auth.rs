//! Who asks, and what they may do. One table says which role each route needs.
//!
//! Keeps true: a route that the table does not name is for administrators; every refusal has the same shape.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use understudy_database::tenant;
use utoipa::ToSchema;

pub(crate) use crate::caller::Caller;
use crate::{
    caller,
    error::{ApiError, Kind, Result},
    state::Api,
};

/// What a person or a program may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Role)]
pub(crate) enum Role {
    /// Reads.
    Viewer,
    /// Reads, pauses, resumes, verifies, waits at barriers, switches.
    Operator,
    /// Everything.
    Administrator,
    /// Reads, and bills.
    Billing,
    /// Reads, also the audit.
    Auditor,
    /// Sees one mailbox: their own.
    User,
}

impl Role {
    /// The role as its column says it; an unknown one may do nothing.
    pub(crate) fn from_column(role: &str) -> Self {
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
            Need::Own => true,
            Need::Read | Need::Monitor => self != Self::User,
            Need::Operate => matches!(self, Self::Operator | Self::Administrator),
            Need::Administer | Need::Provide => self == Self::Administrator,
            Need::Bill => matches!(self, Self::Billing | Self::Administrator),
            Need::Audit => matches!(self, Self::Auditor | Self::Administrator),
        }
    }
}

/// What a route asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// What is one's own: everybody, also a mailbox's user. The route shows what lies in the caller's scope and nothing else.
    Own,
    Read,
    Operate,
    Administer,
    /// Usage and prices.
    Bill,
    Audit,
    /// What is about all tenants at once: the provider's people.
    Monitor,
    /// What makes tenants: the provider's administrators.
    Provide,
}

impl Need {
    /// Is it about more than single mailboxes?
    fn wants_whole_tenant(self) -> bool {
        !matches!(self, Self::Own | Self::Read | Self::Operate)
    }
}

/// Which route needs what.
const NEEDS: &[(Method, &str, Need)] = &[
    (Method::GET, "/api/v1/servers", Need::Read),
    (Method::POST, "/api/v1/servers", Need::Administer),
    (Method::GET, "/api/v1/servers/{name}", Need::Read),
    (Method::PATCH, "/api/v1/servers/{name}", Need::Administer),
    (Method::DELETE, "/api/v1/servers/{name}", Need::Administer),
    (Method::POST, "/api/v1/servers/{name}/check", Need::Operate),
    (Method::GET, "/api/v1/mailboxes", Need::Own),
    (Method::POST, "/api/v1/mailboxes", Need::Administer),
    (Method::GET, "/api/v1/mailboxes/{address}", Need::Own),
    (Method::PATCH, "/api/v1/mailboxes/{address}", Need::Administer),
    (Method::DELETE, "/api/v1/mailboxes/{address}", Need::Administer),
    (Method::GET, "/api/v1/mailboxes/{address}/problems", Need::Read),
    (Method::GET, "/api/v1/mailboxes/{address}/folders", Need::Read),
    (Method::GET, "/api/v1/mailboxes/{address}/transactions", Need::Read),
    (Method::GET, "/api/v1/mailboxes/{address}/held", Need::Read),
    (Method::POST, "/api/v1/mailboxes/{address}/release", Need::Operate),
    (Method::POST, "/api/v1/mailboxes/{address}/discard", Need::Operate),
    (Method::GET, "/api/v1/mailboxes/{address}/canary", Need::Read),
    (Method::PUT, "/api/v1/mailboxes/{address}/canary", Need::Administer),
    (Method::DELETE, "/api/v1/mailboxes/{address}/canary", Need::Administer),
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
    (Method::GET, "/api/v1/events", Need::Own),
    (Method::GET, "/api/v1/history", Need::Read),
    (Method::GET, "/api/v1/status", Need::Read),
    (Method::GET, "/api/v1/groups", Need::Read),
    (Method::GET, "/api/v1/groups/{name}", Need::Read),
    (Method::GET, "/api/v1/map", Need::Read),
    (Method::GET, "/api/v1/settings", Need::Provide),
    (Method::GET, "/api/v1/servers/{name}/health", Need::Read),
    (Method::POST, "/api/v1/servers/{name}/observations", Need::Operate),
    (Method::GET, "/api/v1/policies", Need::Read),
    (Method::GET, "/api/v1/policies/{name}", Need::Read),
    (Method::PUT, "/api/v1/policies/{name}", Need::Administer),
    (Method::DELETE, "/api/v1/policies/{name}", Need::Administer),
    (Method::GET, "/api/v1/tokens", Need::Administer),
    (Method::POST, "/api/v1/tokens", Need::Administer),
    (Method::DELETE, "/api/v1/tokens/{name}", Need::Administer),
    (Method::GET, "/api/v1/link", Need::Monitor),
    (Method::PUT, "/api/v1/link/limits", Need::Provide),
    (Method::GET, "/api/v1/link/peers", Need::Monitor),
    (Method::DELETE, "/api/v1/link/peers/{name}", Need::Provide),
    (Method::GET, "/api/v1/link/invitations", Need::Provide),
    (Method::POST, "/api/v1/link/invitations", Need::Provide),
    (Method::DELETE, "/api/v1/link/invitations/{id}", Need::Provide),
    (Method::GET, "/api/openapi.json", Need::Own),
    (Method::GET, "/metrics", Need::Monitor),
    (Method::GET, "/api/v1/me", Need::Own),
    (Method::PUT, "/api/v1/me/password", Need::Own),
    (Method::POST, "/api/v1/me/second-factor", Need::Own),
    (Method::POST, "/api/v1/me/second-factor/confirm", Need::Own),
    (Method::POST, "/api/v1/me/second-factor/remove", Need::Own),
    (Method::GET, "/api/v1/sessions", Need::Own),
    (Method::DELETE, "/api/v1/sessions/{id}", Need::Own),
    (Method::GET, "/api/v1/users", Need::Administer),
    (Method::POST, "/api/v1/users", Need::Administer),
    (Method::GET, "/api/v1/users/{name}", Need::Administer),
    (Method::PATCH, "/api/v1/users/{name}", Need::Administer),
    (Method::DELETE, "/api/v1/users/{name}", Need::Administer),
    (Method::POST, "/api/v1/users/{name}/password", Need::Administer),
    (Method::POST, "/api/v1/users/{name}/reset-second-factor", Need::Administer),
    (Method::GET, "/api/v1/tenants", Need::Provide),
    (Method::POST, "/api/v1/tenants", Need::Provide),
    (Method::PATCH, "/api/v1/tenants/{name}", Need::Provide),
    (Method::GET, "/api/v1/audit", Need::Audit),
    (Method::GET, "/api/v1/audit/export", Need::Audit),
    (Method::POST, "/api/v1/audit/verify", Need::Audit),
    (Method::GET, "/api/v1/notifications/settings", Need::Read),
    (Method::PUT, "/api/v1/notifications/settings", Need::Administer),
    (Method::GET, "/api/v1/notifications/templates", Need::Read),
    (Method::PUT, "/api/v1/notifications/templates/{topic}/{language}", Need::Administer),
    (Method::DELETE, "/api/v1/notifications/templates/{topic}/{language}", Need::Administer),
    (Method::POST, "/api/v1/notifications/preview", Need::Read),
    (Method::GET, "/api/v1/notifications/deliveries", Need::Audit),
    (Method::POST, "/api/v1/notifications/announcements", Need::Operate),
    (Method::GET, "/api/v1/mailboxes/{address}/contact", Need::Read),
    (Method::PUT, "/api/v1/mailboxes/{address}/contact", Need::Administer),
    (Method::GET, "/api/v1/prices", Need::Bill),
    (Method::PUT, "/api/v1/prices", Need::Bill),
    (Method::GET, "/api/v1/prices/estimate", Need::Bill),
    (Method::GET, "/api/v1/invoices", Need::Bill),
    (Method::GET, "/api/v1/invoices/{month}", Need::Bill),
    (Method::POST, "/api/v1/invoices/{month}/close", Need::Bill),
    (Method::POST, "/api/v1/invoices/{month}/corrections", Need::Bill),
    (Method::GET, "/api/v1/reports/billing", Need::Bill),
    (Method::GET, "/api/v1/reports/availability", Need::Read),
];

/// What the route at `path` needs for `method`; `None` when the table does not know it.
#[must_use]
pub(crate) fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    NEEDS.iter().find(|(known, route, _)| known == method && *route == path).map(|(_, _, need)| *need)
}

/// Lets through who proves who they are and whose role may; every guarded route passes here.
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
    let caller = caller::identify(api, parts).await?;
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    // What is nowhere is answered with 404 to whoever is known, whatever the role.
    let Some(path) = path else { return Ok(caller) };
    let need = need(&parts.method, path).unwrap_or(Need::Administer);
    check(&caller, need)?;
    Ok(caller)
}

fn check(caller: &Caller, need: Need) -> Result<()> {
    let detail = if !caller.role.may(need) {
        format!("the role `{}` may not do this", caller.role.as_str())
    } else if need.wants_whole_tenant() && !caller.scope.is_whole() {
        "it concerns more than the mailboxes you look after".to_owned()
    } else if matches!(need, Need::Monitor | Need::Provide) && caller.home != tenant::PROVIDER {
        "it concerns all tenants".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::new(
        Kind::Forbidden,
        detail,
        "ask somebody whose role may; an administrator gives roles with `understudy user` and `understudy token create`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guarded_operation_has_its_line() {
        let (_, guarded) = crate::router::guarded();
        let document = serde_json::to_value(guarded).expect("the description is JSON");
        let paths = document["paths"].as_object().expect("the description has paths");
        assert!(paths.len() > 60, "{} paths", paths.len());
        for (path, operations) in paths {
            for method in operations.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase()) {
                let Ok(method) = Method::from_bytes(method.as_bytes()) else { continue };
                let is_operation =
                    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&method);
                assert!(!is_operation || need(&method, path).is_some(), "{method} {path} has no line in NEEDS");
            }
        }
    }
}
