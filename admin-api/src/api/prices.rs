//! `/prices`: what protection costs a tenant. The provider sets it; the tenant reads it.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_billing::{Month, Plan};
use understudy_database::{billing, tenant};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Caller,
    books,
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::Body,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// The prices that hold now, and all that were ever set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Prices {
    /// The month we are in.
    #[schema(value_type = String, example = "2026-11")]
    month: Month,
    /// What holds in it. Before any prices are set, everything is free.
    plan: Plan,
    /// The latest first.
    plans: Vec<PlanFrom>,
}

/// Prices from a month on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanFrom {
    #[schema(value_type = String, example = "2026-11")]
    valid_from: Month,
    plan: Plan,
    set_by: String,
    set_at: DateTime<Utc>,
}

/// Prices to set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPrices {
    /// From this month on; the one we are in, when left out. Neither it nor a later one may be closed.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2026-12")]
    valid_from: Option<Month>,
    plan: Plan,
}

/// A tenant's prices.
#[utoipa::path(get, path = "/api/v1/prices", tag = "prices", responses((status = 200, body = Prices)))]
async fn get(State(api): State<Api>, caller: Caller) -> Result<Json<Prices>> {
    Ok(Json(shown(&api, &caller).await?))
}

async fn shown(api: &Api, caller: &Caller) -> Result<Prices> {
    let mut db = api.pool.acquire().await?;
    let month = Month::of(Utc::now().date_naive());
    let plan = books::plan_of(&mut db, caller.tenant, month).await?;
    let mut plans = Vec::new();
    for row in billing::plans(&mut *db, caller.tenant).await? {
        let plan = serde_json::from_value(row.plan)
            .map_err(|error| understudy_database::Error::unreadable("price plan", error))?;
        plans.push(PlanFrom { valid_from: Month::of(row.valid_from), plan, set_by: row.set_by, set_at: row.set_at });
    }
    Ok(Prices { month, plan, plans })
}

/// Sets prices from a month on; what was set for that month is replaced.
#[utoipa::path(put, path = "/api/v1/prices", tag = "prices", request_body = NewPrices,
    responses((status = 200, body = Prices), (status = 403, body = Problem), (status = 409, body = Problem),
              (status = 422, body = Problem)))]
async fn put(State(api): State<Api>, caller: Caller, Body(new): Body<NewPrices>) -> Result<Json<Prices>> {
    by_provider(&caller)?;
    let wrong = new.plan.check();
    if !wrong.is_empty() {
        let items = wrong.into_iter().map(|wrong| ProblemItem::at(format!("/plan{}", wrong.pointer), wrong.detail));
        return Err(ApiError::invalid(items.collect()));
    }
    let month = new.valid_from.unwrap_or_else(|| Month::of(Utc::now().date_naive()));
    let plan =
        serde_json::to_value(&new.plan).map_err(|error| understudy_database::Error::unreadable("price plan", error))?;
    let mut db = caller.begin(&api, "").await?;
    let set = billing::set_plan(&mut db, caller.tenant, month.first(), &plan, &caller.name).await;
    set.map_err(|error| match error.constraint() {
        Some("billing_month_is_open") => ApiError::new(
            Kind::Conflict,
            format!("{month} or a later month is closed"),
            "set prices from a month that is still open; what a closed month had wrong is put right with a correction",
        ),
        _ => error.into(),
    })?;
    db.commit().await?;
    Ok(Json(shown(&api, &caller).await?))
}

/// Only whoever is paid says what it costs.
pub(crate) fn by_provider(caller: &Caller) -> Result<()> {
    if caller.home == tenant::PROVIDER {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Forbidden,
        "prices and invoices are the provider's to set and to close",
        "ask your provider",
    ))
}
