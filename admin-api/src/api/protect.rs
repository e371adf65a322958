//! `POST /mailboxes`: puts mailboxes under protection, one or a list. A list that is half wrong changes nothing unless
//! `skip_invalid` says so.

use std::collections::{HashMap, HashSet};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use understudy_database::{
    mailbox::{self, NewMailbox, Occupied},
    policy, server, tenant,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        candidates::{Candidate, Refused, Servers, listed, refuse_repeated},
        policies, runs, servers,
    },
    auth::Caller,
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::Body,
    state::Api,
};

/// Mailboxes that an estimate looks at.
const MEASURED: usize = 20;
/// Of those that are protected already, an estimate names so many.
const NAMED: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(protect))
}

/// Mailboxes to protect, in one of `address`, `addresses`, `items` or `csv`; the rest holds for each that does not say otherwise.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"addresses": ["ana@example.org"], "primary": "mail-a", "standby": "dr-1", "group": "board"}))]
pub(crate) struct Protect {
    /// What the primary takes as a log-in: one mailbox.
    pub(crate) address: Option<String>,
    /// What the primary takes as log-ins.
    pub(crate) addresses: Option<Vec<String>>,
    pub(crate) items: Option<Vec<ProtectItem>>,
    /// A whole file; its first line names the columns, of which only `address` is required.
    pub(crate) csv: Option<String>,
    /// Do not protect, but ask the primary which users it serves: the answer is a run.
    #[serde(default)]
    pub(crate) discover: bool,
    /// Do not protect, but look how much these users have, at some of them: the answer is a run. Of one primary at a time.
    #[serde(default)]
    pub(crate) estimate: bool,
    pub(crate) primary: Option<String>,
    pub(crate) standby: Option<String>,
    /// The log-in on the standby, where it is another; for one mailbox.
    pub(crate) standby_address: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) group: Option<String>,
    /// Protect what can be and list the rest, instead of changing nothing when something is wrong.
    #[serde(default)]
    pub(crate) skip_invalid: bool,
}

/// One mailbox of a list.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProtectItem {
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) primary: Option<String>,
    #[serde(default)]
    pub(crate) standby: Option<String>,
    #[serde(default)]
    pub(crate) standby_address: Option<String>,
    #[serde(default)]
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Where it stands in the file it was read from; errors name it.
    #[serde(default)]
    pub(crate) line: Option<u64>,
}

/// What came of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Protected {
    /// How many are protected now and were not before.
    protected: usize,
    /// How many were protected just so already.
    unchanged: usize,
    mailboxes: Vec<ProtectedMailbox>,
    skipped: Vec<Skipped>,
}

/// A mailbox that is protected now.
#[derive(Debug, Serialize, ToSchema)]
struct ProtectedMailbox {
    address: String,
    primary: String,
    standby: String,
    standby_address: String,
    outcome: Outcome,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Protected,
    Unchanged,
}

/// A mailbox that was left out, and why.
#[derive(Debug, Serialize, ToSchema)]
struct Skipped {
    address: String,
    #[serde(flatten)]
    problem: ProblemItem,
}

impl From<Refused> for Skipped {
    fn from(refused: Refused) -> Self {
        Self { address: refused.address, problem: refused.problem }
    }
}

/// Protects mailboxes. Safe to repeat.
#[utoipa::path(post, path = "/api/v1/mailboxes", tag = "mailboxes", request_body = Protect,
    responses(
        (status = 201, description = "Protected", body = Protected),
        (status = 200, description = "All were protected already", body = Protected),
        (status = 202, description = "`discover`, `estimate`: a run that lists users, or says how much they have", body = runs::Run),
        (status = 409, body = Problem),
        (status = 422, description = "Nothing was changed; `errors` names each that is wrong", body = Problem)))]
async fn protect(State(api): State<Api>, caller: Caller, Body(request): Body<Protect>) -> Result<Response> {
    if request.discover {
        return discover(&api, &caller, &request).await;
    }
    let (candidates, mut refused) = listed(&request)?;
    // On a server that is shared, only its provider knows whose mailbox is whose.
    let servers = match caller.home {
        tenant::PROVIDER => server::names(&api.pool, caller.tenant).await?,
        _ => server::own_names(&api.pool, caller.tenant).await?,
    };
    let servers = Servers::new(servers);
    let names = policy::names(&api.pool, caller.tenant).await?;
    let mut rows = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match servers.resolve(&candidate) {
            Ok(new) => match policies::problem("", &new.policy, &names) {
                Some(problem) => refused.push(*candidate.refused("policy", problem.detail, problem.nearest)),
                None => rows.push((candidate, new)),
            },
            Err(problem) => refused.push(*problem),
        }
    }
    let (rows, repeated) = refuse_repeated(rows);
    refused.extend(repeated);
    if request.estimate {
        return estimate(&api, &caller, rows, refused).await;
    }

    let mut transaction = caller.begin(&api, "").await?;
    let new: Vec<NewMailbox> = rows.iter().map(|(_, new)| new.clone()).collect();
    let occupied = mailbox::occupied(&mut *transaction, &new).await?;
    let (fresh, mailboxes) = settle(rows, &occupied, &mut refused);
    refused.sort_by_key(|refused| refused.problem.index);
    if !refused.is_empty() && !request.skip_invalid {
        let remedy = "correct what `errors` names, or send `skip_invalid` to leave those out";
        let detail = format!("{} of the list cannot be protected; nothing was changed", refused.len());
        let errors = refused.into_iter().map(|refused| refused.problem).collect();
        return Err(ApiError::new(Kind::Invalid, detail, remedy).with_errors(errors));
    }
    if !fresh.is_empty() {
        mailbox::protect(&mut transaction, caller.tenant, &fresh).await.map_err(overtaken)?;
        transaction.commit().await?;
    }
    let status = if fresh.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
    let protected = Protected {
        protected: fresh.len(),
        unchanged: mailboxes.len() - fresh.len(),
        mailboxes,
        skipped: refused.into_iter().map(Skipped::from).collect(),
    };
    Ok((status, Json(protected)).into_response())
}

/// Tells new mailboxes from those protected already, and refuses those whose place is taken.
fn settle(
    rows: Vec<(Candidate, NewMailbox)>,
    occupied: &[Occupied],
    refused: &mut Vec<Refused>,
) -> (Vec<NewMailbox>, Vec<ProtectedMailbox>) {
    let occupied: HashMap<usize, &Occupied> = occupied.iter().map(|there| (there.index, there)).collect();
    let (mut fresh, mut shown) = (Vec::new(), Vec::new());
    for (index, (candidate, new)) in rows.into_iter().enumerate() {
        let target = (new.standby_server_id, new.standby_address.as_str());
        let there = occupied.get(&index).copied();
        let mirrored_to = there.and_then(|there| there.mirrored_to.as_ref());
        let outcome = match (mirrored_to, there.and_then(|there| there.place_taken_by.as_ref())) {
            (Some((server, address)), _) if (*server, address.as_str()) == target => Outcome::Unchanged,
            (Some(_), _) => {
                let detail =
                    format!("`{}` is protected already, with another standby; unprotect it first", new.address);
                refused.push(*candidate.refused("address", detail, None));
                continue;
            }
            (None, Some((address, primary))) => {
                let standby_address = &new.standby_address;
                let detail =
                    format!("the standby's `{standby_address}` holds the mirror of `{address}` on `{primary}`");
                refused.push(*candidate.refused("standby_address", detail, None));
                continue;
            }
            (None, None) => Outcome::Protected,
        };
        shown.push(ProtectedMailbox {
            address: new.address.clone(),
            primary: candidate.row.primary.unwrap_or_default(),
            standby: candidate.row.standby.unwrap_or_default(),
            standby_address: new.standby_address.clone(),
            outcome,
        });
        if outcome == Outcome::Protected {
            fresh.push(new);
        }
    }
    (fresh, shown)
}

/// Someone else protected one of them between the look and the write.
fn overtaken(error: understudy_database::Error) -> ApiError {
    match error.constraint() {
        Some("mailbox_address_unique" | "mailbox_standby_unique") => ApiError::new(
            Kind::Conflict,
            "one of the mailboxes was protected by someone else just now; nothing was changed",
            "send the list again: what is protected already stays as it is",
        ),
        _ => error.into(),
    }
}

/// Looks at some of those that can be protected and are not yet, spread over the list.
async fn estimate(
    api: &Api,
    caller: &Caller,
    mut rows: Vec<(Candidate, NewMailbox)>,
    mut refused: Vec<Refused>,
) -> Result<Response> {
    let new: Vec<NewMailbox> = rows.iter().map(|(_, new)| new.clone()).collect();
    let occupied = mailbox::occupied(&api.pool, &new).await?;
    let protected: HashSet<usize> =
        occupied.iter().filter(|there| there.mirrored_to.is_some()).map(|there| there.index).collect();
    let mut index = 0..;
    let there: Vec<_> = rows.extract_if(.., |_| index.next().is_some_and(|at| protected.contains(&at))).collect();
    if rows.is_empty() {
        let already = |(candidate, new): &(Candidate, NewMailbox)| {
            *candidate.refused("address", format!("`{}` is protected already", new.address), None)
        };
        refused.extend(there.iter().map(already));
        refused.sort_by_key(|refused| refused.problem.index);
        let detail = match there.len() {
            0 => "none of the list can be protected, so there is nothing to estimate",
            all if all == refused.len() => "all of the list are protected already, so there is nothing to estimate",
            _ => "all of the list that can be protected are so already: there is nothing to estimate",
        };
        let remedy = "name mailboxes that are not protected yet";
        let errors = refused.into_iter().map(|refused| refused.problem).collect();
        return Err(ApiError::new(Kind::Invalid, detail, remedy).with_errors(errors));
    }
    let primary = rows.first().and_then(|(candidate, _)| candidate.row.primary.as_deref());
    let Some(primary) =
        primary.filter(|_| rows.iter().all(|(_, new)| new.primary_server_id == rows[0].1.primary_server_id))
    else {
        let detail = "an estimate is about mailboxes of one primary";
        return Err(ApiError::invalid(vec![ProblemItem::at("/estimate", detail)]));
    };
    let server = servers::find(api, caller, primary).await?;
    servers::refuse_foreign(caller, &server)?;
    let addresses: Vec<&str> =
        rows.iter().step_by(rows.len().div_ceil(MEASURED)).map(|(_, new)| new.address.as_str()).collect();
    let named: Vec<&str> = there.iter().take(NAMED).map(|(_, new)| new.address.as_str()).collect();
    let request = json!({
        "addresses": addresses,
        "mailboxes": rows.len(),
        "protected": there.len(),
        "protected_addresses": named,
    });
    Ok(runs::accepted(runs::ask_about_server(api, caller, "estimate", &server, request).await?))
}

async fn discover(api: &Api, caller: &Caller, request: &Protect) -> Result<Response> {
    let only_listed = request.addresses.is_none() && request.items.is_none() && request.csv.is_none();
    let Some(primary) = request.primary.as_deref().filter(|_| only_listed) else {
        let detail = "`discover` takes the name of a `primary` and no list of mailboxes";
        return Err(ApiError::invalid(vec![ProblemItem::at("/discover", detail)]));
    };
    let has_options = request.estimate || request.standby.is_some() || request.standby_address.is_some();
    if has_options || request.policy.is_some() || request.group.is_some() || request.skip_invalid {
        let detail = "`discover` only lists users; protect them with a second request";
        return Err(ApiError::invalid(vec![ProblemItem::at("/discover", detail)]));
    }
    let server = servers::find(api, caller, primary).await?;
    servers::refuse_foreign(caller, &server)?;
    Ok(runs::accepted(runs::ask_about_server(api, caller, "discover", &server, json!({})).await?))
}
