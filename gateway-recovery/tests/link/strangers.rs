//! Who is not let in, on the wire: everything is said at once, as by somebody who waits for no leave, and nothing of it is read.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::ring,
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use understudy_database::pairing;
use understudy_pairing::{
    Authority, Identity, JOIN_PROTOCOL, LINK_PROTOCOL, Request, linked, recovery_name, secret_digest, why_refused,
};
use understudy_protocol::MailboxId;
use uuid::Uuid;

use crate::{
    shipment::Cargo,
    site::{Site, until, within},
};

const HOUR: Duration = Duration::from_secs(3600);
/// Types of HTTP/2 frames, and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The first octet of an alert in TLS.
const ALERT: u8 = 21;

/// A key with a certificate by this authority, as `link join` leaves them.
fn certified(authority: &Authority, valid: Duration) -> Identity {
    let request = Request::new().unwrap();
    let issued = authority.sign("site-a", request.der(), valid).unwrap();
    let folder = tempfile::tempdir().unwrap();
    request.keep(folder.path(), "site-a".to_owned(), Vec::new(), authority.certificate(), &issued.pem).unwrap()
}

/// Puts a certificate on the list, as pairing does; answers whose it is.
async fn list(site: &Site, identity: &Identity) -> Uuid {
    let secret = Uuid::new_v4();
    let until = chrono::Utc::now() + HOUR;
    let invitation = pairing::invite(&site.pool, &secret_digest(secret.as_bytes()), "", "a test", until).await.unwrap();
    let mut db = site.pool.begin().await.unwrap();
    let name = format!("site-{secret}");
    let key = identity.fingerprint().0;
    let peer = pairing::joined(&mut db, invitation.invitation_id, &key, &name, "0.0.1", "127.0.0.1").await.unwrap();
    pairing::certified(&mut db, peer, &key, identity.life.until).await.unwrap();
    pairing::tell(&mut db).await.unwrap();
    db.commit().await.unwrap();
    peer
}

async fn revoke(site: &Site, peer: Uuid) {
    let mut db = site.pool.begin().await.unwrap();
    assert!(pairing::revoke(&mut db, peer, "a test").await.unwrap());
    db.commit().await.unwrap();
}

/// Somebody who trusts the recovery site.
fn trusting(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots)
}

/// … and shows nothing.
fn nobody(authority: &Authority, version: &'static rustls::SupportedProtocolVersion, protocol: &[u8]) -> ClientConfig {
    let mut config = trusting(authority, version).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A request to ship, in HTTP/2, without its body.
fn head() -> Vec<u8> {
    let mut fields = vec![0x83, 0x87];
    // `:authority` and `:path`.
    for (name, value) in [(1, "recovery"), (4, "/link/v1/ship")] {
        fields.extend([name, u8::try_from(value.len()).unwrap()]);
        fields.extend(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &fields));
    bytes
}

fn whole_request(mailbox: MailboxId) -> Vec<u8> {
    let mut bytes = head();
    bytes.extend(frame(DATA, END_STREAM, 1, &Cargo::default().whole(mailbox, 1, &[b"mail"]).bytes));
    bytes
}

/// Says all of `request` and listens to the end; answers what came, and how it ended.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut heard = Vec::new();
    let talking = async {
        // Whoever refuses does not always wait for all of it.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        stream.read_to_end(&mut heard).await.map(drop)
    };
    let ended = within("the connection to end", talking).await;
    (heard, ended)
}

async fn encrypted(site: &Site, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(site.address()).await?;
    TlsConnector::from(Arc::new(config)).connect(recovery_name(), stream).await
}

/// Says a whole shipment over TLS; answers why it was refused, in the words the source gateway shows.
async fn refused(site: &Site, config: ClientConfig, mailbox: MailboxId) -> String {
    let ended = match encrypted(site, config).await {
        Ok(stream) => {
            let (heard, ended) = say(stream, &whole_request(mailbox)).await;
            assert_eq!(heard, b"", "HTTP/2 has begun");
            ended
        }
        Err(error) => Err(error),
    };
    let error = ended.expect_err("an alert says why");
    why_refused(&error).map_or_else(|| panic!("{error:?}"), str::to_owned)
}

/// What a source gateway with this identity does.
fn source(identity: &Identity) -> ClientConfig {
    Arc::unwrap_or_clone(linked(identity).unwrap())
}

/// Waits for the event that says whom the recovery site refused, and why.
async fn assert_said(site: &Site, reason: &'static str) {
    let sql = "select count(*) from event where kind = 'link_refused' and detail ->> 'reason' = $1";
    // It is written after the other side heard.
    let said = async || sqlx::query_scalar::<_, i64>(sql).bind(reason).fetch_one(&site.pool).await.unwrap() > 0;
    until(&format!("an event says {reason:?}"), said).await;
}

async fn assert_untouched(site: &Site, mailbox: MailboxId) {
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.pack_bytes(), None, "nothing was read of a body");
    assert_eq!(site.number("select count(*) from link where heard_at is not null or hello_at is not null").await, 0);
}

#[tokio::test]
async fn whoever_has_no_good_certificate_is_refused_before_anything_is_read() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let authority = Authority::open(site.data_dir()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::open(elsewhere.path()).unwrap();

    let (good, unlisted) = (certified(&authority, HOUR), certified(&authority, HOUR));
    let (revoked, expired, foreign) =
        (certified(&authority, HOUR), certified(&authority, Duration::ZERO), certified(&other, HOUR));
    list(&site, &good).await;
    let peer = list(&site, &revoked).await;
    revoke(&site, peer).await;
    list(&site, &expired).await;
    list(&site, &foreign).await;
    site.restart_paired().await;

    // Only its time is wrong with it.
    let end = SystemTime::from(expired.life.until) + Duration::from_secs(1);
    until("the certificate has expired", async || SystemTime::now() > end).await;
    assert!(refused(&site, source(&expired), mailbox).await.contains("has expired"));
    assert!(refused(&site, source(&revoked), mailbox).await.contains("has revoked our certificate"));
    assert!(refused(&site, source(&unlisted), mailbox).await.contains("does not know our certificate"));
    // Its owner trusts the recovery site; that does not trust it, though its fingerprint is on the list.
    let shown = source(&foreign).client_auth_cert_resolver.clone();
    let stranger = trusting(&authority, &TLS13).with_client_cert_resolver(shown);
    let why = refused(&site, stranger, mailbox).await;
    assert!(why.contains("does not know our certificate") || why.contains("wants a certificate"), "{why}");
    assert!(refused(&site, nobody(&authority, &TLS13, LINK_PROTOCOL), mailbox).await.contains("wants a certificate"));
    // What the recovery gateway shows is no certificate of a source gateway.
    let (issued, key) = authority.serve(HOUR).unwrap();
    let served = vec![CertificateDer::from(issued.der)];
    let served = trusting(&authority, &TLS13).with_client_auth_cert(served, key).unwrap();
    assert!(refused(&site, served, mailbox).await.contains("does not know our certificate"));

    for reason in [
        "its certificate has expired",
        "its certificate was revoked",
        "its certificate is not one that this site gave out",
        "it showed no certificate",
    ] {
        assert_said(&site, reason).await;
    }
    assert_untouched(&site, mailbox).await;

    // The same words by somebody who may say them.
    let mut stream = encrypted(&site, source(&good)).await.unwrap();
    stream.write_all(&whole_request(mailbox)).await.unwrap();
    let mut heard = [0; 9];
    within("the recovery gateway to speak", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard[3], SETTINGS);
    until("the shipment is taken", async || site.received(mailbox).await.0 > 0).await;
}

#[tokio::test]
async fn older_tls_and_clear_text_are_refused_before_anything_is_read() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let authority = Authority::open(site.data_dir()).unwrap();
    let good = certified(&authority, HOUR);
    list(&site, &good).await;
    site.restart_paired().await;

    let mut older = nobody(&authority, &TLS12, LINK_PROTOCOL);
    assert!(refused(&site, older.clone(), mailbox).await.contains("does not speak TLS 1.3"));
    older.client_auth_cert_resolver = source(&good).client_auth_cert_resolver.clone();
    assert!(refused(&site, older, mailbox).await.contains("does not speak TLS 1.3"));
    assert_said(&site, "it does not speak TLS 1.3, or not the link").await;

    let old = b"POST /link/v1/ship HTTP/1.1\r\nHost: recovery\r\nContent-Length: 4\r\n\r\nmail".to_vec();
    for words in [whole_request(mailbox), old] {
        let (heard, _) = say(TcpStream::connect(site.address()).await.unwrap(), &words).await;
        assert!(heard.is_empty() || heard[0] == ALERT, "{heard:?}");
    }
    assert_said(&site, "it does not speak TLS").await;
    assert_untouched(&site, mailbox).await;
}

/// Who asks to join has no certificate: nothing but that one question is answered, and no long one.
#[tokio::test]
async fn on_a_connection_that_asks_to_join_nothing_else_is_answered() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let authority = Authority::open(site.data_dir()).unwrap();
    site.restart_paired().await;
    let ask = async |route: &str, body: &str| {
        let stream = encrypted(&site, nobody(&authority, &TLS13, JOIN_PROTOCOL)).await.unwrap();
        let head = format!(
            "POST /link/v1/{route} HTTP/1.1\r\nHost: recovery\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (heard, _) = say(stream, format!("{head}{body}").as_bytes()).await;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        heard.split(' ').nth(1).unwrap_or_else(|| panic!("{heard:?}")).to_owned()
    };
    for route in ["ship", "ship?tenant=1", "hello", "heartbeat", "lacks", "report", "renew", "ping", "known/1"] {
        assert_eq!(ask(route, "mail").await, "404", "{route}");
    }
    assert_eq!(ask("join", &" ".repeat((16 << 10) + 1)).await, "413");
    assert_eq!(ask("join", "{}").await, "422");
    let stranger = r#"{"secret":"AAAA","request":"AAAA","name":"x","product_version":"0"}"#;
    assert_eq!(ask("join", stranger).await, "401");
    assert_untouched(&site, mailbox).await;
}

/// A connection on which a part of a shipment has been said.
async fn amid_a_shipment(site: &Site, mailbox: MailboxId, identity: &Identity) -> io::Result<TlsStream<TcpStream>> {
    let cargo = Cargo::default().whole(mailbox, 1, &[&vec![b'x'; 60_000]]).bytes;
    let mut stream = encrypted(site, source(identity)).await?;
    let mut start = head();
    for piece in cargo[..50_000].chunks(10_000) {
        start.extend(frame(DATA, 0, 1, piece));
    }
    stream.write_all(&start).await?;
    Ok(stream)
}

#[tokio::test]
async fn who_is_revoked_amid_a_shipment_is_cut_off_and_nothing_of_it_counts() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let authority = Authority::open(site.data_dir()).unwrap();
    let identity = certified(&authority, HOUR);
    let peer = list(&site, &identity).await;
    site.restart_paired().await;

    let mut stream = amid_a_shipment(&site, mailbox, &identity).await.unwrap();
    let connected = "select count(*) from link_peer where connected_at is not null";
    until("the connection stands", async || site.number(connected).await > 0).await;
    revoke(&site, peer).await;
    let (_, _) = say(&mut stream, b"").await;
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
    assert!(refused(&site, source(&identity), mailbox).await.contains("has revoked our certificate"));
}

/// Signs certificates, each good for longer, until a connection with one is let in before it ends; answers that, amid a shipment.
async fn let_in_for_a_moment(site: &Site, mailbox: MailboxId) -> (Identity, TlsStream<TcpStream>) {
    let authority = Authority::open(site.data_dir()).unwrap();
    for seconds in [2, 4, 8, 16] {
        let identity = certified(&authority, Duration::from_secs(seconds));
        let peer = list(site, &identity).await;
        let is_connected = "select connected_at is not null from link_peer where peer_id = $1";
        // The list may not have been read yet.
        while chrono::Utc::now() < identity.life.until {
            let stream = amid_a_shipment(site, mailbox, &identity).await;
            let connected: bool = sqlx::query_scalar(is_connected).bind(peer).fetch_one(&site.pool).await.unwrap();
            if let (true, Ok(stream)) = (connected, stream) {
                return (identity, stream);
            }
        }
    }
    panic!("nobody is let in");
}

/// A source gateway renews in good time; one that does not is cut off at the end, whatever is under way.
#[tokio::test]
async fn whose_certificate_ends_amid_a_shipment_is_cut_off_and_nothing_of_it_counts() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    site.restart_paired().await;
    let (identity, mut stream) = let_in_for_a_moment(&site, mailbox).await;
    let mut heard = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut heard)).await;
    assert!(cut.is_ok(), "it is not cut off");
    assert!(chrono::Utc::now() >= identity.life.until, "it was cut off early");
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
    // The second in which it ends belongs to it.
    let end = identity.life.until + chrono::TimeDelta::seconds(1);
    until("the certificate has expired", async || chrono::Utc::now() > end).await;
    assert!(refused(&site, source(&identity), mailbox).await.contains("has expired"));
}
