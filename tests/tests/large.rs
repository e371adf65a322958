//! Many folders, and many messages in one folder. A long run takes a thousand and a hundred thousand.

use std::time::Duration;

use anyhow::Result;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;

use crate::times;

/// What a hundred thousand messages take on a loaded machine, with room to spare.
const PATIENCE: Duration = Duration::from_secs(1200);

async fn settle_and_compare(scenario: &Scenario) -> Result<()> {
    scenario.settle_within(PATIENCE).await?;
    scenario.assert_same("ann").await
}

#[tokio::test]
async fn very_many_folders_are_mirrored_and_follow() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(70));
    let folders: Vec<String> =
        (0..100 * times(10)).map(|number| format!("Projects {}/{number}", number / 20)).collect();
    for folder in &folders {
        ann.create(folder).await?;
        ann.append(folder, &[], None, &mail.plain(200)).await?;
    }
    scenario.protect(&["ann"]).await?;
    settle_and_compare(&scenario).await?;
    for (number, folder) in folders.iter().enumerate() {
        match number % 5 {
            0 => ann.delete(folder).await?,
            1 => ann.rename(folder, &format!("Done/{number}")).await?,
            2 => ann.append(folder, &["\\Flagged"], None, &mail.plain(200)).await.map(drop)?,
            _ => {}
        }
    }
    ann.rename("Projects 0", "Archive").await?;
    settle_and_compare(&scenario).await?;
    scenario.stack.command_within(PATIENCE, &["mailbox", "verify", "ann"]).await?.expect(0).map(drop)
}

#[tokio::test]
async fn a_very_large_folder_is_mirrored_and_follows() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(71));
    let mut messages = 100;
    for _ in 0..messages {
        ann.append("INBOX", &[], None, &mail.plain(300)).await?;
    }
    while messages < 1_600 * times(64) {
        // Each time twice as many.
        ann.copy_all("INBOX", "INBOX").await?;
        messages *= 2;
    }
    scenario.protect(&["ann"]).await?;
    settle_and_compare(&scenario).await?;
    ann.select("INBOX").await?;
    ann.store(&format!("1:{}", messages / 2), "+FLAGS.SILENT (\\Seen $Kept)").await?;
    ann.expunge(&format!("{}:{}", messages / 4, messages / 4 + messages / 8)).await?;
    settle_and_compare(&scenario).await?;
    scenario.stack.command_within(PATIENCE, &["mailbox", "verify", "ann"]).await?.expect(0).map(drop)
}
