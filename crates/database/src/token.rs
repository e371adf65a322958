//! API tokens. Only a BLAKE3 digest is kept, so that the database gives no token away.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use understudy_protocol::{Digest, TenantId};

use crate::{Result, scope::Scope};

/// How often the time of last use is written: often enough to see a token unused, rarely enough to cost nothing.
const LAST_USED_PRECISION_SECONDS: f64 = 60.0;

/// A token without its secret.
#[derive(Clone, Debug)]
pub struct Token {
    pub token_id: i64,
    pub name: String,
    pub role: String,
    pub group: Option<String>,
    pub mailbox: Option<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Whom a token speaks for.
#[derive(Clone, Debug)]
pub struct Bearer {
    pub token_id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub role: String,
    pub group: Option<String>,
    pub mailbox: Option<String>,
}

/// What is kept of a token.
#[must_use]
pub fn digest_of(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

/// Keeps a new token. A name is taken for good, also by a revoked one: constraint `token_name_unique`.
pub async fn create(
    executor: impl PgExecutor<'_>,
    scope: &Scope,
    name: &str,
    role: &str,
    expires_at: Option<DateTime<Utc>>,
    digest: &Digest,
) -> Result<Token> {
    let token = sqlx::query_as!(
        Token,
        r#"insert into token (tenant_id, name, role, expires_at, digest, group_name, mailbox_address)
           values ($1, $2, $3, $4, $5, $6, $7)
           returning token_id, name, role, group_name as "group", mailbox_address as mailbox, created_at, expires_at,
                     revoked_at, last_used_at"#,
        scope.tenant.0,
        name,
        role,
        expires_at,
        &digest.0[..],
        scope.group,
        scope.mailbox
    );
    Ok(token.fetch_one(executor).await?)
}

/// Who presents the token with this digest, if it is still good.
pub async fn bearer(executor: impl PgExecutor<'_>, digest: &Digest) -> Result<Option<Bearer>> {
    let bearer = sqlx::query_as!(
        Bearer,
        r#"select token_id, tenant_id, name, role, group_name as "group", mailbox_address as mailbox from token
           where digest = $1 and revoked_at is null and (expires_at is null or expires_at > now())"#,
        &digest.0[..]
    );
    Ok(bearer.fetch_optional(executor).await?)
}

/// Notes that a token was used, to the minute.
pub async fn touch(executor: impl PgExecutor<'_>, token_id: i64) -> Result<()> {
    sqlx::query!(
        "update token set last_used_at = now()
         where token_id = $1 and (last_used_at is null or last_used_at < now() - make_interval(secs => $2))",
        token_id,
        LAST_USED_PRECISION_SECONDS
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// The tenant's tokens after `after`, by name.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Token>> {
    let tokens = sqlx::query_as!(
        Token,
        r#"select token_id, name, role, group_name as "group", mailbox_address as mailbox, created_at, expires_at, revoked_at,
                  last_used_at
           from token
           where tenant_id = $1 and ($2::text is null or name > $2)
           order by name limit $3"#,
        tenant.0,
        after,
        limit
    );
    Ok(tokens.fetch_all(executor).await?)
}

/// Ends a token; false when there is none of that name. Safe to repeat.
pub async fn revoke(executor: impl PgExecutor<'_>, tenant: TenantId, name: &str) -> Result<bool> {
    let revoked = sqlx::query!(
        "update token set revoked_at = coalesce(revoked_at, now()) where tenant_id = $1 and name = $2",
        tenant.0,
        name
    );
    Ok(revoked.execute(executor).await?.rows_affected() > 0)
}
