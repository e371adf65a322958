//! Spool files that are handed over by name instead of being sent.

use std::fs;

use understudy_protocol::{ContentRef, MailboxId, messages::Shipment};

use crate::{
    shipment::{Cargo, content_ref, received, transaction},
    site::Site,
};

/// A spool file of `contents`, and a shipment that hands it over.
fn handed(site: &Site, file: &str, mailbox: MailboxId, contents: &[&[u8]]) -> Cargo {
    fs::write(site.spool().join(file), contents.concat()).unwrap();
    let mut offset = 0;
    let places: Vec<(ContentRef, u64)> = contents
        .iter()
        .map(|content| {
            let at = offset;
            offset += content.len() as u64;
            (content_ref(content), at)
        })
        .collect();
    Cargo::default()
        .frame(&Shipment::Handed { file: file.to_owned(), contents: places })
        .transaction(&transaction(mailbox, 1, contents))
}

#[tokio::test]
async fn a_file_that_is_handed_over_stays_when_its_sender_removes_it() {
    let (site, mailbox) = Site::with_mailbox().await;
    let contents: [&[u8]; 2] = [b"From: a\r\n\r\none", b"From: b\r\n\r\ntwo"];
    let cargo = handed(&site, "1.spool", mailbox, &contents);
    assert_eq!(site.ship(cargo.clone()).await.acks, [received(mailbox, 1)]);
    assert_eq!(site.ship(cargo).await.acks, [received(mailbox, 1)], "handed over twice is as good as once");
    fs::remove_file(site.spool().join("1.spool")).unwrap();
    for content in contents {
        assert_eq!(site.content(content_ref(content).digest).await.as_deref(), Some(content));
    }
    assert_eq!(site.contents_known().await, 2);
}

#[tokio::test]
async fn what_cannot_be_handed_over_changes_nothing() {
    let (site, mailbox) = Site::with_mailbox().await;
    let shipment = |file: &str, offset, content: &[u8]| {
        Cargo::default()
            .frame(&Shipment::Handed { file: file.to_owned(), contents: vec![(content_ref(content), offset)] })
            .transaction(&transaction(mailbox, 1, &[content]))
    };
    fs::write(site.spool().join("1.spool"), b"short").unwrap();
    fs::write(site.spool().join("..").join("outside"), b"not of the spool").unwrap();
    site.post("ship", shipment("1.spool", 0, b"longer than the file")).await.expect(400);
    site.post("ship", shipment("1.spool", u64::MAX, b"short")).await.expect(400);
    for outside in ["../outside", "..", "/etc/hostname", ""] {
        site.post("ship", shipment(outside, 0, b"not of the spool")).await.expect(400);
    }
    site.post("ship", shipment("none.spool", 0, b"gone")).await.expect(503);
    // A shipment whose end is missing.
    let mut cut = shipment("1.spool", 0, b"short");
    cut.bytes.pop();
    site.post("ship", cut).await.expect(400);
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
    assert_eq!(site.pack_bytes().unwrap_or_default(), 0, "no link is left");
}
