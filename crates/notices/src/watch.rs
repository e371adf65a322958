//! Watches the disk that everything rests on, and says so before it is full.

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use understudy_database::event;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(300);
/// Below this share of free space people are told …
const LOW_PERCENT: u64 = 10;
/// … again only after it was above this.
const ENOUGH_PERCENT: u64 = 12;

/// Runs until `shutdown`.
pub(crate) async fn run(pool: PgPool, folder: PathBuf, shutdown: CancellationToken) {
    let mut told = false;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(space) = rustix::fs::statvfs(&folder) else { continue };
        if space.f_blocks == 0 {
            continue;
        }
        let percent = (u128::from(space.f_bavail) * 100 / u128::from(space.f_blocks)) as u64;
        if percent >= ENOUGH_PERCENT {
            told = false;
        }
        if percent >= LOW_PERCENT || told {
            continue;
        }
        let detail = json!({
            "name": folder.display().to_string(),
            "free_percent": percent,
            "free_bytes": space.f_bavail * space.f_frsize,
            "reason": format!("only {percent} % are free"),
            "remedy": "Make room or enlarge it; nothing more is received once it is full.",
        });
        match event::record(&pool, "disk_low", None, None, &detail).await {
            Ok(()) => told = true,
            Err(error) => tracing::warn!(error = %error, "Could not tell that the disk is running full"),
        }
    }
}
