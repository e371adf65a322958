//! Clears the store: contents that nobody has named for long, packs that hold nothing any more, packs that are mostly empty.
//!
//! In: the mirror, parked removals, transactions that wait. Out: room.
//! Keeps true: a content goes only after the grace period, and not while anything names it (`database::content::name`); a pack goes only
//! when nothing was known of it twice, and not while it is written to.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use futures_util::TryStreamExt;
use tokio_util::sync::CancellationToken;
use understudy_database::content::{self, Place};
use understudy_protocol::TenantId;
use understudy_replication::pack::PackWriter;

use super::{
    Store,
    packs::Listed,
    seal::{PREFIX, SEGMENT, TAG, sealed_size},
};

/// Contents forgotten in one statement.
const FORGET_AT_ONCE: i64 = 1000;
/// Contents moved in one statement.
const MOVE_AT_ONCE: i64 = 1000;
/// Read and written at once while contents move, in bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// A pack that changed lately is left alone: its contents may be on their way into the index.
const SETTLED: Duration = Duration::from_secs(600);
/// An object smaller than this is small, in bytes; …
const SMALL_OBJECT: u64 = 4 << 20;
/// … and so many of them become one.
const MANY_SMALL: usize = 32;

/// The task that clears the store.
pub(crate) struct Sweeper {
    store: Store,
    /// Packs of which nothing was known at the last sweep.
    unknown: HashSet<String>,
}

impl Sweeper {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, unknown: HashSet::new() }
    }

    /// Sweeps now and then until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let pause = self.store.shared.config.sweep_every.mul_f64(rand::random_range(0.9..1.1));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let swept = tokio::select! {
                () = shutdown.cancelled() => return,
                swept = self.sweep() => swept,
            };
            if let Err(error) = swept {
                tracing::warn!(error = format!("{error:#}"), "Could not clear the content store; trying again");
            }
        }
    }

    async fn sweep(&mut self) -> anyhow::Result<()> {
        let shared = self.store.shared.clone();
        content::mark(&shared.pool).await?;
        let mut waiting = std::pin::pin!(content::waiting(&shared.pool));
        while let Some((tenant, digests)) = waiting.try_next().await? {
            content::name(&shared.pool, tenant, &digests).await?;
        }
        let mut removed = 0;
        loop {
            let (count, bytes) = content::forget(&shared.pool, shared.config.keep, FORGET_AT_ONCE).await?;
            removed += bytes;
            if count < FORGET_AT_ONCE {
                break;
            }
        }
        if removed > 0 {
            metrics::counter!("understudy_content_removed_bytes_total").increment(removed);
            tracing::info!(bytes = removed, "Removed contents that nobody names any more");
        }
        self.clear_packs().await?;
        content::swept(&shared.pool, removed).await?;
        Ok(())
    }

    /// How long a pack stands before it is touched.
    fn settled(&self) -> Duration {
        SETTLED.min(self.store.shared.config.keep)
    }

    async fn clear_packs(&mut self) -> anyhow::Result<()> {
        let shared = self.store.shared.clone();
        // Listed first: what is known of a pack by then was written before.
        let listed = shared.packs.list().await.context("could not list the packs")?;
        let known = content::packs(&shared.pool, SEGMENT as u64, PREFIX as u64, TAG as u64).await?;
        let now = SystemTime::now();
        let settled = |pack: &Listed| {
            !shared.packs.is_in_use(&pack.name)
                && now.duration_since(pack.changed_at).is_ok_and(|since| since >= self.settled())
        };
        let mut gone = Vec::new();
        let mut unknown = HashSet::new();
        let mut sparse = Vec::new();
        let mut small = Vec::new();
        for pack in listed.into_iter().filter(settled) {
            match known.get(&pack.name) {
                None if self.unknown.contains(&pack.name) => gone.push(pack.name),
                None => drop(unknown.insert(pack.name)),
                Some((live, _)) if live.saturating_mul(2) < pack.size => sparse.push(pack),
                Some(_) if shared.packs.is_elsewhere(&pack.name) => sparse.push(pack),
                Some(_) if shared.packs.writes_objects() && pack.size < SMALL_OBJECT => small.push(pack),
                Some(_) => {}
            }
        }
        for name in &gone {
            shared.packs.remove(name).await.with_context(|| format!("could not remove the pack {name}"))?;
        }
        content::forget_packs(&shared.pool, &gone).await?;
        self.unknown = unknown;
        if small.len() >= MANY_SMALL {
            sparse.append(&mut small);
        }
        self.compact(&sparse).await
    }

    /// Brings what is left in these packs together in new ones. They go once nothing is known of them any more.
    async fn compact(&self, packs: &[Listed]) -> anyhow::Result<()> {
        let shared = &self.store.shared;
        let mut writing: Option<(PackWriter, String)> = None;
        let mut moved: HashMap<&str, Vec<(TenantId, Place)>> = HashMap::new();
        for pack in packs {
            let mut from = 0;
            // Contents of no bytes share an offset with the next: all at one offset come in one batch or twice, which does no harm.
            loop {
                let batch = content::in_pack(&shared.pool, &pack.name, from, MOVE_AT_ONCE).await?;
                let Some((_, last)) = batch.last() else { break };
                let whole = (batch.len() as i64) < MOVE_AT_ONCE;
                let next = last.offset;
                let source = shared.packs.open_pack(&pack.name)?;
                for (tenant, place) in batch {
                    let (into, name) = match &mut writing {
                        Some(writing) => writing,
                        none => none.insert(shared.packs.create()?),
                    };
                    let size = if place.key.is_some() { sealed_size(place.stored) } else { place.stored };
                    let offset = into.offset();
                    let mut done = 0;
                    while done < size {
                        let length = usize::try_from((size - done).min(PIECE_BYTES))?;
                        into.write(&source.range(place.offset + done, length).await?)?;
                        done += length as u64;
                    }
                    let place = Place { pack: name.clone(), offset, ..place };
                    moved.entry(&pack.name).or_default().push((tenant, place));
                    let count: usize = moved.values().map(Vec::len).sum();
                    if into.offset() >= super::PACK_BYTES || count >= MOVE_AT_ONCE as usize {
                        self.settle(&mut writing, &mut moved).await?;
                    }
                }
                if whole || next == from {
                    break;
                }
                from = next;
            }
        }
        self.settle(&mut writing, &mut moved).await?;
        if !packs.is_empty() {
            tracing::info!(count = packs.len(), "Brought together what was left in packs");
        }
        Ok(())
    }

    async fn settle(
        &self,
        writing: &mut Option<(PackWriter, String)>,
        moved: &mut HashMap<&str, Vec<(TenantId, Place)>>,
    ) -> anyhow::Result<()> {
        let Some((pack, name)) = writing.take() else { return Ok(()) };
        let finished = self.store.shared.packs.finish(pack, &name).await;
        let outcome = async {
            finished?;
            for (from, places) in moved.drain() {
                content::moved(&self.store.shared.pool, from, &places).await?;
            }
            anyhow::Ok(())
        };
        let outcome = outcome.await;
        self.store.shared.packs.release(&name);
        outcome
    }
}
