//! Partitions while users change sides: at no time do two homes take writes for one mailbox, and nothing that was acknowledged is lost.
//!
//! Real servers: a Dovecot proxy before a primary and a standby, the gateways as processes of their own. What is cut, or hangs: the
//! primary from the gateways, the primary from the front door, the two sites from each other. Two mail programs write all the time
//! through the front door, and every answer says which server gave it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::time::timeout;
use understudy_tests::client::{self, Client};
use understudy_tests::dovecot::{Dovecot, PASSWORD};
use understudy_tests::fork::Fork;
use understudy_tests::front_door::{DovecotProxy, Plan};
use understudy_tests::proxy::{Mode, Proxy};
use understudy_tests::scenario::{self, PRIMARY, STANDBY};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::somebody::seeds;

const PATIENCE: Duration = Duration::from_secs(180);
/// A mail program that has no answer for so long logs in again.
const ANSWER: Duration = Duration::from_secs(3);
/// Where the mail servers see the front door come from.
const DOOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 79);
const WRITERS: usize = 2;
const SEEDS: u64 = 2;
/// In a long run so many times more.
const LONGER: usize = 100;
/// A change of side that a partition made fail is asked for again; without one it must not fail.
const TRIES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Cut {
    PrimaryFromGateways,
    PrimaryFromDoor,
    SiteFromSite,
}

/// A partition: where, how, how long after the change of side was asked for, and for how long.
#[derive(Clone, Copy, Debug)]
struct Partition {
    cut: Cut,
    mode: Mode,
    after: Duration,
    lasts: Duration,
}

impl Partition {
    fn any(random: &mut StdRng) -> Self {
        let cuts = [Cut::PrimaryFromGateways, Cut::PrimaryFromDoor, Cut::SiteFromSite];
        Self {
            cut: cuts.choose(random).copied().unwrap_or(Cut::SiteFromSite),
            mode: if random.random_bool(0.5) { Mode::Cut } else { Mode::Hold },
            after: Duration::from_millis(random.random_range(0..1200)),
            lasts: Duration::from_millis(random.random_range(200..2500)),
        }
    }
}

struct Site {
    primary: Dovecot,
    standby: Dovecot,
    stack: Stack,
    to_gateways: Proxy,
    to_door: Proxy,
    door: DovecotProxy,
    _fork: Fork,
    _plan: Plan,
}

impl Site {
    async fn start(users: &[&str]) -> Result<Self> {
        // Who answers is asked of the server itself.
        let mut primary = Dovecot::start(scenario::primary(users).extra("imap_id_send = name primary"))?;
        let standby = Dovecot::start(scenario::standby(users).managed().extra("imap_id_send = name standby"))?;
        let (to_gateways, to_door) =
            (Proxy::to(primary.imap_address()).await?, Proxy::to(primary.imap_address()).await?);
        let fork = Fork::to(DOOR, to_door.address(), to_gateways.address()).await?;
        primary.behind(fork.address());
        let plan = Plan::new()?;
        let stack = Stack::apart_behind(&[("primary", &primary), ("standby", &standby)], &plan).await?;
        let door = DovecotProxy::start_from(&plan, DOOR)?;
        Ok(Self { primary, standby, stack, to_gateways, to_door, door, _fork: fork, _plan: plan })
    }

    fn way(&self, cut: Cut) -> Result<&Proxy> {
        Ok(match cut {
            Cut::PrimaryFromGateways => &self.to_gateways,
            Cut::PrimaryFromDoor => &self.to_door,
            Cut::SiteFromSite => self.stack.link()?,
        })
    }

    /// Cuts, waits, and lets everything through again.
    async fn suffer(&self, partition: Partition) -> Result<()> {
        tokio::time::sleep(partition.after).await;
        self.way(partition.cut)?.set(partition.mode);
        tokio::time::sleep(partition.lasts).await;
        self.way(partition.cut)?.set(Mode::Pass);
        Ok(())
    }

    async fn shown(&self, user: &str) -> Result<Value> {
        self.stack.json(&["mailbox", "show", user]).await
    }

    async fn epoch(&self, user: &str) -> Result<u64> {
        self.shown(user).await?["epoch"].as_u64().context("no epoch")
    }

    /// Whether the change of side came to its end; otherwise what was said.
    async fn change(&self, arguments: &[&str]) -> Result<Result<(), String>> {
        let answer = self.stack.command(&[arguments, &["--wait", "--json"]].concat()).await?;
        Ok(if answer.code == 0 { Ok(()) } else { Err(format!("{}{}", answer.stdout, answer.stderr)) })
    }
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
struct Write {
    asked: Instant,
    acknowledged: Instant,
    home: String,
    digest: [u8; 32],
}

#[derive(Default)]
struct Written {
    acknowledged: Mutex<Vec<Write>>,
    stop: AtomicBool,
}

impl Written {
    fn all(&self) -> Vec<Write> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, write: Write) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(write);
    }

    /// Until `home` has acknowledged something that was asked of it from now on.
    async fn by(&self, home: &str) -> Result<()> {
        let now = Instant::now();
        wait::until(&format!("the {home} takes writes"), PATIENCE, async || {
            Ok(self.all().iter().any(|write| write.home == home && write.asked > now))
        })
        .await
    }
}

/// Writes and writes, and logs in again when its session ends or hangs.
async fn write(door: SocketAddr, user: String, name: String, written: Arc<Written>) {
    let (mut session, mut number): (Option<(Client, String)>, u32) = (None, 0);
    while !written.stop.load(Ordering::Relaxed) {
        let Some((client, home)) = &mut session else {
            session = timeout(ANSWER, enter(door, &user)).await.ok().and_then(Result::ok);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        number += 1;
        let message = format!("Subject: {name}-{number:05}\r\n\r\nWritten by {name} for {user}.\r\n");
        let asked = Instant::now();
        if let Ok(Ok(_)) = timeout(ANSWER, client.append("INBOX", &[], None, message.as_bytes())).await {
            let digest = *blake3::hash(message.as_bytes()).as_bytes();
            written.add(Write { asked, acknowledged: Instant::now(), home: home.clone(), digest });
        } else {
            session = None;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// A session through the front door, and whose it is.
async fn enter(door: SocketAddr, user: &str) -> Result<(Client, String)> {
    let mut client = Client::log_in(door, user, PASSWORD).await?;
    let said = client.command("ID NIL").await?;
    let words: Vec<String> = said.iter().flatten().flat_map(client::Value::list).map(client::Value::text).collect();
    let name = words.iter().position(|word| word.eq_ignore_ascii_case("name")).and_then(|at| words.get(at + 1));
    Ok((client, name.context("the server does not say who it is")?.clone()))
}

/// How often the home changed, as the mail programs saw it: the longest chain of writes, each asked for after the one before was
/// acknowledged, and by another home.
fn changes_of_home(writes: &[Write]) -> u64 {
    let mut writes = writes.to_vec();
    writes.sort_by_key(|write| write.acknowledged);
    let from = |first: Option<&Write>| {
        let (mut last, mut changes) = (first, 0);
        while let Some(before) = last {
            last = writes.iter().find(|write| write.home != before.home && write.asked > before.acknowledged);
            changes += u64::from(last.is_some());
        }
        changes
    };
    let other = writes.first().and_then(|first| writes.iter().find(|write| write.home != first.home));
    from(writes.first()).max(from(other))
}

/// One seed: there and back under partitions, with a mailbox of its own.
async fn round(site: &Site, user: &str, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let protect = ["mailbox", "protect", user, "--primary", PRIMARY, "--standby", STANDBY];
    site.stack.command(&protect).await?.expect(0)?;
    wait::until(&format!("{user} is mirrored"), PATIENCE, async || Ok(site.shown(user).await?["state"] == "mirroring"))
        .await?;
    let first_epoch = site.epoch(user).await?;
    let written = Arc::new(Written::default());
    let door = site.door.imap_address();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(door, user.to_owned(), format!("{seed}-{writer}"), written.clone())))
        .collect();
    written.by("primary").await?;

    let (forced, over, back) = (random.random_bool(0.6), Partition::any(&mut random), Partition::any(&mut random));
    println!("  forced {forced}, over {over:?}, back {back:?}");
    if forced {
        // Nobody knows when it ends: the user is moved while it lasts.
        tokio::time::sleep(over.after / 4).await;
        site.way(over.cut)?.set(over.mode);
        tokio::time::sleep(over.lasts / 4).await;
        let moved = site.change(&["switchover", user, "--mode", "emergency", "--yes"]).await?;
        ensure!(moved.is_ok(), "the emergency failed: {moved:?}");
        written.by("standby").await?;
        site.way(over.cut)?.set(Mode::Pass);
    } else {
        under_partition(site, &["switchover", user], over, "primary", &written).await?;
        written.by("standby").await?;
    }

    under_partition(site, &["switchback", user], back, "standby", &written).await?;
    written.by("primary").await?;
    written.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }

    let writes = written.all();
    let (changes, epochs) = (changes_of_home(&writes), site.epoch(user).await? - first_epoch);
    ensure!(changes <= epochs, "two homes took writes: {changes} changes of home in {epochs} changes of side");
    ensure!(changes >= 2, "the user was not away: {changes} changes of home");
    site.stack.command(&["mailbox", "wait", user, "--timeout", "240s"]).await?.expect(0)?;
    for (server, name) in [(&site.primary, "primary"), (&site.standby, "standby")] {
        let (mut missing, mut twice) = (0, 0);
        let complete = wait::until("everything acknowledged is there", PATIENCE, async || {
            // A folder that is just being rebuilt there may go away while it is read.
            let Ok(found) = held(server, user).await else { return Ok(false) };
            missing = writes.iter().filter(|write| !found.contains_key(&write.digest)).count();
            twice = found.values().filter(|count| **count > 1).count();
            Ok(missing == 0)
        });
        complete.await.with_context(|| format!("{missing} of {} writes are not on the {name}", writes.len()))?;
        ensure!(twice == 0, "{twice} messages are more than once on the {name}");
    }
    println!("  {} writes, {changes} changes of home in {epochs} epochs", writes.len());
    site.stack.command(&["mailbox", "unprotect", user, "--yes"]).await?.expect(0).map(drop)
}

/// Changes the side of a user who is at `home`. Where the partition makes that fail, the user stays there and goes on; then it is asked for
/// again, without one.
async fn under_partition(
    site: &Site,
    arguments: &[&str; 2],
    partition: Partition,
    home: &str,
    written: &Written,
) -> Result<()> {
    let (changed, suffered) = tokio::join!(site.change(arguments), site.suffer(partition));
    suffered?;
    if changed?.is_err() {
        let side = &site.shown(arguments[1]).await?["active_side"];
        ensure!(*side == home, "{arguments:?} failed and left the user on the {side}");
        written.by(home).await?;
        until_done(site, arguments).await?;
    }
    Ok(())
}

/// Without a partition it may fail only because of what the last one left behind.
async fn until_done(site: &Site, arguments: &[&str]) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = site.change(arguments).await?;
        if last.is_ok() {
            return Ok(());
        }
    }
    ensure!(last.is_ok(), "{arguments:?} failed again and again: {last:?}");
    Ok(())
}

/// How often each message is in a user's INBOX.
async fn held(server: &Dovecot, user: &str) -> Result<BTreeMap<[u8; 32], usize>> {
    let seen = Client::log_in(server.imap_address(), user, PASSWORD).await?.snapshot().await?;
    let mut found = BTreeMap::new();
    for message in seen.folders.get("INBOX").map(|inbox| inbox.messages.as_slice()).unwrap_or_default() {
        *found.entry(*message.digest.as_bytes()).or_default() += 1;
    }
    Ok(found)
}

#[tokio::test]
async fn no_partition_makes_two_homes_or_loses_what_was_acknowledged() -> Result<()> {
    let seeds: Vec<u64> = seeds(SEEDS, LONGER).collect();
    let users: Vec<String> = seeds.iter().map(|seed| format!("user{seed}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let site = Site::start(&users).await?;
    for (seed, user) in seeds.into_iter().zip(users) {
        println!("UNDERSTUDY_SEED={seed}");
        round(&site, user, seed).await.with_context(|| format!("UNDERSTUDY_SEED={seed}"))?;
    }
    Ok(())
}
