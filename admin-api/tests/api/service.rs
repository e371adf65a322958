//! One admin API on one fresh database, and words to talk to it.

use std::{str::FromStr, time::Duration};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::{HeaderMap, Request, StatusCode, header},
};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use understudy_admin_api::{Api, NginxConfig, router};
use understudy_database::token;
use understudy_protocol::TenantId;
use uuid::Uuid;

/// What nginx shows.
pub(crate) const NGINX_KEY: &str = "nginx-secret";

/// How long a test waits for an answer that goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service; its database goes away with it.
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) pool: PgPool,
    pub(crate) shutdown: CancellationToken,
    administrator: String,
    database: String,
    server: PgConnectOptions,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Fails the test unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Service {
    pub(crate) async fn start() -> Self {
        let url = std::env::var("TEST_DATABASE_URL").or_else(|_| std::env::var("DATABASE_URL"));
        let url = url.expect("TEST_DATABASE_URL or DATABASE_URL names a PostgreSQL server; ./test sets it");
        let server = PgConnectOptions::from_str(&url).unwrap();
        let database = format!("admin_api_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("create database {database}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();

        let pool = understudy_database::asking_pool(server.clone().database(&database), 5);
        understudy_database::migrate(&pool).await.unwrap();
        let shutdown = CancellationToken::new();
        let (api, hub) = Api::new(pool.clone(), None, shutdown.clone());
        let nginx = NginxConfig { key: NGINX_KEY.into(), plaintext: false };
        let api = api.with_nginx(Some(nginx));
        tokio::spawn(hub.run());
        let administrator = create_token(&pool, "first", "administrator").await;
        Self { router: router(api), pool, shutdown, administrator, database, server }
    }

    /// A service with the servers `mail-a`, `mail-b` (primaries) and `dr-1` (standby).
    pub(crate) async fn with_servers() -> Self {
        let service = Self::start().await;
        for (name, role) in [("mail-a", "primary"), ("mail-b", "primary"), ("dr-1", "standby")] {
            service.post("/api/v1/servers", server(name, role)).await.expect(201);
        }
        service
    }

    /// A service with `ana` and `ben` of `mail-a` protected on `dr-1`.
    pub(crate) async fn with_mailboxes() -> Self {
        let service = Self::with_servers().await;
        service.protect(&["ana@example.org", "ben@example.org"], "mail-a").await;
        service
    }

    pub(crate) async fn protect(&self, addresses: &[&str], primary: &str) {
        let body = json!({"addresses": addresses, "primary": primary, "standby": "dr-1"});
        self.post("/api/v1/mailboxes", body).await.expect(201);
    }

    pub(crate) async fn token(&self, role: &str) -> String {
        create_token(&self.pool, &format!("{role} of the test"), role).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ask_with(method, path, body, &[("authorization", &self.bearer())]).await
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.administrator)
    }

    pub(crate) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// One number from the database.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// One text from the database.
    pub(crate) async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Opens an answer that goes on.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Stream { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Does something to the database that gateways would.
    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }
}

/// An answer that goes on.
pub(crate) struct Stream {
    body: BodyDataStream,
    text: String,
}

impl Stream {
    /// Everything heard so far, once it is what the test waits for.
    pub(crate) async fn until(&mut self, enough: impl Fn(&str) -> bool) -> &str {
        while !enough(&self.text) {
            assert!(self.more().await, "the stream ended: {}", self.text);
        }
        &self.text
    }

    pub(crate) async fn until_it_ends(mut self) {
        while self.more().await {}
    }

    async fn more(&mut self) -> bool {
        let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("something within a minute");
        let Some(chunk) = chunk else { return false };
        self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        true
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
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

async fn create_token(pool: &PgPool, name: &str, role: &str) -> String {
    let secret = format!("understudy_{}", Uuid::new_v4().simple());
    token::create(pool, &TenantId(1).into(), name, role, None, &token::digest_of(&secret)).await.unwrap();
    secret
}

/// A server's definition that keeps to all rules.
pub(crate) fn server(name: &str, role: &str) -> Value {
    json!({
        "name": name,
        "role": role,
        "imap": format!("imaps://{name}.example.org"),
        "login": {"as": "master", "user": "understudy", "password_file": "/etc/understudy/password"},
    })
}
