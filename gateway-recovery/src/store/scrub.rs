//! Reads every content now and then and compares it with its digest, at a set pace.
//!
//! Keeps true: what is damaged is said, and fetched again (`mend`), before anybody needs it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_database::content::{self, Place};
use understudy_imap_session::ContentSource;
use understudy_protocol::TenantId;

use super::Store;

/// How often is looked whether a pack is due.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Contents asked for at once.
const AT_ONCE: i64 = 200;
/// Read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The task that looks through the store.
pub(crate) struct Scrubber {
    store: Store,
}

impl Scrubber {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Looks through packs as they are due, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Some(every) = self.store.shared.config.scrub_every else { return };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every.min(LONGEST_PAUSE)) => {}
            }
            let scrubbed = tokio::select! {
                () = shutdown.cancelled() => return,
                scrubbed = self.round(every) => scrubbed,
            };
            if let Err(error) = scrubbed {
                tracing::warn!(error = format!("{error:#}"), "Could not look through the content store; trying again");
            }
        }
    }

    /// Every pack that is due, the longest unseen first.
    async fn round(&self, every: Duration) -> anyhow::Result<()> {
        let shared = &self.store.shared;
        let seen = content::scrubbed(&shared.pool).await?;
        let due_since = SystemTime::now().checked_sub(every).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut due: Vec<(SystemTime, String)> = Vec::new();
        for pack in shared.packs.list().await? {
            let at = seen.get(&pack.name).map_or(pack.changed_at, |&at| at.into());
            if at <= due_since {
                due.push((at, pack.name));
            }
        }
        due.sort();
        for (_, pack) in due {
            self.look_through(&pack).await?;
            content::note_scrubbed(&shared.pool, &pack).await?;
        }
        Ok(())
    }

    async fn look_through(&self, pack: &str) -> anyhow::Result<()> {
        let shared = &self.store.shared;
        let began = Instant::now();
        let mut bytes = 0;
        let mut from = 0;
        loop {
            let batch = content::in_pack(&shared.pool, pack, from, AT_ONCE).await?;
            let Some((_, last)) = batch.last() else { return Ok(()) };
            let (next, whole) = (last.offset, (batch.len() as i64) < AT_ONCE);
            for (tenant, place) in batch {
                bytes += place.content.size;
                if let Err(error) = self.compare(tenant, place).await {
                    // Damage was noted where it was found; anything else is another matter.
                    tracing::warn!(pack, error = format!("{error:#}"), "A content could not be read");
                }
                let earliest = began + Duration::from_secs_f64(bytes as f64 / shared.config.scrub_rate.max(1) as f64);
                tokio::time::sleep_until(earliest).await;
            }
            if whole || next == from {
                return Ok(());
            }
            from = next;
        }
    }

    async fn compare(&self, tenant: TenantId, place: Place) -> anyhow::Result<()> {
        let size = place.content.size;
        let noted = place.clone();
        let mut contents = self.store.at(tenant, vec![place]).await?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < size {
            match contents.read(0, offset, &mut piece).await {
                Ok(read) => offset += read as u64,
                Err(error) => {
                    if error.kind() == std::io::ErrorKind::UnexpectedEof {
                        self.store.damaged(tenant, &noted, "its pack is cut short").await;
                    }
                    return Err(error.into());
                }
            }
        }
        metrics::counter!("understudy_content_scrubbed_bytes_total").increment(size);
        Ok(())
    }
}
