//! Users work on the standby and come home, with nothing lost and nothing twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, Format};
use understudy_tests::failpoint::{Action, SWITCH};
use understudy_tests::front_door::hand_over;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::{Mode, Proxy};
use understudy_tests::scenario::{self, PRIMARY, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::mirroring::{do_everything, fill};
use crate::switch_walk::without_order;
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);

/// A protected mailbox with some mail, mirrored.
async fn mirrored(users: &[&str], messages: usize) -> Result<(Scenario, Mail)> {
    mirrored_in(Scenario::start(users).await?, users, messages).await
}

pub(crate) async fn mirrored_in(scenario: Scenario, users: &[&str], messages: usize) -> Result<(Scenario, Mail)> {
    let mut mail = Mail::from_seed(50);
    for user in users {
        fill(&mut scenario.log_in(user).await?, &mut mail, messages).await?;
    }
    scenario.protect(users).await?;
    scenario.settle().await?;
    for user in users {
        scenario.until(user, "is mirroring", |shown| shown["state"] == "mirroring").await?;
    }
    Ok((scenario, mail))
}

/// Runs `switchover` or `switchback` to its end and gives what became of the first mailbox.
async fn switch(scenario: &Scenario, arguments: &[&str]) -> Result<Value> {
    let answer = scenario.stack.command(&[arguments, &["--wait", "--json"]].concat()).await?;
    let answer = answer.expect(0).with_context(|| format!("understudy {}", arguments.join(" ")))?;
    let said: Value = serde_json::from_str(&answer.stdout)?;
    Ok(said["result"]["mailboxes"][0].clone())
}

async fn is_on(scenario: &Scenario, user: &str, state: &str, side: &str) -> Result<()> {
    let shown = scenario.show(user).await?;
    ensure!(
        shown["state"] == state && shown["active_side"] == side,
        "{user} should be {state} on the {side}: {shown:#}"
    );
    Ok(())
}

pub(crate) async fn snapshot_of(server: &Dovecot, user: &str) -> Result<Snapshot> {
    let address = server.imap_address();
    Client::log_in(address, user, understudy_tests::dovecot::PASSWORD).await?.snapshot().await
}

/// Equal but for the order in folders to which both sides had added on their own.
pub(crate) async fn assert_same_but_for_order(scenario: &Scenario, user: &str) -> Result<()> {
    scenario.settle().await?;
    let ours = without_order(snapshot_of(&scenario.primary, user).await?);
    let theirs = without_order(snapshot_of(&scenario.standby, user).await?);
    let found = compare(&ours, &theirs);
    ensure!(found.is_empty(), "the mailbox of {user} is not the same on both sides: {found}");
    Ok(())
}

#[tokio::test]
async fn a_user_works_on_the_standby_and_comes_home() -> Result<()> {
    let (scenario, mut mail) = mirrored(&["ann", "bob"], 30).await?;
    let moved = switch(&scenario, &["switchover", "ann"]).await?;
    assert_eq!(moved["outcome"], "done", "{moved:#}");
    assert_eq!(moved["rpo_seconds"], 0.0, "{moved:#}");
    is_on(&scenario, "ann", "on_standby", "standby").await?;
    is_on(&scenario, "bob", "mirroring", "primary").await?;

    let before = snapshot_of(&scenario.primary, "ann").await?;
    let mut ann = scenario.log_in_to_standby("ann").await?;
    do_everything(&mut ann, &mut mail).await?;
    drop(ann);
    let worked = snapshot_of(&scenario.standby, "ann").await?;

    let would = switch(&scenario, &["switchback", "ann", "--dry-run"]).await?;
    assert!(would["would"]["added_to_primary"].as_u64() > Some(0), "{would:#}");
    let untouched = compare(&before, &snapshot_of(&scenario.primary, "ann").await?);
    assert!(untouched.is_empty(), "a dry run changed the primary: {untouched}");

    let home = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(home["outcome"], "done", "{home:#}");
    is_on(&scenario, "ann", "mirroring", "primary").await?;
    let differences = compare(&worked, &snapshot_of(&scenario.primary, "ann").await?);
    assert!(differences.is_empty(), "what was done on the standby is not at home: {differences}");
    scenario.assert_same("ann").await?;

    // Mirroring goes on by itself, and without a second seed.
    let journal = scenario.show("ann").await?["journal"]["applied"].as_i64();
    let mut ann = scenario.log_in("ann").await?;
    ann.append("INBOX", &[], None, &mail.any()).await?;
    ann.select("INBOX").await?;
    ann.store("1:2", "+FLAGS (\\Answered)").await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    let later = scenario.show("ann").await?["journal"]["applied"].as_i64();
    assert!(later <= journal.map(|journal| journal + 4), "{journal:?} became {later:?}: seeded again");
    scenario.stack.command(&["mailbox", "verify", "--all", "--deep"]).await?.expect(0)?;

    // And once more, there and back.
    switch(&scenario, &["switchover", "ann"]).await?;
    scenario.log_in_to_standby("ann").await?.append("Work", &["\\Flagged"], None, &mail.any()).await?;
    switch(&scenario, &["switchback", "ann"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

#[tokio::test]
async fn what_the_primary_had_and_never_shipped_is_merged() -> Result<()> {
    let (scenario, mut mail) = mirrored_in(Scenario::apart(&["ann"]).await?, &["ann"], 20).await?;
    scenario.stack.link()?.set(Mode::Cut);
    // Stranded: nobody beyond the link knows of it.
    let mut on_primary = scenario.log_in("ann").await?;
    on_primary.append("INBOX", &["$Stranded"], None, &mail.plain(500)).await?;
    on_primary.select("INBOX").await?;
    on_primary.store("1", "+FLAGS (\\Flagged)").await?;
    on_primary.store("2", "+FLAGS (\\Answered)").await?;
    on_primary.expunge("4").await?;

    let moved = switch(&scenario, &["switchover", "ann", "--mode", "emergency", "--yes"]).await?;
    assert_eq!(moved["outcome"], "done", "{moved:#}");
    is_on(&scenario, "ann", "on_standby", "standby").await?;
    let mut on_standby = scenario.log_in_to_standby("ann").await?;
    on_standby.append("INBOX", &[], None, &mail.plain(700)).await?;
    on_standby.select("INBOX").await?;
    on_standby.store("2", "+FLAGS (\\Seen)").await?;
    on_standby.expunge("3").await?;
    on_standby.create("Made on the standby").await?;
    on_standby.append("Made on the standby", &[], None, &mail.plain(300)).await?;

    scenario.stack.link()?.set(Mode::Pass);
    on_primary.append("INBOX", &["$Late"], None, &mail.plain(900)).await?;
    // The sweep brings over what the primary has, while the user works on the standby.
    let arrived = wait::until("stranded mail is on the standby", PATIENCE, async || {
        let seen = snapshot_of(&scenario.standby, "ann").await?;
        let has = |flag: &str| seen.folders["INBOX"].messages.iter().any(|message| message.flags.contains(flag));
        Ok(has("$stranded") && has("$late"))
    });
    arrived.await?;
    let home = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(home["outcome"], "done", "{home:#}");
    assert_same_but_for_order(&scenario, "ann").await?;

    let seen = snapshot_of(&scenario.primary, "ann").await?;
    let inbox = &seen.folders["INBOX"];
    let count = |flag: &str| inbox.messages.iter().filter(|message| message.flags.contains(flag)).count();
    assert_eq!((count("$stranded"), count("$late")), (1, 1));
    assert_eq!(inbox.messages.len(), 20 + 3 - 2, "20 and 3 new ones, 2 removed");
    let second = inbox.messages.iter().find(|message| message.uid == 2).context("UID 2")?;
    assert!(second.flags.contains("\\answered") && second.flags.contains("\\seen"), "{second:?}");
    assert!(seen.folders.contains_key("Made on the standby"));
    Ok(())
}

#[tokio::test]
async fn what_a_user_flags_while_stranded_changes_come_stays() -> Result<()> {
    let (scenario, _) = mirrored_in(Scenario::apart(&["ann"]).await?, &["ann"], 5).await?;
    scenario.stack.link()?.set(Mode::Cut);
    let mut on_primary = scenario.log_in("ann").await?;
    on_primary.select("INBOX").await?;
    on_primary.store("2", "+FLAGS (\\Answered)").await?;
    let failpoints = scenario.stack.failpoints();
    failpoints.arm("merge.read", 1, Action::Pause)?;
    let moved = switch(&scenario, &["switchover", "ann", "--mode", "emergency", "--yes"]).await?;
    assert_eq!(moved["outcome"], "done", "{moved:#}");

    // Both sides were read, nothing is written yet.
    failpoints.reached().await?;
    let mut on_standby = scenario.log_in_to_standby("ann").await?;
    on_standby.select("INBOX").await?;
    on_standby.store("2", "+FLAGS (\\Seen)").await?;
    failpoints.let_go()?;
    let mut flags = std::collections::BTreeSet::new();
    let arrived = wait::until("the stranded flag is on the standby", PATIENCE, async || {
        let seen = snapshot_of(&scenario.standby, "ann").await?;
        flags = seen.folders["INBOX"].messages.iter().find(|message| message.uid == 2).context("UID 2")?.flags.clone();
        Ok(flags.contains("\\answered"))
    });
    arrived.await?;
    assert!(flags.contains("\\seen"), "the user's flag is gone: {flags:?}");
    Ok(())
}

/// Mail that was on its way to the standby when its user went home is brought home, once, whatever happens in between.
#[tokio::test]
async fn what_the_standby_takes_after_a_switchback_comes_home() -> Result<()> {
    let (mut scenario, mut mail) = mirrored(&["ann"], 5).await?;
    switch(&scenario, &["switchover", "ann"]).await?;
    switch(&scenario, &["switchback", "ann"]).await?;
    let failpoints = scenario.stack.failpoints();
    failpoints.arm("late.appended", 1, Action::Abort)?;
    let (late, flagged) = (mail.plain(400), mail.plain(700));
    let mut on_standby = scenario.log_in_to_standby("ann").await?;
    on_standby.append("INBOX", &[], None, &late).await?;
    on_standby.append("Work", &["\\Flagged", "$Late"], None, &flagged).await?;
    scenario.stack.aborted().await.context("nothing was brought home")?;
    failpoints.let_go()?;
    scenario.stack.start().await?;
    let wanted = [("INBOX", blake3::hash(&late)), ("Work", blake3::hash(&flagged))];
    let arrived = wait::until("late mail is at home", PATIENCE, async || {
        let seen = snapshot_of(&scenario.primary, "ann").await?;
        Ok(wanted.iter().all(|(folder, digest)| seen.folders[*folder].messages.iter().any(|m| m.digest == *digest)))
    });
    arrived.await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let seen = snapshot_of(&scenario.primary, "ann").await?;
    for (folder, digest) in wanted {
        let there: Vec<_> = seen.folders[folder].messages.iter().filter(|message| message.digest == digest).collect();
        assert_eq!(there.len(), 1, "{folder}: {there:?}");
    }
    scenario.stack.command(&["mailbox", "verify", "--all"]).await?.expect(0).map(drop)
}

/// Aborts the program at `point` on the way over or home, starts it again, and sees that the run goes on to its end.
async fn survives(scenario: &mut Scenario, mail: &mut Mail, way: &str, point: &str) -> Result<()> {
    let failpoints = scenario.stack.failpoints();
    failpoints.arm(point, 1, Action::Abort)?;
    let started = scenario.stack.command(&[way, "ann", "--json"]).await?.expect(0)?;
    let run: Value = serde_json::from_str(&started.stdout)?;
    let run = run["run_id"].as_str().context("a run")?.to_owned();
    scenario.stack.aborted().await.with_context(|| format!("{way} never came to {point}"))?;
    failpoints.let_go()?;
    scenario.stack.start().await?;
    let mut last = Value::Null;
    let ended = wait::until("the run ends", PATIENCE, async || {
        last = scenario.stack.json(&["run", "show", &run]).await.unwrap_or_default();
        Ok(matches!(last["state"].as_str(), Some("done" | "failed" | "cancelled")))
    });
    ended.await.with_context(|| format!("{last:#}"))?;
    ensure!(last["state"] == "done", "{way} after an abort at {point}: {last:#}");
    let _ = mail;
    Ok(())
}

#[tokio::test]
async fn a_run_goes_on_where_it_was_after_an_abort_at_any_step() -> Result<()> {
    let (mut scenario, mut mail) = mirrored(&["ann"], 10).await?;
    for point in SWITCH {
        scenario.log_in("ann").await?.append("INBOX", &["$Home"], None, &mail.any()).await?;
        if *point == "switch.brought" {
            switch(&scenario, &["switchover", "ann"]).await?;
        } else {
            survives(&mut scenario, &mut mail, "switchover", point).await?;
        }
        is_on(&scenario, "ann", "on_standby", "standby").await?;
        let mut ann = scenario.log_in_to_standby("ann").await?;
        ann.append("INBOX", &["$Away"], None, &mail.any()).await?;
        ann.append("Work", &[], None, &mail.plain(400)).await?;
        ann.select("INBOX").await?;
        ann.store("1", "+FLAGS (\\Seen)").await?;
        drop(ann);
        survives(&mut scenario, &mut mail, "switchback", point).await?;
        is_on(&scenario, "ann", "mirroring", "primary").await?;
        scenario.settle_and_compare(&["ann"]).await.with_context(|| format!("after {point}"))?;
    }
    let seen = snapshot_of(&scenario.primary, "ann").await?;
    let count =
        |flag: &str| seen.folders["INBOX"].messages.iter().filter(|message| message.flags.contains(flag)).count();
    assert_eq!((count("$home"), count("$away")), (SWITCH.len(), SWITCH.len()), "each exactly once");
    Ok(())
}

#[tokio::test]
async fn many_move_in_one_run_and_what_cannot_be_is_said() -> Result<()> {
    let (scenario, _) = mirrored(&["ann", "bob", "cat"], 5).await?;
    scenario.stack.command(&["mailbox", "pause", "cat"]).await?.expect(0)?;
    for (arguments, said) in [
        (&["switchover", "--group", "nobody"][..], "nobody"),
        (&["switchover", "--server", "nowhere"], "nowhere"),
        (&["switchover", "dan"], "dan"),
    ] {
        let refused = scenario.stack.command(arguments).await?;
        assert!(refused.code != 0 && refused.stderr.contains(said), "{arguments:?}: {}", refused.stderr);
    }
    let moved = scenario.stack.command(&["switchover", "--server", PRIMARY, "--wait", "--json"]).await?.expect(3)?;
    let moved: Value = serde_json::from_str(&moved.stdout)?;
    assert_eq!((&moved["result"]["done"], &moved["result"]["failed"]), (&2.into(), &1.into()), "{moved:#}");
    is_on(&scenario, "cat", "paused", "primary").await?;

    // Both at once, and again: one run, and nobody is moved twice. It waits until both have asked.
    let failpoints = scenario.stack.failpoints();
    failpoints.arm("switch.checked", 1, Action::Pause)?;
    let (one, other) = tokio::join!(
        scenario.stack.json(&["switchback", "ann", "bob"]),
        scenario.stack.json(&["switchback", "bob", "ann"]),
    );
    failpoints.reached().await?;
    failpoints.let_go()?;
    assert_eq!(one?["run_id"], other?["run_id"]);
    switch(&scenario, &["switchback", "--all"]).await?;
    let already = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(already["outcome"], "already", "{already:#}");
    scenario.stack.command(&["mailbox", "resume", "cat"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann", "bob", "cat"]).await
}

/// A held mailbox keeps a connection to the database, and whatever it waits for needs another one.
#[tokio::test]
async fn more_mailboxes_than_there_are_connections_move_in_one_run() -> Result<()> {
    let users: Vec<String> = (0..60).map(|number| format!("user{number:02}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut scenario = Scenario::start(&users).await?;
    scenario.primary.kill()?;
    scenario.protect(&users).await?;
    let arguments = ["switchover", "--all", "--mode", "emergency", "--max-loss", "any", "--yes", "--wait", "--json"];
    let moved = scenario.stack.command(&arguments).await?.expect(0)?;
    let moved: Value = serde_json::from_str(&moved.stdout)?;
    ensure!(moved["result"]["done"] == users.len(), "{moved:#}");
    let steps = scenario.stack.json(&["run", "show", moved["run_id"].as_str().context("a run")?]).await?;
    let released = steps["steps"].as_array().into_iter().flatten().filter(|step| step["name"] == "release").count();
    ensure!(released == users.len(), "{released} have a step `release`");
    Ok(())
}

#[tokio::test]
async fn a_switchover_while_a_folder_is_applied_again_is_done_when_asked_again() -> Result<()> {
    let (primary, mut standby) =
        (Dovecot::start(scenario::primary(&["ann"]))?, Dovecot::start(scenario::standby(&["ann"]))?);
    let proxy = Proxy::to(standby.imap_address()).await?;
    standby.behind(proxy.address());
    let stack = Stack::up(&[("primary", &primary), ("standby", &standby)]).await?;
    let (scenario, mut mail) = mirrored_in(Scenario { primary, standby, stack }, &["ann"], 10).await?;
    let mut ann = scenario.log_in("ann").await?;
    let many: Vec<Vec<u8>> = (0..200).map(|_| mail.plain(60_000)).collect();
    ann.append_all("Work", &many).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let before = snapshot_of(&scenario.primary, "ann").await?;
    scenario.standby.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", "1455555555", "INBOX"])?;
    let mut there = scenario.log_in_to_standby("ann").await?;
    there.delete("Work").await?;
    there.log_out().await;

    // It finds both, lets them be applied again, and moves nobody to what is not equal. Slowly: bringing back takes longer than looking.
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    let mut said = Vec::new();
    wait::until("the user is on the standby", PATIENCE, async || {
        let answer = scenario.stack.command(&["switchover", "ann", "--wait", "--json"]).await?;
        let moved: Value = serde_json::from_str(&answer.stdout)?;
        let moved = moved["result"]["mailboxes"][0].clone();
        let done = moved["outcome"] == "done";
        if !done {
            is_on(&scenario, "ann", "mirroring", "primary").await?;
            ensure!(moved.to_string().contains("between the two sides"), "{moved:#}");
        }
        said.push(done);
        proxy.set(Mode::Pass);
        Ok(done)
    })
    .await?;
    println!("asked {} times", said.len());
    is_on(&scenario, "ann", "on_standby", "standby").await?;
    let differences = compare(&before, &snapshot_of(&scenario.standby, "ann").await?);
    ensure!(differences.is_empty(), "the standby is not what the primary was: {differences}");
    Ok(())
}

#[tokio::test]
async fn a_switchover_that_is_ended_in_time_changes_nothing() -> Result<()> {
    let (scenario, mut mail) = mirrored(&["ann"], 5).await?;
    // Somebody who reaches the primary past the front doors goes on writing: it never becomes still.
    let mut writer = scenario.log_in("ann").await?;
    let mut flood = Mail::from_seed(51);
    let writing = tokio::spawn(async move {
        while writer.append("INBOX", &[], None, &flood.plain(200)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let run = scenario.stack.json(&["switchover", "ann"]).await?;
    let id = run["run_id"].as_str().context("a run")?.to_owned();
    let draining = wait::until("the run drains", PATIENCE, async || {
        let shown = scenario.stack.json(&["run", "show", &id]).await?;
        Ok(shown["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["name"] == "drain")))
    });
    draining.await?;
    is_on(&scenario, "ann", "switching_over", "primary").await?;
    scenario.stack.command(&["switchover", "ann", "--cancel"]).await?.expect(0)?;
    scenario.until("ann", "stays", |shown| shown["state"] == "mirroring" && shown["epoch"] == 1).await?;
    let mut ended = Value::Null;
    let ending = wait::until("the run has ended", PATIENCE, async || {
        ended = scenario.stack.json(&["run", "show", &id]).await?;
        Ok(ended["state"] != "running")
    });
    ending.await?;
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    writing.abort();
    scenario.log_in("ann").await?.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    switch(&scenario, &["switchover", "ann"]).await?;
    is_on(&scenario, "ann", "on_standby", "standby").await
}

#[tokio::test]
async fn a_log_in_that_only_reads_is_refused_before_anything_happens() -> Result<()> {
    let primary = scenario::primary(&["ann"]).without_way_home();
    let (scenario, _) =
        mirrored_in(Scenario::between(primary, scenario::standby(&["ann"])).await?, &["ann"], 5).await?;
    switch(&scenario, &["switchover", "ann"]).await?;
    let refused = scenario.stack.command(&["switchback", "ann", "--wait"]).await?.expect(1)?;
    assert!(refused.stderr.contains("--return-user"), "{}", refused.stderr);
    is_on(&scenario, "ann", "on_standby", "standby").await
}

/// The primary was lost and made anew, empty.
async fn refilled(format: Format) -> Result<()> {
    let primary = scenario::primary(&["ann"]).format(format);
    let (mut scenario, mut mail) =
        mirrored_in(Scenario::between(primary, scenario::standby(&["ann"])).await?, &["ann"], 20).await?;
    scenario.primary.kill()?;
    let moved = switch(&scenario, &["switchover", "ann", "--mode", "emergency", "--yes"]).await?;
    assert_eq!(moved["outcome"], "done", "{moved:#}");
    let mut ann = scenario.log_in_to_standby("ann").await?;
    ann.append("INBOX", &["$Away"], None, &mail.any()).await?;
    ann.select("INBOX").await?;
    ann.expunge("2").await?;
    let worked = snapshot_of(&scenario.standby, "ann").await?;

    std::fs::remove_dir_all(scenario.primary.dir().join("home/ann"))?;
    scenario.primary.start_again()?;
    let mut fresh = scenario.log_in("ann").await?;
    fresh.append("INBOX", &["$Fresh"], None, &mail.any()).await?;
    drop(fresh);
    let home = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(home["outcome"], "done", "{home:#}");
    assert_same_but_for_order(&scenario, "ann").await?;
    let seen = snapshot_of(&scenario.primary, "ann").await?;
    assert_eq!(seen.folders["INBOX"].messages.len(), worked.folders["INBOX"].messages.len() + 1);
    assert_eq!(seen.folders.len(), worked.folders.len());
    Ok(())
}

/// The primary numbers everything anew while its user is away.
#[tokio::test]
async fn a_primary_whose_uidvalidity_changed_meanwhile_is_reconciled() -> Result<()> {
    let (scenario, mut mail) = mirrored(&["ann"], 20).await?;
    switch(&scenario, &["switchover", "ann"]).await?;
    let mut ann = scenario.log_in_to_standby("ann").await?;
    ann.append("INBOX", &["$Away"], None, &mail.any()).await?;
    ann.select("INBOX").await?;
    ann.store("1", "+FLAGS (\\Flagged)").await?;
    ann.expunge("2").await?;
    ann.log_out().await;
    let worked = snapshot_of(&scenario.standby, "ann").await?;
    for folder in ["INBOX", "Work"] {
        scenario.primary.doveadm(&["mailbox", "update", "-u", "ann", "--uid-validity", "1455555555", folder])?;
    }
    let home = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(home["outcome"], "done", "{home:#}");
    assert_same_but_for_order(&scenario, "ann").await?;
    let seen = snapshot_of(&scenario.primary, "ann").await?;
    // What the user removed may be kept, since who renumbered a folder tells of no removals; nothing is there twice.
    let (inbox, before) = (&seen.folders["INBOX"].messages, &worked.folders["INBOX"].messages);
    let count = |digest| inbox.iter().filter(|message| message.digest == digest).count();
    ensure!(before.iter().all(|message| count(message.digest) == 1), "{inbox:?}");
    ensure!(inbox.len() <= before.len() + 1 && seen.folders.len() == worked.folders.len(), "{inbox:?}");
    scenario.settle().await
}

/// A mail whose delivery to the dying primary nobody heard of is delivered again, to the standby: its user has it once, there and at home.
#[tokio::test]
async fn a_mail_that_was_delivered_to_both_sides_stays_once() -> Result<()> {
    let (scenario, _) = mirrored_in(Scenario::apart(&["ann"]).await?, &["ann"], 5).await?;
    scenario.stack.link()?.set(Mode::Cut);
    // As a mail exchanger queued it; each server writes its own lines above.
    let queued = |number: u32| {
        format!(
            "Received: from a.example (a.example [192.0.2.1])\r\n\tby mx.example.org (Postfix) with ESMTP id 4X{number}\r\n\tfor <ann@example.org>; Sun, 22 Nov 2026 20:00:00 +0000\r\nSubject: mail-{number}\r\n\r\nText.\r\n"
        )
    };
    for number in [1, 2] {
        hand_over(scenario.primary.lmtp_address(), "ann", &queued(number)).await?;
    }
    let moved = switch(&scenario, &["switchover", "ann", "--mode", "emergency", "--yes"]).await?;
    assert_eq!(moved["outcome"], "done", "{moved:#}");
    for number in [2, 3] {
        hand_over(scenario.standby.lmtp_address(), "ann", &queued(number)).await?;
    }
    scenario.stack.link()?.set(Mode::Pass);
    let subjects = async |server: &Dovecot| -> Result<Vec<usize>> {
        let mut client = Client::log_in(server.imap_address(), "ann", understudy_tests::dovecot::PASSWORD).await?;
        client.select("INBOX").await?;
        let mut found = Vec::new();
        for number in 1..=3 {
            let said = client.command(&format!("UID SEARCH HEADER Subject mail-{number}")).await?;
            let numbers = said.iter().filter(|row| row.get(1).is_some_and(|name| name.is("SEARCH")));
            found.push(numbers.map(|row| row.len() - 2).sum());
        }
        Ok(found)
    };
    wait::until("stranded mail is on the standby", PATIENCE, async || Ok(subjects(&scenario.standby).await?[0] == 1))
        .await?;
    ensure!(
        subjects(&scenario.standby).await? == [1, 1, 1],
        "on the standby: {:?}",
        subjects(&scenario.standby).await?
    );
    let home = switch(&scenario, &["switchback", "ann"]).await?;
    assert_eq!(home["outcome"], "done", "{home:#}");
    for server in [&scenario.primary, &scenario.standby] {
        let found = subjects(server).await?;
        ensure!(found == [1, 1, 1], "{} has {found:?}", server.name());
    }
    assert_same_but_for_order(&scenario, "ann").await
}

#[tokio::test]
async fn a_primary_that_comes_back_empty_is_refilled() -> Result<()> {
    refilled(Format::Mdbox).await?;
    if times(2) > 1 { refilled(Format::Maildir).await } else { Ok(()) }
}
