//! Who may speak, and in which version.

use reqwest::header;
use understudy_protocol::messages::{GATEWAY_HEADER, Hello, LINK_VERSION, OLDEST_LINK_VERSION, Welcome};
use uuid::Uuid;

use crate::{
    shipment::Cargo,
    site::{SECRET, Site},
};

fn hello(link_version: u32) -> Hello {
    Hello { link_version, gateway: Uuid::new_v4(), installation: Uuid::nil(), product_version: "0.0.1".to_owned() }
}

#[tokio::test]
async fn a_request_without_our_secret_is_refused_on_every_route_and_has_no_effect() {
    let (site, mailbox) = Site::with_mailbox().await;
    let body = Cargo::default().whole(mailbox, 1, &[b"mail"]);
    let inventory = format!("inventory/{}", Uuid::new_v4());
    let known = format!("known/{mailbox}");
    for route in ["hello", "ship", "heartbeat", &known, "lacks", "report", &inventory, "renew", "ping", "no-such-route"]
    {
        let wrong = [
            None,
            Some("Bearer ".to_owned()),
            Some("Bearer another secret".to_owned()),
            Some(format!("Bearer {SECRET}!")),
            Some(format!("Basic {SECRET}")),
            Some(SECRET.to_owned()),
        ];
        for given in wrong {
            let mut request = site.client.post(site.url(route)).body(body.clone());
            if let Some(given) = &given {
                request = request.header(header::AUTHORIZATION, given);
            }
            let status = request.send().await.unwrap().status();
            assert_eq!(status.as_u16(), 401, "{route} with {given:?}");
        }
    }
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.pack_bytes(), None, "nothing was read of the shipments");
    assert_eq!(site.number("select count(*) from link where heard_at is not null").await, 0);
}

#[tokio::test]
async fn a_source_gateway_is_greeted_in_a_version_both_speak() {
    let site = Site::start().await;
    let welcome: Welcome = site.ask("hello", &hello(LINK_VERSION)).await.expect(200).value();
    assert_eq!(welcome.link_version, LINK_VERSION);
    let newer: Welcome = site.ask("hello", &hello(LINK_VERSION + 7)).await.expect(200).value();
    assert_eq!(newer.link_version, LINK_VERSION);
    assert_eq!(site.number("select count(*) from link where hello_at is not null").await, 1);
}

#[tokio::test]
async fn a_source_gateway_too_old_to_talk_to_is_told_what_to_do() {
    let site = Site::start().await;
    let refused = site.ask("hello", &hello(OLDEST_LINK_VERSION - 1)).await.expect(426);
    assert!(refused.text().contains("upgrade the source gateway"), "{}", refused.text());
    assert_eq!(site.number("select count(*) from link where hello_at is not null").await, 0);
}

#[tokio::test]
async fn a_message_that_is_not_readable_is_refused() {
    let site = Site::start().await;
    for route in ["hello", "heartbeat", "lacks", "report"] {
        site.post(route, "").await.expect(400);
        site.post(route, "\u{1}not a message").await.expect(400);
        site.post(route, vec![0xc1; 64]).await.expect(400);
    }
    site.post("known/ana", "").await.expect(400);
    site.post("inventory/7", "").await.expect(400);
    for route in ["hello", "heartbeat", "lacks", "report"] {
        site.post(route, vec![0; (16 << 20) + 1]).await.expect(413);
    }
    assert_eq!(site.number("select count(*) from link where heard_at is not null").await, 0);
}

#[tokio::test]
async fn a_second_installation_is_turned_away_while_the_first_is_heard_of() {
    let (site, mailbox) = Site::with_mailbox().await;
    let life = |installation| Hello { gateway: Uuid::now_v7(), installation, ..hello(LINK_VERSION) };
    let as_life = async |gateway: Uuid| {
        let request = site.client.post(site.url("ship")).header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
        let request = request.header(GATEWAY_HEADER, gateway.to_string());
        request.body(Cargo::default().whole(mailbox, 1, &[b"mail"])).send().await.unwrap().status().as_u16()
    };
    let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
    let (first, other, restarted) = (life(ours), life(theirs), life(ours));
    site.ask("hello", &first).await.expect(200);
    let refused = site.ask("hello", &other).await.expect(403);
    assert!(refused.text().contains("stop one of them"), "{}", refused.text());
    site.ask("hello", &other).await.expect(403);
    assert_eq!(site.number("select count(*) from event where kind = 'source_refused'").await, 1, "said once");
    assert_eq!(as_life(other.gateway).await, 403, "nothing else is heard of it either");
    assert_eq!(site.received(mailbox).await.0, 0);

    // A restart takes over at once; the life before it is over, a clone of the machine included.
    site.ask("hello", &restarted).await.expect(200);
    assert_eq!(as_life(first.gateway).await, 403);
    site.ask("hello", &first).await.expect(403);
    assert_eq!(as_life(restarted.gateway).await, 200);

    // Once nothing has been heard of it, another one may.
    site.execute("update link set heard_at = now() - interval '31 seconds'").await;
    site.ask("hello", &other).await.expect(200);
    assert_eq!(as_life(other.gateway).await, 200);
    assert_eq!(as_life(restarted.gateway).await, 403);
}
