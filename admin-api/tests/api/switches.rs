//! Changes of side: which mailboxes are meant, one run for all who ask, and what cannot be asked.

use serde_json::json;
use understudy_database::switch;
use understudy_protocol::{MailboxId, Side};

use crate::service::Service;

#[tokio::test]
async fn one_run_is_about_every_mailbox_meant() {
    let service = Service::with_mailboxes().await;
    let one = service.post("/api/v1/mailboxes/ANA@example.org/switchover", json!({"reason": "disk"})).await.expect(202);
    assert_eq!((&one.body["kind"], &one.body["address"]), (&json!("switchover"), &json!("ana@example.org")));
    assert!(one.header("location").starts_with("/api/v1/runs/"));
    assert_eq!(one.body["request"]["mode"], "planned");

    let all = json!({"selector": {"all": true}, "mode": "emergency", "max_loss": 3});
    let all = service.post("/api/v1/switchovers", all).await.expect(202).body;
    assert_eq!(all["request"]["addresses"].as_array().unwrap().len(), 2, "{all:#}");
    assert_eq!(all["request"]["max_loss"], 3);
    let named = json!({"selector": {"addresses": ["ben@example.org"]}, "dry_run": true});
    let named = service.post("/api/v1/switchbacks", named).await.expect(202).body;
    assert_eq!((&named["kind"], &named["request"]["dry_run"]), (&json!("switchback"), &json!(true)));
}

#[tokio::test]
async fn who_asks_for_what_is_under_way_gets_that_run() {
    let service = Service::with_mailboxes().await;
    let body = json!({"selector": {"addresses": ["ana@example.org", "ben@example.org"]}});
    let first = service.post("/api/v1/switchovers", body).await.expect(202).body;
    let body = json!({"selector": {"addresses": ["ben@example.org", "ana@example.org"]}});
    let second = service.post("/api/v1/switchovers", body).await.expect(202).body;
    assert_eq!(first["run_id"], second["run_id"]);
    let path = format!("/api/v1/runs/{}/cancel", first["run_id"].as_str().unwrap());
    service.post(&path, json!({})).await.expect(202);
    let body = json!({"selector": {"addresses": ["ben@example.org", "ana@example.org"]}});
    let third = service.post("/api/v1/switchovers", body).await.expect(202).body;
    assert_ne!(first["run_id"], third["run_id"], "a cancelled run is nobody's");
}

#[tokio::test]
async fn a_selector_that_means_nothing_says_so() {
    let service = Service::with_mailboxes().await;
    for (selector, status) in [
        (json!({}), 422),
        (json!({"all": true, "group": "board"}), 422),
        (json!({"group": "nobody"}), 422),
        (json!({"server": "nowhere"}), 404),
        (json!({"addresses": ["zoe@example.org"]}), 422),
    ] {
        let refused = service.post("/api/v1/switchovers", json!({"selector": selector})).await.expect(status);
        assert!(refused.body["remedy"].is_string(), "{selector}: {:#}", refused.body);
    }
    let planned = json!({"selector": {"all": true}, "max_loss": 0});
    service.post("/api/v1/switchovers", planned).await.expect(422);
}

#[tokio::test]
async fn one_run_at_a_time_moves_a_mailbox_and_it_stays_protected_meanwhile() {
    let service = Service::with_mailboxes().await;
    let one = service.post("/api/v1/mailboxes/ana@example.org/switchover", json!({})).await.expect(202).body;
    let other = service.post("/api/v1/mailboxes/ana@example.org/switchback", json!({})).await.expect(202).body;
    let id = |run: &serde_json::Value| run["run_id"].as_str().unwrap().parse().unwrap();
    let mailbox = MailboxId(one["request"]["mailbox_ids"][0].as_i64().unwrap());
    let mut db = service.pool.acquire().await.unwrap();
    let claimed = switch::claim(&mut db, id(&one), mailbox, Side::Standby, false).await.unwrap();
    let again = switch::claim(&mut db, id(&one), mailbox, Side::Standby, false).await.unwrap();
    assert!(matches!((&claimed, &again), (switch::Claimed::Ours(_), switch::Claimed::Ours(_))));
    let busy = switch::claim(&mut db, id(&other), mailbox, Side::Primary, false).await.unwrap();
    assert!(matches!(busy, switch::Claimed::Busy(by) if by == id(&one)), "{busy:?}");

    let moved = switch::set_phase(&mut db, mailbox, &["seeding", "mirroring"], "switching_over", id(&one)).await;
    assert!(moved.unwrap());
    let refused = service.ask("DELETE", "/api/v1/mailboxes/ana@example.org", None).await.expect(409).body;
    assert!(refused["remedy"].as_str().unwrap().contains("switchback"), "{refused:#}");
}
