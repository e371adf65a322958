//! Which pipelines have proven themselves lately, and where the others stopped.
//!
//! In: what the recovery gateway finds every few seconds. Out: what status, lists, metrics and events show.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{MailboxId, Seq};

use crate::{Result, event, scope::Scope};

/// A mailbox that has something on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnItsWay {
    pub mailbox: MailboxId,
    pub captured: Seq,
    pub received: Seq,
    pub applied: Seq,
}

/// Notes that the recovery gateway looked after the mailboxes. Answers when a source gateway was last heard of.
pub async fn watched(db: impl PgExecutor<'_>, connections: i32) -> Result<Option<DateTime<Utc>>> {
    let heard = sqlx::query_scalar!(
        "update link set watched_at = now(), connections = $1 where link_id = 1 returning heard_at",
        connections
    );
    Ok(heard.fetch_one(db).await?)
}

/// Mailboxes that are to move and have something captured and not applied.
pub async fn on_their_way(db: impl PgExecutor<'_>) -> Result<Vec<OnItsWay>> {
    let rows = sqlx::query!(
        "select mailbox_id, captured_seq, received_seq, applied_seq from mailbox
         where unprotected_at is null and not paused and phase in ('seeding', 'mirroring')
           and (applied_seq < received_seq or received_seq < captured_seq)"
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OnItsWay {
            mailbox: MailboxId(row.mailbox_id),
            captured: Seq(row.captured_seq),
            received: Seq(row.received_seq),
            applied: Seq(row.applied_seq),
        })
        .collect())
}

/// Flags these mailboxes (or all, where none are named) that should be moving as unproven; tells of those that were not flagged
/// with the same place before.
pub async fn flag(db: &mut PgConnection, mailboxes: Option<&[i64]>, detail: &Value) -> Result<()> {
    let flagged = sqlx::query_scalar!(
        "update mailbox set unproven = $2::jsonb
         where unprotected_at is null and not paused and phase in ('seeding', 'mirroring')
           and ($1::bigint[] is null or mailbox_id = any ($1))
           and unproven ->> 'place' is distinct from $2::jsonb ->> 'place'
         returning mailbox_id",
        mailboxes as Option<&[i64]>,
        detail
    )
    .fetch_all(&mut *db)
    .await?;
    if !flagged.is_empty() {
        event::record_each(db, "unproven", &flagged, None, detail).await?;
    }
    Ok(())
}

/// Every other mailbox than these has proven itself.
pub async fn clear_but(db: &mut PgConnection, unproven: &[i64]) -> Result<()> {
    let cleared = sqlx::query_scalar!(
        "update mailbox set unproven = null where unproven is not null and mailbox_id <> all ($1) returning mailbox_id",
        unproven
    )
    .fetch_all(&mut *db)
    .await?;
    if !cleared.is_empty() {
        event::record_each(db, "proven", &cleared, None, &json!({})).await?;
    }
    Ok(())
}

/// How many mailboxes have not proven themselves lately, by the place where they stopped.
pub async fn places(db: impl PgExecutor<'_>, scope: Option<&Scope>) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select unproven ->> 'place' as "place!", count(*) as "mailboxes!" from mailbox m
           where unproven is not null and unprotected_at is null and ($1::bigint is null or tenant_id = $1)
             and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
           group by 1 order by 1"#,
        scope.map(|scope| scope.tenant.0),
        scope.and_then(|scope| scope.group.as_deref()),
        scope.and_then(|scope| scope.mailbox.as_deref())
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.place, row.mailboxes)).collect())
}

/// For how long the recovery gateway has not looked after the mailboxes, in seconds; none before it ever did.
pub async fn unwatched_seconds(db: impl PgExecutor<'_>) -> Result<Option<f64>> {
    let age = sqlx::query_scalar!(
        r#"select case when watched_at is not null then
               greatest(extract(epoch from now() - watched_at), 0)::float8 end as age from link where link_id = 1"#
    );
    Ok(age.fetch_one(db).await?)
}

/// Takes the mailbox whose turn it is to be verified by itself, if there is one and none is being verified that way: those that never
/// were, the cheapest first; then the one that waited longest.
pub async fn take_due(db: &mut PgConnection, every_seconds: f64) -> Result<Option<(i64, MailboxId, String)>> {
    let row = sqlx::query!(
        "update mailbox set verify_begun_at = now() where mailbox_id = (
             select mailbox_id from mailbox
             where unprotected_at is null and not paused and not held and phase = 'mirroring' and unproven is null
               and greatest(verify_begun_at, last_verified_at, created_at) < now() - make_interval(secs => $1)
               and not exists (
                   select from run where kind = 'verify' and requested_by = 'schedule' and state in ('waiting', 'running'))
             order by verify_begun_at is not null, case when verify_begun_at is null then messages_done end, verify_begun_at,
                 mailbox_id
             limit 1 for update skip locked)
         returning tenant_id, mailbox_id, address",
        every_seconds
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.tenant_id, MailboxId(row.mailbox_id), row.address)))
}
