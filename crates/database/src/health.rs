//! Whether mail servers are there: what checks found, what witnesses say, and what may be moved by itself.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    MailboxId, TenantId,
    policy::Policy,
    server::{Server, ServerRole},
};

use crate::{Result, event, run};

/// Who asks for runs that nobody asked for.
pub const AUTOMATIC: &str = "automatic";

/// A server that protected mailboxes use.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub server_id: i64,
    pub tenant: TenantId,
    pub server: Server,
    /// The log-in of one protected mailbox there.
    pub mailbox: Option<String>,
    /// What is shown of its health, as it was last written down.
    pub health: Option<Value>,
}

/// Every server that protected mailboxes use.
pub async fn watched(db: impl PgExecutor<'_>) -> Result<Vec<Watched>> {
    let rows = sqlx::query!(
        r#"select s.server_id, s.tenant_id, s.definition as "definition: Json<Server>", s.health,
                  case s.role when 'primary' then m.address else m.standby_address end as mailbox
           from server s
           cross join lateral (
               select address, standby_address from mailbox m
               where m.unprotected_at is null
                 and case s.role when 'primary' then m.primary_server_id else m.standby_server_id end = s.server_id
               order by m.mailbox_id limit 1
           ) m
           order by s.server_id"#
    );
    let rows = rows.fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|row| Watched {
            server_id: row.server_id,
            tenant: TenantId(row.tenant_id),
            server: row.definition.0,
            mailbox: row.mailbox,
            health: row.health,
        })
        .collect())
}

/// What was found of one server by one observer in one minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    pub server_id: i64,
    pub observer: String,
    /// `quick` or `deep`.
    pub kind: String,
    pub minute: DateTime<Utc>,
    pub good: i32,
    pub bad: i32,
    pub seconds_sum: f64,
    pub seconds_max: f64,
    /// Why the last bad one failed.
    pub reason: String,
}

/// Adds what was found to what is known of these minutes.
pub async fn add_minutes(db: impl PgExecutor<'_>, minutes: &[Minute]) -> Result<()> {
    let (mut ids, mut observers, mut kinds, mut at) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut good, mut bad, mut sums, mut longest, mut reasons) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for minute in minutes {
        ids.push(minute.server_id);
        observers.push(minute.observer.clone());
        kinds.push(minute.kind.clone());
        at.push(minute.minute);
        good.push(minute.good);
        bad.push(minute.bad);
        sums.push(minute.seconds_sum);
        longest.push(minute.seconds_max);
        reasons.push(minute.reason.clone());
    }
    sqlx::query!(
        "insert into health_minute (server_id, observer, kind, minute, good, bad, seconds_sum, seconds_max, reason)
         select m.* from unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::int[],
                                $7::float8[], $8::float8[], $9::text[])
             as m (server_id, observer, kind, minute, good, bad, seconds_sum, seconds_max, reason)
         join server s on s.server_id = m.server_id
         on conflict (server_id, observer, kind, minute) do update
             set good = health_minute.good + excluded.good, bad = health_minute.bad + excluded.bad,
                 seconds_sum = health_minute.seconds_sum + excluded.seconds_sum,
                 seconds_max = greatest(health_minute.seconds_max, excluded.seconds_max),
                 reason = case when excluded.reason = '' then health_minute.reason else excluded.reason end",
        &ids,
        &observers,
        &kinds,
        &at,
        &good,
        &bad,
        &sums,
        &longest,
        &reasons
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What was found of a server since a moment, oldest first.
pub async fn minutes(db: impl PgExecutor<'_>, server_id: i64, since: DateTime<Utc>) -> Result<Vec<Minute>> {
    let minutes = sqlx::query_as!(
        Minute,
        "select server_id, observer, kind, minute, good, bad, seconds_sum, seconds_max, reason
         from health_minute where server_id = $1 and minute >= $2 order by minute, observer, kind",
        server_id,
        since
    );
    Ok(minutes.fetch_all(db).await?)
}

/// Forgets what is too old to be asked for.
pub async fn forget_old(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("delete from health_minute where minute < now() - interval '30 days'").execute(&mut *db).await?;
    sqlx::query!("delete from vote where received_at < now() - interval '1 hour'").execute(db).await?;
    Ok(())
}

/// Writes down what is shown of a server's health.
pub async fn set_health(db: impl PgExecutor<'_>, server_id: i64, health: &Value) -> Result<()> {
    sqlx::query!("update server set health = $2 where server_id = $1", server_id, health).execute(db).await?;
    Ok(())
}

/// What is shown of a server's health.
pub async fn health(db: impl PgExecutor<'_>, server_id: i64) -> Result<Option<Value>> {
    let health = sqlx::query_scalar!("select health from server where server_id = $1", server_id);
    Ok(health.fetch_optional(db).await?.flatten())
}

/// What a witness says of a server.
#[derive(Clone, Debug)]
pub struct Vote {
    pub vote_id: i64,
    pub server: String,
    pub observer: String,
    pub is_up: bool,
    pub seconds: f64,
    pub reason: String,
}

/// Keeps what a witness says until the recovery gateway reads it.
pub async fn vote(
    db: impl PgExecutor<'_>,
    server_id: i64,
    observer: &str,
    is_up: bool,
    seconds: f64,
    reason: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into vote (server_id, observer, is_up, seconds, reason) values ($1, $2, $3, $4, $5)",
        server_id,
        observer,
        is_up,
        seconds,
        reason
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What witnesses said lately, after the one with this number.
pub async fn votes_after(db: impl PgExecutor<'_>, vote_id: i64) -> Result<Vec<Vote>> {
    let votes = sqlx::query_as!(
        Vote,
        "select v.vote_id, s.name as server, v.observer, v.is_up, v.seconds, v.reason
         from vote v join server s using (server_id)
         where v.vote_id > $1 and v.received_at > clock_timestamp() - interval '10 seconds' order by v.vote_id",
        vote_id
    );
    Ok(votes.fetch_all(db).await?)
}

/// The mailboxes of one policy on one primary, where that policy does something by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub server_id: i64,
    pub server: String,
    pub tenant: TenantId,
    pub policy_name: String,
    pub policy: Policy,
}

/// Everything that may be moved by itself.
pub async fn groups(db: impl PgExecutor<'_>) -> Result<Vec<Group>> {
    let rows = sqlx::query!(
        r#"select distinct s.server_id, s.name as server, p.tenant_id, p.name as policy_name,
                  p.document as "document: Json<Policy>"
           from policy p
           join mailbox m on m.tenant_id = p.tenant_id and m.policy = p.name and m.unprotected_at is null
           join server s on s.server_id = m.primary_server_id
           where coalesce(p.document ->> 'switchover', 'off') <> 'off'
              or coalesce(p.document ->> 'switchback', 'off') <> 'off'
           order by s.server_id, p.tenant_id, p.name"#
    );
    let rows = rows.fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|row| Group {
            server_id: row.server_id,
            server: row.server,
            tenant: TenantId(row.tenant_id),
            policy_name: row.policy_name,
            policy: row.document.0,
        })
        .collect())
}

/// What can be moved of a group.
#[derive(Clone, Debug, Default)]
pub struct Movable {
    /// In the order in which they are to be moved.
    pub mailboxes: Vec<(MailboxId, String)>,
    /// So many were moved too lately.
    pub held_down: i64,
    /// Where they would go.
    pub standbys: Vec<String>,
    /// One of them is being moved.
    pub is_moving: bool,
}

/// What can be moved to its standby by itself.
pub async fn movable(db: &mut PgConnection, group: &Group) -> Result<Movable> {
    let rows = sqlx::query!(
        r#"select m.mailbox_id, m.address, s.name as standby,
                  exists (select from switch w where w.mailbox_id = m.mailbox_id
                          and w.flipped_at > now() - make_interval(secs => $4)) as "held_down!"
           from mailbox m join server s on s.server_id = m.standby_server_id
           where m.unprotected_at is null and m.primary_server_id = $1 and m.tenant_id = $2 and m.policy = $3
             and m.phase = 'mirroring' and not m.paused
           order by m.priority, m.address, m.mailbox_id"#,
        group.server_id,
        group.tenant.0,
        group.policy_name,
        group.policy.hold_down_seconds
    );
    let mut movable = Movable::default();
    for row in rows.fetch_all(&mut *db).await? {
        if row.held_down {
            movable.held_down += 1;
            continue;
        }
        movable.mailboxes.push((MailboxId(row.mailbox_id), row.address));
        if !movable.standbys.contains(&row.standby) {
            movable.standbys.push(row.standby);
        }
    }
    movable.is_moving = sqlx::query_scalar!(
        r#"select exists (
               select from switch w join mailbox m using (mailbox_id)
               where w.ended_at is null and m.primary_server_id = $1 and m.tenant_id = $2 and m.policy = $3
           ) or exists (
               select from run r where r.state in ('waiting', 'running') and r.server_id = $1 and r.requested_by = $4
                 and r.request ->> 'policy' = $3
           ) as "moving!""#,
        group.server_id,
        group.tenant.0,
        group.policy_name,
        AUTOMATIC
    )
    .fetch_one(db)
    .await?;
    Ok(movable)
}

/// What was moved by itself and can come home by itself.
pub async fn returnable(db: impl PgExecutor<'_>, group: &Group) -> Result<Vec<(MailboxId, String)>> {
    let rows = sqlx::query!(
        "select m.mailbox_id, m.address from mailbox m
         join lateral (
             select w.run_id, w.flipped_at from switch w
             where w.mailbox_id = m.mailbox_id and w.flipped_at is not null order by w.flipped_at desc limit 1
         ) last on true
         join run r on r.run_id = last.run_id
         where m.unprotected_at is null and m.primary_server_id = $1 and m.tenant_id = $2 and m.policy = $3
           and m.phase = 'on_standby' and r.requested_by = $5
           and last.flipped_at < now() - make_interval(secs => $4)
           and not exists (select from switch w where w.mailbox_id = m.mailbox_id and w.ended_at is null)
         order by m.priority, m.address, m.mailbox_id",
        group.server_id,
        group.tenant.0,
        group.policy_name,
        group.policy.hold_down_seconds,
        AUTOMATIC
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (MailboxId(row.mailbox_id), row.address)).collect())
}

/// Begins a run that nobody asked for.
pub async fn begin(
    db: &mut PgConnection,
    group: &Group,
    kind: &str,
    mailboxes: &[(MailboxId, String)],
    mut request: Value,
    reason: &str,
) -> Result<run::Run> {
    let (ids, addresses): (Vec<i64>, Vec<&str>) =
        mailboxes.iter().map(|(mailbox, address)| (mailbox.0, address.as_str())).unzip();
    request["mailbox_ids"] = ids.into();
    request["addresses"] = addresses.into();
    request["policy"] = group.policy_name.clone().into();
    let new =
        run::NewRun { kind, mailbox: None, server_id: Some(group.server_id), request, reason, requested_by: AUTOMATIC };
    run::insert(db, group.tenant, &new).await
}

/// Tells people of a server's health.
pub async fn tell(db: impl PgExecutor<'_>, tenant: TenantId, kind: &str, detail: &Value) -> Result<()> {
    event::record_for_tenant(db, tenant, kind, detail).await
}

/// Where users reach a front door, the first that says so.
pub async fn door(db: impl PgExecutor<'_>) -> Result<Option<String>> {
    let door =
        sqlx::query_scalar!(r#"select imap as "imap!" from front_door where imap is not null order by name limit 1"#);
    Ok(door.fetch_optional(db).await?)
}

/// Says for a moment that the user of this address is not on this server, to whoever asks for its lease: a trial whether it asks.
pub async fn begin_lease_trial(db: impl PgExecutor<'_>, server_id: i64, address: &str) -> Result<()> {
    sqlx::query!(
        "insert into lease_trial (server_id, address, ends_at) values ($1, $2, clock_timestamp() + interval '1 minute')
         on conflict (server_id) do update set address = excluded.address, ends_at = excluded.ends_at",
        server_id,
        address
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says it no more.
pub async fn end_lease_trial(db: impl PgExecutor<'_>, server_id: i64) -> Result<()> {
    sqlx::query!("delete from lease_trial where server_id = $1", server_id).execute(db).await?;
    Ok(())
}

/// Which hooks are called for these mailboxes: each policy among them, once.
pub async fn policies_of(db: impl PgExecutor<'_>, mailboxes: &[i64]) -> Result<Vec<Policy>> {
    let documents = sqlx::query_scalar!(
        r#"select p.document as "document: Json<Policy>" from policy p
           where (p.tenant_id, p.name) in (select m.tenant_id, m.policy from mailbox m where m.mailbox_id = any ($1))
           order by p.tenant_id, p.name"#,
        mailboxes
    );
    Ok(documents.fetch_all(db).await?.into_iter().map(|document| document.0).collect())
}

/// Is this a server that is only copied to?
#[must_use]
pub fn is_standby(server: &Server) -> bool {
    server.role == ServerRole::Standby
}
