//! Keeps the head of the audit's chain outside the database: a file of one line each minute in which something was written, an event,
//! and a line in the log. Without them nobody could tell that the end of the chain was cut off, or all of it written anew.
//!
//! Also seals what programs other than the API wrote.

use std::{io, path::Path, time::Duration};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, MissedTickBehavior},
};
use tracing::{info, warn};
use understudy_database::{
    audit::{self, Head},
    event, tenant,
};
use understudy_protocol::Digest;

use crate::state::Api;

/// How often what gateways wrote is sealed.
const SEAL: Duration = Duration::from_secs(1);
/// How often the head is kept, where it moved.
const KEEP: Duration = Duration::from_secs(60);

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    at: DateTime<Utc>,
    position: i64,
    hash: String,
}

/// Seals and keeps heads until shutdown, and once more then.
pub(crate) async fn keep(api: Api) {
    let mut tick = tokio::time::interval(SEAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept: Option<(Head, Instant)> = None;
    loop {
        let is_last = tokio::select! {
            () = api.shutdown.cancelled() => true,
            _ = tick.tick() => false,
        };
        if let Err(error) = step(&api, &mut kept, is_last).await {
            warn!(error = format!("{error:#}"), "The audit could not be sealed or its head not be kept; trying again");
        }
        if is_last {
            return;
        }
    }
}

async fn step(api: &Api, kept: &mut Option<(Head, Instant)>, is_last: bool) -> anyhow::Result<()> {
    let mut transaction = api.pool.begin().await?;
    audit::seal(&mut transaction).await?;
    let head = audit::head(&mut *transaction).await?;
    transaction.commit().await?;
    let Some(head) = head else { return Ok(()) };
    if kept.as_ref().is_some_and(|(known, at)| *known == head || (at.elapsed() < KEEP && !is_last)) {
        return Ok(());
    }
    let hash = Digest(head.hash).to_string();
    if let Some(path) = api.heads.as_deref() {
        let line = Line { at: Utc::now(), position: head.position, hash: hash.clone() };
        append(path, &line).await.with_context(|| format!("could not write to {}", path.display()))?;
    }
    let detail = json!({"position": head.position, "hash": hash});
    event::record_for_tenant(&api.pool, tenant::PROVIDER, "audit_head", &detail).await?;
    info!(audit.position = head.position, audit.hash = hash, "The audit's chain ends at entry {}", head.position);
    *kept = Some((head, Instant::now()));
    Ok(())
}

async fn append(path: &Path, line: &Line) -> anyhow::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path).await?;
    file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes()).await?;
    file.sync_data().await?;
    Ok(())
}

/// The heads in the file; none where there is no file.
pub(crate) async fn read(path: Option<&Path>) -> anyhow::Result<Vec<Head>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = match tokio::fs::read_to_string(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", path.display())),
    };
    let mut heads = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // A line cut off by a crash or a full disk says nothing.
        let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
        let hash: Digest = line.hash.parse().with_context(|| format!("line {} has no hash", number + 1))?;
        heads.push(Head { position: line.position, hash: hash.0 });
    }
    Ok(heads)
}
