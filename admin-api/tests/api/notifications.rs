//! What people are told: noted with what happened, in a tenant's own words, to nobody else.

use serde_json::json;
use understudy_database::{event, notice};
use understudy_protocol::{MailboxId, TenantId};

use crate::service::Service;

#[tokio::test]
async fn a_switchover_is_noted_for_each_user_and_once_for_administrators() {
    let service = Service::with_mailboxes().await;
    let body = json!({"selector": {"all": true}, "reason": "new disks"});
    let run = service.post("/api/v1/switchovers", body).await.expect(202).body;
    let planned = "select count(*) from notice where topic = 'switch_planned' and audience = 'user' and detail ->> 'reason' = 'new disks'";
    assert_eq!(service.number(planned).await, 2);
    let run: uuid::Uuid = run["run_id"].as_str().unwrap().parse().unwrap();
    let mut db = service.pool.acquire().await.unwrap();
    understudy_database::run::finish(&mut db, run, understudy_database::run::Ended::Done, &json!({"done": 2}))
        .await
        .unwrap();
    assert_eq!(service.number("select count(*) from notice where topic = 'run_ended'").await, 1);
    // A rehearsal is nobody's business but that of who asked.
    let body = json!({"selector": {"all": true}, "dry_run": true});
    service.post("/api/v1/switchbacks", body).await.expect(202);
    assert_eq!(service.number("select count(*) from notice").await, 3);
}

/// Rolled back, it did not happen, and nobody is told.
#[tokio::test]
async fn a_notice_is_part_of_what_it_tells_of() {
    let service = Service::with_mailboxes().await;
    let ana = service.number("select mailbox_id from mailbox where address = 'ana@example.org'").await;
    let trouble = json!({"side": "standby", "trouble": {"kind": "login_refused", "reason": "no", "remedy": "yes", "fault": true}});
    let mut db = service.pool.begin().await.unwrap();
    event::record(&mut *db, "trouble", Some(MailboxId(ana)), None, &trouble).await.unwrap();
    db.rollback().await.unwrap();
    assert_eq!(service.number("select count(*) from notice").await, 0);
    event::record(&service.pool, "trouble", Some(MailboxId(ana)), None, &trouble).await.unwrap();
    let passing =
        json!({"side": "standby", "trouble": {"kind": "timeout", "reason": "no", "remedy": "yes", "fault": false}});
    event::record(&service.pool, "trouble", Some(MailboxId(ana)), None, &passing).await.unwrap();
    assert_eq!(
        service.number("select count(*) from notice where topic = 'fault' and detail ->> 'remedy' = 'yes'").await,
        1
    );
    assert_eq!(service.number("select count(*) from notice").await, 1);
}

#[tokio::test]
async fn templates_are_strict_and_a_tenants_own() {
    let service = Service::start().await;
    let all = service.get("/api/v1/notifications/templates").await.expect(200).body;
    assert_eq!(all["items"].as_array().unwrap().len(), 28);
    let path = "/api/v1/notifications/templates/switch_done/en";
    let words = |subject: &str| json!({"subject": subject, "text": "{{ address }}", "html": "<p>{{ address }}</p>"});
    let wrong = service.ask("PUT", path, Some(words("{{ adress }}"))).await.expect(422).body;
    assert_eq!(wrong["errors"][0]["pointer"], "/subject");
    let own = service.ask("PUT", path, Some(words("{{ address }} moved"))).await.expect(200).body;
    assert_eq!(own["own"], true);
    let asked = json!({"topic": "switch_done", "language": "en"});
    let shown = service.post("/api/v1/notifications/preview", asked.clone()).await.expect(200).body;
    assert_eq!(shown["subject"], "ana@example.org moved");
    service.ask("DELETE", path, None).await.expect(204);
    let shown = service.post("/api/v1/notifications/preview", asked).await.expect(200).body;
    assert_eq!(shown["subject"], "Your mailbox has been moved");
    service.ask("PUT", "/api/v1/notifications/templates/nothing/en", Some(words("a"))).await.expect(404);
    service.ask("PUT", "/api/v1/notifications/templates/fault/xx", Some(words("a"))).await.expect(422);
}

#[tokio::test]
async fn wishes_are_checked_and_contacts_are_addresses() {
    let service = Service::with_mailboxes().await;
    let mut settings = service.get("/api/v1/notifications/settings").await.expect(200).body;
    settings["administrators"] = json!(["ops@example.org"]);
    settings["quiet_from"] = json!("22:00:00");
    let refused = service.ask("PUT", "/api/v1/notifications/settings", Some(settings.clone())).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/quiet_to");
    settings["quiet_to"] = json!("06:00:00");
    service.ask("PUT", "/api/v1/notifications/settings", Some(settings.clone())).await.expect(200);
    settings["administrators"] = json!(["ops@example.org\r\nBcc: all@example.org"]);
    service.ask("PUT", "/api/v1/notifications/settings", Some(settings)).await.expect(422);
    let path = "/api/v1/mailboxes/ana@example.org/contact";
    service.ask("PUT", path, Some(json!({"alternate": "a@b\r\nc"}))).await.expect(422);
    service.ask("PUT", path, Some(json!({"alternate": "ana@example.net", "language": "de"}))).await.expect(200);
    assert_eq!(service.get(path).await.expect(200).body["alternate"], "ana@example.net");
    let told = json!({"starts_at": "2026-11-28 22:00", "reason": "new disks"});
    let told = service.post("/api/v1/notifications/announcements", told).await.expect(202).body;
    assert_eq!(told["mailboxes"], 2);
}

/// One sender at a time has a message; one that fell down is followed by another after its lease.
#[tokio::test]
async fn a_message_is_leased_and_logged() {
    let service = Service::start().await;
    let new = notice::NewMessage {
        topic: "fault".into(),
        channel: "mail",
        recipient: "ops@example.org".into(),
        ..Default::default()
    };
    for _ in 0..3 {
        notice::post(&service.pool, TenantId(1), &new, 2).await.unwrap();
    }
    let first = notice::lease(&service.pool, 600.0).await.unwrap().unwrap();
    let second = notice::lease(&service.pool, 600.0).await.unwrap().unwrap();
    assert_ne!(first.message_id, second.message_id);
    assert!(notice::lease(&service.pool, 600.0).await.unwrap().is_none(), "the third waits: two an hour are enough");
    let attempt = notice::Attempt { via: "relay:25".into(), outcome: "deferred", answer: "451 later".into() };
    let mut db = service.pool.acquire().await.unwrap();
    notice::settle(&mut db, &first, &[attempt], notice::Next::Again { seconds: 0 }).await.unwrap();
    let again = notice::lease(&service.pool, 600.0).await.unwrap().unwrap();
    assert_eq!((again.message_id, again.attempts), (first.message_id, 2));
    let attempt = notice::Attempt { via: "relay:25".into(), outcome: "sent", answer: "250 taken".into() };
    notice::settle(&mut db, &again, &[attempt], notice::Next::Sent).await.unwrap();
    assert!(notice::lease(&service.pool, 600.0).await.unwrap().is_none());
    let log = service.get("/api/v1/notifications/deliveries?state=sent").await.expect(200).body;
    assert_eq!((&log["items"][0]["answer"], &log["items"][0]["attempts"]), (&json!("250 taken"), &json!(2)), "{log:#}");
    assert_eq!(
        service.get("/api/v1/notifications/deliveries?state=waiting").await.expect(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
