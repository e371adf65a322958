//! A tenant's months in money: usage as it was metered, priced as that month's plan says, or as it was closed.
//!
//! Keeps true: a closed month reads as it was closed. Not here: arithmetic (`understudy_billing`), deciding who may look.

use std::collections::BTreeMap;

use chrono::{NaiveDate, Utc};
use serde_json::json;
use sqlx::PgConnection;
use understudy_billing::{
    Correction, Currency, Invoice, Line, MailboxUsage, Measured, Month, Piece, Plan, Span, invoice,
};
use understudy_database::{
    audit,
    billing::{self, Closed},
};
use understudy_protocol::TenantId;

use crate::error::{ApiError, Kind, Result};

/// Counted in this currency until prices are set.
const UNPRICED: &str = "EUR";

/// A month, or days of one, with what it was priced by.
pub(crate) struct Book {
    pub(crate) invoice: Invoice,
    pub(crate) plan: Plan,
    pub(crate) closed: Option<Closed>,
}

/// Something stored that cannot be read back: ours to put right.
fn unreadable(what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    understudy_database::Error::unreadable(what, error).into()
}

/// The plan that holds in a month; free of charge before the first.
pub(crate) async fn plan_of(db: &mut PgConnection, tenant: TenantId, month: Month) -> Result<Plan> {
    let plans = billing::plans(db, tenant).await?;
    match plans.into_iter().find(|plan| plan.valid_from <= month.first()) {
        Some(plan) => serde_json::from_value(plan.plan).map_err(|error| unreadable("price plan", error)),
        None => Ok(Plan::free(UNPRICED.parse().map_err(|error: String| unreadable("currency", error))?)),
    }
}

/// Days of a month as they are now, or, when it is asked for whole and closed, as it was closed.
pub(crate) async fn book(db: &mut PgConnection, tenant: TenantId, piece: Piece) -> Result<Book> {
    if piece.is_whole()
        && let Some(closed) = billing::closed(&mut *db, tenant, piece.month.first()).await?
    {
        let currency: Currency = closed.currency.parse().map_err(|error: String| unreadable("currency", error))?;
        let lines: Vec<Line> =
            serde_json::from_value(closed.lines.clone()).map_err(|error| unreadable("invoice", error))?;
        let plan = serde_json::from_value(closed.plan.clone()).map_err(|error| unreadable("price plan", error))?;
        let invoice = Invoice { piece, currency, lines, total: closed.total };
        return Ok(Book { invoice, plan, closed: Some(closed) });
    }
    let plan = plan_of(&mut *db, tenant, piece.month).await?;
    let invoice = computed(db, tenant, piece, &plan).await?;
    Ok(Book { invoice, plan, closed: None })
}

/// What usage and corrections come to by this plan, whether the month is closed or not.
pub(crate) async fn computed(db: &mut PgConnection, tenant: TenantId, piece: Piece, plan: &Plan) -> Result<Invoice> {
    let usage = usage(&mut *db, tenant, piece).await?;
    let corrections = match piece.is_whole() {
        true => corrections(db, tenant, piece.month).await?,
        false => Vec::new(),
    };
    Ok(invoice(plan, piece, &usage, &corrections))
}

async fn corrections(db: &mut PgConnection, tenant: TenantId, month: Month) -> Result<Vec<Correction>> {
    let rows = billing::corrections(db, tenant, month.first()).await?;
    let correction = |row: billing::Correction| Correction {
        month: Month::of(row.month),
        address: row.address,
        amount: row.amount,
        reason: row.reason,
    };
    Ok(rows.into_iter().map(correction).collect())
}

/// Notes in the audit what every mailbox used in a month that is being closed, so that the total can be computed again from the audit.
pub(crate) async fn note(db: &mut PgConnection, tenant: TenantId, who: &str, piece: Piece) -> Result<()> {
    let (mut addresses, mut used) = (Vec::new(), Vec::new());
    for mailbox in usage(&mut *db, tenant, piece).await? {
        let measured = mailbox.measure(piece);
        if measured == Measured::default() {
            continue;
        }
        let noted = json!({
            "month": piece.month,
            "primary": mailbox.primary,
            "group": mailbox.group,
            "days": measured.days,
            // They may be larger than a number of JSON.
            "kept_byte_days": measured.kept_byte_days.to_string(),
            "carried_bytes": measured.carried_bytes.to_string(),
            "switchovers": measured.switchovers,
        });
        addresses.push(mailbox.address);
        used.push(noted.to_string());
    }
    Ok(audit::record_each(db, tenant, who, "usage closed", &addresses, &used).await?)
}

/// What every mailbox used that was protected in these days: an address on a primary is one, however often it was protected.
pub(crate) async fn usage(db: &mut PgConnection, tenant: TenantId, piece: Piece) -> Result<Vec<MailboxUsage>> {
    let events = billing::events(&mut *db, tenant, piece.first, piece.last).await?;
    let mut usage: BTreeMap<(String, String), MailboxUsage> = BTreeMap::new();
    let mut places: BTreeMap<i64, (String, String)> = BTreeMap::new();
    for event in events {
        let place = (event.address.clone(), event.primary.clone());
        places.entry(event.mailbox_id).or_insert_with(|| place.clone());
        let mailbox = usage.entry(place).or_insert_with(|| MailboxUsage {
            address: event.address,
            primary: event.primary,
            ..MailboxUsage::default()
        });
        mailbox.group = event.group;
        match event.meter.as_str() {
            "protected" => mailbox.spans.push(Span { first: event.day, last: None }),
            // Events come in order: the end belongs to the beginning before it.
            "unprotected" => mailbox.spans.iter_mut().rev().take(1).for_each(|span| span.last = Some(event.day)),
            _ => mailbox.switchovers.push(event.day),
        }
    }
    let mut kept: BTreeMap<(String, String), BTreeMap<NaiveDate, u64>> = BTreeMap::new();
    for day in billing::days(db, tenant, piece.first, piece.last).await? {
        let Some(place) = places.get(&day.mailbox_id) else { continue };
        if let Some(bytes) = day.kept_bytes {
            // Protected anew on the same day: the later one holds what is there now.
            kept.entry(place.clone()).or_default().insert(day.day, bytes.unsigned_abs());
        }
        if let Some(mailbox) = usage.get_mut(place).filter(|_| day.carried_bytes > 0) {
            mailbox.carried.push((day.day, day.carried_bytes.unsigned_abs()));
        }
    }
    for (place, days) in kept {
        if let Some(mailbox) = usage.get_mut(&place) {
            mailbox.kept = days.into_iter().collect();
        }
    }
    // What goes on has been used until today, whatever days were asked for.
    let today = Utc::now().date_naive();
    for span in usage.values_mut().flat_map(|mailbox| &mut mailbox.spans) {
        span.last.get_or_insert(today);
    }
    Ok(usage.into_values().collect())
}

/// A month from a path.
pub(crate) fn month(text: &str) -> Result<Month> {
    text.parse().map_err(|detail: String| ApiError::new(Kind::Malformed, detail, "write year and month as 2026-11"))
}

/// The longest time one report may be about.
const MOST_MONTHS: usize = 36;

/// The months, whole or in part, of a report.
pub(crate) fn pieces(from: &str, to: &str) -> Result<Vec<Piece>> {
    let day = |name: &str, text: &str| -> Result<NaiveDate> {
        // The one spelling, so that a link is the same wherever it is written.
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|day| day.to_string() == text);
        day.filter(|day| *day >= NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default()).ok_or_else(|| {
            ApiError::new(Kind::Malformed, format!("`{name}` is no day"), "write days as 2026-11-01, from 2000 on")
        })
    };
    let (from, to) = (day("from", from)?, day("to", to)?);
    if from > to {
        return Err(ApiError::new(
            Kind::Malformed,
            "`from` is after `to`",
            "both days are part of the report; put the earlier first",
        ));
    }
    let pieces = Piece::between(from, to.min(from + chrono::Months::new(600)));
    if pieces.len() > MOST_MONTHS {
        return Err(ApiError::new(
            Kind::Malformed,
            format!("a report is about at most {MOST_MONTHS} months"),
            "ask for a shorter time, several times if need be",
        ));
    }
    Ok(pieces)
}
