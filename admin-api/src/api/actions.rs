//! What can be done with protected mailboxes, one or many: pause, resume, verify, wait at a barrier.
//!
//! Out: a run each. Pausing and resuming are done with the answer; the rest is the recovery gateway's.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};
use understudy_database::{mailbox, run};
use understudy_protocol::MailboxId;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        mailboxes::{self, WhichParams, choices, meant},
        runs::{Run, accepted},
        servers,
    },
    auth::Caller,
    error::{ApiError, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    nearest::nearest,
    state::Api,
};

/// How long a barrier waits unless asked otherwise.
const DEFAULT_BARRIER_SECONDS: u32 = 60;
/// The longest a barrier waits.
const LONGEST_BARRIER_SECONDS: u32 = 86_400;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(verify))
        .routes(routes!(barrier))
        .routes(routes!(barriers))
        .routes(routes!(verifications))
}

/// Why; for the record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "The server is being renewed."}))]
pub(crate) struct Because {
    #[serde(default)]
    pub(crate) reason: String,
}

/// How to compare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"deep": true}))]
pub(crate) struct Verify {
    /// Read every message on both sides, not only what servers say of them.
    #[serde(default)]
    deep: bool,
    /// Make the sides equal where they are not.
    #[serde(default)]
    repair: bool,
    #[serde(default)]
    reason: String,
}

/// How long to wait.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"timeout_seconds": 60}))]
pub(crate) struct Barrier {
    #[serde(default = "default_barrier_seconds")]
    timeout_seconds: u32,
    #[serde(default)]
    reason: String,
}

/// Some mailboxes by address, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"addresses": ["ana@example.org", "ben@example.org"], "timeout_seconds": 60}))]
pub(crate) struct Barriers {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    /// Where addresses are protected on several primaries: which is meant.
    #[serde(default)]
    primary: Option<String>,
    #[serde(default = "default_barrier_seconds")]
    timeout_seconds: u32,
    #[serde(default)]
    reason: String,
}

/// Some mailboxes by address, or all, and how to compare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"addresses": ["ana@example.org", "ben@example.org"], "deep": true}))]
pub(crate) struct Verifications {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    /// Where addresses are protected on several primaries: which is meant.
    #[serde(default)]
    primary: Option<String>,
    /// Read every message on both sides, not only what servers say of them.
    #[serde(default)]
    deep: bool,
    /// Make the sides equal where they are not.
    #[serde(default)]
    repair: bool,
    #[serde(default)]
    reason: String,
}

fn default_barrier_seconds() -> u32 {
    DEFAULT_BARRIER_SECONDS
}

/// Stops a mailbox. What was captured stays; nothing is applied until it is resumed.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/pause", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Because,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn pause(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(because): Body<Because>,
) -> Result<Response> {
    stop_or_go(&api, &caller, "pause", &address, &which, &because.reason).await
}

/// Lets a mailbox go on, and tries at once again whatever stood in its way.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/resume", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Because,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(because): Body<Because>,
) -> Result<Response> {
    stop_or_go(&api, &caller, "resume", &address, &which, &because.reason).await
}

async fn stop_or_go(
    api: &Api,
    caller: &Caller,
    kind: &str,
    address: &str,
    which: &WhichParams,
    reason: &str,
) -> Result<Response> {
    let found = mailboxes::find(api, caller, address, which.primary.as_deref()).await?;
    let id = MailboxId(found.mailbox_id);
    let mut transaction = caller.begin(api, reason).await?;
    match kind {
        "pause" => mailbox::pause(&mut transaction, id, &caller.name).await?,
        _ => mailbox::resume(&mut transaction, id, &caller.name).await?,
    }
    let state = mailbox::get(&mut *transaction, id).await?.map_or(found.state, |mailbox| mailbox.state);
    let request = json!({"addresses": [&found.address], "mailbox_ids": [id]});
    let new = run::NewRun { kind, mailbox: Some(id), server_id: None, request, reason, requested_by: &caller.name };
    let result = json!({"mailboxes": [{"address": found.address, "state": state}]});
    let run = run::insert_done(&mut transaction, caller.tenant, &new, &result).await?;
    transaction.commit().await?;
    Ok(accepted(run))
}

/// Compares the two sides of a mailbox message by message; with `repair` it makes them equal, else it changes nothing.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/verify", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Verify,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn verify(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(verify): Body<Verify>,
) -> Result<Response> {
    let one = one(&api, &caller, &address, &which).await?;
    ask(&api, &caller, "verify", one, json!({"deep": verify.deep, "repair": verify.repair}), &verify.reason).await
}

/// A run that ends when every change made on the active side before now is visible on the other.
#[utoipa::path(post, path = "/api/v1/mailboxes/{address}/barrier", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = Barrier,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn barrier(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(barrier): Body<Barrier>,
) -> Result<Response> {
    check_timeout(barrier.timeout_seconds)?;
    let one = one(&api, &caller, &address, &which).await?;
    let options = json!({"timeout_seconds": barrier.timeout_seconds});
    ask(&api, &caller, "barrier", one, options, &barrier.reason).await
}

/// One barrier for many mailboxes.
#[utoipa::path(post, path = "/api/v1/barriers", tag = "mailboxes", request_body = Barriers,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn barriers(State(api): State<Api>, caller: Caller, Body(barriers): Body<Barriers>) -> Result<Response> {
    check_timeout(barriers.timeout_seconds)?;
    let primary = barriers.primary.as_deref();
    let selected = select(&api, &caller, barriers.addresses.as_deref(), barriers.all, primary).await?;
    let options = json!({"timeout_seconds": barriers.timeout_seconds});
    ask(&api, &caller, "barrier", selected, options, &barriers.reason).await
}

/// Compares the two sides of many mailboxes in one run.
#[utoipa::path(post, path = "/api/v1/verifications", tag = "mailboxes", request_body = Verifications,
    responses((status = 202, body = Run), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn verifications(
    State(api): State<Api>,
    caller: Caller,
    Body(verifications): Body<Verifications>,
) -> Result<Response> {
    let primary = verifications.primary.as_deref();
    let selected = select(&api, &caller, verifications.addresses.as_deref(), verifications.all, primary).await?;
    let options = json!({"deep": verifications.deep, "repair": verifications.repair});
    ask(&api, &caller, "verify", selected, options, &verifications.reason).await
}

/// The mailboxes a run is about.
enum Selected {
    Some(Vec<(MailboxId, String)>),
    /// All that are protected when the run begins.
    All,
}

async fn one(api: &Api, caller: &Caller, address: &str, which: &WhichParams) -> Result<Selected> {
    let mailbox = mailboxes::find(api, caller, address, which.primary.as_deref()).await?;
    Ok(Selected::Some(vec![(MailboxId(mailbox.mailbox_id), mailbox.address)]))
}

/// Finds each mailbox named, or says of each address that means none or several what is wrong.
async fn select(
    api: &Api,
    caller: &Caller,
    addresses: Option<&[String]>,
    all: bool,
    primary: Option<&str>,
) -> Result<Selected> {
    let addresses = match (addresses, all) {
        (None, true) if caller.scope.is_whole() => return Ok(Selected::All),
        (None, true) => return Ok(Selected::Some(mailbox::all(&api.pool, &caller.scope).await?)),
        (Some(addresses), false) if !addresses.is_empty() => addresses,
        _ => {
            let detail = "name either some `addresses` or `\"all\": true`";
            return Err(ApiError::invalid(vec![ProblemItem::at("/addresses", detail)]));
        }
    };
    Ok(Selected::Some(named(api, caller, addresses, primary, "/addresses").await?))
}

/// The mailboxes that these addresses mean; `pointer` is where the list stands in the request.
pub(crate) async fn named(
    api: &Api,
    caller: &Caller,
    addresses: &[String],
    primary: Option<&str>,
    pointer: &str,
) -> Result<Vec<(MailboxId, String)>> {
    if let Some(name) = primary {
        servers::find(api, caller, name).await?;
    }
    let matches = mailbox::matching(&api.pool, &caller.scope, addresses, primary).await?;
    let mut selected = Vec::new();
    let mut errors = Vec::new();
    let mut rest = matches.as_slice();
    for (index, address) in addresses.iter().enumerate() {
        let (here, later) = rest.split_at(rest.partition_point(|found| found.index <= index));
        rest = later;
        match meant(address, here).as_slice() {
            [one] => selected.push((one.mailbox, one.address.clone())),
            [] => errors.push((index, format!("there is no protected mailbox `{address}`"), true)),
            several => {
                let detail = format!("`{address}` may mean {}; name the `primary`", choices(several));
                errors.push((index, detail, false));
            }
        }
    }
    if errors.is_empty() {
        selected.sort_unstable_by_key(|(mailbox, _)| *mailbox);
        selected.dedup();
        return Ok(selected);
    }
    Err(ApiError::invalid(explain(api, caller, addresses, pointer, errors).await?))
}

async fn explain(
    api: &Api,
    caller: &Caller,
    addresses: &[String],
    pointer: &str,
    errors: Vec<(usize, String, bool)>,
) -> Result<Vec<ProblemItem>> {
    let known = mailbox::all(&api.pool, &caller.scope).await?;
    let items = errors.into_iter().map(|(index, detail, is_unknown)| ProblemItem {
        pointer: Some(format!("{pointer}/{index}")),
        index: Some(index),
        line: None,
        detail,
        nearest: is_unknown
            .then(|| nearest(&addresses[index], known.iter().map(|(_, address)| address.as_str())))
            .flatten(),
    });
    Ok(items.collect())
}

fn check_timeout(seconds: u32) -> Result<()> {
    if (1..=LONGEST_BARRIER_SECONDS).contains(&seconds) {
        return Ok(());
    }
    let detail = format!("a barrier waits 1 to {LONGEST_BARRIER_SECONDS} seconds");
    Err(ApiError::invalid(vec![ProblemItem::at("/timeout_seconds", detail)]))
}

pub(crate) async fn ask_one(
    api: &Api,
    caller: &Caller,
    kind: &str,
    mailbox: (MailboxId, String),
    reason: &str,
) -> Result<Response> {
    ask(api, caller, kind, Selected::Some(vec![mailbox]), json!({}), reason).await
}

async fn ask(
    api: &Api,
    caller: &Caller,
    kind: &str,
    selected: Selected,
    mut request: Value,
    reason: &str,
) -> Result<Response> {
    let mut mailbox = None;
    match selected {
        Selected::All => request["all"] = json!(true),
        Selected::Some(mailboxes) => {
            if let [(only, _)] = mailboxes.as_slice() {
                mailbox = Some(*only);
            }
            let (ids, addresses): (Vec<_>, Vec<_>) = mailboxes.into_iter().unzip();
            request["addresses"] = json!(addresses);
            request["mailbox_ids"] = json!(ids);
        }
    }
    let new = run::NewRun { kind, mailbox, server_id: None, request, reason, requested_by: &caller.name };
    let mut transaction = caller.begin(api, reason).await?;
    let run = run::insert(&mut transaction, caller.tenant, &new).await?;
    transaction.commit().await?;
    Ok(accepted(run))
}
