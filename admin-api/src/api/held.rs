//! What the mass-change brake stopped: shown, released, discarded.
//!
//! Out: a run for each decision. Not here: stopping (`gateway_recovery::brake`), carrying out.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use understudy_database::{brake, mailbox};
use understudy_protocol::MailboxId;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        actions::{Because, ask_one},
        mailboxes::{self, Detail, WhichParams},
        runs::Run,
    },
    auth::Caller,
    error::{ApiError, Kind, Problem, Result},
    extract::{Body, Name, Params},
    state::Api,
};

/// Messages shown of each folder: so many of the first, so many of the last.
const SAMPLE: i64 = 5;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(held)).routes(routes!(release)).routes(routes!(discard))
}

/// What a release would remove from the standby.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Held {
    address: String,
    held: bool,
    since: Option<DateTime<Utc>>,
    messages: i64,
    bytes: i64,
    folders: Vec<HeldFolder>,
    /// Why it is held; null when it is not.
    detail: Option<Detail>,
}

/// What a release would remove in one folder.
#[derive(Debug, Serialize, ToSchema)]
struct HeldFolder {
    /// For people: components joined with `/`.
    folder: String,
    path: Vec<String>,
    /// The folder itself would go too.
    deletes_folder: bool,
    messages: i64,
    bytes: i64,
    /// The first and the last transaction that removed them.
    first_seq: Option<i64>,
    last_seq: Option<i64>,
    /// INTERNALDATE of the first and the last message by UID.
    oldest: Option<String>,
    newest: Option<String>,
    /// Some of the first and of the last, by UID.
    sample: Vec<HeldMessage>,
}

/// One message that a release would remove.
#[derive(Debug, Serialize, ToSchema)]
struct HeldMessage {
    /// On the primary, where it was.
    uid: i64,
    standby_uid: i64,
    size: i64,
    internal_date: String,
    subject: Option<String>,
    /// The transaction that removed it.
    seq: i64,
}

/// What the mass-change brake stopped, for the person who decides.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/held", tag = "mailboxes",
    params(("address" = String, Path), WhichParams),
    responses((status = 200, body = Held), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn held(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
) -> Result<Json<Held>> {
    let found = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let id = MailboxId(found.mailbox_id);
    let mut samples: BTreeMap<i64, Vec<HeldMessage>> = BTreeMap::new();
    for message in brake::held_sample(&api.pool, id, SAMPLE).await? {
        samples.entry(message.parked_folder_id).or_default().push(HeldMessage {
            uid: message.uid,
            standby_uid: message.standby_uid,
            size: message.size,
            internal_date: message.internal_date,
            subject: message.subject.filter(|subject| !subject.is_empty()),
            seq: message.seq,
        });
    }
    let folders: Vec<HeldFolder> = brake::held_folders(&api.pool, id)
        .await?
        .into_iter()
        .map(|folder| {
            let sample = samples.remove(&folder.parked_folder_id).unwrap_or_default();
            HeldFolder {
                folder: folder.path.to_string(),
                path: folder.path.components().to_vec(),
                deletes_folder: folder.deletes_folder,
                messages: folder.messages,
                bytes: folder.bytes,
                first_seq: folder.first_seq,
                last_seq: folder.last_seq,
                oldest: sample.first().map(|message| message.internal_date.clone()),
                newest: sample.last().map(|message| message.internal_date.clone()),
                sample,
            }
        })
        .collect();
    Ok(Json(Held {
        address: found.address,
        held: found.held,
        since: found.held_at,
        messages: folders.iter().map(|folder| folder.messages).sum(),
        bytes: folders.iter().map(|folder| folder.bytes).sum(),
        folders,
        detail: found.trouble.as_ref().filter(|_| found.held).map(Detail::of),
    }))
}

/// What the brake stopped was meant: it is removed from the standby too, and the mailbox goes on.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/release", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Because,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn release(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(because): Body<Because>,
) -> Result<Response> {
    let mailbox = held_mailbox(&api, &caller, &address, &which).await?;
    ask_one(&api, &caller, "release", mailbox, &because.reason).await
}

/// What the brake stopped was not meant: the standby keeps it, and the mailbox goes on.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/discard", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Because,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn discard(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(because): Body<Because>,
) -> Result<Response> {
    let mailbox = held_mailbox(&api, &caller, &address, &which).await?;
    ask_one(&api, &caller, "discard", mailbox, &because.reason).await
}

async fn held_mailbox(api: &Api, caller: &Caller, address: &str, which: &WhichParams) -> Result<(MailboxId, String)> {
    let found: mailbox::Mailbox = mailboxes::find(api, caller, address, which.primary.as_deref()).await?;
    if found.held {
        return Ok((MailboxId(found.mailbox_id), found.address));
    }
    Err(ApiError::new(
        Kind::Conflict,
        "the mailbox is not held: there is nothing to decide",
        "`understudy mailbox list --state held` names those that are",
    ))
}
