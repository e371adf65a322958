//! Secrets stay where they belong: in no answer but the one that shows them, no error, no row of the database, no line of the log.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use crate::service::{NGINX_KEY, Service};

const PASSWORD: &str = "canary in a coal mine";
const NEXT_PASSWORD: &str = "canary in another mine";

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Every row of every table, as text.
async fn everything(service: &Service) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select quote_ident(tablename::text) from pg_tables where schemaname = 'public' order by tablename",
    )
    .fetch_all(&service.pool)
    .await
    .unwrap();
    let mut all = String::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {table} t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&service.pool).await.unwrap();
        all.push_str(&rows);
    }
    all
}

#[tokio::test]
async fn secrets_are_in_no_answer_no_error_no_row_and_no_line_of_the_log() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(log.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let service = Service::with_mailboxes().await;
    let mut said = String::new();
    let mut heard = |answer: &Value| said.push_str(&answer.to_string());

    // Each shown once, to whoever asked for it.
    heard(
        &service
            .post("/api/v1/users", json!({"name": "ann", "role": "administrator", "password": PASSWORD}))
            .await
            .expect(201)
            .body,
    );
    let made = service.post("/api/v1/users", json!({"name": "ben", "role": "viewer"})).await.expect(201).body;
    let token = service.post("/api/v1/tokens", json!({"name": "t", "role": "viewer"})).await.expect(201).body;
    let log_in = json!({"name": "ann", "password": PASSWORD});
    let session = service.post("/api/v1/sessions", log_in).await.expect(201);
    let cookie = session.header("set-cookie").split(';').next().unwrap().to_owned();
    let csrf = session.body["session"]["csrf"].as_str().unwrap().to_owned();
    let as_ann = [("cookie", cookie.as_str()), ("understudy-csrf", csrf.as_str())];
    let factor = Some(json!({"password": PASSWORD}));
    let offer = service.ask_with("POST", "/api/v1/me/second-factor", factor, &as_ann).await.expect(200).body;
    let changed = Some(json!({"current": PASSWORD, "new": NEXT_PASSWORD}));
    service.ask_with("PUT", "/api/v1/me/password", changed, &as_ann).await.expect(204);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let secrets = [
        PASSWORD.to_owned(),
        NEXT_PASSWORD.to_owned(),
        text(&made["password"]),
        text(&token["token"]),
        cookie.trim_start_matches("understudy=").to_owned(),
        text(&offer["setup"]["secret"]),
        service.bearer().trim_start_matches("Bearer ").to_owned(),
        NGINX_KEY.to_owned(),
    ];

    // Errors of all kinds, with secrets in what is refused.
    for (method, path, body) in [
        ("POST", "/api/v1/sessions", json!({"name": "ann", "password": PASSWORD})),
        ("POST", "/api/v1/sessions", json!({"name": "ann", "password": [PASSWORD]})),
        ("POST", "/api/v1/sessions", json!({"name": "ann", "password": {"is": PASSWORD}})),
        ("POST", "/api/v1/users", json!({"name": "cy", "role": "viewer", "password": PASSWORD, "more": 1})),
        ("POST", "/api/v1/users", json!({"name": "", "role": "viewer", "password": PASSWORD})),
        ("POST", "/api/v1/users/nobody/password", json!({"password": PASSWORD})),
        ("POST", "/api/v1/users/ann/password", json!({"password": "ann"})),
    ] {
        let refused = service.ask(method, path, Some(body)).await;
        assert!(refused.status.is_client_error(), "{method} {path}: {}", refused.status);
        heard(&refused.body);
    }
    let bad =
        [("authorization", format!("Basic {}", secrets[3])), ("authorization", format!("Bearer {}x", secrets[3]))];
    for (name, value) in &bad {
        heard(&service.ask_with("GET", "/api/v1/status", None, &[(*name, value.as_str())]).await.expect(401).body);
    }
    heard(&service.ask_with("GET", "/api/v1/routes/nginx-auth", None, &[("x-auth-key", PASSWORD)]).await.body);

    // Everything that can be read.
    let document = service.get("/api/openapi.json").await.expect(200).body;
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() || path == "/api/v1/events" {
            continue;
        }
        let name = if path.starts_with("/api/v1/users") { "ann" } else { "mail-a" };
        let place = path.replace("{address}", "ana@example.org").replace("{name}", name).replace("{month}", "2026-01");
        heard(&service.get(&place).await.body);
        if path.starts_with("/api/v1/me") || path.starts_with("/api/v1/sessions") {
            heard(&service.ask_with("GET", &place, None, &as_ann[..1]).await.body);
        }
    }
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("a wrong X-Auth-Key"), "what is logged does not come here: {logged}");
    let kept = everything(&service).await;
    assert!(kept.contains("ana@example.org"));
    for secret in secrets {
        assert!(secret.len() > 8, "{secret}");
        assert!(!said.contains(&secret), "an answer says {secret}");
        assert!(!kept.contains(&secret), "the database holds {secret}");
        assert!(!logged.contains(&secret), "the log says {secret}");
    }
}
