//! Sessions: who is logged in, from when until when.
//!
//! Keeps true: a session is good while it is neither ended, idle for too long nor older than it may get; only the digest of its
//! secret is kept.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{Digest, TenantId};
use uuid::Uuid;

use crate::Result;

/// A session nobody used for so long has ended.
pub const IDLE: Duration = Duration::from_secs(30 * 60);
/// No session gets older.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// How often the time of last use is written.
const SEEN_PRECISION_SECONDS: f64 = 30.0;

/// A good session and whose it is.
#[derive(Clone, Debug)]
pub struct Live {
    pub session_id: Uuid,
    pub account_id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub role: String,
    pub group: Option<String>,
    pub mailbox: Option<String>,
}

/// A session as its owner sees it.
#[derive(Clone, Debug)]
pub struct Session {
    pub session_id: Uuid,
    pub account: String,
    pub address: String,
    pub agent: String,
    pub created_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// Begins a session.
pub async fn begin(
    executor: impl PgExecutor<'_>,
    account_id: i64,
    digest: &Digest,
    address: &str,
    agent: &str,
) -> Result<Uuid> {
    let session_id = Uuid::new_v4();
    sqlx::query!(
        "insert into session (session_id, account_id, digest, address, agent, expires_at)
         values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))",
        session_id,
        account_id,
        &digest.0[..],
        address,
        agent,
        LONGEST.as_secs_f64()
    )
    .execute(executor)
    .await?;
    Ok(session_id)
}

/// Whose session this is, if it is still good.
pub async fn live(executor: impl PgExecutor<'_>, digest: &Digest) -> Result<Option<Live>> {
    let live = sqlx::query_as!(
        Live,
        r#"select s.session_id, a.account_id, a.tenant_id, a.name, a.role, a.group_name as "group",
                  a.mailbox_address as "mailbox"
           from session s join account a using (account_id)
           where s.digest = $1 and s.ended_at is null and s.expires_at > now()
             and s.seen_at > now() - make_interval(secs => $2) and a.disabled_at is null"#,
        &digest.0[..],
        IDLE.as_secs_f64()
    );
    Ok(live.fetch_optional(executor).await?)
}

/// Notes that a session was used, to the half minute.
pub async fn touch(executor: impl PgExecutor<'_>, session_id: Uuid) -> Result<()> {
    sqlx::query!(
        "update session set seen_at = now()
         where session_id = $1 and seen_at < now() - make_interval(secs => $2)",
        session_id,
        SEEN_PRECISION_SECONDS
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Good sessions of the tenant, or of one account, newest first.
pub async fn list(executor: impl PgExecutor<'_>, tenant: TenantId, account_id: Option<i64>) -> Result<Vec<Session>> {
    let sessions = sqlx::query_as!(
        Session,
        "select s.session_id, a.name as account, s.address, s.agent, s.created_at, s.seen_at, s.expires_at
         from session s join account a using (account_id)
         where a.tenant_id = $1 and ($2::bigint is null or a.account_id = $2)
           and s.ended_at is null and s.expires_at > now() and s.seen_at > now() - make_interval(secs => $3)
         order by s.created_at desc limit 1000",
        tenant.0,
        account_id,
        IDLE.as_secs_f64()
    );
    Ok(sessions.fetch_all(executor).await?)
}

/// Ends a session of the tenant, or of one account; false when there is none such.
pub async fn end(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    account_id: Option<i64>,
    session_id: Uuid,
) -> Result<bool> {
    let ended = sqlx::query!(
        "update session s set ended_at = coalesce(ended_at, now()) from account a
         where a.account_id = s.account_id and a.tenant_id = $1 and ($2::bigint is null or a.account_id = $2)
           and s.session_id = $3",
        tenant.0,
        account_id,
        session_id
    );
    Ok(ended.execute(executor).await?.rows_affected() > 0)
}

/// Ends the sessions of an account but `except`.
pub async fn end_all(db: &mut PgConnection, account_id: i64, except: Option<Uuid>) -> Result<()> {
    sqlx::query!(
        "update session set ended_at = now()
         where account_id = $1 and ended_at is null and ($2::uuid is null or session_id <> $2)",
        account_id,
        except
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets sessions that ended long ago.
pub async fn forget_old(executor: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query!("delete from session where expires_at < now() - interval '30 days'").execute(executor).await?;
    Ok(())
}
