//! `/history`: what happened, newest first: the same events that `/events` tells as they happen.

use axum::{Json, extract::State};
use serde::Deserialize;
use understudy_database::event::{self, Past};
use understudy_protocol::MailboxId;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::{events::Event, mailboxes},
    auth::Caller,
    cursor::{self, Page},
    error::{Problem, Result},
    extract::{Params, given},
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// Only what concerns the mailbox with this address.
    mailbox: Option<String>,
    /// Name of its primary, where the address is protected on several.
    primary: Option<String>,
    /// Only what belongs to this run.
    run: Option<Uuid>,
    /// Only events of this kind.
    kind: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
}

/// Past events, newest first.
#[utoipa::path(get, path = "/api/v1/history", tag = "events", params(HistoryParams),
    responses((status = 200, body = Page<Event>), (status = 404, body = Problem)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<HistoryParams>,
) -> Result<Json<Page<Event>>> {
    let limit = cursor::limit(params.limit)?;
    let mailbox = match given(params.mailbox.as_ref()) {
        Some(address) => {
            let found = mailboxes::find(&api, &caller, address, params.primary.as_deref()).await?;
            Some(MailboxId(found.mailbox_id))
        }
        None => None,
    };
    let past = Past {
        mailbox,
        run: params.run,
        kind: given(params.kind.as_ref()),
        before: cursor::decode(params.after.as_deref())?,
        limit: limit + 1,
    };
    let events = event::past(&api.pool, &caller.scope, &past).await?;
    Ok(Json(Page::of(events, limit, |event| event.event_id, Event::from)))
}
