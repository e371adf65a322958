//! Arbitrary doings of a user, with crashes and cuts in between; then a complete comparison. Many short walks, each with a mailbox
//! and a seed of its own; the seed says at which level the primary is followed, those of one level share a pair of servers.

use anyhow::{Context as _, Result};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use understudy_tests::client::Client;
use understudy_tests::failpoint::{ALL, Action};
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::Scenario;

use crate::levels::LEVELS;
use crate::somebody::{FOLDERS, Somebody, seeds, walk_each};

const SEEDS: u64 = 10;
const STEPS: usize = 60;
/// One step in so many is a mishap.
const MISHAPS: u32 = 12;

struct Walk<'a> {
    somebody: Somebody,
    scenario: &'a mut Scenario,
    user: &'a str,
}

impl Walk<'_> {
    /// Something breaks, and comes back now or some steps later.
    async fn mishap(&mut self, client: &mut Client) -> Result<()> {
        self.restart().await?;
        let Scenario { primary, standby, stack } = &mut *self.scenario;
        match self.somebody.random.random_range(0..12) {
            0..5 => {
                let at = ALL.choose(&mut self.somebody.random).copied().unwrap_or("append.done");
                let times = self.somebody.random.random_range(1..4);
                println!("  abort at passing {times} of {at}");
                stack.failpoints().arm(at, times, Action::Abort)?;
            }
            5 => {
                println!("  power failure");
                stack.failpoints().let_go()?;
                stack.kill()?;
                // Started is what has a link.
                stack.link()?.set(Mode::Pass);
                stack.start().await?;
            }
            6 => {
                println!("  the standby is killed");
                standby.kill()?;
                standby.start_again()?;
            }
            7 => {
                println!("  the primary is killed");
                primary.kill()?;
                primary.start_again()?;
                *client = self.scenario.log_in(self.user).await?;
            }
            8 => {
                println!("  the database is killed");
                stack.kill_postgres().await?;
                // What starts without it ends again.
                self.mend().await?;
            }
            9 | 10 => {
                println!("  the link is cut");
                stack.link()?.set(Mode::Cut);
            }
            _ => {
                println!("  a look in between");
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// Starts again what aborted, if anything did.
    async fn restart(&mut self) -> Result<()> {
        let stack = &mut self.scenario.stack;
        if stack.failpoints().is_reached() {
            stack.aborted().await?;
            stack.link()?.set(Mode::Pass);
            stack.failpoints().let_go()?;
            stack.start().await?;
        }
        Ok(())
    }

    /// Nothing is broken any more, and nothing armed.
    async fn mend(&mut self) -> Result<()> {
        self.scenario.stack.link()?.set(Mode::Pass);
        self.scenario.stack.failpoints().disarm()?;
        // A role that starts while the database is away ends.
        self.scenario.stack.answers().await?;
        self.restart().await?;
        self.scenario.stack.answers().await
    }

    /// Mended, and equal on both sides.
    async fn settle(&mut self) -> Result<()> {
        self.mend().await?;
        let settled = self.scenario.settle_and_compare(&[self.user]).await;
        // A role may have been starting when the database was killed.
        match settled {
            Err(_) if self.scenario.stack.start_what_ended().await? => {
                self.scenario.settle_and_compare(&[self.user]).await
            }
            settled => settled,
        }
    }

    async fn run(&mut self) -> Result<()> {
        let mut client = self.scenario.log_in(self.user).await?;
        for _ in 0..STEPS / 3 {
            self.somebody.step(&mut client).await?;
        }
        self.scenario.protect(&[self.user]).await?;
        for _ in 0..STEPS {
            let done = self.somebody.step(&mut client).await;
            done.with_context(|| format!("step; primary:\n{}", self.scenario.primary.log_tail()))?;
            self.restart().await?;
            if self.somebody.random.random_ratio(1, MISHAPS) {
                self.mishap(&mut client).await?;
            }
        }
        self.settle().await?;
        let unprotect = ["mailbox", "unprotect", self.user, "--yes"];
        self.scenario.stack.command(&unprotect).await?.expect(0).map(drop)
    }
}

#[tokio::test]
async fn a_random_walk_ends_with_two_equal_sides() -> Result<()> {
    let seeds = seeds(SEEDS, 20);
    for (turn, level) in LEVELS.into_iter().enumerate() {
        println!("{}", level.name);
        walk_each(
            seeds.clone().filter(|seed| seed % LEVELS.len() as u64 == turn as u64),
            async |users| level.apart(users).await,
            async |scenario, user, seed| {
                Walk { somebody: Somebody::from_seed(seed, &FOLDERS), scenario, user }.run().await
            },
        )
        .await
        .context(level.name)?;
    }
    Ok(())
}
