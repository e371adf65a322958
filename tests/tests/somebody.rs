//! Somebody at a mail program who does anything: the steps of every random walk, each from its seed.
//!
//! `UNDERSTUDY_SEED` repeats one. A short run takes the same seeds each time, so that a commit that passed passes again; a long one
//! takes others.

use std::ops::Range;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use understudy_tests::client::{Client, Refused};
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;

use crate::times;

/// Names to choose from; some are parents of others, some are not plain.
pub(crate) const FOLDERS: [&str; 8] = ["INBOX", "A", "A/B", "A/B/C", "Zoë", "Zoë/Ünter", "中文", "Sent"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Work", "Custom"];
/// How many walks of a run may be walked again because a server damaged its own index.
pub(crate) const DAMAGED: usize = 2;

pub(crate) struct Somebody {
    pub(crate) random: StdRng,
    pub(crate) mail: Mail,
    folders: &'static [&'static str],
}

impl Somebody {
    pub(crate) fn from_seed(seed: u64, folders: &'static [&'static str]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), mail: Mail::from_seed(seed), folders }
    }

    /// One thing a user might do; gives the digest of what was appended. The server may refuse it; that is its right.
    pub(crate) async fn step(&mut self, client: &mut Client) -> Result<Option<blake3::Hash>> {
        let (folder, other) = (self.any(self.folders), self.any(self.folders));
        // Dovecot ends a session whose selected folder is deleted.
        client.select("INBOX").await?;
        let mut appended = None;
        let done = match self.random.random_range(0..22) {
            0..6 => {
                let (flag, message) = (self.any(&FLAGS), self.mail.any());
                let done = client.append(folder, &[flag], None, &message).await.map(drop);
                appended = done.is_ok().then(|| blake3::hash(&message));
                done
            }
            6..15 => self.with_messages(client, folder, other).await,
            15..17 => client.create(folder).await,
            // INBOX is not renamed here: after that, Dovecot 2.3.19 ended sessions ("Mailbox was deleted under us"), and Cyrus 3.6.1
            // crashes. `kinds` renames it.
            17..19 if folder == "INBOX" => client.create(other).await,
            17..19 => client.rename(folder, other).await,
            19 => client.delete(folder).await,
            20 => client.subscribe(folder).await,
            _ => client.unsubscribe(folder).await,
        };
        match done {
            Err(error) if !error.is::<Refused>() => Err(error),
            _ => Ok(appended),
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

/// The seeds of a run: `short` of them, or so many times more in a long one.
pub(crate) fn seeds(short: u64, longer: usize) -> Range<u64> {
    if let Some(given) = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return given..given + 1;
    }
    let is_long = times(2) > 1;
    let first = if is_long { rand::random::<u32>().into() } else { 1 };
    first..first + short * times(longer) as u64
}

/// Walks with each of these seeds, each in a mailbox of its own.
///
/// Dovecot 2.3.19 now and then damages its list of folders under quick changes, and then shows other folders than there are, to the
/// test's own eyes too. A walk that fails on a server that says so is walked once more on fresh ones.
pub(crate) async fn walk_each(
    seeds: impl IntoIterator<Item = u64>,
    start: impl AsyncFn(&[&str]) -> Result<Scenario>,
    walk: impl AsyncFn(&mut Scenario, &str, u64) -> Result<()>,
) -> Result<()> {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    if seeds.is_empty() {
        return Ok(());
    }
    let users: Vec<String> = (0..seeds.len()).map(|number| format!("user{number}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut scenario = start(&users).await?;
    let mut damaged = 0;
    for (seed, user) in seeds.into_iter().zip(&users) {
        println!("UNDERSTUDY_SEED={seed}");
        while let Err(error) = walk(&mut scenario, user, seed).await {
            let said = damage(&[&scenario.primary, &scenario.standby]);
            if said.is_empty() || damaged == DAMAGED {
                return Err(error).with_context(|| format!("UNDERSTUDY_SEED={seed}"));
            }
            damaged += 1;
            println!("  walked again, for a server damaged its index; it failed with: {error:#}\n{said}");
            scenario = start(&users).await?;
        }
    }
    Ok(())
}

/// What servers say of damage that they did to themselves.
pub(crate) fn damage(servers: &[&Dovecot]) -> String {
    const SAYS: [&str; 5] = [
        "Corrupted mailbox list index",
        "mailbox list index",
        "indexid changed",
        "duplicate transaction log sequence",
        "killed with signal 11",
    ];
    let complaints: String = servers.iter().map(|server| server.complaints()).collect();
    complaints
        .lines()
        .filter(|line| SAYS.iter().any(|says| line.contains(says)))
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect()
}
