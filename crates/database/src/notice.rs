//! What people are to be told, the outbox it becomes, and what became of that.
//!
//! Keeps true: notices are noted by triggers, in the SQL transaction of what happened; a notice is turned into messages once, in
//! one SQL transaction; a message is with one sender at a time.

use chrono::{DateTime, NaiveTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{MailboxId, TenantId};
use uuid::Uuid;

use crate::Result;

/// The NOTIFY channel that tells of a notice or a message that waits.
pub const CHANNEL: &str = "understudy_notice";

/// A tenant's wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub administrators: Vec<String>,
    pub notify_users: bool,
    pub language: String,
    pub quiet_from: Option<NaiveTime>,
    pub quiet_to: Option<NaiveTime>,
    pub utc_offset_minutes: i32,
    pub group_minutes: i32,
    pub per_hour: i32,
    pub muted: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            administrators: Vec::new(),
            notify_users: true,
            language: "en".to_owned(),
            quiet_from: None,
            quiet_to: None,
            utc_offset_minutes: 0,
            group_minutes: 15,
            per_hour: 20,
            muted: Vec::new(),
        }
    }
}

/// A tenant's wishes, or what holds without.
pub async fn settings(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Settings> {
    let row = sqlx::query_as!(
        Settings,
        "select administrators, notify_users, language, quiet_from, quiet_to, utc_offset_minutes, group_minutes, per_hour,
                muted
         from notice_settings where tenant_id = $1",
        tenant.0
    );
    Ok(row.fetch_optional(db).await?.unwrap_or_default())
}

/// Sets all of a tenant's wishes.
pub async fn set_settings(db: impl PgExecutor<'_>, tenant: TenantId, settings: &Settings) -> Result<()> {
    sqlx::query!(
        "insert into notice_settings (tenant_id, administrators, notify_users, language, quiet_from, quiet_to,
                                      utc_offset_minutes, group_minutes, per_hour, muted)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (tenant_id) do update set administrators = excluded.administrators,
             notify_users = excluded.notify_users, language = excluded.language, quiet_from = excluded.quiet_from,
             quiet_to = excluded.quiet_to, utc_offset_minutes = excluded.utc_offset_minutes,
             group_minutes = excluded.group_minutes, per_hour = excluded.per_hour, muted = excluded.muted",
        tenant.0,
        &settings.administrators,
        settings.notify_users,
        settings.language,
        settings.quiet_from,
        settings.quiet_to,
        settings.utc_offset_minutes,
        settings.group_minutes,
        settings.per_hour,
        &settings.muted
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A tenant's own words for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub topic: String,
    pub language: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// All of a tenant's own templates.
pub async fn templates(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<Template>> {
    let rows = sqlx::query_as!(
        Template,
        "select topic, language, subject, text, html from notice_template where tenant_id = $1 order by topic, language",
        tenant.0
    );
    Ok(rows.fetch_all(db).await?)
}

/// Writes a tenant's own template.
pub async fn set_template(db: impl PgExecutor<'_>, tenant: TenantId, template: &Template) -> Result<()> {
    sqlx::query!(
        "insert into notice_template (tenant_id, topic, language, subject, text, html) values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, topic, language) do update set subject = excluded.subject, text = excluded.text,
             html = excluded.html, changed_at = now()",
        tenant.0,
        template.topic,
        template.language,
        template.subject,
        template.text,
        template.html
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Goes back to the words built in. False when there were no others.
pub async fn drop_template(db: impl PgExecutor<'_>, tenant: TenantId, topic: &str, language: &str) -> Result<bool> {
    let dropped = sqlx::query!(
        "delete from notice_template where tenant_id = $1 and topic = $2 and language = $3",
        tenant.0,
        topic,
        language
    );
    Ok(dropped.execute(db).await?.rows_affected() > 0)
}

/// Where else a mailbox's user is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    pub alternate: Option<String>,
    pub language: Option<String>,
}

/// A mailbox's contact.
pub async fn contact(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Contact> {
    let row =
        sqlx::query_as!(Contact, "select alternate, language from mailbox_contact where mailbox_id = $1", mailbox.0);
    Ok(row.fetch_optional(db).await?.unwrap_or_default())
}

/// Sets a mailbox's contact.
pub async fn set_contact(db: impl PgExecutor<'_>, mailbox: MailboxId, contact: &Contact) -> Result<()> {
    sqlx::query!(
        "insert into mailbox_contact (mailbox_id, alternate, language) values ($1, $2, $3)
         on conflict (mailbox_id) do update set alternate = excluded.alternate, language = excluded.language",
        mailbox.0,
        contact.alternate,
        contact.language
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Tells the users of mailboxes something ahead; the notices are turned into messages like all others.
pub async fn announce(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    mailboxes: &[i64],
    topic: &str,
    detail: &Value,
) -> Result<i64> {
    let told = sqlx::query_scalar!(
        r#"with told as (
               select notice_add($1, $3, 'user', null, m.mailbox_id, null, $4) from mailbox m
               where m.tenant_id = $1 and m.mailbox_id = any($2) and m.unprotected_at is null
           )
           select count(*) as "told!" from told"#,
        tenant.0,
        mailboxes,
        topic,
        detail
    );
    Ok(told.fetch_one(db).await?)
}

/// A notice nobody has been told of yet, with the names people know things by.
#[derive(Clone, Debug)]
pub struct Notice {
    pub notice_id: i64,
    pub topic: String,
    pub audience: String,
    pub mailbox_id: Option<i64>,
    pub address: Option<String>,
    pub primary: Option<String>,
    pub standby: Option<String>,
    pub alternate: Option<String>,
    pub language: Option<String>,
    pub run_id: Option<Uuid>,
    pub run: Option<Value>,
    pub detail: Value,
    pub created_at: DateTime<Utc>,
}

/// Tenants and topics of which something waits, whose oldest notice is older than so many seconds; for users at once.
pub async fn ripe(db: impl PgExecutor<'_>, gather_seconds: f64) -> Result<Vec<(TenantId, String, String, String)>> {
    let rows = sqlx::query!(
        r#"select n.tenant_id, t.name as tenant, n.topic, n.audience
           from notice n join tenant t using (tenant_id)
           where n.taken_at is null
           group by n.tenant_id, t.name, n.topic, n.audience
           having n.audience = 'user' or min(n.created_at) < now() - make_interval(secs => $1)
           order by min(n.created_at)"#,
        gather_seconds
    );
    let rows = rows.fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (TenantId(row.tenant_id), row.tenant, row.topic, row.audience)).collect())
}

/// Was a mail of this topic written for administrators within these minutes?
pub async fn told_lately(db: impl PgExecutor<'_>, tenant: TenantId, topic: &str, minutes: i32) -> Result<bool> {
    let told = sqlx::query_scalar!(
        r#"select exists(
               select from notice where tenant_id = $1 and topic = $2 and audience = 'administrators'
                 and taken_at > now() - make_interval(mins => $3)
           ) as "told!""#,
        tenant.0,
        topic,
        minutes
    );
    Ok(told.fetch_one(db).await?)
}

/// Takes the notices of one topic, at most so many; nobody else gets them, and they are taken for good once the caller commits.
pub async fn take(
    db: &mut PgConnection,
    tenant: TenantId,
    topic: &str,
    audience: &str,
    limit: i64,
) -> Result<Vec<Notice>> {
    let notices = sqlx::query_as!(
        Notice,
        r#"with taken as (
               update notice set taken_at = now() where notice_id in (
                   select notice_id from notice
                   where tenant_id = $1 and topic = $2 and audience = $3 and taken_at is null
                   order by notice_id limit $4 for update skip locked
               )
               returning *
           )
           select n.notice_id as "notice_id!", n.topic as "topic!", n.audience as "audience!", n.mailbox_id,
                  m.address as "address?", p.name as "primary?", s.name as "standby?", c.alternate as "alternate?",
                  c.language as "language?", n.run_id,
                  case when r.run_id is not null then jsonb_build_object('id', r.run_id, 'kind', r.kind, 'state', r.state,
                      'reason', r.reason, 'requested_by', r.requested_by, 'result', r.result,
                      'seconds', extract(epoch from r.ended_at - r.started_at)::float8) end as run,
                  n.detail as "detail!", n.created_at as "created_at!"
           from taken n
           left join mailbox m on m.mailbox_id = n.mailbox_id
           left join server p on p.server_id = m.primary_server_id
           left join server s on s.server_id = m.standby_server_id
           left join mailbox_contact c on c.mailbox_id = n.mailbox_id
           left join run r on r.run_id = n.run_id
           order by n.notice_id"#,
        tenant.0,
        topic,
        audience,
        limit
    );
    Ok(notices.fetch_all(db).await?)
}

/// A message to write into the outbox.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    pub topic: String,
    /// `mail` or `hook`.
    pub channel: &'static str,
    pub recipient: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub body: String,
    pub mailbox_id: Option<i64>,
    pub run_id: Option<Uuid>,
    pub not_before: Option<DateTime<Utc>>,
}

/// Writes a message. One that would be more than `per_hour` for its recipient waits for the hour to pass.
pub async fn post(db: impl PgExecutor<'_>, tenant: TenantId, new: &NewMessage, per_hour: i32) -> Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into message (message_id, tenant_id, topic, channel, recipient, subject, text, html, body, mailbox_id, run_id,
                              not_before)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
                 greatest(coalesce($12, now()),
                     -- As many lately as an hour may have: an hour after the one so many before.
                     (select m.not_before + interval '1 hour' from message m
                      where m.recipient = $5 and m.channel = 'mail' and m.created_at > now() - interval '1 day'
                      order by m.not_before desc offset $13::bigint - 1 limit 1)))",
        id,
        tenant.0,
        new.topic,
        new.channel,
        new.recipient,
        new.subject,
        new.text,
        new.html,
        new.body,
        new.mailbox_id,
        new.run_id,
        new.not_before,
        i64::from(per_hour)
    )
    .execute(db)
    .await?;
    Ok(id)
}

/// A message to be sent now.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub message_id: Uuid,
    pub tenant_id: i64,
    pub topic: String,
    pub channel: String,
    pub recipient: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub body: String,
    pub created_at: DateTime<Utc>,
    /// This one included.
    pub attempts: i32,
}

/// Leases the next message that is due: nobody else gets it for so many seconds.
pub async fn lease(db: impl PgExecutor<'_>, seconds: f64) -> Result<Option<Outgoing>> {
    let outgoing = sqlx::query_as!(
        Outgoing,
        "update message set attempts = attempts + 1, leased_until = now() + make_interval(secs => $1)
         where message_id = (
             select message_id from message
             where sent_at is null and failed_at is null and not_before <= now()
               and (leased_until is null or leased_until < now())
             order by not_before limit 1 for update skip locked
         )
         returning message_id, tenant_id, topic, channel, recipient, subject, text, html, body, created_at, attempts",
        seconds
    );
    Ok(outgoing.fetch_optional(db).await?)
}

/// One attempt of a message.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub via: String,
    /// `sent`, `deferred`, `refused`.
    pub outcome: &'static str,
    pub answer: String,
}

/// What becomes of a message after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Sent,
    Again { seconds: i64 },
    Failed,
}

/// Notes the attempts of a leased message and what comes next, together.
pub async fn settle(db: &mut PgConnection, message: &Outgoing, attempts: &[Attempt], next: Next) -> Result<()> {
    for attempt in attempts {
        sqlx::query!(
            "insert into delivery (message_id, attempt, via, outcome, answer) values ($1, $2, $3, $4, $5)
             on conflict do nothing",
            message.message_id,
            message.attempts,
            attempt.via,
            attempt.outcome,
            attempt.answer
        )
        .execute(&mut *db)
        .await?;
    }
    let seconds = match next {
        Next::Again { seconds } => seconds,
        Next::Sent | Next::Failed => 0,
    };
    sqlx::query!(
        "update message set leased_until = null,
             sent_at = case when $2 then now() else sent_at end,
             failed_at = case when $3 then now() else failed_at end,
             not_before = case when $2 or $3 then not_before else now() + make_interval(secs => $4) end
         where message_id = $1",
        message.message_id,
        next == Next::Sent,
        next == Next::Failed,
        seconds as f64
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A message in the delivery log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub message_id: Uuid,
    pub topic: String,
    pub channel: String,
    pub recipient: String,
    pub subject: String,
    /// `waiting`, `sent`, `failed`.
    pub state: String,
    pub created_at: DateTime<Utc>,
    pub not_before: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub attempts: i32,
    /// The last attempt.
    pub via: Option<String>,
    pub answer: Option<String>,
}

/// A tenant's messages, newest first, after one of them.
pub async fn log(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    state: Option<&str>,
    recipient: Option<&str>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Logged>> {
    let (after_at, after_id) = after.unzip();
    let rows = sqlx::query_as!(
        Logged,
        r#"select m.message_id, m.topic, m.channel, m.recipient, m.subject,
                  case when m.sent_at is not null then 'sent' when m.failed_at is not null then 'failed' else 'waiting' end
                      as "state!",
                  m.created_at, m.not_before, m.sent_at, m.attempts, d.via as "via?", d.answer as "answer?"
           from message m
           left join lateral (
               select via, answer from delivery where message_id = m.message_id order by at desc limit 1
           ) d on true
           where m.tenant_id = $1
             and ($2::text is null or $2 = case when m.sent_at is not null then 'sent' when m.failed_at is not null then 'failed'
                                               else 'waiting' end)
             and ($3::text is null or position(lower($3) in lower(m.recipient)) > 0)
             and ($4::timestamptz is null or (m.created_at, m.message_id) < ($4, $5::uuid))
           order by m.created_at desc, m.message_id desc
           limit $6"#,
        tenant.0,
        state,
        recipient,
        after_at,
        after_id,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// Forgets messages older than so many days, and the notices they were written for.
pub async fn forget(db: &mut PgConnection, days: i32) -> Result<()> {
    sqlx::query!(
        "delete from message where created_at < now() - make_interval(days => $1)
           and (sent_at is not null or failed_at is not null)",
        days
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from notice where taken_at < now() - make_interval(days => $1)", days).execute(db).await?;
    Ok(())
}
