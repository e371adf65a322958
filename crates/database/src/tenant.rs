//! Tenants: the provider (number 1) and its customers.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::TenantId;

use crate::Result;

/// Whoever runs this Understudy. Its people may act for every tenant.
pub const PROVIDER: TenantId = TenantId(1);

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub tenant_id: i64,
    pub name: String,
    /// Protected ones.
    pub mailboxes: i64,
    /// The provider's servers that it may use.
    pub servers: Vec<String>,
    pub created_at: DateTime<Utc>,
}

/// All tenants after `after`, by name.
pub async fn list(executor: impl PgExecutor<'_>, after: Option<&str>, limit: i64) -> Result<Vec<Tenant>> {
    let tenants = sqlx::query_as!(
        Tenant,
        r#"select t.tenant_id, t.name, t.created_at,
                  (select count(*) from mailbox m where m.tenant_id = t.tenant_id and m.unprotected_at is null)
                      as "mailboxes!",
                  array(select s.name from server_share h join server s using (server_id)
                        where h.tenant_id = t.tenant_id order by s.name) as "servers!"
           from tenant t where $1::text is null or t.name > $1
           order by t.name limit $2"#,
        after,
        limit
    );
    Ok(tenants.fetch_all(executor).await?)
}

/// One tenant.
pub async fn get(executor: impl PgExecutor<'_>, name: &str) -> Result<Option<Tenant>> {
    let tenant = sqlx::query_as!(
        Tenant,
        r#"select t.tenant_id, t.name, t.created_at,
                  (select count(*) from mailbox m where m.tenant_id = t.tenant_id and m.unprotected_at is null)
                      as "mailboxes!",
                  array(select s.name from server_share h join server s using (server_id)
                        where h.tenant_id = t.tenant_id order by s.name) as "servers!"
           from tenant t where t.name = $1"#,
        name
    );
    Ok(tenant.fetch_optional(executor).await?)
}

/// The number of the tenant with this name.
pub async fn find(executor: impl PgExecutor<'_>, name: &str) -> Result<Option<TenantId>> {
    let found = sqlx::query_scalar!("select tenant_id from tenant where name = $1", name);
    Ok(found.fetch_optional(executor).await?.map(TenantId))
}

/// The name of a tenant.
pub async fn name(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<String> {
    let name = sqlx::query_scalar!("select name from tenant where tenant_id = $1", tenant.0);
    Ok(name.fetch_one(executor).await?)
}

/// A new tenant. A name is taken once: constraint `tenant_name_unique`.
pub async fn create(executor: impl PgExecutor<'_>, name: &str) -> Result<TenantId> {
    let id = sqlx::query_scalar!("insert into tenant (name) values ($1) returning tenant_id", name);
    Ok(TenantId(id.fetch_one(executor).await?))
}

/// Lets a tenant use these of the provider's servers, and no others.
pub async fn share(db: &mut PgConnection, tenant: TenantId, servers: &[i64]) -> Result<()> {
    sqlx::query!("delete from server_share where tenant_id = $1 and server_id <> all ($2)", tenant.0, servers)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "insert into server_share (server_id, tenant_id)
         select server_id, $1 from server where server_id = any ($2) and tenant_id = $3
         on conflict do nothing",
        tenant.0,
        servers,
        PROVIDER.0
    )
    .execute(db)
    .await?;
    Ok(())
}
