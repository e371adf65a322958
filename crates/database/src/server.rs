//! Mail servers: how to reach them, and what the last check found.
//!
//! Keeps true: a definition names files with secrets, never secrets; whatever a source gateway must learn of is said by
//! [`link::directives_changed`] in the same SQL transaction.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    TenantId,
    messages::{ServerCheck, Trouble},
    server::{Server, ServerRole},
};

use crate::{Result, event, link};

/// What the last check of a server found, or why it could not be made.
pub type CheckOutcome = std::result::Result<ServerCheck, Trouble>;

/// A server and what is known of it.
#[derive(Clone, Debug)]
pub struct StoredServer {
    pub server_id: i64,
    pub tenant_id: i64,
    pub definition: Server,
    /// Comes from the configuration file, which is the only place to change it.
    pub configured: bool,
    pub last_check: Option<CheckOutcome>,
    pub last_checked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// How many protected mailboxes use it.
    pub mailboxes: i64,
}

/// The row as it comes; [`StoredServer`] without the wrappers of JSON columns.
struct Row {
    server_id: i64,
    tenant_id: i64,
    definition: Json<Server>,
    configured: bool,
    last_check: Option<Json<CheckOutcome>>,
    last_checked_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    mailboxes: i64,
}

impl From<Row> for StoredServer {
    fn from(row: Row) -> Self {
        Self {
            server_id: row.server_id,
            tenant_id: row.tenant_id,
            definition: row.definition.0,
            configured: row.configured,
            last_check: row.last_check.map(|check| check.0),
            last_checked_at: row.last_checked_at,
            created_at: row.created_at,
            mailboxes: row.mailboxes,
        }
    }
}

/// The trouble most of a server's mailboxes have with it.
#[derive(Clone, Debug)]
pub struct ServerTrouble {
    pub server_id: i64,
    pub kind: String,
    pub reason: String,
    pub remedy: String,
    pub mailboxes: i64,
}

macro_rules! select_servers {
    ($protected:literal, $tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"select s.server_id, s.tenant_id, s.definition as "definition: Json<Server>", s.configured,
                      s.last_check as "last_check: Json<CheckOutcome>", s.last_checked_at, s.created_at,
                      coalesce(protected.mailboxes, 0) as "mailboxes!"
               from server s "# + $protected + " " + $tail
            $(, $argument)*
        )
    };
}

/// Many servers: their mailboxes are counted once for all, by pairs of servers, since there may be very many mailboxes.
macro_rules! select_many {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        select_servers!(
            "left join (
                 with pair as materialized (
                     select primary_server_id, standby_server_id, count(*) as mailboxes
                     from mailbox where unprotected_at is null group by 1, 2
                 )
                 select side.server_id, sum(pair.mailboxes)::bigint as mailboxes
                 from pair cross join lateral (values (pair.primary_server_id), (pair.standby_server_id)) as side (server_id)
                 group by 1
             ) protected on protected.server_id = s.server_id",
            $tail $(, $argument)*
        )
    };
}

/// One server: its mailboxes are found by the keys that begin with a side, and the others are not read.
macro_rules! select_one {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        select_servers!(
            "cross join lateral (
                 select (select count(*) from mailbox m where m.standby_server_id = s.server_id and m.unprotected_at is null)
                      + (select coalesce(sum(ours.mailboxes), 0)::bigint from tenant t cross join lateral (
                             select count(*) as mailboxes from mailbox m
                             where m.tenant_id = t.tenant_id and m.primary_server_id = s.server_id and m.unprotected_at is null
                         ) ours) as mailboxes
             ) protected",
            $tail $(, $argument)*
        )
    };
}

/// The tenant's server of this name, or the provider's that it shares.
pub async fn get(executor: impl PgExecutor<'_>, tenant: TenantId, name: &str) -> Result<Option<StoredServer>> {
    let row = select_one!(
        "where (s.tenant_id = $1
                    or exists (select from server_share h where h.server_id = s.server_id and h.tenant_id = $1))
               and s.name = $2
             order by s.tenant_id = $1 desc limit 1",
        tenant.0,
        name
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(StoredServer::from))
}

/// The server with this number.
pub async fn by_id(executor: impl PgExecutor<'_>, server_id: i64) -> Result<Option<StoredServer>> {
    let row = select_one!("where s.server_id = $1", server_id).fetch_optional(executor).await?;
    Ok(row.map(StoredServer::from))
}

/// The servers a tenant has and shares, after `after`, by name.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    role: Option<ServerRole>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<StoredServer>> {
    let rows = select_many!(
        "where (s.tenant_id = $1
                or exists (select from server_share h where h.server_id = s.server_id and h.tenant_id = $1))
           and ($2::text is null or s.role = $2) and ($3::text is null or s.name > $3)
         order by s.name limit $4",
        tenant.0,
        role.map(role_name),
        after,
        limit
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(StoredServer::from).collect())
}

/// Every server of every tenant: number, tenant and how it is reached.
pub async fn every(executor: impl PgExecutor<'_>) -> Result<Vec<(i64, TenantId, Server)>> {
    let rows = sqlx::query!(
        r#"select server_id, tenant_id, definition as "definition: Json<Server>" from server order by server_id"#
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows.into_iter().map(|row| (row.server_id, TenantId(row.tenant_id), row.definition.0)).collect())
}

/// Name, number and role of every server the tenant has or shares; for looking up many at once and for suggestions.
pub async fn names(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<(String, i64, ServerRole)>> {
    let rows = sqlx::query!(
        "select name, server_id, role from server s
         where s.tenant_id = $1
            or exists (select from server_share h where h.server_id = s.server_id and h.tenant_id = $1)
         order by name, s.tenant_id = $1",
        tenant.0
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(|row| (row.name, row.server_id, role_of(&row.role))).collect())
}

/// [`names`] without what is shared.
pub async fn own_names(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<(String, i64, ServerRole)>> {
    let rows = sqlx::query!("select name, server_id, role from server where tenant_id = $1 order by name", tenant.0);
    Ok(rows.fetch_all(executor).await?.into_iter().map(|row| (row.name, row.server_id, role_of(&row.role))).collect())
}

/// How many of the tenant's protected mailboxes are on each server.
pub async fn mailboxes_of(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<(i64, i64)>> {
    let rows = sqlx::query!(
        r#"with pair as materialized (
               select primary_server_id, standby_server_id, count(*) as mailboxes
               from mailbox where tenant_id = $1 and unprotected_at is null group by 1, 2
           )
           select side.server_id as "server_id!", sum(pair.mailboxes)::bigint as "mailboxes!"
           from pair cross join lateral (values (pair.primary_server_id), (pair.standby_server_id)) as side (server_id)
           group by 1"#,
        tenant.0
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(|row| (row.server_id, row.mailboxes)).collect())
}

/// What stands in the way at each server that has trouble, as most of its mailboxes tell it. A user unknown to the
/// server is the mailbox's trouble alone.
pub async fn troubles(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<ServerTrouble>> {
    let troubles = sqlx::query_as!(
        ServerTrouble,
        r#"select distinct on (t.server_id) t.server_id as "server_id!", coalesce(t.trouble ->> 'kind', '') as "kind!",
                  coalesce(min(t.trouble ->> 'reason'), '') as "reason!",
                  coalesce(min(t.trouble ->> 'remedy'), '') as "remedy!", count(*) as "mailboxes!"
           from (
               select primary_server_id as server_id, source_trouble as trouble from mailbox
               where tenant_id = $1 and unprotected_at is null and source_trouble is not null
               union all
               select standby_server_id, standby_trouble from mailbox
               where tenant_id = $1 and unprotected_at is null and standby_trouble is not null
           ) t
           where t.trouble ->> 'kind' is distinct from 'no_such_user'
           group by t.server_id, t.trouble ->> 'kind'
           order by t.server_id, count(*) desc, t.trouble ->> 'kind'"#,
        tenant.0
    );
    Ok(troubles.fetch_all(executor).await?)
}

/// Adds a server. A name that is taken breaks the constraint `server_name_unique`.
pub async fn insert(db: &mut PgConnection, tenant: TenantId, server: &Server) -> Result<StoredServer> {
    let server_id = sqlx::query_scalar!(
        "insert into server (tenant_id, name, role, definition) values ($1, $2, $3, $4) returning server_id",
        tenant.0,
        server.name,
        role_name(server.role),
        Json(server) as _
    )
    .fetch_one(&mut *db)
    .await?;
    event::record_for_tenant(&mut *db, tenant, "server_added", &json!({"server": server.name})).await?;
    link::directives_changed(&mut *db).await?;
    Ok(by_id(db, server_id).await?.ok_or(sqlx::Error::RowNotFound)?)
}

/// Changes how a server is reached; its mailboxes are tried again at once.
pub async fn update(db: &mut PgConnection, server_id: i64, server: &Server) -> Result<StoredServer> {
    let tenant_id = sqlx::query_scalar!(
        "update server set definition = $2, role = $3 where server_id = $1 returning tenant_id",
        server_id,
        Json(server) as _,
        role_name(server.role)
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "update mailbox set attempt = attempt + 1
         where unprotected_at is null and (primary_server_id = $1 or standby_server_id = $1)",
        server_id
    )
    .execute(&mut *db)
    .await?;
    let detail = json!({"server": server.name});
    event::record_for_tenant(&mut *db, TenantId(tenant_id), "server_changed", &detail).await?;
    link::directives_changed(&mut *db).await?;
    Ok(by_id(db, server_id).await?.ok_or(sqlx::Error::RowNotFound)?)
}

/// Removes a server that no mailbox, protected or once protected, refers to; false when one does.
pub async fn delete(db: &mut PgConnection, server_id: i64) -> Result<bool> {
    let deleted = sqlx::query!(
        "delete from server s where s.server_id = $1 and not exists (
             select from mailbox m where m.primary_server_id = s.server_id or m.standby_server_id = s.server_id
         ) returning s.tenant_id, s.name",
        server_id
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(deleted) = deleted else { return Ok(false) };
    let detail = json!({"server": deleted.name});
    event::record_for_tenant(&mut *db, TenantId(deleted.tenant_id), "server_removed", &detail).await?;
    link::directives_changed(db).await?;
    Ok(true)
}

/// Keeps what a check found.
pub async fn record_check(executor: impl PgExecutor<'_>, server_id: i64, outcome: &CheckOutcome) -> Result<()> {
    sqlx::query!(
        "update server set last_check = $2, last_checked_at = now() where server_id = $1",
        server_id,
        Json(outcome) as _
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Makes the servers of the configuration file known, and forgets those that it no longer names. Answers the names of
/// those that stay although unlisted, because mailboxes use them; from then on they are changed by CLI, REST or web.
pub async fn sync_configured(db: &mut PgConnection, tenant: TenantId, servers: &[Server]) -> Result<Vec<String>> {
    for server in servers {
        sync_one(&mut *db, tenant, server).await?;
    }
    let listed: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let unlisted = sqlx::query!(
        "update server set configured = false where tenant_id = $1 and configured and name <> all ($2)
         returning server_id, name",
        tenant.0,
        &listed
    )
    .fetch_all(&mut *db)
    .await?;
    let mut kept = Vec::new();
    for server in unlisted {
        if !delete(&mut *db, server.server_id).await? {
            kept.push(server.name);
        }
    }
    Ok(kept)
}

async fn sync_one(db: &mut PgConnection, tenant: TenantId, server: &Server) -> Result<()> {
    let stored = match get(&mut *db, tenant, &server.name).await? {
        None => insert(&mut *db, tenant, server).await?,
        Some(stored) if stored.definition != *server => update(&mut *db, stored.server_id, server).await?,
        Some(stored) => stored,
    };
    if !stored.configured {
        sqlx::query!("update server set configured = true where server_id = $1", stored.server_id).execute(db).await?;
    }
    Ok(())
}

/// A role as its column.
fn role_name(role: ServerRole) -> &'static str {
    match role {
        ServerRole::Primary => "primary",
        ServerRole::Standby => "standby",
    }
}

/// A role from its column, which a constraint limits to these two.
fn role_of(column: &str) -> ServerRole {
    if column == "primary" { ServerRole::Primary } else { ServerRole::Standby }
}
