//! Odd mail from the field passes through byte for byte.

use std::collections::BTreeSet;

use anyhow::Result;
use understudy_tests::client::Refused;
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
    scenario.settle_and_compare(&["ann"]).await
}
