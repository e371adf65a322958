//! One recovery gateway on one fresh database, and the words of a source gateway.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use futures_util::{Stream, TryStreamExt};
use reqwest::{Body, Client, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use understudy_database::{content, journal, mailbox, mailbox::NewMailbox, server};
use understudy_gateway_recovery::{BrakeConfig, ContentConfig, LinkSecurity, MailExchangers, RecoveryConfig};
use understudy_protocol::{
    Digest, MailboxId, Seq, TenantId, Transaction, codec,
    messages::{Directives, Heartbeat, MailboxReport, Shipped},
    server::{LoginConfig, LoginMethod, Server, ServerRole},
};
use uuid::Uuid;

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const SECRET: &str = "the secret of this link";
/// Whatever a test waits for is there by then, or never.
const DEADLINE: Duration = Duration::from_secs(90);
/// How often something is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(5);

/// A recovery site; its database goes away with it.
pub(crate) struct Site {
    pub(crate) pool: PgPool,
    pub(crate) client: Client,
    gateway: Gateway,
    security: LinkSecurity,
    folder: TempDir,
    primary: i64,
    standby: i64,
    database: String,
    server: PgConnectOptions,
}

pub(crate) struct Gateway {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Fails the test unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn value<T: DeserializeOwned>(&self) -> T {
        codec::decode(&self.body).unwrap()
    }
}

impl Site {
    /// A recovery site with a primary and a standby, and no mailbox.
    pub(crate) async fn start() -> Self {
        let url = std::env::var("TEST_DATABASE_URL").or_else(|_| std::env::var("DATABASE_URL"));
        let url = url.expect("TEST_DATABASE_URL or DATABASE_URL names a PostgreSQL server; ./test sets it");
        let server = PgConnectOptions::from_str(&url).unwrap();
        let database = format!("gateway_recovery_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("create database {database}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();

        let pool = understudy_database::pool(server.clone().database(&database), 10);
        understudy_database::migrate(&pool).await.unwrap();
        let mut db = pool.acquire().await.unwrap();
        let primary = server::insert(&mut db, TENANT, &definition("mail-a", ServerRole::Primary)).await.unwrap();
        let standby = server::insert(&mut db, TENANT, &definition("dr-1", ServerRole::Standby)).await.unwrap();
        drop(db);
        let folder = tempfile::tempdir().unwrap();
        let security = LinkSecurity::Clear(SECRET.to_owned().into());
        let gateway = Gateway::start(&pool, &folder, security.clone()).await;
        let site = Self {
            pool,
            client: client(),
            gateway,
            security,
            folder,
            primary: primary.server_id,
            standby: standby.server_id,
            database,
            server,
        };
        // It has found its place alone, and opened its store.
        site.try_post("nothing", "").await;
        site
    }

    /// A recovery site that protects one mailbox.
    pub(crate) async fn with_mailbox() -> (Self, MailboxId) {
        let site = Self::start().await;
        let mailbox = site.protect("ana@example.org").await;
        (site, mailbox)
    }

    pub(crate) async fn protect(&self, address: &str) -> MailboxId {
        self.protect_in(&mut self.pool.acquire().await.unwrap(), address).await;
        let sql = "select mailbox_id from mailbox where address = $1";
        MailboxId(sqlx::query_scalar(sql).bind(address).fetch_one(&self.pool).await.unwrap())
    }

    /// Protects a mailbox in an SQL transaction that the caller ends.
    pub(crate) async fn protect_in(&self, db: &mut PgConnection, address: &str) {
        let new = NewMailbox {
            address: address.to_owned(),
            primary_server_id: self.primary,
            standby_server_id: self.standby,
            standby_address: address.to_owned(),
            policy: "default".to_owned(),
            group: String::new(),
        };
        mailbox::protect(db, TENANT, &[new]).await.unwrap();
    }

    /// Stops the gateway; fails the test when it does not end soon, or not well.
    pub(crate) async fn stop(&mut self) {
        self.gateway.stop().await;
    }

    /// Stops the gateway and starts another on the same database and folder.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Starts another gateway beside this one, and asks that one from now on; gives back the one before.
    pub(crate) async fn start_beside(&mut self) -> Gateway {
        let another = Gateway::start(&self.pool, &self.folder, self.security.clone()).await;
        std::mem::replace(&mut self.gateway, another)
    }

    /// How the gateway ended, without being asked to.
    pub(crate) async fn fell(&mut self) -> anyhow::Result<()> {
        within("the gateway to fall", &mut self.gateway.task).await.unwrap()
    }

    /// Starts another gateway on the same database and folder; the one before was stopped.
    pub(crate) async fn start_again(&mut self) {
        self.gateway = Gateway::start(&self.pool, &self.folder, self.security.clone()).await;
    }

    /// From now on the gateway takes paired sites only.
    pub(crate) async fn restart_paired(&mut self) {
        self.security = LinkSecurity::Paired { certificate_life: Duration::from_secs(3600) };
        self.restart().await;
    }

    /// Where the gateway keeps its keys.
    pub(crate) fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Asks the gateway to stop, without waiting.
    pub(crate) fn begin_to_stop(&self) {
        self.gateway.shutdown.cancel();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    pub(crate) fn url(&self, route: &str) -> String {
        format!("http://{}/link/v1/{route}", self.gateway.address)
    }

    /// One request with our secret; `None` when no whole answer came.
    pub(crate) async fn try_post(&self, route: &str, body: impl Into<Body>) -> Option<Answer> {
        let request = self.client.post(self.url(route)).header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
        let answered = async {
            let response = request.body(body).send().await.ok()?;
            Some(Answer { status: response.status(), body: response.bytes().await.ok()? })
        };
        within(&format!("an answer from {route}"), answered).await
    }

    pub(crate) async fn post(&self, route: &str, body: impl Into<Body>) -> Answer {
        self.try_post(route, body).await.unwrap_or_else(|| panic!("{route} gave no answer"))
    }

    pub(crate) async fn ask<T: Serialize>(&self, route: &str, value: &T) -> Answer {
        self.post(route, codec::encode(value).unwrap()).await
    }

    /// Ships something whole.
    pub(crate) async fn ship(&self, shipment: impl Into<Body>) -> Shipped {
        self.post("ship", shipment).await.expect(200).value()
    }

    pub(crate) async fn heartbeat(&self, seen_version: u64, wait: Duration) -> Directives {
        self.ask("heartbeat", &heartbeat(seen_version, wait, vec![])).await.expect(200).value()
    }

    /// A heartbeat that is held for all of `wait` and has nothing to say; a few before it may still tell of what was.
    pub(crate) async fn held(&self, wait: Duration) -> Directives {
        let holding = async {
            let mut seen = 0;
            loop {
                let asked = Instant::now();
                let told = self.heartbeat(seen, wait).await;
                if told.version == seen {
                    assert!(asked.elapsed() >= wait, "nothing was said after {:?}", asked.elapsed());
                    return told;
                }
                seen = told.version;
            }
        };
        within("a heartbeat to be held", holding).await
    }

    /// The version of the directives once everything has been told.
    pub(crate) async fn settled(&self) -> u64 {
        self.held(Duration::from_millis(200)).await.version
    }

    /// The first directives after `seen` that say `what`.
    pub(crate) async fn told(&self, mut seen: u64, what: &str, says: impl Fn(&Directives) -> bool) -> Directives {
        let listening = async {
            loop {
                let told = self.heartbeat(seen, Duration::from_secs(30)).await;
                if told.version != seen && says(&told) {
                    return told;
                }
                seen = told.version;
            }
        };
        within(&format!("the directives to say {what}"), listening).await
    }

    /// Every number in the journal, with its row.
    pub(crate) async fn journal(&self, mailbox: MailboxId) -> BTreeMap<i64, Transaction> {
        let sql = "select seq, body from transaction where mailbox_id = $1 and direction = 'outbound'";
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(sql).bind(mailbox.0).fetch_all(&self.pool).await.unwrap();
        rows.into_iter().map(|(seq, body)| (seq, codec::decode(&body).unwrap())).collect()
    }

    /// The last number received; fails the test unless the journal has exactly the rows up to it.
    pub(crate) async fn received(&self, mailbox: MailboxId) -> Seq {
        let mut db = self.pool.begin().await.unwrap();
        let received = journal::lock(&mut db, mailbox).await.unwrap().unwrap().received;
        let seqs: Vec<i64> = self.journal(mailbox).await.into_keys().collect();
        assert_eq!(seqs, (1..=received.0).collect::<Vec<_>>(), "the journal has every number once");
        received
    }

    /// A content as it rests in its pack, when the index names one; fails the test when those bytes are others.
    pub(crate) async fn content(&self, digest: Digest) -> Option<Vec<u8>> {
        let place = content::places(&self.pool, TENANT, &[digest]).await.unwrap().remove(&digest)?;
        let pack = File::open(self.folder.path().join("content").join(&place.pack)).unwrap();
        let mut bytes = vec![0; usize::try_from(place.content.size).unwrap()];
        pack.read_exact_at(&mut bytes, place.offset).unwrap();
        assert_eq!(Digest::of(&bytes), digest, "{} at {} is another content", place.pack, place.offset);
        Some(bytes)
    }

    /// The spool folder shared with the source gateway.
    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Bytes in all pack files; `None` while there is no file.
    pub(crate) fn pack_bytes(&self) -> Option<u64> {
        let sizes = std::fs::read_dir(self.folder.path().join("content")).unwrap();
        sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).reduce(|a, b| a + b)
    }

    /// One number from the database.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn contents_known(&self) -> i64 {
        self.number("select count(*) from content").await
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.gateway.shutdown.cancel();
        self.gateway.task.abort();
        let (server, database) = (self.server.clone(), self.database.clone());
        // Drop cannot wait for futures on the test's own runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&server).await.unwrap();
                let drop = sqlx::AssertSqlSafe(format!("drop database if exists {database} with (force)"));
                sqlx::query(drop).execute(&mut connection).await.unwrap();
            });
        });
        dropping.join().unwrap();
    }
}

impl Gateway {
    /// Stops it; fails the test when it does not end soon, or not well.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        within("the gateway to end", &mut self.task).await.unwrap().unwrap();
    }

    async fn start(pool: &PgPool, folder: &TempDir, link: LinkSecurity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let config = RecoveryConfig {
            pool: pool.clone(),
            data_dir: folder.path().to_owned(),
            listener,
            link,
            content: ContentConfig::files(folder.path().join("content")),
            shared_spool: Some(folder.path().join("spool")),
            brake: BrakeConfig::default(),
            verify_every: None,
            hooks: None,
            exchangers: MailExchangers::default(),
        };
        let task = tokio::spawn(understudy_gateway_recovery::run(config, shutdown.clone()));
        Self { address, shutdown, task }
    }
}

fn client() -> Client {
    // The second test of the process finds a provider installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().http2_prior_knowledge().no_proxy().build().unwrap()
}

fn definition(name: &str, role: ServerRole) -> Server {
    Server {
        name: name.to_owned(),
        role,
        // Nothing listens there.
        imap: "imap+insecure://127.0.0.1:1".to_owned(),
        ca_file: None,
        login: LoginConfig {
            method: LoginMethod::Master,
            user: Some("understudy".to_owned()),
            password_file: Some(PathBuf::from("/nonexistent/password")),
            form: None,
        },
        return_login: None,
        lmtp: None,
        submission: None,
        manage: None,
        canary: None,
    }
}

pub(crate) fn heartbeat(seen_version: u64, wait: Duration, mailboxes: Vec<MailboxReport>) -> Heartbeat {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap();
    Heartbeat {
        gateway: Uuid::nil(),
        sent_at: Utc::now(),
        wait_ms,
        seen_version,
        mailboxes,
        unproven: Vec::new(),
        looks: Vec::new(),
        link: None,
    }
}

/// A body that comes piece by piece; an error breaks it off.
pub(crate) fn streamed(pieces: impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static) -> Body {
    Body::wrap_stream(pieces.map_ok(Bytes::from))
}

/// Fails the test when `what` does not come in time.
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let what = format!("waited {DEADLINE:?} for {what}");
    async move { tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}")) }
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so().await {
        assert!(Instant::now() < end, "waited {DEADLINE:?} until {what}");
        tokio::time::sleep(LOOK).await;
    }
}
