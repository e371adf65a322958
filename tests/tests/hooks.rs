//! Signed requests before and after a change of side, to a program of the operator's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, PRIMARY, STANDBY};
use understudy_tests::stack::Stack;
use understudy_tests::wait;
use understudy_tests::{client::Client, dovecot::PASSWORD};

const PATIENCE: Duration = Duration::from_secs(60);

/// The operator's program.
struct Receiver {
    child: Child,
    dir: PathBuf,
}

impl Receiver {
    async fn start(dir: &Path, secret: &Path) -> Result<Self> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/hook.py");
        let files = ["calls", "refuse", "port"].map(|name| dir.join(name));
        let child = Command::new("python3").arg(program).arg(secret).args(&files).spawn();
        let receiver = Self { child: child.context("could not run python3")?, dir: dir.to_owned() };
        wait::until("the receiver listens", PATIENCE, async || Ok(files[2].exists())).await?;
        Ok(receiver)
    }

    fn url(&self) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}/mail", fs::read_to_string(self.dir.join("port"))?))
    }

    /// What it was told since the last time.
    fn calls(&self) -> Result<Vec<Value>> {
        let file = self.dir.join("calls");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn refuse(&self, refuses: bool) -> Result<()> {
        let file = self.dir.join("refuse");
        if refuses {
            fs::write(file, "")?;
        } else {
            fs::remove_file(file)?;
        }
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that refuses a planned change keeps everything as it was; one that agrees is told what came of it. Each request is signed, and
/// each run's have ids of their own. In an emergency it is asked and cannot stop anything.
#[tokio::test]
async fn a_signed_request_stops_a_planned_change_and_tells_what_came_of_one() -> Result<()> {
    let primary = Dovecot::start(scenario::primary(&["ann"]))?;
    let standby = Dovecot::start(scenario::standby(&["ann"]).managed())?;
    let folder = tempfile::tempdir()?;
    let (hooks, told) = (folder.path().join("hooks"), folder.path().join("told"));
    fs::create_dir_all(&hooks)?;
    fs::create_dir_all(&told)?;
    fs::write(hooks.join("ops.secret"), "whsec_dW5kZXJzdHVkeSB0ZXN0cyBzaWduYXR1cmVz\n")?;
    let receiver = Receiver::start(&told, &hooks.join("ops.secret")).await?;
    let servers = [("primary", &primary), ("standby", &standby)];
    let stack = Stack::up_with(&servers, &format!("hooks = \"{}\"\n", hooks.display())).await?;
    let hook = json!([{ "webhook": receiver.url()?, "secret_file": "ops.secret", "allow_private": true }]);
    let (before, after) = (format!("before={hook}"), format!("after={hook}"));
    stack.command(&["policy", "set", "gold", &before, &after]).await?.expect(0)?;
    let mut ann = Client::log_in(primary.imap_address(), "ann", PASSWORD).await?;
    ann.append("INBOX", &[], None, &Mail::from_seed(61).plain(300)).await?;
    let protect = ["mailbox", "protect", "ann", "--primary", PRIMARY, "--standby", STANDBY, "--policy", "gold"];
    stack.command(&protect).await?.expect(0)?;
    stack.command(&["mailbox", "wait", "ann", "--timeout", "240s"]).await?.expect(0)?;
    let is = async |state: &str, side: &str, epoch: u64| -> Result<()> {
        let shown = stack.json(&["mailbox", "show", "ann"]).await?;
        let as_wanted = shown["state"] == state && shown["active_side"] == side && shown["epoch"] == epoch;
        ensure!(as_wanted, "ann should be {state} on the {side} in epoch {epoch}: {shown:#}");
        Ok(())
    };
    is("mirroring", "primary", 1).await?;

    receiver.refuse(true)?;
    let refused = stack.command(&["switchover", "ann", "--wait"]).await?.expect(1)?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(said.contains("hook") && said.contains("503"), "the reason is missing: {said}");
    is("mirroring", "primary", 1).await?;
    let calls = receiver.calls()?;
    ensure!(calls.len() == 1 && calls[0]["body"]["event"] == "before_switchover", "{calls:#?}");
    let first = calls[0]["id"].clone();
    // The session that was open then is open still.
    ann.run("NOOP").await.context("a run that was refused cut a session")?;

    receiver.refuse(false)?;
    stack.command(&["switchover", "ann", "--wait", "--reason", "a new disk"]).await?.expect(0)?;
    is("on_standby", "standby", 2).await?;
    let moved = receiver.calls()?;
    stack.command(&["switchback", "ann", "--wait"]).await?.expect(0)?;
    is("mirroring", "primary", 3).await?;
    let home = receiver.calls()?;
    receiver.refuse(true)?;
    stack
        .command(&["switchover", "ann", "--mode", "emergency", "--max-loss", "any", "--yes", "--wait"])
        .await?
        .expect(0)?;
    is("on_standby", "standby", 4).await?;
    let emergency = receiver.calls()?;

    let mut ids = vec![first];
    for (calls, kind, mode) in
        [(&moved, "switchover", "planned"), (&home, "switchback", "planned"), (&emergency, "switchover", "emergency")]
    {
        ensure!(calls.len() == 2, "once before and once after: {calls:#?}");
        for (call, when) in calls.iter().zip(["before", "after"]) {
            let body = &call["body"];
            ensure!(call["path"] == "/mail" && body["event"] == format!("{when}_{kind}"), "{call:#}");
            ensure!(body["mode"] == mode && body["run"].is_string(), "{call:#}");
            ids.push(call["id"].clone());
        }
        ensure!(calls[0]["body"]["done"].is_null(), "nothing has come of it yet: {:#}", calls[0]);
        ensure!(calls[1]["body"]["done"] == 1 && calls[1]["body"]["failed"] == 0, "what came of it: {:#}", calls[1]);
    }
    ensure!(moved[1]["body"]["reason"] == "a new disk", "{:#}", moved[1]);
    let all = calls.iter().chain(&moved).chain(&home).chain(&emergency);
    ensure!(all.clone().all(|call| call["signed"] == true), "a signature is wrong: {:#?}", all.collect::<Vec<_>>());
    let named = ids.len();
    ids.sort_by_key(Value::to_string);
    ids.dedup();
    ensure!(ids.len() == named, "two calls have one id: {ids:?}");
    Ok(())
}
