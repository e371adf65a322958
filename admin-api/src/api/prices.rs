//! `/prices`: what protection costs a tenant. The provider sets it; the tenant reads it.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_billing::{MailboxUsage, Month, Plan, Price, Span, invoice};
use understudy_database::{billing, mailbox, tenant};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Caller,
    books,
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Params},
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get, put)).routes(routes!(estimate))
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
#[schema(example = json!({"plan": {"currency": "EUR", "mailboxes": [{"up_to": 100, "price": "2.50"}, {"price": "2.00"}], "kept": {"included_gb": 5, "tiers": [{"price": "0.10"}]}, "minimum": "25.00"}}))]
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

/// What is to be protected.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Planned {
    /// How many mailboxes more.
    #[param(minimum = 0, maximum = 100_000)]
    mailboxes: u32,
    /// How much they have in all.
    #[param(minimum = 0)]
    bytes: u64,
}

/// What it would cost.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PriceEstimate {
    #[schema(example = "EUR")]
    currency: String,
    /// More for each whole month, beside those protected already.
    #[schema(example = "250.00")]
    month: String,
    /// Once, for the first copy.
    #[schema(example = "12.00")]
    first_copy: String,
    /// What all mailboxes together cost a month at least.
    #[schema(example = "25.00")]
    minimum: String,
}

/// Mailboxes that one estimate may be about.
const MOST_PLANNED: u32 = 100_000;
/// An exabyte.
const MOST_BYTES: u64 = 1_000_000_000_000_000_000;

/// What so many mailboxes more would cost, by the prices of this month, if each had the same share of the bytes.
#[utoipa::path(get, path = "/api/v1/prices/estimate", tag = "prices", params(Planned),
    responses((status = 200, body = PriceEstimate), (status = 400, body = Problem)))]
async fn estimate(
    State(api): State<Api>,
    caller: Caller,
    Params(planned): Params<Planned>,
) -> Result<Json<PriceEstimate>> {
    if planned.mailboxes > MOST_PLANNED || planned.bytes > MOST_BYTES {
        let detail = format!("an estimate is about at most {MOST_PLANNED} mailboxes and {MOST_BYTES} bytes");
        return Err(ApiError::new(Kind::Malformed, detail, "ask for fewer at a time"));
    }
    let month = Month::of(Utc::now().date_naive());
    let mut plan = books::plan_of(&mut *api.pool.acquire().await?, caller.tenant, month).await?;
    // Whether a month's minimum is reached says nothing about what these mailboxes add.
    let minimum = std::mem::replace(&mut plan.minimum, Price::FREE);
    let there = mailbox::all(&api.pool, &caller.tenant.into()).await?.len();
    let piece = month.whole();
    let count = planned.mailboxes as usize;
    let each = planned.bytes / u64::from(planned.mailboxes.max(1));
    let usage = |carried: bool| -> Vec<MailboxUsage> {
        let of = |number: usize| MailboxUsage {
            // Those protected already come first, as they do in the tiers.
            address: format!("{number:07}"),
            spans: vec![Span { first: piece.first, last: None }],
            kept: if number < there { Vec::new() } else { vec![(piece.first, each)] },
            carried: if carried && number >= there { vec![(piece.first, each)] } else { Vec::new() },
            ..MailboxUsage::default()
        };
        (0..there + count).map(of).collect()
    };
    let (months, copied) = (usage(false), usage(true));
    let before = invoice(&plan, piece, &months[..there], &[]).total;
    let after = invoice(&plan, piece, &months, &[]);
    let first_copy = invoice(&plan, piece, &copied, &[]).total - after.total;
    Ok(Json(PriceEstimate {
        currency: plan.currency.to_string(),
        month: after.money(after.total - before).to_string(),
        first_copy: after.money(first_copy).to_string(),
        minimum: minimum.to_string(),
    }))
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
