//! A mail program that comes from the primary finds on the standby what it knows: UIDVALIDITY, UIDs and MODSEQs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use understudy_tests::client::{Client, Message, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, PASSWORD};
use understudy_tests::failpoint::{Action, UIDS};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{STANDBY, Scenario, primary, standby};
use understudy_tests::wait;

use crate::mirroring::{do_everything, fill};
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);

async fn managed() -> Result<Scenario> {
    Scenario::between(primary(&["ann"]), standby(&["ann"]).managed()).await
}

/// What leaves gaps everywhere: at the beginning, in the middle, at the end.
async fn leave_gaps(client: &mut Client, mail: &mut Mail, folder: &str) -> Result<()> {
    let mut uids = Vec::new();
    for _ in 0..30 {
        uids.extend(client.append(folder, &[], None, &mail.any()).await?);
    }
    client.select(folder).await?;
    let gone: Vec<String> =
        uids.iter().enumerate().filter(|(at, _)| at % 3 == 0 || *at > 26).map(|(_, uid)| uid.to_string()).collect();
    client.expunge(&gone.join(",")).await
}

/// The primary's numbers are the standby's, or the standby's are ahead.
fn assert_same_numbers(primary: &Snapshot, standby: &Snapshot) -> Result<()> {
    for (name, ours) in primary.folders.iter().filter(|(_, folder)| folder.selectable) {
        let theirs = standby.folders.get(name).with_context(|| format!("{name} is not on the standby"))?;
        let uids = |folder: &understudy_tests::client::Folder| {
            folder.messages.iter().map(|message| message.uid).collect::<Vec<_>>()
        };
        ensure!(ours.uid_validity == theirs.uid_validity, "{name}: {} and {}", ours.uid_validity, theirs.uid_validity);
        ensure!(uids(ours) == uids(theirs), "{name}: UIDs {:?} and {:?}", uids(ours), uids(theirs));
        ensure!(ours.uid_next <= theirs.uid_next, "{name}: UIDNEXT {} and {}", ours.uid_next, theirs.uid_next);
        ensure!(ours.mod_seq <= theirs.mod_seq, "{name}: HIGHESTMODSEQ {} and {}", ours.mod_seq, theirs.mod_seq);
    }
    Ok(())
}

/// Until the mirror is equal and every folder has the primary's numbers.
async fn settle_with_continuity(scenario: &Scenario) -> Result<()> {
    scenario.settle().await?;
    scenario.until("ann", "has the primary's UIDs", |shown| shown["uid_continuity"] == true).await?;
    let ours = scenario.log_in("ann").await?.snapshot().await?;
    let theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    assert_same_numbers(&ours, &theirs)?;
    scenario.assert_same("ann").await
}

#[tokio::test]
async fn uids_are_the_same_again_after_a_user_came_home() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(52);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 20).await?;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    client.log_out().await;

    scenario.stack.command(&["switchover", "ann", "--wait"]).await?.expect(0)?;
    let mut there = scenario.log_in_to_standby("ann").await?;
    do_everything(&mut there, &mut mail).await?;
    there.log_out().await;
    scenario.stack.command(&["switchback", "ann", "--wait"]).await?.expect(0)?;
    scenario.until("ann", "is at home", |shown| shown["state"] == "mirroring").await?;
    // What came home has the primary's next UIDs: the folders on the standby are rebuilt with these.
    settle_with_continuity(&scenario).await?;

    let mut client = scenario.log_in("ann").await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_programs_move_to_the_standby_without_downloading_anything() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(50);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 20).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;

    let folder = tempfile::tempdir()?;
    let mbsync = Mbsync::new(folder.path())?;
    let cached = folder.path().join("state.json");
    // Mail programs that last looked at the primary at some moment or other, while it changed and was being followed.
    let mut earlier = Vec::new();
    do_everything(&mut client, &mut mail).await?;
    for folder in ["INBOX", "Work", "Work/Later", "INBOX"] {
        if folder == "Work/Later" {
            client.create(folder).await?;
        }
        leave_gaps(&mut client, &mut mail, folder).await?;
        client.store("1:*", "+FLAGS ($Earlier)").await?;
        earlier.push(cached.with_extension(earlier.len().to_string()));
        qresync("learn", &scenario.primary, &earlier[earlier.len() - 1])?;
        client.store("1:*", "-FLAGS ($Earlier)").await?;
    }
    settle_with_continuity(&scenario).await?;
    for cached in &earlier {
        let report = qresync("resume", &scenario.standby, cached)?;
        let refused = report["refused"].as_array().cloned().unwrap_or_default();
        let refused: Vec<&Value> =
            refused.iter().filter(|why| !why.as_str().is_some_and(|why| why.contains("one side only"))).collect();
        ensure!(refused.is_empty(), "a mail program that looked earlier: {report}");
    }

    qresync("learn", &scenario.primary, &cached)?;
    mbsync.pass(&scenario.primary)?;
    // Changes that only the standby will tell them of.
    client.select("INBOX").await?;
    client.append("INBOX", &["\\Flagged"], None, &mail.any()).await?;
    let inbox = client.uids("INBOX").await?;
    client.store(&inbox[0].to_string(), "+FLAGS ($Told)").await?;
    client.expunge(&inbox[1].to_string()).await?;
    scenario.settle().await?;
    let report = qresync("resume", &scenario.standby, &cached)?;
    let told = ["downloads", "flag_changes", "vanished"].map(|what| report[what].as_u64().unwrap_or_default());
    ensure!(told == [1, 1, 1] && report["refused"] == json!([]), "not told of every change, once: {report}");
    qresync("learn", &scenario.primary, &cached)?;
    mbsync.pass(&scenario.primary)?;

    let report = qresync("resume", &scenario.standby, &cached)?;
    for what in ["downloads", "flag_changes", "vanished"] {
        ensure!(report[what] == 0, "a mail program with QRESYNC would see {what} on the standby: {report}");
    }
    ensure!(report["refused"] == json!([]), "a mail program would start anew: {report}");
    ensure!(report["known"].as_u64() > Some(50), "{report}");
    let downloaded = mbsync.mail()?;
    ensure!(downloaded.len() > 50, "mbsync downloaded only {} messages", downloaded.len());
    let before = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    mbsync.pass(&scenario.standby)?;
    let after = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    let touched = downloaded.symmetric_difference(&mbsync.mail()?).count();
    ensure!(touched == 0, "mbsync downloaded, removed or flagged {touched} messages of {}", downloaded.len());
    let messages = |seen: &Snapshot| -> Vec<(u32, Vec<Message>)> {
        seen.folders.values().map(|folder| (folder.uid_next, folder.messages.clone())).collect()
    };
    ensure!(messages(&before) == messages(&after), "mbsync changed the standby");
    Ok(())
}

/// isync's mbsync with state and mail of its own, as a person uses it.
struct Mbsync {
    dir: PathBuf,
}

impl Mbsync {
    fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("mbsync");
        std::fs::create_dir_all(dir.join("mail"))?;
        Ok(Self { dir })
    }

    /// One pass against `server`, both ways.
    fn pass(&self, server: &Dovecot) -> Result<()> {
        let (dir, address) = (self.dir.display(), server.imap_address());
        let config = format!(
            "IMAPAccount mail\nHost {}\nPort {}\nUser ann\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
             IMAPStore far\nAccount mail\n\nMaildirStore near\nPath {dir}/mail/\nInbox {dir}/inbox\nSubFolders Verbatim\n\n\
             Channel mail\nFar :far:\nNear :near:\nPatterns * !R&*\nCreate Near\nRemove Near\nExpunge Near\nSync All\n\
             SyncState {dir}/state/\n",
            address.ip(),
            address.port(),
        );
        std::fs::create_dir_all(self.dir.join("state"))?;
        let file = self.dir.join("mbsyncrc");
        std::fs::write(&file, config)?;
        let output = Command::new("mbsync").arg("--config").arg(&file).arg("--all").output();
        let output = output.context("could not run mbsync (Debian: apt-get install isync)")?;
        ensure!(output.status.success(), "mbsync failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The files of its mail. Each is made by downloading a message; its name tells the flags too.
    fn mail(&self) -> Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        let mut open = vec![self.dir.join("mail"), self.dir.join("inbox")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => open.push(entry.path()),
                    false if entry.path().parent().is_some_and(|dir| dir.ends_with("cur") || dir.ends_with("new")) => {
                        files.insert(entry.path());
                    }
                    false => {}
                }
            }
        }
        Ok(files)
    }
}

/// The folder's rebuild stands still at a place while the user is moved to the standby and works there.
async fn moved_while_rebuilt(scenario: &Scenario, mail: &mut Mail, place: &str) -> Result<()> {
    let failpoints = scenario.stack.failpoints();
    scenario.stack.command(&["switchover", "ann", "--wait"]).await?.expect(0)?;
    let mut there = scenario.log_in_to_standby("ann").await?;
    leave_gaps(&mut there, mail, "INBOX").await?;
    there.log_out().await;
    failpoints.arm(place, 1, Action::Pause)?;
    scenario.stack.command(&["switchback", "ann", "--wait"]).await?.expect(0)?;
    failpoints.reached().await?;

    let order = ["switchover", "ann", "--mode", "emergency", "--max-loss", "any", "--yes", "--wait"];
    let moving = scenario.stack.command(&order);
    let watching = async {
        wait::until("old sessions are cut", PATIENCE, async || {
            let open = scenario.stack.json(&["run", "list", "--open", "--kind", "switchover"]).await?;
            let Some(id) = open[0]["run_id"].as_str() else { return Ok(false) };
            let run = scenario.stack.json(&["run", "show", id]).await?;
            let is_cut = |step: &Value| step["name"] == "cut" && step["ended_at"].is_string();
            Ok(run["steps"].as_array().is_some_and(|steps| steps.iter().any(is_cut)))
        })
        .await?;
        let flipped = async || Ok(scenario.show("ann").await?["active_side"] == "standby");
        let waited = wait::until("the side changes", Duration::from_secs(1), flipped).await;
        failpoints.let_go()?;
        ensure!(waited.is_err(), "the side was changed while a folder was being replaced ({place})");
        Ok(())
    };
    let (moved, watched) = tokio::join!(moving, watching);
    watched?;
    moved?.expect(0)?;

    work_there_and_come_home(scenario, mail).await?;
    settle_with_continuity(scenario).await
}

async fn work_there_and_come_home(scenario: &Scenario, mail: &mut Mail) -> Result<()> {
    let mut there = scenario.log_in_to_standby("ann").await?;
    leave_gaps(&mut there, mail, "INBOX").await?;
    there.store("1:5", "+FLAGS (\\Answered)").await?;
    leave_gaps(&mut there, mail, "Work").await?;
    let worked = there.snapshot().await?;
    there.log_out().await;
    scenario.stack.command(&["switchback", "ann", "--wait"]).await?.expect(0)?;
    let home = scenario.log_in("ann").await?.snapshot().await?;
    let differences = compare(&worked, &home);
    ensure!(differences.is_empty(), "what was done on the standby is not at home: {differences}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_being_rebuilt_does_not_take_the_place_of_one_in_which_its_user_works() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(59);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 20).await?;
    client.log_out().await;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    for place in ["uids.built", "uids.aside"] {
        moved_while_rebuilt(&scenario, &mut mail, place).await?;
    }
    // As planned, as soon as the user is home.
    for _ in 0..2 * times(10) {
        scenario.stack.command(&["switchover", "ann", "--wait"]).await?.expect(0)?;
        work_there_and_come_home(&scenario, &mut mail).await?;
    }
    settle_with_continuity(&scenario).await
}

/// A mail program with a cache that it keeps by QRESYNC, written in Python.
fn qresync(verb: &str, server: &Dovecot, cached: &Path) -> Result<Value> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/qresync.py");
    let address = server.imap_address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let output = Command::new("python3")
        .args([program, verb, &host, &port, "ann", PASSWORD])
        .arg(cached)
        .output()
        .context("could not run python3")?;
    ensure!(output.status.success(), "qresync.py {verb}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn uids_stay_the_same_whatever_is_killed() -> Result<()> {
    let mut scenario = managed().await?;
    let mut mail = Mail::from_seed(51);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 100).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    scenario.protect(&["ann"]).await?;
    for round in 0..4 * times(5) {
        leave_gaps(&mut client, &mut mail, "INBOX").await?;
        client.append("Work", &["$Later"], None, &mail.any()).await?;
        client.select("INBOX").await?;
        client.move_to("1:5", "Sent").await?;
        if round % 2 == 1 {
            // Another folder of the same name: its messages are the old one's.
            client.copy_all("Work", "Empty").await?;
            client.select("INBOX").await?;
            client.replace("Work").await?;
            client.move_all("Empty", "Work").await?;
        }
        // Wherever the applier is just now.
        scenario.stack.kill_role("up")?;
        scenario.stack.start().await?;
    }
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_uidvalidity_on_the_primary_comes_to_the_standby() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(52);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 10).await?;
    client.create("INBOX/Below").await?;
    client.append("INBOX/Below", &[], None, &mail.any()).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    leave_gaps(&mut client, &mut mail, "Work").await?;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    client.log_out().await;
    for (folder, uid_validity) in [("INBOX", "1111111111"), ("Work", "1222222222")] {
        scenario.primary.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", uid_validity, folder])?;
    }
    let is_new =
        |shown: &Snapshot, name: &str, value| shown.folders.get(name).is_some_and(|it| it.uid_validity == value);
    let shown = scenario.snapshot("ann").await?;
    ensure!(
        is_new(&shown, "INBOX", 1_111_111_111) && is_new(&shown, "Work", 1_222_222_222),
        "UIDVALIDITY did not change"
    );
    settle_with_continuity(&scenario).await?;
    // And it goes on from there.
    let mut client = scenario.log_in("ann").await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    leave_gaps(&mut client, &mut mail, "INBOX/Below").await?;
    settle_with_continuity(&scenario).await
}

/// What the mailbox's last comparison finds: kinds of differences, with the folders they are in.
fn named(verified: &Value) -> Vec<(String, String)> {
    let list = verified["mailboxes"][0]["differences"].as_array().cloned().unwrap_or_default();
    let text = |difference: &Value, key: &str| difference[key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|difference| (text(difference, "what"), text(difference, "folder"))).collect()
}

/// Until a folder has been applied again so often; what was said of it the last time.
async fn applied_again(scenario: &Scenario, times: usize) -> Result<Value> {
    let mut last = Value::Null;
    wait::until("the folder is applied again", PATIENCE, async || {
        let events = scenario.stack.json(&["events", "--past", "--kind", "folder_applied_again"]).await?;
        let events = events.as_array().cloned().unwrap_or_default();
        last = events.first().cloned().unwrap_or_default();
        Ok(events.len() >= times)
    })
    .await?;
    Ok(last["detail"].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_uidvalidity_on_the_standby_is_found_and_the_folder_applied_again() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(58);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 10).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    leave_gaps(&mut client, &mut mail, "Work").await?;
    // The same message twice: neither must be lost, nor be there once more.
    let twin = mail.any();
    for flags in [&["\\Seen"][..], &["$Other"]] {
        client.append("INBOX", flags, None, &twin).await?;
    }
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    let renumber = |folder: &str, uid_validity: &str| {
        scenario.standby.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", uid_validity, folder])
    };

    // While nothing changes, a verification finds it, and lets it be mended.
    renumber("INBOX", "1411111111")?;
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--json"]).await?.expect(1)?;
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    assert_eq!(named(&verified), [("uid_validity".to_owned(), "INBOX".to_owned())], "{verified:#}");
    ensure!(verified["mailboxes"][0]["differences"][0]["seq"].as_u64() > Some(0), "{verified:#}");
    let again = applied_again(&scenario, 1).await?;
    ensure!(again["folder"] == "INBOX" && again["taken_over"].as_u64() > Some(20), "{again:#}");
    ensure!(again["brought_back"] == 0 && again["unknown"] == 0, "{again:#}");
    settle_with_continuity(&scenario).await?;

    // The next change finds it too.
    renumber("Work", "1422222222")?;
    leave_gaps(&mut client, &mut mail, "Work").await?;
    client.store("1:*", "+FLAGS ($After)").await?;
    scenario.settle().await?;
    let again = applied_again(&scenario, 2).await?;
    ensure!(again["folder"] == "Work" && again["brought_back"] == 0, "{again:#}");
    settle_with_continuity(&scenario).await?;

    // A person may ask for it as often as need be.
    renumber("INBOX", "1433333333")?;
    let repaired = scenario.stack.json(&["mailbox", "verify", "ann", "--repair"]).await?;
    ensure!(repaired["mailboxes"][0]["equal"] == true, "{repaired:#}");
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    settle_with_continuity(&scenario).await?;
    let verified = scenario.stack.json(&["mailbox", "verify", "ann", "--deep"]).await?;
    assert_eq!(named(&verified), [], "{verified:#}");
    Ok(())
}

/// Somebody deletes a folder on the standby and makes another of its name, with some of its messages and one of their own.
async fn restore_a_part(scenario: &Scenario, folder: &str, foreign: &[u8]) -> Result<()> {
    let mut there = scenario.log_in_to_standby("ann").await?;
    there.create("Kept").await?;
    there.copy_all(folder, "Kept").await?;
    there.select("INBOX").await?;
    there.replace(folder).await?;
    there.append(folder, &[], None, foreign).await?;
    there.select("Kept").await?;
    there.copy("1:10", folder).await?;
    there.select("INBOX").await?;
    there.delete("Kept").await?;
    there.log_out().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_deleted_on_the_standby_come_back_whatever_is_killed() -> Result<()> {
    let mut scenario = managed().await?;
    let mut mail = Mail::from_seed(59);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 5).await?;
    // In the first while a message is added to a folder that is gone, in the others while what is there is taken over, and after that.
    let rounds = [("append.done", "Work"), ("store.ready", "Sent"), ("append.ready", "Entwürfe")];
    for (_, folder) in rounds {
        leave_gaps(&mut client, &mut mail, folder).await?;
    }
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    for (failpoint, folder) in rounds {
        if folder == "Work" {
            let mut there = scenario.log_in_to_standby("ann").await?;
            there.delete(folder).await?;
            there.log_out().await;
        } else {
            restore_a_part(&scenario, folder, &mail.plain(10)).await?;
        }
        scenario.stack.failpoints().arm(failpoint, 1, Action::Abort)?;
        client.append(folder, &["$Late"], None, &mail.any()).await?;
        client.select(folder).await?;
        client.store("1:*", "+FLAGS ($After)").await?;
        scenario.stack.aborted().await.with_context(|| format!("at {failpoint}"))?;
        scenario.stack.failpoints().let_go()?;
        scenario.stack.start().await?;
        scenario.settle().await.with_context(|| format!("killed at {failpoint}"))?;
    }
    // What somebody else put there is named, not removed, until a person says so.
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--json"]).await?.expect(1)?;
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    let extra: BTreeSet<(String, String)> = named(&verified).into_iter().collect();
    let expected = ["Entwürfe", "Sent"].map(|folder| ("extra_on_standby".to_owned(), folder.to_owned()));
    assert_eq!((extra, named(&verified).len()), (expected.into(), 2), "{verified:#}");
    let repaired = scenario.stack.json(&["mailbox", "verify", "ann", "--deep", "--repair"]).await?;
    ensure!(repaired["mailboxes"][0]["equal"] == true, "{repaired:#}");
    // Rebuilt, each message stands where it does on the primary.
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_mail_on_the_standby_costs_uids_and_nothing_else() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(60);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 5).await?;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    let mut there = scenario.log_in_to_standby("ann").await?;
    there.append("INBOX", &[], None, &mail.plain(10)).await?;
    there.log_out().await;
    client.append("INBOX", &["$After"], None, &mail.any()).await?;
    scenario.settle().await?;
    let lost =
        |shown: &Value| shown["uid_continuity_lost"][0]["reason"].as_str().unwrap_or_default().contains("resume");
    scenario.until("ann", "says what stands in the way", lost).await?;
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--json"]).await?.expect(1)?;
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    assert_eq!(named(&verified), [("extra_on_standby".to_owned(), "INBOX".to_owned())], "{verified:#}");
    ensure!(verified["mailboxes"][0]["differences"][0]["seq"].is_null(), "{verified:#}");
    let repaired = scenario.stack.json(&["mailbox", "verify", "ann", "--repair"]).await?;
    ensure!(repaired["mailboxes"][0]["equal"] == true, "{repaired:#}");
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    settle_with_continuity(&scenario).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_killed_at_any_step_is_finished() -> Result<()> {
    let mut scenario = managed().await?;
    let mut mail = Mail::from_seed(57);
    let mut client = scenario.log_in("ann").await?;
    client.create("INBOX/Below/Deeper").await?;
    client.append("INBOX/Below/Deeper", &[], None, &mail.any()).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    scenario.protect(&["ann"]).await?;
    settle_with_continuity(&scenario).await?;
    client.log_out().await;
    for (at, name) in UIDS.iter().enumerate() {
        scenario.stack.failpoints().arm(name, 1, Action::Abort)?;
        let uid_validity = (1_300_000_000 + at).to_string();
        scenario.primary.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", &uid_validity, "INBOX"])?;
        let mut client = scenario.log_in("ann").await?;
        if *name == "uids.raised" {
            client.create("INBOX/Another").await?;
        }
        client.append("INBOX", &[], None, &mail.any()).await?;
        client.log_out().await;
        scenario.stack.aborted().await.with_context(|| format!("at {name}"))?;
        scenario.stack.failpoints().let_go()?;
        scenario.stack.start().await?;
        settle_with_continuity(&scenario).await.with_context(|| format!("killed at {name}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_the_standby_before_is_rebuilt_or_named() -> Result<()> {
    let scenario = managed().await?;
    let mut mail = Mail::from_seed(53);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 5).await?;
    // The same messages are on the standby already, under other UIDs; and in one folder a message that is only there.
    let mut there = scenario.log_in_to_standby("ann").await?;
    there.create("Work").await?;
    for number in 0..20 {
        let message = mail.any();
        client.append("INBOX", &[], None, &message).await?;
        client.append("Work", &[], None, &message).await?;
        if number % 3 != 0 {
            there.append("INBOX", &[], None, &message).await?;
        }
    }
    there.append("Work", &[], None, &mail.plain(10)).await?;
    scenario.protect(&["ann"]).await?;
    let lost = |shown: &Value| shown["uid_continuity_lost"].as_array().cloned().unwrap_or_default();
    let shown = scenario
        .until("ann", "says what stands in the way", |shown| {
            let lost = lost(shown);
            shown["state"] == "mirroring"
                && lost.len() == 1
                && lost[0]["reason"].as_str().unwrap_or("").contains("resume")
        })
        .await?;
    ensure!(lost(&shown)[0]["folder"] == "Work" && shown["uid_continuity"] == false, "{shown:#}");
    there.select("Work").await?;
    let extra = there.uids("Work").await?;
    ensure!(extra.len() == 21, "a message was lost or doubled on the standby: {}", extra.len());
    there.expunge(&extra[0].to_string()).await?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    settle_with_continuity(&scenario).await?;
    leave_gaps(&mut client, &mut mail, "Work").await?;
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_management_interface_uids_differ_and_all_else_is_the_same() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(54);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 5).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    scenario.protect(&["ann"]).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let shown = scenario.show("ann").await?;
    ensure!(shown["uid_continuity"] == false && shown["uid_continuity_lost"] == json!([]), "{shown:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_late_gets_its_uid_all_the_same() -> Result<()> {
    let scenario = Scenario::between(primary(&["ann"]), standby(&["ann"]).managed().quota("*:storage=300K")).await?;
    let mut mail = Mail::from_seed(55);
    let mut client = scenario.log_in("ann").await?;
    for _ in 0..10 {
        client.append("INBOX", &[], None, &mail.plain(100)).await?;
    }
    client.select("INBOX").await?;
    client.expunge("1,4:5").await?;
    let large = client.append("INBOX", &["$Large"], None, &mail.plain(200_000)).await?.context("no APPENDUID")?;
    // Does not fit beside the large one, but twice without it: to be rebuilt, a folder needs room for itself once more.
    client.append("INBOX", &["$Late"], None, &mail.plain(120_000)).await?;
    client.append("INBOX", &[], None, &mail.plain(100)).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let apart = |shown: &Value| shown["set_aside"].as_u64() > Some(0) && shown["uid_continuity"] == true;
    scenario.until("ann", "lacks a message and has the primary's UIDs", apart).await?;
    // Room is made, and what did not fit comes after others that were later.
    client.select("INBOX").await?;
    client.expunge(&large.to_string()).await?;
    let whole = |shown: &Value| shown["set_aside"] == 0 && shown["uid_continuity"] == true;
    scenario.until("ann", "has all messages under their UIDs", whole).await?;
    settle_with_continuity(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_interface_that_refuses_stops_nothing_and_is_used_once_it_does_not() -> Result<()> {
    let scenario = managed().await?;
    let key_file = scenario.standby.key_file().context("it has no management interface")?;
    let key = std::fs::read(&key_file)?;
    std::fs::write(&key_file, "another")?;
    let mut mail = Mail::from_seed(56);
    let mut client = scenario.log_in("ann").await?;
    fill(&mut client, &mut mail, 5).await?;
    leave_gaps(&mut client, &mut mail, "INBOX").await?;
    let checked = scenario.stack.command(&["server", "check", STANDBY]).await?;
    ensure!(checked.code != 0 && checked.stdout.contains("refused the key"), "{checked:?}");
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let refused = |shown: &Value| {
        let reason = shown["uid_continuity_lost"][0]["reason"].as_str().unwrap_or_default();
        shown["uid_continuity"] == false && reason.contains("refused the key")
    };
    scenario.until("ann", "says why UIDs differ", refused).await?;
    std::fs::write(&key_file, key)?;
    let checked = scenario.stack.command(&["server", "check", STANDBY, "--address", "ann"]).await?.expect(0)?;
    ensure!(checked.stdout.contains("primary's UIDVALIDITY and UIDs"), "{checked:?}");
    // What its software cannot do is said before anybody has to find out.
    for known in ["malformed messages", "a bare LF", "255 octets", "Maildir++", "imap_metadata", "in the future"] {
        ensure!(checked.stdout.contains(known), "{known} is missing: {checked:?}");
    }
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    settle_with_continuity(&scenario).await
}
