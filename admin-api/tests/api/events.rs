//! The stream of events.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::service::Service;

/// How long a test waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener: the frames of one stream.
struct Listener {
    body: BodyDataStream,
    text: String,
}

impl Listener {
    async fn open(service: &Service, path: &str, last: Option<i64>) -> Self {
        let mut request = Request::get(path).header("authorization", service.bearer());
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = service.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listener = Self { body: response.into_body().into_data_stream(), text: String::new() };
        assert_eq!(listener.frame().await.as_deref(), Some(": listening"));
        listener
    }

    /// The next frame; `None` when the stream ended.
    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(frame);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("an event within a minute")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next event of this kind.
    async fn event(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await.expect("the stream goes on");
            if frame.lines().any(|line| line == format!("event: {kind}")) {
                let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_event_reaches_who_listens() {
    let service = Service::with_mailboxes().await;
    let mut listener = Listener::open(&service, "/api/v1/events", None).await;
    let mut of_ben = Listener::open(&service, "/api/v1/events?mailbox=ben@example.org", None).await;
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({})).await.expect(202);
    service.post("/api/v1/mailboxes/ben@example.org/pause", json!({})).await.expect(202);
    let event = listener.event("paused").await;
    assert_eq!((&event["address"], &event["primary"]), (&json!("ana@example.org"), &json!("mail-a")));
    assert_eq!(event["detail"], json!({"by": "token first"}));
    assert_eq!(listener.event("run").await["detail"], json!({"kind": "pause", "state": "done"}));
    assert_eq!(of_ben.event("paused").await["address"], "ben@example.org");
}

#[tokio::test]
async fn who_comes_back_hears_what_was_missed_once_and_in_order() {
    let service = Service::with_mailboxes().await;
    let mut listener = Listener::open(&service, "/api/v1/events", None).await;
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({})).await.expect(202);
    let last = listener.event("paused").await["event_id"].as_i64().unwrap();
    drop(listener);
    service.post("/api/v1/mailboxes/ana@example.org/resume", json!({})).await.expect(202);
    service.post("/api/v1/mailboxes/ben@example.org/pause", json!({})).await.expect(202);
    let mut back = Listener::open(&service, "/api/v1/events", Some(last)).await;
    let first = back.frame().await.unwrap();
    assert!(first.contains(&format!("id: {}", last + 1)), "{first}");
    let resumed = back.event("resumed").await["event_id"].as_i64().unwrap();
    assert!(back.event("paused").await["event_id"].as_i64().unwrap() > resumed);
}

#[tokio::test]
async fn a_number_that_was_rolled_back_holds_nothing_up_for_good() {
    let service = Service::with_mailboxes().await;
    let mut listener = Listener::open(&service, "/api/v1/events", None).await;
    service.execute("begin; insert into event (kind) values ('never'); rollback").await;
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({})).await.expect(202);
    listener.event("paused").await;
}

#[tokio::test]
async fn lag_is_sampled_while_something_lags() {
    let service = Service::with_mailboxes().await;
    let mut listener = Listener::open(&service, "/api/v1/events", None).await;
    service.execute("update mailbox set captured_seq = 3 where address like 'ana%'").await;
    let sample = listener.event("lag").await;
    assert_eq!((&sample["lagging"], &sample["transactions"]), (&json!(1), &json!(3)));
    assert_eq!(sample["mailboxes"][0]["address"], "ana@example.org");
    service.execute("update mailbox set received_seq = 3, applied_seq = 3 where address like 'ana%'").await;
    while listener.event("lag").await["lagging"] != 0 {}
}

#[tokio::test]
async fn streams_end_at_shutdown() {
    let service = Service::with_mailboxes().await;
    let mut listener = Listener::open(&service, "/api/v1/events", None).await;
    service.shutdown.cancel();
    while listener.frame().await.is_some() {}
}

#[tokio::test]
async fn past_events_are_listed_newest_first_and_filtered() {
    let service = Service::with_mailboxes().await;
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({"reason": "lunch"})).await.expect(202);
    let all = service.get("/api/v1/history").await.expect(200);
    let numbers: Vec<i64> =
        all.body["items"].as_array().unwrap().iter().map(|e| e["event_id"].as_i64().unwrap()).collect();
    assert!(numbers.len() > 4 && numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    let ana = service.get("/api/v1/history?mailbox=ana@example.org&kind=paused").await.expect(200);
    assert_eq!(ana.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(ana.body["items"][0]["address"], "ana@example.org");
    // Page after page gives each event once.
    let first = service.get("/api/v1/history?limit=2").await.expect(200);
    let next = first.body["next"].as_str().unwrap();
    let second = service.get(&format!("/api/v1/history?limit=2&after={next}")).await.expect(200);
    assert_eq!(second.body["items"][0]["event_id"], numbers[2]);
    service.get("/api/v1/history?mailbox=nobody@example.org").await.expect(404);
}
