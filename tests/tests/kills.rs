//! Anything may be killed at any moment; nothing is lost, doubled or reordered, and nothing is copied anew.
//!
//! The primary is read through a proxy that lets just so much pass: a strike provably falls while the first full copy is being captured,
//! and what is read again shows.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::{Mode, Proxy};
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::mirroring::fill;
use crate::times;

const USERS: [&str; 2] = ["ann", "bob"];
/// While the first full copy is being captured.
const STRIKES: usize = 3;
/// What the primary may give from one strike to the next, in bytes. More than a transaction of a thousand messages needs, …
const ALLOWANCE: u64 = 4_400_000;
/// … and all of it together, with one more in reserve, is less than this many messages …
const MESSAGES: usize = 6_000;
/// … of this size.
const MESSAGE_BYTES: usize = 3_000;
const _: () = assert!((STRIKES as u64 + 1) * ALLOWANCE < (MESSAGES * MESSAGE_BYTES) as u64);
/// What a strike cut off is read once more, and the rest of an allowance may be less than a transaction needs: one that led to nothing for
/// so long is followed by another.
const STANDSTILL: Duration = Duration::from_secs(20);
const AMID_PATIENCE: Duration = Duration::from_secs(240);
/// Attachments that nobody touches during live traffic, and the size of each.
const KEPT: usize = 20;
const KEPT_BYTES: usize = 200_000;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The whole product with its database, as in a power failure.
    Understudy,
    /// Only the program; its database goes on as an orphan.
    Program,
    Postgres,
    Primary,
    Standby,
    SourceGateway,
    RecoveryGateway,
    Link,
}

impl Victim {
    async fn site(self) -> Result<Site> {
        let mut primary = Dovecot::start(scenario::primary(&USERS))?;
        let wire = Proxy::to(primary.imap_address()).await?;
        primary.behind(wire.address());
        let standby = Dovecot::start(scenario::standby(&USERS))?;
        let servers = [("primary", &primary), ("standby", &standby)];
        let stack = match self {
            Self::SourceGateway | Self::RecoveryGateway | Self::Link => Stack::apart(&servers).await?,
            _ => Stack::up(&servers).await?,
        };
        Ok(Site { scenario: Scenario { primary, standby, stack }, wire })
    }

    /// Kills it.
    async fn fell(self, scenario: &mut Scenario) -> Result<()> {
        let Scenario { primary, standby, stack } = scenario;
        match self {
            Self::Understudy => stack.kill(),
            Self::Program => stack.kill_role("up"),
            Self::SourceGateway => stack.kill_role("source"),
            Self::RecoveryGateway => stack.kill_role("recovery"),
            Self::Postgres => stack.kill_postgres().await,
            Self::Primary => primary.kill(),
            Self::Standby => standby.kill(),
            Self::Link => stack.link()?.cut().await,
        }
    }

    /// Starts again what does not come back by itself.
    async fn raise(self, scenario: &mut Scenario) -> Result<()> {
        let Scenario { primary, standby, stack } = scenario;
        match self {
            Self::Understudy | Self::Program | Self::SourceGateway | Self::RecoveryGateway => stack.start().await,
            Self::Postgres => stack.answers().await,
            Self::Primary => primary.start_again(),
            Self::Standby => standby.start_again(),
            Self::Link => {
                stack.link()?.set(Mode::Pass);
                Ok(())
            }
        }
    }
}

/// Two mail servers, what mirrors them, and the wire on which it reads the primary.
struct Site {
    scenario: Scenario,
    wire: Proxy,
}

/// Bytes that have been moved for the sake of the mirror.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// Read from the primary.
    read: u64,
    /// Over the link, where the gateways run apart.
    crossed: u64,
}

impl Site {
    fn moved(&self) -> Moved {
        let crossed = self.scenario.stack.link().map_or(0, Proxy::bytes_to_server);
        Moved { read: self.wire.bytes_to_client(), crossed }
    }

    /// Since `before`, less than `limit`.
    fn assert_moved_less(&self, before: Moved, limit: u64) -> Result<()> {
        let now = self.moved();
        let (read, crossed) = (now.read - before.read, now.crossed - before.crossed);
        println!("{read} bytes read and {crossed} crossed, limit {limit}");
        ensure!(read < limit, "{read} bytes were read from the primary, which is not less than {limit}");
        ensure!(crossed < limit, "{crossed} bytes crossed the link, which is not less than {limit}");
        Ok(())
    }

    /// Until the recovery site has got more of ann's first full copy than `before`; answers how much, in bytes of messages. The primary
    /// has not given all of it then, and does not before it may.
    async fn amid_seeding(&self, before: u64) -> Result<u64> {
        let amid = |shown: &Value| {
            let all = (MESSAGES * times(3)) as u64;
            let is_seeding = shown["state"] == "seeding"
                && shown["progress"]["messages_done"].as_u64().is_some_and(|done| done < all);
            is_seeding && received(shown).is_some_and(|bytes| bytes > before)
        };
        let (mut shown, mut moved_at, mut read) = (Value::Null, Instant::now(), 0);
        let further =
            wait::until("ann is in the middle of seeding, and further than before", AMID_PATIENCE, async || {
                // While parts are being killed, nobody may be there to ask.
                shown = self.scenario.show("ann").await.unwrap_or_default();
                let now = self.wire.bytes_to_client();
                if now != read {
                    (moved_at, read) = (Instant::now(), now);
                }
                if moved_at.elapsed() >= STANDSTILL {
                    self.wire.allow(ALLOWANCE);
                }
                Ok(amid(&shown))
            });
        further.await.with_context(|| format!("it is as follows: {shown:#}"))?;
        received(&shown).context("it was shown before")
    }
}

/// Bytes of all messages that transactions added; of a transaction that came twice, once.
fn received(shown: &Value) -> Option<u64> {
    shown["traffic"]["message_bytes"].as_u64()
}

async fn killed_while_seeding(victim: Victim) -> Result<()> {
    let mut site = victim.site().await?;
    let mut mail = Mail::from_seed(20);
    let mut ann = site.scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 0).await?;
    let messages: Vec<Vec<u8>> = (0..MESSAGES * times(3)).map(|_| mail.plain(MESSAGE_BYTES)).collect();
    let (inbox, rest) = messages.split_at(messages.len() / 2);
    let (sent, work) = rest.split_at(rest.len() / 2);
    for (folder, messages) in [("INBOX", inbox), ("Sent", sent), ("Work/2026/März", work)] {
        ann.append_all(folder, messages).await?;
    }
    site.wire.allow(ALLOWANCE);
    site.scenario.protect(&USERS).await?;
    let (mut there, mut before) = (0, site.moved());
    for _ in 0..STRIKES * times(3) {
        there = site.amid_seeding(there).await?;
        victim.fell(&mut site.scenario).await?;
        before = site.moved();
        victim.raise(&mut site.scenario).await?;
        site.wire.allow(ALLOWANCE);
    }
    site.wire.set(Mode::Pass);
    site.scenario.settle_and_compare(&USERS).await?;

    // No message was captured twice, and after the last strike none was fetched or sent that had been received before.
    let folders = site.scenario.snapshot("ann").await?.folders;
    let all: usize = folders.values().flat_map(|folder| &folder.messages).map(|message| message.size).sum();
    let shown = site.scenario.show("ann").await?;
    assert_eq!(received(&shown), Some(all as u64), "{shown:#}");
    site.assert_moved_less(before, all as u64 - there + ALLOWANCE)
}

async fn killed_during_live_traffic(victim: Victim) -> Result<()> {
    let mut site = victim.site().await?;
    let mut mail = Mail::from_seed(21);
    let mut ann = site.scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 40).await?;
    ann.create("Kept").await?;
    for _ in 0..KEPT * times(10) {
        ann.append("Kept", &["\\Seen"], None, &mail.with_attachment(KEPT_BYTES)).await?;
    }
    site.scenario.protect(&USERS).await?;
    site.scenario.settle().await?;
    let (before, seeded) = (site.moved(), received(&site.scenario.show("ann").await?));
    let kept = uid_next(&site.scenario, "Kept").await?;

    for _ in 0..4 * times(10) {
        if victim == Victim::Primary {
            // Its fall ends the session.
            some_traffic(&mut ann, &mut mail).await?;
            victim.fell(&mut site.scenario).await?;
            victim.raise(&mut site.scenario).await?;
            ann = site.scenario.log_in("ann").await?;
            continue;
        }
        // Once in the fall, once in the outage (which PostgreSQL may have ended already), once in the rise.
        ann.append("INBOX", &[], None, &mail.any()).await?;
        let meanwhile = tokio::spawn(traffic_of(ann, mail));
        victim.fell(&mut site.scenario).await?;
        (ann, mail) = meanwhile.await??;
        some_traffic(&mut ann, &mut mail).await?;
        let meanwhile = tokio::spawn(traffic_of(ann, mail));
        victim.raise(&mut site.scenario).await?;
        (ann, mail) = meanwhile.await??;
    }
    some_traffic(&mut ann, &mut mail).await?;
    site.scenario.settle_and_compare(&USERS).await?;

    // All that was moved, captured and appended since is less than what nobody touched.
    let untouched = (KEPT * times(10) * KEPT_BYTES) as u64;
    site.assert_moved_less(before, untouched)?;
    let shown = site.scenario.show("ann").await?;
    let captured = received(&shown).zip(seeded).map(|(now, seeded)| now - seeded);
    ensure!(captured.is_some_and(|captured| captured < untouched), "{captured:?} bytes were captured: {shown:#}");
    assert_eq!(uid_next(&site.scenario, "Kept").await?, kept, "something was appended where nothing came");
    Ok(())
}

/// From which UID on new messages of ann's would be on the standby.
async fn uid_next(scenario: &Scenario, folder: &str) -> Result<u32> {
    let folders = scenario.log_in_to_standby("ann").await?.snapshot().await?.folders;
    Ok(folders.get(folder).context("the standby lacks a folder")?.uid_next)
}

async fn traffic_of(mut client: Client, mut mail: Mail) -> Result<(Client, Mail)> {
    some_traffic(&mut client, &mut mail).await?;
    Ok((client, mail))
}

async fn some_traffic(client: &mut Client, mail: &mut Mail) -> Result<()> {
    for _ in 0..8 {
        client.append("INBOX", &["$New"], None, &mail.any()).await?;
    }
    let uids = client.uids("INBOX").await?;
    let uid = |index: usize| uids[index % uids.len()].to_string();
    client.store(&uid(0), "+FLAGS (\\Seen)").await?;
    client.copy(&uid(1), "Work").await?;
    client.move_to(&uid(2), "Entwürfe").await?;
    client.expunge(&uid(3)).await?;
    client.append("Work/2026/März", &["\\Seen"], None, &mail.any()).await.map(drop)
}

macro_rules! killed_at_any_moment {
    ($($seeding:ident, $live:ident: $victim:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $seeding() -> Result<()> {
            killed_while_seeding(Victim::$victim).await
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $live() -> Result<()> {
            killed_during_live_traffic(Victim::$victim).await
        }
    )*};
}

killed_at_any_moment! {
    seeding_survives_a_power_failure, traffic_survives_a_power_failure: Understudy;
    seeding_survives_the_program_being_killed, traffic_survives_the_program_being_killed: Program;
    seeding_survives_the_database_being_killed, traffic_survives_the_database_being_killed: Postgres;
    seeding_survives_the_primary_being_killed, traffic_survives_the_primary_being_killed: Primary;
    seeding_survives_the_standby_being_killed, traffic_survives_the_standby_being_killed: Standby;
    seeding_survives_the_source_gateway_being_killed, traffic_survives_the_source_gateway_being_killed: SourceGateway;
    seeding_survives_the_recovery_gateway_being_killed, traffic_survives_the_recovery_gateway_being_killed: RecoveryGateway;
    seeding_survives_the_link_being_cut, traffic_survives_the_link_being_cut: Link;
}

#[tokio::test]
async fn a_restart_does_not_fetch_the_mail_again() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    let mut mail = Mail::from_seed(22);
    let mut ann = scenario.log_in("ann").await?;
    for _ in 0..20 {
        ann.append("INBOX", &[], None, &mail.with_attachment(200_000)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let before = scenario.stack.link()?.bytes_to_server();
    for role in ["source", "recovery"] {
        scenario.stack.kill_role(role)?;
        scenario.stack.start().await?;
    }
    ann.append("INBOX", &[], None, &mail.plain(100)).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let crossed = scenario.stack.link()?.bytes_to_server() - before;
    assert!(crossed < 200_000, "{crossed} bytes crossed the link for one small message");
    Ok(())
}
