//! Parts that messages share: their keys, who is rebuilt from which, what the other side acknowledged, and what it saved.

use std::{collections::HashSet, time::Duration};

use sqlx::PgExecutor;
use understudy_protocol::{Digest, MailboxId, PartKey, TenantId};

use crate::{Error, Result, columns};

/// Every tenant's key.
pub async fn keys(db: impl PgExecutor<'_>) -> Result<Vec<(TenantId, PartKey)>> {
    let rows = sqlx::query!("select tenant_id, part_key from tenant order by tenant_id").fetch_all(db).await?;
    rows.into_iter().map(|row| Ok((TenantId(row.tenant_id), key(&row.part_key)?))).collect()
}

/// A tenant's key.
pub async fn key_of(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Option<PartKey>> {
    let row =
        sqlx::query_scalar!("select part_key from tenant where tenant_id = $1", tenant.0).fetch_optional(db).await?;
    row.map(|bytes| key(&bytes)).transpose()
}

fn key(bytes: &[u8]) -> Result<PartKey> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|e| Error::unreadable("key of parts", e))?;
    Ok(PartKey::new(bytes))
}

/// Notes which parts messages are rebuilt from: (message, part). Only of messages that rest as a skeleton. A part that is not there is an
/// error: it is not removed from now on.
pub async fn name(db: impl PgExecutor<'_>, tenant: TenantId, named: &[(Digest, Digest)]) -> Result<()> {
    if named.is_empty() {
        return Ok(());
    }
    let (messages, parts): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
        named.iter().map(|(message, part)| (message.0.to_vec(), part.0.to_vec())).unzip();
    sqlx::query!(
        "insert into content_part (tenant_id, digest, part)
         select distinct c.tenant_id, c.digest, n.part
         from unnest($2::bytea[], $3::bytea[]) as n (digest, part)
         cross join lateral (
             select * from content where tenant_id = $1 and digest = n.digest offset 0
         ) c
         where c.form = 'skeleton'
         on conflict do nothing",
        tenant.0,
        &messages,
        &parts,
    )
    .execute(db)
    .await?;
    Ok(())
}

// The source gateway ------------------------------------------------------------------------------------------------------

/// What is believed of parts that the recovery site acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// They are there.
    pub there: HashSet<Digest>,
    /// They were, longer ago than they surely stay.
    pub doubtful: HashSet<Digest>,
}

/// Which of these parts the recovery site acknowledged. `keeps`: for how long one surely stays after that; none where that is not known,
/// and whatever was acknowledged is believed.
pub async fn acknowledged(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    parts: &[Digest],
    keeps: Option<Duration>,
) -> Result<Acknowledged> {
    let rows = sqlx::query!(
        r#"select p.digest, coalesce(p.acknowledged_at < now() - make_interval(secs => $3::float8), false) as "doubtful!"
           from unnest($2::bytea[]) as wanted (digest)
           join source_part p on p.tenant_id = $1 and p.digest = wanted.digest"#,
        tenant.0,
        &raw(parts),
        keeps.map(|keeps| keeps.as_secs_f64()),
    )
    .fetch_all(db)
    .await?;
    let mut acknowledged = Acknowledged::default();
    for row in rows {
        let known = if row.doubtful { &mut acknowledged.doubtful } else { &mut acknowledged.there };
        known.insert(columns::digest(&row.digest)?);
    }
    Ok(acknowledged)
}

/// The recovery site has these parts now. What was noted within `fresh` is not noted again.
pub async fn acknowledge(db: impl PgExecutor<'_>, tenant: TenantId, parts: &[Digest], fresh: Duration) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into source_part as p (tenant_id, digest)
         select distinct $1::bigint, digest from unnest($2::bytea[]) as a (digest)
         on conflict (tenant_id, digest) do update set acknowledged_at = now()
             where p.acknowledged_at < now() - make_interval(secs => $3)",
        tenant.0,
        &raw(parts),
        fresh.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The recovery site has these parts no more.
pub async fn forget(db: impl PgExecutor<'_>, tenant: TenantId, parts: &[Digest]) -> Result<()> {
    sqlx::query!("delete from source_part where tenant_id = $1 and digest = any($2)", tenant.0, &raw(parts))
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets what was acknowledged longest ago beyond so many parts; answers how many. What is forgotten is offered again.
pub async fn forget_oldest(db: impl PgExecutor<'_>, keep: u64) -> Result<u64> {
    let done = sqlx::query!(
        "with oldest as (
             select tenant_id, digest from source_part order by acknowledged_at
             limit greatest((select count(*) from source_part) - $1, 0))
         delete from source_part p using oldest o where p.tenant_id = o.tenant_id and p.digest = o.digest",
        columns::size(keep),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

fn raw(digests: &[Digest]) -> Vec<Vec<u8>> {
    digests.iter().map(|digest| digest.0.to_vec()).collect()
}

// What it did -------------------------------------------------------------------------------------------------------------

/// What became of messages on the link, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of the messages, as mail servers hold them: all that follows, together.
    pub messages: u64,
    /// Crossed the link.
    pub new: u64,
    /// Needed no crossing: it was there.
    pub deduplicated: u64,
    /// Saved by unwrapping and compression.
    pub compressed: u64,
}

/// Adds to what a mailbox's messages came to.
pub async fn count(db: impl PgExecutor<'_>, mailbox: MailboxId, traffic: &Traffic) -> Result<()> {
    if *traffic == Traffic::default() {
        return Ok(());
    }
    sqlx::query!(
        "insert into mailbox_traffic as t (mailbox_id, message_bytes, new_bytes, deduplicated_bytes, compressed_bytes)
         values ($1, $2, $3, $4, $5)
         on conflict (mailbox_id) do update set message_bytes = t.message_bytes + excluded.message_bytes,
             new_bytes = t.new_bytes + excluded.new_bytes,
             deduplicated_bytes = t.deduplicated_bytes + excluded.deduplicated_bytes,
             compressed_bytes = t.compressed_bytes + excluded.compressed_bytes",
        mailbox.0,
        columns::size(traffic.messages),
        columns::size(traffic.new),
        columns::size(traffic.deduplicated),
        columns::size(traffic.compressed),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What a mailbox's messages came to.
pub async fn traffic_of(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Traffic> {
    let row = sqlx::query!(
        "select message_bytes, new_bytes, deduplicated_bytes, compressed_bytes from mailbox_traffic where mailbox_id = $1",
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map_or_else(Traffic::default, |row| Traffic {
        messages: row.message_bytes.unsigned_abs(),
        new: row.new_bytes.unsigned_abs(),
        deduplicated: row.deduplicated_bytes.unsigned_abs(),
        compressed: row.compressed_bytes.unsigned_abs(),
    }))
}

/// What all of a tenant's messages came to.
pub async fn traffic(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Traffic> {
    let row = sqlx::query!(
        r#"select coalesce(sum(message_bytes), 0)::bigint as "messages!", coalesce(sum(new_bytes), 0)::bigint as "new!",
                  coalesce(sum(deduplicated_bytes), 0)::bigint as "deduplicated!",
                  coalesce(sum(compressed_bytes), 0)::bigint as "compressed!"
           from mailbox_traffic join mailbox using (mailbox_id) where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_one(db)
    .await?;
    Ok(Traffic {
        messages: row.messages.unsigned_abs(),
        new: row.new.unsigned_abs(),
        deduplicated: row.deduplicated.unsigned_abs(),
        compressed: row.compressed.unsigned_abs(),
    })
}
