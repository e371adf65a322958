//! A hoster's customers: each sees their own and nothing of the others, on every route.

use serde_json::{Value, json};

use crate::service::{Service, server};

/// A provider with `ana` and `ben`, and a customer `other` with a token.
async fn two() -> (Service, String) {
    let service = Service::with_mailboxes().await;
    service.post("/api/v1/tenants", json!({"name": "other", "servers": ["mail-b", "dr-1"]})).await.expect(201);
    let token =
        acting(&service, "POST", "/api/v1/tokens", Some(json!({"name": "theirs", "role": "administrator"}))).await;
    let token = format!("Bearer {}", token["token"].as_str().unwrap());
    (service, token)
}

/// The provider's administrator acts for the customer.
async fn acting(service: &Service, method: &str, path: &str, body: Option<Value>) -> Value {
    let headers = [("authorization", service.bearer()), ("understudy-tenant", "other".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = service.ask_with(method, path, body, &headers).await;
    assert!(answer.status.is_success(), "{method} {path}: {:#}", answer.body);
    answer.body
}

/// A body that the route takes, about things of the first tenant.
fn body_for(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("GET" | "DELETE", _) => None,
        (_, "/api/v1/barriers" | "/api/v1/verifications") => Some(json!({"addresses": ["ana@example.org"]})),
        (_, "/api/v1/switchovers" | "/api/v1/switchbacks") => {
            Some(json!({"selector": {"addresses": ["ana@example.org"]}}))
        }
        (_, "/api/v1/mailboxes") => {
            Some(json!({"addresses": ["new@example.org"], "primary": "mail-a", "standby": "dr-1"}))
        }
        (_, "/api/v1/mailboxes/{address}/aliases") => Some(json!({"aliases": ["x@example.org"]})),
        _ => Some(json!({})),
    }
}

#[tokio::test]
async fn no_route_says_or_changes_anything_of_another_tenant() {
    let (service, theirs) = two().await;
    let run = service.post("/api/v1/mailboxes/ana@example.org/verify", json!({})).await.expect(202).body;
    let run = run["run_id"].as_str().unwrap().to_owned();
    service.post("/api/v1/users", json!({"name": "ann", "role": "administrator"})).await.expect(201);
    let before = service.text(SNAPSHOT).await;
    let document = service.get("/api/openapi.json").await.expect(200).body;
    let headers = [("authorization", theirs.as_str())];
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            // The stream does not end; a test of its own listens to it. nginx has a key of its own, for all tenants.
            let skipped = ["/api/v1/events", "/api/v1/routes/nginx-auth", "/api/v1/sessions"];
            if item.get(method).is_none() || skipped.contains(&path.as_str()) || path.contains("/me") {
                continue;
            }
            let method = method.to_uppercase();
            let name = match path.as_str() {
                path if path.starts_with("/api/v1/users") => "ann",
                path if path.starts_with("/api/v1/tokens") => "first",
                path if path.starts_with("/api/v1/policies") => "gold",
                path if path.starts_with("/api/v1/tenants") => "default",
                _ => "mail-a",
            };
            let asked = path.replace("{name}", name).replace("{address}", "ana@example.org").replace("{id}", &run);
            let answer = service.ask_with(&method, &asked, body_for(&method, path), &headers).await;
            tried += 1;
            let said = answer.body.to_string();
            let repeated = asked.contains("ana@example.org") || path.as_str() == "/api/v1/barriers";
            let secrets = ["ben@example.org", "mail-a.example.org", "\"ann\"", "/etc/understudy"];
            for secret in secrets {
                assert!(!said.contains(secret), "{method} {asked} says {secret}: {said}");
            }
            let names_it = path.contains('{') && !path.contains("policies") || repeated;
            if names_it && !path.starts_with("/api/docs") {
                assert!(!answer.status.is_success(), "{method} {asked} answers {}: {said}", answer.status);
            }
            assert!(answer.status.as_u16() < 500, "{method} {asked}: {said}");
        }
    }
    assert!(tried > 40, "{tried} operations tried");
    assert_eq!(service.text(SNAPSHOT).await, before, "something of the first tenant changed");
}

/// Everything a person can change of the first tenant.
const SNAPSHOT: &str = "select concat(
    (select string_agg(concat(address, policy, group_name, paused, unprotected_at), ',' order by mailbox_id) from mailbox where tenant_id = 1),
    (select string_agg(s.name || s.definition::text, ',' order by server_id) from server s where tenant_id = 1),
    (select string_agg(concat(run_id, state, cancel_requested), ',' order by run_id) from run where tenant_id = 1),
    (select string_agg(concat(name, role, revoked_at), ',' order by token_id) from token where tenant_id = 1),
    (select string_agg(concat(name, role, password, disabled_at), ',' order by account_id) from account where tenant_id = 1),
    (select string_agg(alias, ',' order by alias) from mailbox_alias where tenant_id = 1))";

#[tokio::test]
async fn a_customer_uses_shared_servers_without_seeing_into_them() {
    let (service, theirs) = two().await;
    let headers = [("authorization", theirs.as_str())];
    let servers = service.ask_with("GET", "/api/v1/servers", None, &headers).await.expect(200).body;
    let names: Vec<&str> = servers["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dr-1", "mail-b"]);
    assert!(!servers.to_string().contains("password_file\":\"/"), "{servers}");
    assert_eq!(servers["items"][0]["mailboxes"], 0, "others' mailboxes are not counted");
    service.ask_with("GET", "/api/v1/servers/mail-a", None, &headers).await.expect(404);
    for (method, path, body) in [
        ("PATCH", "/api/v1/servers/mail-b", Some(json!({"imap": "imaps://evil.example.org"}))),
        ("DELETE", "/api/v1/servers/mail-b", None),
        ("POST", "/api/v1/servers/mail-b/check", Some(json!({"address": "ben@example.org"}))),
        ("POST", "/api/v1/mailboxes", Some(json!({"discover": true, "primary": "mail-b"}))),
    ] {
        service.ask_with(method, path, body, &headers).await.expect(403);
    }
    let protect = json!({"addresses": ["cat@other.example"], "primary": "mail-b", "standby": "dr-1"});
    service.ask_with("POST", "/api/v1/mailboxes", Some(protect.clone()), &headers).await.expect(422);
    acting(&service, "POST", "/api/v1/mailboxes", Some(protect)).await;

    let seen = service.ask_with("GET", "/api/v1/mailboxes", None, &headers).await.expect(200).body;
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    service.ask_with("POST", "/api/v1/mailboxes/cat@other.example/pause", Some(json!({})), &headers).await.expect(202);
    let audit = service.ask_with("GET", "/api/v1/audit", None, &headers).await.expect(200).body.to_string();
    assert!(audit.contains("cat@other.example") && !audit.contains("ana@example.org"), "{audit}");
    let provider = service.get("/api/v1/mailboxes").await.expect(200).body.to_string();
    assert!(!provider.contains("cat@other.example"));
    service.ask_with("GET", "/metrics", None, &headers).await.expect(403);
    service.ask_with("GET", "/api/v1/tenants", None, &headers).await.expect(403);
    let beyond = [headers[0], ("understudy-tenant", "default")];
    service.ask_with("GET", "/api/v1/mailboxes", None, &beyond).await.expect(404);
    let own = service.ask_with("POST", "/api/v1/servers", Some(server("mail-a", "primary")), &headers).await;
    own.expect(201);
}

#[tokio::test]
async fn the_stream_of_events_tells_a_customer_only_their_own() {
    let (service, theirs) = two().await;
    let protect = json!({"addresses": ["cat@other.example"], "primary": "mail-b", "standby": "dr-1"});
    acting(&service, "POST", "/api/v1/mailboxes", Some(protect)).await;
    let headers = [("authorization", theirs.as_str()), ("last-event-id", "0")];
    let mut stream = service.stream("/api/v1/events", &headers).await;
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({})).await.expect(202);
    acting(&service, "POST", "/api/v1/mailboxes/cat@other.example/pause", Some(json!({}))).await;
    let heard = stream.until(|text| text.contains("event: paused") && text.contains("cat@other.example")).await;
    assert!(!heard.contains("ana@example.org") && !heard.contains("mail-a"), "{heard}");

    // A token that is revoked ends what it opened.
    acting(&service, "DELETE", "/api/v1/tokens/theirs", None).await;
    stream.until_it_ends().await;
}
