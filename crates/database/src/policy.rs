//! Policies: how mailboxes are treated.
//!
//! Keeps true: a name that nobody wrote down means the built-in policy; a policy that mailboxes have is not removed.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{MailboxId, TenantId, policy::Policy};

use crate::{Result, event, link};

/// A policy and who has it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub policy: Policy,
    pub changed_at: DateTime<Utc>,
    /// How many protected mailboxes have it.
    pub mailboxes: i64,
}

struct Row {
    name: String,
    document: Json<Policy>,
    changed_at: DateTime<Utc>,
    mailboxes: i64,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self { name: row.name, policy: row.document.0, changed_at: row.changed_at, mailboxes: row.mailboxes }
    }
}

/// The tenant's policies after `after`, by name.
pub async fn list(db: impl PgExecutor<'_>, tenant: TenantId, after: Option<&str>, limit: i64) -> Result<Vec<Stored>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select p.name, p.document as "document: Json<Policy>", p.changed_at,
                  (select count(*) from mailbox m
                   where m.tenant_id = p.tenant_id and m.policy = p.name and m.unprotected_at is null) as "mailboxes!"
           from policy p where p.tenant_id = $1 and ($2::text is null or p.name > $2) order by p.name limit $3"#,
        tenant.0,
        after,
        limit
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(Stored::from).collect())
}

/// One policy.
pub async fn get(db: impl PgExecutor<'_>, tenant: TenantId, name: &str) -> Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Row,
        r#"select p.name, p.document as "document: Json<Policy>", p.changed_at,
                  (select count(*) from mailbox m
                   where m.tenant_id = p.tenant_id and m.policy = p.name and m.unprotected_at is null) as "mailboxes!"
           from policy p where p.tenant_id = $1 and p.name = $2"#,
        tenant.0,
        name
    );
    Ok(row.fetch_optional(db).await?.map(Stored::from))
}

/// The policy that a mailbox has.
pub async fn of_mailbox(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Policy> {
    let document = sqlx::query_scalar!(
        r#"select p.document as "document: Json<Policy>" from mailbox m
           join policy p on p.tenant_id = m.tenant_id and p.name = m.policy where m.mailbox_id = $1"#,
        mailbox.0
    );
    Ok(document.fetch_optional(db).await?.map(|document| document.0).unwrap_or_default())
}

/// Writes a policy down; whether it is a new one.
pub async fn put(db: &mut PgConnection, tenant: TenantId, name: &str, policy: &Policy) -> Result<bool> {
    let known = sqlx::query_scalar!(
        r#"select true as "known!" from policy where tenant_id = $1 and name = $2 for update"#,
        tenant.0,
        name
    );
    let is_new = known.fetch_optional(&mut *db).await?.is_none();
    sqlx::query!(
        "insert into policy (tenant_id, name, document) values ($1, $2, $3)
         on conflict (tenant_id, name) do update set document = excluded.document, changed_at = now()",
        tenant.0,
        name,
        Json(policy) as _
    )
    .execute(&mut *db)
    .await?;
    event::record_for_tenant(&mut *db, tenant, "policy_changed", &json!({ "policy": name })).await?;
    link::directives_changed(db).await?;
    Ok(is_new)
}

/// What became of a wish to remove a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Yes,
    Unknown,
    /// So many mailboxes have it.
    InUse(i64),
}

/// Removes a policy that no mailbox has.
pub async fn remove(db: &mut PgConnection, tenant: TenantId, name: &str) -> Result<Removed> {
    let known = get(&mut *db, tenant, name).await?;
    let Some(known) = known else { return Ok(Removed::Unknown) };
    if known.mailboxes > 0 {
        return Ok(Removed::InUse(known.mailboxes));
    }
    sqlx::query!("delete from policy where tenant_id = $1 and name = $2", tenant.0, name).execute(&mut *db).await?;
    event::record_for_tenant(db, tenant, "policy_removed", &json!({ "policy": name })).await?;
    Ok(Removed::Yes)
}

/// The names of the tenant's policies.
pub async fn names(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<String>> {
    let names = sqlx::query_scalar!("select name from policy where tenant_id = $1 order by name", tenant.0);
    Ok(names.fetch_all(db).await?)
}
