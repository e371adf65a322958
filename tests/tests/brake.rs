//! The mass-change brake: a primary that comes back empty never empties the standby, and a person decides.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{PRIMARY, STANDBY, Scenario};
use understudy_tests::wait;

use crate::switchover::assert_same_but_for_order;

const PATIENCE: Duration = Duration::from_secs(180);
const FOLDERS: [&str; 4] = ["INBOX", "Sent", "Work", "Work/Old"];

/// A mailbox with this many messages in each of four folders, mirrored.
async fn mirrored(seed: u64, each: usize) -> Result<(Scenario, Mail)> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(seed);
    let mut ann = scenario.log_in("ann").await?;
    for folder in FOLDERS {
        if folder != "INBOX" {
            ann.create(folder).await?;
        }
        ann.subscribe(folder).await?;
        for _ in 0..each {
            ann.append(folder, &["\\Seen"], None, &mail.plain(300)).await?;
        }
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    Ok((scenario, mail))
}

#[tokio::test]
async fn each_policy_has_limits_of_its_own() -> Result<()> {
    let scenario = Scenario::start(&["ann", "bob"]).await?;
    let mut mail = Mail::from_seed(66);
    for user in ["ann", "bob"] {
        let mut client = scenario.log_in(user).await?;
        for _ in 0..40 {
            client.append("INBOX", &[], None, &mail.plain(200)).await?;
        }
    }
    let stack = &scenario.stack;
    stack.command(&["policy", "set", "strict", "brake.share=0.1", "brake.messages=5"]).await?.expect(0)?;
    let protect = ["mailbox", "protect", "ann", "--primary", PRIMARY, "--standby", STANDBY, "--policy", "strict"];
    stack.command(&protect).await?.expect(0)?;
    scenario.protect(&["bob"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    // A quarter: too much by ann's policy, and nothing to speak of by the configuration.
    for user in ["ann", "bob"] {
        let mut client = scenario.log_in(user).await?;
        client.select("INBOX").await?;
        client.expunge("1:10").await?;
    }
    until_held(&scenario).await?;
    stack.command(&["mailbox", "wait", "bob", "--timeout", "240s"]).await?.expect(0)?;
    scenario.assert_same("bob").await?;
    assert_eq!(scenario.show("bob").await?["state"], "mirroring");
    assert_eq!(scenario.log_in_to_standby("ann").await?.uids("INBOX").await?.len(), 40);
    stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

fn home(scenario: &Scenario) -> PathBuf {
    scenario.primary.dir().join("home/ann")
}

async fn until_held(scenario: &Scenario) -> Result<()> {
    let shown = scenario.until("ann", "is held", |shown| shown["state"] == "held").await?;
    for key in ["reason", "remedy"] {
        ensure!(shown["detail"][key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {shown:#}");
    }
    Ok(())
}

async fn until_mirroring(scenario: &Scenario) -> Result<()> {
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await.map(drop)
}

async fn on_standby(scenario: &Scenario) -> Result<Snapshot> {
    scenario.log_in_to_standby("ann").await?.snapshot().await
}

fn messages(snapshot: &Snapshot) -> usize {
    snapshot.folders.values().map(|folder| folder.messages.len()).sum()
}

/// The primary loses all of ann's mail and starts again empty.
fn wipe(scenario: &mut Scenario) -> Result<PathBuf> {
    scenario.primary.stop()?;
    let aside = scenario.primary.dir().join("home/ann.lost");
    fs::rename(home(scenario), &aside)?;
    scenario.primary.start_again()?;
    Ok(aside)
}

#[tokio::test]
async fn a_primary_that_comes_back_empty_leaves_the_standby_whole_until_a_person_releases() -> Result<()> {
    let (mut scenario, mut mail) = mirrored(60, 20).await?;
    let before = on_standby(&scenario).await?;
    wipe(&mut scenario)?;
    until_held(&scenario).await?;
    let differences = compare(&before, &on_standby(&scenario).await?);
    ensure!(differences.is_empty(), "the standby is not whole: {differences}");

    // Adding goes on.
    scenario.log_in("ann").await?.append("INBOX", &[], None, &mail.plain(500)).await?;
    scenario.until("ann", "has nothing to apply", |shown| shown["lag"]["transactions"] == 0).await?;
    let wanted = messages(&before) + 1;
    wait::until("new mail arrives", PATIENCE, async || Ok(messages(&on_standby(&scenario).await?) == wanted)).await?;

    // A barrier does not claim what is not so.
    let waited = scenario.stack.command(&["mailbox", "wait", "ann"]).await?.expect(1)?;
    assert!(waited.stderr.contains("held"), "{}", waited.stderr);

    // The person sees what it is about; also after everything was killed.
    scenario.stack.kill()?;
    scenario.stack.start().await?;
    until_held(&scenario).await?;
    let mut held = Value::Null;
    let all = wait::until("all that is gone waits", PATIENCE, async || {
        held = scenario.stack.json(&["mailbox", "held", "ann"]).await?;
        Ok(held["messages"] == 80)
    });
    all.await.with_context(|| format!("{held:#}"))?;
    let folders = held["folders"].as_array().map(Vec::len);
    assert_eq!(folders, Some(FOLDERS.len()), "{held:#}");
    let subject = held["folders"][0]["sample"][0]["subject"].as_str();
    assert!(subject.is_some_and(|subject| !subject.is_empty()), "{held:#}");
    assert_eq!(messages(&on_standby(&scenario).await?), wanted);

    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    until_mirroring(&scenario).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    assert_eq!(messages(&on_standby(&scenario).await?), 1);
    scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(0)?;
    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(1).map(drop)
}

#[tokio::test]
async fn what_a_person_discards_stays_and_verify_says_that_it_is_kept() -> Result<()> {
    let (scenario, mut mail) = mirrored(61, 30).await?;
    let mut ann = scenario.log_in("ann").await?;
    ann.select("INBOX").await?;
    let all = ann.uids("INBOX").await?;
    ann.expunge(&format!("{}:{}", all[0], all[all.len() - 1])).await?;
    for folder in ["Work/Old", "Work", "Sent"] {
        ann.delete(folder).await?;
    }
    until_held(&scenario).await?;
    // Every removal has been captured when all that is left waits.
    let mut kept = 0;
    wait::until("all that was removed waits", PATIENCE, async || {
        let held = scenario.stack.json(&["mailbox", "held", "ann"]).await?;
        let Ok(standby) = on_standby(&scenario).await else { return Ok(false) };
        kept = messages(&standby);
        Ok(held["messages"] == kept)
    })
    .await?;
    assert!(kept >= 60, "{kept} messages are left");
    scenario.stack.command(&["mailbox", "discard", "ann"]).await?.expect(0)?;
    until_mirroring(&scenario).await?;
    ann.append("INBOX", &[], None, &mail.plain(400)).await?;
    scenario.settle().await?;
    assert_eq!(messages(&on_standby(&scenario).await?), kept + 1);
    let verified = scenario.stack.json(&["mailbox", "verify", "ann"]).await?;
    assert_eq!(verified["mailboxes"][0]["differences"].as_array().map(Vec::len), Some(0), "{verified:#}");
    assert_eq!(verified["mailboxes"][0]["kept"], kept, "{verified:#}");
    Ok(())
}

#[tokio::test]
async fn mail_that_comes_back_resolves_a_hold_by_itself_and_is_not_doubled() -> Result<()> {
    let (mut scenario, _) = mirrored(62, 20).await?;
    let before = on_standby(&scenario).await?;
    let aside = wipe(&mut scenario)?;
    until_held(&scenario).await?;
    scenario.primary.stop()?;
    fs::remove_dir_all(home(&scenario))?;
    fs::rename(aside, home(&scenario))?;
    scenario.primary.start_again()?;
    until_mirroring(&scenario).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    assert_eq!(messages(&on_standby(&scenario).await?), messages(&before));
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0).map(drop)
}

#[tokio::test]
async fn tidying_up_is_not_held() -> Result<()> {
    // 30 of 40 in a tiny mailbox; then everything that is left moves elsewhere.
    let (scenario, mut mail) = mirrored(63, 10).await?;
    let mut ann = scenario.log_in("ann").await?;
    for folder in ["Sent", "Work", "Work/Old"] {
        empty(&mut ann, folder).await?;
    }
    scenario.settle_and_compare(&["ann"]).await?;
    ann.create("Archive").await?;
    for _ in 0..60 {
        ann.append("INBOX", &[], None, &mail.plain(200)).await?;
    }
    scenario.settle().await?;
    ann.select("INBOX").await?;
    ann.move_to("1:*", "Archive").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    ann.rename("Archive", "Elsewhere").await?;
    scenario.settle_and_compare(&["ann"]).await
}

async fn empty(client: &mut Client, folder: &str) -> Result<()> {
    let uids = client.uids(folder).await?;
    client.select(folder).await?;
    client.expunge(&format!("{}:{}", uids[0], uids[uids.len() - 1])).await
}

/// As a client does that adds a header to every message: an altered copy in, the old one out, one after the other.
#[tokio::test]
async fn rewriting_most_of_a_mailbox_is_held() -> Result<()> {
    let (scenario, _) = mirrored(65, 20).await?;
    let before = on_standby(&scenario).await?;
    let mut ann = scenario.log_in("ann").await?;
    for folder in &FOLDERS[..3] {
        for (number, uid) in ann.uids(folder).await?.into_iter().enumerate() {
            let altered = format!("X-Sync: {folder} {number}\r\nSubject: altered\r\n\r\nx\r\n");
            ann.append(folder, &["\\Seen"], None, altered.as_bytes()).await?;
            ann.expunge(&uid.to_string()).await?;
        }
    }
    until_held(&scenario).await?;
    let digests = |snapshot: &Snapshot| -> HashSet<[u8; 32]> {
        let messages = snapshot.folders.values().flat_map(|folder| &folder.messages);
        messages.map(|message| *message.digest.as_bytes()).collect()
    };
    let old = digests(&before);
    // Until every altered copy is there, and every removal has been captured: then what is there besides is what waits.
    let mut parked = 0;
    wait::until("all that was removed waits", PATIENCE, async || {
        parked = scenario.stack.json(&["mailbox", "held", "ann"]).await?["messages"].as_u64().unwrap_or_default();
        let standby = on_standby(&scenario).await?;
        let kept = digests(&standby).intersection(&old).count() as u64;
        Ok(messages(&standby) as u64 == kept + 60 && kept == 20 + parked)
    })
    .await?;
    // It may have noticed only with the fiftieth.
    ensure!((11..=60).contains(&parked), "{parked} wait");
    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    until_mirroring(&scenario).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_folder_in_which_removals_rest_is_applied_again_once_a_person_has_decided() -> Result<()> {
    let (scenario, mut mail) = mirrored(67, 20).await?;
    let mut ann = scenario.log_in("ann").await?;
    for folder in ["INBOX", "Sent", "Work"] {
        ann.select(folder).await?;
        ann.expunge("1:18").await?;
    }
    until_held(&scenario).await?;
    scenario.until("ann", "has nothing to apply", |shown| shown["lag"]["transactions"] == 0).await?;

    // Somebody deletes one of them on the standby, and another is restored there.
    scenario.standby.doveadm(&["mailbox", "delete", "-u", "ann", "Work"])?;
    scenario.standby.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", "1444444444", "Sent"])?;
    // By itself nothing is done where a person has to decide, and that is said.
    ann.append("Work", &[], None, &mail.plain(300)).await?;
    wait::until("it is said that somebody has to decide", PATIENCE, async || {
        let told = scenario.stack.json(&["events", "--past", "--kind", "trouble"]).await?.to_string();
        Ok(told.contains("standby_reset") && told.contains("mailbox held"))
    })
    .await?;

    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    until_mirroring(&scenario).await?;
    scenario.log_in("ann").await?.append("Sent", &[], None, &mail.plain(300)).await?;
    scenario.settle().await?;
    // What was released in a folder that is another one now cannot be told by its UIDs; a person sees it, and removes it.
    let repaired = scenario.stack.json(&["mailbox", "verify", "ann", "--repair"]).await?;
    ensure!(repaired["mailboxes"][0]["equal"] == true, "{repaired:#}");
    // What was given to the folder that is gone stands before what was brought back.
    assert_same_but_for_order(&scenario, "ann").await
}

#[tokio::test]
async fn names_of_parked_folders_can_be_used_again() -> Result<()> {
    let (mut scenario, mut mail) = mirrored(64, 20).await?;
    wipe(&mut scenario)?;
    until_held(&scenario).await?;
    let mut ann = scenario.log_in("ann").await?;
    // The same name made anew, and another folder renamed to one that is parked.
    ann.create("Sent").await?;
    ann.append("Sent", &[], None, &mail.plain(300)).await?;
    ann.create("Other").await?;
    ann.append("Other", &[], None, &mail.plain(300)).await?;
    // Else there never was a folder Other to be renamed.
    wait::until("the new folders are on the standby", PATIENCE, async || {
        let Ok(standby) = on_standby(&scenario).await else { return Ok(false) };
        Ok(standby.folders.get("Other").is_some_and(|other| other.messages.len() == 1) && messages(&standby) == 82)
    })
    .await?;
    ann.rename("Other", "Work").await?;
    wait::until("the parked folder goes aside", PATIENCE, async || {
        // A folder may go aside between its being listed and its being read.
        let Ok(standby) = on_standby(&scenario).await else { return Ok(false) };
        Ok(standby.folders.keys().any(|name| name.starts_with("Work (held")) && messages(&standby) == 82)
    })
    .await?;
    scenario.stack.command(&["mailbox", "release", "ann"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann"]).await
}
