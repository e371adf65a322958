//! Canary mailboxes: their pace, the messages on their way, and where the last one stopped.
//!
//! Keeps true: a message is noted before it is written to the primary, and forgotten only after it was removed there; at most one
//! is on its way.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{MailboxId, Seq, Uid, UidValidity, server::Server};

use crate::{Error, Result, columns, event, scope::Scope};

/// A canary, as interfaces show it.
#[derive(Clone, Debug)]
pub struct Canary {
    pub every_seconds: f64,
    pub within_seconds: f64,
    pub last_seen_at: Option<DateTime<Utc>>,
    /// From the writing of the last one that arrived until it was seen.
    pub last_seconds: Option<f64>,
    pub seen_total: i64,
    pub late_total: i64,
    /// Where the one on its way stopped: {place, reason, remedy, since}.
    pub late: Option<Value>,
}

/// The canary of a mailbox, where it has one.
pub async fn get(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Canary>> {
    let canary = sqlx::query_as!(
        Canary,
        "select every_seconds, within_seconds, last_seen_at, last_seconds, seen_total, late_total, late
         from canary where mailbox_id = $1 and ended_at is null",
        mailbox.0
    );
    Ok(canary.fetch_optional(db).await?)
}

/// Makes a mailbox a canary, or gives it another pace.
pub async fn set(db: &mut PgConnection, mailbox: MailboxId, every: Duration, within: Duration, by: &str) -> Result<()> {
    sqlx::query!(
        "insert into canary (mailbox_id, every_seconds, within_seconds) values ($1, $2, $3)
         on conflict (mailbox_id) do update
         set every_seconds = $2, within_seconds = $3, turn_at = now(), ended_at = null, late = null, failing_since = null",
        mailbox.0,
        every.as_secs_f64(),
        within.as_secs_f64()
    )
    .execute(&mut *db)
    .await?;
    let detail = json!({ "every_seconds": every.as_secs_f64(), "within_seconds": within.as_secs_f64(), "by": by });
    event::record(db, "canary", Some(mailbox), None, &detail).await
}

/// The mailbox is a canary no longer; what was written into it is removed. False when it was none.
pub async fn end(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<bool> {
    let ended = sqlx::query!(
        "update canary set ended_at = now(), turn_at = now(), late = null where mailbox_id = $1 and ended_at is null",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    if ended.rows_affected() > 0 {
        event::record(db, "canary", Some(mailbox), None, &json!({ "ended": true, "by": by })).await?;
    }
    Ok(ended.rows_affected() > 0)
}

/// Whose turn it is. Canaries rest while their mailbox is not mirrored: what was on its way then proves nothing.
pub async fn due(db: &mut PgConnection) -> Result<Vec<MailboxId>> {
    sqlx::query!(
        "with resting as (
             select c.mailbox_id from canary c join mailbox m using (mailbox_id)
             where m.unprotected_at is not null or m.paused or m.phase <> 'mirroring'
         ), rested as (
             update canary set late = null, failing_since = null
             where mailbox_id in (select mailbox_id from resting) and (late is not null or failing_since is not null)
         )
         update canary_message set ended_at = now()
         where mailbox_id in (select mailbox_id from resting) and ended_at is null"
    )
    .execute(&mut *db)
    .await?;
    let due = sqlx::query_scalar!(
        "select c.mailbox_id from canary c join mailbox m using (mailbox_id)
         where c.turn_at <= now()
           and (c.ended_at is not null or m.unprotected_at is not null or (not m.paused and m.phase = 'mirroring'))
         order by c.turn_at"
    );
    Ok(due.fetch_all(db).await?.into_iter().map(MailboxId).collect())
}

/// What a canary's turn needs.
#[derive(Clone, Debug)]
pub struct Turn {
    pub mailbox: MailboxId,
    pub address: String,
    pub standby_address: String,
    pub primary: Server,
    pub standby: Server,
    pub every: Duration,
    pub within: Duration,
    /// It is to be cleared away.
    pub over: bool,
    /// Since when nothing could be written to the primary.
    pub failing_since: Option<DateTime<Utc>>,
    pub late: bool,
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// A message of ours in a canary mailbox.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: i64,
    pub body: Vec<u8>,
    pub primary_uid_validity: UidValidity,
    pub primary_uid_next: Uid,
    pub received: Seq,
    pub primary_uid: Option<Uid>,
    pub written_at: Option<DateTime<Utc>>,
    /// It arrived, or nobody waits for it any more.
    pub over: bool,
}

/// What a canary's turn needs; none when it was cleared away.
pub async fn turn(db: &mut PgConnection, mailbox: MailboxId) -> Result<Option<Turn>> {
    let row = sqlx::query!(
        r#"select m.address, m.standby_address, p.definition as primary_definition, s.definition as standby_definition,
                  c.every_seconds, c.within_seconds, c.failing_since, c.late is not null as "late!",
                  c.ended_at is not null or m.unprotected_at is not null as "over!"
           from canary c join mailbox m using (mailbox_id)
           join server p on p.server_id = m.primary_server_id
           join server s on s.server_id = m.standby_server_id
           where c.mailbox_id = $1"#,
        mailbox.0
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let messages = sqlx::query!(
        r#"select canary_message_id, body, primary_uid_validity, primary_uid_next, received_seq, primary_uid, written_at,
                  ended_at is not null as "over!"
           from canary_message where mailbox_id = $1 order by canary_message_id"#,
        mailbox.0
    )
    .fetch_all(&mut *db)
    .await?;
    let messages = messages.into_iter().map(|message| {
        Ok(Message {
            id: message.canary_message_id,
            body: message.body,
            primary_uid_validity: columns::uid_validity(message.primary_uid_validity)?,
            primary_uid_next: columns::uid(message.primary_uid_next)?,
            received: Seq(message.received_seq),
            primary_uid: message.primary_uid.map(columns::uid).transpose()?,
            written_at: message.written_at,
            over: message.over,
        })
    });
    let server = |value| serde_json::from_value(value).map_err(|error| Error::unreadable("server", error));
    Ok(Some(Turn {
        mailbox,
        address: row.address,
        standby_address: row.standby_address,
        primary: server(row.primary_definition)?,
        standby: server(row.standby_definition)?,
        every: Duration::from_secs_f64(row.every_seconds),
        within: Duration::from_secs_f64(row.within_seconds),
        over: row.over,
        failing_since: row.failing_since,
        late: row.late,
        messages: messages.collect::<Result<_>>()?,
    }))
}

/// Notes a message that is about to be written to the primary's INBOX, which has these numbers now.
pub async fn begin(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    body: &[u8],
    uid_validity: UidValidity,
    uid_next: Uid,
) -> Result<i64> {
    let id = sqlx::query_scalar!(
        "insert into canary_message (mailbox_id, body, primary_uid_validity, primary_uid_next, received_seq)
         select mailbox_id, $2, $3, $4, received_seq from mailbox where mailbox_id = $1 returning canary_message_id",
        mailbox.0,
        body,
        i64::from(uid_validity.0),
        i64::from(uid_next.0)
    );
    Ok(id.fetch_one(db).await?)
}

/// It is on the primary, with this UID.
pub async fn written(db: impl PgExecutor<'_>, message: i64, uid: Uid) -> Result<()> {
    sqlx::query!(
        "with message as (
             update canary_message set primary_uid = $2, written_at = now() where canary_message_id = $1 returning mailbox_id
         )
         update canary set failing_since = null from message where canary.mailbox_id = message.mailbox_id",
        message,
        i64::from(uid.0)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// It was seen on the standby. Answers for how long it was on its way.
pub async fn seen(db: &mut PgConnection, mailbox: MailboxId, message: i64) -> Result<f64> {
    let seconds = sqlx::query_scalar!(
        r#"update canary_message set ended_at = now() where canary_message_id = $1
           returning greatest(extract(epoch from now() - coalesce(written_at, begun_at)), 0)::float8 as "seconds!""#,
        message
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "update canary set last_seen_at = now(), last_seconds = $2, seen_total = seen_total + 1, late = null,
             turn_at = greatest(now(), now() + make_interval(secs => every_seconds - $2))
         where mailbox_id = $1",
        mailbox.0,
        seconds
    )
    .execute(db)
    .await?;
    Ok(seconds)
}

/// The one on its way has not arrived in time, and stopped there; it is looked for again after `again`.
pub async fn late(db: &mut PgConnection, mailbox: MailboxId, detail: &Value, again: Duration) -> Result<()> {
    let place = sqlx::query_scalar!(
        "with before as (select late from canary where mailbox_id = $1 for update)
         update canary set late = case when before.late ->> 'place' = $2::jsonb ->> 'place' then before.late else $2 end,
             late_total = late_total + (before.late is null)::int,
             turn_at = now() + make_interval(secs => $3)
         from before where mailbox_id = $1 and ended_at is null returning before.late ->> 'place'",
        mailbox.0,
        detail,
        again.as_secs_f64()
    )
    .fetch_optional(db)
    .await?;
    if place.is_some_and(|before| before.as_deref() != detail["place"].as_str()) {
        tracing::warn!(mailbox.id = %mailbox, place = detail["place"].as_str(), "A canary has not arrived in time");
    }
    Ok(())
}

/// Nothing could be written; another try comes after `again`. Answers since when.
pub async fn failing(db: impl PgExecutor<'_>, mailbox: MailboxId, again: Duration) -> Result<DateTime<Utc>> {
    let since = sqlx::query_scalar!(
        r#"update canary set failing_since = coalesce(failing_since, now()), turn_at = now() + make_interval(secs => $2)
           where mailbox_id = $1 returning failing_since as "since!""#,
        mailbox.0,
        again.as_secs_f64()
    );
    Ok(since.fetch_one(db).await?)
}

/// The next turn comes after this.
pub async fn rest(db: impl PgExecutor<'_>, mailbox: MailboxId, pause: Duration) -> Result<()> {
    sqlx::query!(
        "update canary set turn_at = now() + make_interval(secs => $2) where mailbox_id = $1",
        mailbox.0,
        pause.as_secs_f64()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// These messages are not on the primary any more.
pub async fn removed(db: impl PgExecutor<'_>, messages: &[i64]) -> Result<()> {
    sqlx::query!("delete from canary_message where canary_message_id = any ($1)", messages).execute(db).await?;
    Ok(())
}

/// Nothing of it is left on the primary. One that was made a canary again meanwhile stays one.
pub async fn gone(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!(
        "delete from canary c using mailbox m
         where c.mailbox_id = $1 and m.mailbox_id = $1 and (c.ended_at is not null or m.unprotected_at is not null)",
        mailbox.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How far a mailbox's journal goes, and whether a source gateway was heard of since a time.
#[derive(Clone, Copy, Debug)]
pub struct Whereabouts {
    pub captured: Seq,
    pub received: Seq,
    pub applied: Seq,
    pub heard: bool,
    pub connections: i32,
}

/// Where something that was written to the primary at that time can have stopped.
pub async fn whereabouts(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    written_at: DateTime<Utc>,
) -> Result<Whereabouts> {
    let row = sqlx::query!(
        r#"select captured_seq, received_seq, applied_seq, coalesce(heard_at > $2, false) as "heard!", connections
           from mailbox cross join link where mailbox_id = $1"#,
        mailbox.0,
        written_at
    )
    .fetch_one(db)
    .await?;
    Ok(Whereabouts {
        captured: Seq(row.captured_seq),
        received: Seq(row.received_seq),
        applied: Seq(row.applied_seq),
        heard: row.heard,
        connections: row.connections,
    })
}

/// Canaries that have not arrived in time, and where they stopped.
pub async fn all_late(db: impl PgExecutor<'_>) -> Result<Vec<(MailboxId, Value)>> {
    let rows = sqlx::query!(
        r#"select mailbox_id, late as "late!" from canary where late is not null and ended_at is null order by mailbox_id"#
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (MailboxId(row.mailbox_id), row.late)).collect())
}

/// All canaries in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub total: i64,
    pub late: i64,
    /// Of the last one of each that arrived.
    pub slowest_seconds: Option<f64>,
}

/// All canaries in numbers; of every tenant when none is named.
pub async fn summary(db: impl PgExecutor<'_>, scope: Option<&Scope>) -> Result<Summary> {
    let summary = sqlx::query_as!(
        Summary,
        r#"select count(*) as "total!", count(c.late) as "late!", max(c.last_seconds) as slowest_seconds
           from canary c join mailbox m using (mailbox_id)
           where c.ended_at is null and m.unprotected_at is null and ($1::bigint is null or m.tenant_id = $1)
             and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))"#,
        scope.map(|scope| scope.tenant.0),
        scope.and_then(|scope| scope.group.as_deref()),
        scope.and_then(|scope| scope.mailbox.as_deref())
    );
    Ok(summary.fetch_one(db).await?)
}
