//! The mirror as applied: folders, the UID map, subscriptions, and what the standby holds besides.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    ContentRef, Digest, FolderId, FolderPath, FolderPosition, MailboxId, ModSeq, Uid, UidSet, UidValidity,
};

use crate::{
    Result,
    columns::{self, content_ref, flags_text, position, uid, uid_validity},
    continuity::{self, Continuity},
};

/// A folder of the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFolder {
    pub folder: FolderId,
    pub path: FolderPath,
    pub special_use: Vec<String>,
    pub selectable: bool,
    /// The primary's numbers as of the applied transaction.
    pub position: FolderPosition,
    /// The standby's own name for it, as its LIST spells it.
    pub standby_name: String,
    /// 0 until the folder has been selected there.
    pub standby_uid_validity: UidValidity,
    /// Every message we put there has a lower UID.
    pub standby_uid_next: Uid,
    /// HIGHESTMODSEQ there is at least this; 0 where nobody looks after it.
    pub standby_mod_seq: ModSeq,
    pub continuity: Continuity,
}

/// A message of the mirror: one row of the UID map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorMessage {
    pub folder: FolderId,
    pub uid: Uid,
    /// `None` while the standby refuses it.
    pub standby_uid: Option<Uid>,
    pub content: ContentRef,
    pub flags: Vec<String>,
    pub internal_date: String,
    pub set_aside: Option<SetAside>,
}

/// Why the standby does not hold a message as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// It does not take it.
    Refused { reason: String },
    /// It holds other bytes than it was given.
    Altered { reason: String },
}

/// A message on the standby that no transaction put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub folder: FolderId,
    pub standby_uid: Uid,
    pub digest: Digest,
    pub loose_digest: Digest,
}

/// What applying a transaction changed; written together with its completion.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Folders as they are now; new ones are added.
    pub folders: BTreeMap<FolderId, MirrorFolder>,
    pub deleted: Vec<FolderId>,
    pub added: Vec<MirrorMessage>,
    pub flags: Vec<(FolderId, UidSet, Vec<String>)>,
    pub expunged: Vec<(FolderId, UidSet)>,
    pub subscriptions: Vec<(FolderPath, bool)>,
    /// Strays that an addition took over.
    pub adopted: Vec<(FolderId, Uid)>,
    /// Strays found.
    pub strays: Vec<Stray>,
    /// Folders that gained or lost their UID continuity.
    pub continuity: Vec<FolderId>,
}

/// Every folder of a mailbox's mirror.
pub async fn folders(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<MirrorFolder>> {
    let rows = sqlx::query!(
        r#"select folder_id, path as "path: Json<FolderPath>", uid_validity, special_use, selectable, position_mod_seq,
                  position_uid_next, standby_name, standby_uid_validity, standby_uid_next, standby_mod_seq, continuity,
                  continuity_reason
           from mirror_folder where mailbox_id = $1 order by folder_id"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(MirrorFolder {
                folder: FolderId(row.folder_id),
                path: row.path.0,
                special_use: row.special_use,
                selectable: row.selectable,
                position: position(row.uid_validity, row.position_mod_seq, row.position_uid_next)?,
                standby_name: row.standby_name,
                standby_uid_validity: uid_validity(row.standby_uid_validity)?,
                standby_uid_next: uid(row.standby_uid_next)?,
                standby_mod_seq: ModSeq(row.standby_mod_seq.unsigned_abs()),
                continuity: Continuity::from_columns(&row.continuity, row.continuity_reason),
            })
        })
        .collect()
}

/// Every subscription of a mailbox's mirror.
pub async fn subscriptions(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<FolderPath>> {
    let rows = sqlx::query_scalar!(
        r#"select path as "path: Json<FolderPath>" from mirror_subscription where mailbox_id = $1"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|path| path.0).collect())
}

/// Where messages with these UIDs are on the standby; those that are not there are left out.
pub async fn standby_uids(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    uids: &UidSet,
) -> Result<Vec<(Uid, Uid)>> {
    let (low, high) = columns::ranges(uids);
    let rows = sqlx::query!(
        r#"select m.uid, m.standby_uid as "standby_uid!"
           from unnest($3::bigint[], $4::bigint[]) as r (low, high)
           join mirror_message m on m.mailbox_id = $1 and m.folder_id = $2 and m.uid between r.low and r.high
           where m.standby_uid is not null order by m.uid"#,
        mailbox.0,
        folder.0,
        &low,
        &high,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((uid(row.uid)?, uid(row.standby_uid)?))).collect()
}

/// A message as its table has it.
struct MessageRow {
    folder_id: i32,
    uid: i64,
    standby_uid: Option<i64>,
    digest: Vec<u8>,
    size: i64,
    flags: Vec<String>,
    internal_date: String,
    set_aside: Option<String>,
    set_aside_reason: String,
}

impl TryFrom<MessageRow> for MirrorMessage {
    type Error = crate::Error;

    fn try_from(row: MessageRow) -> Result<Self> {
        Ok(Self {
            folder: FolderId(row.folder_id),
            uid: uid(row.uid)?,
            standby_uid: row.standby_uid.map(uid).transpose()?,
            content: content_ref(&row.digest, row.size)?,
            flags: row.flags,
            internal_date: row.internal_date,
            set_aside: set_aside(row.set_aside, row.set_aside_reason),
        })
    }
}

/// Messages of one folder above `after`, ascending by UID, at most `count`.
pub async fn messages(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    after: Uid,
    count: i64,
) -> Result<Vec<MirrorMessage>> {
    let rows = sqlx::query_as!(
        MessageRow,
        "select folder_id, uid, standby_uid, digest, size, flags, internal_date, set_aside, set_aside_reason
         from mirror_message where mailbox_id = $1 and folder_id = $2 and uid > $3 order by uid limit $4",
        mailbox.0,
        folder.0,
        i64::from(after.0),
        count,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(MirrorMessage::try_from).collect()
}

/// Messages of one folder after one UID through another, ascending.
pub async fn between(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    after: Uid,
    through: Uid,
) -> Result<Vec<MirrorMessage>> {
    let rows = sqlx::query_as!(
        MessageRow,
        "select folder_id, uid, standby_uid, digest, size, flags, internal_date, set_aside, set_aside_reason
         from mirror_message where mailbox_id = $1 and folder_id = $2 and uid > $3 and uid <= $4 order by uid",
        mailbox.0,
        folder.0,
        i64::from(after.0),
        i64::from(through.0),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(MirrorMessage::try_from).collect()
}

/// Every standby UID that the mirror wants in one folder.
pub async fn standby_uids_of(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId) -> Result<UidSet> {
    let rows = sqlx::query_scalar!(
        r#"select standby_uid as "standby_uid!" from mirror_message
           where mailbox_id = $1 and folder_id = $2 and standby_uid is not null order by standby_uid"#,
        mailbox.0,
        folder.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(uid).collect()
}

/// These strays are gone.
pub async fn forget_strays(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId, uids: &UidSet) -> Result<()> {
    let (low, high) = columns::ranges(uids);
    sqlx::query!(
        "delete from mirror_stray s using unnest($3::bigint[], $4::bigint[]) as r (low, high)
         where s.mailbox_id = $1 and s.folder_id = $2 and s.standby_uid between r.low and r.high",
        mailbox.0,
        folder.0,
        &low,
        &high,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Messages the standby refused after this one, in order of folder and UID; at most `count`.
pub async fn refused(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    after: (FolderId, Uid),
    count: i64,
) -> Result<Vec<MirrorMessage>> {
    let rows = sqlx::query!(
        "select folder_id, uid, digest, size, flags, internal_date, set_aside, set_aside_reason
         from mirror_message where mailbox_id = $1 and set_aside = 'refused' and (folder_id, uid) > ($3, $4)
         order by folder_id, uid limit $2",
        mailbox.0,
        count,
        after.0.0,
        i64::from(after.1.0),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(MirrorMessage {
                folder: FolderId(row.folder_id),
                uid: uid(row.uid)?,
                standby_uid: None,
                content: content_ref(&row.digest, row.size)?,
                flags: row.flags,
                internal_date: row.internal_date,
                set_aside: set_aside(row.set_aside, row.set_aside_reason),
            })
        })
        .collect()
}

/// Protected mailboxes with messages that the standby refused.
pub async fn mailboxes_with_refused(db: impl PgExecutor<'_>) -> Result<Vec<MailboxId>> {
    let rows = sqlx::query_scalar!(
        "select distinct m.mailbox_id from mirror_message m join mailbox b on b.mailbox_id = m.mailbox_id
         where m.set_aside = 'refused' and b.unprotected_at is null and not b.paused
           and b.phase not in ('on_standby', 'switching_back')"
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(MailboxId).collect())
}

/// Messages of one folder with any of these contents, ascending by UID.
pub async fn by_digest(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    digests: &[Digest],
) -> Result<Vec<(Uid, Uid, Digest)>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.0.to_vec()).collect();
    let rows = sqlx::query!(
        r#"select uid, standby_uid as "standby_uid!", digest from mirror_message
           where mailbox_id = $1 and folder_id = $2 and digest = any($3) and standby_uid is not null order by uid"#,
        mailbox.0,
        folder.0,
        &digests,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((uid(row.uid)?, uid(row.standby_uid)?, columns::digest(&row.digest)?))).collect()
}

fn set_aside(kind: Option<String>, reason: String) -> Option<SetAside> {
    match kind.as_deref() {
        Some("refused") => Some(SetAside::Refused { reason }),
        Some(_) => Some(SetAside::Altered { reason }),
        None => None,
    }
}

/// Has the standby messages that no transaction put there, in any folder?
pub async fn has_strays(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<bool> {
    let has =
        sqlx::query_scalar!(r#"select exists (select from mirror_stray where mailbox_id = $1) as "has!""#, mailbox.0,)
            .fetch_one(db)
            .await?;
    Ok(has)
}

/// The strays of one folder.
pub async fn strays(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId) -> Result<Vec<Stray>> {
    let rows = sqlx::query!(
        "select standby_uid, digest, loose_digest from mirror_stray
         where mailbox_id = $1 and folder_id = $2 order by standby_uid",
        mailbox.0,
        folder.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Stray {
                folder,
                standby_uid: uid(row.standby_uid)?,
                digest: columns::digest(&row.digest)?,
                loose_digest: columns::digest(&row.loose_digest)?,
            })
        })
        .collect()
}

/// The standby UIDs of a folder's messages from `from` on: what needs no adopting.
pub async fn mapped_standby_uids(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    from: Uid,
) -> Result<UidSet> {
    let rows = sqlx::query_scalar!(
        r#"select standby_uid as "standby_uid!" from mirror_message
           where mailbox_id = $1 and folder_id = $2 and standby_uid >= $3
           union all
           select standby_uid from mirror_stray where mailbox_id = $1 and folder_id = $2 and standby_uid >= $3"#,
        mailbox.0,
        folder.0,
        i64::from(from.0),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(uid).collect()
}

/// Writes what applying changed.
pub async fn record(db: &mut PgConnection, mailbox: MailboxId, effects: &Effects) -> Result<()> {
    put_folders(&mut *db, mailbox, &effects.folders).await?;
    put_strays(&mut *db, mailbox, &effects.strays).await?;
    put_messages(&mut *db, mailbox, &effects.added).await?;
    for (folder, uids, flags) in &effects.flags {
        set_flags(&mut *db, mailbox, *folder, uids, flags).await?;
    }
    for (folder, uids) in &effects.expunged {
        expunge(&mut *db, mailbox, *folder, uids).await?;
    }
    for (folder, standby_uid) in &effects.adopted {
        sqlx::query!(
            "delete from mirror_stray where mailbox_id = $1 and folder_id = $2 and standby_uid = $3",
            mailbox.0,
            folder.0,
            i64::from(standby_uid.0),
        )
        .execute(&mut *db)
        .await?;
    }
    let deleted: Vec<i32> = effects.deleted.iter().map(|folder| folder.0).collect();
    if !deleted.is_empty() {
        sqlx::query!("delete from mirror_folder where mailbox_id = $1 and folder_id = any($2)", mailbox.0, &deleted)
            .execute(&mut *db)
            .await?;
    }
    set_subscriptions(&mut *db, mailbox, &effects.subscriptions).await?;
    if !effects.continuity.is_empty() || !deleted.is_empty() {
        continuity::refresh(&mut *db, mailbox).await?;
    }
    Ok(())
}

async fn put_folders(
    db: &mut PgConnection,
    mailbox: MailboxId,
    folders: &BTreeMap<FolderId, MirrorFolder>,
) -> Result<()> {
    if folders.is_empty() {
        return Ok(());
    }
    let each = || folders.values();
    let ids: Vec<i32> = each().map(|folder| folder.folder.0).collect();
    let paths: Vec<Json<&FolderPath>> = each().map(|folder| Json(&folder.path)).collect();
    let validities: Vec<i64> = each().map(|folder| i64::from(folder.position.uid_validity.0)).collect();
    let uses: Vec<Json<&[String]>> = each().map(|folder| Json(folder.special_use.as_slice())).collect();
    let selectable: Vec<bool> = each().map(|folder| folder.selectable).collect();
    let mod_seqs: Vec<i64> = each().map(|folder| columns::mod_seq(folder.position.mod_seq)).collect();
    let nexts: Vec<i64> = each().map(|folder| i64::from(folder.position.uid_next.0)).collect();
    let names: Vec<String> = each().map(|folder| folder.standby_name.clone()).collect();
    let standby_validities: Vec<i64> = each().map(|folder| i64::from(folder.standby_uid_validity.0)).collect();
    let standby_nexts: Vec<i64> = each().map(|folder| i64::from(folder.standby_uid_next.0)).collect();
    let standby_mod_seqs: Vec<i64> = each().map(|folder| columns::mod_seq(folder.standby_mod_seq)).collect();
    let continuities: Vec<String> = each().map(|folder| folder.continuity.column().to_owned()).collect();
    let reasons: Vec<String> = each().map(|folder| folder.continuity.reason().to_owned()).collect();
    sqlx::query!(
        "insert into mirror_folder (mailbox_id, folder_id, path, uid_validity, special_use, selectable, position_mod_seq,
                                    position_uid_next, standby_name, standby_uid_validity, standby_uid_next,
                                    standby_mod_seq, continuity, continuity_reason)
         select $1, f.folder_id, f.path, f.uid_validity, array(select jsonb_array_elements_text(f.special_use)),
                f.selectable, f.mod_seq, f.uid_next, f.standby_name, f.standby_uid_validity, f.standby_uid_next,
                f.standby_mod_seq, f.continuity, f.reason
         from unnest($2::int[], $3::jsonb[], $4::bigint[], $5::jsonb[], $6::bool[], $7::bigint[], $8::bigint[],
                     $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[])
              as f (folder_id, path, uid_validity, special_use, selectable, mod_seq, uid_next, standby_name,
                    standby_uid_validity, standby_uid_next, standby_mod_seq, continuity, reason)
         on conflict (mailbox_id, folder_id) do update set path = excluded.path, uid_validity = excluded.uid_validity,
             special_use = excluded.special_use, selectable = excluded.selectable,
             position_mod_seq = excluded.position_mod_seq, position_uid_next = excluded.position_uid_next,
             standby_name = excluded.standby_name, standby_uid_validity = excluded.standby_uid_validity,
             standby_uid_next = excluded.standby_uid_next, standby_mod_seq = excluded.standby_mod_seq,
             continuity = excluded.continuity, continuity_reason = excluded.continuity_reason",
        mailbox.0,
        &ids,
        &paths as &[Json<&FolderPath>],
        &validities,
        &uses as &[Json<&[String]>],
        &selectable,
        &mod_seqs,
        &nexts,
        &names,
        &standby_validities,
        &standby_nexts,
        &standby_mod_seqs,
        &continuities,
        &reasons,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn put_strays(db: &mut PgConnection, mailbox: MailboxId, strays: &[Stray]) -> Result<()> {
    if strays.is_empty() {
        return Ok(());
    }
    let folders: Vec<i32> = strays.iter().map(|stray| stray.folder.0).collect();
    let uids: Vec<i64> = strays.iter().map(|stray| i64::from(stray.standby_uid.0)).collect();
    let digests: Vec<Vec<u8>> = strays.iter().map(|stray| stray.digest.0.to_vec()).collect();
    let loose: Vec<Vec<u8>> = strays.iter().map(|stray| stray.loose_digest.0.to_vec()).collect();
    sqlx::query!(
        "insert into mirror_stray (mailbox_id, folder_id, standby_uid, digest, loose_digest)
         select $1, s.folder_id, s.standby_uid, s.digest, s.loose_digest
         from unnest($2::int[], $3::bigint[], $4::bytea[], $5::bytea[])
              as s (folder_id, standby_uid, digest, loose_digest)
         on conflict do nothing",
        mailbox.0,
        &folders,
        &uids,
        &digests,
        &loose,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn put_messages(db: &mut PgConnection, mailbox: MailboxId, messages: &[MirrorMessage]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let folders: Vec<i32> = messages.iter().map(|message| message.folder.0).collect();
    let uids: Vec<i64> = messages.iter().map(|message| i64::from(message.uid.0)).collect();
    let standby: Vec<Option<i64>> =
        messages.iter().map(|message| message.standby_uid.map(|uid| i64::from(uid.0))).collect();
    let digests: Vec<Vec<u8>> = messages.iter().map(|message| message.content.digest.0.to_vec()).collect();
    let sizes: Vec<i64> = messages.iter().map(|message| columns::size(message.content.size)).collect();
    let flags: Vec<String> = messages.iter().map(|message| flags_text(&message.flags)).collect();
    let dates: Vec<String> = messages.iter().map(|message| message.internal_date.clone()).collect();
    let (kinds, reasons): (Vec<Option<String>>, Vec<String>) = messages
        .iter()
        .map(|message| match &message.set_aside {
            None => (None, String::new()),
            Some(SetAside::Refused { reason }) => (Some("refused".to_owned()), reason.clone()),
            Some(SetAside::Altered { reason }) => (Some("altered".to_owned()), reason.clone()),
        })
        .unzip();
    sqlx::query!(
        "insert into mirror_message (mailbox_id, folder_id, uid, standby_uid, digest, size, flags, internal_date,
                                     set_aside, set_aside_reason)
         select $1, m.folder_id, m.uid, m.standby_uid, m.digest, m.size,
                case when m.flags = '' then '{}'::text[] else string_to_array(m.flags, ' ') end, m.internal_date,
                m.set_aside, m.set_aside_reason
         from unnest($2::int[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::text[], $8::text[],
                     $9::text[], $10::text[])
              as m (folder_id, uid, standby_uid, digest, size, flags, internal_date, set_aside, set_aside_reason)
         on conflict (mailbox_id, folder_id, uid) do update set standby_uid = excluded.standby_uid,
             digest = excluded.digest, size = excluded.size, flags = excluded.flags,
             internal_date = excluded.internal_date, set_aside = excluded.set_aside,
             set_aside_reason = excluded.set_aside_reason",
        mailbox.0,
        &folders,
        &uids,
        &standby as &[Option<i64>],
        &digests,
        &sizes,
        &flags,
        &dates,
        &kinds as &[Option<String>],
        &reasons,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn set_flags(
    db: &mut PgConnection,
    mailbox: MailboxId,
    folder: FolderId,
    uids: &UidSet,
    flags: &[String],
) -> Result<()> {
    let (low, high) = columns::ranges(uids);
    sqlx::query!(
        "update mirror_message as m set flags = $5 from unnest($3::bigint[], $4::bigint[]) as r (low, high)
         where m.mailbox_id = $1 and m.folder_id = $2 and m.uid between r.low and r.high",
        mailbox.0,
        folder.0,
        &low,
        &high,
        flags,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn expunge(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId, uids: &UidSet) -> Result<()> {
    let (low, high) = columns::ranges(uids);
    sqlx::query!(
        "delete from mirror_message as m using unnest($3::bigint[], $4::bigint[]) as r (low, high)
         where m.mailbox_id = $1 and m.folder_id = $2 and m.uid between r.low and r.high",
        mailbox.0,
        folder.0,
        &low,
        &high,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// In their order: the last word on a path counts.
async fn set_subscriptions(db: &mut PgConnection, mailbox: MailboxId, changed: &[(FolderPath, bool)]) -> Result<()> {
    let last: BTreeMap<&FolderPath, bool> = changed.iter().map(|(path, subscribed)| (path, *subscribed)).collect();
    let (on, off): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, subscribed)| *subscribed);
    let json = |paths: Vec<(&'_ FolderPath, bool)>| -> Vec<Json<FolderPath>> {
        paths.into_iter().map(|(path, _)| Json(path.clone())).collect()
    };
    if !on.is_empty() {
        sqlx::query!(
            "insert into mirror_subscription (mailbox_id, path) select $1, s.path from unnest($2::jsonb[]) as s (path)
             on conflict do nothing",
            mailbox.0,
            &json(on) as &[Json<FolderPath>],
        )
        .execute(&mut *db)
        .await?;
    }
    if !off.is_empty() {
        sqlx::query!(
            "delete from mirror_subscription m using unnest($2::jsonb[]) as s (path)
             where m.mailbox_id = $1 and m.path = s.path",
            mailbox.0,
            &json(off) as &[Json<FolderPath>],
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Forgets the mirrors of mailboxes that nobody protects any more; their journals and contents stay for history.
pub async fn forget_unprotected(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "delete from intent i using mailbox m where m.mailbox_id = i.mailbox_id and m.unprotected_at is not null"
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from mirror_subscription s using mailbox m
         where m.mailbox_id = s.mailbox_id and m.unprotected_at is not null"
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from mirror_folder f using mailbox m where m.mailbox_id = f.mailbox_id and m.unprotected_at is not null"
    )
    .execute(db)
    .await?;
    Ok(())
}
