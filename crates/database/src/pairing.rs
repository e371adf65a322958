//! Sites that were paired: invitations, peers and their certificates. Keys are in files, never here.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::Result;

/// The NOTIFY channel that tells of peers that came or were revoked.
pub const CHANNEL: &str = "understudy_pairing";

/// The recovery gateway's own keys, as far as people may know them.
#[derive(Clone, Debug)]
pub struct AuthorityRow {
    pub fingerprint: Vec<u8>,
    pub expires_at: DateTime<Utc>,
    pub served_fingerprint: Vec<u8>,
    pub served_expires_at: DateTime<Utc>,
    pub listen: String,
    pub encrypted: bool,
}

/// A token's record.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub invitation_id: Uuid,
    pub name: String,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub withdrawn_at: Option<DateTime<Utc>>,
    pub used_at: Option<DateTime<Utc>>,
}

/// A paired source gateway with its latest certificate.
#[derive(Clone, Debug)]
pub struct Peer {
    pub peer_id: Uuid,
    pub name: String,
    pub product_version: String,
    pub joined_from: String,
    pub joined_at: DateTime<Utc>,
    pub connected_from: Option<String>,
    pub connected_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub revoked_by: Option<String>,
    pub fingerprint: Vec<u8>,
    pub expires_at: DateTime<Utc>,
}

/// What a token's secret is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invited {
    /// Nobody made it.
    Unknown,
    Expired(DateTime<Utc>),
    Withdrawn,
    /// Another key was certified with it.
    Used(DateTime<Utc>),
    /// This very key was certified already: the answer was lost.
    Again {
        peer: Uuid,
        name: String,
    },
    Welcome {
        invitation: Uuid,
        name: String,
    },
}

/// A certificate that was signed here and has not expired.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub fingerprint: Vec<u8>,
    pub peer_id: Uuid,
    pub revoked: bool,
}

/// A peer whose last certificate ends soon.
#[derive(Clone, Debug)]
pub struct Ending {
    pub name: String,
    pub expires_at: DateTime<Utc>,
}

/// Says what the recovery gateway shows.
pub async fn serves(db: impl PgExecutor<'_>, row: &AuthorityRow) -> Result<()> {
    sqlx::query!(
        "insert into link_authority (fingerprint, expires_at, served_fingerprint, served_expires_at, listen, encrypted)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (link_id) do update
             set fingerprint = excluded.fingerprint, expires_at = excluded.expires_at,
                 served_fingerprint = excluded.served_fingerprint, served_expires_at = excluded.served_expires_at,
                 listen = excluded.listen, encrypted = excluded.encrypted",
        row.fingerprint,
        row.expires_at,
        row.served_fingerprint,
        row.served_expires_at,
        row.listen,
        row.encrypted,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The recovery gateway speaks in clear text, on its own machine: nobody can be paired with it now.
pub async fn serves_in_clear(db: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query!("update link_authority set encrypted = false").execute(db).await?;
    Ok(())
}

/// What the recovery gateway shows; none before it first ran.
pub async fn authority(db: impl PgExecutor<'_>) -> Result<Option<AuthorityRow>> {
    let row = sqlx::query_as!(
        AuthorityRow,
        "select fingerprint, expires_at, served_fingerprint, served_expires_at, listen, encrypted from link_authority"
    );
    Ok(row.fetch_optional(db).await?)
}

/// Keeps a new invitation.
pub async fn invite(
    db: impl PgExecutor<'_>,
    secret_digest: &[u8],
    name: &str,
    created_by: &str,
    expires_at: DateTime<Utc>,
) -> Result<Invitation> {
    let invitation = sqlx::query_as!(
        Invitation,
        "insert into link_invitation (invitation_id, secret_digest, name, created_by, expires_at)
         values ($1, $2, $3, $4, $5)
         returning invitation_id, name, created_by, created_at, expires_at, withdrawn_at, used_at",
        Uuid::now_v7(),
        secret_digest,
        name,
        created_by,
        expires_at,
    );
    Ok(invitation.fetch_one(db).await?)
}

/// The latest invitations, used and expired ones too.
pub async fn invitations(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Invitation>> {
    let rows = sqlx::query_as!(
        Invitation,
        "select invitation_id, name, created_by, created_at, expires_at, withdrawn_at, used_at from link_invitation
         order by invitation_id desc limit $1",
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// Makes an invitation worthless; false when there is none, or it was used. Safe to repeat.
pub async fn withdraw(db: impl PgExecutor<'_>, invitation: Uuid) -> Result<bool> {
    let withdrawn = sqlx::query!(
        "update link_invitation set withdrawn_at = coalesce(withdrawn_at, now())
         where invitation_id = $1 and used_at is null",
        invitation
    );
    Ok(withdrawn.execute(db).await?.rows_affected() > 0)
}

/// What a token's secret is good for, for the key with this digest. Locks the invitation.
pub async fn invited(db: &mut PgConnection, secret_digest: &[u8], key: &[u8]) -> Result<Invited> {
    let row = sqlx::query!(
        r#"select i.invitation_id, i.name, i.expires_at, i.expires_at <= now() as "expired!", i.withdrawn_at, i.used_at,
                  i.used_with, i.peer_id, p.name as "peer_name?", p.revoked_at as "revoked_at?"
           from link_invitation i left join link_peer p on p.peer_id = i.peer_id
           where i.secret_digest = $1 for update of i"#,
        secret_digest
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(Invited::Unknown) };
    if let Some(at) = row.used_at {
        return Ok(match (row.peer_id, row.peer_name) {
            (Some(peer), Some(name)) if row.used_with.as_deref() == Some(key) && row.revoked_at.is_none() => {
                Invited::Again { peer, name }
            }
            _ => Invited::Used(at),
        });
    }
    if row.withdrawn_at.is_some() {
        return Ok(Invited::Withdrawn);
    }
    if row.expired {
        return Ok(Invited::Expired(row.expires_at));
    }
    Ok(Invited::Welcome { invitation: row.invitation_id, name: row.name })
}

/// A name that no paired site has: `wanted`, or with a number behind it.
pub async fn free_name(db: &mut PgConnection, wanted: &str) -> Result<String> {
    // Two that ask at once wait for each other.
    sqlx::query!("lock table link_peer in share row exclusive mode").execute(&mut *db).await?;
    let taken = sqlx::query_scalar!("select name from link_peer where revoked_at is null").fetch_all(db).await?;
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let free = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    Ok(free.unwrap_or_else(|| wanted.to_owned()))
}

/// A site is paired by this invitation.
pub async fn joined(
    db: &mut PgConnection,
    invitation: Uuid,
    key: &[u8],
    name: &str,
    product_version: &str,
    from: &str,
) -> Result<Uuid> {
    let peer = Uuid::now_v7();
    sqlx::query!(
        "insert into link_peer (peer_id, name, product_version, joined_from) values ($1, $2, $3, $4)",
        peer,
        name,
        product_version,
        from,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update link_invitation set used_at = now(), used_with = $2, peer_id = $3 where invitation_id = $1",
        invitation,
        key,
        peer,
    )
    .execute(db)
    .await?;
    Ok(peer)
}

/// A certificate was signed for a peer. Those that ended long ago are forgotten.
pub async fn certified(db: &mut PgConnection, peer: Uuid, fingerprint: &[u8], expires_at: DateTime<Utc>) -> Result<()> {
    sqlx::query!("delete from link_certificate where peer_id = $1 and expires_at < now() - interval '30 days'", peer)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "insert into link_certificate (fingerprint, peer_id, expires_at) values ($1, $2, $3)",
        fingerprint,
        peer,
        expires_at,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("update link_peer set warned_at = null where peer_id = $1", peer).execute(db).await?;
    Ok(())
}

/// The name of a peer that was not revoked; locks it, so that nobody revokes it meanwhile.
pub async fn lock_good(db: &mut PgConnection, peer: Uuid) -> Result<Option<String>> {
    let name =
        sqlx::query_scalar!("select name from link_peer where peer_id = $1 and revoked_at is null for update", peer);
    Ok(name.fetch_optional(db).await?)
}

/// Every certificate that may still be shown.
pub async fn certificates(db: impl PgExecutor<'_>) -> Result<Vec<Certificate>> {
    let rows = sqlx::query_as!(
        Certificate,
        r#"select c.fingerprint, c.peer_id, p.revoked_at is not null as "revoked!"
           from link_certificate c join link_peer p using (peer_id)"#
    );
    Ok(rows.fetch_all(db).await?)
}

/// A peer's connection began.
pub async fn connected(db: impl PgExecutor<'_>, peer: Uuid, from: &str) -> Result<()> {
    sqlx::query!("update link_peer set connected_at = now(), connected_from = $2 where peer_id = $1", peer, from)
        .execute(db)
        .await?;
    Ok(())
}

/// Paired sites by name; revoked ones too.
pub async fn peers(db: impl PgExecutor<'_>, after: Option<Uuid>, limit: i64) -> Result<Vec<Peer>> {
    let rows = sqlx::query_as!(
        Peer,
        r#"select p.peer_id, p.name, p.product_version, p.joined_from, p.joined_at, p.connected_from, p.connected_at,
                  p.revoked_at, p.revoked_by, c.fingerprint as "fingerprint!", c.expires_at as "expires_at!"
           from link_peer p cross join lateral (
               select fingerprint, expires_at from link_certificate c where c.peer_id = p.peer_id
               order by expires_at desc limit 1) c
           where $1::uuid is null or p.peer_id > $1
           order by p.peer_id limit $2"#,
        after,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The peer called so that is paired now.
pub async fn peer_named(db: impl PgExecutor<'_>, name: &str) -> Result<Option<Uuid>> {
    let peer = sqlx::query_scalar!("select peer_id from link_peer where name = $1 and revoked_at is null", name);
    Ok(peer.fetch_optional(db).await?)
}

/// Ends a pairing: none of the peer's certificates counts any more.
pub async fn revoke(db: &mut PgConnection, peer: Uuid, by: &str) -> Result<bool> {
    let revoked = sqlx::query!(
        "update link_peer set revoked_at = now(), revoked_by = $2 where peer_id = $1 and revoked_at is null",
        peer,
        by
    );
    let revoked = revoked.execute(&mut *db).await?.rows_affected() > 0;
    tell(db).await?;
    Ok(revoked)
}

/// Tells whoever decides about connections. Belongs in the SQL transaction that changed a peer.
pub async fn tell(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(r#"select pg_notify('understudy_pairing', '') as "notified: ()""#).fetch_one(db).await?;
    Ok(())
}

/// Peers whose last certificate ends before `until` and of which nobody was warned; now they were.
pub async fn ending(db: impl PgExecutor<'_>, until: DateTime<Utc>) -> Result<Vec<Ending>> {
    let rows = sqlx::query_as!(
        Ending,
        r#"update link_peer p set warned_at = now()
           from (select peer_id, max(expires_at) as expires_at from link_certificate group by peer_id) c
           where c.peer_id = p.peer_id and c.expires_at < $1 and p.warned_at is null and p.revoked_at is null
           returning p.name, c.expires_at as "expires_at!""#,
        until
    );
    Ok(rows.fetch_all(db).await?)
}
