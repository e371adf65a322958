//! Mailboxes: shown, found, paused, unprotected.

use std::time::Instant;

use serde_json::{Value, json};

use crate::service::Service;

#[tokio::test]
async fn a_mailbox_is_shown_as_every_interface_shows_it() {
    let service = Service::with_mailboxes().await;
    service
        .execute(
            "update mailbox set phase = 'mirroring', captured_seq = 7, received_seq = 6, applied_seq = 5,
                 messages_done = 3, messages_total = 3, bytes_done = 900, bytes_total = 900,
                 capability = 'notify+qresync', group_name = 'board',
                 created_at = '2026-01-02T03:04:05Z', last_transaction_at = '2026-01-02T03:04:06Z',
                 source_trouble = '{\"kind\": \"unreachable\", \"reason\": \"r\", \"remedy\": \"m\", \"fault\": false}'
             where address like 'ana%';
             insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at)
             select mailbox_id, 'outbound', 6, 1, false, '', 1, 1234, now() - interval '10 seconds'
             from mailbox where address like 'ana%'",
        )
        .await;
    let mut shown = service.get("/api/v1/mailboxes/ana@example.org").await.expect(200).body;
    let seconds = shown["lag"]["seconds"].take().as_f64().unwrap();
    assert!((10.0..20.0).contains(&seconds), "{seconds}");
    assert_eq!(
        shown,
        json!({
            "address": "ana@example.org", "primary": "mail-a", "standby": "dr-1",
            "standby_address": "ana@example.org", "policy": "default", "group": "board",
            "state": "mirroring", "active_side": "primary", "epoch": 1,
            "lag": {"transactions": 2, "seconds": null, "bytes": 1234},
            "progress": {"messages_done": 3, "messages_total": 3, "bytes_done": 900, "bytes_total": 900},
            "journal": {"captured": 7, "received": 6, "applied": 5},
            "capability": "notify+qresync", "uid_continuity": false, "uid_continuity_lost": [], "set_aside": 0,
            "protected_at": "2026-01-02T03:04:05Z", "swept_at": null,
            "last_transaction_at": "2026-01-02T03:04:06Z", "last_verified_at": null,
            "differences": null, "unproven": null,
            "traffic": {"message_bytes": 0, "new_bytes": 0, "deduplicated_bytes": 0, "compressed_bytes": 0},
            "detail": {"kind": "unreachable", "reason": "r", "remedy": "m"}
        })
    );
}

#[tokio::test]
async fn the_first_state_that_applies_is_shown() {
    let service = Service::with_mailboxes().await;
    let state = async |sql: &'static str| {
        service.execute(sql).await;
        service.get("/api/v1/mailboxes/ana@example.org").await.body["state"].clone()
    };
    assert_eq!(state("select 1").await, "seeding");
    assert_eq!(state("update mailbox set phase = 'mirroring'").await, "mirroring");
    assert_eq!(state("update mailbox set standby_trouble = '{\"fault\": false}'").await, "mirroring");
    assert_eq!(state("update mailbox set standby_trouble = '{\"fault\": true}'").await, "faulted");
    assert_eq!(state("update mailbox set held = true").await, "held");
    assert_eq!(state("update mailbox set paused = true").await, "paused");
    assert_eq!(state("update mailbox set phase = 'on_standby'; update route set side = 'standby'").await, "on_standby");
    assert_eq!(service.get("/api/v1/mailboxes/ana@example.org").await.body["active_side"], "standby");
    assert_eq!(state("update mailbox set phase = 'switching_over'").await, "switching_over");
}

#[tokio::test]
async fn pausing_and_resuming_tell_the_source_gateway() {
    let service = Service::with_mailboxes().await;
    let version = async || service.number("select last_value from directive_version").await;
    let before = version().await;
    let paused = service.post("/api/v1/mailboxes/ana@example.org/pause", json!({"reason": "moving"})).await.expect(202);
    assert_eq!(paused.body["state"], "done");
    assert_eq!(paused.body["reason"], "moving");
    assert_eq!(paused.body["requested_by"], "token first");
    assert_eq!(paused.body["result"], json!({"mailboxes": [{"address": "ana@example.org", "state": "paused"}]}));
    let after = version().await;
    assert!(after > before);
    assert_eq!(service.get("/api/v1/mailboxes/ana@example.org").await.body["state"], "paused");
    service.ask("POST", "/api/v1/mailboxes/ana@example.org/pause", None).await.expect(202);
    assert_eq!(version().await, after, "pausing what is paused tells nobody anything");

    service.post("/api/v1/mailboxes/ANA@example.org/resume", json!({})).await.expect(202);
    assert!(version().await > after);
    assert_eq!(service.number("select attempt::bigint from mailbox where address like 'ana%'").await, 2);
    let refused = service.post("/api/v1/mailboxes/ana@example.org/pause", json!({"why": "x"})).await.expect(422);
    assert_eq!(refused.body["errors"][0]["pointer"], "/why");
}

#[tokio::test]
async fn an_address_under_two_primaries_needs_its_primary() {
    let service = Service::with_servers().await;
    service.protect(&["ana"], "mail-a").await;
    let other = json!({"addresses": ["ana"], "primary": "mail-b", "standby": "dr-1", "standby_address": "ana-b"});
    service.post("/api/v1/mailboxes", other).await.expect(201);
    let refused = service.get("/api/v1/mailboxes/ana").await.expect(409).body;
    assert_eq!(refused["type"], "urn:understudy:problem:ambiguous");
    assert!(refused["detail"].as_str().unwrap().contains("`ana` on `mail-a`, `ana` on `mail-b`"), "{refused}");
    assert!(refused["remedy"].as_str().unwrap().contains("?primary="));
    let found = service.get("/api/v1/mailboxes/ana?primary=mail-b").await.expect(200).body;
    assert_eq!(found["standby_address"], "ana-b");
    let many = service.post("/api/v1/barriers", json!({"addresses": ["ana"]})).await.expect(422).body;
    assert_eq!(many["errors"][0]["pointer"], "/addresses/0");
    service.post("/api/v1/barriers", json!({"addresses": ["ana"], "primary": "mail-b"})).await.expect(202);
}

#[tokio::test]
async fn case_matters_only_where_it_tells_two_apart() {
    let service = Service::with_servers().await;
    service.protect(&["Ana", "ben"], "mail-a").await;
    assert_eq!(service.get("/api/v1/mailboxes/ANA").await.expect(200).body["address"], "Ana");
    service.protect(&["ana"], "mail-a").await;
    assert_eq!(service.get("/api/v1/mailboxes/ana").await.expect(200).body["address"], "ana");
    service.get("/api/v1/mailboxes/ANA").await.expect(409);
    let missing = service.get("/api/v1/mailboxes/bem").await.expect(404).body;
    assert_eq!(missing["errors"][0]["nearest"], "ben");
}

#[tokio::test]
async fn an_address_may_hold_what_a_path_may_not() {
    let service = Service::with_servers().await;
    service.protect(&["a/ü?&@example.org"], "mail-a").await;
    let shown = service.get("/api/v1/mailboxes/a%2F%C3%BC%3F%26%40example.org").await.expect(200).body;
    assert_eq!(shown["address"], "a/ü?&@example.org");
}

#[tokio::test]
async fn unprotecting_keeps_the_copy_and_the_address_can_be_protected_again() {
    let service = Service::with_mailboxes().await;
    service.ask("DELETE", "/api/v1/mailboxes/ana@example.org?keep_standby=false", None).await.expect(422);
    let gone = service.ask("DELETE", "/api/v1/mailboxes/ana@example.org", None).await.expect(200).body;
    assert_eq!(gone["standby_kept"], true);
    service.get("/api/v1/mailboxes/ana@example.org").await.expect(404);
    service.protect(&["ana@example.org"], "mail-a").await;
    service.get("/api/v1/mailboxes/ana@example.org").await.expect(200);
}

#[tokio::test]
async fn group_and_policy_change_and_filter() {
    let service = Service::with_mailboxes().await;
    let change = json!({"group": "board"});
    let changed = service.ask("PATCH", "/api/v1/mailboxes/ana@example.org", Some(change)).await.expect(200).body;
    assert_eq!((&changed["group"], &changed["policy"]), (&json!("board"), &json!("default")));
    for (query, expected) in [
        ("group=board", 1),
        ("q=EXAMPLE", 2),
        ("q=ben", 1),
        ("server=dr-1", 2),
        ("server=mail-b", 0),
        ("state=seeding", 2),
        ("state=paused", 0),
        ("state=&group=&q=&server=mail-a", 2),
    ] {
        let path = format!("/api/v1/mailboxes?{query}");
        if query.starts_with("state=&") {
            service.get(&path).await.expect(400);
            continue;
        }
        let items = service.get(&path).await.expect(200).body["items"].as_array().unwrap().len();
        assert_eq!(items, expected, "{query}");
    }
    let refused = service.get("/api/v1/mailboxes?state=mirorring").await.expect(400).body;
    assert_eq!(refused["errors"][0]["nearest"], "mirroring");
    service.get("/api/v1/mailboxes?server=mail-x").await.expect(404);
}

#[tokio::test]
async fn set_aside_messages_are_listed_with_their_reason() {
    let service = Service::with_mailboxes().await;
    service
        .execute(
            "insert into mirror_folder (mailbox_id, folder_id, path, uid_validity, standby_name)
             select mailbox_id, 1, '[\"Sent\", \"2024\"]', 1, 'Sent/2024' from mailbox where address like 'ana%';
             insert into mirror_message
                 (mailbox_id, folder_id, uid, digest, size, internal_date, set_aside, set_aside_reason)
             select mailbox_id, 1, uid, '', 100 * uid, '', 'refused', 'too big'
             from mailbox, generate_series(1, 3) uid where address like 'ana%'",
        )
        .await;
    let page = service.get("/api/v1/mailboxes/ana@example.org/problems?limit=2").await.expect(200).body;
    assert_eq!(
        page["items"][1],
        json!({"folder": "Sent/2024", "path": ["Sent", "2024"], "uid": 2, "size": 200, "kind": "refused", "reason": "too big"})
    );
    let next = page["next"].as_str().unwrap();
    let rest = format!("/api/v1/mailboxes/ana@example.org/problems?limit=2&after={next}");
    let rest = service.get(&rest).await.expect(200).body;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    assert_eq!(service.get("/api/v1/mailboxes/ana@example.org").await.body["set_aside"], 3);
}

#[tokio::test]
async fn fifty_thousand_mailboxes_are_paged_through_completely() {
    let service = Service::with_servers().await;
    service
        .execute(
            "insert into mailbox (address, primary_server_id, standby_server_id, standby_address)
             select 'user' || n || '@example.org', p.server_id, s.server_id, 'user' || n
             from generate_series(1, 50000) n, server p, server s where p.name = 'mail-a' and s.name = 'dr-1';
             analyze mailbox",
        )
        .await;
    let mut path = "/api/v1/mailboxes?limit=1000".to_owned();
    let mut seen = std::collections::HashSet::new();
    let mut pages = 0;
    loop {
        let began = Instant::now();
        let page = service.get(&path).await.expect(200).body;
        pages += 1;
        for item in page["items"].as_array().unwrap() {
            assert!(seen.insert(item["address"].as_str().unwrap().to_owned()), "{item} came twice");
        }
        println!("page {pages}: {} ms", began.elapsed().as_millis());
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/mailboxes?limit=1000&after={next}"),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (50_000, 50));
    let began = Instant::now();
    service.get("/api/v1/mailboxes?limit=200").await.expect(200);
    println!("a page of 200: {} ms", began.elapsed().as_millis());
}
