//! `/map`: which primaries are mirrored to which standbys, how many mailboxes, which way changes flow, and how far behind.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use understudy_database::pair;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{groups::by_state, mailboxes::Lag},
    auth::Caller,
    cursor::{self, Page},
    error::Result,
    extract::Params,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(map))
}

/// A primary, a standby, and the mailboxes mirrored from one to the other.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mirror {
    #[schema(example = "mail-a")]
    primary: String,
    #[schema(example = "dr-1")]
    standby: String,
    mailboxes: i64,
    /// Changes flow from the primary to the standby.
    outbound: i64,
    /// Users work on the standby; what changes there goes home at a switchback.
    on_standby: i64,
    /// Every state is there.
    by_state: BTreeMap<&'static str, i64>,
    /// Mailboxes with something captured and not applied.
    lagging: i64,
    lag: Lag,
}

impl From<pair::Pair> for Mirror {
    fn from(pair: pair::Pair) -> Self {
        Self {
            by_state: by_state(&pair.by_state),
            outbound: pair.mailboxes - pair.on_standby,
            on_standby: pair.on_standby,
            lagging: pair.lagging,
            lag: Lag { transactions: pair.lag_transactions, seconds: pair.lag_seconds, bytes: pair.lag_bytes },
            primary: pair.primary,
            standby: pair.standby,
            mailboxes: pair.mailboxes,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

/// The replication map: every pair of servers with protected mailboxes, by name of the primary, then of the standby.
#[utoipa::path(get, path = "/api/v1/map", tag = "map", params(Paging), responses((status = 200, body = Page<Mirror>)))]
async fn map(State(api): State<Api>, caller: Caller, Params(paging): Params<Paging>) -> Result<Json<Page<Mirror>>> {
    let limit = cursor::limit(paging.limit)?;
    let after: Option<(String, String)> = cursor::decode(paging.after.as_deref())?;
    let after = after.as_ref().map(|(primary, standby)| (primary.as_str(), standby.as_str()));
    let pairs = pair::list(&api.pool, &caller.scope, after, limit + 1).await?;
    Ok(Json(Page::of(pairs, limit, |pair| (pair.primary.clone(), pair.standby.clone()), Mirror::from)))
}
