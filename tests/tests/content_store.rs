//! Where contents rest: in a bucket, sealed, mended when damaged, cleared when nobody needs them, and without room for a while.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_tests::bucket::Bucket;
use understudy_tests::dovecot::Dovecot;
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);
const FIRST_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const SECOND_KEY: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// A scenario whose content store is configured so.
async fn with_content(users: &[&str], content: &str) -> Result<Scenario> {
    let primary = Dovecot::start(scenario::primary(users))?;
    let standby = Dovecot::start(scenario::standby(users))?;
    let extra = format!("[content]\n{content}\n");
    let stack = Stack::up_with(&[("primary", &primary), ("standby", &standby)], &extra).await?;
    Ok(Scenario { primary, standby, stack })
}

fn log(scenario: &Scenario) -> String {
    fs::read_to_string(scenario.stack.dir().join("up.log")).unwrap_or_default()
}

async fn until_log(scenario: &Scenario, said: &str) -> Result<()> {
    wait::until(said, PATIENCE, async || Ok(log(scenario).contains(said))).await
}

fn packs(scenario: &Scenario) -> Result<Vec<PathBuf>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(scenario.stack.data_dir().join("content"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "pack") {
            packs.push(path);
        }
    }
    Ok(packs)
}

fn size(packs: &[PathBuf]) -> u64 {
    packs.iter().filter_map(|pack| fs::metadata(pack).ok()).map(|pack| pack.len()).sum()
}

/// Flips one bit of every so many bytes.
fn damage(file: &Path) -> Result<()> {
    let length = fs::metadata(file)?.len();
    let file = fs::OpenOptions::new().read(true).write(true).open(file)?;
    let mut at = 100;
    while at < length {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1;
        file.write_all_at(&byte, at)?;
        at += 1000;
    }
    Ok(())
}

/// The standby loses its messages and gets them again from the content store.
async fn comes_back_from_the_store(scenario: &Scenario, user: &str) -> Result<()> {
    let mut theirs = scenario.log_in_to_standby(user).await?;
    theirs.select("INBOX").await?;
    theirs.expunge("1:*").await?;
    scenario.stack.command(&["mailbox", "verify", user, "--repair"]).await?;
    scenario.assert_same(user).await
}

#[tokio::test]
async fn contents_rest_sealed_in_a_bucket_and_their_master_key_may_change() -> Result<()> {
    let bucket = Bucket::start().await?;
    let secrets = tempfile::tempdir()?;
    let keys = secrets.path().join("content.keys");
    fs::write(&keys, FIRST_KEY)?;
    let config = format!("{}\nkey_file = \"{}\"", bucket.config(secrets.path())?, keys.display());
    let mut scenario = with_content(&["ann"], &config).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(90));
    for number in 0..40 {
        let message = format!("Subject: {number}\r\n\r\nthe canary of the content store, number {number}\r\n");
        ann.append("INBOX", &[], None, message.as_bytes()).await?;
    }
    // More than goes in one request.
    ann.append("INBOX", &[], None, &mail.with_attachment(12_000_000)).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    let objects = bucket.objects()?;
    ensure!(!objects.is_empty() && objects.len() <= 20, "{} objects for 41 messages", objects.len());
    for object in &objects {
        let bytes = fs::read(object)?;
        ensure!(!bytes.windows(6).any(|window| window == b"canary"), "{} is in the clear", object.display());
    }
    ensure!(packs(&scenario)?.is_empty(), "nothing stays in files");
    comes_back_from_the_store(&scenario, "ann").await?;

    // A new master key wraps the data keys; the first is needed no more.
    for written in [format!("{SECOND_KEY}\n{FIRST_KEY}\n"), format!("{SECOND_KEY}\n")] {
        scenario.stack.stop()?;
        fs::write(&keys, written)?;
        scenario.stack.start().await?;
        ann.append("INBOX", &[], None, &mail.any()).await?;
        scenario.settle_and_compare(&["ann"]).await?;
    }
    comes_back_from_the_store(&scenario, "ann").await
}

#[tokio::test]
async fn a_damaged_content_is_noticed_and_brought_back() -> Result<()> {
    let scenario = with_content(&["ann"], "scrub = \"1s\"\nscrub_rate = 100").await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(91));
    for _ in 0..5 {
        ann.append("INBOX", &[], None, &mail.plain(100_000)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let damaged = packs(&scenario)?;
    for pack in &damaged {
        damage(pack)?;
    }
    until_log(&scenario, "A content in the store is damaged").await?;
    wait::until("all five are brought back", PATIENCE, async || {
        Ok(log(&scenario).matches("Brought a damaged content back").count() >= 5)
    })
    .await?;
    comes_back_from_the_store(&scenario, "ann").await
}

#[tokio::test]
async fn what_nobody_names_is_removed_and_its_room_given_back() -> Result<()> {
    let scenario = with_content(&["ann", "bob"], "keep = \"1s\"\nsweep = \"1s\"").await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(92));
    for _ in 0..10 {
        ann.append("INBOX", &[], None, &mail.plain(300_000)).await?;
    }
    let shared = mail.plain(400_000);
    ann.append("INBOX", &[], None, &shared).await?;
    scenario.log_in("bob").await?.append("INBOX", &[], None, &shared).await?;
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    let before = size(&packs(&scenario)?);
    ensure!(before > 3_000_000, "only {before} bytes rest");

    ann.select("INBOX").await?;
    ann.expunge("2:11").await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    wait::until("room is given back", PATIENCE, async || Ok(size(&packs(&scenario)?) < 1_500_000)).await?;
    // What ann removed and bob keeps is still there, and so is what ann kept.
    for user in ["ann", "bob"] {
        comes_back_from_the_store(&scenario, user).await?;
    }
    // What was removed comes again when it is needed again.
    ann.append("INBOX", &[], None, &shared).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

/// A small file system of its own, until it is dropped.
struct Small(PathBuf);

impl Small {
    /// None where this process may not mount. `size` in MiB.
    fn at(path: &Path, size: u64) -> Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let size = format!("size={size}m");
        match run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path.display().to_string()]) {
            Ok(()) => Ok(Some(Self(path.to_owned()))),
            Err(error) => {
                let said = format!("{error:#}").to_lowercase();
                let refusals = ["superuser", "must be root", "permission denied", "not permitted"];
                ensure!(refusals.iter().any(|refusal| said.contains(refusal)), "{said}");
                eprintln!("SKIPPED: a full disk is not tested, because nothing may be mounted here: {said}");
                Ok(None)
            }
        }
    }

    /// From now on it holds so much, in MiB.
    fn resize(&self, size: u64) -> Result<()> {
        run("mount", &["-o", &format!("remount,size={size}m"), &self.0.display().to_string()])
    }

    /// What is in it, in MiB.
    fn used(&self) -> Result<u64> {
        let ended = Command::new("df").args(["--output=used", "--block-size=1M"]).arg(&self.0).output()?;
        let said = String::from_utf8_lossy(&ended.stdout);
        said.lines().nth(1).and_then(|used| used.trim().parse().ok()).with_context(|| format!("df said {said:?}"))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is ended by then or soon.
        let _ = run("umount", &["-l", &self.0.display().to_string()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let ended = Command::new(program).args(arguments).output().with_context(|| format!("{program} did not start"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_a_state_with_a_remedy_that_passes() -> Result<()> {
    for (folder, kind) in [("content", "content store has no room"), ("spool", "has no room")] {
        let dir = tempfile::tempdir()?;
        let Some(small) = Small::at(&dir.path().join("data").join(folder), 1)? else { return Ok(()) };
        let scenario = settled_in(dir.path()).await?;
        no_room_until_there_is(&scenario, &small, kind).await?;
        drop(scenario);
        drop(small);
    }
    Ok(())
}

/// The same over a link, which a shipment fills for longer than the disk has room.
#[tokio::test]
async fn a_disk_that_fills_amid_a_shipment_is_said_at_both_sites_and_passes() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann", "bob"]).await?;
    let Some(small) = Small::at(&scenario.stack.data_dir().join("content"), 1)? else { return Ok(()) };
    settle(&scenario).await?;
    no_room_until_there_is(&scenario, &small, "content store has no room").await?;
    scenario.stack.stop()?;
    drop(small);
    Ok(())
}

/// A large message for ann finds no room, which is said; a small one for bob does; there is room, and all goes on.
async fn no_room_until_there_is(scenario: &Scenario, small: &Small, said: &str) -> Result<()> {
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(93));
    ann.append("INBOX", &[], None, &mail.with_attachment(3_000_000)).await?;
    let shown = scenario.until("ann", "is faulted", |shown| shown["state"] == "faulted").await?;
    let reason = shown["detail"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(said), "{shown:#}");
    ensure!(shown["detail"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("Make room")), "{shown:#}");
    // What fits goes on.
    let mut bob = scenario.log_in("bob").await?;
    bob.append("INBOX", &[], None, &mail.plain(5_000)).await?;
    scenario.stack.command(&["mailbox", "wait", "bob", "--timeout", "240s"]).await?.expect(0)?;
    scenario.assert_same("bob").await?;

    small.resize(64)?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    scenario.until("ann", "has nothing to complain about", |shown| shown["detail"].is_null()).await?;
    Ok(())
}

/// Ann and bob protected, with everything in this folder, and a message at both sides.
async fn settled_in(dir: &Path) -> Result<Scenario> {
    let primary = Dovecot::start(scenario::primary(&["ann", "bob"]))?;
    let standby = Dovecot::start(scenario::standby(&["ann", "bob"]))?;
    let servers = [("primary", &primary), ("standby", &standby)];
    let stack = Stack::up_in(dir, "127.0.0.1:0", &servers, "").await?;
    let scenario = Scenario { primary, standby, stack };
    settle(&scenario).await?;
    Ok(scenario)
}

/// Ann and bob are protected, and have a message at both sides.
async fn settle(scenario: &Scenario) -> Result<()> {
    scenario.log_in("ann").await?.append("INBOX", &[], None, &Mail::from_seed(92).plain(10_000)).await?;
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

/// Both databases of an installation in one process: nothing that is acknowledged is lost, whatever PostgreSQL does without room, and it
/// goes on by itself.
#[tokio::test]
async fn a_database_without_room_is_a_state_that_passes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(small) = Small::at(&dir.path().join("data/postgres"), 2_000)? else { return Ok(()) };
    let scenario = settled_in(dir.path()).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(94));

    small.resize(small.used()? + 1)?;
    // Small ones lie in the journal's rows.
    for _ in 0..300 {
        ann.append("INBOX", &[], None, &mail.plain(100_000)).await?;
    }
    scenario.log_in("bob").await?.append("INBOX", &[], None, &mail.plain(5_000)).await?;
    // Either it refuses what is written, or it ends over its own journal and cannot start.
    wait::until("it is said that there is no room", PATIENCE, async || {
        let log = log(&scenario);
        Ok(log.contains("source_database_full") || log.contains("Make room on the disk that holds the cluster"))
    })
    .await?;

    small.resize(2_000)?;
    scenario.until("ann", "is shown again", |shown| !shown.is_null()).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    scenario.until("ann", "has nothing to complain about", |shown| shown["detail"].is_null()).await?;
    drop(scenario);
    drop(small);
    Ok(())
}

/// What the standby does not have either is fetched from the primary once more.
#[tokio::test]
async fn a_damaged_content_that_the_standby_lost_comes_from_the_primary() -> Result<()> {
    let scenario = with_content(&["ann"], "scrub = \"1s\"\nscrub_rate = 200000").await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(98));
    for size in [20_000, 100_000, 700_000] {
        ann.append("INBOX", &[], None, &mail.plain(size)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let mut theirs = scenario.log_in_to_standby("ann").await?;
    theirs.select("INBOX").await?;
    theirs.expunge("1:*").await?;
    for pack in packs(&scenario)? {
        damage(&pack)?;
    }
    wait::until("all three are brought back", PATIENCE, async || {
        let log = log(&scenario);
        let brought = log.lines().filter(|line| line.contains("Brought a damaged content back"));
        Ok(brought.filter(|line| line.contains("primary")).count() >= 3)
    })
    .await?;
    scenario.stack.command(&["mailbox", "verify", "ann", "--repair"]).await?;
    scenario.assert_same("ann").await
}
