//! Takes in shipments: contents into the store, transactions into the journal.
//!
//! Keeps true: nothing of a shipment counts unless all of it arrived; a transaction is acknowledged only after its
//! contents and its row are on the disk; `seq` has no gaps and every number is taken once.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use sqlx::{PgConnection, PgPool};
use understudy_database::{content, content::Place, journal};
use understudy_failpoint as failpoint;
use understudy_protocol::{
    Change, ContentRef, Digest, MailboxId, TenantId, Transaction,
    codec::{self, CodecError},
    messages::{Ack, Refusal, Shipment, Shipped},
};
use understudy_replication::shipping::{Verdict, judge};

use crate::store::{Receiving, Store};

/// The most content taken in one shipment, in bytes: one message of this size, alone, is the largest that passes.
const SHIPMENT_BYTES: u64 = 4 << 30;

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
    #[error("the journal did not take it")]
    Journal(#[from] understudy_database::Error),
    #[error("the journal did not take it")]
    Sql(#[from] sqlx::Error),
}

impl IngestError {
    /// Did the sender err, rather than we?
    pub(crate) fn is_theirs(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Malformed(_) | Self::TooLarge => true,
            Self::Store(error) => error.kind() == std::io::ErrorKind::InvalidData,
            Self::Journal(_) | Self::Sql(_) => false,
        }
    }
}

/// Takes in one shipment.
pub(crate) async fn ingest<S>(pool: &PgPool, store: &Store, body: S) -> Result<Shipped, IngestError>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Send,
{
    let mut arriving = Arriving::new(store)?;
    let mut body = pin!(body);
    while let Some(piece) = body.next().await {
        arriving.take(piece.map_err(IngestError::Broken)?)?;
        failpoint::here("ingest.amid");
    }
    let (transactions, receiving) = arriving.end()?;
    failpoint::here("ingest.whole");
    let places = receiving.finish().await.map_err(IngestError::Store)?;
    failpoint::here("ingest.synced");
    receive(pool, transactions, &places).await
}

/// A shipment as it comes in.
struct Arriving {
    buffer: BytesMut,
    /// Bytes still to come of the content at hand.
    left: u64,
    total: u64,
    receiving: Receiving,
    transactions: Vec<Transaction>,
}

impl Arriving {
    fn new(store: &Store) -> Result<Self, IngestError> {
        Ok(Self {
            buffer: BytesMut::new(),
            left: 0,
            total: 0,
            receiving: store.begin().map_err(IngestError::Store)?,
            transactions: Vec::new(),
        })
    }

    fn take(&mut self, mut piece: Bytes) -> Result<(), IngestError> {
        loop {
            // Content passes by without being gathered.
            if self.left > 0 {
                let (bytes, rest) = if self.buffer.is_empty() {
                    let length = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    (piece.split_to(length), true)
                } else {
                    let length = self.buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    (self.buffer.split_to(length).freeze(), false)
                };
                self.content_bytes(&bytes)?;
                if rest && piece.is_empty() {
                    return Ok(());
                }
                continue;
            }
            if piece.has_remaining() {
                self.buffer.extend_from_slice(&piece);
                piece = Bytes::new();
            }
            let Some((frame, taken)) = codec::decode_frame::<Shipment>(&self.buffer)? else { return Ok(()) };
            self.buffer.advance(taken);
            self.frame(frame)?;
        }
    }

    fn frame(&mut self, frame: Shipment) -> Result<(), IngestError> {
        match frame {
            Shipment::Content(content) => {
                self.total = self.total.saturating_add(content.size);
                if self.total > SHIPMENT_BYTES {
                    return Err(IngestError::TooLarge);
                }
                self.left = content.size;
                self.receiving.content(content).map_err(IngestError::Store)?;
                if self.left == 0 {
                    self.receiving.end().map_err(IngestError::Store)?;
                }
            }
            Shipment::Handed { file, contents } => {
                self.receiving.handed(&file, &contents).map_err(IngestError::Store)?;
            }
            Shipment::Transaction(body) => self.transactions.push(codec::decode(&body)?),
        }
        Ok(())
    }

    fn content_bytes(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        self.receiving.write(bytes).map_err(IngestError::Store)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            self.receiving.end().map_err(IngestError::Store)?;
        }
        Ok(())
    }

    fn end(self) -> Result<(Vec<Transaction>, Receiving), IngestError> {
        if self.left > 0 || !self.buffer.is_empty() {
            return Err(CodecError::Truncated.into());
        }
        Ok((self.transactions, self.receiving))
    }
}

/// Writes transactions to the journal, one SQL transaction a mailbox.
async fn receive(pool: &PgPool, transactions: Vec<Transaction>, places: &[Place]) -> Result<Shipped, IngestError> {
    let mut mailboxes: BTreeMap<MailboxId, Vec<Transaction>> = BTreeMap::new();
    for transaction in transactions {
        mailboxes.entry(transaction.mailbox).or_default().push(transaction);
    }
    let mut acks = Vec::with_capacity(mailboxes.len());
    for (mailbox, transactions) in mailboxes {
        let mut db = pool.begin().await?;
        let ack = receive_mailbox(&mut db, mailbox, &transactions, places).await?;
        failpoint::here("ingest.written");
        db.commit().await?;
        failpoint::here("ingest.committed");
        acks.push(ack);
    }
    Ok(Shipped { acks })
}

async fn receive_mailbox(
    db: &mut PgConnection,
    mailbox: MailboxId,
    transactions: &[Transaction],
    places: &[Place],
) -> Result<Ack, IngestError> {
    let Some(numbers) = journal::lock(&mut *db, mailbox).await? else {
        let zero = understudy_protocol::Seq(0);
        return Ok(Ack { mailbox, received: zero, applied: zero, refused: Some(Refusal::UnknownMailbox) });
    };
    content::put(&mut *db, numbers.tenant, places).await?;
    let arrived: HashSet<Digest> = places.iter().map(|place| place.content.digest).collect();
    let mut received = numbers.received;
    let mut refused = None;
    for transaction in transactions {
        match judge(numbers.epoch, received, transaction) {
            // Shipped twice. Unless it is another one, from another journal.
            Verdict::Again if journal::is_received(&mut *db, transaction).await? => {}
            Verdict::Again => refused = Some(Refusal::Diverged),
            Verdict::Refused(refusal) => refused = Some(refusal),
            Verdict::Next => {
                let named = named_contents(transaction);
                refused = lacking(&mut *db, numbers.tenant, &named, &arrived).await?;
                if refused.is_none() {
                    let bytes = named.iter().map(|content| content.size).sum();
                    journal::receive(&mut *db, transaction, bytes).await?;
                    received = transaction.seq;
                }
            }
        }
        if refused.is_some() {
            break;
        }
    }
    Ok(Ack { mailbox, received, applied: numbers.applied, refused })
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
) -> Result<Option<Refusal>, IngestError> {
    let digests: Vec<Digest> =
        named.iter().map(|content| content.digest).filter(|digest| !arrived.contains(digest)).collect();
    if digests.is_empty() {
        return Ok(None);
    }
    let places = content::places(&mut *db, tenant, &digests).await?;
    let digests: Vec<Digest> = digests.into_iter().filter(|digest| !places.contains_key(digest)).collect();
    Ok((!digests.is_empty()).then_some(Refusal::LacksContent { digests }))
}
