//! Where each content rests.

use std::collections::HashMap;

use sqlx::PgExecutor;
use understudy_protocol::{ContentRef, Digest, TenantId};

use crate::{Result, columns};

/// A content's place in a pack file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub content: ContentRef,
    pub pack: String,
    pub offset: u64,
}

/// Notes where contents rest, after their packs have been synced. What is known already stays where it is.
pub async fn put(db: impl PgExecutor<'_>, tenant: TenantId, places: &[Place]) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let digests: Vec<Vec<u8>> = places.iter().map(|place| place.content.digest.0.to_vec()).collect();
    let sizes: Vec<i64> = places.iter().map(|place| columns::size(place.content.size)).collect();
    let packs: Vec<String> = places.iter().map(|place| place.pack.clone()).collect();
    let offsets: Vec<i64> = places.iter().map(|place| columns::size(place.offset)).collect();
    sqlx::query!(
        "insert into content (tenant_id, digest, size, pack, pack_offset)
         select $1, c.digest, c.size, c.pack, c.pack_offset
         from unnest($2::bytea[], $3::bigint[], $4::text[], $5::bigint[]) as c (digest, size, pack, pack_offset)
         on conflict (tenant_id, digest) do nothing",
        tenant.0,
        &digests,
        &sizes,
        &packs,
        &offsets,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Where these contents rest; one that is unknown is absent.
pub async fn places(db: impl PgExecutor<'_>, tenant: TenantId, digests: &[Digest]) -> Result<HashMap<Digest, Place>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.0.to_vec()).collect();
    let rows = sqlx::query!(
        // Joined rather than `= any`: on a table that nobody has analysed yet, that one reads all of it.
        "select c.digest, c.size, c.pack, c.pack_offset
         from unnest($2::bytea[]) as wanted (digest) join content c on c.tenant_id = $1 and c.digest = wanted.digest",
        tenant.0,
        &digests,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let content = columns::content_ref(&row.digest, row.size)?;
            Ok((content.digest, Place { content, pack: row.pack, offset: row.pack_offset.unsigned_abs() }))
        })
        .collect()
}
