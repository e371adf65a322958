//! Mail servers: added, changed, removed, checked.

use serde_json::json;
use understudy_database::server as stored;
use understudy_protocol::{
    TenantId,
    messages::{Finding, ServerCheck, Trouble},
    server::Server,
};

use crate::service::{Service, server};

#[tokio::test]
async fn a_server_is_added_once_changed_and_removed() {
    let service = Service::start().await;
    let added = service.post("/api/v1/servers", server("mail-a", "primary")).await.expect(201);
    assert_eq!(added.header("location"), "/api/v1/servers/mail-a");
    assert_eq!(added.body["configured"], false);
    service.post("/api/v1/servers", server("mail-a", "primary")).await.expect(200);
    service.post("/api/v1/servers", server("mail-a", "standby")).await.expect(409);

    let before = service.number("select last_value from directive_version").await;
    let change = json!({"imap": "imap://mail-a.example.org:1143", "lmtp": "lmtp://mail-a.example.org:24"});
    let changed = service.ask("PATCH", "/api/v1/servers/mail-a", Some(change)).await.expect(200).body;
    assert_eq!(changed["imap"], "imap://mail-a.example.org:1143");
    assert!(service.number("select last_value from directive_version").await > before);
    let changed = service.ask("PATCH", "/api/v1/servers/mail-a", Some(json!({"lmtp": null}))).await.expect(200).body;
    assert_eq!(changed["lmtp"], json!(null));

    service.ask("DELETE", "/api/v1/servers/mail-a", None).await.expect(204);
    service.get("/api/v1/servers/mail-a").await.expect(404);
}

#[tokio::test]
async fn a_broken_definition_is_refused_at_the_member_that_is_wrong() {
    let service = Service::start().await;
    let mut broken = server("mail-a", "primary");
    broken["imap"] = json!("imap+insecure://mail-a.example.org");
    broken["login"]["password_file"] = json!("password");
    let refused = service.post("/api/v1/servers", broken).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/imap");
    assert_eq!(refused["errors"][1]["pointer"], "/login/password_file");

    let mut secret = server("mail-a", "primary");
    secret["login"]["password"] = json!("hunter2");
    let refused = service.post("/api/v1/servers", secret).await.expect(422).body;
    assert_eq!(refused["type"], "urn:understudy:problem:unknown_field");
    assert!(refused["remedy"].as_str().unwrap().contains("password_file"), "{refused}");
    assert!(!refused.to_string().contains("hunter2"));

    let mut typo = server("mail-a", "primary");
    typo["imapp"] = json!("imaps://mail-a.example.org");
    let refused = service.post("/api/v1/servers", typo).await.expect(422).body;
    assert_eq!(refused["errors"][0]["nearest"], "imap");
    let refused = service.post("/api/v1/servers", json!({"name": "x"})).await.expect(422).body;
    assert!(refused["detail"].as_str().unwrap().contains("missing field"), "{refused}");
}

#[tokio::test]
async fn a_body_that_is_no_json_and_a_parameter_that_is_not_known_are_refused() {
    let service = Service::start().await;
    let request = |content_type: &str, body: &'static str| {
        axum::http::Request::post("/api/v1/servers")
            .header("authorization", service.bearer())
            .header("content-type", content_type)
            .body(axum::body::Body::from(body))
            .unwrap()
    };
    service.send(request("application/json", "{\"name\":")).await.expect(400);
    service.send(request("text/plain", "{}")).await.expect(400);
    service.send(request("application/json", "{} {}")).await.expect(422);
    let refused = service.get("/api/v1/servers?rol=primary").await.expect(400).body;
    assert_eq!(refused["type"], "urn:understudy:problem:unknown_parameter");
    assert_eq!(refused["remedy"], "did you mean `role`?");
    service.get("/api/v1/servers?limit=0").await.expect(400);
    service.get("/api/v1/servers?after=zzz").await.expect(400);
    service.get("/api/v1/servers?role=primari").await.expect(400);
    service.ask("PUT", "/api/v1/servers", None).await.expect(405);
}

#[tokio::test]
async fn a_server_in_use_stays_and_a_misspelled_one_has_a_nearest_name() {
    let service = Service::with_mailboxes().await;
    let refused = service.ask("DELETE", "/api/v1/servers/mail-a", None).await.expect(409).body;
    assert!(refused["detail"].as_str().unwrap().contains("2 protected mailboxes"), "{refused}");
    let missing = service.get("/api/v1/servers/mial-b").await.expect(404).body;
    assert_eq!(missing["errors"][0]["nearest"], "mail-b");
    let shown = service.get("/api/v1/servers/dr-1").await.expect(200).body;
    assert_eq!(shown["mailboxes"], 2);
}

#[tokio::test]
async fn a_check_is_a_run_and_its_outcome_is_shown() {
    let service = Service::with_mailboxes().await;
    let asked = service.post("/api/v1/servers/mail-a/check", json!({"address": "ana"})).await.expect(202);
    assert_eq!(asked.body["kind"], "check");
    assert_eq!(asked.body["server"], "mail-a");
    assert_eq!(asked.body["request"], json!({"address": "ana"}));
    assert_eq!(asked.header("location"), format!("/api/v1/runs/{}", asked.body["run_id"].as_str().unwrap()));

    let known = stored::get(&service.pool, TenantId(1), "mail-a").await.unwrap().unwrap();
    let finding = Finding { level: "ok".into(), name: "QRESYNC".into(), meaning: "…".into(), remedy: String::new() };
    let check = ServerCheck { capabilities: vec!["IDLE".into()], findings: vec![finding] };
    stored::record_check(&service.pool, known.server_id, &Ok(check)).await.unwrap();
    let shown = service.get("/api/v1/servers/mail-a").await.expect(200).body;
    assert_eq!(shown["last_check"]["findings"][0]["name"], "QRESYNC");
    assert_eq!(shown["trouble"], json!(null));

    let trouble = Trouble { kind: "unreachable".into(), reason: "r".into(), remedy: "m".into(), fault: false };
    stored::record_check(&service.pool, known.server_id, &Err(trouble)).await.unwrap();
    let shown = service.get("/api/v1/servers/mail-a").await.expect(200).body;
    assert_eq!(shown["trouble"]["kind"], "unreachable");
    service
        .execute(
            "update mailbox set source_trouble =
                 '{\"kind\": \"login_refused\", \"reason\": \"no\", \"remedy\": \"do\", \"fault\": true}'",
        )
        .await;
    let shown = service.get("/api/v1/servers/mail-a").await.expect(200).body;
    assert_eq!(shown["trouble"], json!({"kind": "login_refused", "reason": "no", "remedy": "do", "mailboxes": 2}));
}

#[tokio::test]
async fn servers_of_the_configuration_file_are_changed_there() {
    let service = Service::start().await;
    let definition = |name: &str| serde_json::from_value::<Server>(server(name, "primary")).unwrap();
    let sync = async |servers: &[Server]| {
        let mut transaction = service.pool.begin().await.unwrap();
        let kept = stored::sync_configured(&mut transaction, TenantId(1), servers).await.unwrap();
        transaction.commit().await.unwrap();
        kept
    };
    service.post("/api/v1/servers", server("dr-1", "standby")).await.expect(201);
    sync(&[definition("mail-a"), definition("mail-b")]).await;
    let refused = service.ask("PATCH", "/api/v1/servers/mail-a", Some(json!({"imap": "imaps://b"}))).await.expect(409);
    assert!(refused.body["remedy"].as_str().unwrap().contains("[[server]]"));
    service.ask("DELETE", "/api/v1/servers/mail-a", None).await.expect(409);

    service.protect(&["ana"], "mail-a").await;
    assert_eq!(sync(&[]).await, ["mail-a"]);
    service.get("/api/v1/servers/mail-b").await.expect(404);
    let kept = service.get("/api/v1/servers/mail-a").await.expect(200).body;
    assert_eq!(kept["configured"], false);
    service.get("/api/v1/servers/dr-1").await.expect(200);
}
