//! The source gateway's journal and what it remembers of the primary.
//!
//! Keeps true: a transaction, the folders' positions and the remembered messages change together or not at all.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    ContentRef, Digest, Epoch, FolderId, FolderPath, FolderPosition, MailboxId, Seq, TenantId, Transaction, Uid,
    UidSet, codec, messages::KnownMessage,
};

use crate::{
    Error, Result,
    columns::{self, content_ref, flags_text, position, uid},
};

/// A mailbox's journal at the source, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMailbox {
    pub epoch: Epoch,
    pub captured: Seq,
    pub received: Seq,
    pub next_folder: FolderId,
    pub seeded: bool,
    /// Of the transaction last captured; the default where it is not known.
    pub digest: Digest,
}

/// A folder as last captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFolder {
    pub folder: FolderId,
    pub path: FolderPath,
    /// X-GUID or MAILBOXID, where the server has one.
    pub identity: Option<String>,
    pub position: FolderPosition,
    pub special_use: Vec<String>,
    pub selectable: bool,
    /// How many messages are remembered, and how many octets they have together.
    pub messages: u64,
    pub bytes: u64,
    pub seeded: bool,
}

/// A message as last captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMessage {
    pub folder: FolderId,
    pub uid: Uid,
    pub identity: Option<String>,
    pub content: ContentRef,
    pub flags: Vec<String>,
}

/// A message that the primary lists and could not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableMessage {
    pub folder: FolderId,
    pub uid: Uid,
    /// 0 while unknown.
    pub size: u64,
    pub reason: String,
}

/// Where the contents of a captured transaction lie until the recovery site has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Spooled {
    #[default]
    Nothing,
    /// In the journal row itself.
    Inline(Vec<u8>),
    /// In the spool file of this name.
    File(String),
}

/// A transaction as captured, with everything that is remembered along with it.
#[derive(Clone, Debug)]
pub struct Captured {
    pub transaction: Transaction,
    /// Contents the recovery site does not have, and where in the spool each begins.
    pub contents: Vec<(ContentRef, u64)>,
    pub spooled: Spooled,
    /// Folders as they are from now on; new ones are added.
    pub folders: Vec<SourceFolder>,
    /// Folders that are gone, with their messages.
    pub deleted: Vec<FolderId>,
    pub added: Vec<SourceMessage>,
    pub flags: Vec<(FolderId, Uid, Vec<String>)>,
    pub expunged: Vec<(FolderId, UidSet)>,
    pub subscribed: Vec<FolderPath>,
    pub unsubscribed: Vec<FolderPath>,
    pub next_folder: FolderId,
}

/// How many messages and octets a folder gained, or lost when negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gained {
    pub messages: i64,
    pub bytes: i64,
}

/// A transaction waiting to be shipped.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub tenant: TenantId,
    pub seq: Seq,
    /// Part of a first copy.
    pub seed: bool,
    /// The transaction by `protocol::codec`.
    pub body: Vec<u8>,
    pub contents: Vec<(ContentRef, u64)>,
    pub spooled: Spooled,
}

/// The mailbox's journal, made with `epoch` when it is not there yet. One that is there keeps its own.
pub async fn open(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    tenant: TenantId,
    epoch: Epoch,
) -> Result<SourceMailbox> {
    let row = sqlx::query!(
        "insert into source_mailbox (mailbox_id, tenant_id, epoch) values ($1, $2, $3)
         on conflict (mailbox_id) do update set epoch = source_mailbox.epoch
         returning epoch, captured_seq, received_seq, next_folder_id, seeded, captured_digest",
        mailbox.0,
        tenant.0,
        epoch.0,
    )
    .fetch_one(db)
    .await?;
    Ok(SourceMailbox {
        epoch: Epoch(row.epoch),
        captured: Seq(row.captured_seq),
        received: Seq(row.received_seq),
        next_folder: FolderId(row.next_folder_id),
        seeded: row.seeded,
        digest: columns::maybe_digest(&row.captured_digest)?,
    })
}

/// Every folder remembered.
pub async fn folders(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<SourceFolder>> {
    let rows = sqlx::query!(
        r#"select folder_id, path as "path: Json<FolderPath>", identity, uid_validity, mod_seq, uid_next, special_use,
                  selectable, messages, bytes, seeded
           from source_folder where mailbox_id = $1 order by folder_id"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(SourceFolder {
                folder: FolderId(row.folder_id),
                path: row.path.0,
                identity: row.identity,
                position: position(row.uid_validity, row.mod_seq, row.uid_next)?,
                special_use: row.special_use,
                selectable: row.selectable,
                messages: row.messages.unsigned_abs(),
                bytes: row.bytes.unsigned_abs(),
                seeded: row.seeded,
            })
        })
        .collect()
}

/// Every subscription remembered.
pub async fn subscriptions(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<FolderPath>> {
    let rows = sqlx::query_scalar!(
        r#"select path as "path: Json<FolderPath>" from source_subscription where mailbox_id = $1"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|path| path.0).collect())
}

/// The flags of every remembered message of a folder with a UID in `low..=high`, ascending.
pub async fn message_flags(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    low: Uid,
    high: Uid,
) -> Result<Vec<(Uid, Vec<String>)>> {
    let rows = sqlx::query!(
        "select uid, flags from source_message
         where mailbox_id = $1 and folder_id = $2 and uid between $3 and $4 order by uid",
        mailbox.0,
        folder.0,
        i64::from(low.0),
        i64::from(high.0),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((uid(row.uid)?, row.flags))).collect()
}

/// What every remembered message of a folder with a UID in `low..=high` is known by: its identity, if it had one, and its size.
pub async fn message_marks(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    low: Uid,
    high: Uid,
) -> Result<HashMap<Uid, (Option<String>, u64)>> {
    let rows = sqlx::query!(
        "select uid, identity, size from source_message
         where mailbox_id = $1 and folder_id = $2 and uid between $3 and $4",
        mailbox.0,
        folder.0,
        i64::from(low.0),
        i64::from(high.0),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((uid(row.uid)?, (row.identity, row.size.unsigned_abs())))).collect()
}

/// The UIDs of every remembered message of a folder.
pub async fn message_uids(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId) -> Result<UidSet> {
    let rows = sqlx::query_scalar!(
        "select uid from source_message where mailbox_id = $1 and folder_id = $2 order by uid",
        mailbox.0,
        folder.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(uid).collect()
}

/// Content already captured under these message identities.
pub async fn by_identity(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    identities: &[String],
) -> Result<HashMap<String, ContentRef>> {
    let rows = sqlx::query!(
        r#"select distinct on (m.identity) m.identity as "identity!", m.digest, m.size
           from unnest($2::text[]) as wanted (identity)
           join source_message m on m.mailbox_id = $1 and m.identity = wanted.identity"#,
        mailbox.0,
        identities,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((row.identity, content_ref(&row.digest, row.size)?))).collect()
}

/// Which of these contents have been captured in this mailbox before, from a server that names no identities.
pub async fn known_digests(db: impl PgExecutor<'_>, mailbox: MailboxId, digests: &[Digest]) -> Result<Vec<Digest>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.0.to_vec()).collect();
    let rows = sqlx::query_scalar!(
        "select distinct digest from source_message where mailbox_id = $1 and digest = any($2) and identity is null",
        mailbox.0,
        &digests,
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|digest| columns::digest(digest)).collect()
}

/// Writes a captured transaction and all that goes with it. Fails on the constraint `source_transaction_once` if its
/// number is taken. Answers how many messages each touched folder gained or lost: a server may name UIDs twice, or
/// UIDs that never were; and the digest of the transaction, for the next one.
pub async fn capture(db: &mut PgConnection, captured: &Captured) -> Result<(HashMap<FolderId, Gained>, Digest)> {
    let transaction = &captured.transaction;
    let mailbox = transaction.mailbox;
    let body = codec::encode(transaction).map_err(|e| Error::unreadable("transaction", e))?;
    let digest = Digest::of(&body);
    let contents = codec::encode(&captured.contents).map_err(|e| Error::unreadable("contents", e))?;
    let (inline, spool) = match &captured.spooled {
        Spooled::Nothing => (None, None),
        Spooled::Inline(bytes) => (Some(bytes.as_slice()), None),
        Spooled::File(name) => (None, Some(name.as_str())),
    };
    let content_bytes: u64 = captured.contents.iter().map(|(content, _)| content.size).sum();
    sqlx::query!(
        "with moved as (
             update source_mailbox set captured_seq = $2, next_folder_id = $9, captured_digest = $10
             where mailbox_id = $1)
         insert into source_transaction (mailbox_id, seq, body, content, spool, contents, content_bytes, captured_at,
                                         seed)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $11)",
        mailbox.0,
        transaction.seq.0,
        body,
        inline,
        spool,
        contents,
        columns::size(content_bytes),
        transaction.captured_at,
        captured.next_folder.0,
        &digest.0,
        transaction.seed,
    )
    .execute(&mut *db)
    .await?;
    put_folders(&mut *db, mailbox, &captured.folders).await?;
    let mut gained: HashMap<FolderId, Gained> = put_messages(&mut *db, mailbox, &captured.added).await?;
    set_flags(&mut *db, mailbox, &captured.flags).await?;
    for (folder, uids) in &captured.expunged {
        let lost = expunge(&mut *db, mailbox, *folder, uids).await?;
        let lost = Gained { messages: -lost.messages, bytes: -lost.bytes };
        add_to_count(&mut *db, mailbox, *folder, lost).await?;
        let gained = gained.entry(*folder).or_default();
        gained.messages += lost.messages;
        gained.bytes += lost.bytes;
    }
    let deleted: Vec<i32> = captured.deleted.iter().map(|folder| folder.0).collect();
    if !deleted.is_empty() {
        sqlx::query!("delete from source_folder where mailbox_id = $1 and folder_id = any($2)", mailbox.0, &deleted)
            .execute(&mut *db)
            .await?;
    }
    put_subscriptions(&mut *db, mailbox, &captured.subscribed).await?;
    for path in &captured.unsubscribed {
        sqlx::query!(
            "delete from source_subscription where mailbox_id = $1 and path = $2",
            mailbox.0,
            Json(path) as Json<&FolderPath>,
        )
        .execute(&mut *db)
        .await?;
    }
    Ok((gained, digest))
}

/// Moves positions on without a transaction: the look found nothing that is not in the journal already.
pub async fn move_on(db: &mut PgConnection, mailbox: MailboxId, folders: &[SourceFolder]) -> Result<()> {
    put_folders(db, mailbox, folders).await
}

/// Notes that everything that was there at first has been captured.
pub async fn seeded(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!("update source_mailbox set seeded = true where mailbox_id = $1", mailbox.0).execute(db).await?;
    Ok(())
}

async fn add_to_count(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId, gained: Gained) -> Result<()> {
    sqlx::query!(
        "update source_folder set messages = messages + $3, bytes = bytes + $4
         where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
        gained.messages,
        gained.bytes,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// All of these folders but their counts of messages, which follow the messages.
async fn put_folders(db: &mut PgConnection, mailbox: MailboxId, folders: &[SourceFolder]) -> Result<()> {
    if folders.is_empty() {
        return Ok(());
    }
    let ids: Vec<i32> = folders.iter().map(|folder| folder.folder.0).collect();
    let paths: Vec<Json<&FolderPath>> = folders.iter().map(|folder| Json(&folder.path)).collect();
    let identities: Vec<Option<String>> = folders.iter().map(|folder| folder.identity.clone()).collect();
    let validities: Vec<i64> = folders.iter().map(|folder| i64::from(folder.position.uid_validity.0)).collect();
    let mod_seqs: Vec<i64> = folders.iter().map(|folder| columns::mod_seq(folder.position.mod_seq)).collect();
    let nexts: Vec<i64> = folders.iter().map(|folder| i64::from(folder.position.uid_next.0)).collect();
    let uses: Vec<Json<&[String]>> = folders.iter().map(|folder| Json(folder.special_use.as_slice())).collect();
    let selectable: Vec<bool> = folders.iter().map(|folder| folder.selectable).collect();
    let seeded: Vec<bool> = folders.iter().map(|folder| folder.seeded).collect();
    sqlx::query!(
        "insert into source_folder (mailbox_id, folder_id, path, identity, uid_validity, mod_seq, uid_next, special_use,
                                    selectable, seeded)
         select $1, f.folder_id, f.path, f.identity, f.uid_validity, f.mod_seq, f.uid_next,
                array(select jsonb_array_elements_text(f.special_use)), f.selectable, f.seeded
         from unnest($2::int[], $3::jsonb[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::jsonb[],
                     $9::bool[], $10::bool[])
              as f (folder_id, path, identity, uid_validity, mod_seq, uid_next, special_use, selectable, seeded)
         on conflict (mailbox_id, folder_id) do update set path = excluded.path, identity = excluded.identity,
             uid_validity = excluded.uid_validity, mod_seq = excluded.mod_seq, uid_next = excluded.uid_next,
             special_use = excluded.special_use, selectable = excluded.selectable,
             seeded = excluded.seeded",
        mailbox.0,
        &ids,
        &paths as &[Json<&FolderPath>],
        &identities as &[Option<String>],
        &validities,
        &mod_seqs,
        &nexts,
        &uses as &[Json<&[String]>],
        &selectable,
        &seeded,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn put_subscriptions(db: &mut PgConnection, mailbox: MailboxId, paths: &[FolderPath]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let paths: Vec<Json<&FolderPath>> = paths.iter().map(Json).collect();
    sqlx::query!(
        "insert into source_subscription (mailbox_id, path) select $1, s.path from unnest($2::jsonb[]) as s (path)
         on conflict do nothing",
        mailbox.0,
        &paths as &[Json<&FolderPath>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Answers what each folder gained, which its count has then: messages that were there before only get their flags.
async fn put_messages(
    db: &mut PgConnection,
    mailbox: MailboxId,
    messages: &[SourceMessage],
) -> Result<HashMap<FolderId, Gained>> {
    if messages.is_empty() {
        return Ok(HashMap::new());
    }
    let folders: Vec<i32> = messages.iter().map(|message| message.folder.0).collect();
    let uids: Vec<i64> = messages.iter().map(|message| i64::from(message.uid.0)).collect();
    let identities: Vec<Option<String>> = messages.iter().map(|message| message.identity.clone()).collect();
    let digests: Vec<Vec<u8>> = messages.iter().map(|message| message.content.digest.0.to_vec()).collect();
    let sizes: Vec<i64> = messages.iter().map(|message| columns::size(message.content.size)).collect();
    let flags: Vec<String> = messages.iter().map(|message| flags_text(&message.flags)).collect();
    let rows = sqlx::query!(
        r#"with put as (
               insert into source_message (mailbox_id, folder_id, uid, identity, digest, size, flags)
               select $1, m.folder_id, m.uid, m.identity, m.digest, m.size,
                      case when m.flags = '' then '{}'::text[] else string_to_array(m.flags, ' ') end
               from unnest($2::int[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[], $7::text[])
                    as m (folder_id, uid, identity, digest, size, flags)
               on conflict (mailbox_id, folder_id, uid) do update set flags = excluded.flags
               returning folder_id, size, (xmax = 0) as inserted),
           gained as (
               select folder_id, count(*) as messages, sum(size)::bigint as bytes from put where inserted
               group by folder_id)
           update source_folder f set messages = f.messages + g.messages, bytes = f.bytes + g.bytes
           from gained g where f.mailbox_id = $1 and f.folder_id = g.folder_id
           returning f.folder_id, g.messages as "gained!", g.bytes as "gained_bytes!""#,
        mailbox.0,
        &folders,
        &uids,
        &identities as &[Option<String>],
        &digests,
        &sizes,
        &flags,
    )
    .fetch_all(db)
    .await?;
    let gained = |messages: i64, bytes: i64| Gained { messages, bytes };
    Ok(rows.into_iter().map(|row| (FolderId(row.folder_id), gained(row.gained, row.gained_bytes))).collect())
}

async fn set_flags(db: &mut PgConnection, mailbox: MailboxId, changed: &[(FolderId, Uid, Vec<String>)]) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let folders: Vec<i32> = changed.iter().map(|(folder, ..)| folder.0).collect();
    let uids: Vec<i64> = changed.iter().map(|(_, uid, _)| i64::from(uid.0)).collect();
    let flags: Vec<String> = changed.iter().map(|(.., flags)| flags_text(flags)).collect();
    sqlx::query!(
        "update source_message as s
         set flags = case when c.flags = '' then '{}'::text[] else string_to_array(c.flags, ' ') end
         from unnest($2::int[], $3::bigint[], $4::text[]) as c (folder_id, uid, flags)
         where s.mailbox_id = $1 and s.folder_id = c.folder_id and s.uid = c.uid",
        mailbox.0,
        &folders,
        &uids,
        &flags,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn expunge(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId, uids: &UidSet) -> Result<Gained> {
    let (low, high) = columns::ranges(uids);
    let gone = sqlx::query!(
        r#"with gone as (
               delete from source_message as s using unnest($3::bigint[], $4::bigint[]) as r (low, high)
               where s.mailbox_id = $1 and s.folder_id = $2 and s.uid between r.low and r.high
               returning s.size)
           select count(*) as "messages!", coalesce(sum(size), 0)::bigint as "bytes!" from gone"#,
        mailbox.0,
        folder.0,
        &low,
        &high,
    )
    .fetch_one(db)
    .await?;
    Ok(Gained { messages: gone.messages, bytes: gone.bytes })
}

/// The first transactions not received yet, in order, at most `count` of them, with about so many bytes of content in their rows at
/// most.
pub async fn waiting(db: impl PgExecutor<'_>, mailbox: MailboxId, count: i64, at_most: u64) -> Result<Vec<Waiting>> {
    let rows = sqlx::query!(
        r#"select (select tenant_id from source_mailbox where mailbox_id = $1) as "tenant_id!", seq as "seq!", body as "body!", content, spool, contents as "contents!", seed as "seed!"
           from (select *, sum(octet_length(content)) over (order by seq) as inline, row_number() over (order by seq) as place
                 from (select * from source_transaction where mailbox_id = $1 order by seq limit $2) as next) as counted
           where place = 1 or coalesce(inline, 0) <= $3
           order by seq"#,
        mailbox.0,
        count,
        columns::size(at_most),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Waiting {
                tenant: TenantId(row.tenant_id),
                seq: Seq(row.seq),
                seed: row.seed,
                body: row.body,
                contents: codec::decode(&row.contents).map_err(|e| Error::unreadable("contents", e))?,
                spooled: match (row.content, row.spool) {
                    (Some(bytes), _) => Spooled::Inline(bytes),
                    (None, Some(name)) => Spooled::File(name),
                    (None, None) => Spooled::Nothing,
                },
            })
        })
        .collect()
}

/// Drops what the recovery site has received; returns the spool files no longer needed.
pub async fn received(db: impl PgExecutor<'_>, mailbox: MailboxId, through: Seq) -> Result<Vec<String>> {
    let files = sqlx::query_scalar!(
        "with moved as (
             update source_mailbox set received_seq = greatest(received_seq, least($2, captured_seq))
             where mailbox_id = $1)
         delete from source_transaction where mailbox_id = $1 and seq <= $2 returning spool",
        mailbox.0,
        through.0,
    )
    .fetch_all(db)
    .await?;
    Ok(files.into_iter().flatten().collect())
}

/// How much waits to be received, of all mailboxes together, in bytes.
pub async fn held(db: impl PgExecutor<'_>) -> Result<u64> {
    let held = sqlx::query_scalar!(
        r#"select coalesce(sum(content_bytes + octet_length(body)), 0)::bigint as "held!" from source_transaction"#
    )
    .fetch_one(db)
    .await?;
    Ok(held.unsigned_abs())
}

/// Does a mailbox wait to ship, and is what comes next part of a first copy?
pub async fn next_waiting(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Option<bool>> {
    Ok(sqlx::query_scalar!("select seed from source_transaction where mailbox_id = $1 order by seq limit 1", mailbox.0)
        .fetch_optional(db)
        .await?)
}

/// How the journal stands, over all mailboxes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mailboxes whose first full copy is being captured, …
    pub seeding: i64,
    /// … and those in which only changes are.
    pub tailing: i64,
    /// Transactions captured and not received.
    pub waiting: i64,
    /// The content that goes with them, in bytes.
    pub waiting_bytes: i64,
    /// The age of the oldest of them; 0 when none waits.
    pub oldest_seconds: f64,
    /// Messages that the primary lists and could not give.
    pub unreadable: i64,
}

pub async fn summary(db: impl PgExecutor<'_>) -> Result<Summary> {
    let row = sqlx::query!(
        r#"select (select count(*) from source_mailbox where not seeded) as "seeding!",
                  (select count(*) from source_mailbox where seeded) as "tailing!",
                  count(*) as "waiting!", coalesce(sum(content_bytes), 0)::bigint as "waiting_bytes!",
                  coalesce(extract(epoch from now() - min(captured_at)), 0)::float8 as "oldest_seconds!",
                  (select count(*) from source_unreadable) as "unreadable!"
           from source_transaction"#
    )
    .fetch_one(db)
    .await?;
    Ok(Summary {
        seeding: row.seeding,
        tailing: row.tailing,
        waiting: row.waiting,
        waiting_bytes: row.waiting_bytes,
        oldest_seconds: row.oldest_seconds,
        unreadable: row.unreadable,
    })
}

/// Every spool file that a waiting transaction needs.
pub async fn spool_files(db: impl PgExecutor<'_>) -> Result<Vec<String>> {
    let files = sqlx::query_scalar!(r#"select spool as "spool!" from source_transaction where spool is not null"#)
        .fetch_all(db)
        .await?;
    Ok(files)
}

/// Forgets a mailbox: nobody protects it any more, or it is rebuilt from what the recovery site knows.
pub async fn forget(db: &mut PgConnection, mailbox: MailboxId) -> Result<Vec<String>> {
    let files = sqlx::query_scalar!("delete from source_transaction where mailbox_id = $1 returning spool", mailbox.0)
        .fetch_all(&mut *db)
        .await?;
    sqlx::query!("delete from source_mailbox where mailbox_id = $1", mailbox.0).execute(&mut *db).await?;
    Ok(files.into_iter().flatten().collect())
}

/// The mailboxes remembered here.
pub async fn mailboxes(db: impl PgExecutor<'_>) -> Result<Vec<MailboxId>> {
    let rows = sqlx::query_scalar!("select mailbox_id from source_mailbox").fetch_all(db).await?;
    Ok(rows.into_iter().map(MailboxId).collect())
}

/// Through which number each mailbox's transactions were received, as the receiver said: here they are kept no longer.
pub async fn received_through(db: impl PgExecutor<'_>) -> Result<HashMap<MailboxId, Seq>> {
    let rows = sqlx::query!("select mailbox_id, received_seq from source_mailbox").fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (MailboxId(row.mailbox_id), Seq(row.received_seq))).collect())
}

/// Sets the journal's numbers after [`forget`] and [`open`], when rebuilding from what the recovery site knows.
pub async fn rebuild(
    db: &mut PgConnection,
    mailbox: MailboxId,
    received: (Seq, Digest),
    next_folder: FolderId,
    subscriptions: &[FolderPath],
) -> Result<()> {
    sqlx::query!(
        "update source_mailbox set captured_seq = $2, received_seq = $2, next_folder_id = $3, captured_digest = $4
         where mailbox_id = $1",
        mailbox.0,
        received.0.0,
        next_folder.0,
        &received.1.0,
    )
    .execute(&mut *db)
    .await?;
    put_subscriptions(db, mailbox, subscriptions).await
}

/// Remembers messages the recovery site knows, when rebuilding.
pub async fn rebuild_messages(
    db: &mut PgConnection,
    mailbox: MailboxId,
    folder: FolderId,
    messages: &[KnownMessage],
) -> Result<()> {
    let messages: Vec<SourceMessage> = messages
        .iter()
        .map(|known| SourceMessage {
            folder,
            uid: known.uid,
            identity: None,
            content: known.content,
            flags: known.flags.clone(),
        })
        .collect();
    put_messages(db, mailbox, &messages).await?;
    Ok(())
}

/// The messages of a mailbox that the primary could not give.
pub async fn unreadable(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<UnreadableMessage>> {
    let rows = sqlx::query!(
        "select folder_id, uid, size, reason from source_unreadable where mailbox_id = $1 order by folder_id, uid",
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(UnreadableMessage {
                folder: FolderId(row.folder_id),
                uid: uid(row.uid)?,
                size: row.size.unsigned_abs(),
                reason: row.reason,
            })
        })
        .collect()
}

/// Notes messages that the primary could not give. Belongs before anything that moves a position past them.
pub async fn note_unreadable(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    messages: &[UnreadableMessage],
) -> Result<()> {
    let folders: Vec<i32> = messages.iter().map(|message| message.folder.0).collect();
    let uids: Vec<i64> = messages.iter().map(|message| i64::from(message.uid.0)).collect();
    let sizes: Vec<i64> = messages.iter().map(|message| columns::size(message.size)).collect();
    let reasons: Vec<String> = messages.iter().map(|message| message.reason.clone()).collect();
    sqlx::query!(
        "insert into source_unreadable (mailbox_id, folder_id, uid, size, reason)
         select $1, m.folder_id, m.uid, m.size, m.reason
         from unnest($2::int[], $3::bigint[], $4::bigint[], $5::text[]) as m (folder_id, uid, size, reason)
         on conflict (mailbox_id, folder_id, uid) do update set size = excluded.size, reason = excluded.reason",
        mailbox.0,
        &folders,
        &uids,
        &sizes,
        &reasons,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// These messages of a folder have been read since, or are gone.
pub async fn forget_unreadable(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    uids: &[Uid],
) -> Result<()> {
    let uids: Vec<i64> = uids.iter().map(|uid| i64::from(uid.0)).collect();
    sqlx::query!(
        "delete from source_unreadable as m using unnest($3::bigint[]) as gone (uid)
         where m.mailbox_id = $1 and m.folder_id = $2 and m.uid = gone.uid",
        mailbox.0,
        folder.0,
        &uids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives up a journal that is not the one the recovery site received: what waits is dropped, and the journal stands
/// before everything received, even where that is nothing, so that it is rebuilt when it is opened next.
pub async fn distrust(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!(
        "update source_mailbox set captured_seq = -1, received_seq = -1, captured_digest = '' where mailbox_id = $1",
        mailbox.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets that messages were captured: the next look finds them new.
pub async fn forget_messages(
    db: &mut PgConnection,
    mailbox: MailboxId,
    path: &FolderPath,
    uids: &UidSet,
) -> Result<()> {
    let (low, high) = columns::ranges(uids);
    sqlx::query!(
        r#"with gone as (
               delete from source_message m
               using source_folder f, unnest($3::bigint[], $4::bigint[]) as r (low, high)
               where f.mailbox_id = $1 and f.path = $2 and m.mailbox_id = $1 and m.folder_id = f.folder_id
                 and m.uid between r.low and r.high
               returning m.folder_id, m.size
           ), counted as (select folder_id, count(*) as messages, sum(size)::bigint as bytes from gone group by folder_id)
           update source_folder f set messages = f.messages - counted.messages, bytes = f.bytes - counted.bytes
           from counted where f.mailbox_id = $1 and f.folder_id = counted.folder_id"#,
        mailbox.0,
        Json(path) as Json<&FolderPath>,
        &low,
        &high,
    )
    .execute(db)
    .await?;
    Ok(())
}
