//! `/audit`: every write with who, what, why, before and after; to read, to export, to verify.

use std::fmt::Write as _;

use axum::{
    Json,
    body::Body as HttpBody,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_database::audit::{self, Filter};
use understudy_protocol::Digest;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    audit_heads,
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Result},
    extract::{Params, given},
    state::Api,
};

/// Entries read at once for an export.
const BATCH: i64 = 1000;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export)).routes(routes!(verify))
}

/// One write.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// Its place in the chain; null in the moment before it is sealed.
    position: Option<i64>,
    at: DateTime<Utc>,
    /// `user NAME`, `token NAME`, `local administrator`, or the program and its database user.
    #[schema(example = "user ann")]
    who: String,
    #[schema(example = "mailbox changed")]
    action: String,
    /// What it was done to.
    #[schema(example = "ana@example.org")]
    subject: String,
    why: String,
    /// What was there before; only what changed.
    before: Option<Value>,
    /// What was there then; only what changed.
    after: Option<Value>,
    /// BLAKE3 over the entry and the hash of the one before.
    hash: Option<String>,
}

impl From<audit::Entry> for AuditEntry {
    fn from(entry: audit::Entry) -> Self {
        let value = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            position: entry.position,
            at: entry.at,
            who: entry.who,
            action: entry.action,
            subject: entry.subject,
            why: entry.why,
            before: value(entry.before),
            after: value(entry.after),
            hash: entry.hash.and_then(|hash| Digest::try_from(&hash[..]).ok()).map(|hash| hash.to_string()),
        }
    }
}

/// What became of the chain.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditVerdict {
    /// Every entry is the one that was sealed, in its place, and none lacks.
    intact: bool,
    /// Of all tenants.
    entries: i64,
    /// Written a moment ago and not yet in the chain.
    unsealed: i64,
    /// The last one's place and hash. Keep them elsewhere: they show later whether the end was cut off.
    position: Option<i64>,
    hash: Option<String>,
    /// How many heads, kept in the file of heads, the chain was compared with.
    heads_compared: i64,
    /// Where it breaks, first things first.
    problems: Vec<AuditProblem>,
}

/// Something is not as it was sealed.
#[derive(Debug, Serialize, ToSchema)]
struct AuditProblem {
    position: i64,
    reason: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only what this one did, such as `user ann`.
    who: Option<String>,
    /// Only this action (`mailbox changed`), or those of this kind of thing (`mailbox`).
    action: Option<String>,
    /// Only what was done to this.
    subject: Option<String>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    limit: Option<i64>,
    after: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParams {
    /// One JSON object a line unless it is to be CSV.
    #[param(inline)]
    format: Option<Format>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Jsonl,
    Csv,
}

/// Entries of the tenant, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListParams),
    responses((status = 200, body = Page<AuditEntry>)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AuditEntry>>> {
    let limit = cursor::limit(params.limit)?;
    let filter = Filter {
        who: given(params.who.as_ref()),
        action: given(params.action.as_ref()),
        subject: given(params.subject.as_ref()),
        from: params.from,
        to: params.to,
        before: cursor::decode(params.after.as_deref())?,
        limit: limit + 1,
    };
    let entries = audit::list(&api.pool, caller.tenant, &filter).await?;
    Ok(Json(Page::of(entries, limit, |entry| entry.audit_id, AuditEntry::from)))
}

/// All entries of the tenant, newest first, as JSON lines or CSV.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(ExportParams),
    responses((status = 200, content((String = "application/jsonl"), (String = "text/csv")),
        description = "One AuditEntry a line; with `format=csv` the same as CSV")))]
async fn export(State(api): State<Api>, caller: Caller, Params(params): Params<ExportParams>) -> Result<Response> {
    let format = params.format.unwrap_or_default();
    let (kind, name) = match format {
        Format::Jsonl => ("application/jsonl", "audit.jsonl"),
        Format::Csv => ("text/csv; charset=utf-8; header=present", "audit.csv"),
    };
    // The first page is read before the answer begins, so that a database that is away is an error and not half a file.
    let first = page(&api, &caller, &params, None).await?;
    let head = if format == Format::Csv { CSV_HEAD.to_owned() } else { String::new() };
    let start = (Some(first), head);
    let pages =
        stream::try_unfold((api, caller, params, start), move |(api, caller, params, (entries, head))| async move {
            let Some(entries) = entries else { return Ok::<_, ApiError>(None) };
            let last = entries.last().map(|entry| entry.audit_id);
            let is_full = i64::try_from(entries.len()).unwrap_or(i64::MAX) >= BATCH;
            let mut text = head;
            for entry in entries {
                line(&mut text, entry.into(), format);
            }
            let next = if is_full { Some(page(&api, &caller, &params, last).await?) } else { None };
            Ok(Some((Bytes::from(text), (api, caller, params, (next, String::new())))))
        });
    let body = HttpBody::from_stream(futures_util::TryStreamExt::map_err(pages, |_| {
        std::io::Error::other("the database does not answer")
    }));
    let disposition = format!("attachment; filename=\"{name}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body).into_response())
}

async fn page(api: &Api, caller: &Caller, params: &ExportParams, before: Option<i64>) -> Result<Vec<audit::Entry>> {
    let filter = Filter { from: params.from, to: params.to, before, limit: BATCH, ..Filter::default() };
    Ok(audit::list(&api.pool, caller.tenant, &filter).await?)
}

const CSV_HEAD: &str = "position,at,who,action,subject,why,before,after,hash\r\n";

fn line(text: &mut String, entry: AuditEntry, format: Format) {
    if format == Format::Jsonl {
        let _ = writeln!(text, "{}", serde_json::to_string(&entry).unwrap_or_default());
        return;
    }
    let json = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
    let cells = [
        entry.position.map(|position| position.to_string()).unwrap_or_default(),
        entry.at.to_rfc3339(),
        entry.who,
        entry.action,
        entry.subject,
        entry.why,
        json(&entry.before),
        json(&entry.after),
        entry.hash.unwrap_or_default(),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell)).collect();
    let _ = write!(text, "{}\r\n", cells.join(","));
}

/// A cell that a spreadsheet shows as text: nothing a user wrote is taken for a formula.
fn csv_cell(text: &str) -> String {
    let starts_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let guard = if starts_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// Reads the whole chain again and compares it with the heads kept outside the database.
#[utoipa::path(post, path = "/api/v1/audit/verify", tag = "audit", responses((status = 200, body = AuditVerdict)))]
async fn verify(State(api): State<Api>) -> Result<Json<AuditVerdict>> {
    let heads = audit_heads::read(api.heads.as_deref()).await?;
    let mut transaction = api.pool.begin().await?;
    let verdict = audit::verify(&mut transaction, &heads).await?;
    Ok(Json(AuditVerdict {
        intact: verdict.problems.is_empty(),
        entries: verdict.entries,
        unsealed: verdict.unsealed,
        position: verdict.head.as_ref().map(|head| head.position),
        hash: verdict.head.as_ref().map(|head| Digest(head.hash).to_string()),
        heads_compared: i64::try_from(heads.len()).unwrap_or(i64::MAX),
        problems: verdict
            .problems
            .into_iter()
            .map(|broken| AuditProblem { position: broken.position, reason: broken.reason })
            .collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::csv_cell;

    #[test]
    fn nothing_in_a_csv_is_a_formula() {
        for text in ["=HYPERLINK(\"x\")", "+1", "-1+2", "@SUM(A1)", "\tx", "\rx"] {
            assert!(csv_cell(text).starts_with("\"'"), "{text:?}");
        }
        assert_eq!(csv_cell("say \"hi\""), "\"say \"\"hi\"\"\"");
    }
}
