//! What is left when a gateway ends and another takes its place.

use understudy_protocol::Digest;

use crate::{
    shipment::{Cargo, received, transaction},
    site::Site,
};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let large = vec![b'z'; 300 << 10];
    let before: [&[u8]; 3] = [b"small", &large, b""];
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &before)).await.acks, [received(mailbox, 1)]);
    site.restart().await;

    assert_eq!(site.received(mailbox).await.0, 1);
    for content in before {
        assert!(site.content(Digest::of(content)).await.is_some_and(|kept| kept == content));
    }
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &before)).await.acks, [received(mailbox, 1)]);
    // Contents from before need no second sending; new ones do not overwrite them.
    let next = Cargo::default().content(b"new").transaction(&transaction(mailbox, 2, &[b"small", &large, b"new"]));
    assert_eq!(site.ship(next).await.acks, [received(mailbox, 2)]);
    site.restart().await;
    for content in before.into_iter().chain([&b"new"[..]]) {
        assert!(site.content(Digest::of(content)).await.is_some_and(|kept| kept == content));
    }
    assert_eq!(site.received(mailbox).await.0, 2);
}

#[tokio::test]
async fn directives_seen_before_a_restart_are_not_mistaken_for_the_present_ones() {
    let (mut site, _) = Site::with_mailbox().await;
    let seen = site.settled().await;
    site.stop().await;
    site.protect("ben@example.org").await;
    site.start_again().await;
    site.told(seen, "what changed meanwhile", |told| told.mailboxes.len() == 2).await;
}
