//! What the source gateway's journal says of itself, as metrics, when somebody asks for them.
//!
//! In: the journal. Out: gauges beside the counters that the process keeps anyway.
//! Keeps true: no gauge names a person, an address or a folder. Not here: serving them (the program).

use metrics::gauge;
use sqlx::PgPool;
use understudy_database::source;

/// Sets every gauge to what it is now.
pub async fn update_gauges(pool: &PgPool) -> anyhow::Result<()> {
    let now = source::summary(pool).await?;
    gauge!("understudy_source_mailboxes", "state" => "seeding").set(now.seeding as f64);
    gauge!("understudy_source_mailboxes", "state" => "tailing").set(now.tailing as f64);
    gauge!("understudy_source_waiting_transactions").set(now.waiting as f64);
    gauge!("understudy_source_waiting_bytes").set(now.waiting_bytes as f64);
    gauge!("understudy_source_waiting_oldest_seconds").set(now.oldest_seconds);
    gauge!("understudy_source_unreadable_messages").set(now.unreadable as f64);
    Ok(())
}
