//! Headroom: UIDs skipped on the standby when users begin to work there, so that mail the primary still takes can never share
//! a UID with mail the standby takes.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::timeout;
use understudy_database::{continuity::Continuity, mirror, switch::Subject};
use understudy_doveadm::{Doveadm, MailboxUpdate};
use understudy_imap_session::FolderName;
use understudy_protocol::Uid;

/// UIDs skipped: more than anybody receives between the last pass and the end of the sweep.
const HEADROOM: u32 = 1000;
/// The user waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);

/// Raises the next UID of every folder that serves the primary's UIDs. Where that fails the change of side goes on: UIDs on
/// the two sides may then be equal for different messages, which is why nothing is ever compared by UID alone.
pub(crate) async fn raise(pool: &PgPool, subject: &Subject) {
    match timeout(PATIENCE, raise_all(pool, subject)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(mailbox.id = %subject.mailbox, error = format!("{error:#}"),
            "Could not skip UIDs on the standby"),
        Err(_) => tracing::warn!(mailbox.id = %subject.mailbox, "Could not skip UIDs on the standby in time"),
    }
}

async fn raise_all(pool: &PgPool, subject: &Subject) -> anyhow::Result<()> {
    let Some(manage) = &subject.standby.manage else { return Ok(()) };
    let updates: Vec<MailboxUpdate> = mirror::folders(pool, subject.mailbox)
        .await?
        .into_iter()
        .filter(|folder| folder.selectable && folder.continuity == Continuity::Kept)
        .map(|folder| {
            let next = folder.position.uid_next.max(folder.standby_uid_next);
            MailboxUpdate {
                user: subject.standby_address.clone(),
                mailbox: FolderName::new(folder.standby_name.as_str()).to_utf8(),
                min_next_uid: Some(Uid(next.0.saturating_add(HEADROOM))),
                ..MailboxUpdate::default()
            }
        })
        .collect();
    if updates.is_empty() {
        return Ok(());
    }
    let doveadm = Doveadm::open(&manage.doveadm, &manage.key_file, subject.standby.ca_file.as_deref()).await?;
    for raised in doveadm.mailbox_update(&updates).await? {
        raised?;
    }
    Ok(())
}
