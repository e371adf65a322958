//! `/invoices`: months as they are billed. A month is closed once, and stays as it was closed.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use understudy_billing::{Month, Plan, Position};
use understudy_database::billing;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::prices::by_provider,
    auth::Caller,
    books::{self, Book},
    cursor::Page,
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name},
    state::Api,
};

/// A month is closed no sooner after its end: what began before midnight has been counted by then.
const SETTLED_AFTER: TimeDelta = TimeDelta::hours(1);
/// The list goes back so far.
const LISTED: usize = 24;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(close)).routes(routes!(correct))
}

/// A month in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InvoiceSummary {
    #[schema(value_type = String, example = "2026-11")]
    month: Month,
    state: InvoiceState,
    currency: String,
    /// Of a month that is not closed: what it comes to by now.
    #[schema(example = "1234.50")]
    total: String,
    closed_by: Option<String>,
    closed_at: Option<DateTime<Utc>>,
}

/// How far a month is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InvoiceState {
    /// It is not over yet.
    Running,
    /// Over, and not closed.
    Open,
    Closed,
}

/// A month, or some days of one, line by line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invoice {
    #[schema(value_type = String, example = "2026-11")]
    month: Month,
    from: NaiveDate,
    to: NaiveDate,
    state: InvoiceState,
    currency: String,
    lines: Vec<InvoiceLine>,
    /// The sum of the lines.
    #[schema(example = "1234.50")]
    total: String,
    plan: Plan,
    closed_by: Option<String>,
    closed_at: Option<DateTime<Utc>>,
    /// The sum counted again from the usage log and the plan; null in reports.
    recomputed_total: Option<String>,
}

/// One line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InvoiceLine {
    position: Position,
    /// Empty where it concerns no single mailbox.
    address: String,
    primary: String,
    group: String,
    /// Everything used, what is included in the price too: days, byte-days, bytes or switchovers.
    quantity: String,
    unit: String,
    #[schema(example = "2.50")]
    amount: String,
    note: String,
}

/// Something a closed month had wrong.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": "-2.50", "reason": "agreed on the telephone", "address": "ana@example.org"}))]
pub(crate) struct NewCorrection {
    /// In the currency of the closed month; less than nothing is given back.
    #[schema(example = "-2.50")]
    amount: String,
    #[serde(default)]
    address: String,
    reason: String,
}

impl Invoice {
    pub(crate) fn of(book: Book, today: NaiveDate) -> Self {
        let Book { invoice, plan, closed } = book;
        let money = |minor| invoice.money(minor).to_string();
        let lines = invoice.lines.iter().map(|line| InvoiceLine {
            position: line.position,
            address: line.address.clone(),
            primary: line.primary.clone(),
            group: line.group.clone(),
            quantity: line.quantity.clone(),
            unit: line.unit.clone(),
            amount: money(line.amount),
            note: line.note.clone(),
        });
        Self {
            month: invoice.piece.month,
            from: invoice.piece.first,
            to: invoice.piece.last,
            state: state(invoice.piece.month, closed.is_some(), today),
            currency: invoice.currency.to_string(),
            lines: lines.collect(),
            total: money(invoice.total),
            plan,
            closed_by: closed.as_ref().map(|closed| closed.closed_by.clone()),
            closed_at: closed.map(|closed| closed.closed_at),
            recomputed_total: None,
        }
    }
}

fn state(month: Month, is_closed: bool, today: NaiveDate) -> InvoiceState {
    if is_closed {
        InvoiceState::Closed
    } else if today <= month.last() {
        InvoiceState::Running
    } else {
        InvoiceState::Open
    }
}

/// The months since something was first protected, the latest first; at most 24.
#[utoipa::path(get, path = "/api/v1/invoices", tag = "invoices", responses((status = 200, body = Page<InvoiceSummary>)))]
async fn list(State(api): State<Api>, caller: Caller) -> Result<Json<Page<InvoiceSummary>>> {
    let mut db = api.pool.acquire().await?;
    let today = Utc::now().date_naive();
    let mut items = Vec::new();
    if let Some(first) = billing::first_day(&mut *db, caller.tenant).await? {
        let mut months = vec![Month::of(first)];
        while let Some(last) = months.last().copied().filter(|last| last.next().first() <= today) {
            months.push(last.next());
        }
        for month in months.into_iter().rev().take(LISTED) {
            let invoice = Invoice::of(books::book(&mut db, caller.tenant, month.whole()).await?, today);
            items.push(InvoiceSummary {
                month,
                state: invoice.state,
                currency: invoice.currency,
                total: invoice.total,
                closed_by: invoice.closed_by,
                closed_at: invoice.closed_at,
            });
        }
    }
    Ok(Json(Page { items, next: None }))
}

/// One month, as it stands or as it was closed, and what the usage log says about it now.
#[utoipa::path(get, path = "/api/v1/invoices/{month}", tag = "invoices", params(("month" = String, Path)),
    responses((status = 200, body = Invoice), (status = 400, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(month): Name) -> Result<Json<Invoice>> {
    let month = books::month(&month)?;
    let mut db = api.pool.acquire().await?;
    let book = books::book(&mut db, caller.tenant, month.whole()).await?;
    let recomputed = books::computed(&mut db, caller.tenant, month.whole(), &book.plan).await?;
    let recomputed_total = Some(recomputed.money(recomputed.total).to_string());
    Ok(Json(Invoice { recomputed_total, ..Invoice::of(book, Utc::now().date_naive()) }))
}

/// Closes a month that is over: from then on it reads as it is now. Safe to repeat.
#[utoipa::path(post, path = "/api/v1/invoices/{month}/close", tag = "invoices", params(("month" = String, Path)),
    responses((status = 200, body = Invoice), (status = 400, body = Problem), (status = 403, body = Problem),
              (status = 409, body = Problem)))]
async fn close(State(api): State<Api>, caller: Caller, Name(month): Name) -> Result<Json<Invoice>> {
    by_provider(&caller)?;
    let month = books::month(&month)?;
    let now = Utc::now();
    if now < month.next().first().and_time(chrono::NaiveTime::MIN).and_utc() + SETTLED_AFTER {
        return Err(ApiError::new(
            Kind::Conflict,
            format!("{month} is not over, or ended less than an hour ago"),
            "close it later; until then `GET /api/v1/invoices/{month}` says what it comes to so far",
        ));
    }
    let mut db = caller.begin(&api, "").await?;
    billing::lock_books(&mut db, caller.tenant).await?;
    let book = books::book(&mut db, caller.tenant, month.whole()).await?;
    if book.closed.is_some() {
        return Ok(Json(Invoice::of(book, now.date_naive())));
    }
    in_order(&mut db, &caller, month).await?;
    let stored = |error| understudy_database::Error::unreadable("invoice", error);
    let closing = billing::Closed {
        month: month.first(),
        plan: serde_json::to_value(&book.plan).map_err(stored)?,
        currency: book.invoice.currency.to_string(),
        lines: serde_json::to_value(&book.invoice.lines).map_err(stored)?,
        total: book.invoice.total,
        closed_by: caller.name.clone(),
        closed_at: now,
    };
    billing::close(&mut db, caller.tenant, &closing).await?;
    books::note(&mut db, caller.tenant, &caller.name, month.whole()).await?;
    let book = books::book(&mut db, caller.tenant, month.whole()).await?;
    db.commit().await?;
    Ok(Json(Invoice::of(book, now.date_naive())))
}

/// Months are closed one after the other: a correction stands in the first that is open.
async fn in_order(db: &mut sqlx::PgConnection, caller: &Caller, month: Month) -> Result<()> {
    let closed: Vec<Month> =
        billing::all_closed(&mut *db, caller.tenant).await?.iter().map(|closed| Month::of(closed.month)).collect();
    let Some(first) = billing::first_day(db, caller.tenant).await?.map(Month::of) else { return Ok(()) };
    let mut before = first;
    while before < month {
        if !closed.contains(&before) {
            return Err(ApiError::new(
                Kind::Conflict,
                format!("{before} is not closed yet"),
                format!("close {before} first"),
            ));
        }
        before = before.next();
    }
    Ok(())
}

/// Puts right what a closed month had wrong: a line of its own in the first month that is open, which is the answer.
#[utoipa::path(post, path = "/api/v1/invoices/{month}/corrections", tag = "invoices", params(("month" = String, Path)),
    request_body = NewCorrection,
    responses((status = 201, body = Invoice), (status = 400, body = Problem), (status = 403, body = Problem),
              (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn correct(
    State(api): State<Api>,
    caller: Caller,
    Name(month): Name,
    Body(new): Body<NewCorrection>,
) -> Result<(StatusCode, Json<Invoice>)> {
    by_provider(&caller)?;
    let month = books::month(&month)?;
    let mut db = caller.begin(&api, &new.reason).await?;
    billing::lock_books(&mut db, caller.tenant).await?;
    let Some(closed) = billing::closed(&mut *db, caller.tenant, month.first()).await? else {
        return Err(ApiError::new(
            Kind::Conflict,
            format!("{month} is not closed"),
            "only what is closed needs a correction; an open month follows its usage and prices",
        ));
    };
    let mut errors = Vec::new();
    let currency: Result<understudy_billing::Currency, _> = closed.currency.parse();
    let currency = currency.map_err(|error| understudy_database::Error::unreadable("currency", error))?;
    let amount = currency.amount(&new.amount).unwrap_or_else(|detail| {
        errors.push(ProblemItem::at("/amount", detail));
        understudy_billing::Money { minor: 1, currency }
    });
    if amount.minor == 0 {
        errors.push(ProblemItem::at("/amount", "a correction of nothing corrects nothing"));
    }
    for (pointer, text, least, most) in [("/reason", &new.reason, 1, 500), ("/address", &new.address, 0, 500)] {
        if text.trim().len() < least || text.len() > most || text.chars().any(char::is_control) {
            errors.push(ProblemItem::at(pointer, format!("{least} to {most} characters on one line")));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let latest =
        billing::all_closed(&mut *db, caller.tenant).await?.first().map_or(month, |last| Month::of(last.month));
    let booked_in = latest.next();
    if books::plan_of(&mut db, caller.tenant, booked_in).await?.currency != currency {
        return Err(ApiError::new(
            Kind::Conflict,
            format!("{booked_in}, the first open month, is billed in another currency than {month}"),
            "settle it outside, or set the earlier currency for that month",
        ));
    }
    let correction = billing::Correction {
        month: month.first(),
        booked_in: booked_in.first(),
        address: new.address.trim().to_owned(),
        amount: amount.minor,
        currency: currency.to_string(),
        reason: new.reason.trim().to_owned(),
        made_by: caller.name.clone(),
    };
    billing::correct(&mut db, caller.tenant, &correction).await?;
    let book = books::book(&mut db, caller.tenant, booked_in.whole()).await?;
    db.commit().await?;
    Ok((StatusCode::CREATED, Json(Invoice::of(book, Utc::now().date_naive()))))
}
