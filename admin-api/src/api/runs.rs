//! `/runs`: durable pieces of work, their steps and what came of them.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use understudy_database::{
    run::{self, Filter},
    server,
};
use understudy_protocol::MailboxId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::{mailboxes, servers},
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, Result},
    extract::{Name, Params, given},
    state::Api,
};

/// The longest time a reader may wait for a run to end.
const LONGEST_WAIT_SECONDS: u64 = 60;
/// How often a run waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(cancel))
}

/// A run, as every interface shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Run {
    run_id: Uuid,
    /// `barrier`, `verify`, `check`, `discover`, `estimate`, `pause`, `resume`, `release`, `discard`, `switchover` or `switchback`.
    kind: String,
    state: RunState,
    /// The mailbox it is about, when it is about one.
    address: Option<String>,
    /// The mail server it is about, when it is about one.
    server: Option<String>,
    /// What was asked for.
    request: Value,
    reason: String,
    requested_by: String,
    /// What came of it; `reason` and `remedy` when it failed.
    result: Option<Value>,
    cancel_requested: bool,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    /// Left empty in lists.
    steps: Vec<Step>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunState {
    Waiting,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl RunState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// From the column, which a constraint limits to these.
    fn from_column(state: &str) -> Self {
        match state {
            "waiting" => Self::Waiting,
            "running" => Self::Running,
            "done" => Self::Done,
            "cancelled" => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// A timed step.
#[derive(Debug, Serialize, ToSchema)]
struct Step {
    position: i32,
    name: String,
    address: Option<String>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    outcome: String,
}

impl From<run::Run> for Run {
    fn from(run: run::Run) -> Self {
        Self {
            run_id: run.run_id,
            kind: run.kind,
            state: RunState::from_column(&run.state),
            address: run.address,
            server: run.server,
            request: run.request,
            reason: run.reason,
            requested_by: run.requested_by,
            result: run.result,
            cancel_requested: run.cancel_requested,
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            steps: Vec::new(),
        }
    }
}

impl From<run::Step> for Step {
    fn from(step: run::Step) -> Self {
        Self {
            position: step.position,
            name: step.name,
            address: step.address,
            started_at: step.started_at,
            ended_at: step.ended_at,
            outcome: step.outcome,
        }
    }
}

/// The answer to whoever asked for a run: it exists, and where to follow it.
pub(crate) fn accepted(run: run::Run) -> Response {
    let location = [(header::LOCATION, format!("/api/v1/runs/{}", run.run_id))];
    (StatusCode::ACCEPTED, location, Json(Run::from(run))).into_response()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    state: Option<RunState>,
    kind: Option<String>,
    /// Address of a mailbox.
    mailbox: Option<String>,
    /// Name of a server.
    server: Option<String>,
    /// Only those that wait or run.
    open: Option<bool>,
    limit: Option<i64>,
    after: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Answer only when the run has ended, or after so many seconds (at most 60).
    wait: Option<u64>,
}

/// Runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(ListParams),
    responses((status = 200, body = Page<Run>), (status = 404, body = Problem)))]
async fn list(State(api): State<Api>, caller: Caller, Params(params): Params<ListParams>) -> Result<Json<Page<Run>>> {
    let limit = cursor::limit(params.limit)?;
    let mailbox = match given(params.mailbox.as_ref()) {
        Some(address) => Some(MailboxId(mailboxes::find(&api, &caller, address, None).await?.mailbox_id)),
        None => None,
    };
    let server_id = match given(params.server.as_ref()) {
        Some(name) => Some(servers::find(&api, &caller, name).await?.server_id),
        None => None,
    };
    let filter = Filter {
        state: params.state.map(RunState::as_str),
        kind: given(params.kind.as_ref()),
        mailbox,
        server_id,
        own: &caller.name,
        open: params.open.unwrap_or(false),
        after: cursor::decode(params.after.as_deref())?,
        limit: limit + 1,
    };
    let runs = run::list(&api.pool, &caller.scope, &filter).await?;
    Ok(Json(Page::of(runs, limit, |run| run.run_id, Run::from)))
}

/// One run with its steps.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = Uuid, Path), WaitParams),
    responses((status = 200, body = Run), (status = 404, body = Problem)))]
async fn get(
    State(api): State<Api>,
    caller: Caller,
    Name(id): Name,
    Params(params): Params<WaitParams>,
) -> Result<Json<Run>> {
    let deadline = Instant::now() + Duration::from_secs(params.wait.unwrap_or(0).min(LONGEST_WAIT_SECONDS));
    let mut run = find(&api, &caller, &id).await?;
    while !run.has_ended() && Instant::now() < deadline && !api.shutdown.is_cancelled() {
        tokio::time::sleep(LOOK).await;
        run = find(&api, &caller, &id).await?;
    }
    let steps = run::steps(&api.pool, run.run_id).await?;
    let steps = steps.into_iter().map(Step::from).collect();
    Ok(Json(Run { steps, ..Run::from(run) }))
}

/// Asks a run to stop: one that waits never starts, one that runs stops at the next safe point.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = Uuid, Path)),
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn cancel(State(api): State<Api>, caller: Caller, Name(id): Name) -> Result<Response> {
    let run = find(&api, &caller, &id).await?;
    let mut transaction = caller.begin(&api, "").await?;
    match run::cancel(&mut transaction, run.run_id).await? {
        Some(run) => {
            transaction.commit().await?;
            Ok(accepted(run))
        }
        None => Err(ApiError::new(
            Kind::Conflict,
            "this run has ended already",
            "look at its `state` and `result`; what it did stays done",
        )),
    }
}

async fn find(api: &Api, caller: &Caller, id: &str) -> Result<run::Run> {
    let run = match id.parse() {
        Ok(id) => run::get(&api.pool, id).await?,
        Err(_) => None,
    };
    let remedy = "`GET /api/v1/runs` lists them";
    run.filter(|run| may_see(caller, run)).ok_or_else(|| ApiError::not_found("run", id, None, remedy))
}

/// What is outside the caller's scope is as good as not there, but for what they asked for themselves.
fn may_see(caller: &Caller, run: &run::Run) -> bool {
    let inside = match (&run.address, &run.group) {
        (Some(address), Some(group)) => caller.scope.covers(address, group),
        _ => caller.scope.is_whole(),
    };
    run.tenant_id == caller.tenant.0 && (inside || run.requested_by == caller.name)
}

/// Puts a run about a server in the queue.
pub(crate) async fn ask_about_server(
    api: &Api,
    caller: &Caller,
    kind: &str,
    server: &server::StoredServer,
    request: Value,
) -> Result<run::Run> {
    let new = run::NewRun {
        kind,
        server_id: Some(server.server_id),
        request,
        requested_by: &caller.name,
        ..run::NewRun::default()
    };
    let mut transaction = caller.begin(api, "").await?;
    let run = run::insert(&mut transaction, caller.tenant, &new).await?;
    transaction.commit().await?;
    Ok(run)
}
