//! What is left when a gateway ends and another takes its place.

use std::{pin::pin, time::Duration};

use sqlx::{Connection, PgConnection};
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

#[tokio::test]
async fn a_second_gateway_waits_until_the_first_ends() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &[b"one"])).await.acks, [received(mailbox, 1)]);
    let mut first = site.start_beside().await;
    let mut asked = pin!(site.heartbeat(0, Duration::ZERO));
    let soon = tokio::time::timeout(Duration::from_millis(300), &mut asked).await;
    assert!(soon.is_err(), "the second one works beside the first");
    first.stop().await;
    asked.await;
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 2, &[b"two"])).await.acks, [received(mailbox, 2)]);
}

#[tokio::test]
async fn one_whose_session_was_ended_goes_on_and_leaves_when_another_has_its_place() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let mut another = PgConnection::connect_with(&site.pool.connect_options()).await.unwrap();
    // It holds its place before it answers.
    site.heartbeat(0, Duration::ZERO).await;
    site.execute(END_WHO_HOLDS).await;
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &[b"one"])).await.acks, [received(mailbox, 1)]);

    // It asks once a second, we all the time; should it still come before us, its session is ended again.
    while !sqlx::query_scalar::<_, bool>(TAKE).fetch_one(&mut another).await.unwrap() {
        site.execute(END_WHO_HOLDS).await;
    }
    let fell = site.fell().await.unwrap_err();
    assert_eq!(
        format!("{fell:#}"),
        "could not work on this database alone: another recovery gateway works on this database now"
    );
    drop(another);
    site.start_again().await;
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 2, &[b"two"])).await.acks, [received(mailbox, 2)]);
}

const TAKE: &str = "select pg_try_advisory_lock(hashtext('understudy_gateway'), 2)";
const END_WHO_HOLDS: &str = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = 2
    and database = (select oid from pg_database where datname = current_database())";
