//! Primaries die, and policies decide what becomes of their users.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Dovecot, Options, PASSWORD};
use understudy_tests::front_door::{DovecotProxy, Plan};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{PRIMARY, STANDBY, standby};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);
const OTHER: &str = "mail-b";
/// Where mail servers see the front door come from.
const DOOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 79);

/// A primary to which users get through the front door only.
fn behind_the_door(name: &str, users: &[&str]) -> Options {
    Options::new(name)
        .users(users.iter().copied())
        .without_fsync()
        .without_way_home()
        .users_only_from(DOOR)
        .canary(users[0])
}

/// A folder of hooks with these scripts in it.
fn hooks(dir: &Path, scripts: &[(&str, &str)]) -> Result<String> {
    let folder = dir.join("hooks");
    fs::create_dir_all(&folder)?;
    for (name, script) in scripts {
        fs::write(folder.join(name), script)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
    }
    Ok(format!("hooks = \"{}\"\n", folder.display()))
}

async fn protect(stack: &Stack, users: &[&str], primary: &str, policy: &str) -> Result<()> {
    let where_to = ["--primary", primary, "--standby", STANDBY, "--policy", policy];
    stack.command(&[&["mailbox", "protect"], users, &where_to].concat()).await?.expect(0)?;
    for user in users {
        until_shown(stack, user, "mirroring").await?;
    }
    Ok(())
}

async fn until_shown(stack: &Stack, user: &str, state: &str) -> Result<()> {
    let mut last = Value::Null;
    let subject = format!("{user} is {state}");
    let shown = wait::until(&subject, PATIENCE, async || {
        last = stack.json(&["mailbox", "show", user]).await?;
        Ok(last["state"] == state)
    });
    if let Err(error) = shown.await {
        let health = stack.json(&["server", "health", PRIMARY]).await.unwrap_or_default();
        bail!("{error}: it is {last:#}; {health:#}");
    }
    Ok(())
}

/// Until it was tried whether users get past the front door, with this outcome.
async fn until_fence(stack: &Stack, server: &str, state: &str) -> Result<()> {
    let mut last = Value::Null;
    let subject = format!("the fence of {server} is {state}");
    let tried = wait::until(&subject, PATIENCE, async || {
        last = stack.json(&["server", "health", server]).await?;
        Ok(last["fence"]["state"] == state)
    });
    tried.await.with_context(|| format!("{last:#}"))
}

/// What was decided about a server, the newest first.
async fn decisions(stack: &Stack, server: &str) -> Result<Vec<Value>> {
    let said = stack.json(&["events", "--past", "--kind", "verdict"]).await?;
    let all = said.as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().map(|mut event| event["detail"].take()).filter(|detail| detail["server"] == server).collect())
}

async fn until_decided(stack: &Stack, server: &str, decision: &str) -> Result<Value> {
    let mut found = Value::Null;
    wait::until(&format!("it is decided: {decision}"), PATIENCE, async || {
        let all = decisions(stack, server).await?;
        found = all.into_iter().find(|said| said["decision"] == decision).unwrap_or_default();
        Ok(!found.is_null())
    })
    .await?;
    Ok(found)
}

/// Two primaries die at once and one standby serves both, by itself; who is only watched stays; a hook that fails stops a planned
/// change of side, a restart is tried first, and afterwards everybody can come home.
#[tokio::test]
async fn two_dead_primaries_are_left_for_one_standby_by_themselves() -> Result<()> {
    let mut mail_a = Dovecot::start(behind_the_door(PRIMARY, &["ann", "bob", "dora"]))?;
    let mut mail_b = Dovecot::start(behind_the_door(OTHER, &["cleo"]))?;
    let dr = Dovecot::start(standby(&["ann", "bob", "cleo", "dora"]).managed())?;
    let plan = Plan::new()?;
    let dir = plan.stack_dir()?;
    let marker = dir.join("restarted");
    let restart = format!("#!/bin/sh\necho x >> {}\n", marker.display());
    let scripts = [
        ("restart", restart.as_str()),
        ("refuse", "#!/bin/sh\necho not now\nexit 1\n"),
        ("note", "#!/bin/sh\ncat > /dev/null\n"),
    ];
    let configuration = hooks(&dir, &scripts)? + &plan.configuration();
    let servers = [("primary", &mail_a), ("primary", &mail_b), ("standby", &dr)];
    let stack = Stack::up_in(&dir, &plan.admin.to_string(), &servers, &configuration).await?;
    let door = DovecotProxy::start_from(&plan, DOOR)?;

    let gold = [
        "threshold_seconds=5",
        "restart={\"hook\":{\"command\":\"restart\"},\"wait_seconds\":1}",
        "after=[{\"command\":\"note\"}]",
    ];
    stack.command(&[&["policy", "set", "gold"], gold.as_slice()].concat()).await?.expect(0)?;
    stack
        .command(&[
            "policy",
            "set",
            "watched",
            "switchover=shadow",
            "threshold_seconds=5",
            "before=[{\"command\":\"refuse\"}]",
        ])
        .await?
        .expect(0)?;
    protect(&stack, &["ann", "bob"], PRIMARY, "gold").await?;
    protect(&stack, &["cleo"], OTHER, "gold").await?;
    protect(&stack, &["dora"], PRIMARY, "watched").await?;
    for server in [PRIMARY, OTHER] {
        until_fence(&stack, server, "holds").await?;
    }
    let refused = stack.command(&["switchover", "dora", "--wait"]).await?.expect(1)?;
    ensure!(refused.stdout.contains("not now") || refused.stderr.contains("not now"), "{refused:?}");

    let mut mail = Mail::from_seed(60);
    let mut ann = Client::log_in(door.imap_address(), "ann", PASSWORD).await?;
    ann.append("INBOX", &[], None, &mail.plain(300)).await?;
    stack.command(&["mailbox", "wait", "--all", "--timeout", "240s"]).await?.expect(0)?;

    // Not before: a machine that stands still for seconds would look like a dead primary.
    stack.command(&["policy", "set", "gold", "switchover=on"]).await?.expect(0)?;
    let fault = Instant::now();
    mail_a.kill()?;
    mail_b.kill()?;
    for user in ["ann", "bob", "cleo"] {
        until_shown(&stack, user, "on_standby").await?;
        // As a mail program does: again until it is let in.
        wait::until(&format!("{user} is served"), PATIENCE, async || {
            let Ok(mut client) = Client::log_in(door.imap_address(), user, PASSWORD).await else { return Ok(false) };
            Ok(client.append("INBOX", &[], None, &mail.plain(300)).await.is_ok())
        })
        .await?;
    }
    println!("two primaries dead, everybody served after {:.1} s", fault.elapsed().as_secs_f64());
    let there = Client::log_in(dr.imap_address(), "ann", PASSWORD).await?.uids("INBOX").await?;
    ensure!(there.len() == 2, "ann has {there:?} on the standby");
    until_decided(&stack, PRIMARY, "would_switch").await?;
    let shown = stack.json(&["mailbox", "show", "dora"]).await?;
    ensure!(shown["active_side"] == "primary", "who is only watched was moved: {shown:#}");
    let restarts = fs::read_to_string(&marker)?.lines().count();
    ensure!(restarts == 2, "each primary is restarted once, not {restarts} times in all");
    let runs = stack.json(&["run", "list", "--kind", "switchover"]).await?;
    let automatic = runs.as_array().context("no list")?.iter().filter(|run| run["requested_by"] == "automatic").count();
    ensure!(automatic == 2, "one run for each primary, not {automatic}: {runs:#}");

    mail_a.start_again()?;
    mail_b.start_again()?;
    wait::until("the primaries are found up", PATIENCE, async || {
        let mut up = true;
        for server in [PRIMARY, OTHER] {
            up &= stack.json(&["server", "health", server]).await?["verdict"] == "up";
        }
        Ok(up)
    })
    .await?;
    stack.command(&["switchback", "ann", "cleo", "--wait"]).await?.expect(0)?;
    for user in ["ann", "cleo"] {
        until_shown(&stack, user, "mirroring").await?;
    }
    let home = Client::log_in(door.imap_address(), "ann", PASSWORD).await?.uids("INBOX").await?;
    ensure!(home.len() == 2, "ann has {home:?} at home");
    Ok(())
}

/// Users who reach the primary itself could go on writing there: nobody is moved by itself, and it is said why.
#[tokio::test]
async fn users_who_get_past_the_front_door_are_not_moved_by_themselves() -> Result<()> {
    let mut primary = Dovecot::start(Options::new(PRIMARY).users(["eve"]).without_fsync().canary("eve"))?;
    let dr = Dovecot::start(standby(&["eve"]))?;
    let plan = Plan::new()?;
    let servers = [("primary", &primary), ("standby", &dr)];
    let stack = Stack::up_in(&plan.stack_dir()?, &plan.admin.to_string(), &servers, &plan.configuration()).await?;
    let _door = DovecotProxy::start_from(&plan, DOOR)?;
    stack.command(&["policy", "set", "gold", "switchover=on", "threshold_seconds=3"]).await?.expect(0)?;
    protect(&stack, &["eve"], PRIMARY, "gold").await?;
    until_fence(&stack, PRIMARY, "open").await?;
    primary.kill()?;
    let said = until_decided(&stack, PRIMARY, "refused").await?;
    ensure!(said["why"].as_str().unwrap_or_default().contains("past the front doors"), "{said:#}");
    let shown = stack.json(&["mailbox", "show", "eve"]).await?;
    ensure!(shown["active_side"] == "primary", "{shown:#}");
    Ok(())
}
