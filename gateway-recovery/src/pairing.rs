//! Whom the link lets in: the authority, the list of certificates it signed, and its own certificate.
//!
//! In: connections with their certificates, tokens, the database's list. Out: certificates; events about who was refused.
//! Keeps true: a revoked certificate is refused, and its connections end, within moments; nobody is let in because the
//! database did not answer.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    event,
    pairing::{self, AuthorityRow, Invited},
};
use understudy_pairing::{
    Authority, Fingerprint, Issued, JoinAnswer, JoinRequest, Known, Life, Listed, ServerKeys, Standing, secret_digest,
    server_for_join, server_for_link,
};
use uuid::Uuid;

/// How often the list is read, in case a notification was lost.
const POLL: Duration = Duration::from_secs(2);
/// How often it is looked whether a certificate ends soon.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate of 90 days is warned of 14 days before its end; a shorter one in proportion.
const WARNED_DAYS: u32 = 14;
const OF_DAYS: u32 = 90;
/// The same refusal of the same address becomes an event no more often than this, …
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// … and so many different ones are remembered.
const REFUSED_REMEMBERED: usize = 1000;
/// The longest name of a site.
const LONGEST_NAME: usize = 64;

/// Who is at the other end of an encrypted connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) id: Uuid,
}

/// Why somebody was not let in: what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
    pub(crate) remedy: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>, remedy: &'static str) -> Self {
        Self { status, reason: reason.into(), remedy }
    }
}

/// Either a refusal, or we could not.
pub(crate) enum JoinError {
    Refused(Refusal),
    Ours(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for JoinError {
    fn from(error: E) -> Self {
        Self::Ours(error.into())
    }
}

const NEW_TOKEN: &str = "make a new one at the recovery site with `understudy link invite`";
const PAIR_AGAIN: &str =
    "pair the sites again: `understudy link invite` at the recovery site, `understudy link join` at the source site";

/// The recovery site's end of pairing.
pub(crate) struct Pairing {
    pool: PgPool,
    authority: Authority,
    keys: ServerKeys,
    known: Known,
    /// Rises when the list changed.
    listed: watch::Sender<u64>,
    life: Duration,
    listen: SocketAddr,
    served: Mutex<Life>,
    refused: Mutex<HashMap<(String, IpAddr), Instant>>,
    pub(crate) for_link: Arc<rustls::ServerConfig>,
    pub(crate) for_join: Arc<rustls::ServerConfig>,
}

impl Pairing {
    /// Opens or makes the keys; certificates are valid for `life`.
    pub(crate) async fn open(
        pool: PgPool,
        data_dir: &Path,
        life: Duration,
        listen: SocketAddr,
    ) -> anyhow::Result<Arc<Self>> {
        let authority = Authority::open(data_dir).context("could not open the link's authority")?;
        let (issued, key) = authority.serve(life).context("could not make the recovery gateway's certificate")?;
        let keys = ServerKeys::new(&authority, &issued.der, &key)?;
        let known = Known::default();
        let for_link = server_for_link(&authority, &keys, &known)?;
        let for_join = server_for_join(&keys)?;
        let this = Arc::new(Self {
            pool,
            authority,
            keys,
            known,
            listed: watch::Sender::new(0),
            life,
            listen,
            served: Mutex::new(issued.life),
            refused: Mutex::default(),
            for_link,
            for_join,
        });
        this.say(&issued).await?;
        this.read_list().await?;
        tracing::info!(fingerprint = %this.authority.fingerprint(), "The link takes paired sites only, by TLS 1.3");
        Ok(this)
    }

    async fn say(&self, served: &Issued) -> anyhow::Result<()> {
        let row = AuthorityRow {
            fingerprint: self.authority.fingerprint().0.to_vec(),
            expires_at: Life::of(self.authority.certificate())?.until,
            served_fingerprint: served.fingerprint.0.to_vec(),
            served_expires_at: served.life.until,
            listen: self.listen.to_string(),
            encrypted: true,
        };
        pairing::serves(&self.pool, &row).await?;
        Ok(())
    }

    async fn read_list(&self) -> anyhow::Result<()> {
        let rows = pairing::certificates(&self.pool).await?;
        let listed = rows.into_iter().filter_map(|row| {
            let fingerprint = Fingerprint(row.fingerprint.try_into().ok()?);
            let standing = if row.revoked { Standing::Revoked } else { Standing::Good };
            Some((fingerprint, Listed { peer: row.peer_id, standing }))
        });
        self.known.replace(listed.collect());
        self.listed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Keeps the list, the own certificate and warnings up to date until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let renewing = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = self.look_after().await {
                    tracing::warn!(error = format!("{error:#}"), "Could not look after the link's certificates");
                }
            }
        };
        let following = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::warn!(error = format!("{error:#}"), "Lost sight of the paired sites; trying again");
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = renewing => {}
            () = following => {}
        }
    }

    async fn follow(&self) -> anyhow::Result<()> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(pairing::CHANNEL).await?;
        loop {
            self.read_list().await?;
            if let Ok(heard) = tokio::time::timeout(POLL, listener.recv()).await {
                heard?;
            }
        }
    }

    async fn look_after(&self) -> anyhow::Result<()> {
        let served = *self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if Utc::now() >= served.renew_at() {
            let (issued, key) = self.authority.serve(self.life)?;
            self.keys.replace(&self.authority, &issued.der, &key)?;
            *self.served.lock().unwrap_or_else(PoisonError::into_inner) = issued.life;
            self.say(&issued).await?;
            tracing::info!(until = %issued.life.until, "The recovery gateway renewed its certificate");
        }
        let soon = Utc::now() + self.life.min(Duration::from_secs(u64::from(OF_DAYS) * 86400)) * WARNED_DAYS / OF_DAYS;
        for ending in pairing::ending(&self.pool, soon).await? {
            let left = (ending.expires_at - Utc::now()).num_days();
            tracing::warn!(
                peer = ending.name,
                "The certificate of {} ends in {left} days and was not renewed",
                ending.name
            );
            let detail = json!({
                "name": ending.name,
                "expires_at": ending.expires_at,
                "reason": "its source gateway has not renewed it, as it does by itself while the link is up",
                "remedy": "bring its link up before then; afterwards the sites have to be paired again",
            });
            event::record(&self.pool, "link_certificate_ending", None, None, &detail).await?;
        }
        Ok(())
    }

    /// Who showed this certificate; none when it does not count any more.
    pub(crate) fn peer(&self, certificate: &[u8]) -> Option<Peer> {
        let listed = self.known.get(Fingerprint::of(certificate))?;
        (listed.standing == Standing::Good).then_some(Peer { id: listed.peer })
    }

    /// Returns once this certificate does not count any more.
    pub(crate) async fn gone(&self, certificate: &[u8]) {
        let until = Life::of(certificate).map_or_else(|_| Utc::now(), |life| life.until);
        let mut listed = self.listed.subscribe();
        while self.peer(certificate).is_some() {
            let left = (until - Utc::now()).to_std().unwrap_or_default();
            if left.is_zero() {
                return;
            }
            // The clock may be set meanwhile: no wait is longer than the poll.
            let _ = tokio::time::timeout(left.min(POLL), listed.changed()).await;
        }
    }

    /// A peer's connection stands.
    pub(crate) async fn connected(&self, peer: Peer, from: SocketAddr) {
        if let Err(error) = pairing::connected(&self.pool, peer.id, &from.ip().to_string()).await {
            tracing::warn!(error = %error, "Could not note who connected");
        }
    }

    /// A handshake failed: says why, where that is worth knowing.
    pub(crate) async fn refused_handshake(&self, error: &io::Error, from: SocketAddr) {
        use rustls::{CertificateError as C, Error as E};
        let inner = error.get_ref().and_then(|error| error.downcast_ref::<E>());
        let (reason, remedy) = match inner {
            Some(E::InvalidCertificate(C::Revoked)) => ("its certificate was revoked", PAIR_AGAIN),
            Some(E::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => {
                ("its certificate has expired", PAIR_AGAIN)
            }
            Some(E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. })) => {
                ("its certificate is not valid yet", "check the clocks of both machines")
            }
            Some(E::InvalidCertificate(_)) => ("its certificate is not one that this site gave out", PAIR_AGAIN),
            Some(E::NoCertificatesPresented) => ("it showed no certificate", PAIR_AGAIN),
            Some(E::InvalidMessage(_)) => (
                "it does not speak TLS",
                "if that is a source gateway of yours, pair it; clear text is taken on loopback only, and only when asked for",
            ),
            Some(E::PeerIncompatible(_)) => {
                ("it does not speak TLS 1.3, or not the link", "upgrade it, if it is one of yours")
            }
            // The other side gave up, or the line did.
            _ => return,
        };
        self.note_refused(reason, remedy, from).await;
    }

    async fn note_refused(&self, reason: &str, remedy: &str, from: SocketAddr) {
        {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.retain(|_, at| at.elapsed() < REFUSED_EVERY);
            let key = (reason.to_owned(), from.ip());
            if refused.contains_key(&key) || refused.len() >= REFUSED_REMEMBERED {
                return;
            }
            refused.insert(key, Instant::now());
        }
        tracing::warn!(from = %from.ip(), reason, "Refused a connection on the link");
        let detail = json!({ "from": from.ip().to_string(), "reason": reason, "remedy": remedy });
        if let Err(error) = event::record(&self.pool, "link_refused", None, None, &detail).await {
            tracing::warn!(error = %error, "Could not record who was refused");
        }
    }

    /// A site asks for its certificate with a token.
    pub(crate) async fn join(&self, asked: JoinRequest, from: SocketAddr) -> Result<JoinAnswer, JoinError> {
        match self.try_join(asked, from).await {
            Err(JoinError::Refused(refusal)) => {
                self.note_refused(&refusal.reason, refusal.remedy, from).await;
                Err(JoinError::Refused(refusal))
            }
            joined => joined,
        }
    }

    async fn try_join(&self, asked: JoinRequest, from: SocketAddr) -> Result<JoinAnswer, JoinError> {
        let refuse = |status, reason: String| Err(JoinError::Refused(Refusal::new(status, reason, NEW_TOKEN)));
        let decoded = (BASE64_STANDARD.decode(&asked.secret), BASE64_STANDARD.decode(&asked.request));
        let (Ok(secret), Ok(request)) = decoded else {
            return refuse(StatusCode::BAD_REQUEST, "the request to join cannot be read".to_owned());
        };
        let mut db = self.pool.begin().await?;
        let key = Fingerprint::of(&request).0;
        let (invitation, peer, name) = match pairing::invited(&mut db, &secret_digest(&secret), &key).await? {
            Invited::Unknown => {
                return refuse(StatusCode::UNAUTHORIZED, "this recovery site did not make that token".to_owned());
            }
            Invited::Expired(at) => {
                return refuse(StatusCode::GONE, format!("the token was good until {}", moment(at)));
            }
            Invited::Withdrawn => return refuse(StatusCode::GONE, "the token was withdrawn".to_owned()),
            Invited::Used(at) => {
                return refuse(StatusCode::GONE, format!("the token was used already, at {}", moment(at)));
            }
            Invited::Again { peer, name } => (None, Some(peer), name),
            Invited::Welcome { invitation, name } => {
                let wanted = if name.is_empty() { tidy(&asked.name) } else { name };
                (Some(invitation), None, pairing::free_name(&mut db, &wanted).await?)
            }
        };
        let issued = match self.authority.sign(&name, &request, self.life) {
            Ok(issued) => issued,
            Err(understudy_pairing::Error::Forged) => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "the request for a certificate is not signed by its own key".to_owned(),
                );
            }
            Err(error) => return Err(error.into()),
        };
        let peer = match (invitation, peer) {
            (Some(invitation), _) => {
                let version = tidy(&asked.product_version);
                pairing::joined(&mut db, invitation, &key, &name, &version, &from.ip().to_string()).await?
            }
            (None, Some(peer)) => peer,
            (None, None) => return Err(anyhow::anyhow!("an invitation led nowhere").into()),
        };
        self.certify(&mut db, peer, &issued).await?;
        if invitation.is_some() {
            let detail = json!({
                "name": name, "from": from.ip().to_string(), "fingerprint": issued.fingerprint.to_string(),
                "expires_at": issued.life.until,
            });
            event::record(&mut *db, "link_joined", None, None, &detail).await?;
        }
        db.commit().await?;
        self.known.add(issued.fingerprint, Listed { peer, standing: Standing::Good });
        tracing::info!(peer = name, fingerprint = %issued.fingerprint, "A source site was paired");
        Ok(JoinAnswer { name, certificate: issued.pem })
    }

    /// A peer asks for its next certificate.
    pub(crate) async fn renew(&self, peer: Peer, request: &[u8]) -> Result<JoinAnswer, JoinError> {
        let mut db = self.pool.begin().await?;
        let Some(name) = pairing::lock_good(&mut db, peer.id).await? else {
            return Err(JoinError::Refused(Refusal::new(StatusCode::FORBIDDEN, "its pairing was revoked", PAIR_AGAIN)));
        };
        let issued = match self.authority.sign(&name, request, self.life) {
            Ok(issued) => issued,
            Err(understudy_pairing::Error::Forged) => {
                let reason = "the request for a certificate is not signed by its own key";
                return Err(JoinError::Refused(Refusal::new(StatusCode::BAD_REQUEST, reason, PAIR_AGAIN)));
            }
            Err(error) => return Err(error.into()),
        };
        self.certify(&mut db, peer.id, &issued).await?;
        let detail = json!({
            "name": name, "fingerprint": issued.fingerprint.to_string(), "expires_at": issued.life.until,
        });
        event::record(&mut *db, "link_renewed", None, None, &detail).await?;
        db.commit().await?;
        self.known.add(issued.fingerprint, Listed { peer: peer.id, standing: Standing::Good });
        tracing::info!(peer = name, until = %issued.life.until, "A source site renewed its certificate");
        Ok(JoinAnswer { name, certificate: issued.pem })
    }

    async fn certify(&self, db: &mut sqlx::PgConnection, peer: Uuid, issued: &Issued) -> anyhow::Result<()> {
        pairing::certified(db, peer, &issued.fingerprint.0, issued.life.until).await?;
        pairing::tell(db).await?;
        Ok(())
    }
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A name that can stand in a list and on a command line.
fn tidy(name: &str) -> String {
    let tidy: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' })
        .take(LONGEST_NAME)
        .collect();
    if tidy.is_empty() { "source".to_owned() } else { tidy }
}
