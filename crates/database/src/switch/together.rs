//! Many mailboxes of one run that change sides together: what must be known of each, and each of their steps as one statement.
//!
//! Keeps true: what `switch` says of one mailbox holds for each of these; rows are changed in the order of their numbers.
//! Not here: the steps as people see them (`step`).

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{Epoch, MailboxId, Side};
use uuid::Uuid;

use crate::{Result, event, route, route::ids};

/// What moving a mailbox together with others must know of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub mailbox: MailboxId,
    pub address: String,
    pub standby_address: String,
    /// The name of the server, …
    pub primary: String,
    /// … and the number.
    pub standby: i64,
    pub phase: String,
    pub epoch: Epoch,
    /// The side the route has, and its epoch; none where there is no route.
    pub route: Option<(Side, Epoch)>,
    /// A person paused it, so that its primary is not asked about it.
    pub paused: bool,
    /// Something was applied to it, so that the standby let its user in, and the standby has had nothing against it since.
    pub proven: bool,
    pub captured: i64,
    pub received: i64,
    pub applied: i64,
    /// The last look at the whole primary that found everything.
    pub swept_at: Option<DateTime<Utc>>,
    /// The source gateway was heard of lately.
    pub heard_at: Option<DateTime<Utc>>,
    /// What this run has done about it before.
    pub ours: Option<Ours>,
    /// Another run is moving it.
    pub busy: bool,
}

/// A mailbox that the run has taken before.
#[derive(Clone, Debug)]
pub struct Ours {
    pub epoch: Epoch,
    pub outcome: String,
    pub detail: Value,
}

/// These mailboxes as they are now; one that is not protected is missing.
pub async fn candidates(db: impl PgExecutor<'_>, run: Uuid, mailboxes: &[MailboxId]) -> Result<Vec<Candidate>> {
    let rows = sqlx::query!(
        r#"select m.mailbox_id, m.address, m.standby_address, p.name as primary_name, m.standby_server_id, m.phase, m.epoch,
                  m.paused, m.applied_seq > 0 and m.standby_trouble is null as "proven!",
                  greatest(m.captured_seq, m.received_seq) as "captured!", m.received_seq, m.applied_seq, m.swept_at,
                  link.heard_at, r.side as "side?", r.epoch as "route_epoch?", w.epoch as "began_with?",
                  w.outcome as "outcome?", w.detail as "detail?",
                  exists (select from switch o where o.mailbox_id = m.mailbox_id and o.ended_at is null and o.run_id <> $1)
                      as "busy!"
           from unnest($2::bigint[]) asked (mailbox_id)
           join mailbox m using (mailbox_id)
           join server p on p.server_id = m.primary_server_id
           cross join link
           left join route r on r.mailbox_id = m.mailbox_id
           left join switch w on w.run_id = $1 and w.mailbox_id = m.mailbox_id
           where m.unprotected_at is null"#,
        run,
        &ids(mailboxes)
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Candidate {
            mailbox: MailboxId(row.mailbox_id),
            address: row.address,
            standby_address: row.standby_address,
            primary: row.primary_name,
            standby: row.standby_server_id,
            phase: row.phase,
            epoch: Epoch(row.epoch),
            route: row.side.zip(row.route_epoch).map(|(side, epoch)| (route::side_of(&side), Epoch(epoch))),
            paused: row.paused,
            proven: row.proven,
            captured: row.captured,
            received: row.received_seq,
            applied: row.applied_seq,
            swept_at: row.swept_at,
            heard_at: row.heard_at,
            ours: row.began_with.zip(row.outcome).map(|(epoch, outcome)| Ours {
                epoch: Epoch(epoch),
                outcome,
                detail: row.detail.unwrap_or_default(),
            }),
            busy: row.busy,
        })
        .collect())
}

/// Whether the source gateway, heard of just now, says of every one of these mailboxes that nobody answers at its primary.
pub async fn is_unreachable(db: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<bool> {
    let unreachable = sqlx::query_scalar!(
        r#"select coalesce(bool_and(coalesce(m.source_trouble ->> 'kind', '') = 'unreachable'), false)
                  and exists (select from link where heard_at > now() - interval '10 s') as "unreachable!"
           from mailbox m where m.mailbox_id = any($1)"#,
        &ids(mailboxes)
    );
    Ok(unreachable.fetch_one(db).await?)
}

/// Takes these mailboxes for a run that moves them to the standby in an emergency, and notes what is at stake for each. Answers
/// those that are its to move: another run may have been quicker, and a mailbox may have changed since it was looked at.
pub async fn claim(
    db: &mut PgConnection,
    run: Uuid,
    mailboxes: &[(MailboxId, Epoch)],
    stakes: &[Value],
) -> Result<Vec<MailboxId>> {
    let (numbers, epochs): (Vec<i64>, Vec<i64>) = mailboxes.iter().map(|(mailbox, epoch)| (mailbox.0, epoch.0)).unzip();
    let mut taken = sqlx::query_scalar!(
        "insert into switch (run_id, mailbox_id, target, mode, epoch, detail)
         select $1, m.mailbox_id, 'standby', 'emergency', m.epoch, asked.detail
         from unnest($2::bigint[], $3::bigint[], $4::jsonb[]) asked (mailbox_id, epoch, detail)
         join mailbox m using (mailbox_id, epoch)
         where m.unprotected_at is null order by m.mailbox_id
         on conflict do nothing
         returning mailbox_id",
        run,
        &numbers,
        &epochs,
        stakes
    )
    .fetch_all(&mut *db)
    .await?;
    if taken.len() < numbers.len() {
        // Those that the run took before it was interrupted.
        let before = sqlx::query_scalar!(
            "update switch s set detail = s.detail || asked.detail
             from unnest($2::bigint[], $3::bigint[], $4::jsonb[]) asked (mailbox_id, epoch, detail)
             where s.run_id = $1 and s.mailbox_id = any($2) and s.mailbox_id <> all($5)
               and s.mailbox_id = asked.mailbox_id and s.epoch = asked.epoch and s.outcome = ''
             returning s.mailbox_id",
            run,
            &numbers,
            &epochs,
            stakes,
            &taken
        );
        taken.extend(before.fetch_all(db).await?);
    }
    Ok(taken.into_iter().map(MailboxId).collect())
}

/// Which of these mailboxes have received something that is not applied.
pub async fn lagging(db: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<Vec<MailboxId>> {
    let lagging = sqlx::query_scalar!(
        "select mailbox_id from mailbox where mailbox_id = any($1) and applied_seq < received_seq",
        &ids(mailboxes)
    );
    Ok(lagging.fetch_all(db).await?.into_iter().map(MailboxId).collect())
}

/// A standby folder that serves the primary's UIDs.
#[derive(Clone, Debug)]
pub struct KeptFolder {
    pub mailbox: MailboxId,
    pub standby_name: String,
    /// Neither side has given out this UID or a later one, as far as is known.
    pub next: i64,
}

/// The standby folders of these mailboxes that serve the primary's UIDs.
pub async fn kept_folders(db: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<Vec<KeptFolder>> {
    let rows = sqlx::query!(
        r#"select f.mailbox_id, f.standby_name, greatest(f.position_uid_next, f.standby_uid_next) as "next!"
           from mirror_folder f
           where f.mailbox_id = any($1) and f.selectable and f.continuity = 'kept' order by f.mailbox_id, f.folder_id"#,
        &ids(mailboxes)
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| KeptFolder { mailbox: MailboxId(row.mailbox_id), standby_name: row.standby_name, next: row.next })
        .collect())
}

/// Sets what interfaces show of mailboxes that are being moved. Those that are in none of the phases `from` stay as they are.
pub async fn set_phase(
    db: &mut PgConnection,
    mailboxes: &[MailboxId],
    from: &[&str],
    to: &str,
    run: Uuid,
) -> Result<()> {
    let from: Vec<String> = from.iter().map(|&phase| phase.to_owned()).collect();
    let changed = sqlx::query_scalar!(
        "update mailbox set phase = $3 where mailbox_id = any($1) and phase = any($2) and phase <> $3 returning mailbox_id",
        &ids(mailboxes),
        &from,
        to
    )
    .fetch_all(&mut *db)
    .await?;
    event::record_each(db, "state", &changed, Some(run), &json!({ "state": to })).await
}

/// Changes the side of mailboxes whose routes the caller holds: route, epoch, phase. Answers those whose epoch was still
/// the one named and whose hold was in force; nothing has become of the others. Who captures them is to be told afterwards
/// (`link::directives_changed`).
pub async fn flip(
    db: &mut PgConnection,
    run: Uuid,
    target: Side,
    mailboxes: &[(MailboxId, Epoch)],
    sweep_seconds: f64,
) -> Result<Vec<MailboxId>> {
    let phase = match target {
        Side::Standby => "on_standby",
        Side::Primary => "mirroring",
    };
    let flipped = route::flip_all(&mut *db, mailboxes, target, Some(phase)).await?;
    let numbers = ids(&flipped);
    sqlx::query!(
        "update switch set flipped_at = clock_timestamp(),
                sweep_until = clock_timestamp() + make_interval(secs => $3)
         where run_id = $1 and mailbox_id = any($2)",
        run,
        &numbers,
        sweep_seconds
    )
    .execute(&mut *db)
    .await?;
    // An older sweep of these mailboxes is over: their old side is the active one again.
    sqlx::query!(
        "update switch set sweep_until = null where mailbox_id = any($2) and run_id <> $1 and sweep_until is not null",
        run,
        &numbers
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "with told as (
             insert into event (tenant_id, kind, mailbox_id, run_id, detail)
             select m.tenant_id, 'state', m.mailbox_id, $1, jsonb_build_object('state', m.phase, 'side', $3::text, 'epoch', m.epoch)
             from mailbox m where m.mailbox_id = any($2) order by m.mailbox_id
             returning event_id
         )
         select pg_notify('understudy_event', max(event_id)::text) from told having count(*) > 0",
        run,
        &numbers,
        target.as_str()
    )
    .fetch_optional(db)
    .await?;
    Ok(flipped)
}

/// These mailboxes are done with, each in its own way; what became of a mailbox stands in its `outcome`.
pub async fn end(db: impl PgExecutor<'_>, run: Uuid, ends: &[(MailboxId, Value)]) -> Result<()> {
    let mailboxes: Vec<i64> = ends.iter().map(|(mailbox, _)| mailbox.0).collect();
    // Found by number in one object: a join would be planned for a few rows, and compare each with each.
    let ends: Map<String, Value> = ends.iter().map(|(mailbox, end)| (mailbox.0.to_string(), end.clone())).collect();
    sqlx::query!(
        "update switch s set ended_at = coalesce(s.ended_at, now()), outcome = $3::jsonb -> s.mailbox_id::text ->> 'outcome',
                detail = s.detail || ($3::jsonb -> s.mailbox_id::text)
         where s.run_id = $1 and s.mailbox_id = any($2)",
        run,
        &mailboxes,
        Value::Object(ends)
    )
    .execute(db)
    .await?;
    Ok(())
}
