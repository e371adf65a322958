//! What a source gateway that lost its journal learns of a mailbox.

use understudy_database::mailbox as protected;
use understudy_protocol::{Epoch, MailboxId, Seq, codec, messages::Known};

use crate::{shipment::Cargo, site::Site};

#[tokio::test]
async fn nothing_is_known_of_a_mailbox_nobody_protects() {
    let (site, mailbox) = Site::with_mailbox().await;
    site.post(&format!("known/{}", MailboxId(mailbox.0 + 1000)), "").await.expect(404);
    protected::unprotect(&mut site.pool.acquire().await.unwrap(), mailbox, "the test").await.unwrap();
    site.post(&format!("known/{mailbox}"), "").await.expect(404);
}

#[tokio::test]
async fn an_empty_mirror_is_known_from_start_to_end() {
    let (site, mailbox) = Site::with_mailbox().await;
    let answer = site.post(&format!("known/{mailbox}"), "").await.expect(200);
    let frames: Vec<Known> = codec::decode_frames(&answer.body).unwrap();
    let start = Known::Start {
        received: Seq(0),
        epoch: Epoch(1),
        subscriptions: vec![],
        digest: understudy_protocol::Digest::default(),
    };
    assert_eq!(frames, [start, Known::End]);
}

#[tokio::test]
async fn what_is_known_is_not_said_while_received_transactions_wait_to_be_applied() {
    let (site, mailbox) = Site::with_mailbox().await;
    let other = site.protect("ben@example.org").await;
    site.ship(Cargo::default().whole(mailbox, 1, &[b"mail"])).await;
    let refused = site.post(&format!("known/{mailbox}"), "").await.expect(409);
    assert!(refused.text().contains("ask again"), "{}", refused.text());
    site.post(&format!("known/{other}"), "").await.expect(200);
}
