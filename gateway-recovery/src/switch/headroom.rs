//! Headroom: UIDs skipped on the standby when users begin to work there, so that mail the primary still takes can never share
//! a UID with mail the standby takes.

use std::{collections::HashMap, time::Duration};

use futures_util::future::try_join_all;
use sqlx::PgPool;
use tokio::time::timeout;
use understudy_database::{
    continuity::Continuity,
    mirror,
    switch::{Subject, together},
};
use understudy_doveadm::{Doveadm, MailboxUpdate};
use understudy_imap_session::FolderName;
use understudy_protocol::{MailboxId, Uid, server::Server};

/// UIDs skipped: more than anybody receives between the last pass and the end of the sweep.
const HEADROOM: u32 = 1000;
/// Folders raised by one request, where there are very many.
const AT_ONCE: usize = 100;
/// The user waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);

/// Raises the next UIDs of many mailboxes' folders on one standby, as far as that gets while their users wait.
pub(crate) async fn raise_together(pool: &PgPool, standby: &Server, mailboxes: &HashMap<MailboxId, &str>) {
    let Some(manage) = &standby.manage else { return };
    let raising = async {
        let numbers: Vec<MailboxId> = mailboxes.keys().copied().collect();
        let folders = together::kept_folders(pool, &numbers).await?;
        let updates: Vec<MailboxUpdate> = folders
            .into_iter()
            .filter_map(|folder| {
                let user = mailboxes.get(&folder.mailbox)?;
                Some(update(user, &folder.standby_name, Uid(u32::try_from(folder.next).ok()?)))
            })
            .collect();
        if updates.is_empty() {
            return anyhow::Ok(());
        }
        let doveadm = Doveadm::open(&manage.doveadm, &manage.key_file, standby.ca_file.as_deref()).await?;
        // Each request is one process there.
        let requests = updates.chunks(AT_ONCE).map(|updates| doveadm.mailbox_update(updates));
        for raised in try_join_all(requests).await?.into_iter().flatten() {
            raised?;
        }
        Ok(())
    };
    match timeout(PATIENCE, raising).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            server.name = standby.name,
            error = format!("{error:#}"),
            "Could not skip UIDs of every mailbox on the standby"
        ),
        Err(_) => {
            tracing::warn!(server.name = standby.name, "Could not skip UIDs of every mailbox on the standby in time");
        }
    }
}

fn update(user: &str, name: &str, next: Uid) -> MailboxUpdate {
    MailboxUpdate {
        user: user.to_owned(),
        mailbox: FolderName::new(name).to_utf8(),
        min_next_uid: Some(Uid(next.0.saturating_add(HEADROOM))),
        ..MailboxUpdate::default()
    }
}

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
            update(&subject.standby_address, folder.standby_name.as_str(), next)
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
