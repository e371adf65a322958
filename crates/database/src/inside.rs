//! What is inside a mailbox, for people: its folders on both sides, the transactions of its journal; and how fast first copies were.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, types::Json};
use understudy_protocol::{FolderPath, MailboxId, TenantId, Transaction, codec};

use crate::{Error, Result};

/// A folder on both sides, as of the last transaction applied.
#[derive(Clone, Debug)]
pub struct Folder {
    pub path: FolderPath,
    pub special_use: Vec<String>,
    /// False for a level that only holds other folders.
    pub selectable: bool,
    pub uid_validity: i64,
    pub messages: i64,
    pub bytes: i64,
    /// As the standby spells it; empty before it is there.
    pub standby_name: String,
    pub standby_uid_validity: i64,
    /// Of those above, the ones that the standby holds as they are.
    pub standby_messages: i64,
    pub uids_kept: bool,
    pub uids_lost_reason: String,
}

/// Every folder of a mailbox.
pub async fn folders(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<Folder>> {
    let rows = sqlx::query!(
        r#"select f.path as "path: Json<FolderPath>", f.special_use, f.selectable, f.uid_validity, f.standby_name,
                  f.standby_uid_validity, f.continuity = 'kept' as "uids_kept!", f.continuity_reason,
                  coalesce(m.messages, 0) as "messages!", coalesce(m.bytes, 0)::bigint as "bytes!",
                  coalesce(m.there, 0) as "there!"
           from mirror_folder f
           left join (select folder_id, count(*) as messages, sum(size) as bytes,
                             count(*) filter (where set_aside is null and standby_uid is not null) as there
                      from mirror_message where mailbox_id = $1 group by folder_id) as m using (folder_id)
           where f.mailbox_id = $1"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Folder {
            path: row.path.0,
            special_use: row.special_use,
            selectable: row.selectable,
            uid_validity: row.uid_validity,
            messages: row.messages,
            bytes: row.bytes,
            standby_name: row.standby_name,
            standby_uid_validity: row.standby_uid_validity,
            standby_messages: row.there,
            uids_kept: row.uids_kept,
            uids_lost_reason: row.continuity_reason,
        })
        .collect())
}

/// One transaction of a mailbox's journal.
#[derive(Clone, Debug)]
pub struct Past {
    pub transaction: Transaction,
    pub content_bytes: i64,
    pub received_at: DateTime<Utc>,
    pub applied_at: Option<DateTime<Utc>>,
}

/// The transactions received with numbers below `before`, the newest first.
pub async fn transactions(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Past>> {
    let rows = sqlx::query!(
        "select body, content_bytes, received_at, applied_at from transaction
         where mailbox_id = $1 and direction = 'outbound' and seq < coalesce($2::bigint, 9223372036854775807)
         order by seq desc limit $3",
        mailbox.0,
        before,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Past {
                transaction: codec::decode(&row.body).map_err(|error| Error::unreadable("transaction", error))?,
                content_bytes: row.content_bytes,
                received_at: row.received_at,
                applied_at: row.applied_at,
            })
        })
        .collect()
}

/// How many bytes a second the tenant's last first copies brought over, taken together; none where there were none yet.
pub async fn first_copy_rate(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Option<f64>> {
    let rate = sqlx::query_scalar!(
        r#"with latest as (
               select mailbox_id from mailbox where tenant_id = $1 and phase <> 'seeding' order by created_at desc limit 50
           ),
           copies as (
               select sum(t.content_bytes) as bytes, tstzrange(min(t.captured_at), max(t.applied_at), '[]') as during
               from latest join transaction t using (mailbox_id)
               where t.direction = 'outbound' and t.seed and t.applied_at >= t.captured_at
               group by t.mailbox_id having sum(t.content_bytes) > 0
           )
           select ((select sum(bytes) from copies)
                   / nullif((select sum(extract(epoch from upper(busy) - lower(busy)))
                             from unnest((select range_agg(during) from copies)) as busy), 0))::float8"#,
        tenant.0
    );
    Ok(rate.fetch_one(db).await?)
}
