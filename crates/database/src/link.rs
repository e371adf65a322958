//! What the source gateway is told, and when it was last heard of.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    Epoch, FolderId, FolderPath, MailboxId, Seq, TenantId,
    messages::{Assignment, Hello, MailboxReport, Unreadable},
    server::Server,
};
use uuid::Uuid;

use crate::{Result, columns};

/// Says that the source gateway has something new to learn. Belongs in the SQL transaction that made it so.
pub async fn directives_changed(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        r#"select nextval('directive_version') as "version!", pg_notify('understudy_directive', '') as "notified: ()""#
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// The version of what a source gateway must know; rises with every change.
pub async fn directive_version(db: impl PgExecutor<'_>) -> Result<u64> {
    let version = sqlx::query_scalar!("select last_value from directive_version").fetch_one(db).await?;
    Ok(version.unsigned_abs())
}

/// Every primary that has a protected mailbox.
pub async fn primaries(db: impl PgExecutor<'_>) -> Result<Vec<Server>> {
    let rows = sqlx::query_scalar!(
        r#"select definition as "definition: Json<Server>" from server
           where server_id in (select primary_server_id from mailbox where unprotected_at is null)"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Every protected mailbox, as the source gateway must know it.
pub async fn assignments(db: impl PgExecutor<'_>) -> Result<Vec<Assignment>> {
    let rows = sqlx::query!(
        r#"select m.mailbox_id, m.tenant_id, m.address, s.name as server, m.epoch,
                  -- Where the user works on the standby, the primary is read by whoever brings the user home.
                  m.paused or m.phase in ('on_standby', 'switching_back') as "paused!", m.attempt, m.received_seq,
                  m.applied_seq, m.received_digest,
                  coalesce((p.document ->> 'priority')::numeric::int, m.priority) as "priority!"
           from mailbox m join server s on s.server_id = m.primary_server_id
           left join policy p on p.tenant_id = m.tenant_id and p.name = m.policy
           where m.unprotected_at is null order by m.mailbox_id"#
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Assignment {
                mailbox: MailboxId(row.mailbox_id),
                tenant: TenantId(row.tenant_id),
                address: row.address,
                server: row.server,
                priority: row.priority,
                epoch: Epoch(row.epoch),
                paused: row.paused,
                attempt: row.attempt,
                received: Seq(row.received_seq),
                applied: Seq(row.applied_seq),
                digest: columns::maybe_digest(&row.received_digest)?,
            })
        })
        .collect()
}

/// What came of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeted {
    Welcome,
    /// Another one was heard of this many seconds ago. `news`: this one was not turned away lately already.
    Refused {
        heard_ago: i64,
        news: bool,
    },
}

/// A source gateway introduces itself. A later life of the same installation takes over at once; another installation,
/// or an earlier life, only after the one listened to has been silent for so long. One that does not name its
/// installation is taken at its word.
pub async fn greeted(db: impl PgExecutor<'_>, hello: &Hello, silence: Duration) -> Result<Greeted> {
    let row = sqlx::query!(
        r#"with before as (
               select coalesce(not $2::uuid = '00000000-0000-0000-0000-000000000000'
                                   and heard_at > now() - make_interval(secs => $4::float8)
                                   and (installation <> $2 or gateway > $1), false) as taken,
                      coalesce(extract(epoch from now() - heard_at)::bigint, 0) as heard_ago,
                      refused_installation is distinct from $2
                          or coalesce(refused_at < now() - interval '1 hour', true) as news
               from link where link_id = 1 for update)
           update link set
               gateway = case when taken then gateway else $1 end,
               installation = case when taken then installation else $2 end,
               product_version = case when taken then product_version else $3 end,
               hello_at = case when taken then hello_at else now() end,
               heard_at = case when taken then heard_at else now() end,
               turned_away_at = case when taken then now() else turned_away_at end,
               refused_installation = case when taken then $2 when refused_installation = $2 then null
                                           else refused_installation end,
               refused_at = case when taken and news then now() when refused_installation = $2 and not taken then null
                                 else refused_at end
           from before where link_id = 1
           returning taken as "taken!", heard_ago as "heard_ago!", news as "news!""#,
        hello.gateway,
        hello.installation,
        hello.product_version,
        silence.as_secs_f64(),
    )
    .fetch_one(db)
    .await?;
    Ok(if row.taken { Greeted::Refused { heard_ago: row.heard_ago, news: row.news } } else { Greeted::Welcome })
}

/// Is this the process life of a source gateway that is listened to?
pub async fn is_current(db: impl PgExecutor<'_>, gateway: Uuid) -> Result<bool> {
    let current = sqlx::query_scalar!("select gateway from link where link_id = 1").fetch_one(db).await?;
    Ok(current == Some(gateway))
}

/// The messages that a primary could not give when it was last asked.
pub async fn unreadable_of(db: impl PgExecutor<'_>, mailbox: MailboxId) -> Result<Vec<Unreadable>> {
    let rows = sqlx::query!(
        r#"select folder_id, path as "path: Json<FolderPath>", uid, size, reason from mailbox_unreadable
           where mailbox_id = $1 order by folder_id, uid"#,
        mailbox.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Unreadable {
                folder: FolderId(row.folder_id),
                path: row.path.0,
                uid: columns::uid(row.uid)?,
                size: row.size.unsigned_abs(),
                reason: row.reason,
            })
        })
        .collect()
}

/// Replaces what is known of the messages that a primary cannot give.
pub async fn unreadable(db: &mut PgConnection, mailbox: MailboxId, messages: &[Unreadable]) -> Result<()> {
    if messages.is_empty() {
        sqlx::query!("delete from mailbox_unreadable where mailbox_id = $1", mailbox.0).execute(db).await?;
        return Ok(());
    }
    let folders: Vec<i32> = messages.iter().map(|message| message.folder.0).collect();
    let paths: Vec<Json<&FolderPath>> = messages.iter().map(|message| Json(&message.path)).collect();
    let uids: Vec<i64> = messages.iter().map(|message| i64::from(message.uid.0)).collect();
    let sizes: Vec<i64> = messages.iter().map(|message| columns::size(message.size)).collect();
    let reasons: Vec<String> = messages.iter().map(|message| message.reason.clone()).collect();
    sqlx::query!(
        "delete from mailbox_unreadable u
         where u.mailbox_id = $1 and not exists (
             select from unnest($2::int[], $3::bigint[]) as m (folder_id, uid)
             where m.folder_id = u.folder_id and m.uid = u.uid)",
        mailbox.0,
        &folders,
        &uids,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "insert into mailbox_unreadable (mailbox_id, folder_id, path, uid, size, reason)
         select $1, m.folder_id, m.path, m.uid, m.size, m.reason
         from unnest($2::int[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[])
              as m (folder_id, path, uid, size, reason)
         on conflict (mailbox_id, folder_id, uid) do update
             set path = excluded.path, size = excluded.size, reason = excluded.reason",
        mailbox.0,
        &folders,
        &paths as &[Json<&FolderPath>],
        &uids,
        &sizes,
        &reasons,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the source gateway lives.
pub async fn heard(db: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query!("update link set heard_at = now() where link_id = 1").execute(db).await?;
    Ok(())
}

/// How a mailbox fares at the source; with an empty capability only its trouble is news. Answers whether what a person sees of it changed.
pub async fn reported(db: impl PgExecutor<'_>, report: &MailboxReport) -> Result<bool> {
    let trouble = report.trouble.as_ref().map(Json);
    let row = sqlx::query!(
        r#"update mailbox new set captured_seq = greatest(new.captured_seq, $2),
                capability = case when $3 = '' then new.capability else $3 end,
                messages_done = case when $3 = '' then new.messages_done else $4 end,
                messages_total = case when $3 = '' then new.messages_total else $5 end,
                bytes_done = case when $3 = '' then new.bytes_done else $6 end,
                bytes_total = case when $3 = '' then new.bytes_total else $7 end,
                swept_at = coalesce($8, new.swept_at),
                source_trouble = $9,
                seeded_seq = case when $10 then coalesce(new.seeded_seq, $2) else new.seeded_seq end
           from mailbox old
           where new.mailbox_id = $1 and old.mailbox_id = new.mailbox_id
           returning (old.source_trouble is distinct from new.source_trouble) as "changed!""#,
        report.mailbox.0,
        report.captured.0,
        report.capability,
        columns::size(report.progress.messages_done),
        columns::size(report.progress.messages_total),
        columns::size(report.progress.bytes_done),
        columns::size(report.progress.bytes_total),
        report.swept_at,
        trouble as Option<Json<&understudy_protocol::messages::Trouble>>,
        report.seeded,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some_and(|row| row.changed))
}
