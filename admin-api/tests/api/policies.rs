//! Policies: written, refused, given to mailboxes; and what witnesses say of servers.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn a_policy_is_written_given_and_removed_once_nobody_has_it() {
    let service = Service::with_mailboxes().await;
    let gold = "/api/v1/policies/gold";
    let built_in = service.get("/api/v1/policies/default").await.expect(200).body;
    assert_eq!((&built_in["document"]["switchover"], &built_in["document"]["quorum"]), (&json!("off"), &json!(2)));
    service.get(gold).await.expect(404);
    let unknown = service.ask("PATCH", "/api/v1/mailboxes/ana@example.org", Some(json!({"policy": "gold"}))).await;
    assert_eq!(unknown.expect(422).body["errors"][0]["pointer"], "/policy");

    let document = json!({"switchover": "shadow", "threshold_seconds": 5, "priority": 7, "brake": {"share": 0.2}});
    let made = service.ask("PUT", gold, Some(document)).await.expect(201).body;
    assert_eq!(
        (&made["document"]["brake"]["share"], &made["document"]["hold_down_seconds"]),
        (&json!(0.2), &json!(3600.0))
    );
    let change = json!({"policy": "gold"});
    service.ask("PATCH", "/api/v1/mailboxes/ana@example.org", Some(change)).await.expect(200);
    assert_eq!(service.number("select priority::bigint from mailbox where address like 'ana%'").await, 7);
    service.ask("PUT", gold, Some(json!({"priority": 3}))).await.expect(200);
    assert_eq!(service.number("select priority::bigint from mailbox where address like 'ana%'").await, 3);
    assert_eq!(service.ask("DELETE", gold, None).await.expect(409).body["status"], 409);

    let back = json!({"policy": "default"});
    service.ask("PATCH", "/api/v1/mailboxes/ana@example.org", Some(back)).await.expect(200);
    service.ask("DELETE", gold, None).await.expect(204);
    service.ask("DELETE", gold, None).await.expect(404);
}

#[tokio::test]
async fn a_policy_that_cannot_be_acted_upon_is_refused_by_name() {
    let service = Service::start().await;
    let put = async |document| service.ask("PUT", "/api/v1/policies/gold", Some(document)).await;
    let misspelled = put(json!({"treshold_seconds": 5})).await.body;
    assert_eq!(
        (&misspelled["status"], &misspelled["errors"][0]["nearest"]),
        (&json!(422), &json!("threshold_seconds"))
    );
    let wrong =
        put(json!({"quorum": 0, "before": [{"command": "/bin/sh"}], "brake": {"share": 2}})).await.expect(422).body;
    let pointers: Vec<_> = wrong["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert_eq!(pointers, ["/quorum", "/before/0/command", "/brake/share"]);
    service.get("/api/v1/policies/gold").await.expect(404);
}

#[tokio::test]
async fn witnesses_say_what_they_see_and_nobody_speaks_for_the_gateways() {
    let service = Service::with_mailboxes().await;
    let path = "/api/v1/servers/mail-a/observations";
    service.post(path, json!({"observer": "office", "up": false, "reason": "no answer"})).await.expect(204);
    assert_eq!(service.number("select count(*) from vote where observer = 'office' and not is_up").await, 1);
    service.post(path, json!({"observer": "recovery", "up": true})).await.expect(422);
    service.post("/api/v1/servers/mail-x/observations", json!({"observer": "office", "up": true})).await.expect(404);
    let health = service.get("/api/v1/servers/mail-a/health").await.expect(200).body;
    assert_eq!((&health["verdict"], &health["history"]), (&json!("unknown"), &json!([])));
    service.get("/api/v1/servers/mail-a/health?hours=0").await.expect(422);
}
