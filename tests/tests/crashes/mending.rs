//! Making good, struck at every step: a repair that a person asked for, removals that one released, messages tried again that the
//! standby had refused.
//!
//! One stack for all, with a mailbox for each place; what is to be made good is there before the first is visited.

use std::time::Duration;

use anyhow::{Context as _, Result};
use understudy_tests::client::Client;
use understudy_tests::dovecot::Dovecot;
use understudy_tests::failpoint::{Action, MENDING};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, PRIMARY, STANDBY, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use super::{Strike, strike_at};
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);
/// What a command takes that is struck meanwhile.
const COMMAND: Duration = Duration::from_secs(300);
/// One of each: where the link is cut in a short run.
const ONE_EACH: [&str; 3] = ["repair.appended", "release.expunged", "refused.appended"];

/// What leads to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Repair,
    Release,
    Refused,
}

impl Cause {
    pub(super) fn of(place: &str) -> Option<Self> {
        match place.split_once('.')?.0 {
            "repair" => Some(Self::Repair),
            "release" => Some(Self::Release),
            "refused" => Some(Self::Refused),
            _ => None,
        }
    }

    /// A mailbox before it is protected.
    async fn fill(self, client: &mut Client, mail: &mut Mail) -> Result<()> {
        for _ in 0..8 {
            client.append("INBOX", &["\\Seen"], None, &mail.plain(300)).await?;
        }
        match self {
            Self::Repair => {}
            Self::Release => {
                client.create("Gone").await?;
                client.append("Gone", &[], None, &mail.plain(300)).await?;
                client.subscribe("Gone").await?;
            }
            // More than there is room for.
            Self::Refused => drop(client.append("INBOX", &["$Large"], None, &mail.plain(150_000)).await?),
        }
        Ok(())
    }
}

#[tokio::test]
async fn whatever_happens_at_any_step_of_making_good_changes_nothing() -> Result<()> {
    let long = times(2) > 1;
    let each = |places: &[&'static str], strike| places.iter().map(move |&place| (place, strike)).collect::<Vec<_>>();
    let aborts = each(MENDING, Strike::Abort);
    let cuts = each(if long { MENDING } else { &ONE_EACH }, Strike::LinkCut);
    let kills = each(if long { MENDING } else { &[] }, Strike::PostgresKilled);
    visit_all(&[aborts, cuts, kills].concat()).await
}

async fn visit_all(places: &[(&'static str, Strike)]) -> Result<()> {
    let users: Vec<String> = (0..places.len()).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let standby = scenario::standby(&names).quota("*:storage=100K");
    let (primary, standby) = (Dovecot::start(scenario::primary(&names))?, Dovecot::start(standby)?);
    let stack = Stack::apart(&[("primary", &primary), ("standby", &standby)]).await?;
    let mut mending = Mending { scenario: Scenario { primary, standby, stack }, mail: Mail::from_seed(41) };
    let mut visits = Vec::new();
    for (user, (place, _)) in names.iter().zip(places) {
        visits.push((*user, Cause::of(place).context("nobody knows what leads there")?));
    }
    mending.prepare(&visits).await?;
    for ((user, cause), (place, strike)) in visits.into_iter().zip(places) {
        let began = std::time::Instant::now();
        let what = format!("{strike:?} at {place}");
        mending.visit(user, place, cause, *strike).await.with_context(|| what.clone())?;
        println!("{what}: {:?}", began.elapsed());
    }
    Ok(())
}

struct Mending {
    scenario: Scenario,
    mail: Mail,
}

impl Mending {
    /// Mailboxes with something to make good.
    async fn prepare(&mut self, visits: &[(&str, Cause)]) -> Result<()> {
        for (user, cause) in visits {
            cause.fill(&mut self.scenario.log_in(user).await?, &mut self.mail).await?;
        }
        let stack = &self.scenario.stack;
        stack.command(&["policy", "set", "strict", "brake.share=0.1", "brake.messages=5"]).await?.expect(0)?;
        let users: Vec<&str> = visits.iter().map(|(user, _)| *user).collect();
        let protect = ["--primary", PRIMARY, "--standby", STANDBY, "--policy", "strict"];
        stack.command(&[&["mailbox", "protect"], &users[..], &protect].concat()).await?.expect(0)?;
        self.scenario.settle().await?;
        let of = |wanted: Cause| visits.iter().filter(move |(_, cause)| *cause == wanted).map(|(user, _)| *user);
        for user in of(Cause::Refused) {
            self.scenario.until(user, "lacks a message", |shown| shown["set_aside"] == 1).await?;
        }
        // All of it is found in one look, and is one transaction.
        self.scenario.stack.kill_role("source")?;
        for user in of(Cause::Release) {
            let mut client = self.scenario.log_in(user).await?;
            client.select("INBOX").await?;
            client.expunge("1:6").await?;
            client.delete("Gone").await?;
            client.unsubscribe("Gone").await?;
        }
        self.scenario.stack.start().await?;
        for user in of(Cause::Release) {
            self.scenario.until(user, "is held", |shown| shown["state"] == "held").await?;
        }
        for user in of(Cause::Repair) {
            let mut there = self.scenario.log_in_to_standby(user).await?;
            there.select("INBOX").await?;
            // The last one: what is appended again comes last.
            there.expunge("8").await?;
            there.store("3", "+FLAGS (\\Flagged Odd)").await?;
            there.append("INBOX", &[], None, &self.mail.plain(200)).await?;
        }
        Ok(())
    }

    async fn visit(&mut self, user: &str, place: &'static str, cause: Cause, strike: Strike) -> Result<()> {
        let action = if strike == Strike::Abort { Action::Abort } else { Action::Pause };
        self.scenario.stack.failpoints().arm(place, 1, action)?;
        let arguments: &[&str] = match cause {
            Cause::Repair => &["mailbox", "verify", user, "--repair"],
            Cause::Release => &["mailbox", "release", user],
            Cause::Refused => {
                self.scenario.standby.set_quota(user, "*:storage=10M")?;
                &["mailbox", "resume", user]
            }
        };
        let asked = self.scenario.stack.command_beside(COMMAND, arguments);
        self.scenario.stack.failpoints().reached().await?;
        strike_at(&mut self.scenario, strike).await?;
        self.scenario.stack.failpoints().let_go()?;
        // Whether it got its answer through all this does not matter.
        drop(asked.await?);
        match cause {
            Cause::Repair => {
                let mut said = String::new();
                let repaired = wait::until("the sides are equal again", PATIENCE, async || {
                    let answer = self.scenario.stack.command_within(COMMAND, arguments).await?;
                    said = answer.stdout + &answer.stderr;
                    Ok(answer.code == 0)
                });
                repaired.await.with_context(|| said.clone())?;
            }
            Cause::Release => {
                self.scenario.until(user, "goes on", |shown| shown["state"] == "mirroring").await?;
            }
            Cause::Refused => {
                // It is tried again by itself too, but nobody here has the time.
                self.scenario.stack.command(arguments).await?.expect(0)?;
                self.scenario.until(user, "lacks nothing", |shown| shown["set_aside"] == 0).await?;
            }
        }
        // Life goes on.
        self.scenario.log_in(user).await?.append("INBOX", &[], None, &self.mail.plain(300)).await?;
        self.scenario
            .stack
            .command_within(COMMAND, &["mailbox", "wait", user, "--timeout", "240s"])
            .await?
            .expect(0)?;
        self.scenario.assert_same(user).await?;
        self.scenario.stack.command(&["mailbox", "unprotect", user, "--yes"]).await?.expect(0).map(drop)
    }
}
