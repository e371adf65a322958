//! Shipments that do not arrive as they were sent.

use std::io;

use futures_util::{StreamExt, stream};
use reqwest::Body;
use tokio::sync::oneshot;
use understudy_protocol::{Change, ContentRef, Digest, FolderPath, MailboxId, codec, messages::Shipment};

use crate::{
    shipment::{Cargo, content_ref, received, transaction},
    site::{SECRET, Site, streamed, until, within},
};

/// More than the gateway gathers before it writes.
const LARGE: usize = 700 << 10;

async fn assert_untouched(site: &Site, mailbox: MailboxId) {
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
}

#[tokio::test]
async fn a_shipment_that_ends_early_is_refused_wherever_it_ends() {
    let (site, mailbox) = Site::with_mailbox().await;
    let contents = Cargo::default().content(b"one mail").content(b"another");
    let boundaries = [0, Cargo::default().content(b"one mail").bytes.len(), contents.bytes.len()];
    let whole = contents.transaction(&transaction(mailbox, 1, &[b"one mail", b"another"]));
    for end in 0..whole.bytes.len() {
        // Between two frames it is whole as far as anyone can tell, and brings no transaction.
        let status = if boundaries.contains(&end) { 200 } else { 400 };
        site.post("ship", whole.bytes[..end].to_vec()).await.expect(status);
    }
    assert_untouched(&site, mailbox).await;
    assert_eq!(site.ship(whole).await.acks, [received(mailbox, 1)]);
    assert!(site.content(Digest::of(b"one mail")).await.is_some());
    assert!(site.content(Digest::of(b"another")).await.is_some());
}

/// Ships the start of something whose large content is on its way, and breaks off when it has begun to be written.
pub(crate) async fn cut_off(site: &Site, route: &str, start: Vec<u8>) {
    let before = site.pack_bytes().unwrap_or(0);
    let (cut, wait) = oneshot::channel::<()>();
    let end = stream::once(async move {
        let _ = wait.await;
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    });
    let body = streamed(stream::iter([Ok(start)]).chain(end));
    let cutting = async {
        until("the content is being written", async || site.pack_bytes().is_some_and(|bytes| bytes > before)).await;
        cut.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(site.try_post(route, body), cutting);
    assert!(answer.is_none_or(|answer| answer.status.as_u16() == 400), "what was cut is acknowledged");
}

/// The same, and waits until nothing of it is left.
pub(crate) async fn break_off(site: &Site, route: &str, start: Vec<u8>) {
    let before = site.pack_bytes().unwrap_or(0);
    cut_off(site, route, start).await;
    until("what was cut is gone", async || site.pack_bytes().unwrap_or(0) <= before).await;
}

#[tokio::test]
async fn a_shipment_cut_within_a_content_leaves_nothing_and_the_next_one_is_taken() {
    let (site, mailbox) = Site::with_mailbox().await;
    let large: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let whole = Cargo::default().content(b"small").content(&large);
    let whole = whole.transaction(&transaction(mailbox, 1, &[b"small", &large]));
    break_off(&site, "ship", whole.bytes[..LARGE - 1000].to_vec()).await;
    assert_untouched(&site, mailbox).await;

    assert_eq!(site.ship(whole).await.acks, [received(mailbox, 1)]);
    assert_eq!(site.content(Digest::of(b"small")).await.as_deref(), Some(&b"small"[..]));
    assert!(site.content(Digest::of(&large)).await.is_some_and(|kept| kept == large));
}

#[tokio::test]
async fn a_shipment_cut_within_or_after_its_last_frame_leaves_nothing_and_the_next_one_is_taken() {
    let (site, mailbox) = Site::with_mailbox().await;
    let large = vec![b'x'; LARGE];
    let whole = Cargo::default().whole(mailbox, 1, &[&large]);
    break_off(&site, "ship", whole.bytes[..whole.bytes.len() - 7].to_vec()).await;
    // All of it came, but nobody said that this was all.
    break_off(&site, "ship", whole.bytes.clone()).await;
    assert_untouched(&site, mailbox).await;

    assert_eq!(site.ship(whole).await.acks, [received(mailbox, 1)]);
    assert!(site.content(Digest::of(&large)).await.is_some());
}

#[tokio::test]
async fn a_shipment_that_stalls_does_not_hold_up_the_end() {
    let (mut site, mailbox) = Site::with_mailbox().await;
    let whole = Cargo::default().whole(mailbox, 1, &[&vec![b's'; LARGE]]);
    let body = streamed(stream::iter([Ok(whole.bytes[..LARGE].to_vec())]).chain(stream::pending()));
    let request = site.client.post(site.url("ship")).bearer_auth(SECRET).body(body);
    let stalled = tokio::spawn(request.send());
    until("the content is being written", async || site.pack_bytes().is_some_and(|bytes| bytes > 0)).await;
    site.stop().await;
    let answer = within("the shipment to be given up", stalled).await.unwrap();
    assert!(!answer.is_ok_and(|answer| answer.status().is_success()), "what stalled is acknowledged");
    assert_untouched(&site, mailbox).await;
}

#[tokio::test]
async fn what_was_given_up_does_not_disturb_what_shares_its_pack() {
    let (site, mailbox) = Site::with_mailbox().await;
    let large = vec![b'y'; LARGE];
    site.ship(Cargo::default().whole(mailbox, 1, &[b"before"])).await;
    break_off(&site, "ship", Cargo::default().content(b"given up").content(&large).bytes[..LARGE].to_vec()).await;
    site.ship(Cargo::default().whole(mailbox, 2, &[b"after", &large])).await;
    assert_eq!(site.received(mailbox).await.0, 2);
    for content in [&b"before"[..], b"after", &large] {
        assert!(site.content(Digest::of(content)).await.is_some());
    }
    assert_eq!(site.content(Digest::of(b"given up")).await, None);
}

#[tokio::test]
async fn content_under_a_wrong_digest_is_refused_and_nothing_of_its_shipment_is_stored() {
    let (site, mailbox) = Site::with_mailbox().await;
    let sent = b"damaged";
    let announced = ContentRef { digest: Digest::of(b"as sent"), size: sent.len() as u64 };
    let damaged = Cargo::default().content(b"sound").frame(&Shipment::Content(announced)).raw(sent);
    let damaged = damaged.transaction(&transaction(mailbox, 1, &[b"sound", b"as sent"]));
    site.post("ship", damaged).await.expect(400);
    let no_bytes = ContentRef { digest: Digest::of(b"as sent"), size: 0 };
    site.post("ship", Cargo::default().frame(&Shipment::Content(no_bytes))).await.expect(400);
    assert_untouched(&site, mailbox).await;
    assert_eq!(site.ship(Cargo::default().whole(mailbox, 1, &[b"as sent"])).await.acks, [received(mailbox, 1)]);
    assert_eq!(site.content(Digest::of(b"as sent")).await.as_deref(), Some(&b"as sent"[..]));
}

#[tokio::test]
async fn frames_that_are_not_readable_are_refused() {
    let (site, mailbox) = Site::with_mailbox().await;
    let sound = Cargo::default().whole(mailbox, 1, &[b"mail"]);
    let nonsense = [
        vec![0, 0, 0, 3, 0xc1, 0xc1, 0xc1],
        vec![0, 0, 0, 0],
        codec_frame(&"a frame of a later version"),
        codec_frame(&Shipment::Transaction(b"no transaction".to_vec())),
        // Without its bytes, a content swallows the frames that follow.
        Cargo::default().frame(&Shipment::Content(content_ref(b"mail"))).bytes,
    ];
    for bytes in nonsense {
        site.post("ship", Cargo::default().raw(&bytes).raw(&sound.bytes)).await.expect(400);
        site.post("ship", sound.clone().raw(&bytes)).await.expect(400);
    }
    assert_untouched(&site, mailbox).await;
    assert_eq!(site.ship(sound).await.acks, [received(mailbox, 1)]);
}

fn codec_frame<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_frame(value, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_arrives() {
    let (site, mailbox) = Site::with_mailbox().await;
    let endless = |start: Vec<u8>| -> Body { streamed(stream::iter([Ok(start)]).chain(stream::pending())) };
    let frame = (u32::try_from(codec::MAX_FRAME_BYTES).unwrap() + 1).to_be_bytes();
    site.post("ship", endless(frame.to_vec())).await.expect(400);
    let content = ContentRef { digest: Digest::of(b""), size: (4 << 30) + 1 };
    let announced = Cargo::default().frame(&Shipment::Content(content));
    site.post("ship", endless(announced.bytes)).await.expect(400);
    let content = ContentRef { digest: Digest::of(b""), size: u64::MAX };
    let announced = Cargo::default().content(b"mail").frame(&Shipment::Content(content));
    site.post("ship", endless(announced.bytes)).await.expect(400);
    assert_untouched(&site, mailbox).await;
}

/// Memory is bounded whatever comes: frames stay until all of a shipment is there.
#[tokio::test]
async fn more_frames_than_a_shipment_holds_are_refused_before_they_have_all_arrived() {
    let (site, mailbox) = Site::with_mailbox().await;
    let endless = |frame: Vec<u8>| -> Body { streamed(stream::repeat_with(move || Ok(frame.clone()))) };
    let small = Cargo::default().transaction(&transaction(mailbox, 1, &[]));
    site.post("ship", endless(small.bytes)).await.expect(400);
    let mut long = transaction(mailbox, 1, &[]);
    let path = FolderPath::new(vec!["x".repeat(40 << 20)]);
    long.changes.push(Change::SubscriptionChanged { path, subscribed: true });
    let long = Cargo::default().transaction(&long);
    site.post("ship", endless(long.bytes)).await.expect(400);
    assert_untouched(&site, mailbox).await;
}
