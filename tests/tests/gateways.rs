//! Two source gateways for one recovery site: only one is listened to.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;
use understudy_tests::wait;

use crate::mirroring::fill;

const PATIENCE: Duration = Duration::from_secs(60);

/// The recovery site listens to another one 30 seconds after the first fell silent.
#[tokio::test]
async fn a_second_source_gateway_is_turned_away_until_the_first_is_silent() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(70));
    fill(&mut ann, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    scenario.stack.start_second_source().await?;
    wait::until("the second gateway says that it is turned away", PATIENCE, async || {
        Ok(scenario.stack.second_source_log().contains("another source gateway works for this recovery site"))
    })
    .await?;
    let status = scenario.stack.json(&["status"]).await?;
    assert!(status["link"]["second_gateway_at"].is_string(), "{status:#}");
    ann.append("INBOX", &[], None, &mail.any()).await?;
    ann.select("INBOX").await?;
    ann.move_to("1:3", "Work").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let said = fs::read_to_string(scenario.stack.dir().join("recovery.log"))?;
    assert_eq!(said.matches("Turned a second source gateway away").count(), 1, "{said}");

    // A restart of the first one is no chance for the second.
    scenario.stack.kill_role("source")?;
    scenario.stack.start().await?;
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    assert!(!scenario.stack.second_source_log().contains("The link is up"), "{}", scenario.stack.second_source_log());

    scenario.stack.kill_role("source")?;
    ann.append("INBOX", &[], None, &mail.any()).await?;
    wait::until("the second gateway takes over", PATIENCE, async || {
        Ok(scenario.stack.second_source_log().contains("The link is up"))
    })
    .await?;
    scenario.settle_and_compare(&["ann"]).await
}
