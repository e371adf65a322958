//! Answers to POSTs already carried out, by `Idempotency-Key`.
//!
//! Keeps true: of two requests with one key, one is carried out; the other hears the first one's answer or that it is
//! still being worked on. Only successes are kept: what was refused changed nothing and may be asked again.

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{Digest, TenantId};

use crate::Result;

/// The status of a claim whose answer is not there yet.
const BEGUN: i32 = 0;
/// A claim without an answer for so long belongs to a process that died.
const ABANDONED_SECONDS: f64 = 120.0;
/// How long answers are kept.
const KEPT_HOURS: i32 = 48;

/// An answer given before.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: i32,
    pub response: Value,
    pub location: Option<String>,
}

/// What a key turned out to be.
#[derive(Debug)]
pub enum Claim {
    /// Nobody used it: carry the request out, then [`keep`] or [`release`].
    New,
    /// The same request was carried out before.
    Answered(Answer),
    /// The same request is being carried out.
    Busy,
    /// The key came with another request.
    OtherRequest,
}

/// Claims `key` for the request with this digest.
pub async fn claim(connection: &mut PgConnection, tenant: TenantId, key: &str, request: &Digest) -> Result<Claim> {
    let claimed = sqlx::query!(
        "insert into idempotency as known (tenant_id, key, request_digest, status, response)
         values ($1, $2, $3, $4, 'null')
         on conflict (tenant_id, key) do update set created_at = now()
         where known.status = $4 and known.request_digest = $3
             and known.created_at < now() - make_interval(secs => $5)",
        tenant.0,
        key,
        &request.0[..],
        BEGUN,
        ABANDONED_SECONDS
    );
    if claimed.execute(&mut *connection).await?.rows_affected() > 0 {
        return Ok(Claim::New);
    }
    let known = sqlx::query!(
        "select request_digest, status, response, location from idempotency where tenant_id = $1 and key = $2",
        tenant.0,
        key
    );
    Ok(match known.fetch_optional(connection).await? {
        // Released between the two statements: whoever asks again gets through.
        None => Claim::Busy,
        Some(known) if known.request_digest != request.0 => Claim::OtherRequest,
        Some(known) if known.status == BEGUN => Claim::Busy,
        Some(known) => {
            Claim::Answered(Answer { status: known.status, response: known.response, location: known.location })
        }
    })
}

/// Keeps the answer to a claimed request.
pub async fn keep(executor: impl PgExecutor<'_>, tenant: TenantId, key: &str, answer: &Answer) -> Result<()> {
    sqlx::query!(
        "update idempotency set status = $3, response = $4, location = $5 where tenant_id = $1 and key = $2",
        tenant.0,
        key,
        answer.status,
        answer.response,
        answer.location
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Gives a claimed key back: the request changed nothing.
pub async fn release(executor: impl PgExecutor<'_>, tenant: TenantId, key: &str) -> Result<()> {
    sqlx::query!("delete from idempotency where tenant_id = $1 and key = $2 and status = $3", tenant.0, key, BEGUN)
        .execute(executor)
        .await?;
    Ok(())
}

/// Forgets old answers.
pub async fn forget_old(executor: impl PgExecutor<'_>) -> Result<u64> {
    let forgotten =
        sqlx::query!("delete from idempotency where created_at < now() - make_interval(hours => $1)", KEPT_HOURS);
    Ok(forgotten.execute(executor).await?.rows_affected())
}
