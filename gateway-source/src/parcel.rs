//! What is sent of captured transactions: skeletons, the parts that the recovery site lacks, and all of it packed.
//!
//! In: transactions with whole messages in the spool. Out: the body of a shipment.
//! Keeps true: a part that was acknowledged is not sent again; one that is under way for another mailbox is waited for; memory is
//! bounded whatever the size of a message.
//! Not here: when and in which order is shipped (`shipper`); files that are handed over by name need none of this.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use understudy_content::{Cut, Octets, Packer, Seen, Split, compresses, copy, split};
use understudy_database::{
    part::{self, Acknowledged},
    source::{Spooled, Waiting},
};
use understudy_failpoint as failpoint;
use understudy_protocol::{ContentRef, Digest, PartKey, TenantId, codec, messages::Shipment};
use understudy_replication::pack;

use crate::{link::Link, spool::Spool};

/// A body up to about this size is made before it is sent, in bytes of messages.
const SMALL_BYTES: u64 = 256 << 10;
/// Larger ones are sent in pieces of about this size, …
const PIECE_BYTES: usize = 64 << 10;
/// … so many of them ahead of the link.
const PIECES_AHEAD: usize = 4;
/// From this size on, it is asked whether the recovery site has a part that we do not know of: one round trip costs less. In bytes.
const ASK_BYTES: u64 = 256 << 10;

/// The most parts that are remembered as acknowledged. One that was forgotten is asked for, or sent again.
const REMEMBERED: u64 = 1_000_000;
/// After so many acknowledged ones the oldest are forgotten.
const FORGET_EVERY: usize = 10_000;
/// What was acknowledged within this time is not noted again.
const FRESH: Duration = Duration::from_secs(3600);

/// Makes parcels for all mailboxes.
pub(crate) struct Parcels {
    pool: PgPool,
    link: Link,
    spool: Spool,
    claims: Arc<Claims>,
    /// What the recovery site has seen of each tenant's, too.
    seen: Mutex<HashMap<TenantId, Seen>>,
    /// Parts acknowledged since some were last forgotten; begins as if many had been.
    acknowledged: AtomicUsize,
}

/// What was made ready to go.
pub(crate) struct Parcel {
    pub(crate) tenant: TenantId,
    /// Parts that go along.
    pub(crate) sent: Vec<Digest>,
    /// Parts that do not, because the recovery site acknowledged them.
    pub(crate) left_out: HashSet<Digest>,
    /// What will have been seen once it has arrived.
    seen: Arc<Mutex<Seen>>,
    /// Nobody else sends these meanwhile.
    _claim: Claim,
}

/// The bytes of a parcel.
pub(crate) enum Contents {
    Whole(Vec<u8>),
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
}

impl Parcels {
    pub(crate) fn new(pool: PgPool, link: Link, spool: Spool) -> Self {
        let acknowledged = AtomicUsize::new(FORGET_EVERY);
        Self { pool, link, spool, claims: Arc::default(), seen: Mutex::default(), acknowledged }
    }

    /// Takes messages apart and makes the body of a shipment; gives the transactions back where the recovery gateway takes no parts, or
    /// has not said under which key.
    pub(crate) async fn make(
        &self,
        tenant: TenantId,
        waiting: Vec<Waiting>,
        live: bool,
    ) -> anyhow::Result<Result<(Contents, Parcel), Vec<Waiting>>> {
        let Some(key) = self.link.part_key(tenant) else { return Ok(Err(waiting)) };
        let spool = self.spool.clone();
        let planned = tokio::task::spawn_blocking(move || Plan::new(waiting, &spool, &key)).await??;
        let (left_out, claim) = self.claim(tenant, &planned, live).await?;
        let sent: Vec<Digest> = planned.parts.keys().filter(|part| !left_out.contains(*part)).copied().collect();
        let mut lacking: HashSet<Digest> = sent.iter().copied().collect();
        let seen = Arc::<Mutex<Seen>>::default();
        let body = if planned.bytes <= SMALL_BYTES {
            let before =
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned().unwrap_or_default();
            let made = tokio::task::spawn_blocking(move || {
                let mut packer = Packer::new(&before).map_err(io::Error::other)?;
                planned.write(&mut packer, &mut lacking, &mut |_| Ok(()))?;
                packer.finish().map_err(io::Error::other)
            });
            let (bytes, after) = made.await??;
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = after;
            Contents::Whole(bytes)
        } else {
            let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
            let seen = seen.clone();
            tokio::task::spawn_blocking(move || {
                let pass = |bytes: Vec<u8>| {
                    sender.blocking_send(Ok(bytes.into())).map_err(|_| io::Error::other("the shipment was given up"))
                };
                let sent = Packer::new(&Seen::default()).map_err(io::Error::other).and_then(|mut packer| {
                    planned.write(&mut packer, &mut lacking, &mut |packer| {
                        failpoint::here("ship.amid");
                        if packer.ready() >= PIECE_BYTES { pass(packer.take()) } else { Ok(()) }
                    })?;
                    let (rest, after) = packer.finish().map_err(io::Error::other)?;
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = after;
                    pass(rest)
                });
                if let Err(error) = sent {
                    // Ends the request with an error, so that the receiver takes nothing of it.
                    let _ = sender.blocking_send(Err(error));
                }
            });
            Contents::Pieces(receiver)
        };
        Ok(Ok((body, Parcel { tenant, sent, left_out, seen, _claim: claim })))
    }

    /// A parcel was received: its parts are there, and the next one builds on it.
    pub(crate) async fn received(&self, parcel: &Parcel) -> anyhow::Result<()> {
        // Those that were left out are named now, and stay as long.
        let there: Vec<Digest> = parcel.sent.iter().chain(&parcel.left_out).copied().collect();
        self.acknowledge(parcel.tenant, &there).await?;
        let after = parcel.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.entry(parcel.tenant).or_default();
        // One large file has little to say of what comes next.
        if after.size() >= before.size() / 2 {
            *before = after;
        }
        Ok(())
    }

    async fn acknowledge(&self, tenant: TenantId, parts: &[Digest]) -> anyhow::Result<()> {
        let fresh = self.link.keeps_parts().map_or(FRESH, |keeps| FRESH.min(keeps / 4));
        part::acknowledge(&self.pool, tenant, parts, fresh).await?;
        if !parts.is_empty() && self.acknowledged.fetch_add(parts.len(), Ordering::Relaxed) >= FORGET_EVERY {
            self.acknowledged.store(0, Ordering::Relaxed);
            part::forget_oldest(&self.pool, REMEMBERED).await?;
        }
        Ok(())
    }

    /// The recovery site does not know what the last parcels built on.
    pub(crate) fn unseen(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The parts of a plan that the recovery site has. The others are claimed.
    async fn claim(&self, tenant: TenantId, plan: &Plan, live: bool) -> anyhow::Result<(HashSet<Digest>, Claim)> {
        let all: Vec<Digest> = plan.parts.keys().copied().collect();
        if all.is_empty() {
            return Ok((HashSet::new(), Claim::none(&self.claims)));
        }
        let (known, claim) = loop {
            // Before it is looked, so that what was acknowledged in between is known, or heard of.
            let released = self.claims.released.notified();
            let known = part::acknowledged(&self.pool, tenant, &all, self.link.keeps_parts()).await?;
            let lacking: Vec<Digest> = all.iter().filter(|part| !known.there.contains(part)).copied().collect();
            if let Some(claim) = self.claims.take(tenant, lacking, live) {
                break (known, claim);
            }
            released.await;
        };
        let Acknowledged { mut there, doubtful } = known;
        let large = |part: &Digest| plan.parts.get(part).is_some_and(|size| *size >= ASK_BYTES);
        // What was there once is asked for whatever its size: it is most likely there still.
        let unsure: Vec<Digest> =
            claim.parts.iter().filter(|part| large(part) || doubtful.contains(part)).copied().collect();
        if !unsure.is_empty() {
            let lacks: HashSet<Digest> = self.link.lacks(tenant, unsure.clone()).await?.into_iter().collect();
            let had: Vec<Digest> = unsure.into_iter().filter(|part| !lacks.contains(part)).collect();
            self.acknowledge(tenant, &had).await?;
            there.extend(had);
        }
        Ok((there, claim))
    }
}

// Who sends which part ------------------------------------------------------------------------------------------------------

/// Parts under way.
#[derive(Default)]
struct Claims {
    /// Whether with a live change: a first copy may stand still for hours.
    under_way: Mutex<HashMap<(TenantId, Digest), bool>>,
    released: Notify,
}

impl Claims {
    /// All of these or none, so that nobody waits for who waits for them. A live change waits for no first copy.
    fn take(self: &Arc<Self>, tenant: TenantId, parts: Vec<Digest>, live: bool) -> Option<Claim> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |with_live: &bool| *with_live || !live;
        if parts.iter().any(|part| under_way.get(&(tenant, *part)).is_some_and(waits)) {
            return None;
        }
        under_way.extend(parts.iter().map(|part| ((tenant, *part), live)));
        Some(Claim { claims: self.clone(), tenant, parts })
    }
}

struct Claim {
    claims: Arc<Claims>,
    tenant: TenantId,
    parts: Vec<Digest>,
}

impl Claim {
    fn none(claims: &Arc<Claims>) -> Self {
        Self { claims: claims.clone(), tenant: TenantId(0), parts: Vec::new() }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut under_way = self.claims.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for part in &self.parts {
            under_way.remove(&(self.tenant, *part));
        }
        drop(under_way);
        self.claims.released.notify_waiters();
    }
}

// What goes ---------------------------------------------------------------------------------------------------------------------

/// Transactions with their messages taken apart.
struct Plan {
    transactions: Vec<Planned>,
    /// Every part and its size.
    parts: HashMap<Digest, u64>,
    /// Of the messages.
    bytes: u64,
}

struct Planned {
    messages: Vec<(ContentRef, Held, Option<Split>)>,
    body: Vec<u8>,
}

/// A message where it lies.
struct Held {
    place: Place,
    offset: u64,
    size: u64,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<Vec<u8>>),
    File(Arc<File>),
}

impl Octets for Held {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let at = self.offset.saturating_add(offset);
        match &self.place {
            Place::Memory(bytes) => bytes.as_slice().read_at(at, &mut buffer[..room]),
            Place::File(file) => pack::read_at(file, at, &mut buffer[..room]),
        }
    }
}

impl Plan {
    fn new(waiting: Vec<Waiting>, spool: &Spool, key: &PartKey) -> io::Result<Self> {
        let mut plan = Self { transactions: Vec::with_capacity(waiting.len()), parts: HashMap::new(), bytes: 0 };
        for transaction in waiting {
            let place = match transaction.spooled {
                Spooled::Nothing => Place::Memory(Arc::default()),
                Spooled::Inline(bytes) => Place::Memory(Arc::new(bytes)),
                Spooled::File(name) => Place::File(Arc::new(File::open(spool.path(&name))?)),
            };
            let mut messages = Vec::with_capacity(transaction.contents.len());
            for (content, offset) in transaction.contents {
                let held = Held { place: place.clone(), offset, size: content.size };
                let split = split(&held, key)?;
                for cut in split.iter().flat_map(|split| &split.cuts) {
                    plan.parts.insert(cut.part.digest, cut.part.size);
                }
                plan.bytes = plan.bytes.saturating_add(content.size);
                messages.push((content, held, split));
            }
            plan.transactions.push(Planned { messages, body: transaction.body });
        }
        Ok(plan)
    }

    /// Writes everything; parts that are `lacking` once each.
    fn write(
        &self,
        packer: &mut Packer,
        lacking: &mut HashSet<Digest>,
        written: &mut dyn FnMut(&mut Packer) -> io::Result<()>,
    ) -> io::Result<()> {
        for transaction in &self.transactions {
            for (content, held, split) in &transaction.messages {
                let Some(split) = split else {
                    frame(packer, &Shipment::Content(*content))?;
                    copy(held, 0, content.size, |piece| {
                        packer.write(piece).map_err(io::Error::other)?;
                        written(packer)
                    })?;
                    continue;
                };
                for cut in split.cuts.iter().filter(|cut| lacking.remove(&cut.part.digest)) {
                    write_part(packer, held, cut, written)?;
                }
                frame(packer, &Shipment::Skeleton { content: *content, recipe: split.recipe.encode() })?;
                for (start, end) in split.own() {
                    copy(held, start, end, |piece| {
                        packer.write(piece).map_err(io::Error::other)?;
                        written(packer)
                    })?;
                }
            }
            frame(packer, &Shipment::Transaction(transaction.body.clone()))?;
            written(packer)?;
        }
        Ok(())
    }
}

fn write_part(
    packer: &mut Packer,
    held: &Held,
    cut: &Cut,
    written: &mut dyn FnMut(&mut Packer) -> io::Result<()>,
) -> io::Result<()> {
    frame(packer, &Shipment::Part(cut.part))?;
    let mut worth_it = None;
    cut.copy(held, |piece| {
        let worth_it = *worth_it.get_or_insert_with(|| compresses(piece));
        let packed = if worth_it { packer.write(piece) } else { packer.write_as_is(piece) };
        packed.map_err(io::Error::other)?;
        written(packer)
    })
}

fn frame(packer: &mut Packer, frame: &Shipment) -> io::Result<()> {
    let mut bytes = Vec::new();
    codec::encode_frame(frame, &mut bytes).map_err(io::Error::other)?;
    packer.write(&bytes).map_err(io::Error::other)
}
