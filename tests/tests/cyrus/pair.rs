//! Cyrus and Dovecot as the two sides of a mirror, and how they compare.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::cyrus::{self, Cyrus};
use understudy_tests::dovecot::{Dovecot, PASSWORD};
use understudy_tests::scenario::{self, PRIMARY, STANDBY};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

/// Levels that may be gone in a moment are looked for again every ten seconds.
const LEVEL_PATIENCE: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_secs(240);
/// What a command may take beyond what it waits for.
const COMMAND: Duration = Duration::from_secs(60);
/// Characters that no folder name on Cyrus can have, beside the separator.
const IMPOSSIBLE: &str = "!\"%;<>\\`{|}\u{7f}";

/// Cyrus and Dovecot, one of them the primary, and what mirrors them.
pub(super) struct Pair {
    pub(super) cyrus: Cyrus,
    pub(super) dovecot: Dovecot,
    pub(super) cyrus_is_primary: bool,
    pub(super) stack: Stack,
}

#[derive(Debug, Deserialize)]
struct Verified {
    mailboxes: Vec<MailboxVerified>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MailboxVerified {
    equal: bool,
    pub(super) differences: Vec<Difference>,
    /// Differences that are counted and not named.
    pub(super) more: u64,
}

/// One difference, in Understudy's words.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Difference {
    pub(super) folder: String,
    pub(super) uid: Option<u32>,
    pub(super) what: String,
    pub(super) detail: String,
}

impl Pair {
    pub(super) async fn from_dovecot(standby: cyrus::Options) -> Result<Self> {
        let dovecot = Dovecot::start(scenario::primary(&["ann", "bob"]))?;
        let cyrus = Cyrus::start(standby.users(["ann", "bob"])).await?;
        let stack = Stack::up_with(&[("primary", &dovecot)], &cyrus.table("standby")).await?;
        Ok(Self { cyrus, dovecot, cyrus_is_primary: false, stack })
    }

    pub(super) async fn from_cyrus(primary: cyrus::Options) -> Result<Self> {
        let dovecot = Dovecot::start(scenario::standby(&["ann", "bob"]))?;
        let cyrus = Cyrus::start(primary.users(["ann", "bob"])).await?;
        let stack = Stack::up_with(&[("standby", &dovecot)], &cyrus.table("primary")).await?;
        Ok(Self { cyrus, dovecot, cyrus_is_primary: true, stack })
    }

    /// A session on the primary.
    pub(super) async fn log_in(&self, user: &str) -> Result<Client> {
        if self.cyrus_is_primary { self.cyrus.log_in(user).await } else { self.log_in_to_dovecot(user).await }
    }

    pub(super) async fn log_in_to_dovecot(&self, user: &str) -> Result<Client> {
        Client::log_in(self.dovecot.imap_address(), user, PASSWORD).await
    }

    pub(super) async fn protect(&self, users: &[&str]) -> Result<()> {
        let arguments = [&["mailbox", "protect"], users, &["--primary", PRIMARY, "--standby", STANDBY]].concat();
        self.stack.command(&arguments).await?.expect(0).map(drop)
    }

    pub(super) async fn settle(&self) -> Result<()> {
        self.settle_within(SETTLE).await
    }

    /// The same for a mailbox in which so much is refused that it may take longer.
    pub(super) async fn settle_within(&self, patience: Duration) -> Result<()> {
        let timeout = format!("{}s", patience.as_secs());
        let arguments = ["mailbox", "wait", "--all", "--timeout", &timeout];
        let waited = self.stack.command_within(patience + COMMAND, &arguments).await?;
        if let Err(error) = waited.expect(0) {
            let shown = self.stack.json(&["mailbox", "show", "ann"]).await?;
            return Err(error).with_context(|| format!("the mirror did not settle: {shown:#}"));
        }
        Ok(())
    }

    /// A session on the standby.
    pub(super) async fn log_in_to_standby(&self, user: &str) -> Result<Client> {
        if self.cyrus_is_primary { self.log_in_to_dovecot(user).await } else { self.cyrus.log_in(user).await }
    }

    /// Compares completely what `user` sees on the two sides, but for the differences that are documented.
    pub(super) async fn assert_same(&self, user: &str) -> Result<()> {
        let mut cyrus = self.cyrus.log_in(user).await?.snapshot().await.context("Cyrus")?;
        let mut dovecot = self.log_in_to_dovecot(user).await?.snapshot().await.context("Dovecot")?;
        as_on_cyrus(&mut dovecot, self.cyrus.separator());
        forget_levels(&mut cyrus, &dovecot);
        if self.cyrus_is_primary {
            // Dovecot's special uses are in its configuration, by name.
            for folder in cyrus.folders.values_mut().chain(dovecot.folders.values_mut()) {
                folder.special_uses.clear();
            }
        }
        let differences = if self.cyrus_is_primary { compare(&cyrus, &dovecot) } else { compare(&dovecot, &cyrus) };
        ensure!(differences.is_empty(), "the mailbox of {user} is not the same on both sides: {differences}");
        Ok(())
    }

    /// What `mailbox verify --deep` finds of `user`; all of it is named.
    pub(super) async fn verify(&self, user: &str) -> Result<Vec<Difference>> {
        let mailbox = self.verified(user).await?;
        ensure!(mailbox.more == 0, "{mailbox:?}");
        Ok(mailbox.differences)
    }

    /// The same, however much it is.
    pub(super) async fn verified(&self, user: &str) -> Result<MailboxVerified> {
        let verified = self.stack.command(&["mailbox", "verify", user, "--deep", "--json"]).await?;
        ensure!(verified.code <= 1, "could not verify:\n{}{}", verified.stdout, verified.stderr);
        let mut verified: Verified = serde_json::from_str(&verified.stdout)?;
        let mailbox = verified.mailboxes.pop().context("nothing was verified")?;
        ensure!(mailbox.equal == mailbox.differences.is_empty(), "{mailbox:?}");
        Ok(mailbox)
    }

    pub(super) async fn settle_and_compare(&self, users: &[&str]) -> Result<()> {
        self.settle().await?;
        for user in users {
            let compared = self.assert_same(user).await;
            // For a moment after its last folder went, Dovecot may still list a level. Between two Dovecots nobody compares
            // levels; on Cyrus it is a folder, and goes with the next look.
            if compared.as_ref().is_err_and(|error| only_levels(&error.to_string())) {
                let gone = async || Ok(self.assert_same(user).await.is_ok());
                wait::until("levels that are gone on Dovecot are gone on Cyrus", LEVEL_PATIENCE, gone)
                    .await
                    .or(compared)?;
            } else {
                compared?;
            }
        }
        Ok(())
    }
}

/// Is all that differs an empty folder too many?
fn only_levels(differences: &str) -> bool {
    let mut lines = differences.lines().filter(|line| line.trim_start().starts_with("folder ")).peekable();
    lines.peek().is_some() && lines.all(|line| line.contains("(0 messages): only on the standby"))
}

/// Names as they are on Cyrus: what it cannot have is written `=XX`.
fn as_on_cyrus(snapshot: &mut Snapshot, separator: char) {
    let spelled = |name: &String| -> String {
        let impossible = |c: char| match c {
            '/' => false,
            '^' => separator == '/',
            c => c == separator || IMPOSSIBLE.contains(c),
        };
        let spell = |c: char| if impossible(c) { format!("={:02X}", u32::from(c)) } else { c.to_string() };
        name.chars().map(spell).collect()
    };
    snapshot.folders = std::mem::take(&mut snapshot.folders)
        .into_iter()
        .map(|(name, folder)| (spelled(&name), folder))
        .collect::<BTreeMap<_, _>>();
    snapshot.subscriptions = snapshot.subscriptions.iter().map(spelled).collect::<BTreeSet<_>>();
}

/// On Cyrus a level that only holds other folders is a folder too, without messages.
fn forget_levels(cyrus: &mut Snapshot, dovecot: &Snapshot) {
    let holds_others = |name: &String| dovecot.folders.keys().any(|other| other.starts_with(&format!("{name}/")));
    let is_level = |name: &String| match dovecot.folders.get(name) {
        Some(folder) => !folder.selectable,
        None => holds_others(name),
    };
    cyrus.folders.retain(|name, folder| !(is_level(name) && folder.messages.is_empty()));
}
