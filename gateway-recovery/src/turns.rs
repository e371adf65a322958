//! Lets every mailbox be verified by itself when its turn comes.
//!
//! Out: runs. Keeps true: one such verification at a time; the next one that is due begins as soon as it has ended, so how many fit
//! in a day depends on how long they take.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    proof,
    run::{self, NewRun, Run},
};
use understudy_protocol::TenantId;

/// How often it is looked whether a verification is due, while none is.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is looked whether one has ended.
const ENDING: Duration = Duration::from_millis(100);

/// Runs until `shutdown`.
pub(crate) async fn verify_by_turns(pool: PgPool, every: Option<Duration>, shutdown: CancellationToken) {
    let Some(every) = every else { return };
    let turns = async {
        loop {
            match take_turn(&pool, every).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    tracing::debug!(error = %error, "Could not look for verifications that are due; trying again");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = turns => {}
    }
}

/// Begins the next verification that is due and waits for its end. Answers whether there was one.
async fn take_turn(pool: &PgPool, every: Duration) -> understudy_database::Result<bool> {
    let mut db = pool.begin().await?;
    let Some((tenant, mailbox, address)) = proof::take_due(&mut db, every.as_secs_f64()).await? else {
        return Ok(false);
    };
    let request = json!({ "addresses": [address], "mailbox_ids": [mailbox], "deep": false });
    let new = NewRun {
        kind: "verify",
        mailbox: Some(mailbox),
        request,
        reason: "its turn",
        requested_by: "schedule",
        ..NewRun::default()
    };
    let begun = run::insert(&mut db, TenantId(tenant), &new).await?;
    db.commit().await?;
    while run::get(pool, begun.run_id).await?.is_some_and(|run: Run| !run.has_ended()) {
        tokio::time::sleep(ENDING).await;
    }
    Ok(true)
}
