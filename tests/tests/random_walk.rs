//! Arbitrary doings of a user, with crashes and cuts in between; then a complete comparison.

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use understudy_tests::client::{Client, Refused};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;

use crate::times;

const STEPS: usize = 150;
/// Names to choose from; some are parents of others, some are not plain.
const FOLDERS: [&str; 8] = ["INBOX", "A", "A/B", "A/B/C", "Zoë", "Zoë/Ünter", "中文", "Sent"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Work", "Custom"];

struct Walk {
    random: StdRng,
    mail: Mail,
}

impl Walk {
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
            // INBOX is not renamed here: after that, Dovecot 2.3.19 ended sessions ("Mailbox was deleted under us"). Whether a
            // RENAME of INBOX is mirrored is not tested yet.
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
}

#[tokio::test]
async fn a_random_walk_ends_with_two_equal_sides() -> Result<()> {
    let given = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("UNDERSTUDY_SEED={seed}");
    walk(seed).await.with_context(|| format!("UNDERSTUDY_SEED={seed}"))
}

async fn walk(seed: u64) -> Result<()> {
    let mut walk = Walk { random: StdRng::seed_from_u64(seed), mail: Mail::from_seed(seed) };
    let mut scenario = Scenario::start(&["ann"]).await?;
    let mut ann = scenario.log_in("ann").await?;
    for _ in 0..STEPS / 3 {
        walk.step(&mut ann).await?;
    }
    scenario.protect(&["ann"]).await?;
    for _ in 0..STEPS * times(20) {
        walk.step(&mut ann).await.with_context(|| format!("step; primary:\n{}", scenario.primary.log_tail()))?;
        match walk.random.random_range(0..60) {
            0 => {
                scenario.stack.kill()?;
                scenario.stack.start().await?;
            }
            1 => {
                scenario.standby.kill()?;
                scenario.standby.start_again()?;
            }
            2 => {
                scenario.primary.kill()?;
                scenario.primary.start_again()?;
                ann = scenario.log_in("ann").await?;
            }
            3 => scenario.settle_and_compare(&["ann"]).await?,
            _ => {}
        }
    }
    scenario.settle_and_compare(&["ann"]).await
}
