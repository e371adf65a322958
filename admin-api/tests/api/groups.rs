//! Groups, the replication map and the settings: what is counted, and for whom.

use serde_json::{Value, json};
use understudy_admin_api::{Api, Setting, SettingOrigin, router};

use crate::service::Service;

/// `ana` and `ben` of `mail-a` in the group `board`, `ben` on the standby and `cat` of `mail-b` in none.
async fn grouped() -> Service {
    let service = Service::with_mailboxes().await;
    service.protect(&["cat@example.org"], "mail-b").await;
    for address in ["ana@example.org", "ben@example.org"] {
        let path = format!("/api/v1/mailboxes/{address}");
        service.ask("PATCH", &path, Some(json!({"group": "board"}))).await.expect(200);
    }
    service
        .execute(
            "update mailbox set phase = 'on_standby' where address = 'ben@example.org';
             update route set side = 'standby' where mailbox_id = (select mailbox_id from mailbox where address = 'ben@example.org');
             update mailbox set captured_seq = 3, received_seq = 3 where address = 'ana@example.org';
             insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at)
             select mailbox_id, 'outbound', seq, 1, false, '', 1, 100, now() - interval '1 minute'
             from mailbox cross join generate_series(2, 3) seq where address = 'ana@example.org';
             update mailbox set applied_seq = 1 where address = 'ana@example.org'",
        )
        .await;
    service
}

#[tokio::test]
async fn groups_are_those_that_mailboxes_carry() {
    let service = grouped().await;
    let page = service.get("/api/v1/groups").await.expect(200).body;
    assert_eq!(page["next"], Value::Null);
    let groups = page["items"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{page}");
    assert_eq!((&groups[0]["name"], &groups[0]["mailboxes"]), (&json!("board"), &json!(2)));
    assert_eq!(groups[0]["by_state"].as_object().unwrap().len(), 8);
    assert_eq!((&groups[0]["by_state"]["on_standby"], &groups[0]["by_state"]["seeding"]), (&json!(1), &json!(1)));
    assert_eq!(service.get("/api/v1/groups/board").await.expect(200).body, groups[0]);
    let missing = service.get("/api/v1/groups/bord").await.expect(404).body;
    assert!(missing.to_string().contains("board"), "the nearest is named: {missing}");
    assert_eq!(service.get("/api/v1/groups?q=BOA").await.expect(200).body["items"].as_array().unwrap().len(), 1);
    assert_eq!(service.get("/api/v1/groups?q=x").await.expect(200).body["items"], json!([]));

    // By pages.
    service.ask("PATCH", "/api/v1/mailboxes/cat@example.org", Some(json!({"group": "staff"}))).await.expect(200);
    let first = service.get("/api/v1/groups?limit=1").await.expect(200).body;
    let next = first["next"].as_str().expect("there is another");
    let second = service.get(&format!("/api/v1/groups?limit=1&after={next}")).await.expect(200).body;
    assert_eq!((&first["items"][0]["name"], &second["items"][0]["name"]), (&json!("board"), &json!("staff")));
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn whoever_looks_after_a_group_sees_that_one() {
    let service = grouped().await;
    service.ask("PATCH", "/api/v1/mailboxes/cat@example.org", Some(json!({"group": "staff"}))).await.expect(200);
    let made = service.post("/api/v1/tokens", json!({"name": "narrow", "role": "viewer", "group": "staff"})).await;
    let bearer = format!("Bearer {}", made.expect(201).body["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let groups = service.ask_with("GET", "/api/v1/groups", None, &headers).await.expect(200).body;
    assert_eq!((&groups["items"][0]["name"], &groups["items"][1]), (&json!("staff"), &Value::Null));
    service.ask_with("GET", "/api/v1/groups/board", None, &headers).await.expect(404);
    let map = service.ask_with("GET", "/api/v1/map", None, &headers).await.expect(200).body;
    assert_eq!((&map["items"][0]["primary"], &map["items"][1]), (&json!("mail-b"), &Value::Null));
    service.ask_with("GET", "/api/v1/settings", None, &headers).await.expect(403);
}

#[tokio::test]
async fn the_map_shows_pairs_of_servers_with_direction_and_lag() {
    let service = grouped().await;
    let map = service.get("/api/v1/map").await.expect(200).body;
    let pairs = map["items"].as_array().unwrap();
    assert_eq!(pairs.len(), 2, "{map}");
    let first = &pairs[0];
    assert_eq!((&first["primary"], &first["standby"]), (&json!("mail-a"), &json!("dr-1")));
    assert_eq!((&first["mailboxes"], &first["outbound"], &first["on_standby"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(
        (&first["lagging"], &first["lag"]["transactions"], &first["lag"]["bytes"]),
        (&json!(1), &json!(2), &json!(200))
    );
    assert!(first["lag"]["seconds"].as_f64().unwrap() >= 60.0, "{first}");
    assert_eq!(
        (&pairs[1]["primary"], &pairs[1]["lagging"], &pairs[1]["lag"]["seconds"]),
        (&json!("mail-b"), &json!(0), &json!(0.0))
    );
    let page = service.get("/api/v1/map?limit=1").await.expect(200).body;
    let rest = format!("/api/v1/map?after={}", page["next"].as_str().unwrap());
    assert_eq!(service.get(&rest).await.expect(200).body["items"], json!([pairs[1]]));
}

#[tokio::test]
async fn settings_are_for_the_providers_administrators() {
    let mut service = Service::start().await;
    let (api, _hub) = Api::new(service.pool.clone(), None, service.shutdown.clone());
    let setting = |key: &str, value: Value, origin, place: Option<&str>| Setting {
        key: key.to_owned(),
        value,
        origin,
        place: place.map(str::to_owned),
    };
    service.router = router(api.with_settings(vec![
        setting("verify.every", json!("24h"), SettingOrigin::Default, None),
        setting("smtp.relays", json!(["smtp://relay.example.org"]), SettingOrigin::File, Some("understudy.toml:3")),
    ]));
    let settings = service.get("/api/v1/settings").await.expect(200).body;
    assert_eq!(
        settings["items"][0],
        json!({"key": "verify.every", "value": "24h", "origin": "default", "place": null})
    );
    assert_eq!(settings["items"][1]["place"], "understudy.toml:3");
    let viewer = format!("Bearer {}", service.token("viewer").await);
    service.ask_with("GET", "/api/v1/settings", None, &[("authorization", &viewer)]).await.expect(403);
}

#[tokio::test]
async fn a_tenant_with_a_name_that_is_not_ascii_is_acted_for() {
    let service = grouped().await;
    service.post("/api/v1/tenants", json!({"name": "hösted.example"})).await.expect(201);
    let headers = [("authorization", service.bearer()), ("understudy-tenant", "hösted.example".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let me = service.ask_with("GET", "/api/v1/me", None, &headers).await.expect(200).body;
    assert_eq!(me["tenant"], "hösted.example");
    assert_eq!(service.ask_with("GET", "/api/v1/groups", None, &headers).await.expect(200).body["items"], json!([]));
    assert_eq!(service.ask_with("GET", "/api/v1/map", None, &headers).await.expect(200).body["items"], json!([]));
}
