//! Protected mailboxes: what people asked for and what every interface shows of them.
//!
//! Keeps true: no number here is ahead of the truth; whatever a source gateway must learn of is said by
//! [`link::directives_changed`] in the same SQL transaction.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{FolderPath, MailboxId, TenantId};

use crate::{Result, event, link, scope::Scope};

/// A mailbox as every interface shows it.
#[derive(Clone, Debug)]
pub struct Mailbox {
    pub mailbox_id: i64,
    pub tenant_id: i64,
    pub address: String,
    pub primary_server_id: i64,
    pub primary: String,
    pub standby_server_id: i64,
    pub standby: String,
    pub standby_address: String,
    pub policy: String,
    pub group: String,
    pub state: String,
    /// `primary` or `standby`: where its user works.
    pub active_side: String,
    pub phase: String,
    pub paused: bool,
    pub held: bool,
    pub attempt: i32,
    pub epoch: i64,
    pub lag_seconds: f64,
    pub lag_bytes: i64,
    pub captured_seq: i64,
    pub received_seq: i64,
    pub applied_seq: i64,
    pub messages_done: i64,
    pub messages_total: i64,
    pub bytes_done: i64,
    pub bytes_total: i64,
    pub capability: String,
    pub uid_continuity: bool,
    /// Folders that lost it: a list of {path, reason}.
    pub continuity_lost: Value,
    pub set_aside: i64,
    pub swept_at: Option<DateTime<Utc>>,
    pub last_transaction_at: Option<DateTime<Utc>>,
    pub last_verified_at: Option<DateTime<Utc>>,
    /// Found by the last verification; none before the first.
    pub differences: Option<i64>,
    pub held_at: Option<DateTime<Utc>>,
    /// Where the pipeline has not proven itself: {kind, place, reason, remedy, since}.
    pub unproven: Option<Value>,
    /// What its messages came to on the link: `{message_bytes, new_bytes, deduplicated_bytes, compressed_bytes}`.
    pub traffic: Option<Value>,
    pub created_at: DateTime<Utc>,
    /// A `protocol::messages::Trouble`.
    pub trouble: Option<Value>,
}

/// Which mailboxes to list.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub state: Option<&'a str>,
    /// Name of the primary or the standby.
    pub server: Option<&'a str>,
    pub group: Option<&'a str>,
    /// A part of the address, in any case.
    pub part: Option<&'a str>,
    /// Only those after this address and primary, in the order listed.
    pub after: Option<(&'a str, &'a str)>,
    pub limit: i64,
}

/// A protected mailbox that an address asked for may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Which of the addresses asked for, from 0.
    pub index: usize,
    pub mailbox: MailboxId,
    pub address: String,
    pub primary: String,
}

/// One mailbox to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMailbox {
    pub address: String,
    pub primary_server_id: i64,
    pub standby_server_id: i64,
    pub standby_address: String,
    pub policy: String,
    pub group: String,
}

/// What is there already where a new mailbox would go.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// Which of the new mailboxes, from 0.
    pub index: usize,
    /// The standby and the log-in there of the mailbox that has the same primary and address.
    pub mirrored_to: Option<(i64, String)>,
    /// Address and primary of the mailbox that is mirrored to the same place.
    pub place_taken_by: Option<(String, String)>,
}

/// A message that the standby does not hold as it is.
#[derive(Clone, Debug)]
pub struct SetAside {
    pub folder_id: i32,
    pub path: FolderPath,
    pub uid: i64,
    pub size: i64,
    pub kind: String,
    pub reason: String,
}

macro_rules! select_mailboxes {
    ($filter:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Mailbox,
            r#"with page as (
                   select m.*, p.name as primary_name, s.name as standby_name, r.side as active_side
                   from mailbox m
                   join route r using (mailbox_id)
                   join server p on p.server_id = m.primary_server_id
                   join server s on s.server_id = m.standby_server_id
                   where m.unprotected_at is null and "# + $filter + r#"
               )
               select m.mailbox_id as "mailbox_id!", m.tenant_id as "tenant_id!", m.address as "address!",
                      m.primary_server_id as "primary_server_id!", m.primary_name as "primary!",
                      m.standby_server_id as "standby_server_id!", m.standby_name as "standby!",
                      m.standby_address as "standby_address!", m.policy as "policy!", m.group_name as "group!",
                      m.state as "state!", m.active_side as "active_side!", m.phase as "phase!", m.paused as "paused!", m.held as "held!",
                      m.attempt as "attempt!", m.epoch as "epoch!",
                      -- Captured, not received: how long ago is not known here, but at least since the report that told it.
                      case when m.captured_seq > m.applied_seq then coalesce(
                          greatest(extract(epoch from now() - coalesce(waiting.oldest, link.heard_at)), 0)::float8, 0)
                      else 0 end as "lag_seconds!",
                      waiting.bytes as "lag_bytes!",
                      greatest(m.captured_seq, m.received_seq) as "captured_seq!", m.received_seq as "received_seq!",
                      m.applied_seq as "applied_seq!", m.messages_done as "messages_done!",
                      m.messages_total as "messages_total!", m.bytes_done as "bytes_done!",
                      m.bytes_total as "bytes_total!", m.capability as "capability!",
                      m.uid_continuity as "uid_continuity!",
                      (select coalesce(jsonb_agg(jsonb_build_object('path', f.path, 'reason', f.continuity_reason)
                                                 order by f.folder_id), '[]')
                       from mirror_folder f
                       where f.mailbox_id = m.mailbox_id and f.continuity in ('lost', 'swapping'))
                          as "continuity_lost!",
                      (select count(*) from mirror_message a
                       where a.mailbox_id = m.mailbox_id and a.set_aside is not null)
                      + (select count(*) from mailbox_unreadable u where u.mailbox_id = m.mailbox_id) as "set_aside!",
                      m.swept_at, m.last_transaction_at, m.last_verified_at, m.created_at as "created_at!",
                      m.differences, m.held_at, m.unproven,
                      (select to_jsonb(c) from mailbox_traffic c where c.mailbox_id = m.mailbox_id) as traffic,
                      case when m.held then m.held_detail
                      when coalesce((m.standby_trouble ->> 'fault')::boolean, false)
                            and not coalesce((m.source_trouble ->> 'fault')::boolean, false) then m.standby_trouble
                      else coalesce(m.source_trouble, m.standby_trouble, m.unproven) end as trouble
               from page m
               cross join link
               cross join lateral (
                   select min(t.captured_at) as oldest, coalesce(sum(t.content_bytes), 0)::bigint as bytes
                   from transaction t where t.mailbox_id = m.mailbox_id and t.applied_at is null
               ) waiting
               order by m.address, m.primary_name"#
            $(, $argument)*
        )
    };
}

/// One protected mailbox.
pub async fn get(executor: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Mailbox>> {
    Ok(select_mailboxes!("m.mailbox_id = $1", mailbox.0).fetch_optional(executor).await?)
}

/// The protected mailboxes of a scope, by address and primary.
pub async fn list(executor: impl PgExecutor<'_>, scope: &Scope, filter: &Filter<'_>) -> Result<Vec<Mailbox>> {
    let (after_address, after_primary) = filter.after.unzip();
    let mailboxes = select_mailboxes!(
        "m.tenant_id = $1
         and ($2::text is null or m.state = $2)
         and ($3::text is null or p.name = $3 or s.name = $3)
         and ($4::text is null or m.group_name = $4)
         and ($5::text is null or position(lower($5) in lower(m.address)) > 0)
         and ($6::text is null or (m.address >= $6 and (m.address, p.name) > ($6, $7::text)))
         and ($9::text is null or m.group_name = $9) and ($10::text is null or lower(m.address) = lower($10))
         order by m.address, p.name
         limit $8",
        scope.tenant.0,
        filter.state,
        filter.server,
        filter.group,
        filter.part,
        after_address,
        after_primary,
        filter.limit,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    Ok(mailboxes.fetch_all(executor).await?)
}

/// The mailboxes that these addresses may mean: spelled the same but for case, on any primary or on the one named.
pub async fn matching(
    executor: impl PgExecutor<'_>,
    scope: &Scope,
    addresses: &[String],
    primary: Option<&str>,
) -> Result<Vec<Match>> {
    let rows = sqlx::query!(
        r#"select asked.index as "index!", m.mailbox_id, m.address, p.name as primary_name
           from unnest($2::text[]) with ordinality as asked (address, index)
           join mailbox m on lower(m.address) = lower(asked.address) and m.tenant_id = $1 and m.unprotected_at is null
           join server p on p.server_id = m.primary_server_id
           where ($3::text is null or p.name = $3)
             and ($4::text is null or m.group_name = $4) and ($5::text is null or lower(m.address) = lower($5))
           order by asked.index, m.address, p.name"#,
        scope.tenant.0,
        addresses,
        primary,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows
        .into_iter()
        .map(|row| Match {
            index: usize::try_from(row.index - 1).unwrap_or_default(),
            mailbox: MailboxId(row.mailbox_id),
            address: row.address,
            primary: row.primary_name,
        })
        .collect())
}

/// Number and address of every protected mailbox of a scope.
pub async fn all(executor: impl PgExecutor<'_>, scope: &Scope) -> Result<Vec<(MailboxId, String)>> {
    let rows = sqlx::query!(
        "select mailbox_id, address from mailbox m where tenant_id = $1 and unprotected_at is null
           and ($2::text is null or m.group_name = $2) and ($3::text is null or lower(m.address) = lower($3))
         order by address, mailbox_id",
        scope.tenant.0,
        scope.group.as_deref(),
        scope.mailbox.as_deref()
    );
    Ok(rows.fetch_all(executor).await?.into_iter().map(|row| (MailboxId(row.mailbox_id), row.address)).collect())
}

/// What stands where these mailboxes would go; only those where something does.
pub async fn occupied(executor: impl PgExecutor<'_>, new: &[NewMailbox]) -> Result<Vec<Occupied>> {
    let addresses: Vec<String> = new.iter().map(|new| new.address.clone()).collect();
    let primaries: Vec<i64> = new.iter().map(|new| new.primary_server_id).collect();
    let standbys: Vec<i64> = new.iter().map(|new| new.standby_server_id).collect();
    let standby_addresses: Vec<String> = new.iter().map(|new| new.standby_address.clone()).collect();
    let rows = sqlx::query!(
        r#"select n.index as "index!", same.standby_server_id as "standby_server_id?",
                  same.standby_address as "standby_address?", there.address as "taken_address?", p.name as "taken_primary?"
           from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) with ordinality
               as n (address, primary_server_id, standby_server_id, standby_address, index)
           left join mailbox same on same.primary_server_id = n.primary_server_id and same.address = n.address
               and same.unprotected_at is null
           left join mailbox there on there.standby_server_id = n.standby_server_id
               and there.standby_address = n.standby_address and there.unprotected_at is null
           left join server p on p.server_id = there.primary_server_id
           where same.mailbox_id is not null or there.mailbox_id is not null
           order by n.index"#,
        &addresses,
        &primaries,
        &standbys,
        &standby_addresses
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows
        .into_iter()
        .map(|row| Occupied {
            index: usize::try_from(row.index - 1).unwrap_or_default(),
            mirrored_to: row.standby_server_id.zip(row.standby_address),
            place_taken_by: row.taken_address.zip(row.taken_primary),
        })
        .collect())
}

/// Protects mailboxes. One that is protected already breaks `mailbox_address_unique` or `mailbox_standby_unique`.
pub async fn protect(db: &mut PgConnection, tenant: TenantId, new: &[NewMailbox]) -> Result<()> {
    let addresses: Vec<String> = new.iter().map(|new| new.address.clone()).collect();
    let primaries: Vec<i64> = new.iter().map(|new| new.primary_server_id).collect();
    let standbys: Vec<i64> = new.iter().map(|new| new.standby_server_id).collect();
    let standby_addresses: Vec<String> = new.iter().map(|new| new.standby_address.clone()).collect();
    let policies: Vec<String> = new.iter().map(|new| new.policy.clone()).collect();
    let groups: Vec<String> = new.iter().map(|new| new.group.clone()).collect();
    let protected = sqlx::query_scalar!(
        "insert into mailbox (tenant_id, address, primary_server_id, standby_server_id, standby_address, policy, group_name)
         select $1, address, primary_server_id, standby_server_id, standby_address, policy, group_name
         from unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[])
             as n (address, primary_server_id, standby_server_id, standby_address, policy, group_name)
         returning mailbox_id",
        tenant.0,
        &addresses,
        &primaries,
        &standbys,
        &standby_addresses,
        &policies,
        &groups
    )
    .fetch_all(&mut *db)
    .await?;
    event::record_each(&mut *db, "protected", &protected, None, &json!({"state": "seeding"})).await?;
    link::directives_changed(db).await
}

/// Stops a mailbox. Safe to repeat.
pub async fn pause(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<()> {
    let paused = sqlx::query!("update mailbox set paused = true where mailbox_id = $1 and not paused", mailbox.0);
    if paused.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(());
    }
    event::record(&mut *db, "paused", Some(mailbox), None, &json!({"by": by})).await?;
    link::directives_changed(db).await
}

/// Lets a mailbox go on, and tries at once again whatever stood in its way. What that was stays until the gateways
/// report how the new attempt went.
pub async fn resume(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<()> {
    sqlx::query!("update mailbox set paused = false, attempt = attempt + 1 where mailbox_id = $1", mailbox.0)
        .execute(&mut *db)
        .await?;
    event::record(&mut *db, "resumed", Some(mailbox), None, &json!({"by": by})).await?;
    link::directives_changed(db).await
}

/// Changes how a mailbox is treated.
pub async fn update(
    db: &mut PgConnection,
    mailbox: MailboxId,
    policy: Option<&str>,
    group: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "update mailbox set policy = coalesce($2, policy), group_name = coalesce($3, group_name) where mailbox_id = $1",
        mailbox.0,
        policy,
        group
    )
    .execute(&mut *db)
    .await?;
    event::record(db, "changed", Some(mailbox), None, &json!({"policy": policy, "group": group})).await
}

/// Takes a mailbox out of protection. What is on the standby stays there. Answers when that was.
pub async fn unprotect(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<DateTime<Utc>> {
    let at = sqlx::query_scalar!(
        r#"update mailbox set unprotected_at = coalesce(unprotected_at, now()) where mailbox_id = $1
           returning unprotected_at as "at!""#,
        mailbox.0
    )
    .fetch_one(&mut *db)
    .await?;
    event::record(&mut *db, "unprotected", Some(mailbox), None, &json!({"by": by})).await?;
    link::directives_changed(db).await?;
    Ok(at)
}

/// The messages of a mailbox that the standby does not hold as they are, after folder and UID `after`: it refused or
/// altered them, or the primary could not give them.
pub async fn set_aside(
    executor: impl PgExecutor<'_>,
    mailbox: MailboxId,
    after: Option<(i32, i64)>,
    limit: i64,
) -> Result<Vec<SetAside>> {
    let (after_folder, after_uid) = after.unzip();
    let rows = sqlx::query!(
        r#"select a.folder_id as "folder_id!", a.path as "path!: Json<FolderPath>", a.uid as "uid!", a.size as "size!",
                  a.kind as "kind!", a.reason as "reason!"
           from (select m.folder_id, f.path, m.uid, m.size, m.set_aside as kind, m.set_aside_reason as reason
                 from mirror_message m join mirror_folder f using (mailbox_id, folder_id)
                 where m.mailbox_id = $1 and m.set_aside is not null
                 union all
                 select u.folder_id, u.path, u.uid, u.size, 'unreadable', u.reason
                 from mailbox_unreadable u where u.mailbox_id = $1) as a
           where $2::int is null or (a.folder_id, a.uid) > ($2, $3::bigint)
           order by a.folder_id, a.uid
           limit $4"#,
        mailbox.0,
        after_folder,
        after_uid,
        limit
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows
        .into_iter()
        .map(|row| SetAside {
            folder_id: row.folder_id,
            path: row.path.0,
            uid: row.uid,
            size: row.size,
            kind: row.kind,
            reason: row.reason,
        })
        .collect())
}
