//! Verifications as runs: one mailbox after the other compared, where asked to also repaired, and what came of it noted.
//!
//! Not here: comparing (`verify`), carrying out repairs (`applier::repair`).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use understudy_database::{continuity, event, journal};
use understudy_protocol::{
    FolderPath, MailboxId, Seq, UidSet,
    messages::{Asked, Trouble},
};

use crate::{
    applier::RepairOutcome,
    compare::{Comparison, Difference, Repair},
    runs::Runner,
    verify::{self, internal, verify},
};

/// How often a verification that found differences looks again before it believes them: mail may be on its way.
const LOOKS: usize = 3;
/// A repair is followed by another look at most so often.
const REPAIR_ROUNDS: usize = 30;
/// How long a verification waits for what was captured to be applied, and a repair for its turn.
const SETTLING: Duration = Duration::from_secs(300);

/// A comparison, and the transaction through which the mirror stood when it was made.
struct Verified {
    found: Comparison,
    applied: Seq,
}

impl Runner {
    /// Verifies one mailbox; answers what a run says of it.
    pub(crate) async fn verified(&self, mailbox: MailboxId, address: &str, deep: bool, repair: bool) -> Value {
        match self.verify_and_repair(mailbox, deep, repair).await {
            Ok((found, repaired)) => json!({
                "address": address,
                "equal": found.is_equal(),
                "messages": found.messages,
                "folders": found.folders,
                "differences": found.differences,
                "more": found.more,
                "kept": found.kept,
                "kept_messages": found.kept_messages,
                "repaired": repaired,
                "uid_continuity_lost": self.continuity_lost(mailbox).await,
                "detail": null,
            }),
            Err(trouble) => json!({
                "address": address,
                "equal": false,
                "messages": 0,
                "folders": 0,
                "differences": [],
                "more": 0,
                "kept": 0,
                "kept_messages": [],
                "repaired": [],
                "detail": { "reason": trouble.reason, "remedy": trouble.remedy },
            }),
        }
    }

    /// Folders that mail programs would not recognise on the standby; their messages may well be equal.
    async fn continuity_lost(&self, mailbox: MailboxId) -> Vec<Value> {
        let lost = continuity::lost(&self.pool, mailbox).await.unwrap_or_default();
        lost.into_iter().map(|lost| json!({ "folder": lost.path.to_string(), "reason": lost.reason })).collect()
    }

    async fn verify(&self, mailbox: MailboxId, deep: bool) -> Result<Verified, Trouble> {
        let mut looks = 0;
        loop {
            looks += 1;
            self.barrier(mailbox, Instant::now() + SETTLING).await?;
            let target = self.target(mailbox).await?;
            let found = verify(&self.pool, &self.board, &target, deep).await?;
            let quiet = verify::is_settled(&self.pool, &target).await.map_err(|error| internal(&error))?;
            if found.is_equal() || looks >= LOOKS || (quiet && looks > 1) {
                self.note(mailbox, &found).await.map_err(|error| internal(&error))?;
                return Ok(Verified { found, applied: target.applied });
            }
        }
    }

    async fn note(&self, mailbox: MailboxId, found: &Comparison) -> understudy_database::Result<()> {
        journal::verified(&self.pool, mailbox, found.count()).await?;
        let equal = if found.is_equal() { "yes" } else { "no" };
        metrics::counter!("understudy_verifications_total", "equal" => equal).increment(1);
        if !found.is_equal() {
            let detail = json!({
                "differences": found.count(),
                "first": found.differences.first(),
                "remedy": "See all of them with `understudy mailbox verify ADDRESS`; with `--repair` it makes the sides equal.",
            });
            event::record(&self.pool, "differences", Some(mailbox), None, &detail).await?;
        }
        Ok(())
    }

    /// Verifies and, where asked to, repairs until the sides are equal or nothing more can be done. Answers what was repaired.
    async fn verify_and_repair(
        &self,
        mailbox: MailboxId,
        deep: bool,
        repair: bool,
    ) -> Result<(Comparison, Vec<Difference>), Trouble> {
        let mut repaired: Vec<Difference> = Vec::new();
        let mut rounds = 0;
        loop {
            let Verified { mut found, applied } = self.verify(mailbox, deep).await?;
            rounds += 1;
            // A difference that is still there has not been repaired.
            repaired.retain(|before| !found.differences.contains(before));
            if !repair || found.repairs.is_empty() || rounds > REPAIR_ROUNDS {
                self.apply_again_what_was_reset(mailbox, &found);
                return Ok((found, repaired));
            }
            let repairs = std::mem::take(&mut found.repairs);
            self.capture_again(mailbox, &repairs).await?;
            let answer = self.applying.repairs().order(mailbox, repairs, applied);
            self.applying.received(mailbox);
            let left = match tokio::time::timeout(SETTLING, answer).await {
                Ok(Ok(RepairOutcome::Done(left))) => left,
                Ok(Ok(RepairOutcome::Stale)) => continue,
                Ok(Ok(RepairOutcome::Failed(reason))) => return Err(not_repaired(&reason)),
                Ok(Err(_)) | Err(_) => return Err(not_repaired("the standby was not reached in time")),
            };
            tracing::info!(mailbox.id = %mailbox, count = found.differences.len(), "Repaired what a verification found");
            for reason in left {
                tracing::warn!(mailbox.id = %mailbox, reason, "Could not repair everything");
            }
            let new = found.differences.into_iter().filter(|d| d.what != "set_aside" && d.what != "missing_on_primary");
            for difference in new {
                if !repaired.contains(&difference) {
                    repaired.push(difference);
                }
            }
        }
    }

    /// A folder that is another one than was filled, or gone, is applied again at its next change anyway; so it is at once. Single
    /// messages that somebody removed, added or changed on the standby wait for a person, who may have meant that.
    pub(crate) fn apply_again_what_was_reset(&self, mailbox: MailboxId, found: &Comparison) {
        let mut is_one = false;
        for repair in &found.repairs {
            if let Repair::ApplyAgain { folder } = repair {
                self.applying.resets().note(mailbox, *folder);
                is_one = true;
            }
        }
        if is_one {
            self.applying.received(mailbox);
        }
    }

    /// What the primary has and no transaction brought is captured again.
    async fn capture_again(&self, mailbox: MailboxId, repairs: &[Repair]) -> Result<(), Trouble> {
        let mut uids: BTreeMap<FolderPath, UidSet> = BTreeMap::new();
        for repair in repairs {
            if let Repair::Capture { path, uid } = repair {
                uids.entry(path.clone()).or_default().insert(*uid);
            }
        }
        if uids.is_empty() {
            return Ok(());
        }
        let asked = Asked::Recapture { mailbox, folders: uids.into_iter().collect() };
        self.ask(asked).await.map(drop)
    }
}

fn not_repaired(reason: &str) -> Trouble {
    Trouble {
        kind: "not_repaired".to_owned(),
        reason: format!("differences were found and could not be repaired: {reason}"),
        remedy: "Correct that and verify again with `--repair`; `understudy mailbox show ADDRESS` may say more."
            .to_owned(),
        fault: false,
    }
}
