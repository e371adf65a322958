//! What is inside a mailbox: its folders on both sides, and the transactions of its journal.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_database::inside::{self, Past};
use understudy_protocol::{Change, MailboxId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::{self, WhichParams},
    auth::Caller,
    cursor::{self, Page},
    error::{Problem, Result},
    extract::{Name, Params},
    state::Api,
};

/// A transaction is read whole to say what is in it: no page has more of them.
const LONGEST_PAGE: i64 = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(folders)).routes(routes!(transactions))
}

/// A folder on both sides, as of the last transaction applied.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Folder {
    /// For people: components joined with `/`.
    #[schema(example = "Archive/2026")]
    folder: String,
    path: Vec<String>,
    special_use: Vec<String>,
    /// False for a level that only holds other folders.
    selectable: bool,
    primary: FolderSide,
    /// Null until the folder is there.
    standby: Option<FolderSide>,
    /// Whether the standby's messages have the primary's UIDs, and if not, why.
    uid_continuity: bool,
    uid_continuity_lost: String,
}

/// A folder on one side.
#[derive(Debug, Serialize, ToSchema)]
struct FolderSide {
    /// As the server spells it; empty where it is not known.
    name: String,
    uid_validity: i64,
    /// Messages; on the standby, those that it holds as they are.
    messages: i64,
    /// Their bytes, on the primary.
    bytes: Option<i64>,
}

impl From<inside::Folder> for Folder {
    fn from(folder: inside::Folder) -> Self {
        let standby = FolderSide {
            name: folder.standby_name,
            uid_validity: folder.standby_uid_validity,
            messages: folder.standby_messages,
            bytes: None,
        };
        Self {
            folder: folder.path.to_string(),
            path: folder.path.components().to_vec(),
            special_use: folder.special_use,
            selectable: folder.selectable,
            primary: FolderSide {
                name: String::new(),
                uid_validity: folder.uid_validity,
                messages: folder.messages,
                bytes: Some(folder.bytes),
            },
            standby: Some(standby).filter(|there| !there.name.is_empty()),
            uid_continuity: folder.uids_kept,
            uid_continuity_lost: folder.uids_lost_reason,
        }
    }
}

/// A transaction of a mailbox's journal, and what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JournalEntry {
    seq: i64,
    epoch: i64,
    /// Part of the first copy.
    seed: bool,
    captured_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    /// Null while it waits.
    applied_at: Option<DateTime<Utc>>,
    content_bytes: i64,
    messages_added: u64,
    messages_removed: u64,
    messages_flagged: u64,
    folders_created: u64,
    folders_renamed: u64,
    folders_deleted: u64,
    /// Special uses and subscriptions.
    other: u64,
}

impl From<Past> for JournalEntry {
    fn from(past: Past) -> Self {
        let mut entry = Self {
            seq: past.transaction.seq.0,
            epoch: past.transaction.epoch.0,
            seed: past.transaction.seed,
            captured_at: past.transaction.captured_at,
            received_at: past.received_at,
            applied_at: past.applied_at,
            content_bytes: past.content_bytes,
            messages_added: 0,
            messages_removed: 0,
            messages_flagged: 0,
            folders_created: 0,
            folders_renamed: 0,
            folders_deleted: 0,
            other: 0,
        };
        for change in &past.transaction.changes {
            match change {
                Change::MessageAdded(_) => entry.messages_added += 1,
                Change::MessagesExpunged { uids, .. } => entry.messages_removed += uids.len(),
                Change::FlagsSet { uids, .. } => entry.messages_flagged += uids.len(),
                Change::FolderCreated { .. } => entry.folders_created += 1,
                Change::FolderRenamed { .. } => entry.folders_renamed += 1,
                Change::FolderDeleted { .. } => entry.folders_deleted += 1,
                Change::SpecialUsesChanged { .. } | Change::SubscriptionChanged { .. } => entry.other += 1,
            }
        }
        entry
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JournalParams {
    /// Name of the primary, where the address is protected on several.
    primary: Option<String>,
    /// At most 100 come at once.
    limit: Option<i64>,
    after: Option<String>,
}

/// The folders of a mailbox on both sides, by name.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/folders", tag = "mailboxes",
    params(("address" = String, Path), WhichParams),
    responses((status = 200, body = Page<Folder>), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn folders(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
) -> Result<Json<Page<Folder>>> {
    let mailbox = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let mut folders = inside::folders(&api.pool, MailboxId(mailbox.mailbox_id)).await?;
    folders.sort_by(|a, b| (!a.path.is_inbox(), &a.path).cmp(&(!b.path.is_inbox(), &b.path)));
    Ok(Json(Page { items: folders.into_iter().map(Folder::from).collect(), next: None }))
}

/// The transactions of a mailbox that the recovery site received, newest first.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/transactions", tag = "mailboxes",
    params(("address" = String, Path), JournalParams),
    responses((status = 200, body = Page<JournalEntry>), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn transactions(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(params): Params<JournalParams>,
) -> Result<Json<Page<JournalEntry>>> {
    let limit = cursor::limit(params.limit)?.min(LONGEST_PAGE);
    let before: Option<i64> = cursor::decode(params.after.as_deref())?;
    let mailbox = mailboxes::find(&api, &caller, &address, params.primary.as_deref()).await?;
    let past = inside::transactions(&api.pool, MailboxId(mailbox.mailbox_id), before, limit + 1).await?;
    Ok(Json(Page::of(past, limit, |past| past.transaction.seq.0, JournalEntry::from)))
}
