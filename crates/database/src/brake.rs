//! The mass-change brake: what was removed lately, and removals parked until a person decides.
//!
//! Keeps true: a parked message is on the standby and not in the mirror; it is parked, released, kept or taken over in the same
//! SQL transaction as the mirror it belongs to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{Digest, FolderId, FolderPath, MailboxId, Seq, Uid, UidSet, UidValidity};

use crate::{
    Result, columns, event,
    mirror::{MirrorFolder, Stray},
};

/// A message that a transaction takes from the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    pub folder: FolderId,
    pub uid: Uid,
    pub digest: Digest,
}

/// What a transaction's removals mean at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub held: bool,
    /// Messages it removes from the mirror.
    pub removing: i64,
    /// Messages removed within the window before it.
    pub lately: i64,
}

/// Removals to park, as of the end of a transaction.
#[derive(Clone, Debug, Default)]
pub struct Park {
    /// The folders as they are now, or were when they were deleted.
    pub folders: BTreeMap<FolderId, MirrorFolder>,
    pub messages: BTreeMap<FolderId, UidSet>,
    pub deleted: Vec<FolderId>,
    pub unsubscribed: Vec<FolderPath>,
}

/// Removals as columns.
struct Ranges {
    folders: Vec<i32>,
    low: Vec<i64>,
    high: Vec<i64>,
}

fn flat(removals: &BTreeMap<FolderId, UidSet>) -> Ranges {
    let mut ranges = Ranges { folders: Vec::new(), low: Vec::new(), high: Vec::new() };
    for (folder, uids) in removals {
        for (low, high) in uids.ranges() {
            ranges.folders.push(folder.0);
            ranges.low.push(i64::from(low.0));
            ranges.high.push(i64::from(high.0));
        }
    }
    ranges
}

/// What these removals mean at first sight.
pub async fn standing(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    removals: &BTreeMap<FolderId, UidSet>,
    since: DateTime<Utc>,
) -> Result<Standing> {
    let ranges = flat(removals);
    let row = sqlx::query!(
        r#"select m.held,
                  (select count(*) from unnest($2::int[], $3::bigint[], $4::bigint[]) as r (folder_id, low, high)
                   join mirror_message a on a.mailbox_id = $1 and a.folder_id = r.folder_id
                       and a.uid between r.low and r.high) as "removing!",
                  (select count(*) from brake_removal b
                   where b.mailbox_id = $1 and b.captured_at > $5) as "lately!"
           from mailbox m where m.mailbox_id = $1"#,
        mailbox.0,
        &ranges.folders,
        &ranges.low,
        &ranges.high,
        since,
    )
    .fetch_one(db)
    .await?;
    Ok(Standing { held: row.held, removing: row.removing, lately: row.lately })
}

/// The messages of the mirror that these removals take.
pub async fn removals(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    removals: &BTreeMap<FolderId, UidSet>,
) -> Result<Vec<Removal>> {
    let ranges = flat(removals);
    let rows = sqlx::query!(
        r#"select distinct a.folder_id, a.uid, a.digest
           from unnest($2::int[], $3::bigint[], $4::bigint[]) as r (folder_id, low, high)
           join mirror_message a on a.mailbox_id = $1 and a.folder_id = r.folder_id and a.uid between r.low and r.high"#,
        mailbox.0,
        &ranges.folders,
        &ranges.low,
        &ranges.high,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Removal {
                folder: FolderId(row.folder_id),
                uid: columns::uid(row.uid)?,
                digest: columns::digest(&row.digest)?,
            })
        })
        .collect()
}

/// The messages that the standby holds for the mirror, after this one, at most `count`, in order of folder and UID.
pub async fn held_messages(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    after: (FolderId, Uid),
    count: i64,
) -> Result<Vec<Removal>> {
    let rows = sqlx::query!(
        "select folder_id, uid, digest from mirror_message
         where mailbox_id = $1 and (folder_id, uid) > ($2, $3) and standby_uid is not null
         order by folder_id, uid limit $4",
        mailbox.0,
        after.0.0,
        i64::from(after.1.0),
        count,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Removal {
                folder: FolderId(row.folder_id),
                uid: columns::uid(row.uid)?,
                digest: columns::digest(&row.digest)?,
            })
        })
        .collect()
}

/// The contents of messages removed since.
pub async fn removed_since(db: impl PgExecutor<'_>, mailbox: MailboxId, since: DateTime<Utc>) -> Result<Vec<Digest>> {
    let rows = sqlx::query_scalar!(
        "select digest from brake_removal where mailbox_id = $1 and captured_at > $2",
        mailbox.0,
        since
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|digest| columns::digest(digest)).collect()
}

/// Notes what a transaction removes, before the mirror forgets it, and forgets what is older than the window.
pub async fn note_removals(
    db: &mut PgConnection,
    mailbox: MailboxId,
    removals: &BTreeMap<FolderId, UidSet>,
    captured_at: DateTime<Utc>,
    since: DateTime<Utc>,
) -> Result<()> {
    let ranges = flat(removals);
    sqlx::query!("delete from brake_removal where mailbox_id = $1 and captured_at <= $2", mailbox.0, since)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "insert into brake_removal (mailbox_id, captured_at, digest)
         select $1, $5, a.digest
         from unnest($2::int[], $3::bigint[], $4::bigint[]) as r (folder_id, low, high)
         join mirror_message a on a.mailbox_id = $1 and a.folder_id = r.folder_id and a.uid between r.low and r.high",
        mailbox.0,
        &ranges.folders,
        &ranges.low,
        &ranges.high,
        captured_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Parks removals, before the mirror forgets the messages.
pub async fn park(db: &mut PgConnection, mailbox: MailboxId, seq: Seq, park: &Park) -> Result<()> {
    for (id, folder) in &park.folders {
        let deletion = park.deleted.contains(id).then_some("waiting");
        sqlx::query!(
            "insert into parked_folder (mailbox_id, path, standby_name, standby_uid_validity, deletion)
             values ($1, $2, $3, $4, $5)
             on conflict (mailbox_id, standby_name) do update set path = excluded.path,
                 standby_uid_validity = excluded.standby_uid_validity,
                 deletion = coalesce(excluded.deletion, parked_folder.deletion)",
            mailbox.0,
            Json(&folder.path) as Json<&FolderPath>,
            folder.standby_name,
            i64::from(folder.standby_uid_validity.0),
            deletion,
        )
        .execute(&mut *db)
        .await?;
        let Some(uids) = park.messages.get(id) else { continue };
        let (low, high) = columns::ranges(uids);
        sqlx::query!(
            "insert into parked_message (parked_folder_id, standby_uid, uid, digest, size, internal_date, seq)
             select f.parked_folder_id, a.standby_uid, a.uid, a.digest, a.size, a.internal_date, $6
             from unnest($4::bigint[], $5::bigint[]) as r (low, high)
             join mirror_message a on a.mailbox_id = $1 and a.folder_id = $2 and a.uid between r.low and r.high
             join parked_folder f on f.mailbox_id = $1 and f.standby_name = $3
             where a.standby_uid is not null
             on conflict (parked_folder_id, standby_uid) do update set fate = 'waiting', seq = excluded.seq",
            mailbox.0,
            id.0,
            folder.standby_name,
            &low,
            &high,
            seq.0,
        )
        .execute(&mut *db)
        .await?;
    }
    for path in &park.unsubscribed {
        sqlx::query!(
            "insert into parked_subscription (mailbox_id, path) values ($1, $2)
             on conflict (mailbox_id, path) do update set fate = 'waiting'",
            mailbox.0,
            Json(path) as Json<&FolderPath>,
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// What is parked in folders that the mirror has (again) can be taken over by an addition with the same content. After the mirror has
/// been written.
pub async fn offer(db: impl PgExecutor<'_>, mailbox: MailboxId, seq: Seq) -> Result<()> {
    sqlx::query!(
        "insert into mirror_stray (mailbox_id, folder_id, standby_uid, digest, loose_digest)
         select $1, m.folder_id, p.standby_uid, p.digest, p.digest
         from parked_folder f join parked_message p using (parked_folder_id)
         join mirror_folder m on m.mailbox_id = $1 and m.standby_name = f.standby_name and m.selectable
         where f.mailbox_id = $1 and p.seq = $2
         on conflict do nothing",
        mailbox.0,
        seq.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is parked or kept in a standby folder, as an addition may take it over.
pub async fn offered(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    folder: FolderId,
    standby_name: &str,
) -> Result<Vec<Stray>> {
    let rows = sqlx::query!(
        "select p.standby_uid, p.digest from parked_folder f join parked_message p using (parked_folder_id)
         where f.mailbox_id = $1 and f.standby_name = $2 order by p.standby_uid",
        mailbox.0,
        standby_name
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let digest = columns::digest(&row.digest)?;
            Ok(Stray { folder, standby_uid: columns::uid(row.standby_uid)?, digest, loose_digest: digest })
        })
        .collect()
}

/// Is anything parked or kept in this mailbox?
pub async fn any(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<bool> {
    let any = sqlx::query_scalar!(
        r#"select exists (select from parked_folder where mailbox_id = $1)
               or exists (select from parked_subscription where mailbox_id = $1) as "any!""#,
        mailbox.0
    );
    Ok(any.fetch_one(db).await?)
}

/// A message that the mirror has again is parked no longer. After the mirror has been written.
pub async fn taken_over(db: impl PgExecutor<'_>, mailbox: MailboxId, standby_name: &str, uids: &[Uid]) -> Result<()> {
    let uids: Vec<i64> = uids.iter().map(|uid| i64::from(uid.0)).collect();
    sqlx::query!(
        "delete from parked_message p using parked_folder f, unnest($3::bigint[]) as taken (uid)
         where f.mailbox_id = $1 and f.standby_name = $2 and p.parked_folder_id = f.parked_folder_id
           and p.standby_uid = taken.uid",
        mailbox.0,
        standby_name,
        &uids
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Drops what has come about or become pointless otherwise, and ends a hold that nothing waits in any more. Answers whether it
/// ended. After the mirror has been written.
pub async fn settle(db: &mut PgConnection, mailbox: MailboxId) -> Result<bool> {
    sqlx::query!(
        "update parked_folder f set deletion = null
         where f.mailbox_id = $1 and f.deletion is not null and exists (
             select from mirror_folder m where m.mailbox_id = $1 and m.standby_name = f.standby_name
         )",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from parked_subscription p using mirror_subscription s
         where p.mailbox_id = $1 and s.mailbox_id = $1 and s.path = p.path",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from parked_folder f where f.mailbox_id = $1 and f.deletion is null
             and not exists (select from parked_message p where p.parked_folder_id = f.parked_folder_id)",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    let ended = sqlx::query!(
        "update mailbox set held = false, held_at = null, held_detail = null, release_asked = false
         where mailbox_id = $1 and (held or release_asked)
           and not exists (
               select from parked_folder f where f.mailbox_id = $1 and (
                   f.deletion in ('waiting', 'released')
                   or exists (select from parked_message p where p.parked_folder_id = f.parked_folder_id
                              and p.fate in ('waiting', 'released'))))
           and not exists (
               select from parked_subscription where mailbox_id = $1 and fate in ('waiting', 'released'))",
        mailbox.0
    )
    .execute(&mut *db)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!("delete from brake_removal where mailbox_id = $1", mailbox.0).execute(&mut *db).await?;
    tell_state(db, mailbox).await?;
    Ok(true)
}

async fn tell_state(db: &mut PgConnection, mailbox: MailboxId) -> Result<()> {
    let state =
        sqlx::query_scalar!("select state from mailbox where mailbox_id = $1", mailbox.0).fetch_one(&mut *db).await?;
    event::record(db, "state", Some(mailbox), None, &json!({ "state": state })).await
}

/// Holds a mailbox. Answers whether it was not held before.
pub async fn hold(db: &mut PgConnection, mailbox: MailboxId, detail: &Value) -> Result<bool> {
    let held = sqlx::query!(
        "update mailbox set held = true, held_at = now(), held_detail = $2 where mailbox_id = $1 and not held",
        mailbox.0,
        detail
    )
    .execute(&mut *db)
    .await?;
    if held.rows_affected() == 0 {
        return Ok(false);
    }
    let mut told = detail.clone();
    told["state"] = json!("held");
    event::record(db, "held", Some(mailbox), None, &told).await?;
    Ok(true)
}

/// A parked folder was renamed on the standby.
pub async fn renamed(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    from: &str,
    path: &FolderPath,
    standby_name: &str,
) -> Result<()> {
    sqlx::query!(
        "update parked_folder set path = $3, standby_name = $4 where mailbox_id = $1 and standby_name = $2",
        mailbox.0,
        from,
        Json(path) as Json<&FolderPath>,
        standby_name
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A standby folder in which something is parked or kept.
#[derive(Clone, Debug)]
pub struct ParkedFolder {
    pub id: i64,
    pub path: FolderPath,
    pub standby_name: String,
    pub standby_uid_validity: UidValidity,
    /// `waiting`, `released` or `kept`, where the folder itself is to go.
    pub deletion: Option<String>,
}

/// Every folder of a mailbox in which something is parked or kept.
pub async fn folders(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<ParkedFolder>> {
    let rows = sqlx::query!(
        r#"select parked_folder_id, path as "path: Json<FolderPath>", standby_name, standby_uid_validity, deletion
           from parked_folder where mailbox_id = $1 order by standby_name"#,
        mailbox.0
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ParkedFolder {
                id: row.parked_folder_id,
                path: row.path.0,
                standby_name: row.standby_name,
                standby_uid_validity: columns::uid_validity(row.standby_uid_validity)?,
                deletion: row.deletion,
            })
        })
        .collect()
}

/// The standby UIDs parked or kept in a folder.
pub async fn uids(db: impl PgExecutor<'_>, folder: &ParkedFolder) -> Result<UidSet> {
    let rows = sqlx::query_scalar!(
        "select standby_uid from parked_message where parked_folder_id = $1 order by standby_uid",
        folder.id
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(columns::uid).collect()
}

/// The standby UIDs of a parked folder that a person let go, and that the mirror does not hold.
pub async fn released_uids(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: &ParkedFolder) -> Result<UidSet> {
    let rows = sqlx::query_scalar!(
        "select p.standby_uid from parked_message p
         where p.parked_folder_id = $2 and p.fate = 'released' and not exists (
             select from mirror_folder m join mirror_message a using (mailbox_id, folder_id)
             where m.mailbox_id = $1 and m.standby_name = $3 and a.standby_uid = p.standby_uid)
         order by p.standby_uid",
        mailbox.0,
        folder.id,
        folder.standby_name
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(columns::uid).collect()
}

/// Does the mirror of this mailbox hold more messages than these?
pub async fn has_more_than(db: impl PgExecutor<'_>, mailbox: MailboxId, messages: i64) -> Result<bool> {
    let counted = sqlx::query_scalar!(
        r#"select count(*) as "counted!" from (select from mirror_message where mailbox_id = $1 limit $2) counted"#,
        mailbox.0,
        messages + 1
    );
    Ok(counted.fetch_one(db).await? > messages)
}

/// Has a person let the parked removals of this mailbox go on?
pub async fn is_released(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<bool> {
    let asked = sqlx::query_scalar!("select release_asked from mailbox where mailbox_id = $1", mailbox.0);
    Ok(asked.fetch_optional(db).await?.unwrap_or(false))
}

/// The released messages of a parked folder are gone from the standby.
pub async fn carried_out(db: &mut PgConnection, mailbox: MailboxId, folder: &ParkedFolder) -> Result<()> {
    sqlx::query!(
        "delete from mirror_stray s using parked_message p, mirror_folder m
         where p.parked_folder_id = $2 and p.fate = 'released' and m.mailbox_id = $1 and m.standby_name = $3
           and s.mailbox_id = $1 and s.folder_id = m.folder_id and s.standby_uid = p.standby_uid",
        mailbox.0,
        folder.id,
        folder.standby_name
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from parked_message where parked_folder_id = $1 and fate = 'released'", folder.id)
        .execute(db)
        .await?;
    Ok(())
}

/// The deletion of a parked folder has been carried out, or is none any more.
pub async fn deletion_done(db: impl PgExecutor<'_>, folder: i64) -> Result<()> {
    sqlx::query!("update parked_folder set deletion = null where parked_folder_id = $1", folder).execute(db).await?;
    Ok(())
}

/// Subscriptions that a person let go.
pub async fn released_subscriptions(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<FolderPath>> {
    let rows = sqlx::query_scalar!(
        r#"select path as "path: Json<FolderPath>" from parked_subscription
           where mailbox_id = $1 and fate = 'released'"#,
        mailbox.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|path| path.0).collect())
}

/// Subscriptions that the standby keeps though the primary has them no longer.
pub async fn spared_subscriptions(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<FolderPath>> {
    let rows = sqlx::query_scalar!(
        r#"select path as "path: Json<FolderPath>" from parked_subscription where mailbox_id = $1"#,
        mailbox.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|path| path.0).collect())
}

/// The released subscriptions are gone from the standby.
pub async fn subscriptions_done(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!("delete from parked_subscription where mailbox_id = $1 and fate = 'released'", mailbox.0)
        .execute(db)
        .await?;
    Ok(())
}

/// A person says that the parked removals are meant. They are carried out with the mailbox's next turn. Answers how many messages.
pub async fn release(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<i64> {
    let messages = decide(&mut *db, mailbox, "released").await?;
    sqlx::query!("update mailbox set release_asked = true where mailbox_id = $1 and held", mailbox.0)
        .execute(&mut *db)
        .await?;
    event::record(db, "released", Some(mailbox), None, &json!({ "by": by, "messages": messages })).await?;
    Ok(messages)
}

/// A person says that the parked removals are not meant: the standby keeps those messages. Answers how many.
pub async fn discard(db: &mut PgConnection, mailbox: MailboxId, by: &str) -> Result<i64> {
    let messages = decide(&mut *db, mailbox, "kept").await?;
    event::record(&mut *db, "discarded", Some(mailbox), None, &json!({ "by": by, "messages": messages })).await?;
    settle(db, mailbox).await?;
    Ok(messages)
}

async fn decide(db: &mut PgConnection, mailbox: MailboxId, fate: &str) -> Result<i64> {
    // Nobody parks more meanwhile.
    crate::journal::lock(&mut *db, mailbox).await?;
    let messages = sqlx::query!(
        "update parked_message p set fate = $2 from parked_folder f
         where f.mailbox_id = $1 and f.parked_folder_id = p.parked_folder_id and p.fate = 'waiting'",
        mailbox.0,
        fate
    )
    .execute(&mut *db)
    .await?
    .rows_affected();
    sqlx::query!(
        "update parked_folder set deletion = $2 where mailbox_id = $1 and deletion = 'waiting'",
        mailbox.0,
        fate
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update parked_subscription set fate = $2 where mailbox_id = $1 and fate = 'waiting'",
        mailbox.0,
        fate
    )
    .execute(db)
    .await?;
    Ok(columns::size(messages))
}

/// Messages in a parked folder whose subjects people would want to see: the first and the last by UID, without one yet.
pub async fn to_describe(
    db: impl PgExecutor<'_>,
    mailbox: MailboxId,
    each: i64,
) -> Result<Vec<(i64, Uid, Digest, u64)>> {
    let rows = sqlx::query!(
        r#"select p.parked_folder_id as "parked_folder_id!", p.standby_uid as "standby_uid!", p.digest as "digest!", p.size as "size!"
           from parked_folder f
           cross join lateral (
               (select * from parked_message a where a.parked_folder_id = f.parked_folder_id and a.fate = 'waiting'
                order by a.standby_uid desc limit $2)
               union
               (select * from parked_message a where a.parked_folder_id = f.parked_folder_id and a.fate = 'waiting'
                order by a.standby_uid limit $2)
           ) p
           where f.mailbox_id = $1 and p.subject is null"#,
        mailbox.0,
        each
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let content = columns::content_ref(&row.digest, row.size)?;
            Ok((row.parked_folder_id, columns::uid(row.standby_uid)?, content.digest, content.size))
        })
        .collect()
}

/// Notes a parked message's subject.
pub async fn describe(db: impl PgExecutor<'_>, folder: i64, uid: Uid, subject: &str) -> Result<()> {
    sqlx::query!(
        "update parked_message set subject = $3 where parked_folder_id = $1 and standby_uid = $2",
        folder,
        i64::from(uid.0),
        subject
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One folder of what a release would remove, for people.
#[derive(Clone, Debug)]
pub struct HeldFolder {
    pub parked_folder_id: i64,
    pub path: FolderPath,
    pub deletes_folder: bool,
    pub messages: i64,
    pub bytes: i64,
    pub first_seq: Option<i64>,
    pub last_seq: Option<i64>,
}

/// One message of what a release would remove, for people.
#[derive(Clone, Debug)]
pub struct HeldMessage {
    pub parked_folder_id: i64,
    pub uid: i64,
    pub standby_uid: i64,
    pub size: i64,
    pub internal_date: String,
    pub subject: Option<String>,
    pub seq: i64,
}

/// What waits for a person, folder by folder.
pub async fn held_folders(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<HeldFolder>> {
    let rows = sqlx::query!(
        r#"select f.parked_folder_id, f.path as "path: Json<FolderPath>",
                  coalesce(f.deletion = 'waiting', false) as "deletes_folder!",
                  count(p.standby_uid) as "messages!", coalesce(sum(p.size), 0)::bigint as "bytes!",
                  min(p.seq) as first_seq, max(p.seq) as last_seq
           from parked_folder f
           left join parked_message p on p.parked_folder_id = f.parked_folder_id and p.fate = 'waiting'
           where f.mailbox_id = $1
           group by f.parked_folder_id
           having count(p.standby_uid) > 0 or coalesce(f.deletion = 'waiting', false)
           order by f.standby_name"#,
        mailbox.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| HeldFolder {
            parked_folder_id: row.parked_folder_id,
            path: row.path.0,
            deletes_folder: row.deletes_folder,
            messages: row.messages,
            bytes: row.bytes,
            first_seq: row.first_seq,
            last_seq: row.last_seq,
        })
        .collect())
}

/// Some of what waits for a person: of each folder the first and the last messages by UID.
pub async fn held_sample(db: impl PgExecutor<'_>, mailbox: MailboxId, each: i64) -> Result<Vec<HeldMessage>> {
    let rows = sqlx::query!(
        r#"select p.parked_folder_id as "parked_folder_id!", p.uid as "uid!", p.standby_uid as "standby_uid!", p.size as "size!",
                  p.internal_date as "internal_date!", p.subject, p.seq as "seq!"
           from parked_folder f
           cross join lateral (
               (select * from parked_message a where a.parked_folder_id = f.parked_folder_id and a.fate = 'waiting'
                order by a.standby_uid desc limit $2)
               union
               (select * from parked_message a where a.parked_folder_id = f.parked_folder_id and a.fate = 'waiting'
                order by a.standby_uid limit $2)
           ) p
           where f.mailbox_id = $1 order by f.standby_name, p.standby_uid"#,
        mailbox.0,
        each
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| HeldMessage {
            parked_folder_id: row.parked_folder_id,
            uid: row.uid,
            standby_uid: row.standby_uid,
            size: row.size,
            internal_date: row.internal_date,
            subject: row.subject,
            seq: row.seq,
        })
        .collect())
}

/// How many messages wait in all protected mailboxes together.
pub async fn waiting(db: impl PgExecutor<'_>) -> Result<i64> {
    let waiting = sqlx::query_scalar!(
        r#"select count(*) as "waiting!" from parked_message p join parked_folder f using (parked_folder_id)
           join mailbox m using (mailbox_id) where p.fate = 'waiting' and m.unprotected_at is null"#
    );
    Ok(waiting.fetch_one(db).await?)
}

/// Forgets what was parked in mailboxes that nobody protects any more; it stays on their standbys.
pub async fn forget_unprotected(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "delete from parked_folder f using mailbox m where m.mailbox_id = f.mailbox_id and m.unprotected_at is not null"
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from parked_subscription f using mailbox m
         where m.mailbox_id = f.mailbox_id and m.unprotected_at is not null"
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from brake_removal f using mailbox m where m.mailbox_id = f.mailbox_id and m.unprotected_at is not null"
    )
    .execute(db)
    .await?;
    Ok(())
}
