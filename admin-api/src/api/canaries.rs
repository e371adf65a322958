//! `/mailboxes/{address}/canary`: mailboxes that prove the pipeline end to end.
//!
//! Not here: writing messages and looking for them (`gateway_recovery::canary`).

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_database::canary;
use understudy_protocol::MailboxId;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::{self, WhichParams},
    auth::Caller,
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    state::Api,
};

/// The shortest and the longest pace, in seconds.
const EVERY: (f64, f64) = (1.0, 86_400.0);
/// The least and the most time a message may take, in seconds.
const WITHIN: (f64, f64) = (1.0, 3600.0);
/// What is meant when nothing is said.
const USUAL_SECONDS: f64 = 60.0;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get, set, end))
}

/// A mailbox into which messages are written to see that they reach the standby.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Canary {
    address: String,
    every_seconds: f64,
    within_seconds: f64,
    /// When a message was last seen on the standby.
    last_seen_at: Option<DateTime<Utc>>,
    /// How long that one took.
    last_seconds: Option<f64>,
    seen_total: i64,
    late_total: i64,
    /// Where the message on its way stopped; null while none is late.
    late: Option<Late>,
}

/// A message that has not arrived in time.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Late {
    /// `primary`, `source_gateway`, `link`, `capture`, `shipping`, `standby` or `visible`.
    place: String,
    since: DateTime<Utc>,
    reason: String,
    remedy: String,
}

/// At which pace, and how long each message may take.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"every_seconds": 60, "within_seconds": 30}))]
pub(crate) struct CanaryChange {
    /// 60 unless said otherwise.
    #[serde(default = "usual")]
    every_seconds: f64,
    /// 60 unless said otherwise.
    #[serde(default = "usual")]
    within_seconds: f64,
}

fn usual() -> f64 {
    USUAL_SECONDS
}

/// The canary of a mailbox.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/canary", tag = "canaries",
    params(("address" = String, Path), WhichParams),
    responses((status = 200, body = Canary), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn get(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
) -> Result<Json<Canary>> {
    let mailbox = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    shown(&api, mailbox.address, MailboxId(mailbox.mailbox_id)).await
}

/// Makes a mailbox a canary, or gives it another pace.
#[utoipa::path(put, path = "/api/v1/mailboxes/{address}/canary", tag = "canaries",
    params(("address" = String, Path), WhichParams), request_body = CanaryChange,
    responses((status = 200, body = Canary), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn set(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(change): Body<CanaryChange>,
) -> Result<Json<Canary>> {
    let errors: Vec<ProblemItem> = [
        bounded("/every_seconds", change.every_seconds, EVERY),
        bounded("/within_seconds", change.within_seconds, WITHIN),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mailbox = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let id = MailboxId(mailbox.mailbox_id);
    let (every, within) =
        (Duration::from_secs_f64(change.every_seconds), Duration::from_secs_f64(change.within_seconds));
    let mut transaction = caller.begin(&api, "").await?;
    canary::set(&mut transaction, id, every, within, &caller.name).await?;
    transaction.commit().await?;
    shown(&api, mailbox.address, id).await
}

/// The mailbox is a canary no longer. What was written into it is removed from the primary.
#[utoipa::path(delete, path = "/api/v1/mailboxes/{address}/canary", tag = "canaries",
    params(("address" = String, Path), WhichParams),
    responses((status = 200, body = Canary), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn end(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
) -> Result<Json<Canary>> {
    let mailbox = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let id = MailboxId(mailbox.mailbox_id);
    let canary = shown(&api, mailbox.address, id).await?;
    let mut transaction = caller.begin(&api, "").await?;
    canary::end(&mut transaction, id, &caller.name).await?;
    transaction.commit().await?;
    Ok(canary)
}

fn bounded(pointer: &str, seconds: f64, (least, most): (f64, f64)) -> Option<ProblemItem> {
    let good = (least..=most).contains(&seconds);
    (!good).then(|| ProblemItem::at(pointer, format!("from {least:.0} to {most:.0} seconds")))
}

async fn shown(api: &Api, address: String, mailbox: MailboxId) -> Result<Json<Canary>> {
    let Some(canary) = canary::get(&api.pool, mailbox).await? else {
        return Err(ApiError::new(
            Kind::NotFound,
            format!("`{address}` is no canary"),
            "make it one: `understudy mailbox canary ADDRESS --every 60s`",
        ));
    };
    let late = |late: Value| serde_json::from_value(late).ok();
    Ok(Json(Canary {
        address,
        every_seconds: canary.every_seconds,
        within_seconds: canary.within_seconds,
        last_seen_at: canary.last_seen_at,
        last_seconds: canary.last_seconds,
        seen_total: canary.seen_total,
        late_total: canary.late_total,
        late: canary.late.and_then(late),
    }))
}
