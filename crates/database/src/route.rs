//! Routes: on which side each mailbox's user works.
//!
//! A change of side: [`announce_hold`] (committed: doors that do not take part in SQL wait from here on), then in one SQL
//! transaction [`hold`] (the row's lock: doors that do, wait from here on), whatever must happen meanwhile, [`flip`], commit.
//! Dropping that transaction and calling [`release`] leaves everything as it was.
//! Keeps true: a side changes only while its hold is in force and its epoch is the one that was read; `mailbox.epoch` is
//! `route.epoch`; how a log-in is spelled is decided in SQL alone (`route_find`).
//! Not here: the front doors that ask (`front_door`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, postgres::types::PgInterval};
use understudy_protocol::{Epoch, MailboxId, Side};

use crate::{Error, Result, scope::Scope};

/// The NOTIFY channel whose payload is the `mailbox_id` of a route that changed.
pub const CHANNEL: &str = "understudy_route";

/// A hold that nobody ended is over by itself after this long: then its switchover cannot change the side any more.
pub const HOLD_LIMIT: Duration = Duration::from_secs(120);

/// Where a mailbox lives now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub mailbox_id: i64,
    pub tenant_id: i64,
    pub address: String,
    pub group: String,
    pub primary: String,
    pub standby: String,
    pub side: Side,
    /// New log-ins and deliveries wait.
    pub held: bool,
    pub epoch: i64,
    pub changed_at: DateTime<Utc>,
}

/// A route that cannot change, and that no log-in passes, until the SQL transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRoute {
    pub mailbox: MailboxId,
    pub side: Side,
    pub epoch: Epoch,
}

/// Where a log-in goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// None for somebody who is not protected.
    pub mailbox: Option<MailboxId>,
    /// The client is treated in its own way, so that this says nothing about others.
    pub special: bool,
    pub side: Side,
    /// It should wait.
    pub held: bool,
    /// The log-in that the side takes.
    pub login: String,
    pub host: String,
    /// None for the service's own.
    pub port: Option<u16>,
    pub tls: Option<Tls>,
}

/// How a front door protects its connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// From the first octet.
    Ssl,
    StartTls,
}

/// Where a log-in goes now, without waiting; `None` when it means nobody or asks for what `client` may not.
pub async fn lookup(
    executor: impl PgExecutor<'_>,
    login: &str,
    service: &str,
    client: Option<&str>,
) -> Result<Option<Target>> {
    let row = sqlx::query!(
        r#"select mailbox_id, side as "side!", held, login_name as "login!", host as "host!", port, tls
           from route_resolve($1, $2, $3)"#,
        login,
        service,
        client
    )
    .fetch_optional(executor)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let port = row.port.map(u16::try_from).transpose().map_err(|error| Error::unreadable("port", error))?;
    Ok(Some(Target {
        mailbox: row.mailbox_id.map(MailboxId),
        special: row.held.is_none(),
        side: side_of(&row.side),
        held: row.held.unwrap_or(false),
        login: row.login,
        host: row.host,
        port,
        tls: row.tls.map(|tls| if tls == "ssl" { Tls::Ssl } else { Tls::StartTls }),
    }))
}

/// The routes of a scope after `after` (address and primary), by address and primary.
pub async fn list(
    executor: impl PgExecutor<'_>,
    scope: &Scope,
    side: Option<Side>,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Vec<Route>> {
    let (after_address, after_primary) = after.unzip();
    let rows = sqlx::query!(
        r#"select r.mailbox_id, r.tenant_id, m.address, m.group_name, p.name as primary_name, s.name as standby_name, r.side,
                  (r.state = 'hold' and r.hold_until > clock_timestamp()) as "held!", r.epoch, r.changed_at
           from route r join mailbox m using (mailbox_id)
           join server p on p.server_id = m.primary_server_id
           join server s on s.server_id = m.standby_server_id
           where r.tenant_id = $1 and ($2::text is null or r.side = $2)
             and ($3::text is null or (m.address, p.name) > ($3, $4::text))
             and ($6::text is null or m.group_name = $6) and ($7::text is null or lower(m.address) = lower($7))
           order by m.address, p.name limit $5"#,
        scope.tenant.0,
        side.map(Side::as_str),
        after_address,
        after_primary,
        limit,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows
        .into_iter()
        .map(|row| Route {
            mailbox_id: row.mailbox_id,
            tenant_id: row.tenant_id,
            address: row.address,
            group: row.group_name,
            primary: row.primary_name,
            standby: row.standby_name,
            side: side_of(&row.side),
            held: row.held,
            epoch: row.epoch,
            changed_at: row.changed_at,
        })
        .collect())
}

/// The route of one mailbox.
pub async fn get(executor: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Route>> {
    let row = sqlx::query!(
        r#"select r.tenant_id, m.address, m.group_name, p.name as primary_name, s.name as standby_name, r.side,
                  (r.state = 'hold' and r.hold_until > clock_timestamp()) as "held!", r.epoch, r.changed_at
           from route r join mailbox m using (mailbox_id)
           join server p on p.server_id = m.primary_server_id
           join server s on s.server_id = m.standby_server_id
           where r.mailbox_id = $1"#,
        mailbox.0
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| Route {
        mailbox_id: mailbox.0,
        tenant_id: row.tenant_id,
        address: row.address,
        group: row.group_name,
        primary: row.primary_name,
        standby: row.standby_name,
        side: side_of(&row.side),
        held: row.held,
        epoch: row.epoch,
        changed_at: row.changed_at,
    }))
}

/// Which mailbox a log-in means, in any of its forms. More than one is an error of the database.
pub async fn mailbox_of(executor: impl PgExecutor<'_>, login: &str) -> Result<Option<MailboxId>> {
    let found = sqlx::query_scalar!("select mailbox_id from route_find($1)", login).fetch_one(executor).await?;
    Ok(found.map(MailboxId))
}

/// Lets doors that do not take part in SQL hold the log-ins of these mailboxes, for [`HOLD_LIMIT`] at most. To be
/// committed before [`hold`]; repeated, it lasts that much longer.
pub async fn announce_hold(executor: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<()> {
    let limit = PgInterval::try_from(HOLD_LIMIT).map_err(|error| Error::unreadable("time limit", error))?;
    sqlx::query!(
        "update route r set state = 'hold', hold_until = clock_timestamp() + $2
         from unnest($1::bigint[]) asked (mailbox_id) where r.mailbox_id = asked.mailbox_id",
        &ids(mailboxes),
        limit
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Locks the routes of these mailboxes until the SQL transaction of `db` ends; log-ins through SQL wait that long. A
/// mailbox without a route is missing from the answer.
pub async fn hold(db: &mut PgConnection, mailboxes: &[MailboxId]) -> Result<Vec<HeldRoute>> {
    // In order, so that two switchovers of many mailboxes never wait for each other.
    let rows = sqlx::query!(
        "select mailbox_id, side, epoch from route
         where mailbox_id in (select unnest($1::bigint[])) order by mailbox_id for update",
        &ids(mailboxes)
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| HeldRoute { mailbox: MailboxId(row.mailbox_id), side: side_of(&row.side), epoch: Epoch(row.epoch) })
        .collect())
}

/// Routes a mailbox to `side` under the next epoch and ends its hold, if its epoch is still `epoch` and its hold still in
/// force; false when not. Belongs in the SQL transaction of [`hold`].
pub async fn flip(db: &mut PgConnection, mailbox: MailboxId, side: Side, epoch: Epoch) -> Result<bool> {
    Ok(flip_all(db, &[(mailbox, epoch)], side, None).await? == vec![mailbox])
}

/// [`flip`] for many at once, into this phase if one is given; answers those that were routed.
pub(crate) async fn flip_all(
    db: &mut PgConnection,
    held: &[(MailboxId, Epoch)],
    side: Side,
    phase: Option<&str>,
) -> Result<Vec<MailboxId>> {
    let mailboxes: Vec<i64> = held.iter().map(|(mailbox, _)| mailbox.0).collect();
    let epochs: Vec<i64> = held.iter().map(|(_, epoch)| epoch.0).collect();
    let flipped = sqlx::query_scalar!(
        r#"with flipped as (
               update route r
               set side = $3, epoch = r.epoch + 1, state = 'active', hold_until = null, changed_at = clock_timestamp()
               from unnest($1::bigint[], $2::bigint[]) as held (mailbox_id, epoch)
               where r.mailbox_id = held.mailbox_id and r.epoch = held.epoch
                 and r.state = 'hold' and r.hold_until > clock_timestamp()
               returning r.mailbox_id, r.epoch
           )
           update mailbox m set epoch = flipped.epoch, phase = coalesce($4, m.phase)
           from flipped where m.mailbox_id = flipped.mailbox_id
           returning m.mailbox_id"#,
        &mailboxes,
        &epochs,
        side.as_str(),
        phase
    )
    .fetch_all(db)
    .await?;
    Ok(flipped.into_iter().map(MailboxId).collect())
}

/// Ends holds without a change of side. Safe to repeat. Not inside the SQL transaction of [`hold`] if that is dropped.
pub async fn release(executor: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<()> {
    sqlx::query!(
        "update route r set state = 'active', hold_until = null
         from unnest($1::bigint[]) asked (mailbox_id) where r.mailbox_id = asked.mailbox_id and r.state = 'hold'",
        &ids(mailboxes)
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// A side from its column, which a constraint limits to these two.
pub(crate) fn side_of(column: &str) -> Side {
    if column == "standby" { Side::Standby } else { Side::Primary }
}

pub(crate) fn ids(mailboxes: &[MailboxId]) -> Vec<i64> {
    mailboxes.iter().map(|mailbox| mailbox.0).collect()
}

/// The log-in that was looked up means several mailboxes.
#[must_use]
pub fn is_ambiguous(error: &Error) -> bool {
    matches!(error, Error::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("UD001"))
}
