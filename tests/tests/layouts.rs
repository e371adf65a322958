//! Two servers that spell folders in different ways: separator, prefix, what names may hold.

use anyhow::{Result, ensure};
use understudy_tests::client::{Client, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Format, Options};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};

const USERS: &[&str] = &["ann"];

/// Maildir++ as many sites have had it since Courier: everything lies below INBOX, levels are parted by dots.
fn below_inbox(options: Options) -> Options {
    options.format(Format::Maildir).extra("namespace inbox {\n  prefix = INBOX.\n  separator = .\n}")
}

/// What the standby cannot spell stands there as `=XX`.
pub(crate) fn unescaped(mut snapshot: Snapshot) -> Snapshot {
    let plain = |name: String| name.replace("=2E", ".").replace("=3D", "=");
    snapshot.folders = snapshot.folders.into_iter().map(|(name, folder)| (plain(name), folder)).collect();
    snapshot.subscriptions = snapshot.subscriptions.into_iter().map(plain).collect();
    snapshot
}

async fn assert_same(scenario: &Scenario) -> Result<()> {
    scenario.settle().await?;
    let ours = scenario.log_in("ann").await?.snapshot().await?;
    let theirs = unescaped(scenario.log_in_to_standby("ann").await?.snapshot().await?);
    let differences = compare(&ours, &theirs);
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

async fn fill(ann: &mut Client, mail: &mut Mail, folders: &[&str]) -> Result<()> {
    for folder in folders {
        ann.create(folder).await?;
        ann.append(folder, &["\\Seen", "$Kept"], None, &mail.any()).await?;
        ann.subscribe(folder).await?;
    }
    ann.append("INBOX", &[], None, &mail.any()).await.map(drop)
}

/// Mirrors these folders, some of them created, renamed and deleted while it runs.
async fn mirrors(primary: Options, standby: Options, folders: &[&str]) -> Result<Scenario> {
    let scenario = Scenario::between(primary, standby).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(50));
    let (before, after) = folders.split_at(folders.len() / 2);
    fill(&mut ann, &mut mail, before).await?;
    scenario.protect(USERS).await?;
    assert_same(&scenario).await?;
    fill(&mut ann, &mut mail, after).await?;
    ann.rename(before[0], "Renamed").await?;
    ann.rename(after[0], before[0]).await?;
    ann.delete(before[1]).await?;
    ann.copy_all("Renamed", after[1]).await?;
    assert_same(&scenario).await?;
    scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?.expect(0)?;
    Ok(scenario)
}

#[tokio::test]
async fn folders_below_inbox_with_dots_are_mirrored_to_a_server_without() -> Result<()> {
    let folders = ["Sent", "star*", "a", "a/b/c", "Ünï", "日本語/仕事", "Junk", "x y"];
    mirrors(below_inbox(scenario::primary(USERS)), scenario::standby(USERS), &folders).await.map(drop)
}

#[tokio::test]
async fn folders_are_mirrored_to_a_server_that_has_them_below_inbox() -> Result<()> {
    let folders =
        ["Sent", "dot.dot", "a", "a/b/c", "...", "star*", "Ünï", "日本語/仕.事", "INBOX/below", "=2E", "INBOX/x.y"];
    mirrors(scenario::primary(USERS), below_inbox(scenario::standby(USERS)), &folders).await.map(drop)
}

#[tokio::test]
async fn names_with_dots_are_mirrored_to_a_server_that_takes_none() -> Result<()> {
    let folders = ["Sent", "v1.0", "a.b", "a.b/c.d", "...", "=2E/x", "a=2Eb", "INBOX/x.y"];
    mirrors(scenario::primary(USERS), scenario::standby(USERS).format(Format::Maildir), &folders).await.map(drop)
}

/// With Dovecot's listescape a name may hold what is the separator elsewhere.
#[tokio::test]
async fn a_slash_within_a_name_is_kept_apart_from_levels() -> Result<()> {
    let mut primary = below_inbox(scenario::primary(USERS));
    primary.mail_plugins.push("listescape".to_owned());
    let scenario = Scenario::between(primary, scenario::standby(USERS)).await?;
    let mut ann = scenario.log_in("ann").await?;
    for name in ["INBOX.one/name", "INBOX.two.levels", "INBOX.and/a.level=2F"] {
        ann.run(&format!("CREATE \"{name}\"")).await?;
        ann.run(&format!("SUBSCRIBE \"{name}\"")).await?;
    }
    scenario.protect(USERS).await?;
    scenario.settle().await?;
    let theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    for name in ["one=2Fname", "two/levels", "and=2Fa/level=3D2F"] {
        assert!(theirs.folders.contains_key(name) && theirs.subscriptions.contains(name), "{name}: {theirs:#?}");
    }
    scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(0).map(drop)
}

/// A level of which the mirror knows nothing more is in the way of nobody.
#[tokio::test]
async fn a_folder_takes_the_name_of_a_level_that_held_nothing() -> Result<()> {
    let mut scenario = Scenario::apart(USERS).await?;
    let (mut ann, mut mail) = (scenario.log_in("ann").await?, Mail::from_seed(77));
    ann.create("Level/").await?;
    fill(&mut ann, &mut mail, &["Folder"]).await?;
    scenario.protect(USERS).await?;
    scenario.settle_and_compare(USERS).await?;
    // Both in one look.
    scenario.stack.kill_role("source")?;
    ann.delete("Level").await?;
    ann.rename("Folder", "Level").await?;
    scenario.stack.start().await?;
    scenario.settle_and_compare(USERS).await
}
