//! Takes in shipments: contents into the store, transactions into the journal.
//!
//! Keeps true: nothing of a shipment counts unless all of it arrived (parts of one that broke off are kept, which nothing names yet);
//! a transaction is acknowledged only after its contents and its row are on the disk; `seq` has no gaps and every number is taken once.

mod arriving;
mod before;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::pin,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sqlx::{PgConnection, PgPool};
use understudy_content::{PackingError, Piece, Recipe, RecipeError};
use understudy_database::{
    content::{self, Place},
    journal,
    part::{self, Traffic},
};
use understudy_failpoint as failpoint;
use understudy_protocol::{
    Change, ContentRef, Digest, MailboxId, TenantId, Transaction,
    codec::{CodecError, MAX_FRAME_BYTES},
    messages::{Ack, Refusal, Shipped, Trouble},
};
use understudy_replication::shipping::{Received, Verdict, judge};

use crate::{
    bounds::{HeldFrames, TooMuchHeld},
    store::{self, Receiving, Store},
};

use arriving::{Arrived, Arriving, Whole};
pub(crate) use before::Before;

/// The most content taken in one shipment, in bytes: one message of this size, alone, is the largest that passes.
const SHIPMENT_BYTES: u64 = 4 << 30;
/// The most transactions in one shipment, …
const TRANSACTIONS: usize = 1024;
/// … and the most bytes of frames, contents apart: one of the longest, and others beside it.
const FRAME_BYTES: usize = 2 * MAX_FRAME_BYTES;

/// Why a shipment was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error("the shipment broke off")]
    Broken(#[source] axum::Error),
    #[error("the shipment is not readable")]
    Malformed(#[from] CodecError),
    #[error("a content could not be kept")]
    Store(#[source] std::io::Error),
    #[error("the shipment holds more than {SHIPMENT_BYTES} bytes")]
    TooLarge,
    #[error("the shipment holds more than {TRANSACTIONS} transactions, or more than {FRAME_BYTES} bytes of frames")]
    TooManyFrames,
    #[error(transparent)]
    TooMuchHeld(#[from] TooMuchHeld),
    #[error("the shipment is not packed as it should be")]
    Packing(#[from] PackingError),
    #[error("the shipment has a recipe that cannot be read")]
    Recipe(#[from] RecipeError),
    #[error("a message could not be put together: {0:#}")]
    Unproven(anyhow::Error),
    #[error("the shipment names another tenant than its mailbox has")]
    Foreign,
    #[error("the journal did not take it")]
    Journal(#[from] understudy_database::Error),
    #[error("the journal did not take it")]
    Sql(#[from] sqlx::Error),
}

impl IngestError {
    /// Did the sender err, rather than we?
    pub(crate) fn is_theirs(&self) -> bool {
        match self {
            Self::Broken(_)
            | Self::Malformed(_)
            | Self::TooLarge
            | Self::TooManyFrames
            | Self::Foreign
            | Self::Packing(_)
            | Self::Recipe(_) => true,
            Self::Unproven(error) => error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData),
            Self::Store(error) => error.kind() == std::io::ErrorKind::InvalidData,
            Self::TooMuchHeld(_) | Self::Journal(_) | Self::Sql(_) => false,
        }
    }

    /// Is it that there is no room, here or in the database?
    pub(crate) fn no_room(&self) -> Option<Trouble> {
        match self {
            Self::Store(error) => store::no_room(error),
            Self::Journal(error) => store::database_full(error),
            Self::Sql(error) => store::database_full(error),
            _ => None,
        }
    }
}

/// Where a shipment goes, and whose contents it brings.
pub(crate) struct Target<'a> {
    pub(crate) pool: &'a PgPool,
    pub(crate) store: &'a Store,
    pub(crate) before: &'a Before,
    /// An older source gateway does not say.
    pub(crate) tenant: Option<TenantId>,
}

/// Takes in one shipment.
pub(crate) async fn ingest<S>(target: Target<'_>, held: HeldFrames, body: S) -> Result<Shipped, IngestError>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Send,
{
    let Target { pool, store, before, tenant } = target;
    let mut arriving = Arriving::new(store, tenant, held).await?;
    let mut body = pin!(body);
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                if let (Some(tenant), Some(parts)) = (tenant, arriving.broken_off()) {
                    keep(pool.clone(), store, tenant, parts);
                }
                return Err(IngestError::Broken(error));
            }
        };
        if arriving.begins_packed(&piece) {
            let tenant = tenant.ok_or(IngestError::Foreign)?;
            arriving.is_packed(part::key_of(pool, tenant).await?, before.finder());
        }
        match arriving.take(piece) {
            Err(IngestError::Packing(PackingError::Unseen)) => {
                // The rest is small, and a shipment that is broken off costs more.
                while let Some(piece) = body.next().await {
                    piece.map_err(IngestError::Broken)?;
                }
                return Ok(Shipped { acks: Vec::new(), unseen: true });
            }
            taken => taken?,
        }
        failpoint::here("ingest.amid");
    }
    // What is held counts until it is written.
    let Whole { transactions, receiving, recipes, packed, seen, held: _held } = arriving.end()?;
    failpoint::here("ingest.whole");
    let places = receiving.finish().await.map_err(IngestError::Store)?;
    failpoint::here("ingest.synced");
    let lacking = match tenant {
        Some(tenant) => store.prove(tenant, &places, &recipes).await.map_err(IngestError::Unproven)?,
        None => HashMap::new(),
    };
    let shipped = receive(pool, transactions, tenant, &Came { places, recipes, lacking, packed }).await?;
    before.add(seen);
    Ok(shipped)
}

/// Keeps parts of a shipment that broke off, so that they need not come again. By itself: whoever waited for its answer is gone.
fn keep(pool: PgPool, store: &Store, tenant: TenantId, parts: Receiving) {
    let keeping = store.keeping();
    tokio::spawn(async move {
        let kept = async {
            let places = parts.finish().await?;
            content::put(&pool, tenant, &places).await?;
            anyhow::Ok(places.len())
        };
        match kept.await {
            Ok(count) => tracing::info!(tenant.id = %tenant, count, "Kept parts of a shipment that broke off"),
            Err(error) => {
                tracing::debug!(tenant.id = %tenant, error = %error, "Kept no part of a shipment that broke off")
            }
        }
        drop(keeping);
    });
}

/// Takes in the octets of one message, in place of damaged ones. What rests undamaged stays as it is.
pub(crate) async fn content_again<S>(
    pool: &PgPool,
    store: &Store,
    tenant: TenantId,
    wanted: ContentRef,
    body: S,
) -> Result<(), IngestError>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Send,
{
    let mut receiving = store.begin(Some(tenant)).await.map_err(IngestError::Store)?;
    receiving.content(wanted).map_err(IngestError::Store)?;
    let mut left = wanted.size;
    let mut body = pin!(body);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(IngestError::Broken)?;
        left = left.checked_sub(piece.len() as u64).ok_or(IngestError::TooLarge)?;
        receiving.write(&piece).map_err(IngestError::Store)?;
    }
    if left > 0 {
        return Err(CodecError::Truncated.into());
    }
    receiving.end().map_err(IngestError::Store)?;
    let places = receiving.finish().await.map_err(IngestError::Store)?;
    content::put(pool, tenant, &places).await?;
    Ok(())
}

/// The contents of a shipment.
struct Came {
    places: Vec<Place>,
    recipes: HashMap<Digest, Recipe>,
    /// Of messages that cannot be put together: the parts that are nowhere.
    lacking: HashMap<Digest, Vec<Digest>>,
    /// Bytes as they came; none where they were not packed.
    packed: Option<u64>,
}

impl Came {
    /// What became of the messages of these additions on the link.
    fn traffic(&self, named: &[ContentRef]) -> Traffic {
        let mut arrived: HashSet<Digest> = self.places.iter().map(|place| place.content.digest).collect();
        let mut traffic = Traffic::default();
        for message in named {
            traffic.messages += message.size;
            // What is named again did not come again.
            let came = arrived.remove(&message.digest);
            let Some(recipe) = self.recipes.get(&message.digest).filter(|_| came) else {
                traffic.deduplicated += if came { 0 } else { message.size };
                continue;
            };
            for piece in &recipe.pieces {
                if let Piece::Part(part, wrapping) = piece
                    && !arrived.remove(&part.digest)
                {
                    traffic.deduplicated += wrapping.wrapped_size(part.size).unwrap_or_default();
                }
            }
        }
        let came = traffic.messages - traffic.deduplicated.min(traffic.messages);
        traffic.new = self.packed.unwrap_or(came).min(came);
        traffic.compressed = came - traffic.new;
        traffic
    }

    /// What may go into the index.
    fn places(&self) -> Vec<Place> {
        self.places.iter().filter(|place| !self.lacking.contains_key(&place.content.digest)).cloned().collect()
    }

    /// (message, part) of what may go into the index.
    fn parts(&self) -> Vec<(Digest, Digest)> {
        let whole = self.recipes.iter().filter(|(message, _)| !self.lacking.contains_key(*message));
        whole.flat_map(|(message, recipe)| recipe.parts().into_iter().map(|part| (*message, part.digest))).collect()
    }
}

/// Writes transactions to the journal, one SQL transaction a mailbox.
async fn receive(
    pool: &PgPool,
    transactions: Vec<Arrived>,
    tenant: Option<TenantId>,
    came: &Came,
) -> Result<Shipped, IngestError> {
    let mut mailboxes: BTreeMap<MailboxId, Vec<Arrived>> = BTreeMap::new();
    for arrived in transactions {
        mailboxes.entry(arrived.transaction.mailbox).or_default().push(arrived);
    }
    let mut acks = Vec::with_capacity(mailboxes.len());
    for (mailbox, transactions) in mailboxes {
        let mut db = pool.begin().await?;
        let ack = receive_mailbox(&mut db, mailbox, &transactions, tenant, came).await?;
        failpoint::here("ingest.written");
        db.commit().await?;
        failpoint::here("ingest.committed");
        acks.push(ack);
    }
    Ok(Shipped { acks, unseen: false })
}

async fn receive_mailbox(
    db: &mut PgConnection,
    mailbox: MailboxId,
    transactions: &[Arrived],
    tenant: Option<TenantId>,
    came: &Came,
) -> Result<Ack, IngestError> {
    let Some(numbers) = journal::lock(&mut *db, mailbox).await? else {
        let zero = understudy_protocol::Seq(0);
        return Ok(Ack { mailbox, received: zero, applied: zero, refused: Some(Refusal::UnknownMailbox) });
    };
    // Its contents were sealed with that tenant's key.
    if tenant.is_some_and(|tenant| tenant != numbers.tenant) {
        return Err(IngestError::Foreign);
    }
    // Before anything counts as there: what is being removed just now is not.
    let (places, parts) = (came.places(), came.parts());
    let named: Vec<Digest> = transactions
        .iter()
        .flat_map(|arrived| named_contents(&arrived.transaction))
        .map(|content| content.digest)
        .chain(parts.iter().map(|(_, part)| *part))
        .collect();
    content::name(&mut *db, numbers.tenant, &named).await?;
    content::put(&mut *db, numbers.tenant, &places).await?;
    part::name(&mut *db, numbers.tenant, &parts).await?;
    let arrived: HashSet<Digest> = places.iter().map(|place| place.content.digest).collect();
    let mut received = Received { seq: numbers.received, digest: numbers.digest };
    let mut refused = None;
    let mut taken = Vec::new();
    for Arrived { transaction, digest } in transactions {
        match judge(numbers.epoch, received, transaction) {
            // Shipped twice. Unless it is another one, from another journal.
            Verdict::Again if journal::is_received(&mut *db, transaction).await? => {}
            Verdict::Again => refused = Some(Refusal::Diverged),
            Verdict::Refused(refusal) => refused = Some(refusal),
            Verdict::Next => {
                let named = named_contents(transaction);
                refused = lacking(&mut *db, numbers.tenant, &named, &arrived, &came.lacking).await?;
                if refused.is_none() {
                    let bytes = named.iter().map(|content| content.size).sum();
                    journal::receive(&mut *db, transaction, *digest, bytes).await?;
                    received = Received { seq: transaction.seq, digest: *digest };
                    taken.extend(named);
                }
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let traffic = came.traffic(&taken);
    part::count(&mut *db, mailbox, &traffic).await?;
    for (kind, bytes) in
        [("new", traffic.new), ("deduplicated", traffic.deduplicated), ("compressed", traffic.compressed)]
    {
        metrics::counter!("understudy_content_bytes_total", "kind" => kind).increment(bytes);
    }
    Ok(Ack { mailbox, received: received.seq, applied: numbers.applied, refused })
}

fn named_contents(transaction: &Transaction) -> Vec<ContentRef> {
    transaction
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::MessageAdded(added) => Some(added.content),
            _ => None,
        })
        .collect()
}

/// The refusal of a transaction that names content we do not have.
async fn lacking(
    db: &mut PgConnection,
    tenant: TenantId,
    named: &[ContentRef],
    arrived: &HashSet<Digest>,
    parts_lacking: &HashMap<Digest, Vec<Digest>>,
) -> Result<Option<Refusal>, IngestError> {
    let digests: Vec<Digest> =
        named.iter().map(|content| content.digest).filter(|digest| !arrived.contains(digest)).collect();
    if digests.is_empty() {
        return Ok(None);
    }
    let places = content::places(&mut *db, tenant, &digests).await?;
    let digests: Vec<Digest> = digests.into_iter().filter(|digest| !places.contains_key(digest)).collect();
    // Of a message that came without some of its parts, those.
    let digests: Vec<Digest> = digests
        .into_iter()
        .flat_map(|digest| parts_lacking.get(&digest).cloned().unwrap_or_else(|| vec![digest]))
        .collect();
    Ok((!digests.is_empty()).then_some(Refusal::LacksContent { digests }))
}
