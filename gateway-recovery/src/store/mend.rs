//! Brings damaged contents back: from a standby that holds the message, else from the primary.
//!
//! Keeps true: what takes a damaged content's place has its digest.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use understudy_database::{content, event, journal};
use understudy_imap_session::FolderName;
use understudy_protocol::{ContentRef, TenantId, UidSet, messages::Asked};

use crate::{directives::DirectiveBoard, standby::Standby, switch::Depot};

use super::Store;

/// What could not be brought back is tried again this often.
const AGAIN: Duration = Duration::from_secs(300);
/// Contents tried in one round.
const AT_ONCE: i64 = 100;
/// How long a primary may take to begin giving a message; then it comes over the link, …
const FROM_AFAR: Duration = Duration::from_secs(120);
/// … at no less than this, in bytes a second.
const SLOWEST: u64 = 50_000;
/// In so many mailboxes it is looked for there.
const ASKED: usize = 4;

/// The task that mends the store.
pub(crate) struct Mender {
    store: Store,
    board: DirectiveBoard,
}

impl Mender {
    pub(crate) fn new(store: Store, board: DirectiveBoard) -> Self {
        Self { store, board }
    }

    /// Mends whatever is damaged, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            let mended = tokio::select! {
                () = shutdown.cancelled() => return,
                mended = self.round() => mended,
            };
            if let Err(error) = mended {
                tracing::warn!(error = format!("{error:#}"), "Could not mend the content store; trying again");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.store.shared.damage.notified() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn round(&self) -> anyhow::Result<()> {
        let pool = &self.store.shared.pool;
        let damaged = content::all_damaged(pool, AT_ONCE).await?;
        metrics::gauge!("understudy_content_damaged").set(damaged.len() as f64);
        let mut answers = true;
        for (tenant, content) in damaged {
            match self.mend(tenant, content, &mut answers).await {
                Ok(Some(from)) => {
                    tracing::info!(content.digest = %content.digest, from, "Brought a damaged content back");
                    let detail = json!({ "digest": content.digest, "bytes": content.size, "from": from });
                    event::record(pool, "content_mended", None, None, &detail).await?;
                }
                Ok(None) => {
                    tracing::warn!(content.digest = %content.digest, "Nobody could give a damaged content again")
                }
                Err(error) => {
                    tracing::warn!(content.digest = %content.digest, error = format!("{error:#}"),
                        "Could not bring a damaged content back; trying again");
                }
            }
        }
        let left = content::all_damaged(pool, AT_ONCE).await?;
        metrics::gauge!("understudy_content_damaged").set(left.len() as f64);
        Ok(())
    }

    /// Answers from where it was brought back, if it was. `answers`: the source gateway has not kept us waiting in vain.
    async fn mend(
        &self,
        tenant: TenantId,
        wanted: ContentRef,
        answers: &mut bool,
    ) -> anyhow::Result<Option<&'static str>> {
        let pool = &self.store.shared.pool;
        let named = content::naming(pool, tenant, wanted.digest).await?;
        for message in &named {
            let Some(uid) = message.standby_uid else { continue };
            let Some(target) = journal::target(pool, message.mailbox).await? else { continue };
            let fetched = async {
                let mut standby = Standby::at(&target.standby, &target.standby.login, &target.address).await?;
                let depot = Depot { pool: pool.clone(), store: self.store.clone(), tenant };
                let name = FolderName::new(message.folder.clone());
                if standby.examine(&name).await?.is_some() {
                    depot.fetch(&mut standby, &UidSet::range(uid, uid)).await?;
                }
                standby.log_out().await;
                anyhow::Ok(())
            };
            // Another one may hold it.
            if let Err(error) = fetched.await {
                tracing::debug!(mailbox.id = %message.mailbox, error = format!("{error:#}"), "The standby could not give it");
            }
            if self.is_there(tenant, wanted).await? {
                return Ok(Some("standby"));
            }
        }
        for message in named.iter().take(if *answers { ASKED } else { 0 }) {
            let mut question = self.board.ask(Asked::Content {
                mailbox: message.mailbox,
                tenant,
                path: message.path.clone(),
                uid: message.uid,
                content: wanted,
            });
            let patience = FROM_AFAR + Duration::from_secs(wanted.size / SLOWEST);
            match tokio::time::timeout(patience, question.answer()).await {
                Ok(Ok(_)) => {}
                Ok(Err(trouble)) => {
                    tracing::debug!(mailbox.id = %message.mailbox, reason = trouble.reason, "The primary could not give it");
                }
                // The link is down: others would not be answered either.
                Err(_) => {
                    *answers = false;
                    break;
                }
            }
            if self.is_there(tenant, wanted).await? {
                return Ok(Some("primary"));
            }
        }
        Ok(None)
    }

    async fn is_there(&self, tenant: TenantId, wanted: ContentRef) -> anyhow::Result<bool> {
        Ok(content::places(&self.store.shared.pool, tenant, &[wanted.digest]).await?.contains_key(&wanted.digest))
    }
}
