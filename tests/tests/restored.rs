//! A mail server that comes back as it was some time ago: a backup, a snapshot, a disk that lost what came last.
//!
//! Its folders have the UIDVALIDITY they had, and give UIDs out again that were other messages' meanwhile: whoever believes UIDs
//! alone takes one message for another, and expunges the wrong one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::dovecot::{Dovecot, Format, Options};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::levels::LEVELS;
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);
const FOLDERS: [&str; 2] = ["INBOX", "Work"];

/// Ann's mail as it is now, with owners and times.
fn keep(server: &mut Dovecot) -> Result<()> {
    copy_back(server, "ann", "kept")
}

/// Ann's mail as it was kept.
fn restore(server: &mut Dovecot) -> Result<()> {
    copy_back(server, "kept", "ann")
}

fn copy_back(server: &mut Dovecot, from: &str, to: &str) -> Result<()> {
    server.kill()?;
    let home = server.dir().join("home");
    let to = home.join(to);
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    let copied = Command::new("cp").arg("-a").arg(home.join(from)).arg(to).status().context("could not run cp")?;
    ensure!(copied.success(), "cp: {copied}");
    server.start_again()
}

async fn add(client: &mut Client, mail: &mut Mail, folder: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        client.append(folder, &["$Added"], None, &mail.plain(300)).await?;
    }
    Ok(())
}

/// What is lost again when the server comes back as it was: additions, a flag, a removal.
async fn work(client: &mut Client, mail: &mut Mail) -> Result<()> {
    for folder in FOLDERS {
        add(client, mail, folder, 4).await?;
        client.select(folder).await?;
        client.store("2", "+FLAGS (\\Flagged)").await?;
        client.expunge("3").await?;
    }
    Ok(())
}

async fn mirrored(primary: Options, standby: Options, level: usize) -> Result<(Scenario, Mail)> {
    let (primary, standby) = (Dovecot::start(primary)?, Dovecot::start(standby)?);
    let stack = Stack::apart_with(&[("primary", &primary), ("standby", &standby)], &LEVELS[level].setting()).await?;
    let scenario = Scenario { primary, standby, stack };
    let mut mail = Mail::from_seed(90);
    let mut ann = scenario.log_in("ann").await?;
    ann.create("Work").await?;
    for folder in FOLDERS {
        add(&mut ann, &mut mail, folder, 6).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    Ok((scenario, mail))
}

fn digests(snapshot: &Snapshot) -> BTreeMap<&str, Vec<String>> {
    let sorted = |name: &'static str| {
        let messages = snapshot.folders.get(name).map(|folder| folder.messages.as_slice()).unwrap_or_default();
        let mut digests: Vec<String> = messages.iter().map(|message| message.digest.to_string()).collect();
        digests.sort();
        (name, digests)
    };
    FOLDERS.into_iter().map(sorted).collect()
}

async fn restored_primary(level: usize, format: Format) -> Result<()> {
    let (mut scenario, mut mail) =
        mirrored(scenario::primary(&["ann"]).format(format), scenario::standby(&["ann"]), level).await?;
    keep(&mut scenario.primary)?;
    let mut ann = scenario.log_in("ann").await?;
    work(&mut ann, &mut mail).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let before = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    scenario.stack.kill_role("source")?;
    restore(&mut scenario.primary)?;
    let mut ann = scenario.log_in("ann").await?;
    // UIDNEXT is below what it was, and the same again.
    add(&mut ann, &mut mail, "INBOX", 3).await?;
    add(&mut ann, &mut mail, "Work", 4).await?;
    scenario.stack.start().await?;

    // What the primary lost of INBOX waits for a person.
    scenario.until("ann", "is held", |shown| shown["state"] == "held").await?;
    let there = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    let (kept, there) = (digests(&before), digests(&there));
    ensure!(kept["INBOX"].iter().all(|digest| there["INBOX"].contains(digest)), "{kept:?} {there:?}");
    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    scenario.until("ann", "goes on", |shown| shown["state"] == "mirroring").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0)?;

    // And goes on as ever, with UIDs that other messages had.
    for folder in FOLDERS {
        add(&mut ann, &mut mail, folder, 3).await?;
        ann.select(folder).await?;
        ann.store("7", "+FLAGS (\\Seen)").await?;
        ann.expunge("8").await?;
    }
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_primary_restored_from_a_backup_is_mirrored_as_it_is_now() -> Result<()> {
    restored_primary(0, Format::Mdbox).await?;
    if times(2) > 1 {
        restored_primary(1, Format::Maildir).await?;
        restored_primary(2, Format::Sdbox).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_restored_primary_that_names_no_messages_is_mirrored_as_it_is_now() -> Result<()> {
    restored_primary(3, Format::Mdbox).await
}

async fn restored_standby(standby: Options) -> Result<()> {
    let is_managed = standby.managed;
    let (mut scenario, mut mail) = mirrored(scenario::primary(&["ann"]), standby, 0).await?;
    keep(&mut scenario.standby)?;
    let mut ann = scenario.log_in("ann").await?;
    work(&mut ann, &mut mail).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    restore(&mut scenario.standby)?;

    // One folder is quiet: verification finds it, and has it applied again.
    let verified = scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(1)?.stdout;
    ensure!(verified.contains("it was restored there"), "{verified}");
    // The other gets new mail under UIDs that other messages have for the mirror, and one of those goes.
    add(&mut ann, &mut mail, "Work", 3).await?;
    ann.select("Work").await?;
    ann.expunge("8").await?;
    ann.store("9", "+FLAGS (\\Answered)").await?;
    let mut there = Snapshot::default();
    let back = wait::until("everything is on the standby again", PATIENCE, async || {
        scenario.settle().await?;
        let here = scenario.snapshot("ann").await?;
        there = scenario.log_in_to_standby("ann").await?.snapshot().await?;
        let (here, there) = (digests(&here), digests(&there));
        Ok(here.iter().all(|(folder, digests)| digests.iter().all(|digest| there[folder].contains(digest))))
    });
    back.await.with_context(|| format!("{there:#?}"))?;

    // What had been removed is there again as well: nothing on a standby is removed by itself that nobody knows.
    scenario.stack.command(&["mailbox", "verify", "ann", "--repair"]).await?.expect(0)?;
    let here = scenario.snapshot("ann").await?;
    let there = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    ensure!(digests(&here) == digests(&there), "{here:#?} {there:#?}");
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0)?;
    if is_managed {
        // In the primary's order, under its UIDs.
        scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
        scenario.until("ann", "has the primary's UIDs", |shown| shown["uid_continuity"] == true).await?;
        scenario.settle_and_compare(&["ann"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_standby_restored_from_a_backup_gets_what_it_lacks() -> Result<()> {
    restored_standby(scenario::standby(&["ann"])).await
}

#[tokio::test]
async fn a_restored_standby_gets_the_primary_s_uids_again() -> Result<()> {
    restored_standby(scenario::standby(&["ann"]).managed()).await
}

/// The recovery site's database, while the source gateway goes on and nothing new happens in the mailbox.
#[tokio::test]
async fn a_recovery_site_restored_from_a_backup_hears_what_it_lacks() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(77));
    for folder in ["Work", "Old", "Gone"] {
        ann.create(folder).await?;
        add(&mut ann, &mut mail, folder, 2).await?;
    }
    work(&mut ann, &mut mail).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let site = ["recovery", "admin"];
    site.iter().try_for_each(|role| scenario.stack.kill_role(role))?;
    scenario.stack.copy_recovery_database("understudy", "kept").await?;
    scenario.stack.start().await?;

    work(&mut ann, &mut mail).await?;
    ann.create("Later").await?;
    add(&mut ann, &mut mail, "Later", 3).await?;
    ann.rename("Old", "Older").await?;
    ann.delete("Gone").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let before = scenario.show("ann").await?["journal"]["captured"].clone();
    site.iter().try_for_each(|role| scenario.stack.kill_role(role))?;
    scenario.stack.copy_recovery_database("kept", "understudy").await?;
    scenario.stack.start().await?;
    let known = scenario.show("ann").await?["journal"]["received"].clone();
    ensure!(known.as_i64() < before.as_i64(), "the copy is not older: {known}, {before}");

    scenario.settle_and_compare(&["ann"]).await?;
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0)?;
    // And on from there.
    work(&mut ann, &mut mail).await?;
    scenario.settle_and_compare(&["ann"]).await
}
