//! Verification names what differs, and repair makes the sides equal; a pipeline that stands still is flagged.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::wait;

use crate::mirroring::fill;

/// A gateway that is silent is noticed within a minute and a half.
const PATIENCE: Duration = Duration::from_secs(240);

fn found(verified: &Value, key: &str) -> Vec<String> {
    let list = verified["mailboxes"][0][key].as_array().cloned().unwrap_or_default();
    let mut whats: Vec<String> =
        list.iter().filter_map(|difference| difference["what"].as_str().map(str::to_owned)).collect();
    whats.sort();
    whats
}

/// Each difference that was found, and whether a transaction was named for it.
fn traced(verified: &Value) -> Vec<(String, bool)> {
    let list = verified["mailboxes"][0]["differences"].as_array().cloned().unwrap_or_default();
    let one = |difference: &Value| {
        let what = difference["what"].as_str()?.to_owned();
        let seq = difference["seq"].as_u64();
        let untold = difference["detail"].as_str().is_some_and(|detail| detail.contains("no transaction tells of it"));
        assert_eq!(seq.is_none(), untold, "it says which, or that there is none: {difference:#}");
        Some((what, seq > Some(0)))
    };
    let mut all: Vec<(String, bool)> = list.iter().filter_map(one).collect();
    all.sort();
    all
}

#[tokio::test]
async fn repair_makes_the_sides_equal_and_says_what_it_did() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(70);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 40).await?;
    let (removed, date) = (mail.plain(400), Some("17-Jul-1996 02:44:25 -0730"));
    let uid = ann.append("INBOX", &[], date, &removed).await?.unwrap_or_default();
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    ann.select("INBOX").await?;
    ann.expunge(&uid.to_string()).await?;
    ann.delete("Empty").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(0)?;

    // Somebody works on the standby.
    let mut there = scenario.log_in_to_standby("ann").await?;
    let uids = there.uids("INBOX").await?;
    there.select("INBOX").await?;
    // The last one: what is appended again comes last.
    there.expunge(&uids[uids.len() - 1].to_string()).await?;
    there.store(&uids[5].to_string(), "+FLAGS (\\Flagged Odd)").await?;
    there.append("INBOX", &[], None, &mail.plain(300)).await?;
    there.delete("Sent").await?;
    there.create("Nobody's").await?;
    there.append("Nobody's", &[], None, &mail.plain(300)).await?;
    there.unsubscribe("INBOX").await?;
    there.subscribe("Nobody's").await?;
    // What the primary removed is there again.
    there.append("INBOX", &[], date, &removed).await?;
    there.create("Empty").await?;
    there.log_out().await;

    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--json"]).await?.expect(1)?;
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    // Every one that a transaction should have made equal names it; what somebody else put there has none.
    let expected = [
        ("extra_on_standby", false),
        ("extra_on_standby", true),
        ("flags", true),
        ("folder_extra", false),
        ("folder_extra", true),
        ("folder_missing", true),
        ("missing_on_standby", true),
        ("subscription", false),
        ("subscription", true),
    ];
    assert_eq!(traced(&verified), expected.map(|(what, named)| (what.to_owned(), named)), "{verified:#}");
    assert_eq!(scenario.show("ann").await?["differences"], 9);

    let repaired = scenario.stack.json(&["mailbox", "verify", "ann", "--repair"]).await?;
    ensure!(repaired["mailboxes"][0]["equal"] == true, "{repaired:#}");
    // All but the folder, perhaps: that has been applied again since by itself.
    ensure!(found(&repaired, "repaired").len() >= 8, "{repaired:#}");
    let again = scenario.stack.json(&["mailbox", "verify", "ann", "--deep"]).await?;
    assert_eq!((found(&again, "differences").len(), found(&again, "repaired").len()), (0, 0), "{again:#}");
    scenario.assert_same("ann").await?;
    let shown = scenario.show("ann").await?;
    assert_eq!(shown["differences"], 0);
    assert!(shown["last_verified_at"].is_string());

    // And mirroring goes on as if nothing had been.
    ann.append("Sent", &["\\Seen"], None, &mail.any()).await?;
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_cancelled_verification_is_not_called_done() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(71);
    for _ in 0..20 {
        scenario.log_in("ann").await?.append("INBOX", &[], None, &mail.plain(200)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    // It cannot end before somebody cancels it.
    scenario.primary.freeze();
    let asked = scenario.stack.command(&["mailbox", "verify", "ann", "--timeout", "1s"]).await;
    drop(asked);
    let runs = scenario.stack.json(&["run", "list"]).await?;
    let run = runs.as_array().and_then(|runs| runs.iter().find(|run| run["kind"] == "verify")).cloned();
    let id = run.as_ref().and_then(|run| run["run_id"].as_str()).unwrap_or_default().to_owned();
    scenario.stack.command(&["run", "cancel", &id]).await?;
    scenario.primary.resume();
    wait::until("the run ends", PATIENCE, async || {
        let run = scenario.stack.json(&["run", "show", &id]).await?;
        Ok(!run["ended_at"].is_null())
    })
    .await?;
    let run = scenario.stack.json(&["run", "show", &id]).await?;
    assert_eq!(run["state"], "cancelled", "{run:#}");
    Ok(())
}

#[tokio::test]
async fn every_mailbox_is_verified_by_itself() -> Result<()> {
    let servers = [
        understudy_tests::dovecot::Dovecot::start(scenario::primary(&["ann", "bob"]))?,
        understudy_tests::dovecot::Dovecot::start(scenario::standby(&["ann", "bob"]))?,
    ];
    let [primary, standby] = servers;
    let stack = understudy_tests::stack::Stack::up_with(
        &[("primary", &primary), ("standby", &standby)],
        "[verify]\nevery = \"2s\"\n",
    )
    .await?;
    let scenario = Scenario { primary, standby, stack };
    let (mut bob, mut mail) = (scenario.log_in("bob").await?, Mail::from_seed(74));
    bob.create("Quiet").await?;
    for _ in 0..3 {
        bob.append("Quiet", &["\\Flagged"], None, &mail.any()).await?;
    }
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    for user in ["ann", "bob"] {
        scenario.until(user, "has been verified", |shown| shown["last_verified_at"].is_string()).await?;
    }

    // A folder that somebody deletes on the standby, where nothing changes on the primary, is found and made again.
    let mut there = scenario.log_in_to_standby("bob").await?;
    there.delete("Quiet").await?;
    there.log_out().await;
    let back = wait::until("the folder is on the standby again", PATIENCE, async || {
        // While it is being made, it may be listed and not there.
        let Ok(there) = scenario.log_in_to_standby("bob").await?.snapshot().await else { return Ok(false) };
        Ok(there.folders.get("Quiet").is_some_and(|folder| folder.messages.len() == 3))
    });
    back.await?;
    scenario.settle_and_compare(&["bob"]).await
}

#[tokio::test]
async fn a_pipeline_that_stands_still_is_flagged_with_the_place_and_clears_by_itself() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    assert!(scenario.show("ann").await?["unproven"].is_null());
    scenario.primary.freeze();
    wait::until(
        "ann is unproven",
        PATIENCE,
        async || Ok(scenario.show("ann").await?["unproven"]["place"] == "primary"),
    )
    .await?;
    let status = scenario.stack.json(&["status"]).await?;
    assert_eq!(status["unproven"]["primary"], 1, "{status:#}");
    scenario.primary.resume();
    wait::until("ann is proven again", PATIENCE, async || Ok(scenario.show("ann").await?["unproven"].is_null()))
        .await?;
    if crate::times(2) == 1 {
        return Ok(());
    }
    // The other end: what was received is not applied.
    scenario.standby.freeze();
    scenario.log_in("ann").await?.append("INBOX", &[], None, &Mail::from_seed(72).any()).await?;
    wait::until(
        "ann is unproven",
        PATIENCE,
        async || Ok(scenario.show("ann").await?["unproven"]["place"] == "standby"),
    )
    .await?;
    scenario.standby.resume();
    scenario.settle_and_compare(&["ann"]).await?;
    wait::until("ann is proven again", PATIENCE, async || Ok(scenario.show("ann").await?["unproven"].is_null())).await
}

#[tokio::test]
async fn a_silent_source_gateway_is_noticed() -> Result<()> {
    // Both take their minute.
    let (killed, shut_out) = tokio::join!(a_killed_source_gateway(), a_source_gateway_without_a_database());
    killed.context("killed")?;
    shut_out.context("shut out")
}

async fn a_source_gateway_without_a_database() -> Result<()> {
    let scenario = Scenario::apart(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.stack.shut_source_database(true).await?;
    scenario.log_in("ann").await?.append("INBOX", &[], None, &Mail::from_seed(73).any()).await?;
    let mut shown = Value::Null;
    let flagged = wait::until("ann is unproven", PATIENCE, async || {
        shown = scenario.show("ann").await?;
        Ok(shown["unproven"]["place"] == "source_gateway")
    });
    flagged.await.with_context(|| format!("{shown:#}"))?;
    scenario.stack.shut_source_database(false).await?;
    wait::until("ann is proven again", PATIENCE, async || Ok(scenario.show("ann").await?["unproven"].is_null()))
        .await?;
    scenario.settle_and_compare(&["ann"]).await
}

async fn a_killed_source_gateway() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.stack.kill_role("source")?;
    wait::until("ann is unproven", PATIENCE, async || Ok(scenario.show("ann").await?["unproven"]["place"] == "link"))
        .await?;
    let shown = scenario.show("ann").await?;
    assert_eq!(shown["detail"]["kind"], "unproven", "{shown:#}");
    scenario.stack.start().await?;
    wait::until("ann is proven again", PATIENCE, async || Ok(scenario.show("ann").await?["unproven"].is_null())).await
}
