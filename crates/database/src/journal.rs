//! The recovery site's journal: received, begun, applied.
//!
//! Keeps true: `seq` is contiguous per mailbox and direction; a transaction is begun before the standby is touched and
//! completed together with the mirror it led to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    Digest, Direction, Epoch, FolderId, MailboxId, Seq, TenantId, Transaction, Uid, UidValidity, codec,
    messages::Trouble, server::Server,
};

use crate::{Error, Result, columns};

/// A mailbox's journal at the recovery site, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub tenant: TenantId,
    pub epoch: Epoch,
    pub received: Seq,
    pub applied: Seq,
    /// Of the transaction last received; the default where it is not known.
    pub digest: Digest,
}

/// [`Numbers`] as their row has them.
struct NumbersRow {
    tenant_id: i64,
    epoch: i64,
    received_seq: i64,
    applied_seq: i64,
    received_digest: Vec<u8>,
}

impl TryFrom<NumbersRow> for Numbers {
    type Error = Error;

    fn try_from(row: NumbersRow) -> Result<Self> {
        Ok(Self {
            tenant: TenantId(row.tenant_id),
            epoch: Epoch(row.epoch),
            received: Seq(row.received_seq),
            applied: Seq(row.applied_seq),
            digest: columns::maybe_digest(&row.received_digest)?,
        })
    }
}

/// The numbers of a protected mailbox.
pub async fn numbers(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Numbers>> {
    let row = sqlx::query_as!(
        NumbersRow,
        "select tenant_id, epoch, received_seq, applied_seq, received_digest from mailbox
         where mailbox_id = $1 and unprotected_at is null",
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(Numbers::try_from).transpose()
}

/// The numbers of a protected mailbox, which nobody else changes until this SQL transaction ends.
pub async fn lock(db: &mut PgConnection, mailbox: MailboxId) -> Result<Option<Numbers>> {
    let row = sqlx::query_as!(
        NumbersRow,
        "select tenant_id, epoch, received_seq, applied_seq, received_digest from mailbox
         where mailbox_id = $1 and unprotected_at is null for no key update",
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(Numbers::try_from).transpose()
}

/// Writes the transaction that follows the last received one; `digest` is of its octets as they came. The caller holds the
/// [`lock`] and has looked.
pub async fn receive(
    db: &mut PgConnection,
    transaction: &Transaction,
    digest: Digest,
    content_bytes: u64,
) -> Result<()> {
    let body = codec::encode(transaction).map_err(|e| Error::unreadable("transaction", e))?;
    sqlx::query!(
        "with moved as (
             update mailbox set received_seq = $3, captured_seq = greatest(captured_seq, $3),
                    last_transaction_at = now(), received_digest = $10
             where mailbox_id = $1)
         insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        transaction.mailbox.0,
        direction_column(transaction.direction),
        transaction.seq.0,
        transaction.epoch.0,
        transaction.seed,
        body,
        i32::try_from(transaction.changes.len()).unwrap_or(i32::MAX),
        columns::size(content_bytes),
        transaction.captured_at,
        &digest.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Is this the transaction that was received under its number? One that is no longer kept is taken to be.
pub async fn is_received(db: impl PgExecutor<'_>, transaction: &Transaction) -> Result<bool> {
    let body = sqlx::query_scalar!(
        "select body from transaction where mailbox_id = $1 and direction = $2 and seq = $3",
        transaction.mailbox.0,
        direction_column(transaction.direction),
        transaction.seq.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(body) = body else { return Ok(true) };
    let received: Transaction = codec::decode(&body).map_err(|e| Error::unreadable("transaction", e))?;
    Ok(received == *transaction)
}

fn direction_column(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Return => "return",
    }
}

/// Protected mailboxes with received transactions that are not applied yet, and whose standby may be written to.
pub async fn behind(db: impl PgExecutor<'_>) -> Result<Vec<MailboxId>> {
    let rows = sqlx::query_scalar!(
        "select mailbox_id from mailbox
         where (applied_seq < received_seq or release_asked) and unprotected_at is null and not paused
           and phase not in ('on_standby', 'switching_back')"
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(MailboxId).collect())
}

/// How often a person has asked to try again, for every protected mailbox.
pub async fn attempts(db: impl PgExecutor<'_>) -> Result<Vec<(MailboxId, i32)>> {
    let rows =
        sqlx::query!("select mailbox_id, attempt from mailbox where unprotected_at is null").fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (MailboxId(row.mailbox_id), row.attempt)).collect())
}

/// What the applier must know of a mailbox.
#[derive(Clone, Debug)]
pub struct Target {
    pub mailbox: MailboxId,
    pub tenant: TenantId,
    pub standby: Server,
    /// The log-in on the standby.
    pub address: String,
    pub stopped: bool,
    /// By the mass-change brake: adding goes on, removing waits.
    pub held: bool,
    pub attempt: i32,
    pub applied: Seq,
}

/// Where a protected mailbox is mirrored to.
pub async fn target(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Target>> {
    let row = sqlx::query!(
        r#"select m.tenant_id, m.standby_address,
                  m.paused or m.phase in ('on_standby', 'switching_back') as "stopped!", m.held, m.attempt, m.applied_seq,
                  s.definition as "definition: Json<Server>"
           from mailbox m join server s on s.server_id = m.standby_server_id
           where m.mailbox_id = $1 and m.unprotected_at is null"#,
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Target {
        mailbox,
        tenant: TenantId(row.tenant_id),
        standby: row.definition.0,
        address: row.standby_address,
        stopped: row.stopped,
        held: row.held,
        attempt: row.attempt,
        applied: Seq(row.applied_seq),
    }))
}

/// The first transaction received and not applied, if there is one; and whether it may not be applied now.
pub async fn next_received(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<(Transaction, bool)>> {
    let row = sqlx::query!(
        r#"select t.body,
                  (m.unprotected_at is not null or m.paused or m.phase in ('on_standby', 'switching_back')) as "stopped!"
           from transaction t join mailbox m using (mailbox_id)
           where t.mailbox_id = $1 and t.direction = 'outbound' and t.applied_at is null order by t.seq limit 1"#,
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let transaction = codec::decode(&row.body).map_err(|e| Error::unreadable("transaction", e))?;
    Ok(Some((transaction, row.stopped)))
}

/// Transactions before this one, the newest first, at most `count`.
pub async fn before(db: impl PgExecutor<'_>, mailbox: MailboxId, seq: Seq, count: i64) -> Result<Vec<Transaction>> {
    let bodies = sqlx::query_scalar!(
        "select body from transaction
         where mailbox_id = $1 and direction = 'outbound' and seq < $2 order by seq desc limit $3",
        mailbox.0,
        seq.0,
        count
    )
    .fetch_all(db)
    .await?;
    bodies.iter().map(|body| codec::decode(body).map_err(|e| Error::unreadable("transaction", e))).collect()
}

/// The transactions after `after`, `upto` included.
pub async fn between(db: impl PgExecutor<'_>, mailbox: MailboxId, after: Seq, upto: Seq) -> Result<Vec<Transaction>> {
    let bodies = sqlx::query_scalar!(
        "select body from transaction
         where mailbox_id = $1 and direction = 'outbound' and seq > $2 and seq <= $3 order by seq",
        mailbox.0,
        after.0,
        upto.0,
    )
    .fetch_all(db)
    .await?;
    bodies.iter().map(|body| codec::decode(body).map_err(|e| Error::unreadable("transaction", e))).collect()
}

/// What was noted before messages were appended to the standby.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Messages found in these folders from the given UID on are ours.
    pub folders: BTreeMap<FolderId, (UidValidity, Uid)>,
}

/// Notes an intent, durably, before the effect.
pub async fn begin(db: impl PgExecutor<'_>, mailbox: MailboxId, seq: Seq, intent: &Intent) -> Result<()> {
    sqlx::query!(
        "insert into intent (mailbox_id, direction, seq, folders) values ($1, 'outbound', $2, $3)
         on conflict (mailbox_id) do update set direction = excluded.direction, seq = excluded.seq,
             folders = excluded.folders, begun_at = now()",
        mailbox.0,
        seq.0,
        Json(intent) as Json<&Intent>,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes an intent of which nothing is known but that it may have been; one that is noted stays.
pub async fn suppose(db: impl PgExecutor<'_>, mailbox: MailboxId, intent: &Intent) -> Result<()> {
    sqlx::query!(
        "insert into intent (mailbox_id, direction, seq, folders) values ($1, 'outbound', 0, $2) on conflict do nothing",
        mailbox.0,
        Json(intent) as Json<&Intent>,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The intent that a crash left behind, if one did.
pub async fn intent(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<Intent>> {
    let row = sqlx::query_scalar!(
        r#"select folders as "folders: Json<Intent>" from intent where mailbox_id = $1"#,
        mailbox.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| row.0))
}

/// The effects of an intent are recorded.
pub async fn settle(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!("delete from intent where mailbox_id = $1", mailbox.0).execute(db).await?;
    Ok(())
}

/// Marks a transaction applied, in the SQL transaction that records the mirror it led to. Answers whether the first
/// full copy ended with it.
pub async fn complete(db: &mut PgConnection, mailbox: MailboxId, seq: Seq) -> Result<bool> {
    let due = sqlx::query_scalar!(
        r#"with settled as (
               delete from intent where mailbox_id = $1),
           applied as (
               update transaction set applied_at = now()
               where mailbox_id = $1 and direction = 'outbound' and seq = $2)
           update mailbox set applied_seq = $2, standby_trouble = null where mailbox_id = $1
           returning (phase = 'seeding' and coalesce(seeded_seq <= applied_seq, false)) as "due!""#,
        mailbox.0,
        seq.0,
    )
    .fetch_optional(&mut *db)
    .await?;
    if due == Some(true) { finish_seeding(db, mailbox).await } else { Ok(false) }
}

/// The mailbox is mirrored once everything that was there at first is applied. Answers whether that just came true.
pub async fn finish_seeding(db: &mut PgConnection, mailbox: MailboxId) -> Result<bool> {
    let done = sqlx::query!(
        "update mailbox set phase = 'mirroring'
         where mailbox_id = $1 and phase = 'seeding' and seeded_seq <= applied_seq",
        mailbox.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Says what stands in the way on the standby's side; `None` when nothing does. Answers whether that is news.
pub async fn standby_trouble(db: impl PgExecutor<'_>, mailbox: MailboxId, trouble: Option<&Trouble>) -> Result<bool> {
    let trouble = trouble.map(Json);
    let changed = sqlx::query!(
        "update mailbox set standby_trouble = $2 where mailbox_id = $1 and standby_trouble is distinct from $2",
        mailbox.0,
        trouble as Option<Json<&Trouble>>,
    )
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Notes that both sides were compared, and how many differences were found.
pub async fn verified(db: impl PgExecutor<'_>, mailbox: MailboxId, differences: u64) -> Result<()> {
    sqlx::query!(
        "update mailbox set differences = $2::bigint,
             last_verified_at = case when $2::bigint = 0 then now() else last_verified_at end
         where mailbox_id = $1",
        mailbox.0,
        columns::size(differences)
    )
    .execute(db)
    .await?;
    Ok(())
}
