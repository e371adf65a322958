//! Lists of mailboxes to protect, good and bad.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn protecting_is_safe_to_repeat() {
    let service = Service::with_servers().await;
    let body = json!({"addresses": ["ana", "ben"], "primary": "mail-a", "standby": "dr-1", "group": "board"});
    let first = service.post("/api/v1/mailboxes", body.clone()).await.expect(201).body;
    assert_eq!((&first["protected"], &first["unchanged"]), (&json!(2), &json!(0)));
    let again = service.post("/api/v1/mailboxes", body).await.expect(200).body;
    assert_eq!((&again["protected"], &again["unchanged"]), (&json!(0), &json!(2)));
    assert_eq!(again["mailboxes"][0]["outcome"], "unchanged");
    assert_eq!(service.number("select count(*) from event where kind = 'protected'").await, 2);

    let one = json!({"address": "cat", "primary": "mail-a", "standby": "dr-1", "standby_address": "tom"});
    let made = service.post("/api/v1/mailboxes", one).await.expect(201).body;
    assert_eq!((&made["protected"], &made["mailboxes"][0]["standby_address"]), (&json!(1), &json!("tom")));
    let wrong = json!({"address": "c t", "primary": "mail-a", "standby": "dr-1"});
    let refused = service.post("/api/v1/mailboxes", wrong).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/address");
    let both = json!({"address": "dan", "addresses": ["eve"], "primary": "mail-a", "standby": "dr-1"});
    service.post("/api/v1/mailboxes", both).await.expect(422);
}

#[tokio::test]
async fn a_half_bad_list_changes_nothing_and_names_each_row() {
    let service = Service::with_servers().await;
    let csv = "address,primary,standby,group\n\
               ana,mail-a,dr-1,board\n\
               ben,mial-a,dr-1,\n\
               \n\
               ,mail-a,dr-1,\n\
               ana,mail-a,dr-1,\n\
               eve,dr-1,dr-1,\n\
               kim,mail-a,dr-1,x,too,many\n";
    let refused = service.post("/api/v1/mailboxes", json!({"csv": csv})).await.expect(422).body;
    let lines: Vec<u64> = refused["errors"].as_array().unwrap().iter().map(|e| e["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 5, 6, 7, 8]);
    assert_eq!(refused["errors"][0]["nearest"], "mail-a");
    assert_eq!(refused["errors"][2]["detail"], "`ana` is listed already, at line 2");
    assert_eq!(refused["errors"][3]["detail"], "the server `dr-1` is no primary");
    assert_eq!(service.number("select count(*) from mailbox").await, 0);

    let skipped = service.post("/api/v1/mailboxes", json!({"csv": csv, "skip_invalid": true})).await.expect(201).body;
    assert_eq!(skipped["protected"], 1);
    assert_eq!(skipped["skipped"].as_array().unwrap().len(), 5);
    assert_eq!(skipped["skipped"][0]["address"], "ben");
    assert_eq!(skipped["skipped"][0]["line"], 3);
    assert_eq!(service.get("/api/v1/mailboxes/ana").await.expect(200).body["group"], "board");
}

#[tokio::test]
async fn a_csv_with_an_unknown_column_names_the_nearest() {
    let service = Service::with_servers().await;
    let refused = service.post("/api/v1/mailboxes", json!({"csv": "adress,primary\nana,mail-a\n"})).await.expect(422);
    assert_eq!(refused.body["errors"][0]["nearest"], "address");
    assert_eq!(refused.body["errors"][0]["line"], 1);
}

#[tokio::test]
async fn items_point_at_what_is_wrong_and_defaults_hold_for_each() {
    let service = Service::with_servers().await;
    let body = json!({
        "items": [{"address": "ana"}, {"address": "ben", "standby": "dr-2"}, {"address": "a b"}],
        "primary": "mail-a", "standby": "dr-1"
    });
    let refused = service.post("/api/v1/mailboxes", body).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/items/1/standby");
    assert_eq!(refused["errors"][0]["nearest"], "dr-1");
    assert_eq!(refused["errors"][1]["pointer"], "/items/2/address");
    let refused = service.post("/api/v1/mailboxes", json!({"addresses": ["ana"]})).await.expect(422).body;
    assert_eq!(refused["errors"][0], json!({"pointer": "/addresses/0", "index": 0, "detail": "no primary is named"}));
    service.post("/api/v1/mailboxes", json!({"addresses": []})).await.expect(422);
    let both = json!({"addresses": ["ana"], "csv": "address\nben", "primary": "mail-a", "standby": "dr-1"});
    service.post("/api/v1/mailboxes", both).await.expect(422);
}

#[tokio::test]
async fn a_place_on_the_standby_holds_one_mailbox() {
    let service = Service::with_servers().await;
    service.protect(&["ana"], "mail-a").await;
    let same_place = json!({"addresses": ["ana"], "primary": "mail-b", "standby": "dr-1"});
    let refused = service.post("/api/v1/mailboxes", same_place).await.expect(422).body;
    assert_eq!(refused["errors"][0]["detail"], "the standby's `ana` holds the mirror of `ana` on `mail-a`");
    let other = json!({"addresses": ["ana"], "primary": "mail-b", "standby": "dr-1", "standby_address": "ana-b"});
    service.post("/api/v1/mailboxes", other).await.expect(201);
    let moved = json!({"addresses": ["ana"], "primary": "mail-a", "standby": "dr-1", "standby_address": "elsewhere"});
    let refused = service.post("/api/v1/mailboxes", moved).await.expect(422).body;
    assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("protected already"));
}

#[tokio::test]
async fn discovering_is_a_run_that_only_lists() {
    let service = Service::with_servers().await;
    let run = service.post("/api/v1/mailboxes", json!({"discover": true, "primary": "mail-a"})).await.expect(202).body;
    assert_eq!((&run["kind"], &run["server"]), (&json!("discover"), &json!("mail-a")));
    let both = json!({"discover": true, "primary": "mail-a", "standby": "dr-1"});
    service.post("/api/v1/mailboxes", both).await.expect(422);
    service.post("/api/v1/mailboxes", json!({"discover": true, "primary": "mail-x"})).await.expect(404);
}
