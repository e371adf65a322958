//! Groups: a label that mailboxes carry. A group is there as long as a protected mailbox carries it.

use sqlx::{PgExecutor, types::Json};
use std::collections::BTreeMap;

use crate::{Result, scope::Scope};

/// A group and what its mailboxes are doing.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub mailboxes: i64,
    /// Only the states that any of them is in.
    pub by_state: BTreeMap<String, i64>,
}

struct Row {
    name: String,
    mailboxes: i64,
    by_state: Json<BTreeMap<String, i64>>,
}

impl From<Row> for Group {
    fn from(row: Row) -> Self {
        Self { name: row.name, mailboxes: row.mailboxes, by_state: row.by_state.0 }
    }
}

/// Which groups to list.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    /// A part of the name, in any case.
    pub part: Option<&'a str>,
    /// Only those after this name.
    pub after: Option<&'a str>,
    /// Only this one.
    pub name: Option<&'a str>,
    pub limit: i64,
}

/// The groups of the mailboxes of a scope, by name.
pub async fn list(executor: impl PgExecutor<'_>, scope: &Scope, filter: &Filter<'_>) -> Result<Vec<Group>> {
    let rows = sqlx::query_as!(
        Row,
        r#"with counted as (
               select m.group_name as name, m.state, count(*) as mailboxes
               from mailbox m
               where m.tenant_id = $1 and m.unprotected_at is null and m.group_name <> ''
                 and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
                 and ($4::text is null or m.group_name > $4) and ($5::text is null or m.group_name = $5)
                 and ($6::text is null or position(lower($6) in lower(m.group_name)) > 0)
               group by 1, 2
           )
           select name, sum(mailboxes)::bigint as "mailboxes!",
                  jsonb_object_agg(state, mailboxes) as "by_state!: Json<BTreeMap<String, i64>>"
           from counted group by name order by name limit $7"#,
        scope.tenant.0,
        scope.group.as_deref(),
        scope.mailbox.as_deref(),
        filter.after,
        filter.name,
        filter.part,
        filter.limit
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(Group::from).collect())
}
