//! Ships captured transactions: one HTTP/2 client for all mailboxes.
//!
//! In: the journal, read by number; a nudge when it grew. Out: shipments; received transactions dropped.
//! Keeps true: one shipment of a mailbox at a time, in order; after any error the receiver is asked again from what it
//! acknowledged last.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use futures_util::Stream;
use reqwest::Body;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_database::source::{self, Spooled, Waiting};
use understudy_failpoint as failpoint;
use understudy_protocol::{
    MailboxId, Seq,
    codec::{self, CodecError},
    messages::Shipment,
};
use understudy_replication::{
    pack,
    shipping::{Answer, heed},
};

use crate::{link::Link, spool::Spool};

/// Shipments under way at once.
const SHIPMENTS: usize = 8;
/// The most transactions in one shipment, …
const SHIPMENT_TRANSACTIONS: i64 = 64;
/// … and about the most content, in bytes; one transaction always fits.
const SHIPMENT_BYTES: u64 = 16 << 20;
/// Content is read and sent in pieces of this size, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead of the link.
const PIECES_AHEAD: usize = 4;
/// The first wait after a failure, …
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// … doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Tells the shipper that there is something to ship.
#[derive(Clone)]
pub(crate) struct ShipperHandle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Notify,
    disputed: Mutex<Vec<Dispute>>,
    dispute: Notify,
}

/// A journal that the recovery site disagrees with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispute {
    pub(crate) mailbox: MailboxId,
    /// What was received of it.
    pub(crate) received: Seq,
    /// What was received is not what we hold under the same number.
    pub(crate) diverged: bool,
}

#[derive(Default)]
struct Work {
    waiting: BTreeSet<MailboxId>,
    under_way: HashSet<MailboxId>,
}

impl ShipperHandle {
    /// The mailbox's journal grew.
    pub(crate) fn captured(&self, mailbox: MailboxId) {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).waiting.insert(mailbox);
        self.shared.changed.notify_one();
    }

    /// Waits for journals that the recovery site disagrees with.
    pub(crate) async fn disputed(&self) -> Vec<Dispute> {
        loop {
            let notified = self.shared.dispute.notified();
            let disputed = std::mem::take(&mut *self.shared.disputed.lock().unwrap_or_else(PoisonError::into_inner));
            if !disputed.is_empty() {
                return disputed;
            }
            notified.await;
        }
    }
}

/// The task that ships.
pub(crate) struct Shipper {
    pool: PgPool,
    link: Link,
    spool: Spool,
    shared: Arc<Shared>,
}

impl Shipper {
    pub(crate) fn new(pool: PgPool, link: Link, spool: Spool) -> Self {
        Self { pool, link, spool, shared: Arc::default() }
    }

    pub(crate) fn handle(&self) -> ShipperHandle {
        ShipperHandle { shared: self.shared.clone() }
    }

    /// Ships until `shutdown`, then waits for what is under way.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let this = Arc::new(self);
        let tasks = TaskTracker::new();
        loop {
            let changed = this.shared.changed.notified();
            while let Some(mailbox) = this.take() {
                let (this, shutdown) = (this.clone(), shutdown.clone());
                tasks.spawn(async move {
                    this.ship_all(mailbox, &shutdown).await;
                    this.shared.work.lock().unwrap_or_else(PoisonError::into_inner).under_way.remove(&mailbox);
                    this.shared.changed.notify_one();
                });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// The next mailbox to ship, if there is room for it.
    fn take(&self) -> Option<MailboxId> {
        let mut work = self.shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        if work.under_way.len() >= SHIPMENTS {
            return None;
        }
        let mailbox = work.waiting.iter().find(|mailbox| !work.under_way.contains(mailbox)).copied()?;
        work.waiting.remove(&mailbox);
        work.under_way.insert(mailbox);
        Some(mailbox)
    }

    /// Ships a mailbox's journal to its end.
    async fn ship_all(&self, mailbox: MailboxId, shutdown: &CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let shipped = tokio::select! {
                () = shutdown.cancelled() => return,
                shipped = self.ship_next(mailbox) => shipped,
            };
            match shipped {
                Ok(true) => backoff = FIRST_BACKOFF,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(mailbox.id = %mailbox, error = format!("{error:#}"), "Could not ship; trying again");
                    let pause = backoff.mul_f64(rand::random_range(0.75..1.25));
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Ships what waits next; `false` when nothing does, or nobody wants it.
    async fn ship_next(&self, mailbox: MailboxId) -> anyhow::Result<bool> {
        let mut waiting = source::waiting(&self.pool, mailbox, SHIPMENT_TRANSACTIONS).await?;
        if waiting.is_empty() {
            return Ok(false);
        }
        let hands_over = self.link.hands_over();
        let mut bytes = 0;
        let fits = waiting
            .iter()
            .take_while(|transaction| {
                let before = bytes;
                bytes += transaction.contents.iter().map(|(content, _)| content.size).sum::<u64>();
                hands_over || before == 0 || bytes <= SHIPMENT_BYTES
            })
            .count();
        waiting.truncate(fits);
        let count = waiting.len() as u64;
        failpoint::here("ship.ready");
        let shipped = self.link.ship(body(waiting, &self.spool, hands_over)?, bytes).await?;
        failpoint::here("ship.answered");
        let ack = shipped
            .acks
            .into_iter()
            .find(|ack| ack.mailbox == mailbox)
            .context("the recovery gateway's answer lacks this mailbox")?;
        metrics::counter!("understudy_transactions_shipped_total").increment(count);
        metrics::counter!("understudy_link_bytes_total", "direction" => "out", "kind" => "content").increment(bytes);
        match heed(&ack) {
            Answer::Received(received) => {
                self.drop_received(mailbox, received).await?;
                Ok(true)
            }
            Answer::Unwanted => Ok(false),
            Answer::Disputed { received, diverged } => {
                tracing::warn!(mailbox.id = %mailbox, received = %received, refusal = ?ack.refused,
                    "The recovery gateway refused a transaction");
                let dispute = Dispute { mailbox, received, diverged };
                self.shared.disputed.lock().unwrap_or_else(PoisonError::into_inner).push(dispute);
                self.shared.dispute.notify_one();
                Ok(false)
            }
        }
    }

    async fn drop_received(&self, mailbox: MailboxId, received: Seq) -> anyhow::Result<()> {
        let mut db = self.pool.begin().await?;
        let files = source::received(&mut db, mailbox, received).await?;
        failpoint::here("drop.written");
        db.commit().await?;
        failpoint::here("drop.committed");
        self.spool.remove(&files);
        failpoint::here("drop.removed");
        Ok(())
    }
}

/// Transactions as the body of a request: contents before the transaction that names them.
fn body(waiting: Vec<Waiting>, spool: &Spool, hands_over: bool) -> Result<Body, CodecError> {
    let small = hands_over || waiting.iter().all(|transaction| !matches!(transaction.spooled, Spooled::File(_)));
    if small {
        let mut bytes = Vec::new();
        for transaction in waiting {
            encode(&transaction, &mut bytes)?;
        }
        return Ok(bytes.into());
    }
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
    let spool = spool.clone();
    tokio::task::spawn_blocking(move || {
        for transaction in waiting {
            if let Err(error) = send(&transaction, &spool, &sender) {
                // Ends the request with an error, so that the receiver takes nothing of it.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    });
    Ok(Body::wrap_stream(pieces(receiver)))
}

fn pieces(receiver: mpsc::Receiver<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

/// A transaction whose contents are at hand, or handed over in their file.
fn encode(transaction: &Waiting, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match &transaction.spooled {
        Spooled::Nothing => {}
        Spooled::Inline(bytes) => {
            for (content, offset) in &transaction.contents {
                codec::encode_frame(&Shipment::Content(*content), out)?;
                let range = offset
                    .checked_add(content.size)
                    .and_then(|end| bytes.get(usize::try_from(*offset).ok()?..usize::try_from(end).ok()?));
                out.extend_from_slice(range.ok_or(CodecError::Truncated)?);
            }
        }
        Spooled::File(name) => {
            let handed = Shipment::Handed { file: name.clone(), contents: transaction.contents.clone() };
            codec::encode_frame(&handed, out)?;
        }
    }
    codec::encode_frame(&Shipment::Transaction(transaction.body.clone()), out)
}

fn send(transaction: &Waiting, spool: &Spool, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let pass = |bytes: Vec<u8>| {
        sender.blocking_send(Ok(bytes.into())).map_err(|_| io::Error::other("the shipment was given up"))
    };
    let Spooled::File(name) = &transaction.spooled else {
        let mut bytes = Vec::new();
        encode(transaction, &mut bytes).map_err(io::Error::other)?;
        return pass(bytes);
    };
    let path: PathBuf = spool.path(name);
    let file = File::open(path)?;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    for (content, offset) in &transaction.contents {
        codec::encode_frame(&Shipment::Content(*content), &mut piece).map_err(io::Error::other)?;
        let (mut at, end) = (*offset, offset + content.size);
        while at < end {
            if piece.len() >= PIECE_BYTES {
                pass(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES)))?;
                failpoint::here("ship.amid");
            }
            let start = piece.len();
            let room = (PIECE_BYTES - start).min(usize::try_from(end - at).unwrap_or(PIECE_BYTES));
            piece.resize(start + room, 0);
            let read = pack::read_at(&file, at, &mut piece[start..])?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            piece.truncate(start + read);
            at += read as u64;
        }
    }
    codec::encode_frame(&Shipment::Transaction(transaction.body.clone()), &mut piece).map_err(io::Error::other)?;
    pass(piece)
}
