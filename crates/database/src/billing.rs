//! Usage as it was metered, prices, and closed months.
//!
//! Keeps true: what is metered, closed or corrected is never changed (triggers refuse it); a tenant's books are changed by one
//! person at a time.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::TenantId;

use crate::Result;

/// A beginning or an end of protection, or a switchover.
#[derive(Clone, Debug)]
pub struct UsageEvent {
    pub mailbox_id: i64,
    /// `protected`, `unprotected`, `switchover`.
    pub meter: String,
    pub day: NaiveDate,
    pub address: String,
    pub primary: String,
    pub group: String,
}

/// A mailbox's bytes on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDay {
    pub mailbox_id: i64,
    pub day: NaiveDate,
    pub carried_bytes: i64,
    /// None when it did not change that day.
    pub kept_bytes: Option<i64>,
}

/// The events of every mailbox that was protected between two days, both included, in order.
pub async fn events(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<UsageEvent>> {
    let rows = sqlx::query_as!(
        UsageEvent,
        r#"select e.mailbox_id, e.meter, (e.at at time zone 'UTC')::date as "day!", e.address, e.primary_name as "primary",
                  e.group_name as "group"
           from usage_event e
           where e.tenant_id = $1 and (e.at at time zone 'UTC')::date <= $3
             and not exists (
                 select from usage_event ended
                 where ended.mailbox_id = e.mailbox_id and ended.meter = 'unprotected'
                   and (ended.at at time zone 'UTC')::date < $2
             )
           order by e.address, e.primary_name, e.mailbox_id, e.at, e.usage_event_id"#,
        tenant.0,
        from,
        to
    );
    Ok(rows.fetch_all(db).await?)
}

/// The bytes of a tenant's mailboxes between two days, both included, and what was kept when the first began.
pub async fn days(db: impl PgExecutor<'_>, tenant: TenantId, from: NaiveDate, to: NaiveDate) -> Result<Vec<UsageDay>> {
    let rows = sqlx::query_as!(
        UsageDay,
        r#"select d.mailbox_id as "mailbox_id!", d.day as "day!", d.carried_bytes as "carried_bytes!", d.kept_bytes
           from usage_day d where d.tenant_id = $1 and d.day between $2 and $3
           union all
           select last.* from (
               select distinct on (d.mailbox_id) d.mailbox_id, d.day, 0::bigint, d.kept_bytes
               from usage_day d where d.tenant_id = $1 and d.day < $2 and d.kept_bytes is not null
               order by d.mailbox_id, d.day desc
           ) last
           order by 1, 2"#,
        tenant.0,
        from,
        to
    );
    Ok(rows.fetch_all(db).await?)
}

/// The same as [`days`] says of bytes carried, counted anew from the journal, where that is still kept.
pub async fn recount_carried(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<(i64, NaiveDate, i64)>> {
    let rows = sqlx::query!(
        r#"select t.mailbox_id, (t.received_at at time zone 'UTC')::date as "day!", sum(t.content_bytes)::bigint as "bytes!"
           from transaction t join mailbox m using (mailbox_id)
           where m.tenant_id = $1 and (t.received_at at time zone 'UTC')::date between $2 and $3
           group by 1, 2 having sum(t.content_bytes) > 0 order by 1, 2"#,
        tenant.0,
        from,
        to
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.mailbox_id, row.day, row.bytes)).collect())
}

/// The day of the first thing metered of a tenant.
pub async fn first_day(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Option<NaiveDate>> {
    let day =
        sqlx::query_scalar!("select min(at at time zone 'UTC')::date from usage_event where tenant_id = $1", tenant.0);
    Ok(day.fetch_one(db).await?)
}

/// Prices and when they begin to hold.
#[derive(Clone, Debug)]
pub struct PricePlan {
    pub valid_from: NaiveDate,
    pub plan: Value,
    pub set_by: String,
    pub set_at: DateTime<Utc>,
}

/// A tenant's prices, the latest first.
pub async fn plans(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<PricePlan>> {
    let rows = sqlx::query_as!(
        PricePlan,
        "select valid_from, plan, set_by, set_at from price_plan where tenant_id = $1 order by valid_from desc",
        tenant.0
    );
    Ok(rows.fetch_all(db).await?)
}

/// Sets the prices from a month on. Breaks `billing_month_is_open` when that month or a later one is closed.
pub async fn set_plan(
    db: &mut PgConnection,
    tenant: TenantId,
    valid_from: NaiveDate,
    plan: &Value,
    by: &str,
) -> Result<()> {
    lock_books(&mut *db, tenant).await?;
    sqlx::query!(
        "insert into price_plan (tenant_id, valid_from, plan, set_by) values ($1, $2, $3, $4)
         on conflict (tenant_id, valid_from) do update set plan = excluded.plan, set_by = excluded.set_by, set_at = now()",
        tenant.0,
        valid_from,
        plan,
        by
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whoever changes a tenant's books waits here for whoever does, until the SQL transaction ends.
pub async fn lock_books(db: &mut PgConnection, tenant: TenantId) -> Result<()> {
    sqlx::query!(r#"select pg_advisory_xact_lock(hashtext('understudy_books'), $1) as "locked: ()""#, book_of(tenant))
        .fetch_one(db)
        .await?;
    Ok(())
}

fn book_of(tenant: TenantId) -> i32 {
    // Two tenants may share a lock; then one waits a moment.
    i32::try_from(tenant.0 & 0x7fff_ffff).unwrap_or(0)
}

/// A month that is closed.
#[derive(Clone, Debug)]
pub struct Closed {
    pub month: NaiveDate,
    pub plan: Value,
    pub currency: String,
    pub lines: Value,
    pub total: i64,
    pub closed_by: String,
    pub closed_at: DateTime<Utc>,
}

/// One closed month.
pub async fn closed(db: impl PgExecutor<'_>, tenant: TenantId, month: NaiveDate) -> Result<Option<Closed>> {
    let row = sqlx::query_as!(
        Closed,
        "select month, plan, currency, lines, total, closed_by, closed_at from invoice
         where tenant_id = $1 and month = $2",
        tenant.0,
        month
    );
    Ok(row.fetch_optional(db).await?)
}

/// Month, currency, total and closing of all that are closed, the latest first, without their lines.
pub async fn all_closed(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<Closed>> {
    let rows = sqlx::query_as!(
        Closed,
        r#"select month, plan, currency, 'null'::jsonb as "lines!", total, closed_by, closed_at from invoice
           where tenant_id = $1 order by month desc"#,
        tenant.0
    );
    Ok(rows.fetch_all(db).await?)
}

/// Closes a month; false when it is closed already.
pub async fn close(db: &mut PgConnection, tenant: TenantId, closing: &Closed) -> Result<bool> {
    let closed = sqlx::query!(
        "insert into invoice (tenant_id, month, plan, currency, lines, total, closed_by)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        tenant.0,
        closing.month,
        closing.plan,
        closing.currency,
        closing.lines,
        closing.total,
        closing.closed_by
    )
    .execute(db)
    .await?;
    Ok(closed.rows_affected() == 1)
}

/// A correction, as it stands on a later invoice.
#[derive(Clone, Debug)]
pub struct Correction {
    pub month: NaiveDate,
    pub booked_in: NaiveDate,
    pub address: String,
    pub amount: i64,
    pub currency: String,
    pub reason: String,
    pub made_by: String,
}

/// Writes a correction. Breaks `invoice_correction_of_closed` when the month it corrects is open, `billing_month_is_open` when
/// the one it stands in is closed.
pub async fn correct(db: &mut PgConnection, tenant: TenantId, correction: &Correction) -> Result<()> {
    sqlx::query!(
        "insert into invoice_correction (tenant_id, month, booked_in, address, amount, currency, reason, made_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        tenant.0,
        correction.month,
        correction.booked_in,
        correction.address,
        correction.amount,
        correction.currency,
        correction.reason,
        correction.made_by
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The corrections that stand on a month's invoice, in the order they were made.
pub async fn corrections(db: impl PgExecutor<'_>, tenant: TenantId, booked_in: NaiveDate) -> Result<Vec<Correction>> {
    let rows = sqlx::query_as!(
        Correction,
        "select month, booked_in, address, amount, currency, reason, made_by from invoice_correction
         where tenant_id = $1 and booked_in = $2 order by invoice_correction_id",
        tenant.0,
        booked_in
    );
    Ok(rows.fetch_all(db).await?)
}

/// The number of the tenant with this name.
pub async fn tenant_named(db: impl PgExecutor<'_>, name: &str) -> Result<Option<TenantId>> {
    let row = sqlx::query_scalar!("select tenant_id from tenant where name = $1", name);
    Ok(row.fetch_optional(db).await?.map(TenantId))
}

/// How long a mailbox was protected in a time, and for how long of that it was not kept in step.
#[derive(Clone, Debug)]
pub struct Availability {
    pub mailbox_id: i64,
    pub address: String,
    pub primary: String,
    pub group: String,
    pub protected_seconds: i64,
    /// Seconds in which the pipeline had not proven itself, was paused, or was held by the brake.
    pub unproven_seconds: i64,
    pub paused_seconds: i64,
    pub held_seconds: i64,
    pub switchovers: i64,
    pub switchbacks: i64,
    /// The time its user was away in these, and the longest of them.
    pub away_milliseconds: i64,
    pub longest_away_milliseconds: i64,
}

/// Availability of every mailbox of a tenant between two times.
pub async fn availability(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Availability>> {
    let rows = sqlx::query_as!(
        Availability,
        r#"with mine as (
               select e.mailbox_id, e.address, e.primary_name, e.group_name, e.at as begun,
                      coalesce(ended.at, 'infinity') as ended
               from usage_event e
               left join usage_event ended on ended.mailbox_id = e.mailbox_id and ended.meter = 'unprotected'
               where e.tenant_id = $1 and e.meter = 'protected' and e.at < $3 and coalesce(ended.at, 'infinity') > $2
           ),
           marks as (
               select v.mailbox_id, w.what, w.begins, v.created_at as at, v.event_id
               from event v
               join mine on mine.mailbox_id = v.mailbox_id
               cross join lateral (values
                   ('unproven', 'unproven', true), ('proven', 'unproven', false), ('paused', 'paused', true),
                   ('resumed', 'paused', false), ('held', 'held', true), ('released', 'held', false),
                   ('discarded', 'held', false)) as w (kind, what, begins)
               where v.kind = w.kind and v.created_at < $3
           ),
           spans as (
               select mailbox_id, what, begins, at,
                      lead(at) over (partition by mailbox_id, what order by event_id) as until
               from marks
           ),
           lost as (
               select s.mailbox_id, s.what,
                      sum(greatest(extract(epoch from
                          least(coalesce(s.until, 'infinity'), mine.ended, $3) - greatest(s.at, mine.begun, $2)), 0)) as seconds
               from spans s join mine using (mailbox_id)
               where s.begins and coalesce(s.until, 'infinity') > $2
               group by 1, 2
           ),
           moves as (
               select w.mailbox_id, count(*) filter (where w.target = 'standby') as over,
                      count(*) filter (where w.target = 'primary') as back,
                      sum(coalesce((w.detail ->> 'rto_seconds')::numeric, 0)) as away,
                      max(coalesce((w.detail ->> 'rto_seconds')::numeric, 0)) as longest
               from switch w join mine using (mailbox_id)
               where w.flipped_at >= $2 and w.flipped_at < $3
               group by 1
           )
           select mine.mailbox_id, mine.address, mine.primary_name as "primary", mine.group_name as "group",
                  round(extract(epoch from least(mine.ended, $3) - greatest(mine.begun, $2)))::bigint as "protected_seconds!",
                  coalesce((select round(seconds)::bigint from lost l where l.mailbox_id = mine.mailbox_id and l.what = 'unproven'), 0)
                      as "unproven_seconds!",
                  coalesce((select round(seconds)::bigint from lost l where l.mailbox_id = mine.mailbox_id and l.what = 'paused'), 0)
                      as "paused_seconds!",
                  coalesce((select round(seconds)::bigint from lost l where l.mailbox_id = mine.mailbox_id and l.what = 'held'), 0)
                      as "held_seconds!",
                  coalesce(moves.over, 0) as "switchovers!", coalesce(moves.back, 0) as "switchbacks!",
                  coalesce(round(moves.away * 1000)::bigint, 0) as "away_milliseconds!",
                  coalesce(round(moves.longest * 1000)::bigint, 0) as "longest_away_milliseconds!"
           from mine left join moves using (mailbox_id)
           order by mine.address, mine.primary_name, mine.mailbox_id"#,
        tenant.0,
        from,
        to
    );
    Ok(rows.fetch_all(db).await?)
}
