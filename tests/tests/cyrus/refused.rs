//! What one of the servers refuses or alters: kept, named with its reason, never counted as equal, and in nobody's way.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_tests::client::{Client, Refused, Snapshot};
use understudy_tests::cyrus;
use understudy_tests::mail::{Mail, odd_mail};
use understudy_tests::scenario::{PRIMARY, STANDBY};
use understudy_tests::wait;

use super::exact;
use super::pair::Pair;
use crate::times;

/// A short run takes every so many-th odd message.
const EVERY: usize = 32;
/// A batch in which messages are refused is halved until each of them stands alone.
const ODD_PATIENCE: Duration = Duration::from_secs(1200);
/// Refused by Cyrus for its header, or stored with X for octets above 127 in it; or, as the last, altered by Dovecot.
const ODD: [&[u8]; 8] = [
    b"Subject : a blank before the colon\r\n\r\nx\r\n",
    b"no colon at all\r\n\r\nx\r\n",
    b">From somebody\r\nSubject: x\r\n\r\nx\r\n",
    b"Subject: caf\xe9 \xc3\xa9\r\n\r\nx\r\n",
    b"Subject: x\r\n\r\ncaf\xe9 only in the body\r\n",
    b"Subject: x\r\n\r\na bare \r in a line\r\n",
    b"Subject: no end of line",
    b"Subject: x\r\n\r\ntwo\r\r\nreturns\r\n",
];

/// Appends odd messages, ordinary ones between them; what the primary refuses is not there to be mirrored.
async fn append_odd(client: &mut Client, folder: &str) -> Result<()> {
    let mut mail = Mail::from_seed(40);
    let every = if times(2) > 1 { 1 } else { EVERY };
    let collected = odd_mail()?.into_iter().step_by(every).map(|(_, message)| message);
    client.create(folder).await?;
    for message in ODD.iter().map(|message| message.to_vec()).chain(collected) {
        match client.append(folder, &["\\Flagged", "$Odd"], None, &message).await {
            Err(error) if !error.is::<Refused>() => return Err(error),
            _ => drop(client.append(folder, &[], None, &mail.plain(100)).await?),
        }
    }
    Ok(())
}

/// Messages of the primary of which the standby has no exact copy in their folder.
fn without_copy(primary: &Snapshot, standby: &Snapshot) -> BTreeSet<(String, u32)> {
    let mut lacking = BTreeSet::new();
    for (name, folder) in &primary.folders {
        let copies = standby.folders.get(name).map(|folder| &folder.messages[..]).unwrap_or_default();
        let mut copies: Vec<_> = copies.iter().map(|message| message.digest).collect();
        for message in &folder.messages {
            match copies.iter().position(|copy| *copy == message.digest) {
                Some(at) => drop(copies.swap_remove(at)),
                None => drop(lacking.insert((name.clone(), message.uid))),
            }
        }
    }
    lacking
}

/// Everything arrives exactly but for what verification names as set aside; answers the reasons.
async fn odd_mail_is_mirrored_or_named(pair: Pair) -> Result<Vec<String>> {
    let mut ann = pair.log_in("ann").await?;
    append_odd(&mut ann, "Odd before").await?;
    pair.protect(&["ann"]).await?;
    append_odd(&mut ann, "Odd and live").await?;
    pair.settle_within(ODD_PATIENCE).await?;
    let (ours, theirs) = (ann.snapshot().await?, pair.log_in_to_standby("ann").await?.snapshot().await?);
    let found = pair.verified("ann").await?;
    let aside: Vec<_> = found.differences.iter().filter(|difference| difference.what == "set_aside").collect();
    ensure!(aside.len() == found.differences.len(), "{found:#?}");
    let named = aside.iter().map(|difference| (difference.folder.clone(), difference.uid.unwrap_or_default()));
    let (named, lacking) = (named.collect::<BTreeSet<_>>(), without_copy(&ours, &theirs));
    ensure!(named.is_subset(&lacking), "{:?}", named.difference(&lacking).collect::<Vec<_>>());
    assert_eq!(named.len() as u64 + found.more, lacking.len() as u64);
    Ok(aside.iter().map(|difference| difference.detail.clone()).collect())
}

#[tokio::test]
async fn what_cyrus_refuses_or_alters_is_named_with_its_reason() -> Result<()> {
    let pair = Pair::from_dovecot(cyrus::Options::new(STANDBY)).await?;
    // It is said before anybody has to find out.
    let checked = pair.stack.command(&["server", "check", STANDBY, "--address", "ann"]).await?.expect(0)?;
    for known in ["Cyrus IMAPD 3", "munge8bit: no", "malformed messages", "folder names"] {
        assert!(checked.stdout.contains(known), "{known} is missing:\n{}", checked.stdout);
    }
    let reasons = odd_mail_is_mirrored_or_named(pair).await?;
    for reason in ["Message contains invalid header", "munge8bit: no"] {
        assert!(reasons.iter().any(|given| given.contains(reason)), "{reasons:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_dovecot_alters_of_cyruss_mail_is_named_with_its_reason() -> Result<()> {
    let pair = Pair::from_cyrus(exact(PRIMARY)).await?;
    let checked = pair.stack.command(&["server", "check", PRIMARY, "--address", "ann"]).await?.expect(0)?;
    for known in ["Cyrus IMAPD 3", "proxyservers", "EMAILID", "renaming it ends the session"] {
        assert!(checked.stdout.contains(known), "{known} is missing:\n{}", checked.stdout);
    }
    let reasons = odd_mail_is_mirrored_or_named(pair).await?;
    assert!(reasons.iter().any(|given| given.contains("CR LF")), "{reasons:#?}");
    Ok(())
}

/// Every printable character, some that control, and more.
async fn odd_names(client: &mut Client) -> Result<()> {
    let punctuation = " !\"#$%&'()*+,-.:;<=>?@[\\]^_`{|}~";
    let each = punctuation.chars().map(|c| format!("a{c}b"));
    let more = ["  two  ", "=", "1=2", "a==b", "a..", "-", "中文/é!é", "x/!/y", "R&D/\"q\"/%"].map(str::to_owned);
    let control = ["a\tb", "\u{1}x", "x\u{7f}", "a\u{85}b"].map(str::to_owned);
    for folder in each.chain(more).chain(control) {
        match client.create(&folder).await {
            Err(error) if error.is::<Refused>() => continue,
            other => other?,
        }
        client.append(&folder, &["\\Seen"], None, format!("Subject: {}\r\n\r\nx\r\n", folder.len()).as_bytes()).await?;
        client.subscribe(&folder).await?;
    }
    Ok(())
}

async fn odd_names_are_mirrored(pair: Pair) -> Result<()> {
    odd_names(&mut pair.log_in("ann").await?).await?;
    pair.protect(&["ann", "bob"]).await?;
    odd_names(&mut pair.log_in("bob").await?).await?;
    pair.settle_and_compare(&["ann", "bob"]).await?;
    assert_eq!(pair.verify("ann").await?, []);
    Ok(())
}

#[tokio::test]
async fn names_that_cyrus_forbids_are_bridged() -> Result<()> {
    odd_names_are_mirrored(Pair::from_dovecot(exact(STANDBY)).await?).await?;
    odd_names_are_mirrored(Pair::from_dovecot(exact(STANDBY).dots_below_inbox()).await?).await
}

#[tokio::test]
async fn names_that_cyrus_takes_are_mirrored_to_a_dovecot() -> Result<()> {
    odd_names_are_mirrored(Pair::from_cyrus(exact(PRIMARY)).await?).await?;
    odd_names_are_mirrored(Pair::from_cyrus(exact(PRIMARY).dots()).await?).await
}

#[tokio::test]
async fn a_folder_that_cyrus_refuses_is_named_and_stops_no_other() -> Result<()> {
    let pair = Pair::from_dovecot(exact(STANDBY)).await?;
    let mut ann = pair.log_in("ann").await?;
    // Longer than Cyrus's 490 octets.
    let long = ["x", "y", "z"].map(|c| c.repeat(200)).join("/");
    for folder in [long.as_str(), "After"] {
        ann.create(folder).await?;
        ann.append(folder, &["$Kept"], None, b"Subject: x\r\n\r\nx\r\n").await?;
    }
    pair.protect(&["ann"]).await?;
    pair.settle().await?;
    let theirs = pair.log_in_to_standby("ann").await?.snapshot().await?;
    assert_eq!(theirs.folders["After"].messages.len(), 1);
    let missing = pair.verify("ann").await?;
    let missing = missing.iter().find(|difference| difference.what == "folder_missing").context("it is not named")?;
    assert!(missing.folder == long && missing.detail.contains("rename the folder"), "{missing:?}");

    ann.rename(&long, "Short").await?;
    pair.settle().await?;
    wait::until("the folder is whole under its new name", Duration::from_secs(180), async || {
        Ok(pair.assert_same("ann").await.is_ok())
    })
    .await?;
    assert_eq!(pair.verify("ann").await?, []);
    Ok(())
}

#[tokio::test]
async fn more_keywords_than_cyrus_has_room_for_are_set_as_far_as_they_go() -> Result<()> {
    const KEYWORDS: usize = 130;
    let pair = Pair::from_dovecot(exact(STANDBY)).await?;
    let mut ann = pair.log_in("ann").await?;
    for n in 0..KEYWORDS {
        ann.append("INBOX", &["\\Seen", &format!("keyword{n}")], None, format!("Subject: {n}\r\n\r\nx\r\n").as_bytes())
            .await?;
    }
    pair.protect(&["ann"]).await?;
    pair.settle().await?;
    let theirs = pair.log_in_to_standby("ann").await?.snapshot().await?;
    let messages = &theirs.folders["INBOX"].messages;
    assert!(messages.len() == KEYWORDS && messages.iter().all(|message| message.flags.contains("\\seen")));
    let with_keyword = messages.iter().filter(|message| message.flags.len() == 2).count();
    assert!((90..KEYWORDS).contains(&with_keyword), "{with_keyword} messages have their keyword");
    let differences = pair.verify("ann").await?;
    assert_eq!(differences.len(), KEYWORDS - with_keyword, "{differences:#?}");
    assert!(differences.iter().all(|difference| difference.what == "flags"), "{differences:#?}");
    Ok(())
}
