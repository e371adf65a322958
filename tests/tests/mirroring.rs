//! Whatever a client can do on the primary appears on the standby.

use std::fs;

use anyhow::Result;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Format, Options};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{self, Scenario};

/// What a mailbox holds before it is protected.
pub(crate) async fn fill(client: &mut Client, mail: &mut Mail, messages: usize) -> Result<()> {
    for folder in ["Sent", "Work", "Work/2026/März", "Entwürfe", "日本語/仕事", "R&D \"quoted\" \\ *%", "Empty"]
    {
        client.create(folder).await?;
    }
    client.subscribe("Work/2026/März").await?;
    client.subscribe("INBOX").await?;
    let date = Some("17-Jul-1996 02:44:25 -0730");
    client.append("Sent", &["\\Seen"], date, &mail.any()).await?;
    client.append("日本語/仕事", &["\\Flagged", "$Forwarded", "Later"], date, &mail.any()).await?;
    client.append("R&D \"quoted\" \\ *%", &["\\Draft", "\\Deleted", "\\Answered"], None, &mail.any()).await?;
    for _ in 0..messages {
        client.append("INBOX", &[], None, &mail.any()).await?;
    }
    Ok(())
}

/// Everything a client can do, in one sitting.
pub(crate) async fn do_everything(client: &mut Client, mail: &mut Mail) -> Result<()> {
    client
        .append("INBOX", &["\\Seen", "$Label1"], Some(" 1-Feb-2020 23:59:59 +1400"), &mail.with_attachment(50_000))
        .await?;
    client.append("Work", &[], None, &mail.plain(100)).await?;
    client.append("Work", &[], None, &mail.plain(200)).await?;
    client.select("INBOX").await?;
    client.store("1:3", "+FLAGS (\\Seen \\Flagged)").await?;
    client.store("2", "-FLAGS (\\Flagged)").await?;
    client.store("3", "FLAGS ($Later NonJunk)").await?;
    client.copy("1:4", "Work").await?;
    client.copy("4", "INBOX").await?;
    client.move_to("5:6", "Work/2026/März").await?;
    client.expunge("7:8").await?;
    client.create("New/Deep/Deeper").await?;
    client.append("New/Deep/Deeper", &[], None, &mail.any()).await?;
    client.rename("日本語", "English").await?;
    client.rename("New", "Newer").await?;
    client.delete("Empty").await?;
    client.create("Trash").await?;
    client.create("Gone").await?;
    client.append("Gone", &[], None, &mail.any()).await?;
    client.delete("Gone").await?;
    // Deleted and made again: another folder of the same name.
    client.replace("Sent").await?;
    client.append("Sent", &[], None, &mail.any()).await?;
    client.subscribe("Newer/Deep/Deeper").await?;
    client.unsubscribe("Work/2026/März").await
}

async fn mirrors_everything(primary: Options, standby: Options) -> Result<()> {
    let scenario = Scenario::between(primary, standby).await?;
    let mut mail = Mail::from_seed(1);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 30).await?;
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;
    scenario.until("ann", "is mirroring", |shown| shown["state"] == "mirroring").await?;

    do_everything(&mut ann, &mut mail).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await?;

    // One change at a time, each awaited: no change may need another one to be noticed.
    ann.select("Work").await?;
    ann.store("1", "+FLAGS (\\Answered)").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    ann.move_to("1", "INBOX").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    ann.rename("Work", "Play").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    ann.select("Play").await?;
    ann.expunge("1:*").await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.log_in("bob").await?.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

#[tokio::test]
async fn everything_a_client_can_do_is_mirrored() -> Result<()> {
    mirrors_everything(scenario::primary(&["ann", "bob"]), scenario::standby(&["ann", "bob"])).await
}

#[tokio::test]
async fn everything_is_mirrored_from_maildir_to_sdbox() -> Result<()> {
    let primary = scenario::primary(&["ann", "bob"]).format(Format::Maildir);
    mirrors_everything(primary, scenario::standby(&["ann", "bob"]).format(Format::Sdbox)).await
}

#[tokio::test]
async fn everything_is_mirrored_over_tls() -> Result<()> {
    mirrors_everything(scenario::primary(&["ann", "bob"]).tls(), scenario::standby(&["ann", "bob"]).tls()).await
}

#[tokio::test]
async fn everything_is_mirrored_where_the_primary_offers_less() -> Result<()> {
    for lacking in [
        "NOTIFY",
        "NOTIFY QRESYNC",
        "NOTIFY QRESYNC CONDSTORE LIST-STATUS",
        "NOTIFY IDLE QRESYNC MULTIAPPEND LITERAL+ MOVE UIDPLUS",
    ] {
        const ALL: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ MULTIAPPEND UNSELECT CHILDREN NAMESPACE UIDPLUS \
                           LIST-EXTENDED CONDSTORE QRESYNC ESEARCH LIST-STATUS MOVE SPECIAL-USE NOTIFY";
        let lacking: Vec<&str> = lacking.split(' ').collect();
        let left = ALL.split_whitespace().filter(|word| !lacking.contains(word)).collect::<Vec<_>>().join(" ");
        let primary = scenario::primary(&["ann", "bob"]).capability(&left);
        // A standby without UIDPLUS cannot hold an exact mirror, and is refused.
        let standby = scenario::standby(&["ann", "bob"]).capability(&format!("{left} UIDPLUS"));
        mirrors_everything(primary, standby).await?;
    }
    Ok(())
}

#[tokio::test]
async fn verify_finds_what_somebody_changed_on_the_standby() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(2);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.stack.command(&["mailbox", "verify", "--all"]).await?.expect(0)?;

    let mut intruder = scenario.log_in_to_standby("ann").await?;
    intruder.select("INBOX").await?;
    intruder.expunge("3").await?;
    intruder.store("4", "+FLAGS (\\Answered)").await?;
    let verified = scenario.stack.command(&["mailbox", "verify", "ann"]).await?.expect(1)?;
    assert!(verified.stdout.contains("INBOX"), "{}", verified.stdout);
    Ok(())
}

#[tokio::test]
async fn pause_holds_changes_back_and_resume_brings_them() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(3);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 5).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.stack.command(&["mailbox", "pause", "ann"]).await?.expect(0)?;
    scenario.until("ann", "is paused", |shown| shown["state"] == "paused").await?;
    do_everything(&mut ann, &mut mail).await?;
    scenario.stack.command(&["mailbox", "resume", "ann"]).await?.expect(0)?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes_passes() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let message = Mail::from_seed(4).with_attachment(72 * 1024 * 1024);
    scenario.log_in("ann").await?.append("INBOX", &[], None, &message).await?;
    scenario.settle_and_compare(&["ann"]).await
}

#[tokio::test]
async fn a_clean_stop_leaves_nothing_running_and_a_start_goes_on() -> Result<()> {
    let mut scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(5);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 10).await?;
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    scenario.stack.stop()?;
    let pid_file = scenario.stack.data_dir().join("postgres/data/postmaster.pid");
    assert!(!fs::exists(pid_file)?, "PostgreSQL was not stopped cleanly");
    do_everything(&mut ann, &mut mail).await?;
    scenario.stack.start().await?;
    scenario.settle_and_compare(&["ann"]).await
}
