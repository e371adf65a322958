//! Very many mailboxes of a dead primary move in one run: together, and yet each with its own steps and its own end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use understudy_tests::failpoint::Action;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, PRIMARY, STANDBY, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::mirroring::fill;
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);
const EMERGENCY: [&str; 6] = ["--mode", "emergency", "--max-loss", "any", "--yes", "--json"];

/// Starts an emergency for what `selector` means, and gives its run.
async fn begin(stack: &Stack, selector: &[&str]) -> Result<String> {
    let said = stack.command(&[&["switchover"], selector, &EMERGENCY].concat()).await?.expect(0)?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    Ok(said["run_id"].as_str().context("no run")?.to_owned())
}

async fn ended(stack: &Stack, run: &str) -> Result<Value> {
    let mut last = Value::Null;
    let ending = wait::until("the run ends", PATIENCE, async || {
        last = stack.json(&["run", "show", run]).await.unwrap_or_default();
        Ok(matches!(last["state"].as_str(), Some("done" | "failed" | "cancelled")))
    });
    ending.await.with_context(|| format!("{last:#}"))?;
    Ok(last)
}

/// What became of each mailbox, by address.
fn outcomes(run: &Value) -> BTreeMap<String, Value> {
    let mailboxes = run["result"]["mailboxes"].as_array().into_iter().flatten();
    mailboxes.map(|one| (one["address"].as_str().unwrap_or_default().to_owned(), one.clone())).collect()
}

/// The steps of a mailbox in their order, with what came of each; empty while it is under way.
fn steps(run: &Value, address: &str) -> Vec<(String, String)> {
    let steps = run["steps"].as_array().into_iter().flatten().filter(|step| step["address"] == address);
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    steps.map(|step| (text(step, "name"), text(step, "outcome"))).collect()
}

/// The run moved this mailbox, by each of the steps, and once.
fn is_moved(run: &Value, address: &str) -> Result<Value> {
    let became = outcomes(run).remove(address).with_context(|| format!("{address} is not in the result"))?;
    ensure!(became["outcome"] == "done", "{became:#}");
    let steps = steps(run, address);
    for name in ["check", "hold", "cut", "flip", "release"] {
        let taken = steps.iter().filter(|(step, outcome)| step == name && !outcome.is_empty()).count();
        ensure!(taken >= 1 && (taken == 1 || name != "flip"), "{address}: {name} was taken {taken} times: {steps:?}");
    }
    Ok(became)
}

async fn shows(stack: &Stack, address: &str, state: &str, side: &str, epoch: u64) -> Result<()> {
    let shown = stack.json(&["mailbox", "show", address]).await?;
    let is = shown["state"] == state && shown["active_side"] == side && shown["epoch"] == epoch;
    ensure!(is, "{address} should be {state} on the {side} in epoch {epoch}: {shown:#}");
    Ok(())
}

/// Most take their steps together; who has something left to apply, is not let in or is where it should be gets its own treatment.
#[tokio::test]
async fn each_of_many_in_an_emergency_gets_what_is_right_for_it() -> Result<()> {
    let many = ["amy", "ann", "ben", "bob", "cat"];
    let special = ["left", "paused", "braked", "away"];
    let users: Vec<&str> = many.iter().chain(&special).copied().collect();
    let on_primary: Vec<&str> = users.iter().copied().chain(["ghost", "other"]).collect();
    let on_standby: Vec<&str> = users.iter().copied().chain(["other"]).collect();
    let mut scenario = Scenario::between(scenario::primary(&on_primary), scenario::standby(&on_standby)).await?;
    let mut mail = Mail::from_seed(71);
    for user in users.iter().chain(&["other"]) {
        fill(&mut scenario.log_in(user).await?, &mut mail, 12).await?;
    }
    let stack = &scenario.stack;
    stack
        .command(&["policy", "set", "strict", "brake.share=0.1", "brake.messages=3", "priority=1"])
        .await?
        .expect(0)?;
    let protect = |users: &[&'static str], more: &[&'static str]| {
        [&["mailbox", "protect"], users, &["--primary", PRIMARY, "--standby", STANDBY], more].concat()
    };
    let plain: Vec<&str> = many.into_iter().chain(["left", "paused", "away"]).collect();
    stack.command(&protect(&plain, &["--group", "moved"])).await?.expect(0)?;
    stack.command(&protect(&["braked"], &["--group", "moved", "--policy", "strict"])).await?.expect(0)?;
    stack.command(&protect(&["other"], &[])).await?.expect(0)?;
    for user in users.iter().chain(&["other"]) {
        scenario.until(user, "is mirroring", |shown| shown["state"] == "mirroring").await?;
    }
    scenario.settle().await?;
    // The standby does not know this one.
    stack.command(&protect(&["ghost"], &["--group", "moved"])).await?.expect(0)?;
    stack.command(&["switchover", "away", "--wait"]).await?.expect(0)?;
    stack.command(&["mailbox", "pause", "paused"]).await?.expect(0)?;
    let mut braked = scenario.log_in("braked").await?;
    braked.select("INBOX").await?;
    braked.expunge("1:*").await?;
    scenario.until("braked", "is held", |shown| shown["state"] == "held").await?;

    // What is received cannot be applied for the moment.
    scenario.standby.freeze();
    let message = mail.plain(300);
    scenario.log_in("left").await?.append("INBOX", &["$Left"], None, &message).await?;
    scenario
        .until("left", "has something left to apply", |shown| {
            shown["journal"]["received"].as_i64() > shown["journal"]["applied"].as_i64()
        })
        .await?;
    scenario.primary.kill()?;
    let run = begin(&scenario.stack, &["--group", "moved"]).await?;
    let checked = wait::until("the one with something left is looked at", PATIENCE, async || {
        let shown = scenario.stack.json(&["run", "show", &run]).await?;
        Ok(shown["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["address"] == "left")))
    });
    checked.await?;
    scenario.standby.resume();
    let run = ended(&scenario.stack, &run).await?;

    for user in many.iter().chain(&["left", "paused", "braked"]) {
        let became = is_moved(&run, user)?;
        ensure!(became["lost_transactions"] == 0 && became["rto_seconds"].as_f64().is_some(), "{became:#}");
        ensure!(became["stake"]["primary_answered"] == false && became["rpo_seconds"].as_f64().is_some(), "{became:#}");
        shows(&scenario.stack, user, "on_standby", "standby", 2).await?;
    }
    let outcomes = outcomes(&run);
    ensure!(outcomes.len() == users.len() + 1, "{:?}", outcomes.keys());
    ensure!(outcomes["away"]["outcome"] == "already" && steps(&run, "away").is_empty(), "{:#}", outcomes["away"]);
    shows(&scenario.stack, "away", "on_standby", "standby", 2).await?;
    let refused = &outcomes["ghost"];
    ensure!(refused["outcome"] == "failed" && refused["reason"].as_str().is_some(), "{refused:#}");
    ensure!(refused["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{refused:#}");
    ensure!(steps(&run, "ghost").iter().all(|(name, _)| name == "check"), "{:?}", steps(&run, "ghost"));
    let ghost = scenario.stack.json(&["mailbox", "show", "ghost"]).await?;
    ensure!(ghost["active_side"] == "primary" && ghost["epoch"] == 1, "{ghost:#}");
    let first = &run["result"]["mailboxes"][0]["address"];
    ensure!(first == "braked", "{first} is moved before who has priority");
    // Nobody knows what a primary that does not answer has: no loss cannot be promised.
    let no_loss = ["switchover", "other", "--mode", "emergency", "--max-loss", "0", "--yes", "--wait"];
    let said = scenario.stack.command(&no_loss).await?.expect(1)?.stderr;
    ensure!(said.contains("more than the 0 allowed") && said.contains("--max-loss"), "{said}");
    shows(&scenario.stack, "other", "mirroring", "primary", 1).await?;
    let there = scenario.log_in_to_standby("left").await?.snapshot().await?;
    let digest = blake3::hash(&message);
    let arrived = there.folders["INBOX"].messages.iter().filter(|message| message.digest == digest).count();
    ensure!(arrived == 1, "what was received and not applied is {arrived} times on the standby");
    Ok(())
}

/// Wherever the program dies in the middle of a group, the run goes on to its end, and nobody changes sides twice.
#[tokio::test]
async fn a_group_that_moves_together_goes_on_after_an_abort() -> Result<()> {
    let points =
        ["switch.held", "switch.flipping", "switch.flipped", "switch.checked", "switch.cut", "switch.released"];
    let points = &points[..if times(2) > 1 { points.len() } else { 3 }];
    let groups: Vec<Vec<String>> =
        (0..points.len()).map(|group| (0..5).map(|user| format!("user{group}{user}")).collect()).collect();
    let users: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
    let (primary, standby) = (scenario::primary(&users), scenario::standby(&users).managed());
    let mut scenario = Scenario::between(primary, standby).await?;
    scenario.primary.kill()?;
    scenario.protect(&users).await?;
    for (point, group) in points.iter().zip(&groups) {
        let failpoints = scenario.stack.failpoints();
        failpoints.arm(point, 1, Action::Abort)?;
        let addresses: Vec<&str> = group.iter().map(String::as_str).collect();
        let run = begin(&scenario.stack, &addresses).await?;
        scenario.stack.aborted().await.with_context(|| format!("nothing came to {point}"))?;
        failpoints.let_go()?;
        scenario.stack.start().await?;
        let run = ended(&scenario.stack, &run).await?;
        ensure!(run["state"] == "done", "after an abort at {point}: {run:#}");
        for user in &addresses {
            is_moved(&run, user).with_context(|| format!("after an abort at {point}"))?;
            shows(&scenario.stack, user, "on_standby", "standby", 2).await?;
        }
    }
    Ok(())
}

/// Every step that the run shows has come to its end; gives what came of those of this name.
fn ends_of(run: &Value, name: &str) -> Result<Vec<String>> {
    let steps: Vec<&Value> = run["steps"].as_array().into_iter().flatten().collect();
    ensure!(steps.iter().all(|step| step["ended_at"].is_string()), "a step is still open: {run:#}");
    let named = steps.into_iter().filter(|step| step["name"] == name);
    Ok(named.map(|step| step["outcome"].as_str().unwrap_or_default().to_owned()).collect())
}

/// A group that somebody cancels stays where it is; one that the database drops in the middle goes on, each by itself. Both are told to
/// the end.
#[tokio::test]
async fn a_group_that_is_cancelled_or_dropped_in_the_middle_leaves_nobody_in_between() -> Result<()> {
    let users = ["amy", "ann", "ben", "bob"];
    let mut scenario = Scenario::between(scenario::primary(&users), scenario::standby(&users).managed()).await?;
    scenario.primary.kill()?;
    scenario.protect(&users).await?;
    let failpoints = scenario.stack.failpoints();
    failpoints.arm("switch.held", 1, Action::Pause)?;
    let run = begin(&scenario.stack, &users).await?;
    failpoints.reached().await?;
    scenario.stack.command(&["run", "cancel", &run]).await?.expect(0)?;
    failpoints.let_go()?;
    let run = ended(&scenario.stack, &run).await?;
    ensure!(run["state"] == "cancelled", "{run:#}");
    ensure!(ends_of(&run, "hold")? == ["cancelled"; 4] && ends_of(&run, "flip")?.is_empty(), "{run:#}");
    for user in users {
        let shown = scenario.stack.json(&["mailbox", "show", user]).await?;
        let stays = shown["active_side"] == "primary" && shown["epoch"] == 1 && shown["state"] != "switching_over";
        ensure!(stays && outcomes(&run)[user]["outcome"] == "cancelled", "{shown:#}");
    }

    failpoints.arm("switch.cut", 1, Action::Pause)?;
    let run = begin(&scenario.stack, &users).await?;
    failpoints.reached().await?;
    let dropped = sqlx::query_scalar::<_, bool>(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a join pg_locks l using (pid)
         where l.relation = 'route'::regclass and l.mode = 'RowShareLock' and a.state = 'idle in transaction'",
    );
    let dropped = dropped.fetch_all(&database(&scenario.stack)?).await?;
    ensure!(dropped == [true], "the routes are locked by {} sessions", dropped.len());
    failpoints.let_go()?;
    let run = ended(&scenario.stack, &run).await?;
    ensure!(run["state"] == "done", "{run:#}");
    let holds = ends_of(&run, "hold")?;
    let alone = holds.iter().filter(|outcome| outcome.contains("each goes on by itself")).count();
    ensure!(alone == users.len() && holds.len() == 2 * users.len(), "{holds:?}");
    for user in users {
        is_moved(&run, user)?;
        shows(&scenario.stack, user, "on_standby", "standby", 2).await?;
    }
    Ok(())
}

/// A superuser's way to the database of a running stack.
fn database(stack: &Stack) -> Result<PgPool> {
    let password = std::fs::read_to_string(stack.data_dir().join("postgres/password"))?;
    let options = PgConnectOptions::new_without_pgpass().socket(stack.data_dir().join("run")).username("understudy");
    Ok(PgPool::connect_lazy_with(options.password(password.trim()).database("understudy")))
}
