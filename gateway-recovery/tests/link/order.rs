//! Which transactions are taken, once everything has arrived.

use futures_util::future::join_all;
use understudy_database::mailbox as protected;
use understudy_protocol::{
    Digest, Epoch, MailboxId, Transaction, codec,
    messages::{Refusal, Shipped},
};

use crate::{
    shipment::{Cargo, received, refused, transaction},
    site::Site,
};

#[tokio::test]
async fn the_same_transaction_twice_is_acknowledged_again_and_stored_once() {
    let (site, mailbox) = Site::with_mailbox().await;
    let first = Cargo::default().whole(mailbox, 1, &[b"one"]);
    for _ in 0..3 {
        assert_eq!(site.ship(first.clone()).await.acks, [received(mailbox, 1)]);
    }
    let again = first.clone().whole(mailbox, 2, &[b"two"]).whole(mailbox, 2, &[b"two"]);
    assert_eq!(site.ship(again).await.acks, [received(mailbox, 2)]);
    assert_eq!(site.ship(first).await.acks, [received(mailbox, 2)]);
    assert_eq!(site.received(mailbox).await.0, 2);
    assert_eq!(site.contents_known().await, 2);
}

#[tokio::test]
async fn a_known_number_with_other_changes_is_refused_as_diverged() {
    let (site, mailbox) = Site::with_mailbox().await;
    let ours = Cargo::default().whole(mailbox, 1, &[b"one"]).whole(mailbox, 2, &[b"two"]);
    assert_eq!(site.ship(ours).await.acks, [received(mailbox, 2)]);
    let theirs = Cargo::default().whole(mailbox, 2, &[b"another two"]).whole(mailbox, 3, &[b"three"]);
    assert_eq!(site.ship(theirs).await.acks, [refused(mailbox, 2, Refusal::Diverged)]);
    assert_eq!(site.received(mailbox).await.0, 2, "nothing is taken after a refusal");
}

/// A transaction that says what came before it.
fn after(previous: Digest, seq: i64, mailbox: MailboxId) -> Transaction {
    Transaction { previous, ..transaction(mailbox, seq, &[]) }
}

fn digest_of(transaction: &Transaction) -> Digest {
    Digest::of(&codec::encode(transaction).unwrap())
}

#[tokio::test]
async fn a_number_that_follows_another_transaction_is_refused_as_diverged() {
    let (site, mailbox) = Site::with_mailbox().await;
    let one = after(Digest::default(), 1, mailbox);
    let two = after(digest_of(&one), 2, mailbox);
    assert_eq!(site.ship(Cargo::default().transaction(&one).transaction(&two)).await.acks, [received(mailbox, 2)]);
    let stranger = after(digest_of(&one), 3, mailbox);
    let diverged = refused(mailbox, 2, Refusal::Diverged);
    assert_eq!(site.ship(Cargo::default().transaction(&stranger)).await.acks, std::slice::from_ref(&diverged));
    let three = after(digest_of(&two), 3, mailbox);
    let stranger = after(digest_of(&two), 4, mailbox);
    let both = Cargo::default().transaction(&three).transaction(&stranger);
    assert_eq!(site.ship(both).await.acks, [refused(mailbox, 3, Refusal::Diverged)], "also within a shipment");
    // A gateway that does not say what came before is taken at its numbers.
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 4, &[])).await.acks, [received(mailbox, 4)]);
}

#[tokio::test]
async fn a_gap_is_refused_with_the_number_wanted() {
    let (site, mailbox) = Site::with_mailbox().await;
    let gap = |seq| refused(mailbox, seq, Refusal::Gap);
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 2, &[])).await.acks, [gap(0)]);
    let hole = Cargo::default().whole(mailbox, 1, &[]).whole(mailbox, 3, &[]).whole(mailbox, 2, &[]);
    assert_eq!(site.ship(hole).await.acks, [gap(1)], "nothing is taken after a refusal");
    assert_eq!(site.received(mailbox).await.0, 1);
    let rest = Cargo::default().whole(mailbox, 2, &[]).whole(mailbox, 3, &[]);
    assert_eq!(site.ship(rest).await.acks, [received(mailbox, 3)]);
}

#[tokio::test]
async fn a_transaction_of_another_epoch_is_refused() {
    let (site, mailbox) = Site::with_mailbox().await;
    let of_epoch = |epoch, seq| {
        let mut transaction = transaction(mailbox, seq, &[]);
        transaction.epoch = Epoch(epoch);
        Cargo::default().transaction(&transaction)
    };
    let current = |epoch, seq| refused(mailbox, seq, Refusal::Epoch { current: Epoch(epoch) });
    assert_eq!(site.ship(of_epoch(0, 1)).await.acks, [current(1, 0)]);
    assert_eq!(site.ship(of_epoch(2, 1)).await.acks, [current(1, 0)]);
    assert_eq!(site.ship(of_epoch(1, 1)).await.acks, [received(mailbox, 1)]);
    site.execute("update mailbox set epoch = 2").await;
    assert_eq!(site.ship(of_epoch(1, 2)).await.acks, [current(2, 1)]);
    assert_eq!(site.ship(of_epoch(2, 2)).await.acks, [received(mailbox, 2)]);
    assert_eq!(site.received(mailbox).await.0, 2);
}

#[tokio::test]
async fn a_mailbox_nobody_protects_is_refused() {
    let (site, mailbox) = Site::with_mailbox().await;
    let stranger = MailboxId(mailbox.0 + 1000);
    let unknown = |mailbox| refused(mailbox, 0, Refusal::UnknownMailbox);
    assert_eq!(site.ship(Cargo::default().whole(stranger, 1, &[b"mail"])).await.acks, [unknown(stranger)]);
    protected::unprotect(&mut site.pool.acquire().await.unwrap(), mailbox, "the test").await.unwrap();
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &[b"mail"])).await.acks, [unknown(mailbox)]);
    assert_eq!(site.contents_known().await, 0);
    assert_eq!(site.number("select count(*) from transaction").await, 0);
}

#[tokio::test]
async fn content_that_nobody_sent_is_asked_for() {
    let (site, mailbox) = Site::with_mailbox().await;
    let named: [&[u8]; 3] = [b"sent", b"lost", b"lost too"];
    let incomplete = Cargo::default().content(b"sent").transaction(&transaction(mailbox, 1, &named));
    let digests = vec![Digest::of(b"lost"), Digest::of(b"lost too")];
    let lacks = refused(mailbox, 0, Refusal::LacksContent { digests });
    assert_eq!(site.ship(incomplete).await.acks, [lacks]);
    assert_eq!(site.received(mailbox).await.0, 0);

    // Only what is asked for need be sent.
    let rest = Cargo::default().content(b"lost").content(b"lost too").transaction(&transaction(mailbox, 1, &named));
    assert_eq!(site.ship(rest).await.acks, [received(mailbox, 1)]);
    for content in named {
        assert_eq!(site.content(Digest::of(content)).await.as_deref(), Some(content));
    }
}

#[tokio::test]
async fn content_is_sent_once_whatever_names_it_later() {
    let (site, mailbox) = Site::with_mailbox().await;
    let other = site.protect("ben@example.org").await;
    site.ship(Cargo::default().whole(mailbox, 1, &[b"mail", b""])).await;
    let bytes = site.pack_bytes();
    let later = Cargo::default().transaction(&transaction(mailbox, 2, &[b"mail", b"mail"])).transaction(&transaction(
        other,
        1,
        &[b"", b"mail"],
    ));
    assert_eq!(site.ship(later).await.acks, [received(mailbox, 2), received(other, 1)]);
    assert_eq!(site.pack_bytes(), bytes);
    assert_eq!(site.contents_known().await, 2);
    assert_eq!(site.content(Digest::of(b"")).await.as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn each_mailbox_of_a_shipment_gets_its_own_acknowledgement() {
    let (site, ana) = Site::with_mailbox().await;
    let ben = site.protect("ben@example.org").await;
    let both = Cargo::default().whole(ben, 1, &[b"b"]).whole(ana, 1, &[b"a"]).whole(ben, 2, &[b"a"]);
    assert_eq!(site.ship(both).await.acks, [received(ana, 1), received(ben, 2)]);
    let one_refused = Cargo::default().whole(ana, 5, &[]).whole(ben, 3, &[]);
    assert_eq!(site.ship(one_refused).await.acks, [refused(ana, 1, Refusal::Gap), received(ben, 3)]);
    assert_eq!(site.ship(Cargo::default()).await, Shipped::default());
    assert_eq!(site.received(ana).await.0, 1);
    assert_eq!(site.received(ben).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_number_shipped_from_all_sides_at_once_is_stored_once() {
    let (site, mailbox) = Site::with_mailbox().await;
    for seq in 1..=5 {
        let content = seq.to_string().repeat(1000);
        let shipment = Cargo::default().whole(mailbox, seq, &[content.as_bytes()]);
        let answers = join_all((0..8).map(|_| site.ship(shipment.clone()))).await;
        for answer in answers {
            assert_eq!(answer.acks, [received(mailbox, seq)]);
        }
        assert_eq!(site.received(mailbox).await.0, seq);
        assert!(site.content(Digest::of(content.as_bytes())).await.is_some());
    }
    assert_eq!(site.contents_known().await, 5);
}
