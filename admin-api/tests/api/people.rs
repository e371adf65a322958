//! Logging in, second factors, sessions, accounts; and those who try without.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU16, Ordering},
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::service::{Answer, Service};

const PASSWORD: &str = "correct horse battery";
static NEXT_ADDRESS: AtomicU16 = AtomicU16::new(1);

/// Somebody's browser.
struct Browser {
    cookie: String,
    csrf: String,
}

impl Browser {
    async fn ask(&self, service: &Service, method: &str, path: &str, body: Option<Value>) -> Answer {
        service.ask_with(method, path, body, &[("cookie", &self.cookie), ("understudy-csrf", &self.csrf)]).await
    }
}

async fn add(service: &Service, name: &str, role: &str) {
    let body = json!({"name": name, "role": role, "password": PASSWORD});
    service.post("/api/v1/users", body).await.expect(201);
}

async fn try_in(service: &Service, name: &str, password: &str, code: Option<&str>, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"name": name, "password": password, "code": code});
    // From another address each time, unless the test says: the limit is for tests of the limit.
    let address = format!("2001:db8:{:x}::1", NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed));
    let own = headers.iter().any(|(name, _)| *name == "x-forwarded-for");
    let other = [("x-forwarded-for", address.as_str())];
    let headers: Vec<(&str, &str)> =
        headers.iter().chain(if own { [].iter() } else { other.iter() }).copied().collect();
    service.ask_with("POST", "/api/v1/sessions", Some(body), &headers).await
}

fn browser(answer: &Answer) -> Browser {
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let csrf = answer.body["session"]["csrf"].as_str().unwrap().to_owned();
    Browser { cookie, csrf }
}

async fn log_in(service: &Service, name: &str) -> Browser {
    browser(&try_in(service, name, PASSWORD, None, &[]).await.expect(201))
}

/// The code an authenticator app shows `steps` from now.
fn code(secret: &str, steps: i64) -> String {
    let bits: String =
        secret.chars().map(|c| format!("{:05b}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c).unwrap())).collect();
    let key: Vec<u8> = (0..bits.len() / 8).map(|n| u8::from_str_radix(&bits[n * 8..n * 8 + 8], 2).unwrap()).collect();
    let mut mac = Hmac::<Sha1>::new_from_slice(&key).unwrap();
    mac.update(&(chrono::Utc::now().timestamp() / 30 + steps).to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 15);
    let number = u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[tokio::test]
async fn somebody_logs_in_with_a_cookie_that_scripts_cannot_read_and_out_again() {
    let service = Service::with_mailboxes().await;
    add(&service, "ann", "operator").await;
    let answer = try_in(&service, "Ann", PASSWORD, None, &[("user-agent", "test browser")]).await.expect(201);
    let cookie = answer.header("set-cookie").to_owned();
    for part in ["understudy=", "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(answer.body["name"], "ann");
    assert_eq!(answer.body["role"], "operator");
    let ann = browser(&answer);
    assert!(!answer.body.to_string().contains(ann.cookie.trim_start_matches("understudy=")));
    ann.ask(&service, "GET", "/api/v1/mailboxes", None).await.expect(200);
    let paused =
        ann.ask(&service, "POST", "/api/v1/mailboxes/ana@example.org/pause", Some(json!({}))).await.expect(202);
    assert_eq!(paused.body["requested_by"], "user ann");
    ann.ask(&service, "POST", "/api/v1/servers/mail-a/check", Some(json!({}))).await.expect(202);
    ann.ask(&service, "GET", "/api/v1/tokens", None).await.expect(403);
    let sessions = ann.ask(&service, "GET", "/api/v1/sessions", None).await.expect(200).body;
    assert_eq!(sessions["items"][0]["agent"], "test browser");
    assert_eq!(sessions["items"][0]["is_own"], true);

    let out = ann.ask(&service, "DELETE", "/api/v1/sessions/current", None).await.expect(204);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    ann.ask(&service, "GET", "/api/v1/mailboxes", None).await.expect(401);
}

#[tokio::test]
async fn a_cookie_alone_changes_nothing() {
    let service = Service::with_mailboxes().await;
    add(&service, "ann", "administrator").await;
    let ann = log_in(&service, "ann").await;
    let path = "/api/v1/mailboxes/ana@example.org/pause";
    let good = [("cookie", ann.cookie.as_str()), ("understudy-csrf", &ann.csrf)];
    for more in [vec![], vec![("understudy-csrf", "wrong")]] {
        let headers: Vec<(&str, &str)> = [good[0]].into_iter().chain(more).collect();
        service.ask_with("POST", path, Some(json!({})), &headers).await.expect(403);
    }
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "null"),
    ] {
        let headers = [good[0], good[1], (name, value), ("host", "understudy.example")];
        service.ask_with("POST", path, Some(json!({})), &headers).await.expect(403);
    }
    let own = [good[0], good[1], ("origin", "https://understudy.example"), ("host", "understudy.example")];
    service.ask_with("POST", path, Some(json!({})), &own).await.expect(202);
    // A form of another site cannot log somebody in either.
    let foreign = [("origin", "https://evil.example"), ("host", "understudy.example")];
    try_in(&service, "ann", PASSWORD, None, &foreign).await.expect(403);
    let form = Request::post("/api/v1/sessions").header("content-type", "text/plain");
    let form = form.body(Body::from(json!({"name": "ann", "password": PASSWORD}).to_string())).unwrap();
    service.send(form).await.expect(400);
}

#[tokio::test]
async fn a_log_in_takes_no_session_over_that_somebody_else_chose() {
    let service = Service::start().await;
    add(&service, "ann", "viewer").await;
    let planted = "understudy=chosen-by-an-attacker";
    let answer = try_in(&service, "ann", PASSWORD, None, &[("cookie", planted)]).await.expect(201);
    let first = browser(&answer);
    assert_ne!(first.cookie, planted);
    service.ask_with("GET", "/api/v1/me", None, &[("cookie", planted)]).await.expect(401);
    // The next log-in in the same browser ends the session before.
    let second = browser(&try_in(&service, "ann", PASSWORD, None, &[("cookie", &first.cookie)]).await.expect(201));
    assert_ne!(second.cookie, first.cookie);
    first.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    second.ask(&service, "GET", "/api/v1/me", None).await.expect(200);
}

#[tokio::test]
async fn whoever_guesses_gets_ten_tries_a_minute_and_learns_nothing() {
    let service = Service::start().await;
    add(&service, "ann", "viewer").await;
    let headers = [("x-forwarded-for", "192.0.2.7")];
    // At once, so that a slow machine does not stretch them over two minutes.
    let tries = (0..14).map(|_| try_in(&service, "ann", "not the password", None, &headers));
    let answers = join_all(tries).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status.as_u16() == status).count();
    assert_eq!((count(401), count(429)), (10, 4));
    let refused = answers.iter().find(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).unwrap();
    assert!((1..=61).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
    // Not even the right password is tried now; from elsewhere its owner still gets in.
    try_in(&service, "ann", PASSWORD, None, &headers).await.expect(429);
    try_in(&service, "ann", PASSWORD, None, &[("x-forwarded-for", "192.0.2.8")]).await.expect(201);

    let wrong = try_in(&service, "ann", "not the password", None, &[]).await.expect(401);
    let nobody = try_in(&service, "nobody", "not the password", None, &[]).await.expect(401);
    assert_eq!(wrong.body, nobody.body);
}

#[tokio::test]
async fn a_second_factor_is_needed_once_it_is_in_force_and_no_code_works_twice() {
    let service = Service::start().await;
    add(&service, "ann", "administrator").await;
    let ann = log_in(&service, "ann").await;
    let other = log_in(&service, "ann").await;
    let path = "/api/v1/me/second-factor";
    ann.ask(&service, "POST", path, Some(json!({"password": "somebody else's"}))).await.expect(422);
    let offer = ann.ask(&service, "POST", path, Some(json!({"password": PASSWORD}))).await.expect(200).body;
    let secret = offer["setup"]["secret"].as_str().unwrap();
    assert!(offer["setup"]["uri"].as_str().unwrap().starts_with("otpauth://totp/Understudy:ann?secret="));
    // Not confirmed, not in force.
    log_in(&service, "ann").await;
    let confirm = format!("{path}/confirm");
    ann.ask(&service, "POST", &confirm, Some(json!({"code": "000 00"}))).await.expect(422);
    let used = code(secret, 0);
    let confirmed = ann.ask(&service, "POST", &confirm, Some(json!({"code": used}))).await.expect(200).body;
    let codes: HashSet<&str> =
        confirmed["recovery_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(codes.len(), 10);
    // What was open before is closed, but for the one that did it.
    other.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    let me = ann.ask(&service, "GET", "/api/v1/me", None).await.expect(200).body;
    assert_eq!((&me["session"]["second_factor"], &me["session"]["recovery_codes_left"]), (&json!(true), &json!(10)));

    let asked = try_in(&service, "ann", PASSWORD, None, &[]).await.expect(401);
    assert_eq!(asked.body["type"], "urn:understudy:problem:second_factor_required");
    try_in(&service, "ann", PASSWORD, Some(&used), &[]).await.expect(401);
    try_in(&service, "ann", "not the password", Some(&code(secret, 1)), &[]).await.expect(401);
    try_in(&service, "ann", PASSWORD, Some(&code(secret, 1)), &[]).await.expect(201);
    let recovery = codes.iter().next().unwrap().to_uppercase();
    try_in(&service, "ann", PASSWORD, Some(&recovery), &[]).await.expect(201);
    try_in(&service, "ann", PASSWORD, Some(&recovery), &[]).await.expect(401);
    let sealed = service.number("select count(*) from account where second_factor is not null").await;
    assert_eq!(sealed, 1);

    service.ask("POST", "/api/v1/users/ann/reset-second-factor", None).await.expect(200);
    ann.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    log_in(&service, "ann").await;
}

#[tokio::test]
async fn sessions_end_by_time_by_password_by_role_and_by_an_administrator() {
    let service = Service::start().await;
    add(&service, "ann", "administrator").await;
    add(&service, "ben", "viewer").await;
    let ann = log_in(&service, "ann").await;
    for (ending, path, body) in [
        ("POST", "/api/v1/users/ben/password", json!({"password": PASSWORD})),
        ("PATCH", "/api/v1/users/ben", json!({"role": "operator"})),
        ("PATCH", "/api/v1/users/ben", json!({"disabled": true})),
    ] {
        let ben = log_in(&service, "ben").await;
        ben.ask(&service, "GET", "/api/v1/me", None).await.expect(200);
        let status = ann.ask(&service, ending, path, Some(body)).await.expect(200).status;
        assert_eq!(status, 200);
        ben.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    }
    try_in(&service, "ben", PASSWORD, None, &[]).await.expect(401);
    ann.ask(&service, "PATCH", "/api/v1/users/ben", Some(json!({"disabled": false}))).await.expect(200);
    let ben = log_in(&service, "ben").await;
    ben.ask(&service, "GET", "/api/v1/sessions?all=true", None).await.expect(403);
    let all = ann.ask(&service, "GET", "/api/v1/sessions?all=true", None).await.expect(200).body;
    let his = all["items"].as_array().unwrap().iter().find(|session| session["user"] == "ben").unwrap();
    let his = format!("/api/v1/sessions/{}", his["session_id"].as_str().unwrap());
    ann.ask(&service, "DELETE", &his, None).await.expect(204);
    ben.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    let hers = ann.ask(&service, "GET", "/api/v1/me", None).await.expect(200).body;
    let ben = log_in(&service, "ben").await;
    let hers = format!("/api/v1/sessions/{}", hers["session"]["session_id"].as_str().unwrap());
    ben.ask(&service, "DELETE", &hers, None).await.expect(404);

    service.execute("update session set seen_at = now() - interval '31 minutes'").await;
    ben.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
    let ben = log_in(&service, "ben").await;
    service.execute("update session set expires_at = now() - interval '1 second'").await;
    ben.ask(&service, "GET", "/api/v1/me", None).await.expect(401);
}

#[tokio::test]
async fn accounts_are_made_with_a_password_shown_once_and_one_administrator_stays() {
    let service = Service::start().await;
    let made = service.post("/api/v1/users", json!({"name": "ann", "role": "administrator"})).await.expect(201).body;
    let password = made["password"].as_str().unwrap().to_owned();
    assert!(password.len() > 20, "{password}");
    let ann = browser(&try_in(&service, "ann", &password, None, &[]).await.expect(201));
    service.post("/api/v1/users", json!({"name": "ANN", "role": "viewer"})).await.expect(409);
    for (body, pointer) in [
        (json!({"name": "", "role": "viewer"}), "/name"),
        (json!({"name": "a b", "role": "viewer"}), "/name"),
        (json!({"name": "ben", "role": "viewer", "password": "short"}), "/password"),
        (json!({"name": "ben", "role": "user"}), "/mailbox"),
        (json!({"name": "ben", "role": "billing", "group": "board"}), "/group"),
    ] {
        let refused = service.post("/api/v1/users", body).await.expect(422).body;
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    for (method, body) in
        [("DELETE", None), ("PATCH", Some(json!({"role": "viewer"}))), ("PATCH", Some(json!({"disabled": true})))]
    {
        ann.ask(&service, method, "/api/v1/users/ann", body).await.expect(409);
    }
    let weak = json!({"current": password, "new": "ann-ann-ann-ann"});
    ann.ask(&service, "PUT", "/api/v1/me/password", Some(weak)).await.expect(422);
    let good = json!({"current": password, "new": PASSWORD});
    ann.ask(&service, "PUT", "/api/v1/me/password", Some(good)).await.expect(204);
    log_in(&service, "ann").await;
    try_in(&service, "ann", &password, None, &[]).await.expect(401);
    let listed = service.get("/api/v1/users").await.expect(200).body.to_string();
    assert!(!listed.contains("argon2") && !listed.contains("password"), "{listed}");
    let dump = service.text("select coalesce(string_agg(a::text, ' '), '') from audit a").await;
    for secret in [password.as_str(), PASSWORD, "argon2id", ann.cookie.as_str(), ann.csrf.as_str()] {
        assert!(!dump.contains(secret), "the audit holds {secret}");
    }
}

#[tokio::test]
async fn a_user_sees_their_own_mailbox_and_a_group_s_operator_their_group() {
    let service = Service::with_mailboxes().await;
    service.ask("PATCH", "/api/v1/mailboxes/ben@example.org", Some(json!({"group": "board"}))).await.expect(200);
    let user = json!({"name": "ana@example.org", "role": "user", "mailbox": "ana@example.org", "password": PASSWORD});
    service.post("/api/v1/users", user).await.expect(201);
    let ana = log_in(&service, "ana@example.org").await;
    let own = ana.ask(&service, "GET", "/api/v1/mailboxes", None).await.expect(200).body;
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    ana.ask(&service, "GET", "/api/v1/mailboxes/ana@example.org", None).await.expect(200);
    ana.ask(&service, "GET", "/api/v1/mailboxes/ben@example.org", None).await.expect(404);
    let near = ana.ask(&service, "GET", "/api/v1/mailboxes/bem@example.org", None).await.expect(404);
    assert!(!near.body.to_string().contains("ben@"), "what is not theirs is not proposed either: {}", near.body);
    for path in
        ["/api/v1/servers", "/api/v1/runs", "/api/v1/audit", "/api/v1/users", "/api/v1/status", "/api/v1/history"]
    {
        ana.ask(&service, "GET", path, None).await.expect(403);
    }
    ana.ask(&service, "POST", "/api/v1/mailboxes/ana@example.org/pause", Some(json!({}))).await.expect(403);

    let desk = json!({"name": "desk", "role": "operator", "group": "board", "password": PASSWORD});
    service.post("/api/v1/users", desk).await.expect(201);
    let desk = log_in(&service, "desk").await;
    let seen = desk.ask(&service, "GET", "/api/v1/mailboxes", None).await.expect(200).body;
    assert_eq!(seen["items"][0]["address"], "ben@example.org");
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    desk.ask(&service, "POST", "/api/v1/mailboxes/ana@example.org/pause", Some(json!({}))).await.expect(404);
    desk.ask(&service, "POST", "/api/v1/verifications", Some(json!({"addresses": ["ana@example.org"]})))
        .await
        .expect(422);
    let run = desk.ask(&service, "POST", "/api/v1/verifications", Some(json!({"all": true}))).await.expect(202).body;
    assert_eq!(run["request"]["addresses"], json!(["ben@example.org"]));
    let switch = json!({"selector": {"all": true}, "mode": "planned"});
    let run = desk.ask(&service, "POST", "/api/v1/switchovers", Some(switch)).await.expect(202).body;
    assert_eq!(run["request"]["addresses"], json!(["ben@example.org"]));
    service.post("/api/v1/mailboxes/ana@example.org/verify", json!({})).await.expect(202);
    let runs = desk.ask(&service, "GET", "/api/v1/runs", None).await.expect(200).body;
    assert!(!runs.to_string().contains("ana@example.org"), "{runs}");
    service
        .execute(
            "insert into canary (mailbox_id, every_seconds, within_seconds) select mailbox_id, 60, 30 from mailbox",
        )
        .await;
    let status = desk.ask(&service, "GET", "/api/v1/status", None).await.expect(200).body;
    assert_eq!(status["mailboxes"]["total"], 1);
    assert_eq!(status["canaries"]["total"], 1);
    let history = desk.ask(&service, "GET", "/api/v1/history", None).await.expect(200).body;
    assert!(!history.to_string().contains("ana@example.org"), "{history}");
    desk.ask(&service, "GET", "/metrics", None).await.expect(403);
}

#[tokio::test]
async fn names_made_to_be_run_as_scripts_stay_text() {
    let service = Service::with_servers().await;
    let script = "<script>alert(1)</script>@example.org";
    let body = json!({"addresses": [script], "primary": "mail-a", "standby": "dr-1", "group": "=cmd|' /C calc'!A0"});
    service.post("/api/v1/mailboxes", body).await.expect(201);
    let answer = service.get("/api/v1/mailboxes").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    let csv = service.get("/api/v1/audit/export?format=csv").await.expect(200);
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert!(csv.header("content-disposition").starts_with("attachment"));
    for line in csv.body.as_str().unwrap().lines() {
        assert!(!line.split("\",\"").any(|cell| cell.trim_start_matches('"').starts_with(['=', '+', '@'])), "{line}");
    }
}
