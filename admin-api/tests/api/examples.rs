//! The examples of the description: each body has one, and each does what it says when it is sent.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::service::{Answer, Service};

/// What an example of a body is sent to, in the place of each variable.
const PLACES: [(&str, &str); 5] = [
    ("{address}", "ana@example.org"),
    ("{topic}", "switch_done"),
    ("{language}", "en"),
    ("{month}", "2025-01"),
    ("{id}", "0192c3f0-0000-7000-8000-000000000000"),
];

fn name_of(path: &str) -> &'static str {
    match path {
        path if path.starts_with("/api/v1/users") => "ann",
        path if path.starts_with("/api/v1/tenants") => "customer.example",
        path if path.starts_with("/api/v1/policies") => "gold",
        _ => "mail-a",
    }
}

/// The example of a body: of the body itself, or of its schema.
fn example<'d>(document: &'d Value, body: &'d Value) -> Option<&'d Value> {
    let content = &body["content"]["application/json"];
    let schema = match content["schema"]["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#'))?,
        None => &content["schema"],
    };
    [&content["example"], &schema["example"]].into_iter().find(|example| !example.is_null())
}

/// A description whose operations are sent what they show.
struct Examples {
    service: Service,
    document: Value,
    sent: Vec<String>,
    session: Vec<(&'static str, String)>,
}

impl Examples {
    async fn start() -> Self {
        let service = Service::with_mailboxes().await;
        let document = service.get("/api/openapi.json").await.expect(200).body;
        Self { service, document, sent: Vec::new(), session: Vec::new() }
    }

    /// Sends the example of one operation.
    async fn send(&mut self, method: &str, path: &str) -> Answer {
        let operation = &self.document["paths"][path][method.to_lowercase()];
        let body = example(&self.document, &operation["requestBody"]);
        let body = body.unwrap_or_else(|| panic!("{method} {path} has no example")).clone();
        self.sent.push(format!("{method} {path}"));
        let place = PLACES.iter().fold(path.to_owned(), |path, (variable, place)| path.replace(variable, place));
        let bearer = [("authorization", self.service.bearer())];
        let headers = if path.starts_with("/api/v1/me") { self.session.as_slice() } else { bearer.as_slice() };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = self.service.ask_with(method, &place.replace("{name}", name_of(path)), Some(body), &headers).await;
        let described: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
        let status = answer.status.as_str().to_owned();
        assert!(described.contains(&&status), "{method} {path} answers {status}, which is not described");
        answer
    }

    /// Sends it, and it does what it says.
    async fn works(&mut self, method: &str, path: &str) -> Answer {
        let answer = self.send(method, path).await;
        assert!(answer.status.is_success(), "{method} {path}: {} {:#}", answer.status, answer.body);
        answer
    }
}

#[tokio::test]
async fn every_example_of_a_body_works() {
    let mut examples = Examples::start().await;
    // What a recovery gateway writes down at its start.
    examples
        .service
        .execute(
            "insert into link_authority (fingerprint, expires_at, served_fingerprint, served_expires_at, listen, encrypted)
             values (decode(repeat('00', 32), 'hex'), now() + interval '1 year', decode(repeat('00', 32), 'hex'),
                     now() + interval '1 year', '0.0.0.0:8443', true)",
        )
        .await;
    for (method, path) in [
        ("POST", "/api/v1/servers"),
        ("PATCH", "/api/v1/servers/{name}"),
        ("POST", "/api/v1/servers/{name}/check"),
        ("POST", "/api/v1/servers/{name}/observations"),
        ("PUT", "/api/v1/policies/{name}"),
        ("POST", "/api/v1/mailboxes"),
        ("PATCH", "/api/v1/mailboxes/{address}"),
        ("PUT", "/api/v1/mailboxes/{address}/aliases"),
        ("PUT", "/api/v1/mailboxes/{address}/canary"),
        ("PUT", "/api/v1/mailboxes/{address}/contact"),
        ("POST", "/api/v1/mailboxes/{address}/pause"),
        ("POST", "/api/v1/mailboxes/{address}/resume"),
        ("POST", "/api/v1/mailboxes/{address}/verify"),
        ("POST", "/api/v1/mailboxes/{address}/barrier"),
        ("POST", "/api/v1/barriers"),
        ("POST", "/api/v1/verifications"),
        ("POST", "/api/v1/link/invitations"),
        ("PUT", "/api/v1/link/limits"),
        ("PUT", "/api/v1/notifications/settings"),
        ("PUT", "/api/v1/notifications/templates/{topic}/{language}"),
        ("POST", "/api/v1/notifications/preview"),
        ("POST", "/api/v1/notifications/announcements"),
        ("PUT", "/api/v1/prices"),
        ("POST", "/api/v1/tenants"),
        ("PATCH", "/api/v1/tenants/{name}"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/users"),
    ] {
        examples.works(method, path).await;
    }

    let in_session = examples.works("POST", "/api/v1/sessions").await;
    let cookie = in_session.header("set-cookie").split(';').next().unwrap().to_owned();
    let csrf = in_session.body["session"]["csrf"].as_str().unwrap().to_owned();
    examples.session = vec![("cookie", cookie), ("understudy-csrf", csrf)];
    examples.works("POST", "/api/v1/me/second-factor").await;
    // Of a clock that stands still in no document: the code is of another time.
    examples.send("POST", "/api/v1/me/second-factor/confirm").await.expect(422);
    examples.works("POST", "/api/v1/me/second-factor/remove").await;
    examples.works("PUT", "/api/v1/me/password").await;
    examples.works("PATCH", "/api/v1/users/{name}").await;
    examples.works("POST", "/api/v1/users/{name}/password").await;

    for decision in ["release", "discard"] {
        examples.service.execute("update mailbox set phase = 'mirroring', held = true where address like 'ana%'").await;
        examples.works("POST", &format!("/api/v1/mailboxes/{{address}}/{decision}")).await;
    }
    examples.service.execute("update mailbox set held = false").await;
    for path in [
        "/api/v1/mailboxes/{address}/switchover",
        "/api/v1/mailboxes/{address}/switchback",
        "/api/v1/switchovers",
        "/api/v1/switchbacks",
    ] {
        examples.works("POST", path).await;
        examples.service.execute("update run set state = 'done', ended_at = now() where ended_at is null").await;
    }

    examples
        .service
        .execute(
            "insert into mailbox (address, primary_server_id, standby_server_id, standby_address, created_at)
             select 'old@example.org', p.server_id, s.server_id, 'old@example.org', '2025-01-07'
             from server p, server s where p.name = 'mail-a' and s.name = 'dr-1'",
        )
        .await;
    examples.service.post("/api/v1/invoices/2025-01/close", json!({})).await.expect(200);
    examples.works("POST", "/api/v1/invoices/{month}/corrections").await;

    // None was left out.
    for (path, item) in examples.document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let asked = format!("{} {path}", method.to_uppercase());
            assert!(operation.get("requestBody").is_none() || examples.sent.contains(&asked), "{asked} was not tried");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_wherever_it_goes() {
    let service = Service::with_mailboxes().await;
    let document = service.get("/api/openapi.json").await.expect(200).body;
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("requestBody").is_none() || path.starts_with("/api/v1/me") {
                continue;
            }
            let place = PLACES.iter().fold(path.to_owned(), |path, (variable, place)| path.replace(variable, place));
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(place.replace("{name}", name_of(path)))
                .header("authorization", service.bearer())
                .header("content-type", "application/json")
                .body(Body::from(vec![b' '; (8 << 20) + 1]))
                .unwrap();
            let answer = service.send(request).await;
            assert_eq!(answer.status, 413, "{method} {path}: {}", answer.body);
            assert!(answer.body["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{}", answer.body);
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}
