//! `/reports`: usage in money, and how well mailboxes were kept in step, over days that the reader chooses.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_billing::{Currency, Money, cell, csv_report};
use understudy_database::billing;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::invoices::Invoice,
    auth::Caller,
    books,
    error::{Problem, Result},
    extract::Params,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(billing_report)).routes(routes!(availability))
}

/// From which day to which, both included, and how it is written.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Span {
    /// The first day, such as 2026-11-01 (UTC).
    from: String,
    /// The last day.
    to: String,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    #[default]
    Json,
    Csv,
}

/// Usage in money: each month, whole or in part, with its lines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BillingReport {
    from: NaiveDate,
    to: NaiveDate,
    invoices: Vec<Invoice>,
    /// The sum of the invoices, one for each currency.
    totals: Vec<Total>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Total {
    currency: String,
    #[schema(example = "1234.50")]
    amount: String,
}

/// What mailboxes used between two days, and what that costs. Months that are closed and asked for whole read as they were closed.
#[utoipa::path(get, path = "/api/v1/reports/billing", tag = "reports", params(Span),
    responses((status = 200, content((BillingReport = "application/json"), (String = "text/csv"))),
              (status = 400, body = Problem)))]
async fn billing_report(State(api): State<Api>, caller: Caller, Params(span): Params<Span>) -> Result<Response> {
    let pieces = books::pieces(&span.from, &span.to)?;
    let mut db = api.pool.acquire().await?;
    let mut read = Vec::with_capacity(pieces.len());
    for piece in pieces {
        read.push(books::book(&mut db, caller.tenant, piece).await?);
    }
    drop(db);
    if span.format == Format::Csv {
        let text = csv_report(read.iter().map(|book| &book.invoice))
            .map_err(|error| understudy_database::Error::unreadable("report", error))?;
        return Ok(csv("billing", &span, text));
    }
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for book in &read {
        *sums.entry(book.invoice.currency).or_default() += book.invoice.total;
    }
    let totals = sums.into_iter().map(|(currency, minor)| Total {
        currency: currency.to_string(),
        amount: Money { minor, currency }.to_string(),
    });
    let (totals, today) = (totals.collect(), Utc::now().date_naive());
    let (from, to) = ends(&span);
    let invoices = read.into_iter().map(|book| Invoice::of(book, today)).collect();
    Ok(Json(BillingReport { from, to, invoices, totals }).into_response())
}

/// The days, which have been read once already.
fn ends(span: &Span) -> (NaiveDate, NaiveDate) {
    (span.from.parse().unwrap_or_default(), span.to.parse().unwrap_or_default())
}

fn csv(name: &str, span: &Span, text: String) -> Response {
    let (from, to) = ends(span);
    let file = format!("attachment; filename=\"understudy-{name}-{from}-{to}.csv\"");
    let file = HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment"));
    let kind = HeaderValue::from_static("text/csv; charset=utf-8");
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, file)], text).into_response()
}

/// How well mailboxes were kept in step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AvailabilityReport {
    from: NaiveDate,
    to: NaiveDate,
    items: Vec<Availability>,
    total: AvailabilityTotal,
}

/// One mailbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Availability {
    address: String,
    primary: String,
    group: String,
    /// So long it was protected in these days.
    protected_seconds: i64,
    /// So long nothing proved that its changes arrive.
    unproven_seconds: i64,
    paused_seconds: i64,
    /// So long the mass-change brake held it.
    held_seconds: i64,
    /// Thousandths of a percent of the protected time in which it was in none of these.
    in_step_millipercent: i64,
    switchovers: i64,
    switchbacks: i64,
    /// How long its user was away during these.
    away_milliseconds: i64,
    longest_away_milliseconds: i64,
}

/// All mailboxes together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AvailabilityTotal {
    mailboxes: usize,
    protected_seconds: i64,
    in_step_millipercent: i64,
    switchovers: i64,
    switchbacks: i64,
    longest_away_milliseconds: i64,
}

/// How long mailboxes were protected and kept in step between two days, and how long users were away when sides were changed.
#[utoipa::path(get, path = "/api/v1/reports/availability", tag = "reports", params(Span),
    responses((status = 200, content((AvailabilityReport = "application/json"), (String = "text/csv"))),
              (status = 400, body = Problem)))]
async fn availability(State(api): State<Api>, caller: Caller, Params(span): Params<Span>) -> Result<Response> {
    books::pieces(&span.from, &span.to)?;
    let (from, to) = ends(&span);
    let begin = from.and_time(NaiveTime::MIN).and_utc();
    let end = (to + chrono::Days::new(1)).and_time(NaiveTime::MIN).and_utc().min(Utc::now()).max(begin);
    let mut rows = billing::availability(&api.pool, caller.tenant, begin, end).await?;
    rows.retain(|row| caller.scope.covers(&row.address, &row.group));
    if span.format == Format::Csv {
        let text = availability_csv(&rows).map_err(|error| understudy_database::Error::unreadable("report", error))?;
        return Ok(csv("availability", &span, text));
    }
    let sum = |part: fn(&billing::Availability) -> i64| rows.iter().map(part).sum::<i64>();
    let total = AvailabilityTotal {
        mailboxes: rows.len(),
        protected_seconds: sum(|row| row.protected_seconds),
        in_step_millipercent: millipercent(sum(lost), sum(|row| row.protected_seconds)),
        switchovers: sum(|row| row.switchovers),
        switchbacks: sum(|row| row.switchbacks),
        longest_away_milliseconds: rows.iter().map(|row| row.longest_away_milliseconds).max().unwrap_or(0),
    };
    let items = rows.into_iter().map(|row| Availability {
        in_step_millipercent: millipercent(lost(&row), row.protected_seconds),
        address: row.address,
        primary: row.primary,
        group: row.group,
        protected_seconds: row.protected_seconds,
        unproven_seconds: row.unproven_seconds,
        paused_seconds: row.paused_seconds,
        held_seconds: row.held_seconds,
        switchovers: row.switchovers,
        switchbacks: row.switchbacks,
        away_milliseconds: row.away_milliseconds,
        longest_away_milliseconds: row.longest_away_milliseconds,
    });
    Ok(Json(AvailabilityReport { from, to, items: items.collect(), total }).into_response())
}

/// Seconds not in step; of two reasons at once both count, but never more than there were.
fn lost(row: &billing::Availability) -> i64 {
    (row.unproven_seconds + row.paused_seconds + row.held_seconds).min(row.protected_seconds)
}

fn millipercent(lost: i64, protected: i64) -> i64 {
    if protected <= 0 { 100_000 } else { (i128::from(protected - lost) * 100_000 / i128::from(protected)) as i64 }
}

fn availability_csv(rows: &[billing::Availability]) -> Result<String, ::csv::Error> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "address",
        "primary",
        "group",
        "protected_seconds",
        "unproven_seconds",
        "paused_seconds",
        "held_seconds",
        "in_step_millipercent",
        "switchovers",
        "switchbacks",
        "away_milliseconds",
        "longest_away_milliseconds",
    ])?;
    for row in rows {
        let numbers = [
            row.protected_seconds,
            row.unproven_seconds,
            row.paused_seconds,
            row.held_seconds,
            millipercent(lost(row), row.protected_seconds),
            row.switchovers,
            row.switchbacks,
            row.away_milliseconds,
            row.longest_away_milliseconds,
        ];
        let names = [&row.address, &row.primary, &row.group].map(|text| cell(text));
        writer.write_record(names.into_iter().chain(numbers.map(|number| number.to_string())))?;
    }
    let bytes = writer.into_inner().map_err(::csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
