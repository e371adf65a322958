//! What waits, and in which order, when one side is slow or away.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);
/// What the journal may hold, in bytes; one transaction comes on top.
const LIMIT: u64 = 400_000;
/// Messages of each folder of a first copy.
const EACH: usize = 20;

async fn apart(users: &[&str], source: &str) -> Result<Scenario> {
    let primary = Dovecot::start(scenario::primary(users))?;
    let standby = Dovecot::start(scenario::standby(users))?;
    let stack = Stack::apart_with(&[("primary", &primary), ("standby", &standby)], source).await?;
    Ok(Scenario { primary, standby, stack })
}

#[tokio::test]
async fn a_recovery_site_that_is_away_fills_the_journal_to_its_limit_and_no_further() -> Result<()> {
    let mut scenario = apart(&["ann"], &format!("journal_limit = \"{LIMIT} B\"")).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(95));
    ann.append("INBOX", &[], None, &mail.plain(2_000)).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    scenario.stack.kill_role("recovery")?;
    let said = |scenario: &Scenario| fs::read_to_string(scenario.stack.dir().join("source.log")).unwrap_or_default();
    let before = scenario.stack.link()?.bytes_to_server();
    let mut changes: u64 = 0;
    let is_full = |scenario: &Scenario| said(scenario).contains("The journal is full");
    while !is_full(&scenario) && changes < 5_000 {
        ann.append("INBOX", &[], None, &mail.plain(2_000)).await?;
        changes += 1;
    }
    wait::until("capturing waits", PATIENCE, async || Ok(is_full(&scenario))).await?;
    let full = scenario.stack.source_journal_bytes().await?;
    ensure!(full >= LIMIT, "{full} bytes are held: it waited too early");
    for _ in 0..200 * times(10) {
        ann.append("INBOX", &[], None, &mail.plain(2_000)).await?;
        changes += 1;
    }
    let held = scenario.stack.source_journal_bytes().await?;
    ensure!(held == full, "{held} bytes are held, and {full} were when it was full");

    scenario.stack.start().await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.until("ann", "has nothing to complain about", |shown| shown["detail"].is_null()).await?;
    // No message went twice.
    let sent = scenario.stack.link()?.bytes_to_server() - before;
    ensure!(sent < changes * 2_000 * 2, "{sent} bytes crossed the link for {changes} changes");
    ensure!(!said(&scenario).contains("Rebuilding this mailbox's journal"), "nothing was seeded again");
    Ok(())
}

#[tokio::test]
async fn live_changes_overtake_a_first_copy_on_a_thin_link() -> Result<()> {
    let scenario = apart(&["ann", "bob"], "").await?;
    let mut mail = Mail::from_seed(96);
    let (mut ann, mut bob) = (scenario.log_in("ann").await?, scenario.log_in("bob").await?);
    bob.append("INBOX", &[], None, &mail.plain(2_000)).await?;
    scenario.protect(&["bob"]).await?;
    scenario.settle_and_compare(&["bob"]).await?;
    // By its name it would come first.
    ann.create("Archive").await?;
    for folder in ["INBOX", "Archive"] {
        for _ in 0..EACH {
            ann.append(folder, &[], None, &mail.with_attachment(500_000)).await?;
        }
    }
    scenario.stack.link()?.set(Mode::Delay(Duration::from_millis(400)));
    let before = scenario.stack.link()?.bytes_to_server();
    scenario.protect(&["ann"]).await?;
    wait::until("the first copy is on the link", PATIENCE, async || {
        Ok(scenario.stack.link()?.bytes_to_server() > before + 500_000)
    })
    .await?;
    for _ in 0..3 {
        bob.append("INBOX", &[], None, &mail.plain(2_000)).await?;
        scenario.stack.command(&["mailbox", "wait", "bob", "--timeout", "240s"]).await?.expect(0)?;
        scenario.assert_same("bob").await?;
    }
    let shown = scenario.show("ann").await?;
    ensure!(shown["state"] == "seeding", "the first copy came first: {shown:#}");
    scenario.stack.link()?.set(Mode::Pass);
    // INBOX came before the rest.
    let mut theirs = scenario.log_in_to_standby("ann").await?;
    wait::until("another folder begins to fill", PATIENCE, async || {
        Ok(theirs.uids("Archive").await.is_ok_and(|uids| !uids.is_empty()))
    })
    .await?;
    let first = theirs.uids("INBOX").await?.len();
    ensure!(first == EACH, "another folder had messages when INBOX had {first} of {EACH}");
    scenario.settle_and_compare(&["ann", "bob"]).await
}

/// Of first copies that wait for the link, the one whose policy ranks it first goes first, though it came last.
#[tokio::test]
async fn first_copies_go_by_the_rank_of_their_policy() -> Result<()> {
    const OTHERS: [&str; 5] = ["ann", "bob", "cem", "dan", "eve"];
    let scenario = apart(&["ann", "bob", "cem", "dan", "eve", "zoe"], "").await?;
    let mut mail = Mail::from_seed(97);
    for user in OTHERS {
        let mut client = scenario.log_in(user).await?;
        for _ in 0..4 {
            client.append("INBOX", &[], None, &mail.with_attachment(1_000_000)).await?;
        }
    }
    scenario.log_in("zoe").await?.append("INBOX", &[], None, &mail.with_attachment(500_000)).await?;
    scenario.stack.command(&["policy", "set", "gold", "priority=1"]).await?.expect(0)?;
    scenario.stack.command(&["link", "limit", "--seeding", "off"]).await?.expect(0)?;
    wait::until("the source gateway knows its limits", PATIENCE, async || {
        Ok(fs::read_to_string(scenario.stack.dir().join("source.log"))?.contains("The link has new limits"))
    })
    .await?;
    scenario.protect(&OTHERS).await?;
    let source = scenario.stack.database("source").await?;
    let captured = async |mailboxes: i64| {
        wait::until("all are captured", PATIENCE, async || {
            let seeded = "select count(*) from source_mailbox where seeded";
            Ok(sqlx::query_scalar::<_, i64>(seeded).fetch_one(&source).await? == mailboxes)
        })
        .await
    };
    captured(5).await?;
    let arguments = ["mailbox", "protect", "zoe", "--primary", "mail-a", "--standby", "dr-1", "--policy", "gold"];
    scenario.stack.command(&arguments).await?.expect(0)?;
    captured(6).await?;

    // Three at once: whoever is not among them has sent nothing when the first is through.
    scenario.stack.command(&["link", "limit", "--seeding", "400 kB/s"]).await?.expect(0)?;
    let recovery = scenario.stack.database("understudy").await?;
    let received =
        "select address from mailbox where exists (select from transaction t where t.mailbox_id = mailbox.mailbox_id)";
    let mut there: Vec<String> = Vec::new();
    wait::until("somebody is through", PATIENCE, async || {
        there = sqlx::query_scalar(received).fetch_all(&recovery).await?;
        Ok(!there.is_empty())
    })
    .await?;
    ensure!(there == ["zoe"], "{there:?} came first");
    scenario.stack.command(&["link", "limit", "--seeding", "unlimited"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann", "zoe"]).await
}
