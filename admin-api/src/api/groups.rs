//! `/groups`: the groups that mailboxes carry, and what their mailboxes are doing. A group begins with the first mailbox that
//! carries it and ends with the last.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use understudy_database::group::{self, Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::State as MailboxState,
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Problem, Result},
    extract::{Name, Params},
    nearest::nearest,
    state::Api,
};

/// Names looked through for the nearest one.
const NAMES: i64 = 1000;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// Mailboxes handled together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Group {
    #[schema(example = "board")]
    name: String,
    /// How many protected mailboxes carry it.
    mailboxes: i64,
    /// The same by state; every state is there.
    by_state: BTreeMap<&'static str, i64>,
}

impl From<group::Group> for Group {
    fn from(group: group::Group) -> Self {
        Self { name: group.name, mailboxes: group.mailboxes, by_state: by_state(&group.by_state) }
    }
}

/// Every state, also those that nothing is in.
pub(crate) fn by_state(counted: &BTreeMap<String, i64>) -> BTreeMap<&'static str, i64> {
    let count = |state: MailboxState| counted.get(state.as_str()).copied().unwrap_or(0);
    MailboxState::ALL.into_iter().map(|state| (state.as_str(), count(state))).collect()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A part of the name, in any case.
    q: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
}

/// All groups, by name; of somebody who looks after one, that one.
#[utoipa::path(get, path = "/api/v1/groups", tag = "groups", params(ListParams),
    responses((status = 200, body = Page<Group>)))]
async fn list(State(api): State<Api>, caller: Caller, Params(params): Params<ListParams>) -> Result<Json<Page<Group>>> {
    let limit = cursor::limit(params.limit)?;
    let after: Option<String> = cursor::decode(params.after.as_deref())?;
    let part = params.q.as_deref().filter(|part| !part.is_empty());
    let filter = Filter { part, after: after.as_deref(), name: None, limit: limit + 1 };
    let groups = group::list(&api.pool, &caller.scope, &filter).await?;
    Ok(Json(Page::of(groups, limit, |group| group.name.clone(), Group::from)))
}

/// One group.
#[utoipa::path(get, path = "/api/v1/groups/{name}", tag = "groups", params(("name" = String, Path)),
    responses((status = 200, body = Group), (status = 404, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<Json<Group>> {
    let only = Filter { name: Some(&name), limit: 1, ..Filter::default() };
    if let Some(found) = group::list(&api.pool, &caller.scope, &only).await?.pop() {
        return Ok(Json(found.into()));
    }
    let all = Filter { limit: NAMES, ..Filter::default() };
    let groups = group::list(&api.pool, &caller.scope, &all).await?;
    let nearest = nearest(&name, groups.iter().map(|group| group.name.as_str()));
    let remedy = "`GET /api/v1/groups` lists them; a group begins with the first mailbox that carries it";
    Err(ApiError::not_found("group", &name, nearest, remedy))
}
