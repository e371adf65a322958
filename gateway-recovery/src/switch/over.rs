//! A switchover: one mailbox to the standby.
//!
//! Planned, it loses nothing or does not happen: whatever fails before the flip leaves the user where he was. Emergency, it
//! says what may be lost and goes by the limit it was given.

use std::{collections::BTreeMap, slice, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use understudy_database::{
    continuity, journal, mailbox, mirror, status, step,
    switch::{self, Subject, Switch},
};
use understudy_imap_session::{Error, FolderName};
use understudy_protocol::{
    Change, Digest, FolderId, FolderPath, MailboxId, Seq, Uid, UidSet, messages::Trouble, words::counted,
};
use understudy_replication::{inventory::Digests, trouble::explain};

use super::{
    Moving,
    door::{self, Held},
    headroom,
    steps::{Steps, Stop, fault},
};
use crate::{
    applier::REBUILD_PAUSE, compare::Comparison, quiet::Quiet, runs::Runner, standby::Standby, verify::verify,
};

/// A pass that takes no longer is nearly empty.
const QUICK: Duration = Duration::from_millis(400);
/// Passes while the user works, at most.
const PASSES: usize = 10;
/// How long one pass may take.
const PASS: Duration = Duration::from_secs(600);
/// Nothing may have come for so long before the old side counts as still.
const STILL: Duration = Duration::from_millis(150);
/// A side that does not become still within this is not drained: the user goes back.
const DRAINING: Duration = Duration::from_secs(30);
/// The old side is read for stragglers so long after the flip.
pub(crate) const SWEEP: Duration = Duration::from_secs(60);
/// In an emergency: how long to wait for the primary's last words, and for what was received to be applied.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);
const APPLYING: Duration = Duration::from_secs(60);
/// How long folders that are being rebuilt under the primary's UIDs are waited for while the user works.
const REBUILDING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
/// How long a source gateway that was not heard of lately may take to be: we may have been away ourselves.
const GREETING: Duration = Duration::from_secs(10);
/// So many messages that the standby does not hold are looked at for why.
const LOOKED_AT: i64 = 1000;
/// How long the applier may take to come to its end before the flip.
const STOPPING: Duration = Duration::from_secs(10);

impl Runner {
    /// Moves one mailbox to the standby. What it was like is told either way.
    pub(super) async fn over(&self, steps: &Steps, switch: &Switch, moving: &Moving<'_>) -> Result<Value, Stop> {
        let subject = self.subject(switch.mailbox).await?;
        if subject.phase == "on_standby" && subject.epoch == switch.epoch {
            return Ok(json!({ "outcome": "already" }));
        }
        if subject.epoch != switch.epoch {
            return self.after_flip(steps, switch).await;
        }
        let moved = if moving.order.emergency {
            Box::pin(self.over_in_emergency(steps, switch, &subject, moving)).await
        } else {
            Box::pin(self.over_as_planned(steps, switch, &subject)).await
        };
        if moved.is_err() {
            self.back_to_where_it_was(switch, "switching_over", before(&subject)).await?;
        }
        moved?;
        self.after_flip(steps, switch).await
    }

    pub(super) async fn subject(&self, mailbox: MailboxId) -> Result<Subject, Stop> {
        let subject = switch::subject(&self.pool, mailbox).await?;
        subject.ok_or_else(|| fault("unprotected", "the mailbox is not protected any more", "Protect it again.").into())
    }

    /// Ends the hold and shows the mailbox as it was before.
    pub(super) async fn back_to_where_it_was(&self, switch: &Switch, from: &str, to: &str) -> Result<(), Stop> {
        let now = self.subject(switch.mailbox).await?;
        if now.epoch != switch.epoch {
            return Ok(());
        }
        door::release(&self.pool, switch.mailbox).await?;
        let mut db = self.pool.begin().await?;
        switch::set_phase(&mut db, switch.mailbox, &[from], to, switch.run_id).await?;
        db.commit().await?;
        Ok(())
    }

    async fn over_as_planned(&self, steps: &Steps, switch: &Switch, subject: &Subject) -> Result<(), Stop> {
        steps.may_go_on()?;
        let checked = async {
            check(subject).await?;
            self.is_fed(steps, subject).await?;
            self.has_room(subject).await
        };
        steps.take("check", checked, |()| "done".to_owned()).await?;
        let mut live = steps.take("live", self.live(steps, subject), |live| live.told.clone()).await?;
        steps.may_go_on()?;
        let held = steps.take("hold", self.hold(switch, "switching_over"), |_| "done".to_owned()).await?;
        let cutting = door::cut(&self.pool, slice::from_ref(&switch.mailbox), switch.target.other());
        steps.take("cut", cutting, Clone::clone).await?;
        let last = steps.take("drain", self.drain(steps, subject), |last| format!("still at {last}")).await?;
        steps.take("verify", self.compare(subject, &live, last), Clone::clone).await?;
        steps.may_go_on()?;
        let away = held.since;
        let flipping = async {
            headroom::raise(&self.pool, subject).await;
            self.stop_applying(&mut live.quiet, subject).await?;
            flip(held, switch).await
        };
        steps.take("flip", flipping, |()| format!("away for {} ms", away.elapsed().as_millis())).await?;
        let detail = json!({
            "rpo_seconds": 0.0,
            "rto_seconds": away.elapsed().as_secs_f64(),
            "lost_transactions": 0,
        });
        Ok(switch::note(&self.pool, switch.run_id, switch.mailbox, &detail).await?)
    }

    /// Can anybody say what the primary holds? Otherwise its last word would be waited for in vain.
    async fn is_fed(&self, steps: &Steps, subject: &Subject) -> Result<(), Stop> {
        let deadline = Instant::now() + GREETING;
        loop {
            let link = status::link(&self.pool).await?;
            if link.connected() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (server, address) = (&subject.primary.name, &subject.address);
                return Err(fault(
                    "source_gateway_silent",
                    format!(
                        "nothing has been heard of the source gateway for {:.0} s: nobody can say whether everything on {server} has come over",
                        link.age_seconds.unwrap_or_default()
                    ),
                    format!(
                        "Start it, or see why the link is down (`understudy status`), and ask again. Where {server} is lost: \
                         `understudy switchover {address} --mode emergency`."
                    ),
                )
                .into());
            }
            steps.pause(LOOK).await?;
        }
    }

    /// Did the standby take everything so far? What it had no room for the user would not find there.
    async fn has_room(&self, subject: &Subject) -> Result<(), Stop> {
        let lacking = mailbox::set_aside(&self.pool, subject.mailbox, None, LOOKED_AT).await?;
        let no_room = lacking.iter().filter(|message| message.kind == "refused" && is_no_room(&message.reason)).count();
        if no_room == 0 {
            return Ok(());
        }
        let (server, address) = (&subject.standby.name, &subject.address);
        Err(fault(
            "standby_full",
            format!("{server} has no room for {}", counted(no_room as u64, "message", "messages")),
            format!(
                "Give the mailbox more room on {server}, then `understudy mailbox resume {address}`, and ask again."
            ),
        )
        .into())
    }

    /// Passes while the user works, until one is nearly empty; and a first comparison.
    async fn live(&self, steps: &Steps, subject: &Subject) -> Result<Live, Stop> {
        self.rebuilt(steps, subject.mailbox).await?;
        let quiet = Quiet::over(&self.applying, vec![subject.mailbox]);
        let mut seq = Seq(subject.applied);
        for pass in 1..=PASSES {
            steps.may_go_on()?;
            let started = Instant::now();
            let reached = self.barrier(subject.mailbox, started + PASS).await?;
            let (few, quick) = (reached.0 - seq.0 <= 2, started.elapsed() <= QUICK);
            seq = reached;
            if few && quick && !self.is_swapping(subject.mailbox).await? || pass == PASSES {
                break;
            }
        }
        self.has_room(subject).await?;
        let target = self.target(subject.mailbox).await?;
        let found = verify(&self.pool, &self.board, &target, false).await?;
        self.apply_again_what_was_reset(subject.mailbox, &found);
        let (differing, told) = differing(&found);
        Ok(Live { seq, equal: differing == 0, told, quiet })
    }

    /// Lets folders get the primary's UIDs first, where that is soon done.
    async fn rebuilt(&self, steps: &Steps, mailbox: MailboxId) -> Result<(), Stop> {
        let deadline = Instant::now() + REBUILDING;
        while Instant::now() < deadline && !continuity::due(&self.pool, mailbox, REBUILD_PAUSE).await?.is_empty() {
            self.applying.received(mailbox);
            steps.pause(LOOK).await?;
        }
        Ok(())
    }

    /// Nothing is done on the standby by us from here on: what is there is the user's.
    async fn stop_applying(&self, quiet: &mut Quiet, subject: &Subject) -> Result<(), Stop> {
        let is_at_work = !quiet.stop(STOPPING).await.is_empty();
        if is_at_work || self.is_swapping(subject.mailbox).await? {
            let doing = if is_at_work { "changes are still being applied" } else { "a folder is just being replaced" };
            return Err(fault(
                "standby_busy",
                format!("{}: {doing} on the standby", subject.standby.name),
                format!("Ask again; see what it is busy with: `understudy mailbox show {}`.", subject.address),
            )
            .into());
        }
        Ok(())
    }

    pub(super) async fn hold(&self, switch: &Switch, phase: &str) -> Result<Held, Stop> {
        let mut db = self.pool.begin().await?;
        let from = ["seeding", "mirroring", "on_standby"];
        switch::set_phase(&mut db, switch.mailbox, &from, phase, switch.run_id).await?;
        db.commit().await?;
        self.holds.hold(switch.mailbox, switch.target, switch.epoch).await
    }

    /// Waits until nothing comes from the primary any more, and everything that came is applied.
    async fn drain(&self, steps: &Steps, subject: &Subject) -> Result<Seq, Stop> {
        let deadline = Instant::now() + DRAINING;
        let mut last = self.barrier(subject.mailbox, deadline).await?;
        loop {
            steps.pause(STILL).await?;
            let now = self.barrier(subject.mailbox, deadline).await?;
            if now == last && !self.is_swapping(subject.mailbox).await? {
                return Ok(last);
            }
            last = now;
            if Instant::now() >= deadline {
                return Err(fault(
                    "not_still",
                    format!("somebody goes on writing to the mailbox on the primary for {} s", DRAINING.as_secs()),
                    "See who reaches the primary past the front doors, and close that way; then ask again.",
                )
                .into());
            }
        }
    }

    /// Is a rebuilt folder just taking the place of another on the standby?
    async fn is_swapping(&self, mailbox: MailboxId) -> Result<bool, Stop> {
        Ok(!continuity::swapping_in(&self.pool, &[mailbox]).await?.is_empty())
    }

    /// Compares again unless nothing changed since the sides were found equal; of new messages the content too.
    async fn compare(&self, subject: &Subject, live: &Live, last: Seq) -> Result<String, Stop> {
        let since = journal::between(&self.pool, subject.mailbox, live.seq, last).await?;
        if live.equal && since.is_empty() {
            return Ok("nothing changed since the last comparison".to_owned());
        }
        let target = self.target(subject.mailbox).await?;
        let found = verify(&self.pool, &self.board, &target, false).await?;
        let (differing, _) = differing(&found);
        if differing > 0 {
            let first = found.differences.iter().find(|difference| difference.what != "set_aside");
            let named = first.map_or(String::new(), |difference| {
                format!(", the first in {}: {}, {}", difference.folder, difference.what, difference.detail)
            });
            let differences = counted(differing, "difference", "differences");
            return Err(not_equal(subject, &format!("{differences} between the two sides{named}")).into());
        }
        let mut added: BTreeMap<FolderId, UidSet> = BTreeMap::new();
        for change in since.into_iter().flat_map(|transaction| transaction.changes) {
            if let Change::MessageAdded(message) = change {
                added.entry(message.folder).or_default().insert(message.uid);
            }
        }
        let read = self.read_back(subject, &added).await?;
        let messages = counted(found.messages, "message is", "messages are");
        Ok(format!("{messages} equal; {read} new read back"))
    }

    /// Reads what was added lately from the standby and compares its digests.
    async fn read_back(&self, subject: &Subject, added: &BTreeMap<FolderId, UidSet>) -> Result<usize, Stop> {
        if added.is_empty() {
            return Ok(0);
        }
        let tell = |error: Error| Stop::from(explain(&subject.standby.name, &error));
        let standby = &subject.standby;
        let mut session = Standby::at(standby, &standby.login, &subject.standby_address).await.map_err(tell)?;
        let folders = mirror::folders(&self.pool, subject.mailbox).await?;
        let mut read = 0;
        for folder in folders.iter().filter(|folder| added.contains_key(&folder.folder)) {
            let rows = self.rows_of(subject.mailbox, folder.folder, &added[&folder.folder]).await?;
            if session.examine(&FolderName::new(folder.standby_name.as_str())).await.map_err(tell)?.is_none() {
                return Err(not_equal(subject, "a folder is gone from the standby").into());
            }
            let uids: UidSet = rows.iter().map(|(uid, _)| *uid).collect();
            let mut digests = Digests::default();
            session.session().bodies(&uids, &mut digests).await.map_err(tell)?;
            if rows.iter().any(|(uid, digest)| digests.of(*uid) != Some(*digest)) {
                return Err(not_equal(subject, &format!("a new message in {} has other bytes", folder.path)).into());
            }
            read += rows.len();
        }
        session.log_out().await;
        Ok(read)
    }

    /// Where these messages are on the standby, and what they should be; without those it alters by its nature.
    async fn rows_of(&self, mailbox: MailboxId, folder: FolderId, uids: &UidSet) -> Result<Vec<(Uid, Digest)>, Stop> {
        let mut rows = Vec::new();
        for (low, high) in uids.ranges() {
            let mut after = Uid(low.0 - 1);
            loop {
                let slice = mirror::messages(&self.pool, mailbox, folder, after, 1000).await?;
                let Some(last) = slice.last().map(|row| row.uid) else { break };
                after = last;
                let wanted = slice.into_iter().filter(|row| row.uid <= high && row.set_aside.is_none());
                rows.extend(wanted.filter_map(|row| Some((row.standby_uid?, row.content.digest))));
                if last >= high {
                    break;
                }
            }
        }
        Ok(rows)
    }

    async fn over_in_emergency(
        &self,
        steps: &Steps,
        switch: &Switch,
        subject: &Subject,
        moving: &Moving<'_>,
    ) -> Result<(), Stop> {
        steps.may_go_on()?;
        let mut quiet = Quiet::over(&self.applying, vec![subject.mailbox]);
        let stake = steps
            .take("check", self.stake(subject, moving), |stake| stake["told"].as_str().unwrap_or_default().to_owned())
            .await?;
        switch::note(&self.pool, switch.run_id, switch.mailbox, &json!({ "stake": stake })).await?;
        steps.may_go_on()?;
        let held = steps.take("hold", self.hold(switch, "switching_over"), |_| "done".to_owned()).await?;
        let cutting = door::cut(&self.pool, slice::from_ref(&switch.mailbox), switch.target.other());
        steps.take("cut", cutting, Clone::clone).await?;
        let away = held.since;
        let flipping = async {
            headroom::raise(&self.pool, subject).await;
            self.stop_applying(&mut quiet, subject).await?;
            flip(held, switch).await
        };
        steps.take("flip", flipping, |()| format!("away for {} ms", away.elapsed().as_millis())).await?;
        let detail = json!({
            "rpo_seconds": stake["unseen_seconds"],
            "rto_seconds": away.elapsed().as_secs_f64(),
            "lost_transactions": stake["not_applied"],
        });
        Ok(switch::note(&self.pool, switch.run_id, switch.mailbox, &detail).await?)
    }

    /// What may be lost; refused when that is more than was allowed. What was received is applied first.
    async fn stake(&self, subject: &Subject, moving: &Moving<'_>) -> Result<Value, Stop> {
        standby_answers(subject).await?;
        // The primary may yet have something to say.
        let heard = !moving.is_silent(&subject.primary.name)
            && match self.barrier(subject.mailbox, Instant::now() + LAST_WORDS).await {
                Ok(_) => true,
                Err(trouble) => {
                    // Nobody asks the primary about a mailbox that a person paused: that says nothing of the primary.
                    if trouble.kind != "stopped" {
                        moving.was_silent(&subject.primary.name);
                    }
                    false
                }
            };
        let deadline = Instant::now() + APPLYING;
        let mut now = self.subject(subject.mailbox).await?;
        while now.applied < now.received && Instant::now() < deadline {
            self.applying.received(subject.mailbox);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now = self.subject(subject.mailbox).await?;
        }
        let standing = Standing {
            phase: &subject.phase,
            captured: now.captured,
            received: now.received,
            applied: now.applied,
            last_look: now.swept_at.into_iter().chain(now.heard_at).min(),
        };
        at_stake(&standing, heard, moving.order.max_loss)
    }

    /// The side was changed, maybe before a crash: whatever was left undone after that.
    pub(super) async fn after_flip(&self, steps: &Steps, switch: &Switch) -> Result<Value, Stop> {
        let this = slice::from_ref(&switch.mailbox);
        let released = step::behind(&self.pool, steps.run, "release", this).await?;
        if released.is_empty() {
            let cutting = door::cut_left_behind(&self.pool, this, switch.target.other());
            steps
                .take("release", cutting, |()| format!("log-ins and deliveries reach the {}", switch.target.as_str()))
                .await?;
        }
        Ok(json!({ "outcome": "done" }))
    }
}

/// How far a mailbox was when its primary was given up.
pub(super) struct Standing<'a> {
    pub(super) phase: &'a str,
    pub(super) captured: i64,
    pub(super) received: i64,
    pub(super) applied: i64,
    pub(super) last_look: Option<DateTime<Utc>>,
}

/// What may be lost; refused when that is more than was allowed.
pub(super) fn at_stake(standing: &Standing<'_>, heard: bool, max_loss: Option<i64>) -> Result<Value, Stop> {
    let not_applied = standing.received - standing.applied;
    let not_received = standing.captured - standing.received;
    let unseen = standing.last_look.map(|at| (Utc::now() - at).as_seconds_f64().max(0.0));
    let told = format!(
        "{} received and not applied, {not_received} captured and not received; the primary was last looked through {}",
        counted(not_applied, "transaction", "transactions"),
        unseen.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1} s ago"))
    );
    if standing.phase == "seeding" && max_loss.is_some() {
        return Err(fault(
            "seeding",
            "the first full copy is not finished: the standby lacks what was not copied yet",
            "Allow it with --max-loss any, if a part of the mailbox is better than none.",
        )
        .into());
    }
    if let Some(limit) = max_loss
        && (not_applied + not_received > limit || (limit == 0 && !heard))
    {
        return Err(fault(
            "too_much_lost",
            format!("{told}: more than the {limit} allowed"),
            "Wait until more has been applied, or allow more with --max-loss.",
        )
        .into());
    }
    Ok(json!({
        "not_applied": not_applied,
        "not_received": not_received,
        "unseen_seconds": unseen,
        "last_look": standing.last_look,
        "primary_answered": heard,
        "told": told,
    }))
}

/// What the comparison found while the user worked.
struct Live {
    seq: Seq,
    equal: bool,
    told: String,
    quiet: Quiet,
}

/// A server that says it has no room says why: RFC 5530 has a code for it.
fn is_no_room(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains("quota")
}

/// How many differences a switch must not have; what the standby stores in its own way is known already.
fn differing(found: &Comparison) -> (u64, String) {
    let count = found.differences.iter().filter(|difference| difference.what != "set_aside").count() as u64;
    let count = count + found.more;
    let told = match count {
        0 => format!(
            "compared {} in {}, all equal",
            counted(found.messages, "message", "messages"),
            counted(found.folders, "folder", "folders")
        ),
        count => format!("{} on their way", counted(count, "change is", "changes are")),
    };
    (count, told)
}

fn not_equal(subject: &Subject, why: &str) -> Trouble {
    fault(
        "not_equal",
        why,
        format!("The user stays where he is. See all of it: `understudy mailbox verify {}`.", subject.address),
    )
}

pub(super) async fn flip(held: Held, switch: &Switch) -> Result<(), Stop> {
    if held.flip(switch, SWEEP).await? {
        return Ok(());
    }
    Err(fault(
        "hold_over",
        "it took so long that log-ins do not wait any more, or the side was changed meanwhile",
        "Ask again; the user is where he was.",
    )
    .into())
}

/// The phase a mailbox has when nobody moves it.
fn before(subject: &Subject) -> &str {
    if subject.phase == "seeding" { "seeding" } else { "mirroring" }
}

/// May this mailbox go to the standby without losing anything?
async fn check(subject: &Subject) -> Result<(), Stop> {
    let address = &subject.address;
    let refuse = |kind: &str, reason: &str, remedy: String| Err(Stop::from(fault(kind, reason, remedy)));
    match subject.phase.as_str() {
        "mirroring" | "switching_over" => {}
        "seeding" => {
            return refuse(
                "seeding",
                "the first full copy is not finished",
                format!("Wait for it: `understudy mailbox show {address}`."),
            );
        }
        phase => {
            return refuse("phase", &format!("the mailbox is {phase}"), "Wait until that is over.".to_owned());
        }
    }
    if subject.paused {
        return refuse("paused", "the mailbox is paused", format!("`understudy mailbox resume {address}`."));
    }
    if subject.held {
        return refuse(
            "held",
            "the mass-change brake stopped the mailbox",
            format!("Decide about the changes first: `understudy mailbox show {address}`."),
        );
    }
    for trouble in [&subject.source_trouble, &subject.standby_trouble].into_iter().flatten() {
        let trouble: Result<Trouble, _> = serde_json::from_value(trouble.clone());
        if let Some(trouble) = trouble.ok().filter(|trouble| trouble.fault) {
            return Err(trouble.into());
        }
    }
    standby_answers(subject).await
}

/// Is the standby there, and does it let this user in?
pub(super) async fn standby_answers(subject: &Subject) -> Result<(), Stop> {
    let (server, address) = (&subject.standby, &subject.standby_address);
    let opened = timeout(Duration::from_secs(15), Standby::at(server, &server.login, address)).await;
    let opened = opened.unwrap_or(Err(understudy_imap_session::Error::Timeout));
    let mut standby = opened.map_err(|error| explain(&server.name, &error))?;
    let inbox = standby.session().name_for(&FolderPath::inbox());
    let there = standby.examine(&inbox).await.map_err(|error| explain(&server.name, &error))?;
    standby.log_out().await;
    if there.is_some() {
        return Ok(());
    }
    let why = format!("{} has no INBOX for this mailbox", server.name);
    Err(fault("no_inbox", why, "Verify the mailbox; see the standby's own log.").into())
}
