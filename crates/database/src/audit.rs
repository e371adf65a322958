//! The audit: every write with who, what, why, before and after, in a chain of BLAKE3 hashes.
//!
//! In: rows that triggers make beside the writes they tell of (`audit_change` in the schema), and [`record`] for what is no row.
//! Out: sealed rows; a verdict on the chain.
//! Keeps true: a row is sealed once, under the lock of the chain, as the next of the one order; the hash of each covers the
//! one before and every field, so that a change, a removal or another order shows from there on.
//! Not here: the heads kept outside, without which nobody could tell that the end was cut off.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{TenantId, words::counted};

use crate::Result;

/// The advisory lock of the chain: whoever seals, seals alone.
const LOCK: i64 = 0x0061_7564_6974;
/// Rows sealed or read at once.
const BATCH: i64 = 1000;
/// Problems named; the first is where to look.
const NAMED: usize = 20;

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub audit_id: i64,
    pub tenant_id: i64,
    pub at: DateTime<Utc>,
    pub who: String,
    pub action: String,
    pub subject: String,
    pub why: String,
    /// JSON text.
    pub before: Option<String>,
    pub after: Option<String>,
    /// Null until sealed.
    pub position: Option<i64>,
    pub hash: Option<Vec<u8>>,
}

/// The end of the chain at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub position: i64,
    pub hash: [u8; 32],
}

/// What is wrong with the chain, and from which position on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub position: i64,
    pub reason: String,
}

/// What became of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub entries: i64,
    /// Written, and not yet part of the chain.
    pub unsealed: i64,
    pub head: Option<Head>,
    /// The first of them, in order; empty when every entry is what was sealed.
    pub problems: Vec<Broken>,
}

/// Which entries to list.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub who: Option<&'a str>,
    /// The whole action, such as `mailbox changed`, or its noun.
    pub action: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
    /// Only entries with smaller numbers.
    pub before: Option<i64>,
    pub limit: i64,
}

/// Says who writes and why, for the rest of the SQL transaction of `db`.
pub async fn act_as(db: &mut PgConnection, tenant: TenantId, who: &str, why: &str) -> Result<()> {
    sqlx::query!(
        r#"select set_config('understudy.actor', $1, true) as "who!", set_config('understudy.reason', $2, true) as "why!",
                  set_config('understudy.tenant', $3, true) as "tenant!""#,
        who,
        why,
        tenant.0.to_string()
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Notes what is no change of a row, such as a log-in.
pub async fn record(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    who: &str,
    action: &str,
    subject: &str,
    after: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "insert into audit (tenant_id, who, action, subject, after) values ($1, $2, $3, $4, $5)",
        tenant.0,
        who,
        action,
        subject,
        after
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Notes the same of many things: of each its name and what is said of it, as JSON.
pub async fn record_each(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    who: &str,
    action: &str,
    subjects: &[String],
    after: &[String],
) -> Result<()> {
    sqlx::query!(
        "insert into audit (tenant_id, who, action, subject, after)
         select $1, $2, $3, noted.subject, noted.after from unnest($4::text[], $5::text[]) as noted (subject, after)",
        tenant.0,
        who,
        action,
        subjects,
        after
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Seals what is visible and not yet in the chain. To be the last thing in an SQL transaction: it holds the lock of the chain
/// until the end.
pub async fn seal(db: &mut PgConnection) -> Result<()> {
    let waiting = sqlx::query_scalar!(r#"select exists (select from audit where position is null) as "waiting!""#);
    if !waiting.fetch_one(&mut *db).await? {
        return Ok(());
    }
    sqlx::query!(r#"select pg_advisory_xact_lock($1) as "locked: ()""#, LOCK).fetch_one(&mut *db).await?;
    let mut head = head(&mut *db).await?;
    loop {
        let entries = sqlx::query_as!(
            Entry,
            "select audit_id, tenant_id, at, who, action, subject, why, before, after, position, hash
             from audit where position is null order by audit_id limit $1",
            BATCH
        )
        .fetch_all(&mut *db)
        .await?;
        if entries.is_empty() {
            return Ok(());
        }
        let (mut ids, mut positions, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &entries {
            let next = head.as_ref().map_or(1, |head| head.position + 1);
            let hash = hash_of(next, head.as_ref(), entry);
            ids.push(entry.audit_id);
            positions.push(next);
            hashes.push(hash.to_vec());
            head = Some(Head { position: next, hash });
        }
        sqlx::query!(
            "update audit a set position = s.position, hash = s.hash
             from unnest($1::bigint[], $2::bigint[], $3::bytea[]) as s (audit_id, position, hash)
             where a.audit_id = s.audit_id",
            &ids,
            &positions,
            &hashes
        )
        .execute(&mut *db)
        .await?;
    }
}

/// The last sealed entry.
pub async fn head(executor: impl PgExecutor<'_>) -> Result<Option<Head>> {
    let row = sqlx::query!(
        r#"select position as "position!", hash as "hash!" from audit where position is not null
           order by position desc limit 1"#
    );
    Ok(row.fetch_optional(executor).await?.map(|row| Head { position: row.position, hash: bytes(&row.hash) }))
}

/// A tenant's entries, newest first.
pub async fn list(executor: impl PgExecutor<'_>, tenant: TenantId, filter: &Filter<'_>) -> Result<Vec<Entry>> {
    let entries = sqlx::query_as!(
        Entry,
        "select audit_id, tenant_id, at, who, action, subject, why, before, after, position, hash from audit
         where tenant_id = $1
           and ($2::text is null or who = $2)
           and ($3::text is null or action = $3 or starts_with(action, $3 || ' '))
           and ($4::text is null or subject = $4)
           and ($5::timestamptz is null or at >= $5)
           and ($6::timestamptz is null or at < $6)
           and ($7::bigint is null or audit_id < $7)
         order by audit_id desc limit $8",
        tenant.0,
        filter.who,
        filter.action,
        filter.subject,
        filter.from,
        filter.to,
        filter.before,
        filter.limit
    );
    Ok(entries.fetch_all(executor).await?)
}

/// Reads the whole chain again and says what is not as it was sealed, or not as `known` heads from outside say it was.
pub async fn verify(db: &mut PgConnection, known: &[Head]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut known: Vec<&Head> = known.iter().collect();
    known.sort_unstable_by_key(|head| head.position);
    let mut expected = known.into_iter().peekable();
    let mut problems = Vec::new();
    loop {
        let after = verdict.head.as_ref().map_or(0, |head| head.position);
        let entries = sqlx::query_as!(
            Entry,
            "select audit_id, tenant_id, at, who, action, subject, why, before, after, position, hash
             from audit where position > $1 order by position limit $2",
            after,
            BATCH
        )
        .fetch_all(&mut *db)
        .await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let position = entry.position.unwrap_or_default();
            let next = verdict.head.as_ref().map_or(1, |head| head.position + 1);
            let hash = bytes(entry.hash.as_deref().unwrap_or_default());
            if position != next {
                let reason = format!("{} missing before it", counted(position - next, "entry is", "entries are"));
                problems.push(Broken { position, reason });
            } else if hash != hash_of(position, verdict.head.as_ref(), &entry) {
                let reason = "it is not what was sealed: changed, or put in another place".to_owned();
                problems.push(Broken { position, reason });
            }
            while let Some(head) = expected.next_if(|head| head.position <= position) {
                if head.position == position && head.hash != hash {
                    let reason = "its hash is not the one kept outside: the chain was written anew".to_owned();
                    problems.push(Broken { position, reason });
                }
            }
            verdict.entries += 1;
            verdict.head = Some(Head { position, hash });
        }
    }
    if let Some(last) = expected.last() {
        let position = verdict.head.as_ref().map_or(0, |head| head.position);
        let lost = last.position - position;
        let reason = format!("{} missing after it", counted(lost, "entry is", "entries are"));
        problems.push(Broken { position, reason });
    }
    problems.truncate(NAMED);
    verdict.problems = problems;
    let unsealed = sqlx::query_scalar!(r#"select count(*) as "unsealed!" from audit where position is null"#);
    verdict.unsealed = unsealed.fetch_one(db).await?;
    Ok(verdict)
}

fn bytes(hash: &[u8]) -> [u8; 32] {
    hash.try_into().unwrap_or_default()
}

/// The hash of an entry at its place: each field by its length, so that no two entries read alike.
fn hash_of(position: i64, previous: Option<&Head>, entry: &Entry) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("understudy audit 1");
    hasher.update(&previous.map(|head| head.hash).unwrap_or_default());
    for number in [position, entry.audit_id, entry.tenant_id, entry.at.timestamp_micros()] {
        hasher.update(&number.to_be_bytes());
    }
    let texts = [Some(&entry.who), Some(&entry.action), Some(&entry.subject), Some(&entry.why)];
    for text in texts.into_iter().chain([entry.before.as_ref(), entry.after.as_ref()]) {
        match text {
            None => hasher.update(&u64::MAX.to_be_bytes()),
            Some(text) => hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes()),
        };
    }
    hasher.finalize().into()
}
