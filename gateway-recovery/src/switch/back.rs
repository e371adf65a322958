//! A switchback: one mailbox home to the primary, with only what changed.
//!
//! Passes while the user works on the standby, then a short hold, a last pass, a comparison of both sides, and the flip.
//! Whatever fails before the flip leaves the user on the standby; what was brought home already is recognised next time.

use std::{slice, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use understudy_database::{
    continuity::{self, Continuity},
    mirror::{self, Effects, MirrorFolder},
    switch::{self, Subject, Switch},
};
use understudy_protocol::{
    FolderId, FolderPosition, ModSeq, Side, Uid, UidValidity, messages::Trouble, words::counted,
};

use super::{
    Order,
    carry::Depot,
    door,
    equal::{self, Found},
    merge::Scope,
    over::flip,
    pass::{Memory, Passes, Report},
    sides::Sides,
    steps::{Steps, Stop, fault},
};
use crate::runs::Runner;

/// A pass that did no more than this, in no more time, is nearly empty.
const FEW: u64 = 5;
const QUICK: Duration = Duration::from_millis(700);
/// Passes while the user works, at most.
const PASSES: usize = 20;
/// Passes with the user waiting, at most.
const LAST_PASSES: usize = 10;
/// The standby must have been still for so long.
const STILL: Duration = Duration::from_millis(150);
const DRAINING: Duration = Duration::from_secs(20);
/// The whole time the user waits.
const WAITING: Duration = Duration::from_secs(100);

impl Runner {
    /// Brings one mailbox home. What became of it is told either way.
    pub(super) async fn home(&self, steps: &Steps, switch: &Switch, order: &Order) -> Result<Value, Stop> {
        let subject = self.subject(switch.mailbox).await?;
        if subject.epoch != switch.epoch {
            return self.after_flip(steps, switch).await;
        }
        match subject.phase.as_str() {
            "on_standby" | "switching_back" => {}
            "mirroring" | "seeding" => return Ok(json!({ "outcome": "already" })),
            phase => {
                let why = format!("the mailbox is {phase}");
                return Err(fault("phase", why, "Wait until that is over, or cancel it.").into());
            }
        }
        // Whoever sweeps the primary just now finishes first.
        let _alone = self.alone(switch.mailbox).await;
        let mut passes = self.passes(&subject, Scope::Home);
        if order.dry_run {
            return Box::pin(self.rehearse(steps, &subject, passes)).await;
        }
        let moved = Box::pin(self.home_for_good(steps, switch, &subject, &mut passes)).await;
        if moved.is_err() {
            self.back_to_where_it_was(switch, "switching_back", "on_standby").await?;
        }
        moved?;
        self.after_flip(steps, switch).await
    }

    pub(super) fn passes(&self, subject: &Subject, scope: Scope) -> Passes {
        Passes {
            mailbox: subject.mailbox,
            depot: Depot { pool: self.pool.clone(), store: self.store.clone(), tenant: subject.tenant },
            scope,
            dry: false,
            memory: Memory::new(),
        }
    }

    /// What would change, and nothing more.
    async fn rehearse(&self, steps: &Steps, subject: &Subject, mut passes: Passes) -> Result<Value, Stop> {
        let mut sides = steps.take("check", to_write(subject), |_| "done".to_owned()).await?;
        passes.dry = true;
        let report = steps.take("compare", pass(&mut passes, &mut sides), told).await?;
        sides.log_out().await;
        Ok(json!({ "outcome": "rehearsed", "would": report }))
    }

    async fn home_for_good(
        &self,
        steps: &Steps,
        switch: &Switch,
        subject: &Subject,
        passes: &mut Passes,
    ) -> Result<(), Stop> {
        steps.may_go_on()?;
        let mut sides = steps.take("check", to_write(subject), |_| "done".to_owned()).await?;
        let mut db = self.pool.begin().await?;
        switch::set_phase(&mut db, switch.mailbox, &["on_standby"], "switching_back", switch.run_id).await?;
        db.commit().await?;

        let mut memory = Memory::new();
        let mut total = Report::default();
        let live = self.live_home(steps, passes, &mut sides, &mut memory, &mut total);
        steps.take("live", live, told).await?;
        steps.may_go_on()?;
        let held = steps.take("hold", self.hold(switch, "switching_back"), |_| "done".to_owned()).await?;
        let since = held.since;
        let cutting = door::cut(&self.pool, slice::from_ref(&switch.mailbox), switch.target.other());
        steps.take("cut", cutting, Clone::clone).await?;
        steps.take("drain", drain(steps, &mut sides), |()| "still".to_owned()).await?;
        steps.take("last", last(passes, &mut sides, &mut total), told).await?;
        let found = steps
            .take("verify", self.equal(subject, passes, &mut sides, &mut memory), |found| {
                format!("{} compared, all equal", counted(found.messages, "message", "messages"))
            })
            .await?;
        if since.elapsed() > WAITING {
            return Err(fault("too_long", "the last pass took too long", "Ask again; less is left to do now.").into());
        }
        steps.may_go_on()?;
        let mut held = held;
        let away = since;
        let flipping = async {
            self.take_positions(&mut held, subject, &found).await?;
            flip(held, switch).await
        };
        steps.take("flip", flipping, |()| format!("away for {} ms", away.elapsed().as_millis())).await?;
        let detail = json!({
            "rpo_seconds": 0.0,
            "rto_seconds": away.elapsed().as_secs_f64(),
            "brought": total,
        });
        switch::note(&self.pool, switch.run_id, switch.mailbox, &detail).await?;
        sides.log_out().await;
        Ok(())
    }

    /// Passes until one is nearly empty, and a first comparison, so that the last one has little to look at.
    async fn live_home(
        &self,
        steps: &Steps,
        passes: &mut Passes,
        sides: &mut Sides,
        memory: &mut Memory,
        total: &mut Report,
    ) -> Result<Report, Stop> {
        for _ in 0..PASSES {
            steps.may_go_on()?;
            let started = Instant::now();
            let report = pass(passes, sides).await?;
            total.add(&report);
            refuse(&report)?;
            if report.effects() <= FEW && started.elapsed() <= QUICK {
                break;
            }
        }
        equal::equal(&passes.depot, passes.mailbox, sides, memory).await.map_err(trouble)?;
        Ok(total.clone())
    }

    async fn equal(
        &self,
        subject: &Subject,
        passes: &Passes,
        sides: &mut Sides,
        memory: &mut Memory,
    ) -> Result<Found, Stop> {
        let found = equal::equal(&passes.depot, subject.mailbox, sides, memory).await.map_err(trouble)?;
        let Some(first) = found.differences.first() else { return Ok(found) };
        Err(fault(
            "not_equal",
            format!("the two sides are not equal in {} places, first: {first}", found.differences.len()),
            "The user stays on the standby. Ask again; if it lasts, look at that folder on both sides.",
        )
        .into())
    }

    /// From here on the source gateway goes on: both sides are what the mirror's tables say, at these positions.
    async fn take_positions(&self, held: &mut door::Held, subject: &Subject, found: &Found) -> Result<(), Stop> {
        let db = held.transaction();
        let folders = mirror::folders(&mut **db, subject.mailbox).await?;
        let levels = levels(&folders, found);
        mirror::record(db, subject.mailbox, &levels).await?;
        for mut folder in folders {
            let (Some(position), Some(next)) =
                (found.positions.get(&folder.folder), found.standby_next.get(&folder.folder))
            else {
                continue;
            };
            folder.position = *position;
            folder.standby_uid_next = folder.standby_uid_next.max(*next);
            let effects = Effects { folders: [(folder.folder, folder)].into(), ..Effects::default() };
            mirror::record(db, subject.mailbox, &effects).await?;
        }
        continuity::came_home(db, subject.mailbox).await?;
        Ok(switch::settle_journal(db, subject.mailbox).await?)
    }
}

/// The levels that hold no messages become those that the primary lists; they travel with the folders below them.
fn levels(folders: &[MirrorFolder], found: &Found) -> Effects {
    let mut effects = Effects::default();
    let mut lacking = found.levels.clone();
    for level in folders.iter().filter(|folder| !folder.selectable) {
        if lacking.remove(&level.path).is_none() {
            effects.deleted.push(level.folder);
        }
    }
    let next = folders.iter().map(|folder| folder.folder.0 + 1).max().unwrap_or(1);
    for (number, (path, standby_name)) in (next..).zip(lacking) {
        let level = MirrorFolder {
            folder: FolderId(number),
            standby_name,
            path,
            special_use: Vec::new(),
            selectable: false,
            position: FolderPosition { uid_next: Uid(1), ..FolderPosition::default() },
            standby_uid_validity: UidValidity(0),
            standby_uid_next: Uid(1),
            standby_mod_seq: ModSeq(0),
            continuity: Continuity::None,
        };
        effects.folders.insert(level.folder, level);
    }
    effects
}

async fn to_write(subject: &Subject) -> Result<Sides, Stop> {
    Ok(Sides::to_write(subject).await?)
}

async fn pass(passes: &mut Passes, sides: &mut Sides) -> Result<Report, Stop> {
    Box::pin(passes.pass(sides)).await.map_err(trouble)
}

/// The user waits: passes until nothing is left.
async fn last(passes: &mut Passes, sides: &mut Sides, total: &mut Report) -> Result<Report, Stop> {
    let mut all = Report::default();
    for _ in 0..LAST_PASSES {
        let report = pass(passes, sides).await?;
        all.add(&report);
        total.add(&report);
        refuse(&report)?;
        if report.effects() == 0 && !report.moving {
            return Ok(all);
        }
    }
    Err(fault(
        "not_still",
        "somebody goes on writing to the mailbox although its log-ins wait",
        "See who reaches either server past the front doors, and close that way; then ask again.",
    )
    .into())
}

/// Waits until nothing moves on the standby any more.
async fn drain(steps: &Steps, sides: &mut Sides) -> Result<(), Stop> {
    let deadline = Instant::now() + DRAINING;
    let mut before = None;
    while Instant::now() < deadline {
        sides.standby.close().await.map_err(|error| trouble(error.into()))?;
        let sweep = sides.standby.session().sweep().await.map_err(|error| trouble(error.into()))?;
        if before.replace(sweep.clone()) == Some(sweep) {
            return Ok(());
        }
        steps.pause(STILL).await?;
    }
    Err(fault(
        "not_still",
        "somebody goes on writing to the mailbox on the standby although its log-ins wait",
        "See who reaches the standby past the front doors, and close that way; then ask again.",
    )
    .into())
}

/// A message that one side does not take would be missing at home.
fn refuse(report: &Report) -> Result<(), Stop> {
    let Some(first) = report.refused.first() else { return Ok(()) };
    let side = if first.side == "standby" { Side::Primary } else { Side::Standby };
    Err(fault(
        "refused",
        format!(
            "the {} does not take {}, first UID {} of {} on the {}: {}",
            side.as_str(),
            counted(report.refused.len(), "message", "messages"),
            first.uid,
            first.folder,
            first.side,
            first.reason
        ),
        "Make room or raise its limits, then ask again; the user stays on the standby with everything.",
    )
    .into())
}

pub(super) fn told(report: &Report) -> String {
    format!(
        "{} added, {} flagged, {} removed on the primary; {}, {} and {} on the standby; {}, {}, {} recognised, {} kept",
        report.added_to_primary,
        report.flags_on_primary,
        report.removed_from_primary,
        report.added_to_standby,
        report.flags_on_standby,
        report.removed_from_standby,
        counted(report.folders_changed, "folder", "folders"),
        counted(report.subscriptions_changed, "subscription", "subscriptions"),
        report.recognised,
        report.kept
    )
}

/// An error of a pass, for a person.
pub(super) fn trouble(error: anyhow::Error) -> Stop {
    let explained = error
        .downcast_ref::<understudy_imap_session::Error>()
        .map(|error| understudy_replication::trouble::explain("one of the two servers", error));
    let trouble = explained.unwrap_or_else(|| Trouble {
        kind: "internal".to_owned(),
        reason: format!("{error:#}"),
        remedy: "Ask again; the log of the recovery gateway says more.".to_owned(),
        fault: false,
    });
    Stop::Failed(trouble)
}
