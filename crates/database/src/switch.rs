//! Changes of side: which run moves which mailbox, how far it is, and what is still to be brought over.
//!
//! Keeps true: one run at a time moves a mailbox; the side, the epoch and the phase change in one SQL transaction.

pub mod together;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{Epoch, MailboxId, Side, TenantId};
use uuid::Uuid;

use crate::{Error, Result, event, link, route::side_of, scope::Scope};

/// One mailbox of a run that changes sides.
#[derive(Clone, Debug)]
pub struct Switch {
    pub run_id: Uuid,
    pub mailbox: MailboxId,
    pub address: String,
    pub target: Side,
    pub emergency: bool,
    pub epoch: Epoch,
    pub flipped_at: Option<DateTime<Utc>>,
    /// `done`, `already`, `failed`, `cancelled`; empty while it is under way.
    pub outcome: String,
    pub detail: Value,
}

/// What became of a wish to move a mailbox.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// It is this run's to move, from the beginning or from where the run was.
    Ours(Switch),
    /// Another run is moving it.
    Busy(Uuid),
    /// Nobody protects it any more.
    Gone,
}

/// Takes a mailbox for this run; one that the run took before is taken up again.
pub async fn claim(
    db: &mut PgConnection,
    run: Uuid,
    mailbox: MailboxId,
    target: Side,
    emergency: bool,
) -> Result<Claimed> {
    loop {
        sqlx::query!(
            "insert into switch (run_id, mailbox_id, target, mode, epoch)
         select $1, mailbox_id, $3, $4, epoch from mailbox where mailbox_id = $2 and unprotected_at is null
         on conflict do nothing",
            run,
            mailbox.0,
            target.as_str(),
            if emergency { "emergency" } else { "planned" }
        )
        .execute(&mut *db)
        .await?;
        if let Some(ours) = get(&mut *db, run, mailbox).await? {
            return Ok(Claimed::Ours(ours));
        }
        let other =
            sqlx::query_scalar!("select run_id from switch where mailbox_id = $1 and ended_at is null", mailbox.0);
        if let Some(other) = other.fetch_optional(&mut *db).await? {
            return Ok(Claimed::Busy(other));
        }
        // Another run that had it may have ended between the two statements.
        if subject(&mut *db, mailbox).await?.is_none() {
            return Ok(Claimed::Gone);
        }
    }
}

/// One mailbox of a run.
pub async fn get(db: impl PgExecutor<'_>, run: Uuid, mailbox: MailboxId) -> Result<Option<Switch>> {
    let row = sqlx::query!(
        "select s.run_id, s.mailbox_id, m.address, s.target, s.mode, s.epoch, s.flipped_at, s.outcome, s.detail
         from switch s join mailbox m using (mailbox_id) where s.run_id = $1 and s.mailbox_id = $2",
        run,
        mailbox.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Switch {
        run_id: row.run_id,
        mailbox: MailboxId(row.mailbox_id),
        address: row.address,
        target: side_of(&row.target),
        emergency: row.mode == "emergency",
        epoch: Epoch(row.epoch),
        flipped_at: row.flipped_at,
        outcome: row.outcome,
        detail: row.detail,
    }))
}

/// Sets what interfaces show of a mailbox that is being moved. Only between phases that follow each other.
pub async fn set_phase(db: &mut PgConnection, mailbox: MailboxId, from: &[&str], to: &str, run: Uuid) -> Result<bool> {
    let from: Vec<String> = from.iter().map(|&phase| phase.to_owned()).collect();
    let changed = sqlx::query!(
        "update mailbox set phase = $3 where mailbox_id = $1 and phase = any($2) and phase <> $3",
        mailbox.0,
        &from,
        to
    )
    .execute(&mut *db)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    event::record(&mut *db, "state", Some(mailbox), Some(run), &json!({ "state": to })).await?;
    link::directives_changed(db).await?;
    Ok(true)
}

/// Changes the side of a mailbox whose route the caller holds: route, epoch, phase, and who captures. False when the epoch is
/// another or the hold is over: then nothing changed.
pub async fn flip(db: &mut PgConnection, switch: &Switch, sweep_seconds: f64) -> Result<bool> {
    let this = [(switch.mailbox, switch.epoch)];
    if together::flip(&mut *db, switch.run_id, switch.target, &this, sweep_seconds).await?.is_empty() {
        return Ok(false);
    }
    link::directives_changed(db).await?;
    Ok(true)
}

/// Both sides are equal and the mirror says how: whatever waited to be applied is part of that, and nothing on the standby is
/// unaccounted for.
pub async fn settle_journal(db: &mut PgConnection, mailbox: MailboxId) -> Result<()> {
    sqlx::query!(
        "update transaction set applied_at = now()
         where mailbox_id = $1 and direction = 'outbound' and applied_at is null",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update mailbox set applied_seq = received_seq, captured_seq = received_seq, seeded_seq = received_seq,
                source_trouble = null, standby_trouble = null
         where mailbox_id = $1",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from intent where mailbox_id = $1", mailbox.0).execute(&mut *db).await?;
    sqlx::query!("delete from mirror_stray where mailbox_id = $1", mailbox.0).execute(db).await?;
    Ok(())
}

/// Notes what was found out on the way, beside what is known already.
pub async fn note(db: impl PgExecutor<'_>, run: Uuid, mailbox: MailboxId, detail: &Value) -> Result<()> {
    sqlx::query!(
        "update switch set detail = detail || $3 where run_id = $1 and mailbox_id = $2",
        run,
        mailbox.0,
        detail
    )
    .execute(db)
    .await?;
    Ok(())
}

/// This mailbox is done with, one way or another.
pub async fn end(db: impl PgExecutor<'_>, run: Uuid, mailbox: MailboxId, outcome: &str, detail: &Value) -> Result<()> {
    sqlx::query!(
        "update switch set ended_at = coalesce(ended_at, now()), outcome = $3, detail = detail || $4
         where run_id = $1 and mailbox_id = $2",
        run,
        mailbox.0,
        outcome,
        detail
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A mailbox whose old side is still read for what it took late.
#[derive(Clone, Debug)]
pub struct Sweeping {
    pub run_id: Uuid,
    pub mailbox: MailboxId,
    /// The side that is active now; the other is read.
    pub active: Side,
    /// The last reading must begin after now.
    pub is_due: bool,
}

/// Mailboxes whose old side is still to be read.
pub async fn sweeping(db: impl PgExecutor<'_>) -> Result<Vec<Sweeping>> {
    let rows = sqlx::query!(
        r#"select s.run_id, s.mailbox_id, s.target, s.sweep_until <= clock_timestamp() as "is_due!"
           from switch s join mailbox m using (mailbox_id)
           where s.sweep_until is not null and m.unprotected_at is null
             and (s.target, m.phase) in (('standby', 'on_standby'), ('primary', 'mirroring'))
           order by s.mailbox_id"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Sweeping {
            run_id: row.run_id,
            mailbox: MailboxId(row.mailbox_id),
            active: side_of(&row.target),
            is_due: row.is_due,
        })
        .collect())
}

/// Notes what a reading of the old side found; with `over`, it was the last.
pub async fn swept(db: &mut PgConnection, sweeping: &Sweeping, found: &Value, over: bool) -> Result<()> {
    sqlx::query!(
        "update switch set swept = swept || $3, sweep_until = case when $4 then null else sweep_until end
         where run_id = $1 and mailbox_id = $2",
        sweeping.run_id,
        sweeping.mailbox.0,
        found,
        over
    )
    .execute(&mut *db)
    .await?;
    if over {
        event::record(&mut *db, "swept", Some(sweeping.mailbox), Some(sweeping.run_id), found).await?;
    }
    Ok(())
}

/// What has been swept of a mailbox in a run so far.
pub async fn swept_so_far(db: impl PgExecutor<'_>, run: Uuid, mailbox: MailboxId) -> Result<Value> {
    let found = sqlx::query_scalar!("select swept from switch where run_id = $1 and mailbox_id = $2", run, mailbox.0);
    Ok(found.fetch_optional(db).await?.unwrap_or_default())
}

/// What a change of side must know of a mailbox.
#[derive(Clone, Debug)]
pub struct Subject {
    pub mailbox: MailboxId,
    pub tenant: TenantId,
    pub address: String,
    pub standby_address: String,
    pub primary: understudy_protocol::server::Server,
    pub standby: understudy_protocol::server::Server,
    pub phase: String,
    pub paused: bool,
    pub held: bool,
    pub epoch: Epoch,
    pub captured: i64,
    pub received: i64,
    pub applied: i64,
    /// The last look at the whole primary that found everything.
    pub swept_at: Option<DateTime<Utc>>,
    /// `protocol::messages::Trouble`, on either leg.
    pub source_trouble: Option<Value>,
    pub standby_trouble: Option<Value>,
    /// Messages the standby does not hold as they are.
    pub set_aside: i64,
    /// The source gateway was heard of lately.
    pub heard_at: Option<DateTime<Utc>>,
}

/// One protected mailbox with both its servers.
pub async fn subject(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Subject>> {
    let row = sqlx::query!(
        r#"select m.tenant_id, m.address, m.standby_address, p.definition as primary_definition,
                  s.definition as standby_definition, m.phase, m.paused, m.held, m.epoch,
                  greatest(m.captured_seq, m.received_seq) as "captured!", m.received_seq, m.applied_seq, m.swept_at,
                  m.source_trouble, m.standby_trouble, link.heard_at,
                  (select count(*) from mirror_message a where a.mailbox_id = m.mailbox_id and a.set_aside is not null)
                      as "set_aside!"
           from mailbox m
           join server p on p.server_id = m.primary_server_id
           join server s on s.server_id = m.standby_server_id
           cross join link
           where m.mailbox_id = $1 and m.unprotected_at is null"#,
        mailbox.0
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let server = |value| serde_json::from_value(value).map_err(|error| Error::unreadable("server", error));
    Ok(Some(Subject {
        mailbox,
        tenant: TenantId(row.tenant_id),
        address: row.address,
        standby_address: row.standby_address,
        primary: server(row.primary_definition)?,
        standby: server(row.standby_definition)?,
        phase: row.phase,
        paused: row.paused,
        held: row.held,
        epoch: Epoch(row.epoch),
        captured: row.captured,
        received: row.received_seq,
        applied: row.applied_seq,
        swept_at: row.swept_at,
        source_trouble: row.source_trouble,
        standby_trouble: row.standby_trouble,
        set_aside: row.set_aside,
        heard_at: row.heard_at,
    }))
}

/// The mailboxes a selector means, those to be moved first at the front. Every part given must fit.
#[derive(Clone, Debug, Default)]
pub struct Selector<'a> {
    pub mailboxes: Option<&'a [i64]>,
    /// Name of a primary.
    pub server: Option<&'a str>,
    pub group: Option<&'a str>,
}

/// Number and address of the mailboxes meant.
pub async fn selected(
    db: impl PgExecutor<'_>,
    scope: &Scope,
    selector: &Selector<'_>,
) -> Result<Vec<(MailboxId, String)>> {
    let rows = sqlx::query!(
        "select m.mailbox_id, m.address from mailbox m join server p on p.server_id = m.primary_server_id
         where m.tenant_id = $1 and m.unprotected_at is null
           and ($2::bigint[] is null or m.mailbox_id = any($2))
           and ($3::text is null or p.name = $3)
           and ($4::text is null or m.group_name = $4)
           and ($5::text is null or m.group_name = $5) and ($6::text is null or lower(m.address) = lower($6))
         order by m.priority, m.address, m.mailbox_id",
        scope.tenant.0,
        selector.mailboxes,
        selector.server,
        selector.group,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (MailboxId(row.mailbox_id), row.address)).collect())
}

/// A run of this kind that has not ended and is about exactly these mailboxes. Whoever asks holds the lock that
/// [`lock_requests`] takes.
pub async fn same_run(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    kind: &str,
    mailbox_ids: &Value,
) -> Result<Option<Uuid>> {
    let run = sqlx::query_scalar!(
        "select run_id from run
         where tenant_id = $1 and kind = $2 and state in ('waiting', 'running') and not cancel_requested
           and request -> 'mailbox_ids' = $3
           and not coalesce((request ->> 'dry_run')::boolean, false)
         order by created_at limit 1",
        tenant.0,
        kind,
        mailbox_ids
    );
    Ok(run.fetch_optional(db).await?)
}

/// Two people who ask at once ask one after the other, until the SQL transaction ends.
pub async fn lock_requests(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(r#"select pg_advisory_xact_lock(hashtext('understudy_switch')) as "locked: ()""#)
        .fetch_one(db)
        .await?;
    Ok(())
}
