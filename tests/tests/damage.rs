//! A primary that is damaged, reset, or changed under the hands of whoever reads it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use understudy_tests::client::{Message, Snapshot};
use understudy_tests::dovecot::Format;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};

use crate::times;

async fn with_maildir_primary() -> Result<Scenario> {
    Scenario::between(scenario::primary(&["ann"]).format(Format::Maildir), scenario::standby(&["ann"])).await
}

fn maildir(scenario: &Scenario, folder: &str) -> PathBuf {
    scenario.primary.dir().join("home/ann/Maildir").join(folder)
}

/// The files of a Maildir folder's messages, oldest first.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for sub in ["new", "cur"] {
        for entry in fs::read_dir(folder.join(sub)).with_context(|| format!("{}", folder.display()))? {
            files.push(entry?.path());
        }
    }
    // `1795317182.M18791P…`: seconds, then microseconds without leading zeros.
    files.sort_by_key(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok();
        let (seconds, rest) = name.split_once(".M").unwrap_or((&name, ""));
        (number(seconds), number(rest))
    });
    Ok(files)
}

fn sizes(snapshot: &Snapshot, folder: &str) -> Vec<usize> {
    snapshot.folders[folder].messages.iter().map(|message| message.size / 1000).collect()
}

/// Dovecot ends the session over a file it cannot read.
#[tokio::test]
async fn a_message_that_the_primary_cannot_give_stops_no_other() -> Result<()> {
    let scenario = with_maildir_primary().await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(60));
    ann.create("Broken").await?;
    for size in [1_500, 2_500, 3_500] {
        ann.append("Broken", &[], None, &mail.plain(size)).await?;
        ann.append("INBOX", &[], None, &mail.plain(size)).await?;
    }
    let broken = files(&maildir(&scenario, ".Broken"))?;
    let inbox = files(&maildir(&scenario, ""))?;
    for file in [&broken[2], &inbox[0]] {
        fs::set_permissions(file, Permissions::from_mode(0o000))?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    let shown = scenario.until("ann", "names both", |shown| shown["set_aside"] == 2).await?;
    assert!(shown["detail"].is_null(), "nothing stands in the way: {shown:#}");
    let theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    assert_eq!(sizes(&theirs, "Broken"), [1, 2]);
    assert_eq!(sizes(&theirs, "INBOX"), [2, 3]);

    // Named, with the reason, wherever one looks.
    let shown = scenario.stack.command(&["mailbox", "show", "ann"]).await?.expect(0)?.stdout;
    assert!(shown.contains("unreadable") && shown.contains("Broken"), "{shown}");
    let shown = scenario.show("ann").await?;
    let problems = shown["problems"].as_array().context("problems")?;
    assert!(problems.len() == 2 && problems.iter().all(|one| one["kind"] == "unreadable"), "{shown:#}");
    assert!(problems.iter().all(|one| one["reason"].as_str().is_some_and(|why| !why.is_empty())), "{shown:#}");
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(1)?.stdout;
    assert!(verified.contains("could not give it"), "{verified}");

    // Nothing waits for it, neither in its own folder nor elsewhere.
    ann.append("INBOX", &[], None, &mail.plain(4_500)).await?;
    ann.select("Broken").await?;
    ann.store("1", "+FLAGS (\\Flagged)").await?;
    ann.expunge("2").await?;
    scenario.settle().await?;
    let theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    assert_eq!(sizes(&theirs, "INBOX"), [2, 3, 4]);
    assert_eq!(sizes(&theirs, "Broken"), [1]);
    assert!(theirs.folders["Broken"].messages[0].flags.contains("\\flagged"));

    // One is repaired, the other is deleted.
    fs::set_permissions(&files(&maildir(&scenario, ".Broken"))?[1], Permissions::from_mode(0o600))?;
    ann.select("INBOX").await?;
    ann.expunge("1").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.until("ann", "has none left", |shown| shown["set_aside"] == 0).await?;
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0).map(drop)
}

/// HIGHESTMODSEQ goes back, and QRESYNC says that nothing happened.
#[tokio::test]
async fn a_primary_that_loses_its_index_loses_nothing_on_the_standby() -> Result<()> {
    let mut scenario = with_maildir_primary().await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(61));
    ann.create("Work").await?;
    for folder in ["INBOX", "Work"] {
        for _ in 0..10 {
            ann.append(folder, &[], None, &mail.any()).await?;
        }
        ann.select(folder).await?;
        for flag in ["\\Seen", "\\Flagged", "\\Answered"] {
            ann.store("1:5", &format!("+FLAGS ({flag})")).await?;
        }
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let before = scenario.log_in_to_standby("ann").await?.snapshot().await?;

    for round in 0..2 {
        // The second time nobody has the files open.
        if round == 1 {
            scenario.primary.stop()?;
        }
        for folder in ["", ".Work"] {
            for entry in fs::read_dir(maildir(&scenario, folder))? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dovecot.index")) {
                    fs::remove_file(path)?;
                }
            }
        }
        if round == 1 {
            scenario.primary.start_again()?;
        }
        scenario.settle_and_compare(&["ann"]).await?;
        let after = scenario.log_in_to_standby("ann").await?.snapshot().await?;
        assert_eq!(before, after, "the standby's messages were touched");
    }
    let mut ann = scenario.log_in("ann").await?;
    ann.select("Work").await?;
    ann.store("2", "-FLAGS (\\Seen)").await?;
    ann.expunge("3").await?;
    ann.append("INBOX", &["$New"], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await
}

/// Without its list of UIDs Maildir gives every message another UID, under another UIDVALIDITY.
#[tokio::test]
async fn a_folder_that_gets_new_uids_is_the_same_on_the_standby() -> Result<()> {
    let mut scenario = with_maildir_primary().await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(62));
    ann.create("Work").await?;
    for _ in 0..12 {
        ann.append("Work", &["\\Seen"], None, &mail.any()).await?;
    }
    ann.select("Work").await?;
    ann.expunge("1:4").await?;
    ann.store("6", "+FLAGS (\\Flagged)").await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    scenario.primary.stop()?;
    for entry in fs::read_dir(maildir(&scenario, ".Work"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dovecot")) {
            fs::remove_file(path)?;
        }
    }
    scenario.primary.start_again()?;
    scenario.settle_and_compare(&["ann"]).await?;
    let mut ann = scenario.log_in("ann").await?;
    assert_eq!(ann.uids("Work").await?, (1..=8).collect::<Vec<u32>>(), "the UIDs should be new");
    ann.expunge("2").await?;
    ann.append("Work", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn messages_expunged_while_they_are_fetched_are_no_trouble() -> Result<()> {
    const MESSAGES: u32 = 120;
    let scenario = with_maildir_primary().await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(63));
    let messages = MESSAGES * u32::try_from(times(20))?;
    for _ in 0..messages {
        ann.append("INBOX", &[], None, &mail.with_attachment(30_000)).await?;
    }
    scenario.protect(&["ann"]).await?;
    ann.select("INBOX").await?;
    // From the end, where the reader is not yet, and from the beginning, in turns.
    for n in 0..messages / 3 {
        let uid = if n % 2 == 0 { messages - n } else { n };
        ann.expunge(&uid.to_string()).await?;
    }
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.until("ann", "has nothing set aside", |shown| shown["set_aside"] == 0).await.map(drop)
}

/// Messages as other programs leave them in a Maildir. A server may refuse or alter them; they are named, and stop nothing.
#[tokio::test]
async fn what_the_standby_cannot_hold_is_named_and_stops_nothing() -> Result<()> {
    let scenario = with_maildir_primary().await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(64));
    ann.create("Odd").await?;
    let folder = maildir(&scenario, ".Odd");
    let owner = fs::metadata(&folder)?;
    let odd: [&[u8]; 5] = [b"", b"Subject: \0 nul\n\n\0\n", b"a: b\n\nbare\rcr\n", b"a: b\n\nends in cr\r", b"\n"];
    for (n, message) in odd.iter().enumerate() {
        let path = folder.join("new").join(format!("100000000{n}.P1Q{n}.other"));
        fs::write(&path, message)?;
        chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        // INTERNALDATE is the file's time: before 1970, and after 2038.
        let long = Duration::from_secs(70 * 365 * 86400);
        match n {
            3 => fs::File::options().write(true).open(&path)?.set_modified(SystemTime::UNIX_EPOCH - long / 7)?,
            4 => fs::File::options().write(true).open(&path)?.set_modified(SystemTime::UNIX_EPOCH + long)?,
            _ => {}
        }
    }
    ann.append("Odd", &["$Last"], None, &mail.any()).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;
    let ours = scenario.snapshot("ann").await?;
    let theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    let (ours, theirs) = (&ours.folders["Odd"].messages, &theirs.folders["Odd"].messages);
    let equal = |one: &Message| theirs.iter().any(|other| other.digest == one.digest && other.date == one.date);
    let unequal = ours.iter().filter(|message| !equal(message)).count();
    assert!(unequal >= 3, "empty, and two dates: {ours:#?} {theirs:#?}");
    scenario.until("ann", "names each", |shown| shown["set_aside"] == unequal).await?;
    assert!(ours.iter().any(|message| message.flags.contains("$last") && equal(message)), "{theirs:#?}");
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(1)?.stdout;
    assert!(verified.matches("Odd").count() >= unequal, "{verified}");
    Ok(())
}
