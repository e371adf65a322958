//! Messages in parts between two sites: what they have in common crosses the link once.

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use understudy_tests::scenario::Scenario;

const USERS: [&str; 3] = ["ann", "bob", "cem"];
const FILE_BYTES: usize = 2 << 20;

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
    Ok(())
}
