//! Canary mailboxes: a message goes all the way at a set pace, and where it stops is said.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::failpoint::{Action, CANARY};
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);

/// `ann` is protected and a canary; a message each second.
async fn begin(scenario: &Scenario, within: &str) -> Result<()> {
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.until("ann", "is mirrored", |shown| shown["state"] == "mirroring").await?;
    let set = ["mailbox", "canary", "ann", "--every", "1s", "--within", within];
    scenario.stack.command(&set).await?.expect(0).map(drop)
}

async fn canary(scenario: &Scenario) -> Result<Value> {
    scenario.stack.json(&["mailbox", "canary", "ann"]).await
}

async fn seen(scenario: &Scenario) -> Result<u64> {
    canary(scenario).await?["seen_total"].as_u64().context("it does not say how many arrived")
}

/// Until so many more have arrived than now.
async fn until_more(scenario: &Scenario, more: u64) -> Result<()> {
    let before = seen(scenario).await?;
    let what = format!("{more} more canaries arrive");
    wait::until(&what, PATIENCE, async || Ok(seen(scenario).await? >= before + more)).await
}

/// Until the canary is late at `place`, and the mailbox is flagged so.
async fn until_late(scenario: &Scenario, place: &str) -> Result<()> {
    let mut last = Value::Null;
    let late = wait::until("the canary is late", PATIENCE, async || {
        last = canary(scenario).await?;
        Ok(last["late"]["place"] == place)
    });
    late.await.with_context(|| format!("not at {place}: {last:#}"))?;
    scenario.until("ann", "is unproven", |shown| shown["unproven"]["place"] == place).await.map(drop)
}

async fn until_proven(scenario: &Scenario) -> Result<()> {
    scenario.until("ann", "is proven", |shown| shown["unproven"].is_null()).await?;
    until_more(scenario, 2).await
}

async fn in_inbox(scenario: &Scenario) -> Result<usize> {
    Ok(scenario.log_in("ann").await?.uids("INBOX").await?.len())
}

#[tokio::test]
async fn canaries_arrive_are_counted_and_are_removed() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &Mail::from_seed(80).plain(300)).await?;
    begin(&scenario, "60s").await?;
    until_more(&scenario, 4).await?;
    let there = in_inbox(&scenario).await?;
    // Ours, the last that arrived, and the one on its way.
    ensure!((2..=3).contains(&there), "{there} messages are in INBOX");
    let status = scenario.stack.json(&["status"]).await?;
    assert_eq!((&status["canaries"]["total"], &status["canaries"]["late"]), (&1.into(), &0.into()), "{status:#}");
    ensure!(status["canaries"]["slowest_seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{status:#}");
    let shown = scenario.stack.command(&["status"]).await?.expect(0)?.stdout;
    ensure!(shown.contains("Canaries"), "{shown}");

    scenario.stack.command(&["mailbox", "canary", "ann", "--off"]).await?.expect(0)?;
    wait::until("only our own mail is left", PATIENCE, async || Ok(in_inbox(&scenario).await? == 1)).await?;
    scenario.stack.command(&["mailbox", "canary", "ann"]).await?.expect(1)?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_canary_killed_while_it_is_written_is_found_again() -> Result<()> {
    let mut scenario = Scenario::start(&["ann"]).await?;
    begin(&scenario, "60s").await?;
    until_more(&scenario, 1).await?;
    for place in CANARY {
        scenario.stack.failpoints().arm(place, 1, Action::Abort)?;
        scenario.stack.aborted().await?;
        scenario.stack.start().await?;
        until_more(&scenario, 2).await?;
        let there = in_inbox(&scenario).await?;
        ensure!(there <= 2, "{there} messages are in INBOX after {place}");
    }
    scenario.stack.command(&["mailbox", "canary", "ann", "--off"]).await?.expect(0)?;
    wait::until("nothing is left", PATIENCE, async || Ok(in_inbox(&scenario).await? == 0)).await
}

#[tokio::test]
async fn a_canary_that_is_not_captured_or_not_shipped_says_so() -> Result<()> {
    let scenario = Scenario::apart(&["ann"]).await?;
    begin(&scenario, "5s").await?;
    until_more(&scenario, 1).await?;

    // The source gateway lives and may not log in any more.
    let password = std::fs::read_to_string(scenario.primary.master_password_file())?;
    scenario.primary.set_master_password("another")?;
    scenario.primary.doveadm(&["kick", "ann"])?;
    until_late(&scenario, "capture").await?;
    let status = scenario.stack.json(&["status"]).await?;
    assert_eq!(status["canaries"]["late"], 1, "{status:#}");
    scenario.primary.set_master_password(password.trim())?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    until_proven(&scenario).await?;

    scenario.stack.link()?.set(Mode::Cut);
    until_late(&scenario, "link").await?;
    scenario.stack.link()?.set(Mode::Pass);
    until_proven(&scenario).await
}

#[tokio::test]
async fn a_canary_that_is_not_applied_or_not_written_says_so() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    begin(&scenario, "5s").await?;
    until_more(&scenario, 1).await?;

    scenario.standby.freeze();
    until_late(&scenario, "standby").await?;
    scenario.standby.resume();
    until_proven(&scenario).await?;

    scenario.primary.freeze();
    until_late(&scenario, "primary").await?;
    scenario.primary.resume();
    until_proven(&scenario).await
}

#[tokio::test]
async fn a_canary_that_is_applied_and_not_to_be_seen_says_so() -> Result<()> {
    let limit = "protocol imap {\n  mail_max_userip_connections = 1\n}";
    let standby = scenario::standby(&["ann"]).extra(limit);
    let mut scenario = Scenario::between(scenario::primary(&["ann"]), standby).await?;
    begin(&scenario, "5s").await?;
    // The session that applies is the only one let in, as long as it has work.
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(81));
    ann.create("Work").await?;
    let mut shown = Value::Null;
    let flagged = wait::until("the canary is not to be seen", PATIENCE, async || {
        ann.append("Work", &[], None, &mail.plain(100)).await?;
        shown = scenario.show("ann").await?;
        Ok(shown["unproven"]["place"] == "visible")
    });
    flagged.await.with_context(|| format!("{shown:#}"))?;

    let config = scenario.standby.dir().join("dovecot.conf");
    scenario.standby.stop()?;
    std::fs::write(&config, std::fs::read_to_string(&config)?.replace(limit, ""))?;
    scenario.standby.start_again()?;
    until_proven(&scenario).await?;
    scenario.stack.command(&["mailbox", "canary", "ann", "--off"]).await?.expect(0)?;
    wait::until("only our own mail is left", PATIENCE, async || Ok(in_inbox(&scenario).await? == 0)).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_canary_needs_a_log_in_that_may_write() -> Result<()> {
    let primary = scenario::primary(&["ann"]).without_way_home();
    let scenario = Scenario::between(primary, scenario::standby(&["ann"])).await?;
    begin(&scenario, "60s").await?;
    until_late(&scenario, "primary").await?;
    let late = canary(&scenario).await?["late"].clone();
    ensure!(late["remedy"].as_str().is_some_and(|remedy| remedy.contains("--return-user")), "{late:#}");
    // It ends all the same: nothing was written.
    scenario.stack.command(&["mailbox", "canary", "ann", "--off"]).await?.expect(0)?;
    scenario.until("ann", "is proven", |shown| shown["unproven"].is_null()).await.map(drop)
}
