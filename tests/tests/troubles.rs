//! What goes wrong is said, with reason and remedy, and stops nothing else.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, MASTER, MASTER_PASSWORD, Options, PASSWORD};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::mirroring::fill;
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);
/// Messages that were refused are tried again every ten minutes.
const RETRY_PATIENCE: Duration = Duration::from_secs(900);

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
    scenario.stack.command(&["mailbox", "wait", "ann", "--timeout", "240s"]).await?.expect(0)?;
    scenario.assert_same("ann").await?;

    // Once there is such a user, it goes on by itself or as soon as somebody says so.
    for server in [&mut scenario.primary, &mut scenario.standby] {
        server.set_user("nobody", PASSWORD)?;
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
    wait::until("Dovecot refuses the old password", PATIENCE, async || {
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
    let standby = scenario::standby(&["ann", "bob"]).managed().quota("*:storage=300K");
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
    let sizes = |snapshot: Snapshot| -> Vec<usize> {
        snapshot.folders["INBOX"].messages.iter().map(|message| message.size / 1000).collect()
    };
    let mut theirs = scenario.log_in_to_standby("ann").await?;
    assert_eq!(sizes(theirs.snapshot().await?), [10, 20]);
    let verified = scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(1)?;
    assert!(verified.stdout.to_lowercase().contains("quota"), "the reason is missing:\n{}", verified.stdout);
    wait::until("what was refused is counted", PATIENCE, async || {
        let metrics = scenario.stack.metrics().await?;
        Ok(metric(&metrics, "understudy_apply_errors_total{reason=\"refused\"}")? >= 1.0
            && metric(&metrics, "understudy_set_aside_messages")? == 1.0)
    })
    .await?;

    // Another one, which goes before there is room.
    let gone = ann.append("INBOX", &[], None, &mail.plain(350_000)).await?.context("no APPENDUID")?;
    scenario.until("ann", "lacks two messages", |shown| shown["set_aside"] == 2).await?;
    ann.select("INBOX").await?;
    ann.expunge(&gone.to_string()).await?;
    ann.append("INBOX", &[], None, &mail.plain(30_000)).await?;
    scenario.settle().await?;
    assert_eq!(sizes(theirs.snapshot().await?), [10, 20, 30]);
    scenario.until("ann", "lacks one message", |shown| shown["set_aside"] == 1).await?;

    // The first is still there, and comes: as soon as somebody says so, or, in a long run, by itself.
    scenario.standby.set_quota("ann", "*:storage=10M")?;
    let mut patience = RETRY_PATIENCE;
    if times(2) == 1 {
        scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
        patience = PATIENCE;
    }
    wait::until("the message that was refused is on the standby", patience, async || {
        let shown = scenario.show("ann").await?;
        Ok(shown["set_aside"] == 0 && shown["uid_continuity"] == true)
    })
    .await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    assert_eq!(sizes(theirs.snapshot().await?), [10, 400, 20, 30]);
    wait::until("nothing is counted as set aside", PATIENCE, async || {
        Ok(metric(&scenario.stack.metrics().await?, "understudy_set_aside_messages")? == 0.0)
    })
    .await
}

/// A value that `/metrics` serves, by name and labels.
fn metric(served: &str, name: &str) -> Result<f64> {
    let value = served.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{name} is not among the metrics:\n{served}"))?.parse()?)
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_said_and_the_others_go_on() -> Result<()> {
    const OTHER: &str = "mail-b";
    let primary = Dovecot::start(scenario::primary(&["ann"]).tls())?;
    let other = Dovecot::start(Options::new(OTHER).users(["bob"]).without_fsync().read_only_master())?;
    let standby = Dovecot::start(scenario::standby(&["ann", "bob"]).tls())?;
    // Its `ca_file` names the authority of another server, with the same name and another key.
    let ca_file = primary.ca_file().context("it has no certificate")?;
    let right = fs::read(&ca_file)?;
    fs::copy(standby.ca_file().context("it has no certificate")?, &ca_file)?;
    let servers = [("primary", &primary), ("primary", &other), ("standby", &standby)];
    let stack = Stack::up(&servers).await?;
    let scenario = Scenario { primary, standby, stack };
    let mut mail = Mail::from_seed(37);
    let mut ann = scenario.log_in("ann").await?;
    let mut bob = Client::log_in(other.imap_address(), "bob", PASSWORD).await?;
    fill(&mut ann, &mut mail, 5).await?;
    fill(&mut bob, &mut mail, 5).await?;
    scenario.protect(&["ann"]).await?;
    let protect = ["mailbox", "protect", "bob", "--primary", OTHER, "--standby", scenario::STANDBY];
    scenario.stack.command(&protect).await?.expect(0)?;

    let shown = scenario.until("ann", "is faulted", |shown| shown["state"] == "faulted").await?;
    assert!(has_reason_and_remedy(&shown) && shown["detail"]["kind"] == "certificate", "{shown:#}");
    assert!(shown["detail"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("ca_file")), "{shown:#}");
    let trouble = async |name: &str| -> Result<Value> {
        let listed = scenario.stack.json(&["server", "list"]).await?;
        let server = listed.as_array().into_iter().flatten().find(|server| server["name"] == name);
        Ok(server.with_context(|| format!("{name} is not listed: {listed:#}"))?["trouble"].clone())
    };
    let said = trouble(scenario::PRIMARY).await?;
    assert_eq!((&said["kind"], &said["mailboxes"]), (&"certificate".into(), &1.into()), "{said:#}");
    assert_eq!((&said["reason"], &said["remedy"]), (&shown["detail"]["reason"], &shown["detail"]["remedy"]));
    let listed = scenario.stack.command(&["server", "list"]).await?.expect(0)?.stdout;
    assert!(listed.contains("was not accepted"), "{listed}");

    bob.append("INBOX", &[], None, &mail.any()).await?;
    scenario.stack.command(&["mailbox", "wait", "bob", "--timeout", "240s"]).await?.expect(0)?;
    let differences = compare(&bob.snapshot().await?, &scenario.log_in_to_standby("bob").await?.snapshot().await?);
    assert!(differences.is_empty(), "{differences}");
    assert_eq!((trouble(OTHER).await?, trouble(scenario::STANDBY).await?), (Value::Null, Value::Null));

    fs::write(&ca_file, right)?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    let whole = |shown: &Value| shown["state"] == "mirroring" && shown["detail"].is_null();
    scenario.until("ann", "is mirroring", whole).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    wait::until("nothing is said of the primary", PATIENCE, async || Ok(trouble(scenario::PRIMARY).await?.is_null()))
        .await
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
    let rights = fs::read_to_string(&acl)?;
    let without: String =
        rights.lines().filter(|line| !line.contains("user=")).map(|line| format!("{line}\n")).collect();
    assert_ne!(rights, without);
    fs::write(&acl, without)?;
    // Rights are read at log-in.
    scenario.primary.doveadm(&["kick", "ann"])?;
    let shown = scenario.until("ann", "is faulted", |shown| shown["state"] == "faulted").await?;
    assert!(has_reason_and_remedy(&shown), "{shown:#}");
    scenario.assert_same("ann").await?;

    fs::write(&acl, rights)?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    scenario.settle_and_compare(&["ann"]).await
}
