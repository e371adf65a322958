//! `/policies`: how mailboxes are treated.
//!
//! Keeps true: a document that cannot be acted upon is refused, naming each member that is wrong; what it does not say is as in
//! the built-in policy.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_database::policy::{self, Removed, Stored};
use understudy_protocol::policy::{DEFAULT, Policy as Document};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::label_problem,
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    nearest::nearest,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, remove))
}

/// A policy and who has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Policy {
    name: String,
    /// How many protected mailboxes have it.
    mailboxes: i64,
    /// Null for the built-in policy as nobody changed it.
    changed_at: Option<DateTime<Utc>>,
    /// The whole document, with what was not said filled in.
    #[schema(value_type = Object, example = json!({"switchover": "shadow", "threshold_seconds": 15, "quorum": 2}))]
    document: Value,
}

impl From<Stored> for Policy {
    fn from(stored: Stored) -> Self {
        Self {
            name: stored.name,
            mailboxes: stored.mailboxes,
            changed_at: Some(stored.changed_at),
            document: serde_json::to_value(stored.policy).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    limit: Option<i64>,
    after: Option<String>,
}

/// All policies, by name.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", params(ListParams),
    responses((status = 200, body = Page<Policy>)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Policy>>> {
    let limit = cursor::limit(params.limit)?;
    let after: Option<String> = cursor::decode(params.after.as_deref())?;
    let stored = policy::list(&api.pool, caller.tenant, after.as_deref(), limit + 1).await?;
    Ok(Json(Page::of(stored, limit, |stored| stored.name.clone(), Policy::from)))
}

/// One policy.
#[utoipa::path(get, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = Policy), (status = 404, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<Json<Policy>> {
    if let Some(stored) = policy::get(&api.pool, caller.tenant, &name).await? {
        return Ok(Json(stored.into()));
    }
    if name == DEFAULT {
        let document = serde_json::to_value(Document::default()).unwrap_or_default();
        return Ok(Json(Policy { name, mailboxes: 0, changed_at: None, document }));
    }
    Err(unknown(&api, &caller, &name).await?)
}

/// Writes a policy: the whole document. What it does not say is as in the built-in policy.
#[utoipa::path(put, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    request_body(content = Object, content_type = "application/json",
        example = json!({"switchover": "shadow", "threshold_seconds": 30, "quorum": 2, "brake": {"share": 0.2}})),
    responses((status = 200, body = Policy), (status = 201, body = Policy), (status = 422, body = Problem)))]
async fn put(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(document): Body<Document>,
) -> Result<Response> {
    let mut errors: Vec<ProblemItem> =
        document.problems().into_iter().map(|problem| ProblemItem::at(problem.pointer, problem.detail)).collect();
    errors.extend(label_problem("", &name));
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mut transaction = caller.begin(&api, "").await?;
    let is_new = policy::put(&mut transaction, caller.tenant, &name, &document).await?;
    let stored = policy::get(&mut *transaction, caller.tenant, &name).await?.ok_or(sqlx::Error::RowNotFound)?;
    transaction.commit().await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Policy::from(stored))).into_response())
}

/// Removes a policy that no mailbox has. The policy `default`, removed, is the built-in one again.
#[utoipa::path(delete, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    let mut transaction = caller.begin(&api, "").await?;
    let removed = policy::remove(&mut transaction, caller.tenant, &name).await?;
    transaction.commit().await?;
    match removed {
        Removed::Yes => Ok(StatusCode::NO_CONTENT),
        Removed::Unknown => Err(unknown(&api, &caller, &name).await?),
        Removed::InUse(mailboxes) => Err(ApiError::new(
            Kind::Conflict,
            match mailboxes {
                1 => format!("one mailbox has the policy `{name}`"),
                mailboxes => format!("{mailboxes} mailboxes have the policy `{name}`"),
            },
            "give them another one first: PATCH /mailboxes/{address}",
        )),
    }
}

/// What is wrong with naming this policy, if it is not there.
pub(crate) async fn missing(api: &Api, caller: &Caller, pointer: &str, name: &str) -> Result<Option<ProblemItem>> {
    if name == DEFAULT {
        return Ok(None);
    }
    let names = policy::names(&api.pool, caller.tenant).await?;
    Ok(problem(pointer, name, &names))
}

/// The same, where the names are known.
pub(crate) fn problem(pointer: &str, name: &str, names: &[String]) -> Option<ProblemItem> {
    if name == DEFAULT || names.iter().any(|known| known == name) {
        return None;
    }
    let nearest = nearest(name, names.iter().map(String::as_str));
    Some(ProblemItem { nearest, ..ProblemItem::at(pointer, format!("there is no policy `{name}`")) })
}

async fn unknown(api: &Api, caller: &Caller, name: &str) -> Result<ApiError> {
    let names = policy::names(&api.pool, caller.tenant).await?;
    let nearest = nearest(name, names.iter().map(String::as_str));
    Ok(ApiError::not_found("policy", name, nearest, "`understudy policy list` names them all"))
}
