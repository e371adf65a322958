//! Cyrus on one side, Dovecot on the other: the same exactness, but for what is listed in `docs/servers.md`.

mod kinds;
mod pair;
mod refused;
mod walk;

use anyhow::{Context as _, Result};
use understudy_imap_session::{Address, FolderName, Login, Session};
use understudy_tests::client::Client;
use understudy_tests::cyrus::{self, Cyrus};
use understudy_tests::dovecot::PASSWORD;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{PRIMARY, STANDBY};

use crate::mirroring::{do_everything, fill};
use pair::Pair;

/// Otherwise Cyrus writes X for octets above 127 in headers.
pub(crate) const KEEPS_HEADERS: &str = "munge8bit: no";

/// As [`fill`], with names that Cyrus takes.
async fn fill_cyrus(client: &mut Client, mail: &mut Mail, messages: usize) -> Result<()> {
    for folder in ["Sent", "Work", "Work/2026/März", "Entwürfe", "日本語/仕事", "R&D 'quoted' (*)", "Empty"] {
        client.create(folder).await?;
    }
    client.subscribe("Work/2026/März").await?;
    client.subscribe("INBOX").await?;
    let date = Some("17-Jul-1996 02:44:25 -0730");
    for (folder, flags) in [
        ("Sent", &["\\Seen"][..]),
        ("日本語/仕事", &["\\Flagged", "$Forwarded", "Later"]),
        ("R&D 'quoted' (*)", &["\\Draft", "\\Deleted", "\\Answered"]),
    ] {
        client.append(folder, flags, date, &mail.any()).await?;
    }
    for _ in 0..messages {
        client.append("INBOX", &[], None, &mail.any()).await?;
    }
    Ok(())
}

/// The same doings as between two Dovecots.
async fn mirrors_everything(pair: Pair) -> Result<()> {
    let mut mail = Mail::from_seed(1);
    let mut ann = pair.log_in("ann").await?;
    if pair.cyrus_is_primary {
        fill_cyrus(&mut ann, &mut mail, 30).await?;
    } else {
        fill(&mut ann, &mut mail, 30).await?;
    }
    pair.protect(&["ann", "bob"]).await?;
    pair.settle_and_compare(&["ann", "bob"]).await.context("after the first copy")?;

    do_everything(&mut ann, &mut mail).await?;
    pair.settle_and_compare(&["ann", "bob"]).await.context("after everything")?;

    // One change at a time, each awaited: no change may need another one to be noticed.
    ann.select("Work").await?;
    ann.store("1", "+FLAGS (\\Answered)").await?;
    pair.settle_and_compare(&["ann"]).await.context("after a flag")?;
    ann.move_to("1", "INBOX").await?;
    pair.settle_and_compare(&["ann"]).await.context("after a move")?;
    ann.rename("Work", "Play").await?;
    pair.settle_and_compare(&["ann"]).await.context("after a rename")?;
    ann.select("Play").await?;
    ann.expunge("1:*").await?;
    pair.settle_and_compare(&["ann"]).await.context("after an expunge")?;
    pair.log_in("bob").await?.append("INBOX", &[], None, &mail.any()).await?;
    pair.settle_and_compare(&["ann", "bob"]).await
}

pub(crate) fn exact(name: &str) -> cyrus::Options {
    cyrus::Options::new(name).extra(KEEPS_HEADERS)
}

#[tokio::test]
async fn cyrus_can_be_the_standby_of_a_dovecot() -> Result<()> {
    mirrors_everything(Pair::from_dovecot(exact(STANDBY)).await?).await
}

#[tokio::test]
async fn a_folder_that_is_made_again_at_once_can_be_deleted_again() -> Result<()> {
    let cyrus = Cyrus::start(exact(STANDBY).users(["ann"])).await?;
    let at = Address::parse(&format!("imap+insecure://{}", cyrus.imap_address()), None)?;
    let login = Login::Password { user: "ann".to_owned(), password: PASSWORD.to_owned().into() };
    let mut session = Session::open(&at, &login).await?;
    let name = FolderName::new("Again");
    // Some of these fall into one second.
    for _ in 0..4 {
        session.create(&name, &[]).await?;
        session.delete(&name).await?;
        assert!(session.status(&name).await?.is_none());
    }
    session.logout().await;
    Ok(())
}

#[tokio::test]
async fn a_special_use_that_a_folder_gets_later_comes_along() -> Result<()> {
    let mut pair = Pair::from_dovecot(exact(STANDBY)).await?;
    let mut ann = pair.log_in("ann").await?;
    ann.create("Vault").await?;
    ann.append("Vault", &[], None, &Mail::from_seed(41).plain(300)).await?;
    pair.protect(&["ann"]).await?;
    pair.settle_and_compare(&["ann"]).await?;
    ann.log_out().await;

    // On Dovecot special uses come from the configuration.
    let config = pair.dovecot.dir().join("dovecot.conf");
    let before = std::fs::read_to_string(&config)?;
    let archive = "\nnamespace inbox {\n  mailbox Vault {\n    special_use = \\Archive\n  }\n}\n";
    for (text, has) in [(format!("{before}{archive}"), true), (before, false)] {
        pair.dovecot.stop()?;
        std::fs::write(&config, text)?;
        pair.dovecot.start_again()?;
        pair.settle_and_compare(&["ann"]).await?;
        let there = pair.log_in_to_standby("ann").await?.snapshot().await?;
        let vault = there.folders.get("Vault").context("Vault is not on the standby")?;
        assert_eq!(!vault.special_uses.is_empty(), has, "{:?}", vault.special_uses);
    }
    Ok(())
}

#[tokio::test]
async fn cyrus_can_be_the_primary_of_a_dovecot() -> Result<()> {
    mirrors_everything(Pair::from_cyrus(exact(PRIMARY)).await?).await
}

#[tokio::test]
async fn cyrus_with_dots_and_a_prefix_can_be_the_standby() -> Result<()> {
    mirrors_everything(Pair::from_dovecot(exact(STANDBY).dots_below_inbox()).await?).await
}

#[tokio::test]
async fn cyrus_with_dots_and_a_prefix_can_be_the_primary() -> Result<()> {
    mirrors_everything(Pair::from_cyrus(exact(PRIMARY).dots_below_inbox()).await?).await
}
