//! Messages in parts between two sites: what they have in common crosses the link once.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use serde_json::Value;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::Scenario;
use understudy_tests::wait;

const USERS: [&str; 3] = ["ann", "bob", "cem"];
const FILE_BYTES: usize = 2 << 20;
const PATIENCE: Duration = Duration::from_secs(180);

/// One file, as it reaches this user; mail programs wrap as they like.
fn message(to: &str, file: &[u8], columns: usize) -> Vec<u8> {
    let mut text = format!(
        "Delivered-To: {to}\r\nFrom: a@example.net\r\nSubject: the figures\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\n\r\nSee there.\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    .into_bytes();
    for line in BASE64_STANDARD.encode(file).as_bytes().chunks(columns) {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"--b--\r\n");
    text
}

#[tokio::test]
async fn an_attachment_crosses_the_link_once() -> Result<()> {
    let mut scenario = Scenario::apart(&USERS).await?;
    scenario.protect(&USERS).await?;
    scenario.settle_and_compare(&USERS).await?;
    let mut file = vec![0; FILE_BYTES];
    StdRng::seed_from_u64(40).fill_bytes(&mut file);

    let before = scenario.stack.link()?.bytes_to_server();
    for user in USERS {
        scenario.log_in(user).await?.append("INBOX", &[], None, &message(user, &file, 76)).await?;
    }
    scenario.settle_and_compare(&USERS).await?;
    let crossed = scenario.stack.link()?.bytes_to_server() - before;
    assert!(crossed < FILE_BYTES as u64 * 5 / 4, "{crossed} bytes crossed");

    // Neither restarts nor another wrapping make it another file.
    scenario.stack.kill_role("source")?;
    scenario.stack.kill_role("recovery")?;
    scenario.stack.start().await?;
    scenario.settle_and_compare(&USERS).await?;
    let before = scenario.stack.link()?.bytes_to_server();
    scenario.log_in("ann").await?.append("INBOX", &[], None, &message("all", &file, 72)).await?;
    scenario.settle_and_compare(&USERS).await?;
    let crossed = scenario.stack.link()?.bytes_to_server() - before;
    assert!(crossed < FILE_BYTES as u64 / 4, "{crossed} bytes crossed");
    let shown = scenario.stack.command(&["mailbox", "show", "ann"]).await?;
    assert!(shown.stdout.contains("were there already"), "{}", shown.stdout);

    // What it came to is shown by kind, of each mailbox and of the link: four times the file, of which one crossed.
    let status = scenario.stack.json(&["status"]).await?;
    let mut mailboxes = Vec::new();
    for user in USERS {
        mailboxes.push(kinds(&scenario.show(user).await?["traffic"]));
    }
    let link = kinds(&status["traffic"]);
    let sum = |kind: usize| mailboxes.iter().map(|kinds| kinds[kind]).sum::<u64>();
    assert_eq!(link, [sum(0), sum(1), sum(2), sum(3)], "the link, and its mailboxes {mailboxes:?}");
    let [messages, new, deduplicated, compressed] = link;
    let file = FILE_BYTES as u64;
    assert!(new >= file && new < file * 5 / 4 && deduplicated >= 3 * file && compressed >= file / 4, "{link:?}");
    assert_eq!(messages, new + deduplicated + compressed);
    Ok(())
}

fn kinds(traffic: &Value) -> [u64; 4] {
    ["message_bytes", "new_bytes", "deduplicated_bytes", "compressed_bytes"]
        .map(|kind| traffic[kind].as_u64().unwrap_or_default())
}

/// Until the recovery site has cleared away what the message of this user brought. Others in the mailbox stay.
async fn cleared_away(scenario: &Scenario, user: &str) -> Result<()> {
    let mut client = scenario.log_in(user).await?;
    client.select("INBOX").await?;
    client.expunge("4").await?;
    scenario.settle_and_compare(&[user]).await?;
    let recovery = scenario.stack.database("understudy").await?;
    wait::until("the file is cleared away", PATIENCE, async || {
        let parts: i64 =
            sqlx::query_scalar("select count(*) from content where form = 'part'").fetch_one(&recovery).await?;
        Ok(parts == 0)
    })
    .await
}

/// What the recovery site cleared away because nobody named it comes again when somebody does: the source asks where it may be gone, and
/// is told where it was sure.
#[tokio::test]
async fn a_file_that_was_cleared_away_over_there_crosses_again() -> Result<()> {
    let scenario = Scenario::apart_with(&USERS, "[content]\nkeep = \"1s\"\nsweep = \"1s\"").await?;
    let mut mail = Mail::from_seed(41);
    for user in USERS {
        let mut client = scenario.log_in(user).await?;
        for _ in 0..3 {
            client.append("INBOX", &[], None, &mail.plain(500)).await?;
        }
    }
    scenario.protect(&USERS).await?;
    scenario.settle_and_compare(&USERS).await?;
    let mut file = vec![0; FILE_BYTES];
    StdRng::seed_from_u64(42).fill_bytes(&mut file);
    let arrives = async |user: &str| -> Result<u64> {
        let before = scenario.stack.link()?.bytes_to_server();
        scenario.log_in(user).await?.append("INBOX", &[], None, &message(user, &file, 76)).await?;
        scenario.settle_and_compare(&[user]).await?;
        Ok(scenario.stack.link()?.bytes_to_server() - before)
    };

    arrives("ann").await?;
    cleared_away(&scenario, "ann").await?;
    let crossed = arrives("bob").await?;
    assert!(crossed > FILE_BYTES as u64, "{crossed} bytes crossed");

    // Sure of it all the same, as of a recovery site that came back from a backup.
    cleared_away(&scenario, "bob").await?;
    let source = scenario.stack.database("source").await?;
    sqlx::query("update source_part set acknowledged_at = now() + interval '1 hour'").execute(&source).await?;
    let crossed = arrives("cem").await?;
    assert!(crossed > FILE_BYTES as u64, "{crossed} bytes crossed");
    let log = fs::read_to_string(scenario.stack.dir().join("source.log"))?;
    assert!(log.contains("Sending parts again that the recovery site has no more"), "it was not sure");
    Ok(())
}

/// A line that never holds for as long as a message takes: it passes all the same, and little of it crosses twice.
#[tokio::test]
async fn a_message_that_takes_longer_than_the_line_ever_holds_passes() -> Result<()> {
    const LONG: usize = 64 << 20;
    // Some of it lies in the buffers on the way when it is cut, and is lost each time.
    const BETWEEN_CUTS: u64 = 24 << 20;
    let scenario = Scenario::apart(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let mut file = vec![0; LONG];
    StdRng::seed_from_u64(43).fill_bytes(&mut file);
    let link = scenario.stack.link()?;
    let before = link.bytes_to_server();
    let mut cuts = 0;
    let cutting = async {
        let mut cut_at = before;
        loop {
            wait::until("some of it crosses", PATIENCE, async || Ok(link.bytes_to_server() >= cut_at + BETWEEN_CUTS))
                .await?;
            link.cut().await?;
            cuts += 1;
            cut_at = link.bytes_to_server();
            link.set(Mode::Pass);
        }
        #[expect(unreachable_code, reason = "says what it may fail with")]
        anyhow::Ok(())
    };
    scenario.log_in("ann").await?.append("INBOX", &[], None, &message("ann", &file, 76)).await?;
    tokio::select! {
        settled = scenario.settle_within(PATIENCE) => settled?,
        stopped = cutting => stopped?,
    }
    scenario.assert_same("ann").await?;
    let crossed = link.bytes_to_server() - before;
    println!("{cuts} cuts; {crossed} bytes crossed of {LONG}");
    assert!(cuts >= 2, "{cuts} cuts");
    assert!(crossed < LONG as u64 * 3, "{crossed} bytes crossed");
    Ok(())
}
