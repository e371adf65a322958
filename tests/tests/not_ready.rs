//! A standby that is full or does not answer, a source gateway that is away: a planned change of side is refused with the reason and what
//! to do, before anybody is cut.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, STANDBY, Scenario};
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);
/// After this somebody would press the button again.
const ONCE: Duration = Duration::from_secs(20);

/// What a refused switchover says of its first mailbox.
async fn refused(scenario: &Scenario) -> Result<Value> {
    let answer = scenario.stack.command(&["switchover", "ann", "--wait", "--json"]).await?.expect(1)?;
    let said: Value = serde_json::from_str(&answer.stdout)?;
    let run = said["run_id"].as_str().context("no run")?;
    let run = scenario.stack.json(&["run", "show", run]).await?;
    let steps = run["steps"].as_array().context("no steps")?.iter().filter_map(|step| step["name"].as_str());
    let steps: Vec<&str> = steps.collect();
    ensure!(steps.contains(&"check"), "it was not looked at first: {steps:?}");
    ensure!(steps.iter().all(|step| !["hold", "cut", "drain", "flip"].contains(step)), "it went further: {steps:?}");
    Ok(said["result"]["mailboxes"][0].clone())
}

#[tokio::test]
async fn a_standby_that_is_full_or_does_not_answer_is_refused_before_anybody_is_cut() -> Result<()> {
    let standby = scenario::standby(&["ann"]).managed().quota("*:storage=300K");
    let scenario = Scenario::between(scenario::primary(&["ann"]), standby).await?;
    let mut mail = Mail::from_seed(62);
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &mail.plain(10_000)).await?;
    ann.append("INBOX", &[], None, &mail.plain(400_000)).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.until("ann", "lacks one message", |shown| shown["set_aside"] == 1).await?;

    let full = refused(&scenario).await?;
    let says = |said: &Value, field: &str, what: &str| said[field].as_str().is_some_and(|text| text.contains(what));
    let is_told = says(&full, "kind", "standby_full") && says(&full, "reason", "no room for 1 message");
    ensure!(is_told && says(&full, "remedy", "more room"), "the reason or what to do is missing: {full:#}");
    ann.run("NOOP").await.context("a run that was refused cut a session")?;
    let shown = scenario.show("ann").await?;
    ensure!(shown["state"] == "mirroring" && shown["active_side"] == "primary" && shown["epoch"] == 1, "{shown:#}");

    // There is room: it comes over, and so does she.
    scenario.standby.set_quota("ann", "*:storage=10M")?;
    wait::until("ann has everything", PATIENCE, async || {
        scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
        let comes = async || {
            let shown = scenario.show("ann").await?;
            Ok(shown["set_aside"] == 0 && shown["uid_continuity"] == true)
        };
        Ok(wait::until("it comes over", ONCE, comes).await.is_ok())
    })
    .await?;

    scenario.standby.freeze();
    let frozen = refused(&scenario).await;
    scenario.standby.resume();
    let frozen = frozen?;
    ensure!(says(&frozen, "reason", STANDBY) && says(&frozen, "remedy", " "), "the reason is missing: {frozen:#}");
    ann.run("NOOP").await.context("a run that was refused cut a session")?;

    scenario.stack.command_within(Duration::from_secs(240), &["switchover", "ann", "--wait"]).await?.expect(0)?;
    let theirs = scenario.log_in_to_standby("ann").await?.uids("INBOX").await?;
    ensure!(theirs.len() == 2, "ann has {theirs:?} on the standby");
    Ok(())
}

#[tokio::test]
async fn a_planned_switchover_is_refused_while_nobody_can_say_what_the_primary_holds() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    let mut mail = Mail::from_seed(63);
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &mail.plain(1000)).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    scenario.stack.kill_role("source")?;
    let last = mail.plain(1000);
    ann.append("INBOX", &[], None, &last).await?;
    let recovery = scenario.stack.database("understudy").await?;
    sqlx::query("update link set heard_at = now() - interval '1 minute'").execute(&recovery).await?;
    let said = refused(&scenario).await?;
    let says = |field: &str, what: &str| said[field].as_str().is_some_and(|text| text.contains(what));
    let is_told =
        says("kind", "source_gateway_silent") && says("reason", "source gateway") && says("remedy", "emergency");
    ensure!(is_told, "the reason or what to do is missing: {said:#}");
    ann.run("NOOP").await.context("a run that was refused cut a session")?;

    // It is back: what came meanwhile moves with her.
    scenario.stack.start().await?;
    scenario.stack.command_within(Duration::from_secs(240), &["switchover", "ann", "--wait"]).await?.expect(0)?;
    let theirs = scenario.log_in_to_standby("ann").await?.uids("INBOX").await?;
    ensure!(theirs.len() == 2, "ann has {theirs:?} on the standby");
    Ok(())
}
