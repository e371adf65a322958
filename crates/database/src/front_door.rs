//! Front doors, and what they must know: which there are, under which names they know users, and a copy of the routes.
//!
//! Not here: routes themselves and how log-ins are spelled (`route`), telling doors anything (crate `front-door`).

use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{MailboxId, Side, TenantId};

use crate::{PgPool, Result, route};

/// A front door as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDoor {
    pub name: String,
    pub kind: FrontDoorKind,
    /// A Dovecot proxy's management interface and the file with its key.
    pub doveadm: Option<(String, String)>,
    pub ca_file: Option<String>,
    /// The address from which an nginx door reaches the mail servers.
    pub source: Option<String>,
    /// Where users reach it.
    pub imap: Option<String>,
}

/// What a front door is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontDoorKind {
    Dovecot,
    Nginx,
}

impl FrontDoorKind {
    /// As columns and interfaces spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dovecot => "dovecot",
            Self::Nginx => "nginx",
        }
    }

    fn of(column: &str) -> Self {
        if column == "nginx" { Self::Nginx } else { Self::Dovecot }
    }
}

/// A domain, and the primary of its users where it is not any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub name: String,
    pub primary: Option<String>,
}

/// What the configuration says of front doors.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    pub doors: Vec<FrontDoor>,
    pub domains: Vec<Domain>,
    /// Networks whose clients always see the primary.
    pub primary_from: Vec<String>,
    /// Networks whose clients may name the side.
    pub bypass_from: Vec<String>,
}

/// A mailbox's user on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorUser {
    /// As front doors know the user, whatever was typed.
    pub address: String,
    /// As the server of the side does.
    pub login: String,
    pub server_id: i64,
}

/// Where one log-in goes, for a door that keeps a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The log-in, spelled in full and in lower case.
    pub form: String,
    pub address: String,
    pub login: String,
    pub service: String,
    pub host: String,
    pub port: i32,
    /// `ssl` or `starttls`.
    pub tls: Option<String>,
    /// Its mailbox is changing sides.
    pub held: bool,
}

/// The front doors.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<FrontDoor>> {
    let rows =
        sqlx::query!("select name, kind, doveadm, key_file, ca_file, source, imap from front_door order by name");
    let rows = rows.fetch_all(executor).await?;
    Ok(rows
        .into_iter()
        .map(|row| FrontDoor {
            name: row.name,
            kind: FrontDoorKind::of(&row.kind),
            doveadm: row.doveadm.zip(row.key_file),
            ca_file: row.ca_file,
            source: row.source,
            imap: row.imap,
        })
        .collect())
}

/// These mailboxes' users as front doors and the server of `side` know them.
pub async fn users(executor: impl PgExecutor<'_>, mailboxes: &[MailboxId], side: Side) -> Result<Vec<DoorUser>> {
    let users = sqlx::query_as!(
        DoorUser,
        r#"select m.address, case $2 when 'primary' then m.address else m.standby_address end as "login!",
                  case $2 when 'primary' then m.primary_server_id else m.standby_server_id end as "server_id!"
           from unnest($1::bigint[]) asked (mailbox_id) join mailbox m using (mailbox_id)"#,
        &route::ids(mailboxes),
        side.as_str()
    );
    Ok(users.fetch_all(executor).await?)
}

/// Where a server takes IMAP; `None` when it is gone.
pub async fn imap_address(executor: impl PgExecutor<'_>, server_id: i64) -> Result<Option<(String, u16)>> {
    let place = sqlx::query!(
        r#"select a.host as "host!", a.port as "port!"
           from server s cross join lateral route_address(s.server_id, 'imap') a where s.server_id = $1"#,
        server_id
    );
    let place = place.fetch_optional(executor).await?;
    Ok(place.map(|place| (place.host, u16::try_from(place.port).unwrap_or_default())))
}

/// Was this server seen to ask at each log-in whose the user is? Then sessions that are ended there do not come back.
pub async fn asks_for_lease(executor: impl PgExecutor<'_>, server_id: i64) -> Result<bool> {
    let asks = sqlx::query_scalar!(
        r#"select coalesce(health #>> '{fence,by}' = 'lease', false) as "asks!" from server where server_id = $1"#,
        server_id
    );
    Ok(asks.fetch_optional(executor).await?.unwrap_or_default())
}

/// The whole copy of the routes, as the doors' second source wants it.
pub async fn forms(executor: impl PgExecutor<'_>) -> Result<Vec<Form>> {
    let forms = sqlx::query_as!(
        Form,
        r#"with place as materialized (
               select s.server_id, service, a.host, a.port, a.tls
               from server s cross join unnest(array['imap', 'lmtp']) service
               cross join lateral route_address(s.server_id, service) a
               where s.definition ? service
           )
           select f.form as "form!", m.address as "address!",
                  case r.side when 'primary' then m.address else m.standby_address end as "login!",
                  p.service as "service!", p.host as "host!", p.port as "port!", p.tls,
                  r.state = 'hold' and coalesce(r.hold_until > clock_timestamp(), false) as "held!"
           from route_forms() f
           join route r using (mailbox_id) join mailbox m using (mailbox_id)
           join place p on p.server_id = case r.side when 'primary' then m.primary_server_id else m.standby_server_id end
           order by f.form, p.service"#
    );
    Ok(forms.fetch_all(executor).await?)
}

/// Where somebody goes who is not protected, by domain; the empty domain is for everybody else, where there is only one
/// primary.
pub async fn homes(executor: impl PgExecutor<'_>) -> Result<Vec<Form>> {
    let homes = sqlx::query_as!(
        Form,
        r#"with home as (
               select d.domain, coalesce(d.server_id, route_home('')) as server_id from mail_domain d
               union all select '', route_home('')
           )
           select h.domain as "form!", '' as "address!", '' as "login!", service as "service!", a.host as "host!",
                  a.port as "port!", a.tls, false as "held!"
           from home h join server s using (server_id) cross join unnest(array['imap', 'lmtp']) service
           cross join lateral route_address(s.server_id, service) a
           where s.definition ? service
           order by h.domain, service"#
    );
    Ok(homes.fetch_all(executor).await?)
}

/// How many sessions front doors keep open to this database, by the role's members; `None` where the role is missing.
pub async fn database_sessions(executor: impl PgExecutor<'_>) -> Result<Option<i64>> {
    let sessions = sqlx::query_scalar!(
        r#"select (select count(*) from pg_stat_activity a
                   where a.datname = current_database() and a.usename is not null
                     and pg_has_role(a.usesysid, d.oid, 'member')
                     and not (select rolsuper from pg_roles u where u.oid = a.usesysid)) as "sessions!"
           from pg_roles d where d.rolname = 'understudy_door'"#
    );
    Ok(sessions.fetch_optional(executor).await?)
}

/// Lets front doors log in as `understudy_door` with this password, unless it is theirs already.
pub async fn set_password(pool: &PgPool, password: &str) -> Result<()> {
    // A role cannot be altered with a parameter; PostgreSQL itself quotes the word.
    let statement = sqlx::query_scalar!(
        r#"select format('alter role understudy_door login password %L', $1::text) as "statement!""#,
        password
    )
    .fetch_one(pool)
    .await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}

/// Who of the tenant's mailboxes has which aliases.
pub async fn aliases(executor: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<String>> {
    let aliases =
        sqlx::query_scalar!("select alias from mailbox_alias where mailbox_id = $1 order by alias", mailbox.0);
    Ok(aliases.fetch_all(executor).await?)
}

/// Gives a mailbox these aliases and no others. One that is taken breaks the constraint `mailbox_alias_pkey`.
pub async fn set_aliases(db: &mut PgConnection, mailbox: MailboxId, aliases: &[String]) -> Result<()> {
    sqlx::query!("delete from mailbox_alias where mailbox_id = $1 and alias <> all ($2)", mailbox.0, aliases)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "insert into mailbox_alias (tenant_id, alias, mailbox_id)
         select m.tenant_id, asked.alias, m.mailbox_id
         from mailbox m cross join (select distinct lower(alias) from unnest($2::text[]) alias) asked (alias)
         where m.mailbox_id = $1
           and not exists (select from mailbox_alias a where a.mailbox_id = $1 and a.alias = asked.alias)",
        mailbox.0,
        aliases
    )
    .execute(&mut *db)
    .await?;
    announce(db).await
}

/// Tells those who keep a copy that spellings have changed.
async fn announce(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(r#"select pg_notify('understudy_route', '') as "notified: ()""#).fetch_one(db).await?;
    Ok(())
}

/// Makes what the configuration file says of front doors known; what it no longer names is forgotten.
pub async fn sync_configured(db: &mut PgConnection, tenant: TenantId, configured: &Configured) -> Result<()> {
    sqlx::query!("delete from front_door where tenant_id = $1 and configured", tenant.0).execute(&mut *db).await?;
    for door in &configured.doors {
        let (doveadm, key_file) = door.doveadm.clone().unzip();
        sqlx::query!(
            "insert into front_door (tenant_id, name, kind, doveadm, key_file, ca_file, source, imap, configured)
             values ($1, $2, $3, $4, $5, $6, $7, $8, true)
             on conflict (tenant_id, name) do update
             set kind = excluded.kind, doveadm = excluded.doveadm, key_file = excluded.key_file,
                 ca_file = excluded.ca_file, source = excluded.source, imap = excluded.imap, configured = true",
            tenant.0,
            door.name,
            door.kind.as_str(),
            doveadm,
            key_file,
            door.ca_file,
            door.source,
            door.imap
        )
        .execute(&mut *db)
        .await?;
    }
    sqlx::query!("delete from mail_domain where tenant_id = $1", tenant.0).execute(&mut *db).await?;
    for domain in &configured.domains {
        sqlx::query!(
            "insert into mail_domain (domain, tenant_id, server_id)
             values (lower($2), $1, (select server_id from server where tenant_id = $1 and name = $3))
             on conflict (domain) do nothing",
            tenant.0,
            domain.name,
            domain.primary
        )
        .execute(&mut *db)
        .await?;
    }
    sqlx::query!("delete from route_client").execute(&mut *db).await?;
    let clients = [("primary", &configured.primary_from), ("bypass", &configured.bypass_from)];
    for (treatment, networks) in clients {
        sqlx::query!(
            "insert into route_client (network, treatment)
             select distinct network(network::inet), $2 from unnest($1::text[]) network",
            networks,
            treatment
        )
        .execute(&mut *db)
        .await?;
    }
    announce(db).await
}
