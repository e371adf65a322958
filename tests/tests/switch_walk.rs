//! Arbitrary doings on both sides while a user is away; then home, with everything that nobody removed, and two equal sides.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;
use serde_json::Value;
use understudy_tests::client::{Client, Refused, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;
use understudy_tests::wait;

use crate::somebody::{FOLDERS, Somebody, seeds, walk_each};

const SEEDS: u64 = 8;
const STEPS: usize = 30;
/// Late changes of the primary have come over by then.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The session that applied to it last is kept for the way home.
#[tokio::test]
async fn a_folder_that_is_made_anew_while_its_user_is_away_keeps_its_mail() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(75));
    ann.create("Work").await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    ann.append("Work", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    switch(&scenario, &["switchover", "ann"]).await?;
    let mut there = scenario.log_in_to_standby("ann").await?;
    there.replace("Work").await?;
    let mut wanted = BTreeSet::new();
    for _ in 0..3 {
        let message = mail.any();
        there.append("Work", &["\\Flagged"], None, &message).await?;
        wanted.insert(*blake3::hash(&message).as_bytes());
    }
    // The primary got something too, which has to be brought over there.
    for _ in 0..3 {
        let message = mail.any();
        ann.append("INBOX", &[], None, &message).await?;
        wanted.insert(*blake3::hash(&message).as_bytes());
    }
    switch(&scenario, &["switchback", "ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let home = digests(&scenario.snapshot("ann").await?);
    ensure!(wanted.is_subset(&home), "mail is lost that came while the user was away");
    ensure!(scenario.standby.complaints().is_empty(), "{}", scenario.standby.complaints());
    Ok(())
}

/// What a mailbox holds into which late changes of the primary still come: a folder may be renamed between listing and opening it.
async fn standing(client: &mut Client) -> Result<Snapshot> {
    let mut seen = Snapshot::default();
    wait::until("every folder that is listed opens", PATIENCE, async || match client.snapshot().await {
        Err(error) if error.chain().any(|cause| cause.is::<Refused>()) => Ok(false),
        looked => {
            seen = looked?;
            Ok(true)
        }
    })
    .await?;
    Ok(seen)
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
    let there = digests(&standing(&mut on_standby).await?);
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
