//! Two sites paired by one token: who is let in, over which way, how fast.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use understudy_tests::client::Client;
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::{mirroring::fill, times};

const USERS: [&str; 2] = ["ann", "bob"];
const PATIENCE: Duration = Duration::from_secs(180);
/// Of a certificate here; it is renewed after two thirds.
const LIFE: Duration = Duration::from_secs(90);
/// Of a file that is under way when a certificate is renewed, at whatever moment.
const LONG_BYTES: usize = 6_000_000;
/// Of a message that a limited link has under way for minutes.
const LARGE: usize = 12_000_000;
/// The next way is used within so many seconds, …
const PROMISED: f64 = 3.0;
/// … in one of so many tries at least, however busy the machine is.
const TRIES: usize = 10;
/// The rate of the link, in bytes a second, and what passes meanwhile.
const RATE: u64 = 50_000;
const PASSES: u64 = 400_000;

async fn paired(ways: usize, extra: &str) -> Result<Scenario> {
    let (primary, standby) = (Dovecot::start(scenario::primary(&USERS))?, Dovecot::start(scenario::standby(&USERS))?);
    let stack = Stack::paired(&[("primary", &primary), ("standby", &standby)], ways, extra).await?;
    Ok(Scenario { primary, standby, stack })
}

/// Two sites that have been paired, and follow.
async fn joined(ways: usize) -> Result<Scenario> {
    let mut scenario = paired(ways, "").await?;
    let token = scenario.stack.invite(&[]).await?.stdout;
    scenario.stack.source_command(&["link", "join", &token]).await?.expect(0)?;
    scenario.stack.start_paired_source()?;
    Ok(scenario)
}

async fn used(scenario: &Scenario) -> Result<Option<String>> {
    let link = scenario.stack.json(&["link", "list"]).await?;
    let paths = link["paths"].as_array().cloned().unwrap_or_default();
    let used = paths.into_iter().find(|path| path["state"] == "used");
    Ok(used.and_then(|path| path["url"].as_str().map(str::to_owned)))
}

/// A token is good once and for a time; what it made is renewed by itself without a break, and ends when it is revoked.
#[tokio::test]
async fn two_sites_are_paired_by_one_token_and_nobody_else_is_let_in() -> Result<()> {
    let mut scenario = paired(1, "[link]\ncertificate_life = \"90s\"").await?;
    let stack = &scenario.stack;

    // Not paired: nothing starts. A token that is none, was changed, has expired, or was withdrawn pairs nothing.
    let refused = stack.source_command(&["source"]).await?.expect(2)?;
    assert!(refused.stderr.contains("understudy link join"), "{}", refused.stderr);
    stack.source_command(&["link", "join", "understudy-join-AAAA"]).await?.expect(2)?;
    let short = stack.invite(&["--expires", "1s"]).await?.stdout;
    let withdrawn = stack.invite(&["--name", "withdrawn"]).await?.stdout;
    let list = stack.json(&["link", "list"]).await?;
    let open = list["invitations"].as_array().context("invitations")?.iter().find(|made| made["name"] == "withdrawn");
    let id = open.and_then(|made| made["id"].as_str()).context("its id")?.to_owned();
    stack.command(&["link", "withdraw", &id]).await?.expect(0)?;
    // Well past its second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = stack.source_command(&["link", "join", &short]).await?.expect(1)?;
    assert!(answer.stderr.contains("the token was good until"), "{}", answer.stderr);
    let answer = stack.source_command(&["link", "join", &withdrawn]).await?.expect(1)?;
    assert!(answer.stderr.contains("withdrawn"), "{}", answer.stderr);
    assert!(!stack.dir().join("source/data/link/source.json").exists());

    // Paired, by the fingerprint both sides show; the key is for its owner only and never leaves.
    let invited = stack.invite(&["--name", "site-a"]).await?;
    let joined = stack.source_command(&["link", "join", &invited.stdout]).await?.expect(0)?;
    let shown = invited.stderr.lines().last().unwrap_or_default();
    assert!(shown.len() == 95 && joined.stdout.contains(shown), "{}\n{}", invited.stderr, joined.stdout);
    let keys = stack.dir().join("source/data/link/source.json");
    assert_eq!(fs::metadata(&keys)?.permissions().mode() & 0o777, 0o600);
    let again = stack.source_command(&["link", "join", &invited.stdout]).await?.expect(1)?;
    assert!(again.stderr.contains("used already"), "{}", again.stderr);

    scenario.stack.start_paired_source()?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(401));
    fill(&mut ann, &mut mail, 20).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    // Renewed by itself amid a shipment, which goes on: nothing of it is sent a second time.
    scenario.stack.command(&["link", "limit", "40 kB/s"]).await?.expect(0)?;
    wait::until("the source gateway knows its limit", PATIENCE, async || {
        Ok(scenario.stack.paired_source_log().contains("40 kB/s"))
    })
    .await?;
    let way = scenario.stack.way(0)?;
    let (before, long) = (way.bytes_to_server(), mail.with_attachment(LONG_BYTES));
    ann.append("INBOX", &[], None, &long).await?;
    wait::until("a part of it went", PATIENCE, async || Ok(way.bytes_to_server() > before + 100_000)).await?;
    let first = fs::read_to_string(&keys)?;
    wait::until("the certificate is renewed", 2 * LIFE, async || Ok(fs::read_to_string(&keys)? != first)).await?;
    let went = way.bytes_to_server() - before;
    scenario.stack.command(&["link", "limit", "unlimited"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann"]).await?;
    let crossed = way.bytes_to_server() - before;
    // Heartbeats, and a handshake.
    let most = LONG_BYTES as u64 + went / 2 + 300_000;
    assert!(crossed < most, "{crossed} bytes crossed, {went} of them before the certificate was renewed");
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    // Revoked: cut at once, refused from then on, and said on both sides.
    let stack = &scenario.stack;
    stack.command(&["link", "revoke", "site-a"]).await?.expect(0)?;
    wait::until("the source gateway hears that it was revoked", PATIENCE, async || {
        Ok(scenario.stack.paired_source_log().contains("has revoked our certificate"))
    })
    .await?;
    wait::until("an event says who was refused", PATIENCE, async || {
        let refused = scenario.stack.command(&["events", "--past", "--kind", "link_refused"]).await?;
        Ok(refused.stdout.contains("its certificate was revoked"))
    })
    .await?;
    ann.append("INBOX", &[], None, &mail.any()).await?;

    // Paired again while the source gateway runs: it goes on by itself.
    let token = stack.invite(&["--name", "site-a"]).await?.stdout;
    stack.source_command(&["link", "join", &token]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann"]).await
}

/// A way that falls silent is left within three seconds, and the best one is returned to.
#[tokio::test]
async fn the_next_way_is_taken_when_one_falls_silent_and_the_best_one_returned_to() -> Result<()> {
    let scenario = joined(2).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(402));
    fill(&mut ann, &mut mail, 20).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let urls: Vec<String> =
        (0..2).map(|way| Ok(format!("https://{}", scenario.stack.way(way)?.address()))).collect::<Result<_>>()?;
    wait::until("the best way is used", PATIENCE, async || Ok(used(&scenario).await? == Some(urls[0].clone()))).await?;

    scenario.stack.way(0)?.set(Mode::Hold);
    let began = Instant::now();
    wait::until("the other way is used", PATIENCE, async || Ok(used(&scenario).await? == Some(urls[1].clone())))
        .await?;
    eprintln!("the other way was used, and shown, after {:.1} s", began.elapsed().as_secs_f64());
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    scenario.stack.way(0)?.set(Mode::Pass);
    wait::until("the best way is returned to", PATIENCE, async || Ok(used(&scenario).await? == Some(urls[0].clone())))
        .await?;
    scenario.stack.way(0)?.set(Mode::Cut);
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await
}

/// From the last word on one way to the first answer on the next, as the source gateway counts it: three seconds at most, where the one
/// in use falls silent or is refused, also for ways that failed lately. A machine that is busy may be late now and then: not each time.
#[tokio::test]
async fn another_way_is_used_within_three_seconds_whatever_ends_the_one_in_use() -> Result<()> {
    let scenario = joined(2).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(404));
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    // The way that the source gateway connected by last, and how long it had been without one.
    let last = |scenario: &Scenario| -> Result<(usize, f64)> {
        let log = scenario.stack.paired_source_log();
        let line = log.lines().rfind(|line| line.contains("The link is connected")).context("no connection")?;
        let second = scenario.stack.way(1)?.address().to_string();
        Ok((usize::from(line.contains(&second)), without(line)))
    };
    for mode in [Mode::Hold, Mode::Cut] {
        let mut quickest = f64::INFINITY;
        for round in 0..TRIES {
            if quickest <= PROMISED && round >= times(10) {
                break;
            }
            let (at, _) = last(&scenario)?;
            // The other one failed before, and is there again.
            scenario.stack.way(1 - at)?.set(Mode::Pass);
            scenario.stack.way(at)?.set(mode);
            wait::until("the other way is used", PATIENCE, async || Ok(last(&scenario)?.0 != at)).await?;
            let (_, without) = last(&scenario)?;
            eprintln!("round {round}, {mode:?}: {without:.2} s without a way");
            quickest = quickest.min(without);
            ann.append("INBOX", &[], None, &mail.plain(1_000)).await?;
            scenario.settle_and_compare(&["ann"]).await?;
        }
        assert!(quickest <= PROMISED, "{mode:?}: {quickest:.2} s without a way at best");
    }
    Ok(())
}

/// The seconds without a way that a line of the log names.
fn without(line: &str) -> f64 {
    let figure = line.split("without_seconds=").nth(1).and_then(|rest| rest.split_whitespace().next());
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(f64::INFINITY)
}

/// A limit holds in bytes on the wire and can be lifted while it holds.
#[tokio::test]
async fn a_limit_holds_on_the_wire_and_is_lifted_while_it_holds() -> Result<()> {
    let mut scenario = paired(1, "").await?;
    let token = scenario.stack.invite(&[]).await?.stdout;
    scenario.stack.source_command(&["link", "join", &token]).await?.expect(0)?;
    let joining = (scenario.stack.way(0)?.bytes_to_server(), scenario.stack.way(0)?.bytes_to_client());
    for wrong in [["link", "limit", "mon-fry: 2 MB/s"], ["link", "limit", "off"]] {
        assert_ne!(scenario.stack.command(&wrong).await?.code, 0, "{wrong:?}");
    }
    scenario.stack.start_paired_source()?;
    let (mut ann, mut bob) = (scenario.log_in("ann").await?, scenario.log_in("bob").await?);
    let mut mail = Mail::from_seed(403);
    scenario.protect(&["bob"]).await?;
    scenario.settle_and_compare(&["bob"]).await?;

    // Seeding is off: live changes go, and nothing of a first copy.
    scenario.stack.command(&["link", "limit", "50 kB/s", "--seeding", "off"]).await?.expect(0)?;
    wait::until("the source gateway knows its limits", PATIENCE, async || {
        Ok(scenario.stack.paired_source_log().contains("The link has new limits"))
    })
    .await?;
    // What does not shrink: random bytes.
    for _ in 0..4 {
        ann.append("INBOX", &[], None, &mail.with_attachment(300_000)).await?;
    }
    let way = scenario.stack.way(0)?;
    let before = way.bytes_to_server();
    scenario.protect(&["ann"]).await?;
    scenario.until("ann", "is being seeded", |shown| shown["state"] == "seeding").await?;
    for _ in 0..3 {
        bob.append("INBOX", &[], None, &mail.plain(1_000)).await?;
        scenario.stack.command(&["mailbox", "wait", "bob", "--timeout", "240s"]).await?.expect(0)?;
        scenario.assert_same("bob").await?;
    }
    let went = way.bytes_to_server() - before;
    assert!(went < 200_000, "{went} bytes went while seeding was off");

    // Twice the rate leaves room for a machine that counts late; without a limit it would be a hundred times as much.
    let (began, before) = (Instant::now(), way.bytes_to_server());
    scenario.stack.command(&["link", "limit", "--seeding", "unlimited"]).await?.expect(0)?;
    wait::until("a part went", PATIENCE, async || Ok(way.bytes_to_server() > before + PASSES)).await?;
    let rate = (way.bytes_to_server() - before) as f64 / began.elapsed().as_secs_f64();
    assert!(rate < 2.0 * RATE as f64, "{rate:.0} bytes a second");

    scenario.stack.command(&["link", "limit", "unlimited"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    counted_is_what_went(&scenario, joining, &mut bob, &mail.plain(1_000)).await
}

/// What people are shown in bytes is what went through the sockets of the source gateway, since it was there: all of it, and not more.
async fn counted_is_what_went(
    scenario: &Scenario,
    joining: (u64, u64),
    client: &mut Client,
    message: &[u8],
) -> Result<()> {
    let way = scenario.stack.way(0)?;
    let went = || (way.bytes_to_server() - joining.0, way.bytes_to_client() - joining.1);
    let before = went();
    // Bytes are reported soon where mail goes.
    client.append("INBOX", &[], None, message).await?;
    wait::until("what went is shown", PATIENCE, async || {
        let link = scenario.stack.json(&["link", "list"]).await?;
        let after = went();
        let sum = |direction: &str| -> u64 {
            let rows = link["bytes"].as_array().into_iter().flatten().filter(|row| row["direction"] == direction);
            rows.filter_map(|row| row["bytes"].as_u64()).sum()
        };
        let shown = (sum("out"), sum("in"));
        ensure!(shown.0 <= after.0 && shown.1 <= after.1, "{shown:?} are shown, and {after:?} went");
        Ok(shown.0 >= before.0 && shown.1 >= before.1)
    })
    .await
}

/// The zone in which the next minute begins so many seconds from now, as POSIX writes it, and its difference from UTC.
fn zone(seconds: i64) -> (String, TimeDelta) {
    let ahead = (120 - seconds - i64::from(Utc::now().second())).rem_euclid(60);
    // POSIX counts towards the west.
    (format!("TST-00:00:{ahead:02}"), TimeDelta::seconds(ahead))
}

/// What is limited, or waits, because of the hour goes on by itself once that is over, and not before.
#[tokio::test]
async fn limits_end_by_the_clock_while_mail_is_under_way() -> Result<()> {
    let mut scenario = paired(1, "").await?;
    let token = scenario.stack.invite(&[]).await?.stdout;
    scenario.stack.source_command(&["link", "join", &token]).await?.expect(0)?;
    let (zone, ahead) = zone(25);
    scenario.stack.start_paired_source_in(&zone)?;
    let (mut ann, mut bob) = (scenario.log_in("ann").await?, scenario.log_in("bob").await?);
    let mut mail = Mail::from_seed(405);
    scenario.protect(&["bob"]).await?;
    scenario.settle_and_compare(&["bob"]).await?;
    let limited = |scenario: &Scenario| scenario.stack.paired_source_log().matches("The link has new limits").count();
    let known = async |scenario: &Scenario, times: usize| {
        wait::until("the source gateway knows its limits", PATIENCE, async || Ok(limited(scenario) >= times)).await
    };

    // Much is under way, at the rate of the day; a first copy waits for the night.
    scenario.stack.command(&["link", "limit", "50 kB/s", "--seeding", "off"]).await?.expect(0)?;
    known(&scenario, 1).await?;
    for _ in 0..3 {
        ann.append("INBOX", &[], None, &mail.with_attachment(100_000)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.until("ann", "is being seeded", |shown| shown["state"] == "seeding").await?;
    let way = scenario.stack.way(0)?;
    let before = way.bytes_to_server();
    // At that rate it would take longer than anybody here waits.
    bob.append("INBOX", &[], None, &mail.with_attachment(LARGE)).await?;
    wait::until("a part of it went", PATIENCE, async || Ok(way.bytes_to_server() > before + 100_000)).await?;

    // The day ends with this minute; or with the next, where the source gateway hears of it too late.
    let (began, before) = (Instant::now(), way.bytes_to_server());
    let mut times = 1;
    let night = loop {
        let night = minute_after(Utc::now() + ahead + TimeDelta::seconds(2));
        let day = format!("{}-{}", (night - TimeDelta::hours(2)).format("%H:%M"), night.format("%H:%M"));
        let (rate, seeding) = (format!("{day}: 50 kB/s, else unlimited"), format!("{day}: off, else unlimited"));
        scenario.stack.command(&["link", "limit", &rate, "--seeding", &seeding]).await?.expect(0)?;
        times += 1;
        known(&scenario, times).await?;
        if Utc::now() + ahead < night {
            break night;
        }
    };
    let recovery = scenario.stack.database("understudy").await?;
    let received = "select count(*) from transaction join mailbox using (mailbox_id) where address = 'ann'";
    loop {
        let received: i64 = sqlx::query_scalar(received).fetch_one(&recovery).await?;
        let (went, took) = (way.bytes_to_server() - before, began.elapsed().as_secs_f64());
        if Utc::now() + ahead >= night {
            break;
        }
        ensure!(received == 0, "a part of a first copy went by day");
        ensure!((went as f64) < 2.0 * RATE as f64 * took + 200_000.0, "{went} bytes went within {took:.1} s");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    ensure!(limited(&scenario) == times, "it was not the clock that ended it");
    Ok(())
}

fn minute_after(time: DateTime<Utc>) -> DateTime<Utc> {
    let into = TimeDelta::seconds(i64::from(time.second())) + TimeDelta::nanoseconds(i64::from(time.nanosecond()));
    time - into + TimeDelta::minutes(1)
}
