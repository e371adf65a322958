//! What the source gateway is told and tells.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use understudy_database::{mailbox as protected, server as stored};
use understudy_protocol::{
    Epoch, MailboxId, Seq, codec,
    messages::{Directives, InventoryFrame, MailboxReport, Report, Reported, SeedProgress, Trouble},
};
use uuid::Uuid;

use crate::{
    shipment::Cargo,
    site::{Site, TENANT, heartbeat, within},
};

const LONG: Duration = Duration::from_secs(30);
/// An answer that comes sooner was not held for [`LONG`].
const SOON: Duration = Duration::from_secs(20);

fn report(mailbox: MailboxId, seeded: bool, trouble: Option<Trouble>) -> MailboxReport {
    let progress = SeedProgress { messages_done: 3, messages_total: 7, bytes_done: 30, bytes_total: 70 };
    let capability = "notify+qresync".to_owned();
    MailboxReport { mailbox, captured: Seq(0), capability, progress, seeded, swept_at: None, trouble, unreadable: None }
}

#[tokio::test]
async fn a_source_gateway_that_knows_nothing_is_told_everything_at_once() {
    let (site, mailbox) = Site::with_mailbox().await;
    site.ship(Cargo::default().whole(mailbox, 1, &[])).await;
    let asked = Instant::now();
    let told = site.heartbeat(0, LONG).await;
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    assert_eq!(told.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["mail-a"]);
    let [assignment] = &told.mailboxes[..] else { panic!("{:?}", told.mailboxes) };
    assert_eq!((assignment.mailbox, &*assignment.address), (mailbox, "ana@example.org"));
    assert_eq!((&*assignment.server, assignment.epoch, assignment.paused), ("mail-a", Epoch(1), false));
    assert_eq!((assignment.received, assignment.applied), (Seq(1), Seq(0)));
    assert_eq!(told.requests, []);
    assert_eq!(site.number("select count(*) from link where heard_at is not null").await, 1);
}

#[tokio::test]
async fn a_heartbeat_is_held_while_nothing_changes() {
    let (site, mailbox) = Site::with_mailbox().await;
    let seen = site.settled().await;
    // What is received is no news to who sent it.
    site.ship(Cargo::default().whole(mailbox, 1, &[])).await;
    // Longer than the gateway goes without asking its database.
    let told = site.held(Duration::from_millis(1500)).await;
    assert_eq!((told.mailboxes.len(), told.servers.len(), told.requests.len()), (0, 0, 0));
    let asked = Instant::now();
    site.heartbeat(seen, Duration::ZERO).await;
    assert!(asked.elapsed() < SOON);
}

#[tokio::test]
async fn a_held_heartbeat_is_answered_when_something_changes() {
    let (site, mailbox) = Site::with_mailbox().await;
    let mut seen = site.settled().await;
    for (change, expected) in [("protected", (2, false)), ("paused", (2, true)), ("unprotected", (1, false))] {
        let changing = async {
            let mut db = site.pool.acquire().await.unwrap();
            match change {
                "protected" => site.protect_in(&mut db, "ben@example.org").await,
                "paused" => protected::pause(&mut db, mailbox, "the test").await.unwrap(),
                _ => protected::unprotect(&mut db, mailbox, "the test").await.map(drop).unwrap(),
            }
        };
        let says = |told: &Directives| (told.mailboxes.len(), told.mailboxes.iter().any(|m| m.paused)) == expected;
        let asked = Instant::now();
        let (told, ()) = tokio::join!(site.told(seen, change, says), changing);
        assert!(asked.elapsed() < SOON, "{change} was told after {:?}", asked.elapsed());
        seen = told.version;
    }
}

#[tokio::test]
async fn a_change_that_is_committed_late_is_told_too() {
    let site = Site::start().await;
    site.settled().await;
    let mut late = site.pool.begin().await.unwrap();
    site.protect_in(&mut late, "ana@example.org").await;
    // Meanwhile another change is committed, and told.
    let mut other = stored::get(&site.pool, TENANT, "dr-1").await.unwrap().unwrap().definition;
    other.name = "dr-2".to_owned();
    stored::insert(&mut site.pool.acquire().await.unwrap(), TENANT, &other).await.unwrap();
    let seen = site.settled().await;

    late.commit().await.unwrap();
    site.told(seen, "that the mailbox is protected", |told| told.mailboxes.len() == 1).await;
}

#[tokio::test]
async fn what_a_heartbeat_reports_is_seen_and_news_is_an_event_once() {
    let (site, mailbox) = Site::with_mailbox().await;
    let trouble = Trouble {
        kind: "unreachable".to_owned(),
        reason: "the primary does not answer".to_owned(),
        remedy: "Look whether it runs.".to_owned(),
        fault: true,
    };
    for _ in 0..2 {
        let reports = vec![report(mailbox, false, Some(trouble.clone()))];
        site.ask("heartbeat", &heartbeat(0, Duration::ZERO, reports)).await.expect(200);
    }
    let seen = protected::get(&site.pool, mailbox).await.unwrap().unwrap();
    assert_eq!((&*seen.state, seen.messages_done, seen.messages_total), ("faulted", 3, 7));
    assert_eq!(seen.capability, "notify+qresync");
    assert_eq!(seen.trouble.unwrap()["reason"], "the primary does not answer");
    assert_eq!(site.number("select count(*) from event where kind = 'trouble'").await, 1);

    // A report of a mailbox that is gone does no harm.
    let reports = vec![report(MailboxId(mailbox.0 + 1000), true, None), report(mailbox, true, None)];
    site.ask("heartbeat", &heartbeat(0, Duration::ZERO, reports)).await.expect(200);
    let seen = protected::get(&site.pool, mailbox).await.unwrap().unwrap();
    assert_eq!(seen.state, "mirroring", "nothing was there to be applied");
}

#[tokio::test]
async fn a_held_heartbeat_does_not_hold_up_the_end() {
    let (mut site, _) = Site::with_mailbox().await;
    let mut seen = site.settled().await;
    site.execute("update link set heard_at = null").await;
    let holding = async {
        loop {
            let held = codec::encode(&heartbeat(seen, LONG, vec![])).unwrap();
            let Some(answer) = site.try_post("heartbeat", held).await else { return };
            if answer.status.as_u16() != 200 {
                answer.expect(503);
                return;
            }
            seen = answer.value::<Directives>().version;
        }
    };
    let stopping = async {
        let heard = async { while site.number("select count(heard_at) from link").await == 0 {} };
        within("the heartbeat to be heard", heard).await;
        site.begin_to_stop();
        Instant::now()
    };
    let ((), stopped) = tokio::join!(holding, stopping);
    assert!(stopped.elapsed() < SOON, "it took {:?}", stopped.elapsed());
    site.stop().await;
}

#[tokio::test]
async fn a_peer_that_went_silent_does_not_hold_up_the_end() {
    let mut site = Site::start().await;
    let mut silent = tokio::net::TcpStream::connect(site.address()).await.unwrap();
    // RFC 9113 §3.4: the preface and an empty SETTINGS frame; then nothing, as of a host that lost its network.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    within("the gateway's SETTINGS", silent.read_exact(&mut [0; 9])).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn an_inventory_or_a_report_that_nobody_asked_for_changes_nothing() {
    let site = Site::start().await;
    let mut frames = Vec::new();
    codec::encode_frame(&InventoryFrame::End, &mut frames).unwrap();
    site.post(&format!("inventory/{}", Uuid::new_v4()), frames).await.expect(404);
    let report = Report { id: Uuid::new_v4(), outcome: Ok(Reported::Barrier { captured: Seq(7) }) };
    site.ask("report", &report).await.expect(200);
}
