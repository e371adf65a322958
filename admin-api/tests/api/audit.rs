//! The audit: whole, and seen through when it is not.

use serde_json::{Value, json};
use understudy_database::audit;

use crate::service::Service;

async fn verify(service: &Service) -> Value {
    service.post("/api/v1/audit/verify", json!({})).await.expect(200).body
}

#[tokio::test]
async fn every_write_is_there_with_who_what_why_before_and_after() {
    let service = Service::with_mailboxes().await;
    let bearer = service.bearer();
    let because = [("authorization", bearer.as_str()), ("understudy-reason", "board meeting")];
    service.execute("update route set side = 'standby', epoch = epoch + 1").await;
    service.execute("update route set state = 'hold', hold_until = now()").await;
    let change = Some(json!({"group": "board"}));
    service.ask_with("PATCH", "/api/v1/mailboxes/ana@example.org", change, &because).await.expect(200);
    service.post("/api/v1/mailboxes/ben@example.org/pause", json!({"reason": "moving"})).await.expect(202);
    service
        .ask("PUT", "/api/v1/mailboxes/ana@example.org/aliases", Some(json!({"aliases": ["annie"]})))
        .await
        .expect(200);
    service.ask("DELETE", "/api/v1/servers/mail-b", None).await.expect(204);
    let entries = service.get("/api/v1/audit").await.expect(200).body;
    let entries = entries["items"].as_array().unwrap();
    let find = |action: &str, subject: &str| {
        let found = entries.iter().find(|entry| entry["action"] == action && entry["subject"] == subject);
        found.unwrap_or_else(|| panic!("no entry {action} {subject}: {entries:#?}"))
    };
    let changed = find("mailbox changed", "ana@example.org");
    assert_eq!(changed["who"], "token first");
    assert_eq!(changed["why"], "board meeting");
    assert_eq!((&changed["before"]["group_name"], &changed["after"]["group_name"]), (&json!(""), &json!("board")));
    assert_eq!(find("mailbox changed", "ben@example.org")["why"], "moving");
    assert_eq!(find("mailbox added", "ana@example.org")["after"]["address"], "ana@example.org");
    assert_eq!(find("alias added", "annie")["who"], "token first");
    assert_eq!(find("server removed", "mail-b")["before"]["role"], "primary");
    find("server added", "mail-a");
    for address in ["ana@example.org", "ben@example.org"] {
        let routed = find("route changed", address);
        assert_eq!(routed["before"], json!({"side": "primary", "epoch": 1}));
        assert_eq!(routed["after"], json!({"side": "standby", "epoch": 2}));
    }
    let routed = entries.iter().filter(|entry| entry["action"] == "route changed").count();
    assert_eq!(routed, 2, "a hold is no change of side");
    let positions: Vec<i64> = entries.iter().map(|entry| entry["position"].as_i64().unwrap()).collect();
    assert!(positions.windows(2).all(|pair| pair[0] == pair[1] + 1), "{positions:?}");

    let exported = service.get("/api/v1/audit/export").await.expect(200).body;
    let lines: Vec<Value> =
        exported.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines, entries);
    let auditor = format!("Bearer {}", service.token("auditor").await);
    service.ask_with("GET", "/api/v1/audit", None, &[("authorization", &auditor)]).await.expect(200);
    let viewer = format!("Bearer {}", service.token("viewer").await);
    service.ask_with("GET", "/api/v1/audit", None, &[("authorization", &viewer)]).await.expect(403);
}

#[tokio::test]
async fn a_change_a_removal_and_another_order_are_found_and_named() {
    let service = Service::with_mailboxes().await;
    let whole = verify(&service).await;
    assert_eq!(whole["intact"], true, "{whole}");
    let entries = whole["entries"].as_i64().unwrap();
    // The token of the test, three servers, two mailboxes.
    assert!(entries >= 6, "{whole}");
    let head = audit::head(&service.pool).await.unwrap().unwrap();
    // Not by those the schema keeps from it, which is everybody who does not take the trigger away first.
    for refused in ["update audit set who = 'x'", "delete from audit", "truncate audit"] {
        assert!(sqlx::query(refused).execute(&service.pool).await.is_err(), "{refused}");
    }
    service.execute("alter table audit disable trigger all").await;
    for (damage, mend, position) in [
        (
            "update audit set who = who || 'x' where position = 3",
            "update audit set who = left(who, -1) where position = 3",
            3,
        ),
        (
            "update audit set after = replace(after, 'primary', 'standby') where position = 2",
            "update audit set after = replace(after, 'standby', 'primary') where position = 2",
            2,
        ),
        (
            "update audit set at = at - interval '1 day' where position = 4",
            "update audit set at = at + interval '1 day' where position = 4",
            4,
        ),
        (
            "update audit set position = case position when 2 then 1000003 else 1000002 end where position in (2, 3); \
          update audit set position = position - 1000000 where position > 1000000",
            "update audit set position = case position when 2 then 1000003 else 1000002 end where position in (2, 3); \
          update audit set position = position - 1000000 where position > 1000000",
            2,
        ),
        (
            "create table kept as table audit; delete from audit where position = 5",
            "insert into audit overriding system value select * from kept where position = 5; drop table kept",
            6,
        ),
    ] {
        service.execute(damage).await;
        let broken = verify(&service).await;
        assert_eq!(broken["intact"], false, "{damage}");
        assert_eq!(broken["problems"][0]["position"], position, "{damage}: {broken}");
        service.execute(mend).await;
        let mended = verify(&service).await;
        assert_eq!(mended["intact"], true, "{mend}: {mended}");
    }
    // Only a head from outside shows that the end is gone, or that all was written anew.
    let cut = format!("delete from audit where position > {}", head.position - 2);
    sqlx::raw_sql(sqlx::AssertSqlSafe(cut)).execute(&service.pool).await.unwrap();
    assert_eq!(verify(&service).await["intact"], true);
    let mut connection = service.pool.acquire().await.unwrap();
    let verdict = audit::verify(&mut connection, std::slice::from_ref(&head)).await.unwrap();
    assert_eq!(verdict.problems[0].reason, "2 entries are missing after it");
    service.execute("update audit set position = null, hash = null, who = 'nobody'").await;
    let mut transaction = service.pool.begin().await.unwrap();
    audit::seal(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(verify(&service).await["intact"], true);
    let verdict = audit::verify(&mut connection, &[audit::Head { position: 2, hash: head.hash }]).await.unwrap();
    assert_eq!(verdict.problems[0].position, 2);
}
