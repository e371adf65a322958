//! A primary that hangs: it is said, and keeps nobody else waiting.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, Options, PASSWORD};
use understudy_tests::mail::Mail;
use understudy_tests::proxy::{Mode, Proxy};
use understudy_tests::scenario::{self, STANDBY, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

/// Which of the primaries hangs.
const OTHER: &str = "mail-b";
/// A mailbox of which nothing is known is flagged after a minute.
const PATIENCE: Duration = Duration::from_secs(240);

/// A session waits up to two minutes for the primary's next word, and a mailbox that is to stop must not wait for that: meanwhile no
/// directives would be followed, and no heartbeat sent.
#[tokio::test]
async fn a_mailbox_on_a_primary_that_hangs_is_flagged_and_stops_at_once_when_it_is_to() -> Result<()> {
    let mut hanging = Dovecot::start(scenario::primary(&["ann"]))?;
    let wire = Proxy::to(hanging.imap_address()).await?;
    hanging.behind(wire.address());
    let well = Dovecot::start(Options::new(OTHER).users(["cleo"]).without_fsync())?;
    let standby = Dovecot::start(scenario::standby(&["ann", "cleo"]))?;
    let stack = Stack::apart_with(&[("primary", &hanging), ("primary", &well), ("standby", &standby)], "").await?;
    let scenario = Scenario { primary: hanging, standby, stack };
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let mut mail = Mail::from_seed(74);
    let mut cleo = Client::log_in(well.imap_address(), "cleo", PASSWORD).await?;
    cleo.append("INBOX", &[], None, &mail.any()).await?;

    wire.set(Mode::Hold);
    let mut shown = Value::Null;
    // Whoever is asked for a sign of life and gives none has been asked by then.
    let flagged = wait::until("ann is unproven", PATIENCE, async || {
        shown = scenario.show("ann").await?;
        Ok(shown["unproven"]["place"] == "primary")
    });
    flagged.await.with_context(|| format!("{shown:#}"))?;
    scenario.stack.command(&["mailbox", "pause", "ann"]).await?.expect(0)?;
    let protect = ["mailbox", "protect", "cleo", "--primary", OTHER, "--standby", STANDBY];
    scenario.stack.command(&protect).await?.expect(0)?;
    // Shorter than what is left of the two minutes.
    scenario.stack.command(&["mailbox", "wait", "cleo", "--timeout", "40s"]).await?.expect(0)?;
    let theirs = scenario.log_in_to_standby("cleo").await?.snapshot().await?;
    let differences = compare(&cleo.snapshot().await?, &theirs);
    anyhow::ensure!(differences.is_empty(), "{differences}");

    wire.set(Mode::Pass);
    scenario.log_in("ann").await?.append("INBOX", &[], None, &mail.any()).await?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann"]).await
}
