//! Durable pieces of work that someone asked for, and their steps.
//!
//! In: REST handlers insert. Out: the recovery gateway claims, steps and finishes.
//! Keeps true: a run is claimed by one runner; every step and the end are events, in the same SQL transaction.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgExecutor};
use understudy_protocol::{MailboxId, TenantId};
use uuid::Uuid;

use crate::{Result, event, scope::Scope};

/// The NOTIFY channel that tells of a waiting run; its payload is the `run_id`.
pub const WAITING_CHANNEL: &str = "understudy_run";
/// The NOTIFY channel that tells of progress or the end of a run; its payload is the `run_id`.
pub const CHANGED_CHANNEL: &str = "understudy_run_changed";

/// One run, with the names people know its mailbox and server by.
#[derive(Clone, Debug)]
pub struct Run {
    pub run_id: Uuid,
    pub tenant_id: i64,
    pub kind: String,
    pub mailbox_id: Option<i64>,
    pub address: Option<String>,
    /// Of the mailbox.
    pub group: Option<String>,
    pub server_id: Option<i64>,
    pub server: Option<String>,
    pub request: Value,
    pub reason: String,
    pub state: String,
    pub result: Option<Value>,
    pub cancel_requested: bool,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub requested_by: String,
}

impl Run {
    /// Is nothing more to come?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// One timed step of a run.
#[derive(Clone, Debug)]
pub struct Step {
    pub position: i32,
    pub name: String,
    pub address: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: String,
}

/// What a new run is asked to do.
#[derive(Clone, Debug, Default)]
pub struct NewRun<'a> {
    pub kind: &'a str,
    pub mailbox: Option<MailboxId>,
    pub server_id: Option<i64>,
    pub request: Value,
    pub reason: &'a str,
    pub requested_by: &'a str,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    Failed,
    Cancelled,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub state: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub mailbox: Option<MailboxId>,
    pub server_id: Option<i64>,
    /// Who asks: what somebody asked for is theirs to see.
    pub own: &'a str,
    /// Only those that wait or run.
    pub open: bool,
    /// Only those before this one, in the order listed.
    pub after: Option<Uuid>,
    pub limit: i64,
}

macro_rules! select_runs {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Run,
            r#"select r.run_id, r.tenant_id, r.kind, r.mailbox_id, m.address as "address?", m.group_name as "group?", r.server_id,
                      s.name as "server?", r.request, r.reason, r.state, r.result, r.cancel_requested, r.created_at,
                      r.started_at, r.ended_at, r.requested_by
               from run r
               left join mailbox m on m.mailbox_id = r.mailbox_id
               left join server s on s.server_id = r.server_id "# + $tail
            $(, $argument)*
        )
    };
}

/// Puts a run in the queue and wakes its runner.
pub async fn insert(connection: &mut PgConnection, tenant: TenantId, new: &NewRun<'_>) -> Result<Run> {
    insert_in_state(connection, tenant, new, "waiting", None).await
}

/// Records a run that was carried out on the spot, in the caller's SQL transaction.
pub async fn insert_done(
    connection: &mut PgConnection,
    tenant: TenantId,
    new: &NewRun<'_>,
    result: &Value,
) -> Result<Run> {
    insert_in_state(connection, tenant, new, "done", Some(result)).await
}

async fn insert_in_state(
    connection: &mut PgConnection,
    tenant: TenantId,
    new: &NewRun<'_>,
    state: &str,
    result: Option<&Value>,
) -> Result<Run> {
    let run_id = Uuid::now_v7();
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "insert into run (run_id, tenant_id, kind, mailbox_id, server_id, request, reason, requested_by, state, result,
                          started_at, ended_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                 case when $9 = 'done' then now() end, case when $9 = 'done' then now() end)",
        run_id,
        tenant.0,
        new.kind,
        new.mailbox.map(|mailbox| mailbox.0),
        new.server_id,
        new.request,
        new.reason,
        new.requested_by,
        state,
        result
    )
    .execute(&mut *transaction)
    .await?;
    if state == "waiting" {
        sqlx::query!("select pg_notify('understudy_run', $1)", run_id.to_string()).fetch_one(&mut *transaction).await?;
    }
    record_state(&mut transaction, run_id, new.kind, new.mailbox, state).await?;
    let run = get(&mut *transaction, run_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    transaction.commit().await?;
    Ok(run)
}

/// One run.
pub async fn get(executor: impl PgExecutor<'_>, run_id: Uuid) -> Result<Option<Run>> {
    Ok(select_runs!("where r.run_id = $1", run_id).fetch_optional(executor).await?)
}

/// A run's steps, in order.
pub async fn steps(executor: impl PgExecutor<'_>, run_id: Uuid) -> Result<Vec<Step>> {
    let steps = sqlx::query_as!(
        Step,
        r#"select s.position, s.name, m.address as "address?", s.started_at, s.ended_at, s.outcome
           from run_step s left join mailbox m on m.mailbox_id = s.mailbox_id
           where s.run_id = $1 order by s.position"#,
        run_id
    );
    Ok(steps.fetch_all(executor).await?)
}

/// The runs of a scope, newest first. A narrow one has those of its mailboxes and those its holder asked for.
pub async fn list(executor: impl PgExecutor<'_>, scope: &Scope, filter: &Filter<'_>) -> Result<Vec<Run>> {
    let runs = select_runs!(
        "where r.tenant_id = $1
           and ($2::text is null or r.state = $2)
           and ($3::text is null or r.kind = $3)
           and ($4::bigint is null or r.mailbox_id = $4)
           and ($5::bigint is null or r.server_id = $5)
           and (not $6::bool or r.state in ('waiting', 'running'))
           and ($7::uuid is null
                or (r.created_at, r.run_id) < (select b.created_at, b.run_id from run b where b.run_id = $7))
           and (r.requested_by = $11 or
                ($9::text is null or m.group_name = $9) and ($10::text is null or lower(m.address) = lower($10)))
         order by r.created_at desc, r.run_id desc
         limit $8",
        scope.tenant.0,
        filter.state,
        filter.kind,
        filter.mailbox.map(|mailbox| mailbox.0),
        filter.server_id,
        filter.open,
        filter.after,
        filter.limit,
        scope.group.as_deref(),
        scope.mailbox.as_deref(),
        filter.own
    );
    Ok(runs.fetch_all(executor).await?)
}

/// How many runs of a scope wait or run.
pub async fn count_open(executor: impl PgExecutor<'_>, scope: &Scope, own: &str) -> Result<i64> {
    let open = sqlx::query_scalar!(
        r#"select count(*) as "open!" from run r left join mailbox m using (mailbox_id)
           where r.tenant_id = $1 and r.state in ('waiting', 'running')
             and (r.requested_by = $4 or
                  ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3)))"#,
        scope.tenant.0,
        scope.group.as_deref(),
        scope.mailbox.as_deref(),
        own
    );
    Ok(open.fetch_one(executor).await?)
}

/// Takes the oldest waiting run; nobody else gets it.
pub async fn claim_waiting(connection: &mut PgConnection) -> Result<Option<Run>> {
    let mut transaction = connection.begin().await?;
    let claimed = sqlx::query!(
        "update run set state = 'running', started_at = coalesce(started_at, now())
         where run_id = (
             select run_id from run where state = 'waiting' order by created_at limit 1 for update skip locked
         )
         returning run_id, kind, mailbox_id"
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(claimed) = claimed else { return Ok(None) };
    let mailbox = claimed.mailbox_id.map(MailboxId);
    record_state(&mut transaction, claimed.run_id, &claimed.kind, mailbox, "running").await?;
    let run = get(&mut *transaction, claimed.run_id).await?;
    transaction.commit().await?;
    Ok(run)
}

/// Puts back what a runner that died was at; for its successor's start.
pub async fn requeue_running(executor: impl PgExecutor<'_>) -> Result<u64> {
    let requeued = sqlx::query!("update run set state = 'waiting' where state = 'running'");
    Ok(requeued.execute(executor).await?.rows_affected())
}

/// Begins the run's next step and says which it is.
pub async fn begin_step(
    connection: &mut PgConnection,
    run_id: Uuid,
    name: &str,
    mailbox: Option<MailboxId>,
) -> Result<i32> {
    let mut transaction = connection.begin().await?;
    // Steps of several mailboxes begin at once; each gets a number of its own.
    sqlx::query!("select run_id from run where run_id = $1 for no key update", run_id)
        .fetch_optional(&mut *transaction)
        .await?;
    let position = sqlx::query_scalar!(
        "insert into run_step (run_id, position, name, mailbox_id)
         select $1, coalesce(max(position), 0) + 1, $2, $3 from run_step where run_id = $1
         returning position",
        run_id,
        name,
        mailbox.map(|mailbox| mailbox.0)
    )
    .fetch_one(&mut *transaction)
    .await?;
    let detail = json!({"position": position, "name": name, "outcome": ""});
    event::record(&mut *transaction, "run_step", mailbox, Some(run_id), &detail).await?;
    notify_changed(&mut *transaction, run_id).await?;
    transaction.commit().await?;
    Ok(position)
}

/// Ends a step with one or a few words of what came of it.
pub async fn end_step(connection: &mut PgConnection, run_id: Uuid, position: i32, outcome: &str) -> Result<()> {
    let mut transaction = connection.begin().await?;
    let step = sqlx::query!(
        "update run_step set ended_at = now(), outcome = $3 where run_id = $1 and position = $2
         returning name, mailbox_id",
        run_id,
        position,
        outcome
    )
    .fetch_one(&mut *transaction)
    .await?;
    let detail = json!({"position": position, "name": step.name, "outcome": outcome});
    event::record(&mut *transaction, "run_step", step.mailbox_id.map(MailboxId), Some(run_id), &detail).await?;
    notify_changed(&mut *transaction, run_id).await?;
    transaction.commit().await?;
    Ok(())
}

/// Ends a run. One that has ended stays as it is.
pub async fn finish(connection: &mut PgConnection, run_id: Uuid, ended: Ended, result: &Value) -> Result<()> {
    let mut transaction = connection.begin().await?;
    let finished = sqlx::query!(
        // Who was told that it would be cancelled is not told that it was done after all; a change of side, which cannot be left in
        // the middle, says itself how it ended.
        "update run set
             state = case when cancel_requested and kind not in ('switchover', 'switchback') then 'cancelled' else $2 end,
             result = case when cancel_requested and kind not in ('switchover', 'switchback') then $4::jsonb
                 else $3::jsonb end,
             ended_at = now(), started_at = coalesce(started_at, now())
         where run_id = $1 and ended_at is null
         returning kind, mailbox_id, state",
        run_id,
        ended.as_str(),
        result,
        json!({ "reason": "cancelled by a person", "remedy": "" })
    )
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(run) = finished {
        record_state(&mut transaction, run_id, &run.kind, run.mailbox_id.map(MailboxId), &run.state).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Asks for a run to stop: one that waits is cancelled at once, one that runs when its runner looks. `None` when it has
/// ended already.
pub async fn cancel(connection: &mut PgConnection, run_id: Uuid) -> Result<Option<Run>> {
    let mut transaction = connection.begin().await?;
    let cancelled = sqlx::query!(
        "update run
         set cancel_requested = true,
             state = case when state = 'waiting' then 'cancelled' else state end,
             ended_at = case when state = 'waiting' then now() end
         where run_id = $1 and state in ('waiting', 'running')
         returning kind, mailbox_id, state",
        run_id
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(cancelled) = cancelled else { return Ok(None) };
    let mailbox = cancelled.mailbox_id.map(MailboxId);
    record_state(&mut transaction, run_id, &cancelled.kind, mailbox, &cancelled.state).await?;
    let run = get(&mut *transaction, run_id).await?;
    transaction.commit().await?;
    Ok(run)
}

/// Has someone asked for this run to stop?
pub async fn cancel_requested(executor: impl PgExecutor<'_>, run_id: Uuid) -> Result<bool> {
    let requested = sqlx::query_scalar!("select cancel_requested from run where run_id = $1", run_id);
    Ok(requested.fetch_optional(executor).await?.unwrap_or(true))
}

async fn record_state(
    connection: &mut PgConnection,
    run_id: Uuid,
    kind: &str,
    mailbox: Option<MailboxId>,
    state: &str,
) -> Result<()> {
    event::record(&mut *connection, "run", mailbox, Some(run_id), &json!({"kind": kind, "state": state})).await?;
    notify_changed(connection, run_id).await
}

async fn notify_changed(executor: impl PgExecutor<'_>, run_id: Uuid) -> Result<()> {
    sqlx::query!("select pg_notify('understudy_run_changed', $1)", run_id.to_string()).fetch_one(executor).await?;
    Ok(())
}
