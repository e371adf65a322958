//! What the recovery site holds of a mailbox, for a source gateway whose own journal is lost or disagrees.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use understudy_database::{
    journal::{self, Intent},
    mirror,
};
use understudy_protocol::{
    MailboxId, Seq, Uid, codec,
    messages::{Known, KnownMessage},
};

/// Messages in one frame.
const MESSAGES: i64 = 2000;
/// Frames read ahead of the link.
const FRAMES_AHEAD: usize = 4;

/// What can be said.
pub(crate) enum Answer {
    Frames(ReceiverStream<io::Result<Bytes>>),
    /// The mirror does not stand at the last received transaction yet.
    NotYet,
    Unknown,
}

/// Everything known of a mailbox, as of its last received transaction. `had`: through where the source was told that it is received.
pub(crate) async fn known(pool: &PgPool, mailbox: MailboxId, had: Seq) -> anyhow::Result<Answer> {
    let Some(numbers) = journal::numbers(pool, mailbox).await? else { return Ok(Answer::Unknown) };
    if numbers.applied != numbers.received {
        return Ok(Answer::NotYet);
    }
    if had > numbers.received {
        suppose(pool, mailbox).await?;
    }
    let start = Known::Start {
        received: numbers.received,
        epoch: numbers.epoch,
        subscriptions: mirror::subscriptions(pool, mailbox).await?,
        digest: numbers.digest,
    };
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let pool = pool.clone();
    tokio::spawn(async move {
        if let Err(error) = send(&pool, mailbox, start, &sender).await {
            let _ = sender.send(Err(io::Error::other(error))).await;
        }
    });
    Ok(Answer::Frames(ReceiverStream::new(receiver)))
}

/// Our database is an old copy: what was applied after it was made stands on the standby, and is taken for ours when it comes again.
async fn suppose(pool: &PgPool, mailbox: MailboxId) -> anyhow::Result<()> {
    let folders = mirror::folders(pool, mailbox).await?;
    let folders: BTreeMap<_, _> = folders
        .into_iter()
        .filter(|folder| folder.selectable)
        .map(|folder| (folder.folder, (folder.standby_uid_validity, folder.standby_uid_next)))
        .collect();
    tracing::warn!(mailbox.id = %mailbox, "The source was told of more than is known here: what the standby holds besides is looked for");
    Ok(journal::suppose(pool, mailbox, &Intent { folders }).await?)
}

async fn send(
    pool: &PgPool,
    mailbox: MailboxId,
    start: Known,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> anyhow::Result<()> {
    put(out, &start).await?;
    for folder in mirror::folders(pool, mailbox).await? {
        let frame = Known::Folder {
            folder: folder.folder,
            path: folder.path,
            uid_validity: folder.position.uid_validity,
            special_use: folder.special_use,
            selectable: folder.selectable,
            position: folder.position,
        };
        put(out, &frame).await?;
        let mut after = Uid(0);
        loop {
            let messages = mirror::messages(pool, mailbox, folder.folder, after, MESSAGES).await?;
            let Some(last) = messages.last() else { break };
            after = last.uid;
            let known = messages
                .into_iter()
                .map(|message| KnownMessage { uid: message.uid, flags: message.flags, content: message.content })
                .collect();
            put(out, &Known::Messages(known)).await?;
        }
    }
    put(out, &Known::End).await
}

async fn put(out: &mpsc::Sender<io::Result<Bytes>>, frame: &Known) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    codec::encode_frame(frame, &mut bytes)?;
    Ok(out.send(Ok(bytes.into())).await?)
}
