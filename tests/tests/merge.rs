//! Crashes while two sides are brought together: stranded mail, late mail, and a program that aborts in between.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::failpoint::{Action, MERGE};
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::Scenario;
use understudy_tests::wait;

use crate::switchover::{assert_same_but_for_order, mirrored_in, snapshot_of};

const PATIENCE: Duration = Duration::from_secs(180);

/// Starts again what aborted at a failpoint, if anything did.
async fn revive(scenario: &mut Scenario) -> Result<()> {
    let failpoints = scenario.stack.failpoints();
    if failpoints.is_reached() {
        scenario.stack.aborted().await?;
        failpoints.let_go()?;
        scenario.stack.start().await?;
    }
    Ok(())
}

/// Begins a change of side and sees it through, whatever aborts meanwhile.
async fn see_through(scenario: &mut Scenario, arguments: &[&str]) -> Result<()> {
    let run = scenario.stack.json(arguments).await?;
    let run = run["run_id"].as_str().context("a run")?.to_owned();
    let mut last = Value::Null;
    let ended = wait::until("the run ends", PATIENCE, async || {
        revive(scenario).await?;
        last = scenario.stack.json(&["run", "show", &run]).await.unwrap_or_default();
        Ok(matches!(last["state"].as_str(), Some("done" | "failed" | "cancelled")))
    });
    ended.await.with_context(|| format!("{last:#}"))?;
    ensure!(last["state"] == "done", "{arguments:?}: {last:#}");
    Ok(())
}

/// Until a message is in INBOX there, whatever aborts meanwhile.
async fn until_in_inbox(scenario: &mut Scenario, is_primary: bool, message: &[u8]) -> Result<()> {
    let digest = blake3::hash(message);
    wait::until("a message of the other side arrives", PATIENCE, async || {
        revive(scenario).await?;
        let server = if is_primary { &scenario.primary } else { &scenario.standby };
        let seen = snapshot_of(server, "ann").await?;
        Ok(seen.folders["INBOX"].messages.iter().any(|message| message.digest == digest))
    })
    .await
}

/// There and back, with mail that was stranded and mail that came late: this passes every place where two sides are brought together.
#[tokio::test]
async fn an_abort_while_two_sides_come_together_loses_and_doubles_nothing() -> Result<()> {
    let (mut scenario, mut mail) = mirrored_in(Scenario::apart(&["ann"]).await?, &["ann"], 5).await?;
    let mut wanted = Vec::new();
    for point in MERGE {
        let (stranded, away, late) = (mail.plain(500), mail.plain(600), mail.plain(700));
        scenario.stack.link()?.cut().await?;
        scenario.log_in("ann").await?.append("INBOX", &["$Stranded"], None, &stranded).await?;
        scenario.stack.failpoints().arm(point, 1, Action::Abort)?;
        see_through(&mut scenario, &["switchover", "ann", "--mode", "emergency", "--yes"]).await?;
        scenario.stack.link()?.set(Mode::Pass);
        until_in_inbox(&mut scenario, false, &stranded).await?;
        scenario.log_in_to_standby("ann").await?.append("INBOX", &["$Away"], None, &away).await?;
        see_through(&mut scenario, &["switchback", "ann"]).await?;
        scenario.log_in_to_standby("ann").await?.append("INBOX", &["$Late"], None, &late).await?;
        until_in_inbox(&mut scenario, true, &late).await?;
        // A message can be seen before the place behind it is passed; what is never passed stays armed.
        let passed =
            wait::until("the failpoint is passed", PATIENCE, async || Ok(!scenario.stack.failpoints().is_armed()));
        passed.await.context(point)?;
        revive(&mut scenario).await?;
        assert_same_but_for_order(&scenario, "ann").await.with_context(|| format!("after an abort at {point}"))?;
        wanted.extend([stranded, away, late]);
    }
    let seen = snapshot_of(&scenario.primary, "ann").await?;
    for message in wanted {
        let digest = blake3::hash(&message);
        let count = seen.folders["INBOX"].messages.iter().filter(|message| message.digest == digest).count();
        assert_eq!(count, 1, "{}", String::from_utf8_lossy(&message));
    }
    Ok(())
}
