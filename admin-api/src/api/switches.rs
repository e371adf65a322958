//! Changes of side: `/switchovers`, `/switchbacks`, and the same for one mailbox.
//!
//! Out: one run for all mailboxes meant. Keeps true: a selector that means nothing says so; whoever asks for what is under way
//! already gets that run.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use understudy_database::{
    run,
    switch::{self, Selector},
};
use understudy_protocol::MailboxId;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        actions::named,
        mailboxes::{self, WhichParams},
        runs::{Run, accepted},
        servers,
    },
    auth::Caller,
    error::{ApiError, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(switchover))
        .routes(routes!(switchback))
        .routes(routes!(switchovers))
        .routes(routes!(switchbacks))
}

/// `planned` loses nothing or does not happen; `emergency` does not wait for the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    #[default]
    Planned,
    Emergency,
}

/// How to move one mailbox to its standby.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"mode": "planned", "reason": "The server is being renewed."}))]
pub(crate) struct Over {
    mode: Mode,
    /// In an emergency: how many transactions may be lost at most. Any number when it is not given.
    max_loss: Option<u32>,
    reason: String,
    /// Whether the user is told, as the notification settings say; false tells nobody but administrators.
    notify: Option<bool>,
}

/// How to bring one mailbox home.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"dry_run": true, "reason": "What would change?"}))]
pub(crate) struct Home {
    /// Only say what would change.
    dry_run: bool,
    reason: String,
    /// Whether the user is told, as the notification settings say; false tells nobody but administrators.
    notify: Option<bool>,
}

/// Which mailboxes: by exactly one of its members.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    addresses: Option<Vec<String>>,
    /// Where addresses are protected on several primaries: which is meant.
    primary: Option<String>,
    /// Every mailbox of this primary.
    server: Option<String>,
    group: Option<String>,
    all: bool,
}

/// Many mailboxes to move to their standby.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"selector": {"group": "board"}, "mode": "planned", "reason": "The server is being renewed."}))]
pub(crate) struct Switchovers {
    selector: Which,
    #[serde(default)]
    mode: Mode,
    /// In an emergency: how many transactions of a mailbox may be lost at most. Any number when it is not given.
    #[serde(default)]
    max_loss: Option<u32>,
    #[serde(default)]
    reason: String,
    /// Whether users are told, as the notification settings say; false tells nobody but administrators.
    #[serde(default)]
    notify: Option<bool>,
}

/// Many mailboxes to bring home.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"selector": {"server": "mail-a"}, "reason": "The new server is ready."}))]
pub(crate) struct Switchbacks {
    selector: Which,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    reason: String,
    /// Whether users are told, as the notification settings say; false tells nobody but administrators.
    #[serde(default)]
    notify: Option<bool>,
}

/// Moves a mailbox to its standby.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/switchover", tag = "switching",
    params(("address" = String, Path), WhichParams), request_body = Over,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn switchover(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(over): Body<Over>,
) -> Result<Response> {
    let one = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let meant = vec![(MailboxId(one.mailbox_id), one.address)];
    ask(&api, &caller, "switchover", meant, told(options(over.mode, over.max_loss)?, over.notify), &over.reason).await
}

/// Brings a mailbox home to its primary.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/switchback", tag = "switching",
    params(("address" = String, Path), WhichParams), request_body = Home,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn switchback(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(home): Body<Home>,
) -> Result<Response> {
    let one = mailboxes::find(&api, &caller, &address, which.primary.as_deref()).await?;
    let meant = vec![(MailboxId(one.mailbox_id), one.address)];
    ask(&api, &caller, "switchback", meant, told(json!({"dry_run": home.dry_run}), home.notify), &home.reason).await
}

/// Moves many mailboxes to their standbys in one run.
#[utoipa::path(post, path = "/api/v1/switchovers", tag = "switching", request_body = Switchovers,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn switchovers(State(api): State<Api>, caller: Caller, Body(asked): Body<Switchovers>) -> Result<Response> {
    let meant = meant(&api, &caller, &asked.selector).await?;
    let request = told(options(asked.mode, asked.max_loss)?, asked.notify);
    ask(&api, &caller, "switchover", meant, request, &asked.reason).await
}

/// Brings many mailboxes home in one run.
#[utoipa::path(post, path = "/api/v1/switchbacks", tag = "switching", request_body = Switchbacks,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn switchbacks(State(api): State<Api>, caller: Caller, Body(asked): Body<Switchbacks>) -> Result<Response> {
    let meant = meant(&api, &caller, &asked.selector).await?;
    let request = told(json!({"dry_run": asked.dry_run}), asked.notify);
    ask(&api, &caller, "switchback", meant, request, &asked.reason).await
}

fn options(mode: Mode, max_loss: Option<u32>) -> Result<Value> {
    if mode == Mode::Planned && max_loss.is_some() {
        let detail = "a planned switchover loses nothing; `max_loss` belongs to `\"mode\": \"emergency\"`";
        return Err(ApiError::invalid(vec![ProblemItem::at("/max_loss", detail)]));
    }
    Ok(json!({"mode": mode, "max_loss": max_loss}))
}

/// With whether users are told, where that was said.
fn told(mut request: Value, notify: Option<bool>) -> Value {
    if let Some(notify) = notify {
        request["notify"] = json!(notify);
    }
    request
}

/// The mailboxes a selector means, those to be moved first at the front. None is an error that says so.
async fn meant(api: &Api, caller: &Caller, which: &Which) -> Result<Vec<(MailboxId, String)>> {
    let given = [which.addresses.is_some(), which.server.is_some(), which.group.is_some(), which.all];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let detail = "name exactly one of `addresses`, `server`, `group` and `\"all\": true`";
        return Err(ApiError::invalid(vec![ProblemItem::at("/selector", detail)]));
    }
    let ids: Option<Vec<i64>> = match &which.addresses {
        Some(addresses) => {
            let named = named(api, caller, addresses, which.primary.as_deref(), "/selector/addresses").await?;
            Some(named.into_iter().map(|(mailbox, _)| mailbox.0).collect())
        }
        None => None,
    };
    if let Some(name) = &which.server {
        servers::find(api, caller, name).await?;
    }
    let selector =
        Selector { mailboxes: ids.as_deref(), server: which.server.as_deref(), group: which.group.as_deref() };
    let meant = switch::selected(&api.pool, &caller.scope, &selector).await?;
    if !meant.is_empty() {
        return Ok(meant);
    }
    let detail = match (&which.server, &which.group) {
        (Some(server), _) => format!("no protected mailbox has the primary `{server}`"),
        (_, Some(group)) => format!("no protected mailbox is in group `{group}`"),
        _ => "no mailbox is protected".to_owned(),
    };
    Err(ApiError::invalid(vec![ProblemItem::at("/selector", detail)]))
}

/// A run for these mailboxes: a new one, or the one that is under way for the same.
async fn ask(
    api: &Api,
    caller: &Caller,
    kind: &str,
    meant: Vec<(MailboxId, String)>,
    mut request: Value,
    reason: &str,
) -> Result<Response> {
    let mailbox = if let [(only, _)] = meant.as_slice() { Some(*only) } else { None };
    let (ids, addresses): (Vec<i64>, Vec<String>) =
        meant.into_iter().map(|(mailbox, address)| (mailbox.0, address)).unzip();
    request["mailbox_ids"] = json!(ids);
    request["addresses"] = json!(addresses);
    let mut transaction = caller.begin(api, reason).await?;
    switch::lock_requests(&mut transaction).await?;
    if request["dry_run"] != json!(true)
        && let Some(same) = switch::same_run(&mut *transaction, caller.tenant, kind, &request["mailbox_ids"]).await?
        && let Some(run) = run::get(&mut *transaction, same).await?
    {
        return Ok(accepted(run));
    }
    let new = run::NewRun { kind, mailbox, server_id: None, request, reason, requested_by: &caller.name };
    let run = run::insert(&mut transaction, caller.tenant, &new).await?;
    transaction.commit().await?;
    Ok(accepted(run))
}
