//! Runs: asked for, followed, cancelled; and the queue the recovery gateway takes them from.

use serde_json::{Value, json};
use understudy_database::run::{self, Ended};

use crate::service::Service;

#[tokio::test]
async fn a_barrier_names_the_mailboxes_it_means() {
    let service = Service::with_mailboxes().await;
    let asked =
        service.post("/api/v1/mailboxes/ANA@example.org/barrier", json!({"timeout_seconds": 5})).await.expect(202);
    assert_eq!(asked.body["state"], "waiting");
    assert_eq!(asked.body["address"], "ana@example.org");
    assert_eq!(asked.body["request"]["addresses"], json!(["ana@example.org"]));
    assert_eq!(asked.body["request"]["timeout_seconds"], 5);
    assert_eq!(asked.body["request"]["mailbox_ids"].as_array().unwrap().len(), 1);
    let all = service.post("/api/v1/verifications", json!({"all": true, "deep": true})).await.expect(202);
    assert_eq!(all.body["request"], json!({"all": true, "deep": true, "repair": false}));
    let many = json!({"addresses": ["ben@example.org", "ana@example.org", "ana@example.org"]});
    let many = service.post("/api/v1/barriers", many).await.expect(202);
    assert_eq!(many.body["request"]["mailbox_ids"].as_array().unwrap().len(), 2);

    let unknown = json!({"addresses": ["ana@example.org", "bem@example.org"]});
    let unknown = service.post("/api/v1/barriers", unknown).await.expect(422).body;
    assert_eq!(unknown["errors"][0]["index"], 1);
    assert_eq!(unknown["errors"][0]["nearest"], "ben@example.org");
    for bad in [json!({}), json!({"all": true, "addresses": ["ana@example.org"]}), json!({"addresses": []})] {
        service.post("/api/v1/barriers", bad).await.expect(422);
    }
    service.post("/api/v1/barriers", json!({"all": true, "timeout_seconds": 0})).await.expect(422);
}

#[tokio::test]
async fn a_run_is_claimed_once_stepped_and_finished() {
    let service = Service::with_mailboxes().await;
    let asked = service.post("/api/v1/mailboxes/ana@example.org/verify", json!({})).await.expect(202);
    let path = asked.header("location").to_owned();
    let (mut one, mut other) = (service.pool.begin().await.unwrap(), service.pool.begin().await.unwrap());
    let claimed = run::claim_waiting(&mut one).await.unwrap().unwrap();
    assert!(run::claim_waiting(&mut other).await.unwrap().is_none());
    one.commit().await.unwrap();
    other.rollback().await.unwrap();
    assert_eq!(service.get(&path).await.expect(200).body["state"], "running");

    let mut connection = service.pool.acquire().await.unwrap();
    let first = run::begin_step(&mut connection, claimed.run_id, "look", None).await.unwrap();
    run::end_step(&mut connection, claimed.run_id, first, "seen").await.unwrap();
    let second = run::begin_step(&mut connection, claimed.run_id, "compare", None).await.unwrap();
    assert_eq!((first, second), (1, 2));

    let patient = format!("{path}?wait=30");
    let waiting = service.get(&patient);
    let finish = async {
        let result = json!({"mailboxes": []});
        run::finish(&mut connection, claimed.run_id, Ended::Done, &result).await.unwrap();
    };
    let (done, ()) = tokio::join!(waiting, finish);
    let done = done.expect(200).body;
    assert_eq!((&done["state"], &done["result"]), (&json!("done"), &json!({"mailboxes": []})));
    assert_eq!(done["steps"][0]["outcome"], "seen");
    assert_eq!(done["steps"][1]["ended_at"], Value::Null);
    service.post(&format!("{path}/cancel"), json!({})).await.expect(409);
}

#[tokio::test]
async fn a_waiting_run_is_cancelled_at_once_and_a_running_one_is_asked() {
    let service = Service::with_mailboxes().await;
    let cancel = async |asked: &crate::service::Answer| {
        service.ask("POST", &format!("{}/cancel", asked.header("location")), None).await.expect(202).body
    };
    let waiting = service.post("/api/v1/barriers", json!({"all": true})).await.expect(202);
    assert_eq!(cancel(&waiting).await["state"], "cancelled");
    let running = service.post("/api/v1/barriers", json!({"all": true})).await.expect(202);
    let mut connection = service.pool.acquire().await.unwrap();
    let claimed = run::claim_waiting(&mut connection).await.unwrap().unwrap();
    assert!(!run::cancel_requested(&mut *connection, claimed.run_id).await.unwrap());
    let asked = cancel(&running).await;
    assert_eq!((&asked["state"], &asked["cancel_requested"]), (&json!("running"), &json!(true)));
    assert!(run::cancel_requested(&mut *connection, claimed.run_id).await.unwrap());
    assert_eq!(run::requeue_running(&mut *connection).await.unwrap(), 1);
}

#[tokio::test]
async fn runs_are_listed_newest_first_by_page_and_filter() {
    let service = Service::with_mailboxes().await;
    for _ in 0..5 {
        service.post("/api/v1/barriers", json!({"all": true})).await.expect(202);
    }
    service.post("/api/v1/mailboxes/ana@example.org/pause", json!({})).await.expect(202);
    let page = service.get("/api/v1/runs?limit=4").await.expect(200).body;
    assert_eq!(page["items"][0]["kind"], "pause");
    let rest = format!("/api/v1/runs?limit=4&after={}", page["next"].as_str().unwrap());
    assert_eq!(service.get(&rest).await.expect(200).body["items"].as_array().unwrap().len(), 2);
    for (query, expected) in
        [("open=true", 5), ("kind=pause", 1), ("state=done", 1), ("mailbox=ana@example.org", 1), ("server=mail-a", 0)]
    {
        let page = service.get(&format!("/api/v1/runs?{query}")).await.expect(200).body;
        assert_eq!(page["items"].as_array().unwrap().len(), expected, "{query}");
    }
    service.get("/api/v1/runs/0199a000-0000-7000-8000-000000000000").await.expect(404);
    service.get("/api/v1/runs/first").await.expect(404);
}
