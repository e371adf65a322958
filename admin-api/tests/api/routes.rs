//! Routes: where mailboxes live, how log-ins are spelled, and what nginx is told.

use std::time::Duration;

use serde_json::json;
use understudy_database::route;
use understudy_protocol::{MailboxId, Side};

use crate::service::{Answer, NGINX_KEY, Service};

const NGINX: &str = "/api/v1/routes/nginx-auth";

/// Servers that nginx can reach, and `ana` and `ben` protected, on the primary.
async fn service() -> Service {
    let service = Service::with_mailboxes().await;
    service
        .execute(
            "update server set definition = definition || jsonb_build_object(
                 'imap', 'imap+insecure://127.0.0.1:' || case role when 'primary' then '1143' else '2143' end,
                 'submission', 'smtp://127.0.0.1:' || case role when 'primary' then '1587' else '2587' end);
             update server set definition = definition - 'submission' where name = 'mail-b';
             insert into mail_domain (domain, server_id) select 'example.org', server_id from server where name = 'mail-a'",
        )
        .await;
    service
}

async fn asked(service: &Service, login: &str, protocol: &str) -> Answer {
    let headers =
        [("x-auth-key", NGINX_KEY), ("auth-user", login), ("auth-protocol", protocol), ("client-ip", "192.0.2.1")];
    service.ask_with("GET", NGINX, None, &headers).await.expect(200)
}

async fn ana(service: &Service) -> MailboxId {
    route::mailbox_of(&service.pool, "ana").await.unwrap().unwrap()
}

async fn flip(service: &Service, side: Side) {
    let mailbox = ana(service).await;
    route::announce_hold(&service.pool, &[mailbox]).await.unwrap();
    let mut transaction = service.pool.begin().await.unwrap();
    let held = route::hold(&mut transaction, &[mailbox]).await.unwrap();
    assert!(route::flip(&mut transaction, mailbox, side, held[0].epoch).await.unwrap());
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn routes_say_where_each_mailbox_lives() {
    let service = service().await;
    flip(&service, Side::Standby).await;
    let mut listed = service.get("/api/v1/routes").await.expect(200).body;
    listed["items"][0]["changed_at"].take();
    assert_eq!(
        listed["items"][0],
        json!({"address": "ana@example.org", "primary": "mail-a", "standby": "dr-1", "side": "standby",
               "held": false, "epoch": 2, "changed_at": null})
    );
    assert_eq!(service.get("/api/v1/routes?side=primary").await.expect(200).body["items"].as_array().unwrap().len(), 1);
    let shown = service.get("/api/v1/mailboxes/ana@example.org").await.expect(200).body;
    assert_eq!((&shown["active_side"], &shown["epoch"]), (&json!("standby"), &json!(2)));
    for form in ["ana", "ANA@example.org", "ana+news@example.org", "Ana+x"] {
        let shown = service.get(&format!("/api/v1/routes/{form}")).await.expect(200).body;
        assert_eq!(shown["side"], "standby", "{form}");
    }
    service.get("/api/v1/routes/zoe").await.expect(404);
    service.ask("DELETE", "/api/v1/mailboxes/ana@example.org", None).await;
    service.get("/api/v1/routes/ana").await.expect(404);
}

#[tokio::test]
async fn aliases_belong_to_one_mailbox() {
    let service = service().await;
    let path = |user: &str| format!("/api/v1/mailboxes/{user}@example.org/aliases");
    let wanted = json!({"aliases": ["Annie@example.org", "a.smith"]});
    let set = service.ask("PUT", &path("ana"), Some(wanted)).await.expect(200).body;
    assert_eq!(set, json!({"aliases": ["a.smith", "annie@example.org"]}));
    assert_eq!(service.get("/api/v1/routes/annie+x@EXAMPLE.org").await.expect(200).body["address"], "ana@example.org");
    service.ask("PUT", &path("ben"), Some(json!({"aliases": ["a.smith"]}))).await.expect(409);
    let refused = service.ask("PUT", &path("ben"), Some(json!({"aliases": ["x!standby"]}))).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/aliases/0");
    service.ask("PUT", &path("ana"), Some(json!({"aliases": []}))).await.expect(200);
    assert_eq!(service.get(&path("ana")).await.expect(200).body, json!({"aliases": []}));
    service.get("/api/v1/routes/a.smith").await.expect(404);
}

#[tokio::test]
async fn a_log_in_that_means_two_mailboxes_is_not_guessed() {
    let service = Service::with_servers().await;
    service.protect(&["ana"], "mail-a").await;
    let other = json!({"addresses": ["ana"], "primary": "mail-b", "standby": "dr-1", "standby_address": "ana-b"});
    service.post("/api/v1/mailboxes", other).await.expect(201);
    service.get("/api/v1/routes/ana").await.expect(409);
    service
        .execute("insert into mail_domain (domain, server_id) select 'b.example', server_id from server where name = 'mail-b'")
        .await;
    assert_eq!(service.get("/api/v1/routes/ana@b.example").await.expect(200).body["primary"], "mail-b");
    let refused = asked(&service, "ana", "smtp").await;
    assert_eq!(
        (refused.header("auth-status"), refused.header("auth-error-code")),
        ("The mailbox cannot be reached at the moment", "451 4.3.5")
    );
}

#[tokio::test]
async fn nginx_is_told_where_a_log_in_goes() {
    let service = service().await;
    let answer = asked(&service, "Ana+news@Example.org", "imap").await;
    let told = |answer: &Answer| {
        ["auth-status", "auth-server", "auth-port", "auth-user"].map(|name| answer.header(name).to_owned()).join(" ")
    };
    assert_eq!(told(&answer), "OK 127.0.0.1 1143 ana@example.org");
    assert_eq!(told(&asked(&service, "ana*admin", "imap").await), "OK 127.0.0.1 1143 ana@example.org*admin");
    assert_eq!(told(&asked(&service, "ana", "smtp").await), "OK 127.0.0.1 1587 ana@example.org");
    assert_eq!(told(&asked(&service, "zoe@example.org", "imap").await), "OK 127.0.0.1 1143 zoe@example.org");
    flip(&service, Side::Standby).await;
    assert_eq!(told(&asked(&service, "ana", "smtp").await), "OK 127.0.0.1 2587 ana@example.org");

    // To be kept for when nobody answers, and to be asked for again until then.
    assert_eq!(answer.header("x-accel-expires"), "@1");
    let unknown = asked(&service, "ana!standby", "imap").await;
    assert_eq!((unknown.header("auth-status"), unknown.header("auth-wait")), ("Invalid login or password", "2"));
    assert_eq!(unknown.header("x-accel-expires"), "0");
    assert_eq!(asked(&service, "ana!standby", "smtp").await.header("auth-error-code"), "535 5.7.8");

    for key in ["", "wrong"] {
        let headers = [("x-auth-key", key), ("auth-user", "ana"), ("auth-protocol", "imap")];
        let refused = service.ask_with("GET", NGINX, None, &headers).await.expect(403);
        assert_eq!(refused.header("auth-status"), "");
    }
}

#[tokio::test]
async fn nginx_waits_while_a_route_is_on_hold() {
    let service = service().await;
    let mailbox = ana(&service).await;
    route::announce_hold(&service.pool, &[mailbox]).await.unwrap();
    let mut waiting = Box::pin(asked(&service, "ana", "imap"));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it does not wait");
    assert_eq!(asked(&service, "ben", "imap").await.header("auth-status"), "OK");
    flip(&service, Side::Standby).await;
    assert_eq!(waiting.await.header("auth-port"), "2143");

    // Without a flip it goes on as before.
    route::announce_hold(&service.pool, &[mailbox]).await.unwrap();
    route::release(&service.pool, &[mailbox]).await.unwrap();
    assert_eq!(asked(&service, "ana", "imap").await.header("auth-port"), "2143");
}

#[tokio::test]
async fn only_a_hold_in_force_lets_a_side_change() {
    let service = service().await;
    let mailbox = ana(&service).await;
    let flipped = async || {
        let mut transaction = service.pool.begin().await.unwrap();
        let held = route::hold(&mut transaction, &[mailbox]).await.unwrap();
        let flipped = route::flip(&mut transaction, mailbox, Side::Standby, held[0].epoch).await.unwrap();
        transaction.commit().await.unwrap();
        flipped
    };
    assert!(!flipped().await, "nobody announced a hold");
    route::announce_hold(&service.pool, &[mailbox]).await.unwrap();
    service.execute("update route set hold_until = clock_timestamp() - interval '1 second' where state = 'hold'").await;
    assert!(!flipped().await, "the hold was over");
    assert_eq!(asked(&service, "ana", "imap").await.header("auth-port"), "1143");
    route::announce_hold(&service.pool, &[mailbox]).await.unwrap();
    assert!(flipped().await);
}

#[tokio::test]
async fn without_a_database_nginx_gets_the_last_answer() {
    let service = service().await;
    asked(&service, "ana", "imap").await;
    service.pool.close().await;
    assert_eq!(asked(&service, "ana", "imap").await.header("auth-port"), "1143");
    let headers = [("x-auth-key", NGINX_KEY), ("auth-user", "ben"), ("auth-protocol", "imap")];
    service.ask_with("GET", NGINX, None, &headers).await.expect(503);
}
