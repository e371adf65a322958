//! Status, health, metrics.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn the_sentence_says_what_is_worth_attention_now() {
    let service = Service::start().await;
    let sentence =
        async || service.get("/api/v1/status").await.expect(200).body["sentence"].as_str().unwrap().to_owned();
    assert!(sentence().await.contains("understudy server add"));
    for (name, role) in [("mail-a", "primary"), ("dr-1", "standby")] {
        service.post("/api/v1/servers", crate::service::server(name, role)).await.expect(201);
    }
    assert!(sentence().await.contains("understudy mailbox protect"));
    service.protect(&["ana", "ben"], "mail-a").await;
    assert_eq!(sentence().await, "No source gateway has been heard of yet: no changes arrive.");
    service.execute("update link set heard_at = now() - interval '5 minutes'").await;
    assert_eq!(sentence().await, "The source gateway has been silent for 5 min: no changes arrive.");
    service.execute("update link set heard_at = now()").await;
    assert_eq!(sentence().await, "2 of 2 mailboxes are being copied for the first time.");
    service.execute("update mailbox set phase = 'mirroring'").await;
    assert_eq!(sentence().await, "All 2 mailboxes are mirrored.");
    service.execute("update mailbox set source_trouble = '{\"fault\": true}' where address = 'ana'").await;
    assert_eq!(sentence().await, "1 of 2 mailboxes is stopped by an error; each says what to do.");
}

#[tokio::test]
async fn status_counts_states_lag_and_runs() {
    let service = Service::with_mailboxes().await;
    service
        .execute("update mailbox set captured_seq = 4 where address like 'ben%'; update link set heard_at = now()")
        .await;
    service.post("/api/v1/barriers", json!({"all": true})).await.expect(202);
    let status = service.get("/api/v1/status").await.expect(200).body;
    assert_eq!(status["mailboxes"]["total"], 2);
    assert_eq!(status["mailboxes"]["by_state"]["seeding"], 2);
    assert_eq!(status["mailboxes"]["by_state"]["on_standby"], 0);
    assert_eq!(status["lag"]["transactions"], 4);
    assert_eq!(status["lag"]["worst"]["address"], "ben@example.org");
    assert_eq!(status["link"]["connected"], true);
    assert_eq!(status["runs"]["open"], 1);
    assert_eq!(status["runs"]["items"][0]["kind"], "barrier");
    assert_eq!(status["servers"].as_array().unwrap().len(), 3);
    assert_eq!(status["set_aside"], 0);
}

#[tokio::test]
async fn health_is_open_and_metrics_are_prometheus_text() {
    let service = Service::with_mailboxes().await;
    assert_eq!(service.ask_with("GET", "/healthz", None, &[]).await.expect(200).body, json!({"status": "ok"}));
    assert_eq!(service.ask_with("GET", "/readyz", None, &[]).await.expect(200).body, json!({"status": "ready"}));
    let metrics = service.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = metrics.body.as_str().unwrap();
    assert!(text.contains("\nunderstudy_mailboxes{state=\"seeding\"} 2\n"), "{text}");
    assert!(text.contains("\nunderstudy_link_up 0\n"), "{text}");
    service.execute("drop table event, link cascade").await;
    let down = service.ask_with("GET", "/readyz", None, &[]).await.expect(500);
    assert!(!down.body.to_string().contains("relation"), "no database text leaves the house");
}
