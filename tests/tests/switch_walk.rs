//! Arbitrary doings on both sides while a user is away; then home, with everything that nobody removed, and two equal sides.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;
use serde_json::Value;
use understudy_tests::client::Snapshot;
use understudy_tests::compare::compare;
use understudy_tests::scenario::Scenario;

use crate::somebody::{FOLDERS, Somebody, seeds, walk_each};

const SEEDS: u64 = 8;
const STEPS: usize = 30;

fn digests(snapshot: &Snapshot) -> BTreeSet<[u8; 32]> {
    let messages = snapshot.folders.values().flat_map(|folder| &folder.messages);
    messages.map(|message| *message.digest.as_bytes()).collect()
}

/// Both sides got mail on their own, so it stands in another order, equal messages too.
pub(crate) fn without_order(mut snapshot: Snapshot) -> Snapshot {
    for folder in snapshot.folders.values_mut() {
        folder.messages.sort_by_key(|message| (*message.digest.as_bytes(), message.flags.clone(), message.date));
    }
    snapshot
}

async fn switch(scenario: &Scenario, arguments: &[&str]) -> Result<()> {
    let answer = scenario.stack.command(&[arguments, &["--wait", "--json"]].concat()).await?;
    let said: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    ensure!(answer.code == 0, "{arguments:?}: {said:#} {}", answer.stderr);
    Ok(())
}

async fn walk(scenario: &Scenario, user: &str, seed: u64) -> Result<()> {
    let mut doing = Somebody::from_seed(seed, &FOLDERS);
    let mut on_primary = scenario.log_in(user).await?;
    for _ in 0..STEPS {
        doing.step(&mut on_primary).await?;
    }
    scenario.protect(&[user]).await?;
    scenario.settle().await?;
    scenario.until(user, "is mirroring", |shown| shown["state"] == "mirroring").await?;
    let (planned, stranded) = (doing.random.random_bool(0.5), doing.random.random_bool(0.6));
    println!("  planned {planned}, stranded {stranded}");
    if planned {
        switch(scenario, &["switchover", user]).await?;
    } else {
        switch(scenario, &["switchover", user, "--mode", "emergency", "--yes"]).await?;
    }
    let mut on_standby = scenario.log_in_to_standby(user).await?;
    let (mut new_on_standby, mut new_on_primary) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..STEPS {
        let appended = doing.step(&mut on_standby).await.context("on the standby")?;
        new_on_standby.extend(appended.map(|digest| *digest.as_bytes()));
        if stranded {
            doing.step(&mut on_primary).await.context("on the primary")?;
        }
    }
    if stranded {
        for _ in 0..3 {
            let message = doing.mail.any();
            on_primary.append("INBOX", &["$Late"], None, &message).await?;
            new_on_primary.insert(*blake3::hash(&message).as_bytes());
        }
    }
    let there = digests(&on_standby.snapshot().await?);
    switch(scenario, &["switchback", user]).await?;
    scenario.settle().await?;
    let ours = without_order(scenario.log_in(user).await?.snapshot().await?);
    let theirs = without_order(scenario.log_in_to_standby(user).await?.snapshot().await?);
    let found = compare(&ours, &theirs);
    ensure!(found.is_empty(), "{found}");
    let home = digests(&ours);
    let lost = new_on_standby.intersection(&there).filter(|digest| !home.contains(*digest)).count();
    ensure!(lost == 0, "{lost} messages that the user got on the standby did not come home");
    ensure!(new_on_primary.is_subset(&home), "mail that the primary took late is lost");
    let unprotect = ["mailbox", "unprotect", user, "--yes"];
    scenario.stack.command(&unprotect).await?.expect(0).map(drop)
}

#[tokio::test]
async fn whatever_is_done_on_both_sides_comes_together() -> Result<()> {
    walk_each(
        seeds(SEEDS, 25),
        async |users| Scenario::start(users).await,
        async |scenario, user, seed| walk(scenario, user, seed).await,
    )
    .await
}
