//! From an event to a mail that a relay took: one for many, by the relay that works, again after a temporary no, and as the same
//! mail after a crash.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

use std::{
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use understudy_database::event;
use understudy_notices::{NoticesConfig, Relay};
use understudy_protocol::MailboxId;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

/// A relay on loopback that speaks SMTP and keeps what it takes.
#[derive(Clone)]
struct Sink {
    port: u16,
    mails: Arc<Mutex<Vec<String>>>,
    /// So many mails are answered with "later", once their bytes were read.
    later: Arc<Mutex<usize>>,
}

impl Sink {
    async fn start(later: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = Self { port, mails: Arc::default(), later: Arc::new(Mutex::new(later)) };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                tokio::spawn(async move {
                    let _ = sink.serve(stream).await;
                });
            }
        });
        sink
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 sink ESMTP\r\n").await?;
        let (mut line, mut mail, mut in_data) = (String::new(), String::new(), false);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let answer = if in_data {
                if line != ".\r\n" {
                    mail.push_str(&line);
                    continue;
                }
                in_data = false;
                let mut later = self.later.lock().unwrap();
                if *later > 0 {
                    *later -= 1;
                    "451 later\r\n"
                } else {
                    self.mails.lock().unwrap().push(std::mem::take(&mut mail));
                    "250 taken\r\n"
                }
            } else {
                match line.get(..4) {
                    Some("DATA") => {
                        (in_data, mail) = (true, String::new());
                        "354 go on\r\n"
                    }
                    Some("QUIT") => "221 bye\r\n",
                    _ => "250 fine\r\n",
                }
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) -> Vec<String> {
        let waiting = async {
            while self.mails().len() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{} of {count} mails came: {:?}", self.mails().len(), self.mails());
        self.mails()
    }
}

struct World {
    pool: PgPool,
    server: PgConnectOptions,
    name: String,
}

impl World {
    /// A fresh database with so many mailboxes, `user0@example.org` and on.
    async fn new(mailboxes: i32) -> Self {
        let url = std::env::var("TEST_DATABASE_URL").or_else(|_| std::env::var("DATABASE_URL"));
        let url = url.expect("TEST_DATABASE_URL or DATABASE_URL names a PostgreSQL server; ./test sets it");
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("notices_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        let pool = understudy_database::pool(server.clone().database(&name), 8);
        understudy_database::migrate(&pool).await.unwrap();
        sqlx::raw_sql(
            "insert into server (name, role, definition) values ('mail-a', 'primary', '{}'), ('dr-1', 'standby', '{}');
             update tenant set name = 'default' where tenant_id = 1;
             -- How full the disk of this machine is, is none of the test's business.
             insert into notice_settings (tenant_id, muted) values (1, '{disk_low}');",
        )
        .execute(&pool)
        .await
        .unwrap();
        sqlx::query(
            "insert into mailbox (address, primary_server_id, standby_server_id, standby_address)
             select 'user' || n || '@example.org', p.server_id, s.server_id, 'user' || n || '@example.org'
             from generate_series(0, $1 - 1) n, server p, server s where p.name = 'mail-a' and s.name = 'dr-1'",
        )
        .bind(mailboxes)
        .execute(&pool)
        .await
        .unwrap();
        Self { pool, server, name }
    }

    async fn mailboxes(&self) -> Vec<i64> {
        sqlx::query_scalar("select mailbox_id from mailbox order by mailbox_id").fetch_all(&self.pool).await.unwrap()
    }

    fn config(&self, ports: &[u16]) -> NoticesConfig {
        NoticesConfig {
            pool: self.pool.clone(),
            relays: ports
                .iter()
                .map(|port| Relay::new(&format!("smtp://127.0.0.1:{port}"), None, None).unwrap())
                .collect(),
            sender: "Understudy <understudy@example.net>".to_owned(),
            administrators: vec!["ops@example.net".to_owned()],
            hooks: Vec::new(),
            public_url: None,
            data_dir: std::env::temp_dir(),
        }
    }

    async fn end(self) {
        self.pool.close().await;
        let mut connection = PgConnection::connect_with(&self.server).await.unwrap();
        let drop = sqlx::AssertSqlSafe(format!("drop database if exists {} with (force)", self.name));
        sqlx::query(drop).execute(&mut connection).await.unwrap();
    }
}

fn header<'m>(mail: &'m str, name: &str) -> &'m str {
    mail.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// A port where nobody listens.
async fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn four_hundred_faults_are_one_mail_by_the_relay_that_works() {
    let world = World::new(400).await;
    let sink = Sink::start(0).await;
    let fault = json!({"side": "standby", "trouble": {"kind": "refused", "reason": "the standby is full", "remedy": "Make room.", "fault": true}});
    for mailbox in world.mailboxes().await {
        event::record(&world.pool, "trouble", Some(MailboxId(mailbox)), None, &fault).await.unwrap();
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(understudy_notices::run(world.config(&[nobody().await, sink.port]), stop.clone()));
    let mails = sink.until(1).await;
    assert_eq!(header(&mails[0], "To:"), "ops@example.net");
    assert_eq!(header(&mails[0], "Subject:"), "400 faulted in default");
    assert!(mails[0].contains("user0@example.org") && mails[0].contains("and 350 more"), "{}", mails[0]);
    let logged = async {
        loop {
            let outcomes: Vec<String> = sqlx::query_scalar("select outcome from delivery order by at, outcome")
                .fetch_all(&world.pool)
                .await
                .unwrap();
            if outcomes.len() == 2 {
                return outcomes;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, logged).await.unwrap(), ["deferred", "sent"]);
    let (messages, waiting): (i64, i64) =
        sqlx::query_as("select count(*), (select count(*) from notice where taken_at is null) from message")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!((messages, waiting), (1, 0));
    stop.cancel();
    running.await.unwrap().unwrap();
    world.end().await;
}

/// The relay said "later" to the first try, and the program died between the relay's yes and its own note.
#[tokio::test]
async fn a_mail_sent_again_is_the_same_mail() {
    let world = World::new(1).await;
    let sink = Sink::start(1).await;
    let mailbox = world.mailboxes().await[0];
    sqlx::query("insert into mailbox_contact (mailbox_id, alternate, language) values ($1, 'else@example.net', 'de')")
        .bind(mailbox)
        .execute(&world.pool)
        .await
        .unwrap();
    let run = Uuid::now_v7();
    sqlx::query("insert into run (run_id, kind, request, state) values ($1, 'switchover', '{\"mode\": \"planned\"}', 'running')")
        .bind(run)
        .execute(&world.pool)
        .await
        .unwrap();
    let flipped = json!({"state": "on_standby", "side": "standby", "epoch": 2});
    event::record(&world.pool, "state", Some(MailboxId(mailbox)), Some(run), &flipped).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(understudy_notices::run(world.config(&[sink.port]), stop.clone()));
    let mails = sink.until(2).await;
    let mut to: Vec<&str> = mails.iter().map(|mail| header(mail, "To:")).collect();
    to.sort_unstable();
    assert_eq!(to, ["else@example.net", "user0@example.org"]);
    stop.cancel();
    running.await.unwrap().unwrap();

    // As a crash leaves it: sent, and not noted.
    sqlx::query("update message set sent_at = null, leased_until = now() - interval '1 second', not_before = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(understudy_notices::run(world.config(&[sink.port]), stop.clone()));
    let mails = sink.until(4).await;
    let mut ids: Vec<&str> = mails.iter().map(|mail| header(mail, "Message-ID:")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2, "the same mails by their Message-ID");
    stop.cancel();
    running.await.unwrap().unwrap();
    world.end().await;
}

/// A program that answers "not now" to the first request and "fine" to the next, and keeps both.
async fn other_side() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut request, mut length) = (String::new(), 0);
            while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).await.is_ok_and(|read| read > 0) {
                let last = request.lines().last().unwrap_or_default().to_lowercase();
                length = last.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).await.is_err() {
                continue;
            }
            request.push_str(std::str::from_utf8(&body).unwrap());
            let is_first = {
                let mut kept = kept.lock().unwrap();
                kept.push(request);
                kept.len() == 1
            };
            let status = if is_first { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_hook_is_sent_again_as_the_same_one_and_signed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::new(1).await;
    let (port, asked) = other_side().await;
    let secret = secrecy::SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let hook = |name: &str, url: String, allowed: &[&str]| understudy_notices::Hook {
        name: name.to_owned(),
        target: understudy_webhook::Target {
            url: url.parse().unwrap(),
            secret: secret.clone(),
            allowed: understudy_webhook::Allowed::try_from(allowed).unwrap(),
        },
        topics: vec!["fault".to_owned()],
    };
    let mut config = world.config(&[]);
    config.hooks = vec![
        hook("chat", format!("http://127.0.0.1:{port}/hook"), &["127.0.0.1"]),
        // A name for a private address that nobody allowed: never sent, and given up.
        hook("inside", format!("https://localhost:{port}/"), &[]),
    ];
    let fault =
        json!({"side": "standby", "trouble": {"kind": "refused", "reason": "no", "remedy": "Yes.", "fault": true}});
    let mailbox = world.mailboxes().await[0];
    event::record(&world.pool, "trouble", Some(MailboxId(mailbox)), None, &fault).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(understudy_notices::run(config, stop.clone()));
    let settled = async {
        loop {
            let settled: Vec<(String, bool, i64)> = sqlx::query_as(
                "select m.recipient, m.sent_at is not null, (select count(*) from delivery d where d.message_id = m.message_id)
                 from message m where m.sent_at is not null or m.failed_at is not null order by m.recipient",
            )
            .fetch_all(&world.pool)
            .await
            .unwrap();
            if settled.len() == 2 {
                return settled;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await.unwrap();
    assert_eq!(settled, [("chat".to_owned(), true, 2), ("inside".to_owned(), false, 1)]);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let value = |request: &str, name: &str| {
        let line = request.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}: {request}"))[name.len() + 1..].trim().to_owned()
    };
    for request in &asked {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let (id, at) = (value(request, "webhook-id"), value(request, "webhook-timestamp"));
        let signed = understudy_webhook::signature(&secret, &id, at.parse().unwrap(), body);
        assert_eq!(value(request, "webhook-signature"), signed);
        let said: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&said["type"], &said["data"]["count"]), (&json!("fault"), &json!(1)), "{said}");
    }
    assert_eq!(value(&asked[0], "webhook-id"), value(&asked[1], "webhook-id"));
    stop.cancel();
    running.await.unwrap().unwrap();
    world.end().await;
}

#[tokio::test]
async fn in_quiet_hours_only_what_cannot_wait_is_sent() {
    let world = World::new(1).await;
    let sink = Sink::start(0).await;
    // An hour ago until in an hour, whatever the time is.
    sqlx::query(
        "update notice_settings set quiet_from = (now() at time zone 'UTC' - interval '1 hour')::time,
             quiet_to = (now() at time zone 'UTC' + interval '1 hour')::time",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let mailbox = Some(MailboxId(world.mailboxes().await[0]));
    let trouble = json!({"kind": "refused", "reason": "no", "remedy": "Yes.", "fault": true});
    event::record(&world.pool, "trouble", mailbox, None, &json!({"trouble": trouble})).await.unwrap();
    let differing = json!({"reason": "2 differences", "remedy": "Repair them."});
    event::record(&world.pool, "differences", mailbox, None, &differing).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(understudy_notices::run(world.config(&[sink.port]), stop.clone()));
    let written = async {
        loop {
            let written: Vec<(String, bool)> =
                sqlx::query_as("select topic, not_before > now() + interval '50 minutes' from message order by topic")
                    .fetch_all(&world.pool)
                    .await
                    .unwrap();
            if written.len() == 2 {
                return written;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let written = tokio::time::timeout(PATIENCE, written).await.unwrap();
    assert_eq!(written, [("differences".to_owned(), true), ("fault".to_owned(), false)]);
    assert_eq!(header(&sink.until(1).await[0], "Subject:"), "1 faulted in default");
    stop.cancel();
    running.await.unwrap().unwrap();
    world.end().await;
}
