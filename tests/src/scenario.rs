//! A primary, a standby and an Understudy between them: what most scenarios begin with.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::client::{Client, Snapshot};
use crate::compare::compare;
use crate::dovecot::{Dovecot, Options, PASSWORD};
use crate::stack::Stack;
use crate::wait;

pub const PRIMARY: &str = "mail-a";
pub const STANDBY: &str = "dr-1";
/// How long a mirror may take to settle; far more than it should need.
const SETTLE: Duration = Duration::from_secs(240);
/// What a command may take beyond what it waits for.
const COMMAND: Duration = Duration::from_secs(60);
const STATE_PATIENCE: Duration = Duration::from_secs(180);

/// Two mail servers and what mirrors them.
pub struct Scenario {
    pub primary: Dovecot,
    pub standby: Dovecot,
    pub stack: Stack,
}

/// How the primary of a scenario usually is: the master user may only read.
pub fn primary(users: &[&str]) -> Options {
    Options::new(PRIMARY).users(users.iter().copied()).without_fsync().read_only_master()
}

pub fn standby(users: &[&str]) -> Options {
    Options::new(STANDBY).users(users.iter().copied()).without_fsync()
}

impl Scenario {
    /// `understudy up` between two ordinary servers; nothing is protected yet.
    pub async fn start(users: &[&str]) -> Result<Self> {
        Self::between(primary(users), standby(users)).await
    }

    pub async fn between(primary: Options, standby: Options) -> Result<Self> {
        let (primary, standby) = (Dovecot::start(primary)?, Dovecot::start(standby)?);
        let stack = Stack::up(&[("primary", &primary), ("standby", &standby)]).await?;
        Ok(Self { primary, standby, stack })
    }

    /// The same with the gateways as processes of their own and a proxy on the link.
    pub async fn apart(users: &[&str]) -> Result<Self> {
        Self::apart_with(users, "").await
    }

    /// The same with more lines in `[source]`.
    pub async fn apart_with(users: &[&str], source: &str) -> Result<Self> {
        let (primary, standby) = (Dovecot::start(primary(users))?, Dovecot::start(standby(users))?);
        let stack = Stack::apart_with(&[("primary", &primary), ("standby", &standby)], source).await?;
        Ok(Self { primary, standby, stack })
    }

    /// A session of `user` on the primary.
    pub async fn log_in(&self, user: &str) -> Result<Client> {
        Client::log_in(self.primary.imap_address(), user, PASSWORD).await
    }

    pub async fn log_in_to_standby(&self, user: &str) -> Result<Client> {
        Client::log_in(self.standby.imap_address(), user, PASSWORD).await
    }

    pub async fn protect(&self, users: &[&str]) -> Result<()> {
        let arguments = [&["mailbox", "protect"], users, &["--primary", PRIMARY, "--standby", STANDBY]].concat();
        self.stack.command(&arguments).await?.expect(0).map(drop)
    }

    /// Until every change made before now is on the standby.
    pub async fn settle(&self) -> Result<()> {
        self.settle_within(SETTLE).await
    }

    /// The same for a mailbox so large that it may take longer.
    pub async fn settle_within(&self, patience: Duration) -> Result<()> {
        let timeout = format!("{}s", patience.as_secs());
        let arguments = ["mailbox", "wait", "--all", "--timeout", &timeout];
        let waited = self.stack.command_within(patience + COMMAND, &arguments).await?;
        if let Err(error) = waited.expect(0) {
            let shown = self.stack.json(&["mailbox", "list"]).await.unwrap_or_default();
            return Err(error).with_context(|| format!("the mirror did not settle: {shown:#}"));
        }
        Ok(())
    }

    /// Compares completely what `user` sees on the two sides.
    pub async fn assert_same(&self, user: &str) -> Result<()> {
        let ours = self.log_in(user).await?.snapshot().await.context("primary")?;
        let theirs = self.log_in_to_standby(user).await?.snapshot().await.context("standby")?;
        let differences = compare(&ours, &theirs);
        ensure!(differences.is_empty(), "the mailbox of {user} is not the same on both sides: {differences}");
        Ok(())
    }

    pub async fn settle_and_compare(&self, users: &[&str]) -> Result<()> {
        self.settle().await?;
        for user in users {
            self.assert_same(user).await?;
        }
        Ok(())
    }

    pub async fn snapshot(&self, user: &str) -> Result<Snapshot> {
        self.log_in(user).await?.snapshot().await
    }

    /// A mailbox as every interface shows it.
    pub async fn show(&self, user: &str) -> Result<Value> {
        self.stack.json(&["mailbox", "show", user]).await
    }

    /// Until the mailbox is as `what` says and `is` finds; gives how it then is.
    pub async fn until(&self, user: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let subject = format!("{user} {what}");
        let found = wait::until(&subject, STATE_PATIENCE, async || {
            // While parts are being killed, nobody may be there to ask.
            last = self.show(user).await.unwrap_or_default();
            Ok(is(&last))
        });
        if let Err(error) = found.await {
            bail!("{error}; it is {last:#}");
        }
        Ok(last)
    }
}
