//! Arbitrary doings of a user, with either server killed in between; then a complete comparison.

use anyhow::{Context as _, Result};
use rand::Rng as _;
use understudy_tests::cyrus;
use understudy_tests::scenario::{PRIMARY, STANDBY};

use super::exact;
use super::pair::Pair;
use crate::somebody::{DAMAGED, Somebody, damage, seeds};

const STEPS: usize = 120;
/// Names to choose from; some are parents of others, some are spelled otherwise on the other server.
const FOLDERS: [&str; 10] = ["INBOX", "A", "A/B", "A/B/C", "D", "D/A", "Zoë", "Zoë/a.b^c", "INBOX/中文", "Sent"];

async fn walk(start: impl AsyncFn() -> Result<Pair>) -> Result<()> {
    for seed in seeds(1, 20) {
        println!("UNDERSTUDY_SEED={seed}");
        let mut damaged = 0;
        let mut pair = start().await?;
        while let Err(error) = walk_from(seed, &mut pair).await {
            let said = damage(&[&pair.dovecot]);
            if said.is_empty() || damaged == DAMAGED {
                return Err(error).with_context(|| format!("UNDERSTUDY_SEED={seed}"));
            }
            damaged += 1;
            println!("  walked again, for Dovecot damaged its index; it failed with: {error:#}\n{said}");
            pair = start().await?;
        }
    }
    Ok(())
}

async fn walk_from(seed: u64, pair: &mut Pair) -> Result<()> {
    let mut walk = Somebody::from_seed(seed, &FOLDERS);
    let mut ann = pair.log_in("ann").await?;
    for _ in 0..STEPS / 3 {
        walk.step(&mut ann).await?;
    }
    pair.protect(&["ann"]).await?;
    for step in 0..STEPS {
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
    walk(async || Pair::from_dovecot(exact(STANDBY)).await).await
}

#[tokio::test]
async fn a_random_walk_on_cyrus_ends_equal_on_a_dovecot() -> Result<()> {
    walk(async || Pair::from_cyrus(exact(PRIMARY)).await).await
}

/// Other separator, other prefix.
#[tokio::test]
async fn a_random_walk_ends_equal_where_names_are_spelled_otherwise() -> Result<()> {
    walk(async || Pair::from_dovecot(exact(STANDBY).dots_below_inbox()).await).await?;
    walk(async || Pair::from_cyrus(cyrus::Options::new(PRIMARY).extra(super::KEEPS_HEADERS).dots()).await).await
}
