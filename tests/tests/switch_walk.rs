//! Arbitrary doings on both sides while a user is away; then home, with everything that nobody removed, and two equal sides.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use understudy_tests::client::{Client, Refused, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;

use crate::times;

const SEEDS: usize = 8;
const STEPS: usize = 30;
const FOLDERS: [&str; 8] = ["INBOX", "A", "A/B", "A/B/C", "Zoë", "Zoë/Ünter", "中文", "Sent"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Work", "Custom"];

struct Doing {
    random: StdRng,
    mail: Mail,
}

impl Doing {
    /// One thing a user might do; gives the digest of what was appended. The server may refuse it.
    async fn step(&mut self, client: &mut Client) -> Result<Option<blake3::Hash>> {
        let (folder, other) = (self.any(&FOLDERS), self.any(&FOLDERS));
        client.select("INBOX").await?;
        let mut appended = None;
        let done = match self.random.random_range(0..18) {
            0..6 => {
                let (flag, message) = (self.any(&FLAGS), self.mail.any());
                let done = client.append(folder, &[flag], None, &message).await.map(drop);
                appended = done.is_ok().then(|| blake3::hash(&message));
                done
            }
            6..14 => self.with_messages(client, folder, other).await,
            14 => client.create(folder).await,
            15 if folder != "INBOX" => client.rename(folder, other).await,
            16 => client.delete(folder).await,
            _ => client.subscribe(folder).await,
        };
        match done {
            Err(error) if !error.is::<Refused>() => Err(error),
            _ => Ok(appended),
        }
    }

    async fn with_messages(&mut self, client: &mut Client, folder: &str, other: &str) -> Result<()> {
        let uids = client.uids(folder).await?;
        let Some(uid) = uids.choose(&mut self.random) else { return Ok(()) };
        let (set, flag) = (uid.to_string(), self.any(&FLAGS));
        match self.random.random_range(0..8) {
            0..3 => client.store(&set, &format!("+FLAGS ({flag})")).await,
            3 => client.store(&set, &format!("FLAGS ({flag})")).await,
            4 => client.copy(&set, other).await,
            5 | 6 => client.move_to(&set, other).await,
            _ => client.expunge(&set).await,
        }
    }

    fn any(&mut self, of: &[&'static str]) -> &'static str {
        of.choose(&mut self.random).copied().unwrap_or("INBOX")
    }
}

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
    let mut doing = Doing { random: StdRng::seed_from_u64(seed), mail: Mail::from_seed(seed) };
    let mut on_primary = scenario.log_in(user).await?;
    for _ in 0..STEPS {
        doing.step(&mut on_primary).await?;
    }
    scenario.protect(&[user]).await?;
    scenario.settle().await?;
    scenario.until(user, "is mirroring", |shown| shown["state"] == "mirroring").await?;
    let (planned, stranded) = (doing.random.random_bool(0.5), doing.random.random_bool(0.6));
    println!("UNDERSTUDY_SEED={seed} planned {planned}, stranded {stranded}");
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
    let given: Option<u64> = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| rand::random::<u32>().into());
    let seeds = if given.is_some() { 1 } else { SEEDS * times(25) };
    let users: Vec<String> = (0..seeds).map(|number| format!("user{number}")).collect();
    let scenario = Scenario::start(&users.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for (seed, user) in (first..).zip(&users) {
        walk(&scenario, user, seed).await.with_context(|| format!("UNDERSTUDY_SEED={seed}"))?;
    }
    Ok(())
}
