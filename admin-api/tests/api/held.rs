//! What the mass-change brake stopped, and the decision about it.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn what_is_held_is_shown_and_decided_about_once() {
    let service = Service::with_mailboxes().await;
    let path = |what: &str| format!("/api/v1/mailboxes/ana@example.org/{what}");
    let shown = service.get(&path("held")).await.expect(200).body;
    assert_eq!((&shown["held"], &shown["messages"], &shown["detail"]), (&json!(false), &json!(0), &json!(null)));
    for what in ["release", "discard"] {
        let refused = service.post(&path(what), json!({})).await.expect(409).body;
        assert!(refused["remedy"].as_str().unwrap().contains("--state held"), "{refused}");
    }
    service
        .execute(
            "update mailbox set phase = 'mirroring', held = true, held_at = now(),
                 held_detail = '{\"kind\": \"held\", \"reason\": \"r\", \"remedy\": \"m\", \"fault\": false}'
             where address like 'ana%';
             insert into parked_folder (mailbox_id, path, standby_name, standby_uid_validity, deletion)
             select mailbox_id, '[\"Work\"]', 'Work', 7, 'waiting' from mailbox where address like 'ana%';
             insert into parked_message (parked_folder_id, standby_uid, uid, digest, size, internal_date, seq, subject)
             select parked_folder_id, uid + 100, uid, '\\x00', 10, '17-Jul-1996 02:44:25 -0700', 5, 'Hello ' || uid
             from parked_folder, generate_series(1, 60) uid;",
        )
        .await;
    let mailbox = service.get("/api/v1/mailboxes/ana@example.org").await.expect(200).body;
    assert_eq!(mailbox["state"], "held");
    assert_eq!(mailbox["detail"], json!({"kind": "held", "reason": "r", "remedy": "m"}));
    let shown = service.get(&path("held")).await.expect(200).body;
    assert_eq!((&shown["messages"], &shown["bytes"]), (&json!(60), &json!(600)));
    let folder = &shown["folders"][0];
    assert_eq!((&folder["folder"], &folder["deletes_folder"]), (&json!("Work"), &json!(true)));
    assert_eq!((&folder["first_seq"], &folder["last_seq"]), (&json!(5), &json!(5)));
    assert_eq!(folder["sample"].as_array().unwrap().len(), 10);
    assert_eq!(folder["sample"][9]["subject"], "Hello 60");

    let asked = service.post(&path("release"), json!({"reason": "meant"})).await.expect(202);
    assert_eq!((&asked.body["kind"], &asked.body["state"]), (&json!("release"), &json!("waiting")));
    assert_eq!(asked.body["address"], "ana@example.org");
    let metrics = service.get("/metrics").await.expect(200).body;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("understudy_held_messages 60"), "{metrics}");
}

#[tokio::test]
async fn a_discarded_removal_is_kept_and_ends_the_hold() {
    let service = Service::with_mailboxes().await;
    service
        .execute(
            "update mailbox set held = true where address like 'ana%';
             insert into parked_folder (mailbox_id, path, standby_name, standby_uid_validity)
             select mailbox_id, '[\"Work\"]', 'Work', 7 from mailbox where address like 'ana%';
             insert into parked_message (parked_folder_id, standby_uid, uid, digest, size, internal_date, seq)
             select parked_folder_id, 1, 1, '\\x00', 10, '', 5 from parked_folder",
        )
        .await;
    let mailbox = service.number("select mailbox_id from mailbox where address like 'ana%'").await;
    let mut db = service.pool.begin().await.unwrap();
    let kept =
        understudy_database::brake::discard(&mut db, understudy_protocol::MailboxId(mailbox), "token first").await;
    db.commit().await.unwrap();
    assert_eq!(kept.unwrap(), 1);
    let shown = service.get("/api/v1/mailboxes/ana@example.org/held").await.expect(200).body;
    assert_eq!((&shown["held"], &shown["messages"]), (&json!(false), &json!(0)));
    assert_eq!(service.number("select count(*) from parked_message where fate = 'kept'").await, 1);
}
