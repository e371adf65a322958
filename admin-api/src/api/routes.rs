//! `/routes`: where each mailbox lives now; and the further names its user goes by.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_database::{front_door, route};
use understudy_protocol::{MailboxId, Side};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{mailboxes, servers},
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    state::Api,
};

/// The most aliases of one mailbox.
const MOST_ALIASES: usize = 1000;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(aliases, set_aliases))
}

/// Where a mailbox lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Route {
    #[schema(example = "ana@example.org")]
    address: String,
    primary: String,
    standby: String,
    side: RouteSide,
    /// New log-ins and deliveries wait: the mailbox is changing sides.
    held: bool,
    epoch: i64,
    /// Since when it is so.
    changed_at: DateTime<Utc>,
}

/// Where the user works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RouteSide {
    Primary,
    Standby,
}

impl From<RouteSide> for Side {
    fn from(side: RouteSide) -> Self {
        match side {
            RouteSide::Primary => Self::Primary,
            RouteSide::Standby => Self::Standby,
        }
    }
}

impl From<route::Route> for Route {
    fn from(route: route::Route) -> Self {
        Self {
            address: route.address,
            primary: route.primary,
            standby: route.standby,
            side: match route.side {
                Side::Primary => RouteSide::Primary,
                Side::Standby => RouteSide::Standby,
            },
            held: route.held,
            epoch: route.epoch,
            changed_at: route.changed_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only those whose user works there: `primary` or `standby`.
    #[param(value_type = Option<String>)]
    side: Option<RouteSide>,
    limit: Option<i64>,
    after: Option<String>,
}

/// Where each mailbox lives now.
#[utoipa::path(get, path = "/api/v1/routes", tag = "routes", params(ListParams), responses((status = 200, body = Page<Route>)))]
async fn list(State(api): State<Api>, caller: Caller, Params(params): Params<ListParams>) -> Result<Json<Page<Route>>> {
    let limit = cursor::limit(params.limit)?;
    let after: Option<(String, String)> = cursor::decode(params.after.as_deref())?;
    let after = after.as_ref().map(|(address, primary)| (address.as_str(), primary.as_str()));
    let routes = route::list(&api.pool, &caller.scope, params.side.map(Side::from), after, limit + 1).await?;
    Ok(Json(Page::of(routes, limit, |route| (route.address.clone(), route.primary.clone()), Route::from)))
}

/// Where a log-in goes, in any of its forms: name, address, alias, with a plus-address, in upper case.
#[utoipa::path(get, path = "/api/v1/routes/{address}", tag = "routes", params(("address" = String, Path)),
    responses((status = 200, body = Route), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(login): Name) -> Result<Json<Route>> {
    let found = match route::mailbox_of(&api.pool, &login).await {
        Ok(Some(mailbox)) => route::get(&api.pool, mailbox).await?,
        Ok(None) => None,
        Err(error) if route::is_ambiguous(&error) => {
            return Err(ApiError::new(
                Kind::Ambiguous,
                format!("`{login}` means several mailboxes, so front doors refuse it"),
                "name the primary of each domain in a [[domain]] of the configuration, or log in with the whole address",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    let remedy = "only protected mailboxes have a route; everybody else is sent to the primary";
    let found =
        found.filter(|route| route.tenant_id == caller.tenant.0 && caller.scope.covers(&route.address, &route.group));
    found.map(|route| Json(Route::from(route))).ok_or_else(|| ApiError::not_found("route for", &login, None, remedy))
}

/// The further names of a user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"aliases": ["annie@example.org"]}))]
pub(crate) struct Aliases {
    /// Log-ins and addresses that mean this mailbox, besides its own. Case does not matter.
    #[schema(example = json!(["annie@example.org"]))]
    aliases: Vec<String>,
}

/// The further names of a mailbox's user.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/aliases", tag = "routes", params(("address" = String, Path)),
    responses((status = 200, body = Aliases), (status = 404, body = Problem)))]
async fn aliases(State(api): State<Api>, caller: Caller, Name(address): Name) -> Result<Json<Aliases>> {
    let mailbox = mailboxes::find(&api, &caller, &address, None).await?;
    Ok(Json(Aliases { aliases: front_door::aliases(&api.pool, MailboxId(mailbox.mailbox_id)).await? }))
}

/// Gives a mailbox's user these further names, and no others.
#[utoipa::path(put, path = "/api/v1/mailboxes/{address}/aliases", tag = "routes", params(("address" = String, Path)),
    request_body = Aliases,
    responses((status = 200, body = Aliases), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn set_aliases(
    State(api): State<Api>,
    caller: Caller,
    Name(address): Name,
    Body(wanted): Body<Aliases>,
) -> Result<Json<Aliases>> {
    let found = mailboxes::find(&api, &caller, &address, None).await?;
    servers::refuse_foreign(&caller, &servers::find(&api, &caller, &found.primary).await?)?;
    let mailbox = MailboxId(found.mailbox_id);
    let wanted: Vec<String> = wanted.aliases.iter().map(|alias| alias.trim().to_lowercase()).collect();
    let problems: Vec<ProblemItem> = wanted.iter().enumerate().filter_map(|(n, alias)| problem(n, alias)).collect();
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems));
    }
    if wanted.len() > MOST_ALIASES {
        let detail = format!("a mailbox has {MOST_ALIASES} aliases at most");
        return Err(ApiError::invalid(vec![ProblemItem::at("/aliases", detail)]));
    }
    let mut transaction = caller.begin(&api, "").await?;
    match front_door::set_aliases(&mut transaction, mailbox, &wanted).await {
        Err(error) if error.constraint() == Some("mailbox_alias_pkey") => {
            return Err(ApiError::new(
                Kind::Conflict,
                "one of these aliases belongs to another mailbox; nothing was changed",
                "take it away there first: `GET /api/v1/routes/{alias}` says where it goes",
            ));
        }
        outcome => outcome?,
    }
    transaction.commit().await?;
    Ok(Json(Aliases { aliases: front_door::aliases(&api.pool, mailbox).await? }))
}

fn problem(number: usize, alias: &str) -> Option<ProblemItem> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '!' | ':');
    let detail = match alias {
        "" => "an alias is empty",
        alias if alias.contains(odd) => "an alias has no spaces and none of `*`, `!`, `:`",
        alias if alias.len() > 320 => "an alias is longer than a mail address may be",
        _ => return None,
    };
    Some(ProblemItem::at(format!("/aliases/{number}"), detail))
}
