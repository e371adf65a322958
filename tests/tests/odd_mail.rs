//! Odd mail from the field passes through byte for byte.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::client::{Refused, Snapshot};
use understudy_tests::compare::compare;
use understudy_tests::mail::odd_mail;
use understudy_tests::scenario::Scenario;

use crate::times;

/// A short run takes every so many-th message; the shift moves with the day's seed only when asked to.
const EVERY: usize = 8;
/// A folder each, so that nothing hides behind order.
const IN_ONE_FOLDER: usize = 200;

#[tokio::test]
async fn odd_mail_passes_through_byte_for_byte() -> Result<()> {
    let messages = odd_mail()?;
    if messages.is_empty() {
        eprintln!("the collection of odd mail is not at hand; generated mail is used by the other scenarios");
        return Ok(());
    }
    let scenario = Scenario::start(&["ann"]).await?;
    let mut ann = scenario.log_in("ann").await?;
    let every = if times(2) > 1 { 1 } else { EVERY };
    let mut refused = BTreeSet::new();
    for (index, (name, message)) in messages.iter().step_by(every).enumerate() {
        let folder = format!("Odd {}", index / IN_ONE_FOLDER);
        if index % IN_ONE_FOLDER == 0 {
            ann.create(&folder).await?;
        }
        match ann.append(&folder, &[], None, message).await {
            Ok(_) => {}
            // An empty file is no message; the primary itself does not take it.
            Err(error) if error.is::<Refused>() => drop(refused.insert(name)),
            Err(error) => return Err(error),
        }
    }
    assert!(refused.len() < 20, "the primary refused {}: {refused:?}", refused.len());
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let (mut ours, mut theirs) =
        (scenario.snapshot("ann").await?, scenario.log_in_to_standby("ann").await?.snapshot().await?);
    // A message that Dovecot stores otherwise each time it is given one (CR CR LF) is named, and nothing else is.
    let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--deep", "--json"]).await?;
    let verified: Value = serde_json::from_str(&verified.stdout).context(verified.stderr)?;
    let named = verified["mailboxes"][0]["differences"].as_array().context("no list of differences")?;
    assert!(named.len() <= 3, "{named:#?}");
    for difference in named {
        assert_eq!(difference["what"], "set_aside", "{difference:#}");
        assert!(
            difference["detail"].as_str().is_some_and(|detail| detail.contains("stored other bytes")),
            "{difference:#}"
        );
        leave_out(&mut ours, &mut theirs, difference)?;
    }
    let differences = compare(&ours, &theirs);
    ensure!(differences.is_empty(), "the mailbox is not the same on both sides: {differences}");
    Ok(())
}

/// Takes one named message out of the primary's side, and what became of it out of the standby's.
fn leave_out(ours: &mut Snapshot, theirs: &mut Snapshot, difference: &Value) -> Result<()> {
    let name = difference["folder"].as_str().context("a difference without a folder")?;
    let (ours, theirs) = ours.folders.get_mut(name).zip(theirs.folders.get_mut(name)).context("no such folder")?;
    let at = ours.messages.iter().position(|message| difference["uid"] == message.uid).context("no such message")?;
    let message = ours.messages.remove(at);
    let equal = theirs.messages.iter().any(|other| other.digest == message.digest);
    assert!(!equal, "it is named, and is on the standby as it was: {difference:#}");
    theirs
        .messages
        .retain(|other| other.date != message.date || ours.messages.iter().any(|ours| ours.digest == other.digest));
    Ok(())
}
