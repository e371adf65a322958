//! Steps that many mailboxes of one run take together: one statement for all of them, a row and an event for each.
//!
//! Keeps true: as with a single step (`run`), each has a number of its own, and its event comes in the same SQL transaction.

use sqlx::{Connection as _, PgConnection, PgExecutor};
use understudy_protocol::MailboxId;
use uuid::Uuid;

use crate::{Result, route::ids};

/// How many seconds ago something began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Ago {
    pub began: f64,
    pub ended: f64,
}

/// Records a step that these mailboxes have taken, with what came of it for each.
pub async fn taken(
    db: &mut PgConnection,
    run: Uuid,
    name: &str,
    ago: Ago,
    mailboxes: &[MailboxId],
    outcomes: &[String],
) -> Result<()> {
    let mut transaction = db.begin().await?;
    lock(&mut *transaction, run).await?;
    sqlx::query!(
        "with placed as (
             insert into run_step (run_id, position, name, mailbox_id, started_at, ended_at, outcome)
             select $1, coalesce((select max(position) from run_step where run_id = $1), 0) + t.ordinal, $2, t.mailbox_id,
                    clock_timestamp() - make_interval(secs => $3), clock_timestamp() - make_interval(secs => $6), t.outcome
             from unnest($4::bigint[], $5::text[]) with ordinality as t (mailbox_id, outcome, ordinal)
             returning position, name, mailbox_id, outcome
         ), told as (
             insert into event (tenant_id, kind, mailbox_id, run_id, detail)
             select r.tenant_id, 'run_step', p.mailbox_id, $1,
                    jsonb_build_object('position', p.position, 'name', p.name, 'outcome', p.outcome)
             from placed p join run r on r.run_id = $1 order by p.position
             returning event_id
         )
         select pg_notify('understudy_event', max(event_id)::text), pg_notify('understudy_run_changed', $1::text)
         from told having count(*) > 0",
        run,
        name,
        ago.began,
        &ids(mailboxes),
        outcomes,
        ago.ended
    )
    .fetch_optional(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

/// A step that several mailboxes began: the numbers of the first and the last.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    first: i32,
    last: i32,
}

/// Begins a step for each of these mailboxes.
pub async fn begin(db: &mut PgConnection, run: Uuid, name: &str, mailboxes: &[MailboxId]) -> Result<Begun> {
    let mut transaction = db.begin().await?;
    lock(&mut *transaction, run).await?;
    let begun = sqlx::query!(
        r#"with placed as (
             insert into run_step (run_id, position, name, mailbox_id, started_at)
             select $1, coalesce((select max(position) from run_step where run_id = $1), 0) + t.ordinal, $2, t.mailbox_id,
                    clock_timestamp()
             from unnest($3::bigint[]) with ordinality as t (mailbox_id, ordinal)
             returning position, name, mailbox_id
         ), told as (
             insert into event (tenant_id, kind, mailbox_id, run_id, detail)
             select r.tenant_id, 'run_step', p.mailbox_id, $1,
                    jsonb_build_object('position', p.position, 'name', p.name, 'outcome', '')
             from placed p join run r on r.run_id = $1 order by p.position
             returning event_id
         )
         select pg_notify('understudy_event', (select max(event_id) from told)::text) as "told: ()",
                pg_notify('understudy_run_changed', $1::text) as "changed: ()",
                coalesce(min(position), 0) as "first!", coalesce(max(position), -1) as "last!"
         from placed"#,
        run,
        name,
        &ids(mailboxes)
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Begun { first: begun.first, last: begun.last })
}

/// Ends a step that was begun, for those of its mailboxes that are named.
pub async fn end(
    db: impl PgExecutor<'_>,
    run: Uuid,
    begun: Begun,
    mailboxes: &[MailboxId],
    outcome: &str,
) -> Result<()> {
    sqlx::query!(
        "with ended as (
             update run_step s set ended_at = clock_timestamp(), outcome = $5
             where s.run_id = $1 and s.position between $2 and $3 and s.mailbox_id = any($4) and s.ended_at is null
             returning s.position, s.name, s.mailbox_id, s.outcome
         ), told as (
             insert into event (tenant_id, kind, mailbox_id, run_id, detail)
             select r.tenant_id, 'run_step', e.mailbox_id, $1,
                    jsonb_build_object('position', e.position, 'name', e.name, 'outcome', e.outcome)
             from ended e join run r on r.run_id = $1 order by e.position
             returning event_id
         )
         select pg_notify('understudy_event', max(event_id)::text), pg_notify('understudy_run_changed', $1::text)
         from told having count(*) > 0",
        run,
        begun.first,
        begun.last,
        &ids(mailboxes),
        outcome
    )
    .fetch_optional(db)
    .await?;
    Ok(())
}

/// Which of these mailboxes have taken a step of this name to its end.
pub async fn behind(db: impl PgExecutor<'_>, run: Uuid, name: &str, mailboxes: &[MailboxId]) -> Result<Vec<MailboxId>> {
    let behind = sqlx::query_scalar!(
        r#"select distinct s.mailbox_id as "mailbox_id!" from run_step s
           where s.run_id = $1 and s.name = $2 and s.ended_at is not null and s.mailbox_id = any($3)"#,
        run,
        name,
        &ids(mailboxes)
    );
    Ok(behind.fetch_all(db).await?.into_iter().map(MailboxId).collect())
}

/// Steps of several mailboxes begin at once; each gets a number of its own.
async fn lock(db: impl PgExecutor<'_>, run: Uuid) -> Result<()> {
    sqlx::query!("select run_id from run where run_id = $1 for no key update", run).fetch_optional(db).await?;
    Ok(())
}
