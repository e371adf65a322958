//! What the source gateway is told, and when it was last heard of.

use sqlx::{PgConnection, PgExecutor, types::Json};
use understudy_protocol::{
    Epoch, MailboxId, Seq, TenantId,
    messages::{Assignment, MailboxReport},
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
        "select m.mailbox_id, m.tenant_id, m.address, s.name as server, m.epoch, m.paused, m.attempt, m.received_seq,
                m.applied_seq
         from mailbox m join server s on s.server_id = m.primary_server_id
         where m.unprotected_at is null order by m.mailbox_id"
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Assignment {
            mailbox: MailboxId(row.mailbox_id),
            tenant: TenantId(row.tenant_id),
            address: row.address,
            server: row.server,
            epoch: Epoch(row.epoch),
            paused: row.paused,
            attempt: row.attempt,
            received: Seq(row.received_seq),
            applied: Seq(row.applied_seq),
        })
        .collect())
}

/// Notes that the source gateway introduced itself; a later one takes over from an earlier one.
pub async fn greeted(db: impl PgExecutor<'_>, gateway: Uuid, product_version: &str) -> Result<()> {
    sqlx::query!(
        "update link set gateway = $1, product_version = $2, hello_at = now(), heard_at = now() where link_id = 1",
        gateway,
        product_version,
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
