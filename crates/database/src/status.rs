//! How things are, in numbers: what `understudy status`, the metrics and the lag samples of the event stream show.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::{Result, scope::Scope};

/// A link that was not heard of for longer counts as cut.
pub const LINK_SILENCE: Duration = Duration::from_secs(30);

/// How many mailboxes are in a state.
#[derive(Clone, Debug)]
pub struct StateCount {
    pub state: String,
    pub mailboxes: i64,
}

/// When the source gateway was last heard of.
#[derive(Clone, Debug)]
pub struct Link {
    pub heard_at: Option<DateTime<Utc>>,
    pub age_seconds: Option<f64>,
    pub product_version: String,
    /// When a second source gateway was last turned away.
    pub turned_away_at: Option<DateTime<Utc>>,
}

impl Link {
    /// Was the source gateway heard of lately?
    #[must_use]
    pub fn connected(&self) -> bool {
        self.age_seconds.is_some_and(|age| age <= LINK_SILENCE.as_secs_f64())
    }
}

/// One mailbox with something captured and not yet applied, and the totals of all of them.
#[derive(Clone, Debug)]
pub struct Lagging {
    pub mailbox_id: i64,
    pub tenant_id: i64,
    pub address: String,
    pub group: String,
    pub primary: String,
    pub transactions: i64,
    pub seconds: f64,
    pub bytes: i64,
    pub total_mailboxes: i64,
    pub total_transactions: i64,
    pub total_bytes: i64,
}

/// Does the database answer, with a schema?
pub async fn ready(executor: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query_scalar!(r#"select count(*) as "links!" from link"#).fetch_one(executor).await?;
    Ok(())
}

/// How many protected mailboxes are in each state that any is in; of every tenant without a scope.
pub async fn states(executor: impl PgExecutor<'_>, scope: Option<&Scope>) -> Result<Vec<StateCount>> {
    let states = sqlx::query_as!(
        StateCount,
        r#"select m.state, count(*) as "mailboxes!"
           from mailbox m
           where m.unprotected_at is null and ($1::bigint is null or m.tenant_id = $1)
             and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
           group by 1 order by 1"#,
        scope.map(|scope| scope.tenant.0),
        scope.and_then(|scope| scope.group.as_deref()),
        scope.and_then(|scope| scope.mailbox.as_deref())
    );
    Ok(states.fetch_all(executor).await?)
}

/// The link.
pub async fn link(executor: impl PgExecutor<'_>) -> Result<Link> {
    let link = sqlx::query_as!(
        Link,
        r#"select heard_at,
                  case when heard_at is not null then
                      greatest(extract(epoch from now() - heard_at), 0)::float8 end as age_seconds, product_version,
                  turned_away_at
           from link where link_id = 1"#
    );
    Ok(link.fetch_one(executor).await?)
}

/// The `limit` mailboxes of a scope (of every tenant without one) that lag most, worst first.
pub async fn lagging(executor: impl PgExecutor<'_>, scope: Option<&Scope>, limit: i64) -> Result<Vec<Lagging>> {
    let lagging = sqlx::query_as!(
        Lagging,
        r#"with waiting as materialized (
               select t.mailbox_id, min(t.captured_at) as oldest, sum(t.content_bytes)::bigint as bytes
               from transaction t where t.applied_at is null group by t.mailbox_id
           )
           select m.mailbox_id, m.tenant_id, m.address, m.group_name as "group", p.name as primary,
                  m.captured_seq - m.applied_seq as "transactions!",
                  coalesce(
                      greatest(extract(epoch from now() - coalesce(waiting.oldest, link.heard_at)), 0)::float8, 0
                  ) as "seconds!",
                  coalesce(waiting.bytes, 0) as "bytes!",
                  count(*) over () as "total_mailboxes!",
                  (sum(m.captured_seq - m.applied_seq) over ())::bigint as "total_transactions!",
                  coalesce(sum(waiting.bytes) over (), 0)::bigint as "total_bytes!"
           from mailbox m
           join server p on p.server_id = m.primary_server_id
           cross join link
           left join waiting on waiting.mailbox_id = m.mailbox_id
           where m.unprotected_at is null and m.captured_seq > m.applied_seq
             and ($1::bigint is null or m.tenant_id = $1)
             and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
           order by "seconds!" desc, "transactions!" desc
           limit $4"#,
        scope.map(|scope| scope.tenant.0),
        scope.and_then(|scope| scope.group.as_deref()),
        scope.and_then(|scope| scope.mailbox.as_deref()),
        limit
    );
    Ok(lagging.fetch_all(executor).await?)
}

/// How many messages standbys do not hold as they are; of every tenant without a scope.
pub async fn set_aside(executor: impl PgExecutor<'_>, scope: Option<&Scope>) -> Result<i64> {
    let set_aside = sqlx::query_scalar!(
        r#"select count(*) as "set_aside!"
           from mirror_message a join mailbox m using (mailbox_id)
           where a.set_aside is not null and m.unprotected_at is null and ($1::bigint is null or m.tenant_id = $1)
             and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))"#,
        scope.map(|scope| scope.tenant.0),
        scope.and_then(|scope| scope.group.as_deref()),
        scope.and_then(|scope| scope.mailbox.as_deref())
    );
    Ok(set_aside.fetch_one(executor).await?)
}
