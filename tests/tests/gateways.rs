//! Source gateways apart from the rest: what one tells of itself, and two for one recovery site.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use understudy_tests::dovecot::{Dovecot, free_port};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::mirroring::fill;

const PATIENCE: Duration = Duration::from_secs(180);

/// What the gateway that shows its metrics at this port says; nobody is asked for a token there.
async fn metrics(port: u16) -> Result<String> {
    // Asked for by reqwest even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?.error_for_status()?.text().await?)
}

/// The sum of a metric over its labels.
fn value(text: &str, name: &str) -> Result<f64> {
    let of = |line: &str| line.split([' ', '{']).next() == Some(name);
    let values = text.lines().filter(|line| of(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let values: Vec<f64> = values.collect();
    anyhow::ensure!(!values.is_empty(), "{name} is not among the metrics:\n{text}");
    Ok(values.iter().sum())
}

#[tokio::test]
async fn a_source_gateway_alone_serves_metrics_that_name_nobody() -> Result<()> {
    let (primary, standby) =
        (Dovecot::start(scenario::primary(&["ann"]))?, Dovecot::start(scenario::standby(&["ann"]))?);
    let port = free_port(Ipv4Addr::LOCALHOST)?;
    let listen = format!("metrics_listen = \"127.0.0.1:{port}\"");
    let stack = Stack::apart_with(&[("primary", &primary), ("standby", &standby)], &listen).await?;
    let scenario = Scenario { primary, standby, stack };
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(71));
    fill(&mut ann, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    let read = async || metrics(port).await;
    let mut before = String::new();
    let told = wait::until("its mailbox and connection are told", PATIENCE, async || {
        before = read().await?;
        let connections = value(&before, "understudy_imap_connections").unwrap_or_default();
        Ok(value(&before, "understudy_source_mailboxes")? == 1.0 && connections >= 1.0)
    });
    told.await.with_context(|| before.clone())?;
    wait::until("the bytes on the link are told", PATIENCE, async || {
        Ok(value(&read().await?, "understudy_link_bytes_total").is_ok_and(|bytes| bytes > 0.0))
    })
    .await?;
    let captured = value(&before, "understudy_transactions_captured_total")?;

    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    // What was shipped is counted once the recovery site's answer is here: the standby may have it before.
    let mut after = String::new();
    let counted = wait::until("all that was captured is counted as shipped", PATIENCE, async || {
        after = read().await?;
        let now = value(&after, "understudy_transactions_captured_total")?;
        Ok(now > captured && value(&after, "understudy_transactions_shipped_total")? >= now)
    });
    counted.await.with_context(|| after.clone())?;
    assert!(!after.contains("ann"), "{after}");
    Ok(())
}

/// As with two sites: nobody else serves what the recovery gateway counts.
#[tokio::test]
async fn a_recovery_gateway_alone_serves_metrics_that_name_nobody() -> Result<()> {
    let (primary, standby) =
        (Dovecot::start(scenario::primary(&["ann"]))?, Dovecot::start(scenario::standby(&["ann"]))?);
    let port = free_port(Ipv4Addr::LOCALHOST)?;
    // Still within [recovery].
    let listen = format!("metrics_listen = \"127.0.0.1:{port}\"");
    let mut stack = Stack::paired(&[("primary", &primary), ("standby", &standby)], 1, &listen).await?;
    let token = stack.invite(&[]).await?.stdout;
    stack.source_command(&["link", "join", &token]).await?.expect(0)?;
    stack.start_paired_source()?;
    let scenario = Scenario { primary, standby, stack };
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(72));
    fill(&mut ann, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    let mut seeded = 0.0;
    wait::until("what was seeded is counted", PATIENCE, async || {
        seeded = value(&metrics(port).await?, "understudy_transactions_applied_total").unwrap_or_default();
        Ok(seeded >= 1.0)
    })
    .await?;

    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    wait::until("what was applied live is counted", PATIENCE, async || {
        let now = metrics(port).await?;
        Ok(value(&now, "understudy_lag_seconds_count").is_ok_and(|applied| applied >= 1.0)
            && value(&now, "understudy_transactions_applied_total")? > seeded)
    })
    .await?;
    scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(0)?;
    // What the alert rules ask for and no other process has.
    let mut now = String::new();
    let counted = wait::until("a verification is counted", PATIENCE, async || {
        now = metrics(port).await?;
        Ok(value(&now, "understudy_verifications_total").is_ok_and(|verified| verified >= 1.0))
    });
    counted.await.with_context(|| now.clone())?;
    assert!(now.contains("understudy_transactions_applied_total{kind=\"live\"}"), "{now}");
    assert!(now.contains("understudy_lag_seconds_bucket{le="), "{now}");
    assert!(now.contains("understudy_verifications_total{equal=\"no\"}"), "{now}");
    wait::until("the database's state is told", PATIENCE, async || {
        Ok(value(&metrics(port).await?, "understudy_recovery_database_up").is_ok_and(|up| up == 1.0))
    })
    .await?;
    assert!(!now.contains("ann"), "{now}");
    Ok(())
}

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
