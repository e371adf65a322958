//! Ships captured transactions: one HTTP/2 client for all mailboxes.
//!
//! In: the journal, read by number; a nudge when it grew. Out: shipments; received transactions dropped.
//! Keeps true: one shipment of a mailbox at a time, in order; after any error the receiver is asked again from what it
//! acknowledged last.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_database::{
    part,
    source::{self, Spooled, Waiting},
};
use understudy_failpoint as failpoint;
use understudy_protocol::{
    Digest, MailboxId, Seq, TenantId,
    codec::{self, CodecError},
    messages::{Ack, Refusal, Shipment},
};
use understudy_replication::{
    pack,
    shipping::{Answer, heed},
};

use crate::{
    link::{Body, Kind, Link, NoRoom},
    order::Order,
    parcel::{Contents, Parcel, Parcels},
    spool::Spool,
    supervisor::Reports,
};

/// Shipments under way at once.
const SHIPMENTS: usize = 8;
/// Places among them that first copies never take, …
const LIVE_PLACES: usize = 2;
/// … and how many first copies are sent at once: each may fill its stream's window, and a live change needs some of the connection's.
const SEED_SHIPMENTS: usize = 5;
/// The most transactions in one shipment, …
const SHIPMENT_TRANSACTIONS: i64 = 64;
/// … and about the most content, in bytes; one transaction always fits.
const SHIPMENT_BYTES: u64 = 16 << 20;
/// The same of the transactions themselves: the recovery gateway holds them in memory until all of a shipment has come.
const SHIPMENT_FRAMES: usize = 32 << 20;
/// About the most content that is read into memory with the journal's rows, in bytes.
const SHIPMENT_ROWS: u64 = 4 << 20;
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
    order: Mutex<Order>,
    /// How long each mailbox that failed waits before it is tried again.
    backoffs: Mutex<HashMap<MailboxId, Duration>>,
    changed: Notify,
    disputed: Mutex<Vec<Dispute>>,
    dispute: Notify,
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backoff(&self) -> MutexGuard<'_, HashMap<MailboxId, Duration>> {
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal that the recovery site disagrees with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispute {
    pub(crate) mailbox: MailboxId,
    /// What was received of it.
    pub(crate) received: Seq,
    /// What was received is not what we hold under the same number, or lacks what ours builds on.
    pub(crate) diverged: bool,
}

impl ShipperHandle {
    /// The mailbox's journal grew, by a part of its first copy or by something else.
    pub(crate) fn captured(&self, mailbox: MailboxId, seed: bool) {
        self.shared.order().add(mailbox, seed);
        self.shared.changed.notify_one();
    }

    /// Lower is served earlier.
    pub(crate) fn rank(&self, mailbox: MailboxId, priority: i32) {
        self.shared.order().rank(mailbox, priority);
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
    parcels: Parcels,
    reports: Reports,
    shared: Arc<Shared>,
}

impl Shipper {
    pub(crate) fn new(pool: PgPool, link: Link, spool: Spool, reports: Reports) -> Self {
        let parcels = Parcels::new(pool.clone(), link.clone(), spool.clone());
        Self { pool, link, spool, parcels, reports, shared: Arc::default() }
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
            let barred = !this.link.may_seed();
            while let Some((mailbox, seed)) = this.take() {
                let (this, shutdown) = (this.clone(), shutdown.clone());
                tasks.spawn(async move { this.turn(mailbox, seed, &shutdown).await });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed => {}
                () = this.link.may_seed_again(), if barred => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// The next mailbox to ship, if there is room for it.
    fn take(&self) -> Option<(MailboxId, bool)> {
        // Handed over, a shipment holds no content that another could have to wait for.
        let seeds = if !self.link.may_seed() {
            0
        } else if self.link.hands_over() {
            SHIPMENTS - LIVE_PLACES
        } else {
            SEED_SHIPMENTS
        };
        self.shared.order().take(SHIPMENTS, seeds)
    }

    /// One shipment of a mailbox; what is left waits for its next turn.
    async fn turn(&self, mailbox: MailboxId, seed: bool, shutdown: &CancellationToken) {
        let shipped = tokio::select! {
            () = shutdown.cancelled() => return,
            shipped = self.ship_next(mailbox, seed) => shipped,
        };
        let error = match shipped {
            Ok(next) => {
                self.reports.shipping(mailbox, None);
                self.shared.backoff().remove(&mailbox);
                let mut order = self.shared.order();
                order.done(mailbox);
                if let Some(seed) = next {
                    order.add(mailbox, seed);
                }
                drop(order);
                self.shared.changed.notify_one();
                return;
            }
            Err(error) => error,
        };
        let backoff = {
            let mut backoffs = self.shared.backoff();
            let backoff = backoffs.get(&mailbox).map_or(FIRST_BACKOFF, |before| (*before * 2).min(LONGEST_BACKOFF));
            backoffs.insert(mailbox, backoff);
            backoff
        };
        tracing::warn!(mailbox.id = %mailbox, error = format!("{error:#}"), "Could not ship; trying again");
        if let Some(NoRoom(trouble)) = error.downcast_ref() {
            self.reports.shipping(mailbox, Some(trouble.clone()));
        }
        // Others may take its place meanwhile.
        self.shared.order().failed(mailbox, seed);
        self.shared.changed.notify_one();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.mul_f64(rand::random_range(0.75..1.25))) => {}
        }
        self.shared.order().rested(mailbox);
        self.shared.changed.notify_one();
    }

    /// Ships what waits next. Answers whether what is left is part of a first copy; `None` when nothing is, or nobody wants it.
    async fn ship_next(&self, mailbox: MailboxId, seed: bool) -> anyhow::Result<Option<bool>> {
        let mut waiting = source::waiting(&self.pool, mailbox, SHIPMENT_TRANSACTIONS, SHIPMENT_ROWS).await?;
        let Some(first) = waiting.first() else { return Ok(None) };
        let tenant = first.tenant;
        let in_rows: usize = waiting
            .iter()
            .map(|transaction| match &transaction.spooled {
                Spooled::Inline(bytes) => bytes.len(),
                Spooled::Nothing | Spooled::File(_) => 0,
            })
            .sum();
        let full = waiting.len() as i64 == SHIPMENT_TRANSACTIONS || in_rows as u64 >= SHIPMENT_ROWS / 2;
        let hands_over = self.link.hands_over();
        let (mut bytes, mut frames) = (0, 0);
        let fits = waiting
            .iter()
            .take_while(|transaction| {
                let before = (bytes, frames);
                bytes += transaction.contents.iter().map(|(content, _)| content.size).sum::<u64>();
                frames += transaction.body.len();
                let contents_fit = hands_over || before.0 == 0 || bytes <= SHIPMENT_BYTES;
                contents_fit && (before.1 == 0 || frames <= SHIPMENT_FRAMES)
            })
            .count();
        // What is captured from now on says so to `take`.
        let more = fits < waiting.len() || full;
        waiting.truncate(fits);
        let count = waiting.len() as u64;
        let kind = if waiting.iter().all(|transaction| transaction.seed) { Kind::Seed } else { Kind::Live };
        let last = waiting.last().map_or(Seq(0), |transaction| transaction.seq);
        failpoint::here("ship.ready");
        let made = if hands_over {
            Err(waiting)
        } else {
            self.parcels.make(tenant, waiting, matches!(kind, Kind::Live)).await?
        };
        let (body, parcel) = match made {
            Ok((contents, parcel)) => (into_body(contents), Some(parcel)),
            Err(waiting) => (body(waiting, &self.spool, hands_over)?, None),
        };
        let shipped = self.link.ship(tenant, body, kind).await?;
        failpoint::here("ship.answered");
        if shipped.unseen {
            self.parcels.unseen();
            return Ok(Some(seed));
        }
        let ack = shipped
            .acks
            .into_iter()
            .find(|ack| ack.mailbox == mailbox)
            .context("the recovery gateway's answer lacks this mailbox")?;
        metrics::counter!("understudy_transactions_shipped_total").increment(count);
        // What it once acknowledged is gone over there: sent again.
        if let Some((tenant, parts)) = outdated(parcel.as_ref(), &ack) {
            tracing::info!(mailbox.id = %mailbox, count = parts.len(), "Sending parts again that the recovery site has no more");
            part::forget(&self.pool, tenant, &parts).await?;
            return Ok(Some(seed));
        }
        match heed(&ack) {
            Answer::Received(received) => {
                if let Some(parcel) = &parcel {
                    self.parcels.received(parcel).await?;
                }
                drop(parcel);
                self.drop_received(mailbox, received).await?;
                if more || received < last { Ok(source::next_waiting(&self.pool, mailbox).await?) } else { Ok(None) }
            }
            Answer::Unwanted => Ok(None),
            Answer::Disputed { received, diverged } => {
                tracing::warn!(mailbox.id = %mailbox, received = %received, refusal = ?ack.refused,
                    "The recovery gateway refused a transaction");
                let dispute = Dispute { mailbox, received, diverged };
                self.shared.disputed.lock().unwrap_or_else(PoisonError::into_inner).push(dispute);
                self.shared.dispute.notify_one();
                Ok(None)
            }
        }
    }

    async fn drop_received(&self, mailbox: MailboxId, received: Seq) -> anyhow::Result<()> {
        let files = source::received(&self.pool, mailbox, received).await?;
        failpoint::here("drop.committed");
        self.spool.remove(&files);
        failpoint::here("drop.removed");
        Ok(())
    }
}

/// The parts that were left out of a parcel because they were there once.
fn outdated(parcel: Option<&Parcel>, ack: &Ack) -> Option<(TenantId, Vec<Digest>)> {
    let (Some(parcel), Some(Refusal::LacksContent { digests })) = (parcel, &ack.refused) else { return None };
    let parts: Vec<Digest> = digests.iter().filter(|digest| parcel.left_out.contains(digest)).copied().collect();
    (!parts.is_empty()).then_some((parcel.tenant, parts))
}

/// Transactions with whole messages as the body of a request: contents before the transaction that names them.
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
    Ok(Body::wrap_stream(ReceiverStream::new(receiver)))
}

fn into_body(contents: Contents) -> Body {
    match contents {
        Contents::Whole(bytes) => bytes.into(),
        Contents::Pieces(receiver) => Body::wrap_stream(ReceiverStream::new(receiver)),
    }
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
