//! What goes wrong is said, with reason and remedy, and stops nothing else.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{MASTER, MASTER_PASSWORD};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::wait;

use crate::mirroring::fill;

fn has_reason_and_remedy(shown: &Value) -> bool {
    ["reason", "remedy"].iter().all(|key| shown["detail"][key].as_str().is_some_and(|text| !text.is_empty()))
}

#[tokio::test]
async fn a_user_that_does_not_exist_is_faulted_and_the_others_go_on() -> Result<()> {
    let mut scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(30);
    scenario.protect(&["ann", "nobody"]).await?;
    let shown = scenario.until("nobody", "is faulted", |shown| shown["state"] == "faulted").await?;
    assert!(has_reason_and_remedy(&shown), "{shown:#}");
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 5).await?;
    scenario.stack.command(&["mailbox", "wait", "ann"]).await?.expect(0)?;
    scenario.assert_same("ann").await?;

    // Once there is such a user, it goes on by itself or as soon as somebody says so.
    for server in [&mut scenario.primary, &mut scenario.standby] {
        server.set_user("nobody", understudy_tests::dovecot::PASSWORD)?;
    }
    scenario.stack.command(&["mailbox", "resume", "nobody"]).await?.expect(0)?;
    scenario.until("nobody", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    scenario.settle_and_compare(&["ann", "nobody"]).await
}

#[tokio::test]
async fn a_wrong_master_password_is_said_and_nothing_is_lost_meanwhile() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(31);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 5).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;

    scenario.primary.set_master_password("changed meanwhile")?;
    // Dovecot looks at its file once a second at most; only then may the session be ended.
    let master = format!("ann*{MASTER}");
    wait::until("Dovecot refuses the old password", Duration::from_secs(30), async || {
        Ok(Client::log_in(scenario.primary.imap_address(), &master, MASTER_PASSWORD).await.is_err())
    })
    .await?;
    scenario.primary.doveadm(&["kick", "ann"])?;
    let shown = scenario.until("ann", "is faulted", |shown| shown["state"] == "faulted").await?;
    assert!(has_reason_and_remedy(&shown), "{shown:#}");
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.primary.set_master_password(MASTER_PASSWORD)?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn an_unreachable_server_is_said_and_it_goes_on_by_itself() -> Result<()> {
    let mut scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(32);
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;

    scenario.primary.stop()?;
    let shown = scenario.until("ann", "says what is wrong", has_reason_and_remedy).await?;
    assert_ne!(shown["state"], "faulted", "an outage passes: {shown:#}");
    scenario.primary.start_again()?;
    scenario.standby.stop()?;
    fill(&mut scenario.log_in("ann").await?, &mut mail, 10).await?;
    scenario
        .until("ann", "lags", |shown| shown["lag"]["transactions"].as_u64().is_some_and(|behind| behind > 0))
        .await?;
    scenario.standby.start_again()?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.until("ann", "has nothing to complain about", |shown| shown["detail"].is_null()).await.map(drop)
}

#[tokio::test]
async fn a_server_that_freezes_stops_only_its_own_mailboxes() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.primary.freeze();
    scenario.stack.command(&["status", "--json"]).await?.expect(0)?;
    scenario.primary.resume();
    scenario.log_in("ann").await?.append("INBOX", &[], None, &Mail::from_seed(33).any()).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_message_that_the_standby_refuses_stops_no_other_and_comes_when_there_is_room() -> Result<()> {
    let standby = scenario::standby(&["ann", "bob"]).quota("*:storage=300K");
    let scenario = Scenario::between(scenario::primary(&["ann", "bob"]), standby).await?;
    let mut mail = Mail::from_seed(34);
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &mail.plain(10_000)).await?;
    ann.append("INBOX", &[], None, &mail.plain(400_000)).await?;
    ann.append("INBOX", &[], None, &mail.plain(20_000)).await?;
    scenario.log_in("bob").await?.append("INBOX", &[], None, &mail.plain(10_000)).await?;
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle().await?;
    scenario.assert_same("bob").await?;
    let sizes = |snapshot: understudy_tests::client::Snapshot| -> Vec<usize> {
        snapshot.folders["INBOX"].messages.iter().map(|message| message.size / 1000).collect()
    };
    let mut theirs = scenario.log_in_to_standby("ann").await?;
    assert_eq!(sizes(theirs.snapshot().await?), [10, 20]);
    let verified = scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(1)?;
    assert!(verified.stdout.to_lowercase().contains("quota"), "the reason is missing:\n{}", verified.stdout);

    // The too big one goes; the mailbox is whole again.
    ann.select("INBOX").await?;
    ann.expunge("2").await?;
    ann.append("INBOX", &[], None, &mail.plain(30_000)).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

/// Dovecot then lists INBOX by name only, and no other folder: that must not look like an emptied mailbox.
#[tokio::test]
async fn a_log_in_that_lost_its_rights_empties_no_standby() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(36);
    fill(&mut scenario.log_in("ann").await?, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    let acl = scenario.primary.dir().join("acl");
    let rights = std::fs::read_to_string(&acl)?;
    let without: String =
        rights.lines().filter(|line| !line.contains("user=")).map(|line| format!("{line}\n")).collect();
    assert_ne!(rights, without);
    std::fs::write(&acl, without)?;
    // Rights are read at log-in.
    scenario.stack.command(&["mailbox", "pause", "ann"]).await?.expect(0)?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    let shown = scenario.until("ann", "is faulted", |shown| shown["state"] == "faulted").await?;
    assert!(has_reason_and_remedy(&shown), "{shown:#}");
    scenario.assert_same("ann").await?;

    std::fs::write(&acl, rights)?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    scenario.settle_and_compare(&["ann"]).await
}
