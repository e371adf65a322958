//! The same POST sent twice.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn one_key_is_one_run_and_the_same_answer() {
    let service = Service::with_mailboxes().await;
    let bearer = service.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k1")];
    let path = "/api/v1/mailboxes/ana@example.org/barrier";
    let first = service.ask_with("POST", path, Some(json!({})), &headers).await.expect(202);
    let second = service.ask_with("POST", path, Some(json!({})), &headers).await.expect(202);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(service.number("select count(*) from run where kind = 'barrier'").await, 1);

    let other = json!({"timeout_seconds": 5});
    let mismatch = service.ask_with("POST", path, Some(other.clone()), &headers).await.expect(422);
    assert_eq!(mismatch.body["type"], "urn:understudy:problem:idempotency_mismatch");
    service.ask_with("POST", "/api/v1/barriers", Some(json!({"all": true})), &headers).await.expect(422);
    let fresh = [("authorization", bearer.as_str()), ("idempotency-key", "k2")];
    service.ask_with("POST", path, Some(other), &fresh).await.expect(202);
}

#[tokio::test]
async fn what_was_refused_may_be_sent_again_and_a_claim_in_progress_is_not_carried_out_twice() {
    let service = Service::with_servers().await;
    let bearer = service.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let body = json!({"addresses": ["ana"], "primary": "mail-a", "standby": "dr-2"});
    service.ask_with("POST", "/api/v1/mailboxes", Some(body.clone()), &headers).await.expect(422);
    service.post("/api/v1/servers", crate::service::server("dr-2", "standby")).await.expect(201);
    service.ask_with("POST", "/api/v1/mailboxes", Some(body.clone()), &headers).await.expect(201);

    service.execute("update idempotency set status = 0, response = 'null'").await;
    let busy = service.ask_with("POST", "/api/v1/mailboxes", Some(body.clone()), &headers).await.expect(409);
    assert_eq!(busy.body["type"], "urn:understudy:problem:idempotency_busy");
    service.execute("update idempotency set created_at = now() - interval '1 hour'").await;
    service.ask_with("POST", "/api/v1/mailboxes", Some(body), &headers).await.expect(200);
}

#[tokio::test]
async fn a_secret_is_not_kept_for_the_second_answer() {
    let service = Service::start().await;
    let bearer = service.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let body = json!({"name": "screen", "role": "viewer"});
    let first = service.ask_with("POST", "/api/v1/tokens", Some(body.clone()), &headers).await.expect(201);
    let second = service.ask_with("POST", "/api/v1/tokens", Some(body), &headers).await.expect(201);
    assert!(first.body["token"].is_string() && second.body["token"].is_null());
    assert_eq!(service.number("select count(*) from idempotency where response::text like '%understudy_%'").await, 0);
}

/// From a digest of a request with a password in it, the password could be guessed.
#[tokio::test]
async fn nothing_is_kept_of_a_request_with_a_password() {
    let service = Service::start().await;
    let bearer = service.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let body = json!({"name": "ann", "role": "viewer", "password": "correct horse battery"});
    service.ask_with("POST", "/api/v1/users", Some(body.clone()), &headers).await.expect(201);
    service.ask_with("POST", "/api/v1/users", Some(body), &headers).await.expect(409);
    let other = json!({"password": "battery horse correct"});
    service.ask_with("POST", "/api/v1/users/ann/password", Some(other), &headers).await.expect(200);
    assert_eq!(service.number("select count(*) from idempotency").await, 0);
}

/// What somebody puts where no password belongs is refused; and what is kept of a request that is not, says nothing without the key.
#[tokio::test]
async fn a_digest_that_is_kept_is_not_one_that_can_be_made_from_the_request() {
    let service = Service::start().await;
    let bearer = service.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let mut wrong = crate::service::server("mail-a", "primary");
    wrong["login"]["password"] = json!("correct horse battery");
    service.ask_with("POST", "/api/v1/servers", Some(wrong), &headers).await.expect(422);
    assert_eq!(service.number("select count(*) from idempotency").await, 0);

    let body = crate::service::server("mail-a", "primary");
    service.ask_with("POST", "/api/v1/servers", Some(body.clone()), &headers).await.expect(201);
    let again = service.ask_with("POST", "/api/v1/servers", Some(body), &headers).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    // Two services know different keys: the same request leaves different digests.
    let other = Service::start().await;
    let bearer = other.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let body = crate::service::server("mail-a", "primary");
    other.ask_with("POST", "/api/v1/servers", Some(body), &headers).await.expect(201);
    let digest = "select encode(request_digest, 'hex') from idempotency";
    assert_ne!(service.text(digest).await, other.text(digest).await);
}
