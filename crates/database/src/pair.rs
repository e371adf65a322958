//! Which primaries are mirrored to which standbys, and how that goes: the replication map.

use std::collections::BTreeMap;

use sqlx::{PgExecutor, types::Json};

use crate::{Result, scope::Scope};

/// A primary, a standby, and the mailboxes that one is mirrored to the other.
#[derive(Clone, Debug)]
pub struct Pair {
    pub primary: String,
    pub standby: String,
    pub mailboxes: i64,
    /// Of those, how many have their user on the standby: what they change goes home.
    pub on_standby: i64,
    /// Only the states that any of them is in.
    pub by_state: BTreeMap<String, i64>,
    /// How many have something captured and not applied, how much, and how old the oldest of it is.
    pub lagging: i64,
    pub lag_transactions: i64,
    pub lag_seconds: f64,
    pub lag_bytes: i64,
}

struct Row {
    primary: String,
    standby: String,
    mailboxes: i64,
    on_standby: i64,
    by_state: Json<BTreeMap<String, i64>>,
    lagging: i64,
    lag_transactions: i64,
    lag_seconds: f64,
    lag_bytes: i64,
}

impl From<Row> for Pair {
    fn from(row: Row) -> Self {
        Self {
            primary: row.primary,
            standby: row.standby,
            mailboxes: row.mailboxes,
            on_standby: row.on_standby,
            by_state: row.by_state.0,
            lagging: row.lagging,
            lag_transactions: row.lag_transactions,
            lag_seconds: row.lag_seconds,
            lag_bytes: row.lag_bytes,
        }
    }
}

/// The pairs of servers that mailboxes of a scope are on, after `after` (primary and standby), by name.
pub async fn list(
    executor: impl PgExecutor<'_>,
    scope: &Scope,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Vec<Pair>> {
    let (after_primary, after_standby) = after.unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"with waiting as materialized (
               select t.mailbox_id, min(t.captured_at) as oldest, sum(t.content_bytes)::bigint as bytes
               from transaction t where t.applied_at is null group by t.mailbox_id
           ),
           counted as (
               select m.primary_server_id, m.standby_server_id, m.state, count(*) as mailboxes,
                      count(r.mailbox_id) as on_standby,
                      count(*) filter (where m.captured_seq > m.applied_seq) as lagging,
                      sum(greatest(m.captured_seq - m.applied_seq, 0)) as transactions,
                      min(waiting.oldest) as oldest,
                      bool_or(m.captured_seq > m.applied_seq and waiting.oldest is null) as unreceived,
                      sum(waiting.bytes) as bytes
               from mailbox m
               left join route r on r.mailbox_id = m.mailbox_id and r.side = 'standby'
               left join waiting on waiting.mailbox_id = m.mailbox_id and m.captured_seq > m.applied_seq
               where m.tenant_id = $1 and m.unprotected_at is null
                 and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
               group by 1, 2, 3
           )
           select p.name as "primary!", s.name as "standby!", sum(c.mailboxes)::bigint as "mailboxes!",
                  sum(c.on_standby)::bigint as "on_standby!",
                  jsonb_object_agg(c.state, c.mailboxes) as "by_state!: Json<BTreeMap<String, i64>>",
                  sum(c.lagging)::bigint as "lagging!", sum(c.transactions)::bigint as "lag_transactions!",
                  -- Captured, not received: at least since the report that told it.
                  coalesce(greatest(extract(epoch from now() - least(
                      min(c.oldest), case when bool_or(c.unreceived) then min(link.heard_at) end)), 0)::float8, 0) as "lag_seconds!",
                  coalesce(sum(c.bytes), 0)::bigint as "lag_bytes!"
           from counted c
           join server p on p.server_id = c.primary_server_id
           join server s on s.server_id = c.standby_server_id
           cross join link
           where $4::text is null or (p.name, s.name) > ($4, $5::text)
           group by p.server_id, s.server_id
           order by p.name, s.name, p.server_id, s.server_id
           limit $6"#,
        scope.tenant.0,
        scope.group.as_deref(),
        scope.mailbox.as_deref(),
        after_primary,
        after_standby,
        limit
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(Pair::from).collect())
}
