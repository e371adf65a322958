//! What people see happening: state changes, troubles, steps of runs.
//!
//! In: whoever causes one. Out: the stream behind `GET /api/v1/events`, woken by `understudy_event`.
//! Keeps true: an event becomes visible with the change it tells of, in the same SQL transaction.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use understudy_protocol::{MailboxId, TenantId};
use uuid::Uuid;

use crate::{Result, scope::Scope};

/// The NOTIFY channel whose payload is an `event_id`.
pub const CHANNEL: &str = "understudy_event";

/// One event with the names that people know its mailbox by.
#[derive(Clone, Debug)]
pub struct Event {
    pub event_id: i64,
    pub tenant_id: i64,
    pub kind: String,
    pub mailbox_id: Option<i64>,
    pub address: Option<String>,
    pub group: Option<String>,
    pub primary: Option<String>,
    pub run_id: Option<Uuid>,
    pub detail: Value,
    pub created_at: DateTime<Utc>,
}

/// Records an event of a mailbox or a run (or of neither: then it belongs to the default tenant) and wakes who listens.
pub async fn record(
    executor: impl PgExecutor<'_>,
    kind: &str,
    mailbox: Option<MailboxId>,
    run: Option<Uuid>,
    detail: &Value,
) -> Result<()> {
    sqlx::query!(
        "with recorded as (
            insert into event (tenant_id, kind, mailbox_id, run_id, detail)
            values (
                coalesce(
                    (select tenant_id from mailbox where mailbox_id = $2),
                    (select tenant_id from run where run_id = $3),
                    1
                ),
                $1, $2, $3, $4
            )
            returning event_id
         )
         select pg_notify('understudy_event', event_id::text) from recorded",
        kind,
        mailbox.map(|mailbox| mailbox.0),
        run,
        detail
    )
    .fetch_one(executor)
    .await?;
    Ok(())
}

/// Records an event that concerns a tenant as a whole, such as a change to one of its servers.
pub async fn record_for_tenant(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    kind: &str,
    detail: &Value,
) -> Result<()> {
    sqlx::query!(
        "with recorded as (
            insert into event (tenant_id, kind, detail) values ($1, $2, $3) returning event_id
         )
         select pg_notify('understudy_event', event_id::text) from recorded",
        tenant.0,
        kind,
        detail
    )
    .fetch_one(executor)
    .await?;
    Ok(())
}

/// Whether a tenant was told of this in the last so many days: an event of this kind with all members of `detail`.
pub async fn told_lately(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    kind: &str,
    detail: &Value,
    days: i32,
) -> Result<bool> {
    let told = sqlx::query_scalar!(
        r#"select exists (
               select from event where tenant_id = $1 and kind = $2 and detail @> $3 and created_at > now() - make_interval(days => $4)
           ) as "told!""#,
        tenant.0,
        kind,
        detail,
        days
    );
    Ok(told.fetch_one(executor).await?)
}

/// The number of the newest event, 0 when there is none.
pub async fn newest(executor: impl PgExecutor<'_>) -> Result<i64> {
    let newest = sqlx::query_scalar!(r#"select coalesce(max(event_id), 0) as "newest!" from event"#);
    Ok(newest.fetch_one(executor).await?)
}

/// Up to `limit` events after number `after`, oldest first, of every tenant.
pub async fn after(executor: impl PgExecutor<'_>, after: i64, limit: i64) -> Result<Vec<Event>> {
    let events = sqlx::query_as!(
        Event,
        r#"select e.event_id, e.tenant_id, e.kind, e.mailbox_id, m.address as "address?", m.group_name as "group?", p.name as "primary?", e.run_id,
                  e.detail, e.created_at
           from event e
           left join mailbox m on m.mailbox_id = e.mailbox_id
           left join server p on p.server_id = m.primary_server_id
           where e.event_id > $1
           order by e.event_id
           limit $2"#,
        after,
        limit
    );
    Ok(events.fetch_all(executor).await?)
}

/// Which past events are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    pub mailbox: Option<MailboxId>,
    pub run: Option<Uuid>,
    pub kind: Option<&'a str>,
    /// Only those before this number.
    pub before: Option<i64>,
    pub limit: i64,
}

/// The events of a scope, newest first. A narrow one has only those of its mailboxes.
pub async fn past(executor: impl PgExecutor<'_>, scope: &Scope, past: &Past<'_>) -> Result<Vec<Event>> {
    let events = sqlx::query_as!(
        Event,
        r#"select e.event_id, e.tenant_id, e.kind, e.mailbox_id, m.address as "address?", m.group_name as "group?", p.name as "primary?", e.run_id,
                  e.detail, e.created_at
           from event e
           left join mailbox m on m.mailbox_id = e.mailbox_id
           left join server p on p.server_id = m.primary_server_id
           where e.tenant_id = $1
             and ($2::bigint is null or e.mailbox_id = $2)
             and ($3::uuid is null or e.run_id = $3)
             and ($4::text is null or e.kind = $4)
             and ($5::bigint is null or e.event_id < $5)
             and ($7::text is null or m.group_name = $7) and ($8::text is null or lower(m.address) = lower($8))
           order by e.event_id desc
           limit $6"#,
        scope.tenant.0,
        past.mailbox.map(|mailbox| mailbox.0),
        past.run,
        past.kind,
        past.before,
        past.limit,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    Ok(events.fetch_all(executor).await?)
}

/// Records one event for each of many mailboxes and wakes who listens once.
pub async fn record_each(
    executor: impl PgExecutor<'_>,
    kind: &str,
    mailboxes: &[i64],
    run: Option<Uuid>,
    detail: &Value,
) -> Result<()> {
    sqlx::query!(
        "with recorded as (
            insert into event (tenant_id, kind, mailbox_id, run_id, detail)
            select tenant_id, $1, mailbox_id, $4, $3 from mailbox where mailbox_id = any ($2) order by mailbox_id
            returning event_id
         )
         select pg_notify('understudy_event', coalesce(max(event_id), 0)::text) from recorded",
        kind,
        mailboxes,
        detail,
        run
    )
    .fetch_one(executor)
    .await?;
    Ok(())
}
