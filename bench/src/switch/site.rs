//! A primary and a standby, a Dovecot proxy in front of them, and Understudy.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use understudy_tests::dovecot::{Dovecot, Options};
use understudy_tests::front_door::{DovecotProxy, Plan};
use understudy_tests::stack::Stack;

use crate::child::Folder;
use crate::settings::Settings;
use crate::wire::{Line, Wire};

/// Where mail servers see the front door come from.
pub(super) const DOOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 79);
const POLL: Duration = Duration::from_millis(200);
const PROTECT_AT_ONCE: usize = 250;

/// Everything that runs; in the order in which it is to end.
pub(super) struct Site {
    proxy: DovecotProxy,
    pub(super) stack: Stack,
    pub(super) primary: Dovecot,
    pub(super) standby: Dovecot,
    /// Before the primary, where bytes are to be counted.
    pub(super) wire: Option<Wire>,
    _plan: Plan,
    _folder: Folder,
}

impl Site {
    /// Starts both servers with these users and `fill`s the primary, then all the rest.
    pub(super) async fn start(
        settings: &Settings,
        users: &[String],
        primary: Options,
        counted: bool,
        fill: impl FnOnce(&Dovecot) -> Result<()>,
    ) -> Result<Self> {
        let folder = settings.quick_store().folder("switch")?;
        let place = |mut options: Options| {
            options.dir = Some(folder.path().join(&options.name));
            options.users(users.iter().map(String::as_str)).many_sessions()
        };
        let mut primary = Dovecot::start(place(primary))?;
        let standby = Dovecot::start(place(Options::new("standby").managed()))?;
        fill(&primary)?;
        let wire = if counted { Some(Wire::to(primary.imap_address(), Line::default())?) } else { None };
        if let Some(wire) = &wire {
            primary.behind(wire.address());
        }
        let plan = Plan::new()?;
        let dir = folder.path().join("understudy");
        std::fs::create_dir_all(&dir)?;
        let servers = [("primary", &primary), ("standby", &standby)];
        let stack = Stack::up_in(&dir, &plan.admin.to_string(), &servers, &plan.configuration()).await?;
        let proxy = DovecotProxy::start_from(&plan, DOOR)?.quiet();
        Ok(Self { proxy, stack, primary, standby, wire, _plan: plan, _folder: folder })
    }

    pub(super) fn door(&self) -> SocketAddr {
        self.proxy.imap_address()
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.stack.command(arguments).await?.expect(0)?.stdout)
    }

    pub(super) async fn protect(&self, users: &[String], policy: &str) -> Result<()> {
        for users in users.chunks(PROTECT_AT_ONCE) {
            let mut arguments = vec!["mailbox", "protect"];
            arguments.extend(users.iter().map(String::as_str));
            arguments.extend(["--primary", "primary", "--standby", "standby", "--policy", policy]);
            self.run(&arguments).await?;
        }
        Ok(())
    }

    /// Until every mailbox is mirrored, and Understudy says so.
    pub(super) async fn settled(&self, users: &[String]) -> Result<()> {
        self.run(&["mailbox", "wait", "--all", "--timeout", "170s"]).await?;
        self.until("every mailbox is mirroring", Duration::from_secs(120), &["mailbox", "list"], |list| {
            let states = list.as_array().into_iter().flatten();
            states.filter(|mailbox| mailbox["state"] == "mirroring").count() == users.len()
        })
        .await
        .map(drop)
    }

    /// Asks again and again until the answer is as wanted.
    pub(super) async fn until(
        &self,
        what: &str,
        patience: Duration,
        question: &[&str],
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.stack.json(question).await?;
            if is(&answer) {
                return Ok(answer);
            }
            ensure!(Instant::now() < deadline, "not within {patience:?}: {what}; it is {answer:#}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a change of side of one mailbox to its end; gives the run and what became of the mailbox.
    pub(super) async fn change(&self, way: &str, user: &str) -> Result<(String, Value)> {
        let said = self.stack.json(&[way, user, "--wait"]).await?;
        let mailbox = said["result"]["mailboxes"][0].clone();
        ensure!(mailbox["outcome"] == "done", "{way} of {user}: {mailbox:#}");
        Ok((said["run_id"].as_str().unwrap_or_default().to_owned(), mailbox))
    }
}
