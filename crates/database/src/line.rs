//! The line the link runs on: its limits by calendar, its paths as the source gateway sees them, bytes that went over it.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::messages::{Limits, LinkReport};
use uuid::Uuid;

use crate::{Result, columns, link};

/// Limits, and who set them.
#[derive(Clone, Debug)]
pub struct Limited {
    pub wire: String,
    pub seeding: String,
    pub changed_at: DateTime<Utc>,
    pub changed_by: String,
}

/// One way to the recovery site.
#[derive(Clone, Debug)]
pub struct PathRow {
    pub url: String,
    pub state: String,
    pub reason: Option<String>,
    pub since: DateTime<Utc>,
    pub round_trip_ms: Option<f64>,
}

/// Bytes of one kind in one direction, ever.
#[derive(Clone, Debug)]
pub struct BytesRow {
    pub direction: String,
    pub kind: String,
    pub bytes: i64,
}

/// What is set.
pub async fn limits(db: impl PgExecutor<'_>) -> Result<Limited> {
    let row = sqlx::query_as!(Limited, "select wire, seeding, changed_at, changed_by from link_limit");
    Ok(row.fetch_one(db).await?)
}

/// Sets new limits, and tells the source gateway.
pub async fn set_limits(db: &mut PgConnection, limits: &Limits, by: &str) -> Result<Limited> {
    let row = sqlx::query_as!(
        Limited,
        "update link_limit set wire = $1, seeding = $2, changed_at = now(), changed_by = $3
         returning wire, seeding, changed_at, changed_by",
        limits.wire,
        limits.seeding,
        by
    );
    let limited = row.fetch_one(&mut *db).await?;
    link::directives_changed(db).await?;
    Ok(limited)
}

/// The source gateway said how its ways here fare, and what went over them since it started.
pub async fn reported(db: &mut PgConnection, gateway: Uuid, report: &LinkReport) -> Result<()> {
    sqlx::query!("delete from link_path where position >= $1", i32::try_from(report.paths.len()).unwrap_or(i32::MAX))
        .execute(&mut *db)
        .await?;
    for (position, path) in (0..).zip(&report.paths) {
        sqlx::query!(
            "insert into link_path (position, url, state, reason, since, round_trip_ms) values ($1, $2, $3, $4, $5, $6)
             on conflict (position) do update
                 set url = excluded.url, state = excluded.state, reason = excluded.reason, since = excluded.since,
                     round_trip_ms = excluded.round_trip_ms",
            position,
            path.url,
            path.state,
            path.reason,
            path.since,
            path.round_trip_ms,
        )
        .execute(&mut *db)
        .await?;
    }
    for counted in &report.bytes {
        sqlx::query!(
            "insert into link_bytes as old (direction, kind, gateway, of_life) values ($1, $2, $3, $4)
             on conflict (direction, kind) do update
                 set before = case when old.gateway = excluded.gateway then old.before else old.before + old.of_life end,
                     of_life = case when old.gateway = excluded.gateway then greatest(old.of_life, excluded.of_life)
                                    else excluded.of_life end,
                     gateway = excluded.gateway",
            counted.direction,
            counted.kind,
            gateway,
            columns::size(counted.bytes),
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// The ways to the recovery site, the best first.
pub async fn paths(db: impl PgExecutor<'_>) -> Result<Vec<PathRow>> {
    let rows =
        sqlx::query_as!(PathRow, "select url, state, reason, since, round_trip_ms from link_path order by position");
    Ok(rows.fetch_all(db).await?)
}

/// Everything that ever went over the wire.
pub async fn bytes(db: impl PgExecutor<'_>) -> Result<Vec<BytesRow>> {
    let rows = sqlx::query_as!(
        BytesRow,
        r#"select direction, kind, before + of_life as "bytes!" from link_bytes order by direction desc, kind"#
    );
    Ok(rows.fetch_all(db).await?)
}
