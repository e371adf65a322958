//! Arbitrary doings of a user, with crashes and cuts in between; then a complete comparison. Many short walks on one pair of servers,
//! each with a mailbox and a seed of its own.

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use understudy_tests::client::{Client, Refused};
use understudy_tests::failpoint::{ALL, Action};
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::Scenario;

use crate::times;

const SEEDS: usize = 10;
const STEPS: usize = 60;
/// One step in so many is a mishap.
const MISHAPS: u32 = 12;
/// Names to choose from; some are parents of others, some are not plain.
const FOLDERS: [&str; 8] = ["INBOX", "A", "A/B", "A/B/C", "Zoë", "Zoë/Ünter", "中文", "Sent"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Work", "Custom"];

struct Walk<'a> {
    random: StdRng,
    mail: Mail,
    scenario: &'a mut Scenario,
    user: &'a str,
}

impl Walk<'_> {
    /// One thing a user might do. The server may refuse it; that is its right.
    async fn step(&mut self, client: &mut Client) -> Result<()> {
        let (folder, other) = (self.any(&FOLDERS), self.any(&FOLDERS));
        // Dovecot ends a session whose selected folder is deleted.
        client.select("INBOX").await?;
        let done = match self.random.random_range(0..20) {
            0..6 => {
                let (flag, message) = (self.any(&FLAGS), self.mail.any());
                client.append(folder, &[flag], None, &message).await.map(drop)
            }
            6..15 => self.with_messages(client, folder, other).await,
            15 => client.create(folder).await,
            // INBOX is not renamed here: after that, Dovecot 2.3.19 ended sessions ("Mailbox was deleted under us"). `kinds`
            // renames it.
            16 if folder == "INBOX" => client.create(other).await,
            16 => client.rename(folder, other).await,
            17 => client.delete(folder).await,
            18 => client.subscribe(folder).await,
            _ => client.unsubscribe(folder).await,
        };
        match done {
            Err(error) if error.is::<Refused>() => Ok(()),
            other => other,
        }
    }

    async fn with_messages(&mut self, client: &mut Client, folder: &str, other: &str) -> Result<()> {
        let uids = client.uids(folder).await?;
        let Some(uid) = uids.choose(&mut self.random) else { return Ok(()) };
        let last = uid.saturating_add(self.random.random_range(0..3));
        let set = format!("{uid}:{last}");
        let flag = self.any(&FLAGS);
        match self.random.random_range(0..9) {
            0..3 => client.store(&set, &format!("+FLAGS ({flag})")).await,
            3 => client.store(&set, &format!("-FLAGS ({flag})")).await,
            4 => client.store(&set, &format!("FLAGS ({flag})")).await,
            5 => client.copy(&set, other).await,
            6..8 => client.move_to(&set, other).await,
            _ => client.expunge(&set).await,
        }
    }

    fn any(&mut self, of: &[&'static str]) -> &'static str {
        of.choose(&mut self.random).copied().unwrap_or("INBOX")
    }

    /// Something breaks, and comes back now or some steps later.
    async fn mishap(&mut self, client: &mut Client) -> Result<()> {
        self.restart().await?;
        let Scenario { primary, standby, stack } = &mut *self.scenario;
        match self.random.random_range(0..12) {
            0..5 => {
                let at = ALL.choose(&mut self.random).copied().unwrap_or("append.done");
                let times = self.random.random_range(1..4);
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
                self.mend().await?;
                self.scenario.settle_and_compare(&[self.user]).await?;
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
        self.restart().await?;
        self.scenario.stack.answers().await
    }

    async fn run(&mut self) -> Result<()> {
        let mut client = self.scenario.log_in(self.user).await?;
        for _ in 0..STEPS / 3 {
            self.step(&mut client).await?;
        }
        self.scenario.protect(&[self.user]).await?;
        for _ in 0..STEPS {
            let done = self.step(&mut client).await;
            done.with_context(|| format!("step; primary:\n{}", self.scenario.primary.log_tail()))?;
            self.restart().await?;
            if self.random.random_ratio(1, MISHAPS) {
                self.mishap(&mut client).await?;
            }
        }
        self.mend().await?;
        self.scenario.settle_and_compare(&[self.user]).await?;
        let unprotect = ["mailbox", "unprotect", self.user, "--yes"];
        self.scenario.stack.command(&unprotect).await?.expect(0).map(drop)
    }
}

#[tokio::test]
async fn a_random_walk_ends_with_two_equal_sides() -> Result<()> {
    let given: Option<u64> = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| rand::random::<u32>().into());
    let seeds = if given.is_some() { 1 } else { SEEDS * times(20) };
    let users: Vec<String> = (0..seeds).map(|number| format!("user{number}")).collect();
    let mut scenario = Scenario::apart(&users.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for (seed, user) in (first..).zip(&users) {
        println!("UNDERSTUDY_SEED={seed}");
        let (random, mail) = (StdRng::seed_from_u64(seed), Mail::from_seed(seed));
        let mut walk = Walk { random, mail, scenario: &mut scenario, user };
        walk.run().await.with_context(|| format!("UNDERSTUDY_SEED={seed}"))?;
    }
    Ok(())
}
