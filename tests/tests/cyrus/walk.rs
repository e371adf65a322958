//! Arbitrary doings of a user, with either server killed in between; then a complete comparison.

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use understudy_tests::client::{Client, Refused};
use understudy_tests::cyrus;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{PRIMARY, STANDBY};

use super::exact;
use super::pair::Pair;
use crate::times;

const STEPS: usize = 120;
/// Names to choose from; some are parents of others, some are spelled otherwise on the other server.
const FOLDERS: [&str; 10] = ["INBOX", "A", "A/B", "A/B/C", "D", "D/A", "Zoë", "Zoë/a.b^c", "INBOX/中文", "Sent"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Work", "Custom"];

struct Walk {
    random: StdRng,
    mail: Mail,
}

impl Walk {
    /// One thing a user might do. The server may refuse it; that is its right.
    async fn step(&mut self, client: &mut Client) -> Result<()> {
        let (folder, other) = (self.any(&FOLDERS), self.any(&FOLDERS));
        client.select("INBOX").await?;
        let done = match self.random.random_range(0..24) {
            0..6 => {
                let (flag, message) = (self.any(&FLAGS), self.mail.any());
                client.append(folder, &[flag], None, &message).await.map(drop)
            }
            6..15 => self.with_messages(client, folder, other).await,
            15..17 => client.create(folder).await,
            // Cyrus 3.6.1 crashes on a RENAME of INBOX.
            17..20 if folder == "INBOX" => client.create(other).await,
            17..20 => client.rename(folder, other).await,
            20..22 => client.delete(folder).await,
            22 => client.subscribe(folder).await,
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

async fn walk(mut pair: Pair) -> Result<()> {
    let given = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("UNDERSTUDY_SEED={seed}");
    walk_from(seed, &mut pair).await.with_context(|| format!("UNDERSTUDY_SEED={seed}"))
}

async fn walk_from(seed: u64, pair: &mut Pair) -> Result<()> {
    let mut walk = Walk { random: StdRng::seed_from_u64(seed), mail: Mail::from_seed(seed) };
    let mut ann = pair.log_in("ann").await?;
    for _ in 0..STEPS / 3 {
        walk.step(&mut ann).await?;
    }
    pair.protect(&["ann"]).await?;
    for step in 0..STEPS * times(20) {
        walk.step(&mut ann).await?;
        // Each at least once.
        let mishap = if step == STEPS / 3 {
            0
        } else if step == STEPS / 2 {
            1
        } else {
            walk.random.random_range(0..40)
        };
        match mishap {
            0 => {
                pair.cyrus.kill()?;
                pair.cyrus.start_again()?;
                ann = pair.log_in("ann").await?;
            }
            1 => {
                pair.dovecot.kill()?;
                pair.dovecot.start_again()?;
                ann = pair.log_in("ann").await?;
            }
            2..5 => pair.settle_and_compare(&["ann"]).await?,
            _ => {}
        }
    }
    pair.settle_and_compare(&["ann"]).await?;
    // By its own eyes too.
    assert_eq!(pair.verify("ann").await?, []);
    Ok(())
}

#[tokio::test]
async fn a_random_walk_on_a_dovecot_ends_equal_on_cyrus() -> Result<()> {
    walk(Pair::from_dovecot(exact(STANDBY)).await?).await
}

#[tokio::test]
async fn a_random_walk_on_cyrus_ends_equal_on_a_dovecot() -> Result<()> {
    walk(Pair::from_cyrus(exact(PRIMARY)).await?).await
}

/// Other separator, other prefix.
#[tokio::test]
async fn a_random_walk_ends_equal_where_names_are_spelled_otherwise() -> Result<()> {
    walk(Pair::from_dovecot(exact(STANDBY).dots_below_inbox()).await?).await?;
    walk(Pair::from_cyrus(cyrus::Options::new(PRIMARY).extra(super::KEEPS_HEADERS).dots()).await?).await
}
