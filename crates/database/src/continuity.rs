//! UID continuity: which standby folders serve the primary's UIDVALIDITY and UIDs, which lost that, and their rebuilding.
//!
//! Keeps true: a mailbox has continuity exactly while every folder that holds messages has it; a folder is rebuilt by
//! itself once, and again only after a while or when a person asks.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{FolderId, FolderPath, MailboxId, ModSeq, Uid, UidSet, UidValidity};

use crate::{Result, columns};

/// Does a standby folder serve the primary's UIDVALIDITY and UIDs?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Continuity {
    /// Never tried: the standby offers no way to set UIDVALIDITY.
    #[default]
    None,
    Kept,
    Lost {
        reason: String,
    },
    /// A rebuilt folder that does is taking its place.
    Swapping,
}

impl Continuity {
    pub(crate) fn from_columns(continuity: &str, reason: String) -> Self {
        match continuity {
            "kept" => Self::Kept,
            "lost" => Self::Lost { reason },
            "swapping" => Self::Swapping,
            _ => Self::None,
        }
    }

    pub(crate) fn column(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kept => "kept",
            Self::Lost { .. } => "lost",
            Self::Swapping => "swapping",
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Lost { reason } => reason,
            _ => "",
        }
    }
}

/// A folder whose UIDs a mail program would not recognise on the standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostFolder {
    pub path: FolderPath,
    pub reason: String,
}

/// The folders of a mailbox that lost continuity, and why.
pub async fn lost(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<LostFolder>> {
    let rows = sqlx::query!(
        r#"select path as "path: Json<FolderPath>", continuity_reason from mirror_folder
           where mailbox_id = $1 and selectable and continuity in ('lost', 'swapping') order by folder_id"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| LostFolder { path: row.path.0, reason: row.continuity_reason }).collect())
}

/// Says of the mailbox what its folders say together.
pub(crate) async fn refresh(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<()> {
    sqlx::query!(
        "update mailbox set uid_continuity = coalesce(
             (select bool_and(continuity = 'kept') from mirror_folder where mailbox_id = $1 and selectable), false)
         where mailbox_id = $1",
        mailbox.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Folders to rebuild now, where the standby can be told numbers: those just being swapped, those filled before that was
/// so, and those that lost continuity: once by itself; again where that was interrupted (twice at most), where the last
/// rebuild went well but for longer than `pause`, or when a person has asked to try again since.
pub async fn due(db: impl PgExecutor<'_>, mailbox: MailboxId, pause: Duration) -> Result<Vec<FolderId>> {
    let rows = sqlx::query_scalar!(
        "select f.folder_id from mirror_folder f
         join mailbox m using (mailbox_id) join server s on s.server_id = m.standby_server_id
         where f.mailbox_id = $1 and m.phase = 'mirroring' and not m.held and f.selectable
           and s.definition -> 'manage' is not null
           and (f.continuity = 'swapping'
                or (f.continuity in ('none', 'lost')
                    and (f.rebuilt_at is null or f.rebuilt_attempt <> m.attempt or f.rebuild_tries between 1 and 2
                         or (f.rebuild_tries = 0 and f.rebuilt_at < now() - make_interval(secs => $2)))))
         order by f.folder_id",
        mailbox.0,
        pause.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(FolderId).collect())
}

/// Mailboxes with folders to rebuild now.
pub async fn mailboxes_due(db: impl PgExecutor<'_>, pause: Duration) -> Result<Vec<MailboxId>> {
    let rows = sqlx::query_scalar!(
        "select distinct f.mailbox_id from mirror_folder f
         join mailbox m using (mailbox_id) join server s on s.server_id = m.standby_server_id
         where m.phase = 'mirroring' and not m.held and not m.paused and m.unprotected_at is null and f.selectable
           and f.continuity <> 'kept' and s.definition -> 'manage' is not null
           and (f.continuity = 'swapping'
                or (f.continuity in ('none', 'lost')
                    and (f.rebuilt_at is null or f.rebuilt_attempt <> m.attempt or f.rebuild_tries between 1 and 2
                         or (f.rebuild_tries = 0 and f.rebuilt_at < now() - make_interval(secs => $1)))))",
        pause.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(MailboxId).collect())
}

/// A rebuild begins. Until it is noted as done, it counts as a try.
pub async fn rebuilding(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId, attempt: i32) -> Result<()> {
    sqlx::query!(
        "update mirror_folder set rebuilt_at = now(), rebuilt_attempt = $3,
             rebuild_tries = case when rebuilt_attempt = $3 then rebuild_tries + 1 else 1 end
         where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
        attempt,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A rebuilt folder is whole and takes its place from here on, whatever happens.
pub async fn swapping(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId) -> Result<()> {
    sqlx::query!(
        "update mirror_folder set continuity = 'swapping' where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
    )
    .execute(&mut *db)
    .await?;
    refresh(db, mailbox).await
}

/// A rebuild was given up for something more urgent: it is due again, as if it had not begun.
pub async fn postponed(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId) -> Result<()> {
    sqlx::query!(
        "update mirror_folder set rebuilt_at = null, rebuild_tries = 0 where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Those of these mailboxes in which a rebuilt folder is just taking its place.
pub async fn swapping_in(db: impl PgExecutor<'_>, mailboxes: &[MailboxId]) -> Result<Vec<MailboxId>> {
    let numbers: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
    let rows = sqlx::query_scalar!(
        "select distinct f.mailbox_id from unnest($1::bigint[]) asked (mailbox_id)
         join mirror_folder f using (mailbox_id) where f.continuity = 'swapping'",
        &numbers
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(MailboxId).collect())
}

/// A rebuild cannot succeed before a person does something.
pub async fn give_up(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId, reason: &str) -> Result<()> {
    sqlx::query!(
        "update mirror_folder set continuity = 'lost', continuity_reason = $3, rebuild_tries = 3
         where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
        reason,
    )
    .execute(&mut *db)
    .await?;
    refresh(db, mailbox).await
}

/// The user came home: where messages have other UIDs there than on the standby, that folder lost continuity. However lately it was
/// rebuilt, it is again.
pub async fn came_home(db: &mut PgConnection, mailbox: MailboxId) -> Result<()> {
    sqlx::query!(
        "update mirror_folder f set continuity = 'lost', rebuild_tries = 0, rebuilt_at = null,
             continuity_reason = 'the user worked on the standby, and what came home has other UIDs on the primary'
         where mailbox_id = $1 and selectable and continuity in ('kept', 'lost')
           and exists (select from mirror_message a where a.mailbox_id = f.mailbox_id and a.folder_id = f.folder_id
                         and a.standby_uid <> a.uid)",
        mailbox.0,
    )
    .execute(&mut *db)
    .await?;
    refresh(db, mailbox).await
}

/// Has every message of a folder that is on the standby the UID there that it has on the primary?
pub async fn has_same_uids(db: impl PgExecutor<'_>, mailbox: MailboxId, folder: FolderId) -> Result<bool> {
    let same = sqlx::query_scalar!(
        r#"select not exists (select from mirror_message
               where mailbox_id = $1 and folder_id = $2 and standby_uid <> uid) as "same!""#,
        mailbox.0,
        folder.0,
    )
    .fetch_one(db)
    .await?;
    Ok(same)
}

/// The numbers of a rebuilt folder on the standby.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    pub mod_seq: ModSeq,
    /// Every message there.
    pub uids: UidSet,
}

/// A rebuilt folder took its place: each message there has the UID it has on the primary.
pub async fn rebuilt(db: &mut PgConnection, mailbox: MailboxId, folder: FolderId, rebuilt: &Rebuilt) -> Result<()> {
    let (low, high) = columns::ranges(&rebuilt.uids);
    sqlx::query!(
        "update mirror_message m set standby_uid = case when r.low is null then null else m.uid end,
             set_aside = case when r.low is null then 'refused' when m.set_aside = 'refused' then null else m.set_aside end,
             set_aside_reason = case
                 when r.low is null and m.set_aside is null then 'the standby did not hold it when its folder was rebuilt'
                 when r.low is not null and m.set_aside = 'refused' then '' else m.set_aside_reason end
         from mirror_message a
         left join unnest($3::bigint[], $4::bigint[]) as r (low, high) on a.uid between r.low and r.high
         where a.mailbox_id = $1 and a.folder_id = $2
           and m.mailbox_id = a.mailbox_id and m.folder_id = a.folder_id and m.uid = a.uid",
        mailbox.0,
        folder.0,
        &low,
        &high,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from mirror_stray where mailbox_id = $1 and folder_id = $2", mailbox.0, folder.0)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from mirror_stray where mailbox_id = $1 and folder_id = $2", mailbox.0, folder.0)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "update mirror_folder set standby_uid_validity = $3, standby_uid_next = $4, standby_mod_seq = $5,
             continuity = 'kept', continuity_reason = '', rebuild_tries = 0
         where mailbox_id = $1 and folder_id = $2",
        mailbox.0,
        folder.0,
        i64::from(rebuilt.uid_validity.0),
        i64::from(rebuilt.uid_next.0),
        columns::mod_seq(rebuilt.mod_seq),
    )
    .execute(&mut *db)
    .await?;
    refresh(db, mailbox).await
}
