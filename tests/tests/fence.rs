//! The fence at the mail servers themselves: each asks at every log-in and delivery whether the user is its own now.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Dovecot, MASTER, MASTER_PASSWORD, Options, PASSWORD};
use understudy_tests::front_door::{DovecotProxy, Plan, hand_over};
use understudy_tests::scenario::{PRIMARY, STANDBY};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);
const MAIL: &str = "From: sender@example.net\r\nSubject: mail\r\n\r\nHello.\r\n";

/// What a server says to a log-in that does not come from a front door.
async fn refused(server: &Dovecot, user: &str) -> Result<String> {
    match Client::log_in(server.imap_address(), user, PASSWORD).await {
        Ok(_) => bail!("{} let {user} in", server.name()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// The user gets in there and mail is taken, past every front door.
async fn is_at_home(server: &Dovecot, user: &str) -> Result<()> {
    wait::until(&format!("{user} gets in at {}", server.name()), PATIENCE, async || {
        // A server that was started before the database asks for it now and then.
        Ok(Client::log_in(server.imap_address(), user, PASSWORD).await.is_ok())
    })
    .await?;
    hand_over(server.lmtp_address(), user, MAIL).await.with_context(|| format!("{} takes no mail", server.name()))
}

/// The user does not get in there, nor does mail; whoever mirrors the mailbox does.
async fn is_elsewhere(server: &Dovecot, user: &str) -> Result<()> {
    for form in [user.to_owned(), user.to_uppercase()] {
        let said = refused(server, &form).await?;
        ensure!(said.contains("on another server"), "{form} at {}: {said}", server.name());
    }
    let mail = hand_over(server.lmtp_address(), user, MAIL).await;
    let said = mail.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("451"), "mail for {user} at {}: {said:?}", server.name());
    Client::log_in(server.imap_address(), &format!("{user}*{MASTER}"), MASTER_PASSWORD).await.map(drop)
}

async fn until_fence(stack: &Stack, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    wait::until(&format!("the fence is {state}"), PATIENCE, async || {
        last = stack.json(&["server", "health", PRIMARY]).await?;
        Ok(last["fence"]["state"] == state)
    })
    .await
    .with_context(|| format!("{last:#}"))?;
    Ok(last["fence"].take())
}

async fn until_shown(stack: &Stack, user: &str, state: &str) -> Result<()> {
    wait::until(&format!("{user} is {state}"), PATIENCE, async || {
        Ok(stack.json(&["mailbox", "show", user]).await?["state"] == state)
    })
    .await
}

#[tokio::test]
async fn a_server_that_asks_for_its_lease_lets_in_only_whose_place_is_there() -> Result<()> {
    let plan = Plan::new()?;
    let users = ["ann", "bob", "canary"];
    // The master may write: the way home does not go by the users' own log-ins, which are refused then.
    let server = |name| Options::new(name).users(users).without_fsync().without_way_home().managed().with_lease(&plan);
    let mut primary = Dovecot::start(server(PRIMARY).canary("canary"))?;
    let standby = Dovecot::start(server(STANDBY))?;
    let servers = [("primary", &primary), ("standby", &standby)];
    let mut stack = Stack::up_in(&plan.stack_dir()?, &plan.admin.to_string(), &servers, &plan.configuration()).await?;
    let door = DovecotProxy::start(&plan)?;
    stack.command(&["policy", "set", "gold", "threshold_seconds=5"]).await?.expect(0)?;
    for (user, policy) in [("ann", "default"), ("bob", "gold")] {
        let protect = ["mailbox", "protect", user, "--primary", PRIMARY, "--standby", STANDBY, "--policy", policy];
        stack.command(&protect).await?.expect(0)?;
        until_shown(&stack, user, "mirroring").await?;
    }

    is_at_home(&primary, "ann").await?;
    is_elsewhere(&standby, "ann").await?;
    // Users do reach the primary past the front door, and yet it was seen that this ends when they are away.
    let fence = until_fence(&stack, "holds").await?;
    ensure!(fence["reason"].as_str().is_some_and(|reason| reason.contains("asks at each log-in")), "{fence:#}");
    let checked = stack.json(&["server", "check", PRIMARY]).await?;
    let found = checked["findings"].as_array().into_iter().flatten().find(|finding| finding["name"] == "fence");
    ensure!(found.is_some_and(|finding| finding["level"] == "ok"), "{checked:#}");

    let mut past_the_door = Client::log_in(primary.imap_address(), "ann", PASSWORD).await?;
    stack.command(&["switchover", "ann", "--wait"]).await?.expect(0)?;
    is_elsewhere(&primary, "ann").await?;
    is_at_home(&standby, "ann").await?;
    is_at_home(&primary, "bob").await?;
    wait::until("a session at the primary itself ends when its user has moved", PATIENCE, async || {
        Ok(past_the_door.run("NOOP").await.is_err())
    })
    .await?;
    let mut ann = Client::log_in(door.imap_address(), "ann", PASSWORD).await?;
    ann.append("INBOX", &[], None, b"Subject: away\r\n\r\nText.\r\n").await?;

    stack.command(&["switchback", "ann", "--wait"]).await?.expect(0)?;
    is_at_home(&primary, "ann").await?;
    is_elsewhere(&standby, "ann").await?;
    Client::log_in(door.imap_address(), "ann", PASSWORD).await?;
    stack.command(&["mailbox", "wait", "--all", "--timeout", "240s"]).await?.expect(0)?;

    // It counts for leaving a dead primary by itself, and one that comes back lets nobody in who has left.
    // Not before: a machine that stands still for seconds would look like a dead primary.
    stack.command(&["policy", "set", "gold", "switchover=on"]).await?.expect(0)?;
    primary.kill()?;
    until_shown(&stack, "bob", "on_standby").await?;
    Client::log_in(door.imap_address(), "bob", PASSWORD).await?;
    primary.start_again()?;
    wait::until("the primary asks again", PATIENCE, async || {
        Ok(refused(&primary, "bob").await?.contains("on another server"))
    })
    .await?;
    is_elsewhere(&primary, "bob").await?;
    is_at_home(&primary, "ann").await?;

    // Who cannot ask lets nobody in.
    stack.stop()?;
    let (ann, bob) = tokio::join!(refused(&primary, "ann"), refused(&standby, "bob"));
    for said in [ann?, bob?] {
        ensure!(said.contains("UNAVAILABLE"), "without a database it was said: {said}");
    }
    stack.start().await?;
    is_at_home(&primary, "ann").await
}
