//! Parts that messages share: their keys, who is rebuilt from which, what the other side acknowledged, and what it saved.

use std::collections::HashSet;

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
         join content c on c.tenant_id = $1 and c.digest = n.digest and c.form = 'skeleton'
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

/// Which of these parts the recovery site acknowledged.
pub async fn acknowledged(db: impl PgExecutor<'_>, tenant: TenantId, parts: &[Digest]) -> Result<HashSet<Digest>> {
    let rows = sqlx::query_scalar!(
        "select p.digest from unnest($2::bytea[]) as wanted (digest)
         join source_part p on p.tenant_id = $1 and p.digest = wanted.digest",
        tenant.0,
        &raw(parts),
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|digest| columns::digest(digest)).collect()
}

/// The recovery site has these parts.
pub async fn acknowledge(db: impl PgExecutor<'_>, tenant: TenantId, parts: &[Digest]) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into source_part (tenant_id, digest) select $1, digest from unnest($2::bytea[]) as p (digest)
         on conflict do nothing",
        tenant.0,
        &raw(parts),
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
