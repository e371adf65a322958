//! What is inside a mailbox: folders of both sides, transactions; and what is said before somebody is protected.

use serde_json::json;
use understudy_protocol::{
    AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, FolderPath, MailboxId, Seq, Transaction, Uid,
    UidSet, UidValidity, codec,
};

use crate::service::Service;

const SCRIPT: &str = "<img src=x onerror=alert(1)>";

async fn mirrored() -> Service {
    let service = Service::with_mailboxes().await;
    service
        .execute(
            "insert into mirror_folder (mailbox_id, folder_id, path, uid_validity, standby_name, standby_uid_validity, continuity)
             select mailbox_id, f.id, f.path::jsonb, 7, f.there, 8, case f.id when 1 then 'kept' else 'none' end
             from mailbox, (values (1, '[\"Work\"]', 'Work'), (2, '[\"INBOX\"]', 'INBOX'),
                                   (3, '[\"<img src=x onerror=alert(1)>\"]', '')) as f (id, path, there)
             where address like 'ana%';
             insert into mirror_message (mailbox_id, folder_id, uid, standby_uid, digest, size, internal_date, set_aside)
             select mailbox_id, 2, uid, uid, '\\x00', 10, '', case uid when 4 then 'altered' end
             from mailbox, generate_series(1, 5) uid where address like 'ana%'",
        )
        .await;
    let ana = service.number("select mailbox_id from mailbox where address like 'ana%'").await;
    for seq in 1..=3 {
        let content = ContentRef { digest: Digest::of(b"x"), size: 10 };
        let added = |uid| {
            Change::MessageAdded(AddedMessage {
                folder: FolderId(2),
                uid: Uid(uid),
                flags: Vec::new(),
                internal_date: String::new(),
                content,
            })
        };
        let transaction = Transaction {
            mailbox: MailboxId(ana),
            direction: Direction::Outbound,
            seq: Seq(seq),
            epoch: Epoch(1),
            seed: seq == 1,
            captured_at: chrono::Utc::now(),
            changes: vec![
                Change::FolderCreated {
                    folder: FolderId(4),
                    path: FolderPath::new(vec!["New".to_owned()]),
                    uid_validity: UidValidity(9),
                    special_use: Vec::new(),
                    selectable: true,
                },
                added(1),
                added(2),
                Change::MessagesExpunged { folder: FolderId(2), uids: UidSet::range(Uid(7), Uid(9)) },
            ],
            position: understudy_protocol::Position::default(),
            previous: Digest::default(),
        };
        sqlx::query(
            "insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at, applied_at)
             values ($1, 'outbound', $2, 1, $3, $4, 4, 20, now() - interval '10 seconds', now())",
        )
        .bind(ana)
        .bind(seq)
        .bind(seq == 1)
        .bind(codec::encode(&transaction).unwrap())
        .execute(&service.pool)
        .await
        .unwrap();
    }
    service
}

#[tokio::test]
async fn folders_are_shown_on_both_sides_with_what_differs() {
    let service = mirrored().await;
    let folders = service.get("/api/v1/mailboxes/ana@example.org/folders").await.expect(200);
    assert_eq!(folders.header("content-type"), "application/json");
    let items = folders.body["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|folder| folder["folder"].as_str().unwrap()).collect();
    assert_eq!(names, ["INBOX", SCRIPT, "Work"]);
    let inbox = &items[0];
    assert_eq!(inbox["primary"], json!({"name": "", "uid_validity": 7, "messages": 5, "bytes": 50}));
    assert_eq!(inbox["standby"], json!({"name": "INBOX", "uid_validity": 8, "messages": 4, "bytes": null}));
    assert_eq!((&inbox["uid_continuity"], &items[2]["uid_continuity"]), (&json!(false), &json!(true)));
    assert_eq!(items[1]["standby"], json!(null));
    service.get("/api/v1/mailboxes/nobody@example.org/folders").await.expect(404);
}

#[tokio::test]
async fn transactions_are_listed_newest_first_with_what_is_in_them() {
    let service = mirrored().await;
    let path = "/api/v1/mailboxes/ana@example.org/transactions?limit=2";
    let page = service.get(path).await.expect(200).body;
    assert_eq!((&page["items"][0]["seq"], &page["items"][1]["seq"]), (&json!(3), &json!(2)));
    let entry = &page["items"][0];
    assert_eq!((&entry["messages_added"], &entry["messages_removed"]), (&json!(2), &json!(3)));
    assert_eq!((&entry["folders_created"], &entry["seed"]), (&json!(1), &json!(false)));
    let next = format!("{path}&after={}", page["next"].as_str().unwrap());
    let rest = service.get(&next).await.expect(200).body;
    assert_eq!((&rest["items"][0]["seq"], &rest["next"]), (&json!(1), &json!(null)));
    assert_eq!(rest["items"][0]["seed"], true);
}

#[tokio::test]
async fn an_estimate_is_a_run_about_some_of_a_list_and_changes_nothing() {
    let service = Service::with_mailboxes().await;
    let many: Vec<String> = (0..100).map(|number| format!("user{number}@example.org")).collect();
    let mut list = json!({"addresses": many, "primary": "mail-a", "standby": "dr-1", "estimate": true});
    let run = service.post("/api/v1/mailboxes", list.clone()).await.expect(202).body;
    assert_eq!((&run["kind"], &run["request"]["mailboxes"]), (&json!("estimate"), &json!(100)));
    assert_eq!(run["request"]["addresses"].as_array().unwrap().len(), 20);
    assert_eq!(service.number("select count(*) from mailbox").await, 2);
    assert_eq!(run["request"]["protected"], 0);
    list["items"] = json!([]);
    service.post("/api/v1/mailboxes", list).await.expect(422);
    let two = "address,primary\na@example.org,mail-a\nb@example.org,mail-b\n";
    let refused = service.post("/api/v1/mailboxes", json!({"csv": two, "standby": "dr-1", "estimate": true})).await;
    assert_eq!(refused.expect(422).body["errors"][0]["pointer"], "/estimate");
}

#[tokio::test]
async fn an_estimate_leaves_out_who_is_protected_already_and_says_so() {
    let service = Service::with_mailboxes().await;
    let about =
        |addresses: &[&str]| json!({"addresses": addresses, "primary": "mail-a", "standby": "dr-1", "estimate": true});
    let some = about(&["cleo@example.org", "ana@example.org", "dora@example.org", "ben@example.org"]);
    let asked = service.post("/api/v1/mailboxes", some).await.expect(202).body["request"].take();
    assert_eq!(asked["addresses"], json!(["cleo@example.org", "dora@example.org"]));
    assert_eq!((&asked["mailboxes"], &asked["protected"]), (&json!(2), &json!(2)));
    assert_eq!(asked["protected_addresses"], json!(["ana@example.org", "ben@example.org"]));

    let refused =
        service.post("/api/v1/mailboxes", about(&["ben@example.org", "ana@example.org"])).await.expect(422).body;
    assert!(refused["detail"].as_str().unwrap().contains("all of the list are protected already"), "{refused:#}");
    let errors = refused["errors"].as_array().unwrap();
    assert_eq!(errors[1]["detail"], "`ana@example.org` is protected already");
    let mixed = service.post("/api/v1/mailboxes", about(&["ben@example.org", " "])).await.expect(422).body;
    assert!(mixed["detail"].as_str().unwrap().contains("can be protected are so already"), "{mixed:#}");
}

#[tokio::test]
async fn what_it_would_cost_goes_by_the_tiers_and_beside_what_is_there() {
    let service = Service::with_mailboxes().await;
    let plan = json!({"plan": {"currency": "EUR", "mailboxes": [{"up_to": 3, "price": "3.00"}, {"price": "1.00"}],
        "kept": {"included_gb": 1, "tiers": [{"price": "0.50"}]}, "carried": {"price": "0.10"}, "minimum": "100.00"}});
    service.ask("PUT", "/api/v1/prices", Some(plan)).await.expect(200);
    // Two are there: the first of four takes the third place, three are beyond. Each keeps 2 GB, of which one is included.
    let path = "/api/v1/prices/estimate?mailboxes=4&bytes=8000000000";
    let price = service.get(path).await.expect(200).body;
    assert_eq!(price, json!({"currency": "EUR", "month": "8.00", "first_copy": "0.80", "minimum": "100.00"}));
    service.get("/api/v1/prices/estimate?mailboxes=100001&bytes=1").await.expect(400);
    let none = service.get("/api/v1/prices/estimate?mailboxes=0&bytes=0").await.expect(200).body;
    assert_eq!(none["month"], "0.00");
}
