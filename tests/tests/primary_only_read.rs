//! The primary is only read.

use anyhow::Result;
use understudy_tests::client::{Client, Refused, Snapshot};
use understudy_tests::dovecot::{MASTER, MASTER_PASSWORD};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::Scenario;

use crate::mirroring::fill;

/// Dovecot numbers changes in a folder's index from when somebody first asks for the numbers; that is no change of mail.
fn without_mod_seqs(mut snapshot: Snapshot) -> Snapshot {
    snapshot.folders.values_mut().for_each(|folder| folder.mod_seq = 0);
    snapshot
}

#[tokio::test]
async fn a_master_user_with_read_rights_is_enough_and_the_primary_stays_as_it_was() -> Result<()> {
    let scenario = Scenario::start(&["ann"]).await?;
    let mut mail = Mail::from_seed(10);
    let mut ann = scenario.log_in("ann").await?;
    fill(&mut ann, &mut mail, 20).await?;
    let before = without_mod_seqs(ann.snapshot().await?);
    assert!(before.folders["INBOX"].recent >= 20, "new mail must be \\Recent for this test to mean anything");
    assert!(before.folders["INBOX"].messages.iter().all(|message| message.flags.is_empty()));

    scenario.protect(&["ann"]).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    scenario.stack.command(&["mailbox", "verify", "--all"]).await?.expect(0)?;
    // New mail while it is mirrored live.
    ann.append("INBOX", &[], None, &mail.any()).await?;
    scenario.settle_and_compare(&["ann"]).await?;

    let mut after = without_mod_seqs(ann.snapshot().await?);
    let inbox = after.folders.get_mut("INBOX").unwrap();
    let newest = inbox.messages.pop().unwrap();
    assert!(newest.flags.is_empty(), "{:?}", newest.flags);
    assert_eq!(inbox.recent, before.folders["INBOX"].recent + 1, "\\Recent was taken");
    inbox.recent -= 1;
    inbox.uid_next -= 1;
    assert_eq!(before, after, "the primary was changed");

    let mut master = Client::log_in(scenario.primary.imap_address(), &format!("ann*{MASTER}"), MASTER_PASSWORD).await?;
    let refused = master.append("INBOX", &[], None, b"Subject: no\r\n\r\n").await.unwrap_err();
    assert!(refused.is::<Refused>(), "the master user could write: {refused}");
    Ok(())
}
