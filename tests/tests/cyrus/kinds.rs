//! Every kind of change between Dovecot and Cyrus, in both directions: the list of `kinds.rs`, but for what `docs/servers.md` says
//! cannot be bridged.

use anyhow::{Context as _, Result};
use understudy_tests::mail::Mail;
use understudy_tests::scenario::{PRIMARY, STANDBY};

use super::exact;
use super::pair::Pair;
use crate::kinds::{Hands, asked_for, before, change};
use crate::times;

async fn every_kind(pair: Pair) -> Result<()> {
    let mut hands = Hands { client: pair.log_in("ann").await?, mail: Mail::from_seed(40), with_cyrus: true };
    let (kinds, _) = asked_for()?;
    for kind in &kinds {
        before(kind, &mut hands).await.with_context(|| format!("before {kind}"))?;
    }
    pair.protect(&["ann"]).await?;
    pair.settle_and_compare(&["ann"]).await.context("after the first copy")?;
    for kind in &kinds {
        change(kind, &mut hands).await.context(*kind)?;
        if times(2) > 1 {
            pair.settle_and_compare(&["ann"]).await.with_context(|| format!("after {kind}"))?;
        }
    }
    pair.settle_and_compare(&["ann"]).await?;
    assert_eq!(pair.verify("ann").await?, []);
    Ok(())
}

#[tokio::test]
async fn every_kind_is_mirrored_from_a_dovecot_to_cyrus() -> Result<()> {
    every_kind(Pair::from_dovecot(exact(STANDBY)).await?).await
}

#[tokio::test]
async fn every_kind_is_mirrored_from_cyrus_to_a_dovecot() -> Result<()> {
    every_kind(Pair::from_cyrus(exact(PRIMARY)).await?).await
}
