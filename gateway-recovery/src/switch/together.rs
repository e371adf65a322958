//! An emergency for very many mailboxes: those whose primary is silent, and for which nothing is left to apply, take their steps
//! together, some hundreds at a time.
//!
//! In: the mailboxes of a run, in their order. Out: what became of each, as if it had been moved by itself.
//! Keeps true: every mailbox has its own steps, its own stake and its own end; whatever cannot go on together is moved by itself.
//! Not here: those with something left to apply, or whose primary still speaks (`over`); who can go together (`who`).

mod who;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::PoisonError,
    time::Duration,
};

use futures_util::{StreamExt, future::join, stream};
use serde_json::{Value, json};
use tokio::time::Instant;
use understudy_database::{
    continuity, link, route, run,
    step::{self, Ago},
    switch::together::{self as rows, Candidate},
};
use understudy_failpoint as failpoint;
use understudy_protocol::{Epoch, MailboxId, Side};

use self::who::Sorted;
use super::{AT_ONCE_IN_EMERGENCY, Moving, door, headroom, over::SWEEP, steps::Stop};
use crate::{quiet::Quiet, runs::Runner};

pub(super) use self::who::Found;

/// Mailboxes that take their steps together. Their users wait for each other.
const TOGETHER: usize = 500;
/// Such groups at once: one waits for mail servers while another has the database.
const GROUPS: usize = 2;
/// How often at most the source gateway is told whom it need not look after any more.
const TELLING: Duration = Duration::from_secs(10);
/// How long appliers may take to come to their end. The whole group's users wait.
const STOPPING: Duration = Duration::from_secs(2);
const RELEASED: &str = "log-ins and deliveries reach the standby";

type Results = HashMap<MailboxId, Value>;

impl Runner {
    /// Moves these mailboxes, in their order, and says of each what became of it.
    pub(super) async fn all_in_emergency(
        &self,
        moving: &Moving<'_>,
        mailboxes: Vec<(MailboxId, String)>,
    ) -> Vec<Value> {
        if let [_] = mailboxes.as_slice() {
            return self.each(moving, mailboxes, 1).await;
        }
        let groups: Vec<Vec<(MailboxId, String)>> = mailboxes.chunks(TOGETHER).map(<[_]>::to_vec).collect();
        let groups = stream::iter(groups).map(|group| Box::pin(self.group(moving, group)));
        let results: Vec<Vec<Value>> = groups.buffered(GROUPS).collect().await;
        let telling = async {
            let mut db = self.pool.acquire().await?;
            link::directives_changed(&mut db).await
        };
        if let Err(error) = telling.await {
            tracing::warn!(run.id = %moving.run.run_id, error = %error, "Could not tell the source gateway who was moved");
        }
        results.into_iter().flatten().collect()
    }

    async fn group(&self, moving: &Moving<'_>, group: Vec<(MailboxId, String)>) -> Vec<Value> {
        let mut results = Results::new();
        let sorted = self.sort(moving, &group, &mut results).await.unwrap_or_else(|stop| {
            tracing::warn!(run.id = %moving.run.run_id, why = ?stop, "Mailboxes cannot be moved together");
            Sorted::default()
        });
        let in_step: HashSet<MailboxId> =
            [&sorted.ready, &sorted.already, &sorted.flipped].into_iter().flatten().map(|one| one.mailbox).collect();
        let alone: Vec<(MailboxId, String)> = group
            .iter()
            .filter(|(mailbox, _)| !in_step.contains(mailbox) && !results.contains_key(mailbox))
            .cloned()
            .collect();
        let numbers: Vec<MailboxId> = alone.iter().map(|(mailbox, _)| *mailbox).collect();
        let (moved, alone) =
            join(self.in_step(moving, sorted, &mut results), self.each(moving, alone, AT_ONCE_IN_EMERGENCY)).await;
        results.extend(numbers.into_iter().zip(alone));
        if let Err(stop) = moved {
            tracing::warn!(run.id = %moving.run.run_id, why = ?stop, "Mailboxes could not go on together; each goes on by itself");
        }
        let left: Vec<(MailboxId, String)> =
            group.iter().filter(|(mailbox, _)| !results.contains_key(mailbox)).cloned().collect();
        let numbers: Vec<MailboxId> = left.iter().map(|(mailbox, _)| *mailbox).collect();
        results.extend(numbers.into_iter().zip(self.each(moving, left, AT_ONCE_IN_EMERGENCY).await));
        group.iter().filter_map(|(mailbox, _)| results.remove(mailbox)).collect()
    }

    /// Takes a group through the steps. Those without a result afterwards could not go on together; steps that they had begun are ended.
    async fn in_step(&self, moving: &Moving<'_>, sorted: Sorted, results: &mut Results) -> Result<(), Stop> {
        let mut begun = Vec::new();
        let taken = self.steps_of_all(moving, sorted, results, &mut begun).await;
        if taken.is_err() {
            for (step, mailboxes) in begun {
                step::end(
                    &self.pool,
                    moving.run.run_id,
                    step,
                    &mailboxes,
                    "failed for all together: each goes on by itself",
                )
                .await?;
            }
        }
        taken
    }

    async fn steps_of_all(
        &self,
        moving: &Moving<'_>,
        sorted: Sorted,
        results: &mut Results,
        begun: &mut Vec<(step::Begun, Vec<MailboxId>)>,
    ) -> Result<(), Stop> {
        let Sorted { ready, already, flipped } = sorted;
        let already: Vec<(Candidate, Value)> =
            already.into_iter().map(|one| (one, json!({ "outcome": "already" }))).collect();
        self.ended_at_once(moving, already, results).await?;
        self.after_flip_together(moving, flipped, results).await?;
        if moving.cancel.is_cancelled() {
            return self.let_go(moving, &ready, None, results).await;
        }

        let started = Instant::now();
        let mut quiet = Quiet::over(&self.applying, ready.iter().map(|one| one.mailbox).collect());
        let (ready, stakes) = self.check_together(moving, ready, started, results).await?;
        if ready.is_empty() {
            return Ok(());
        }
        failpoint::here("switch.checked");
        let place = self.holds.place().await?;
        let mut stake_of: HashMap<MailboxId, Value> =
            ready.iter().map(|one| one.mailbox).zip(stakes.iter().cloned()).collect();
        let since = Instant::now();
        let (ready, hold) = self.announce(moving, ready, stakes, started).await?;
        let numbers: Vec<MailboxId> = ready.iter().map(|one| one.mailbox).collect();
        begun.push((hold, numbers.clone()));
        if moving.cancel.is_cancelled() {
            return self.let_go(moving, &ready, Some(hold), results).await;
        }

        let (mut transaction, routes) = self.holds.lock(&numbers).await?;
        failpoint::here("switch.held");
        let held = Instant::now();
        let cut = door::cut(&self.pool, &numbers, Side::Primary).await?;
        failpoint::here("switch.cut");
        let was_cut = Instant::now();
        // The last moment: what somebody asked for by now counts, whether it was noticed already or not.
        if run::cancel_requested(&self.pool, moving.run.run_id).await? {
            drop(transaction);
            return self.let_go(moving, &ready, Some(hold), results).await;
        }
        self.headroom(&ready).await?;
        let mut as_read: HashMap<MailboxId, Epoch> = ready.iter().map(|one| (one.mailbox, one.epoch)).collect();
        // The primary spoke after all, or the standby is not done with what came before: that is first, by itself.
        let at_work = quiet.stop(STOPPING).await;
        let swapping = continuity::swapping_in(&self.pool, &numbers).await?;
        for mailbox in rows::lagging(&self.pool, &numbers).await?.into_iter().chain(at_work).chain(swapping) {
            as_read.remove(&mailbox);
        }
        let meant: Vec<(MailboxId, Epoch)> = routes
            .iter()
            .filter(|route| route.side == Side::Primary && as_read.get(&route.mailbox) == Some(&route.epoch))
            .map(|route| (route.mailbox, route.epoch))
            .collect();
        let run = moving.run.run_id;
        let flipped = rows::flip(&mut transaction, run, Side::Standby, &meant, SWEEP.as_secs_f64()).await?;
        if self.is_time_to_tell(moving) {
            link::directives_changed(&mut transaction).await?;
        }
        let away = since.elapsed();
        step::end(&mut *transaction, run, hold, &numbers, "done").await?;
        let ago = |began: Instant, ended: Instant| Ago {
            began: began.elapsed().as_secs_f64(),
            ended: ended.elapsed().as_secs_f64(),
        };
        step::taken(&mut transaction, run, "cut", ago(held, was_cut), &numbers, &vec![cut; numbers.len()]).await?;
        let told = format!("away for {} ms", away.as_millis());
        let now = Instant::now();
        step::taken(&mut transaction, run, "flip", ago(was_cut, now), &flipped, &vec![told; flipped.len()]).await?;
        let release = step::begin(&mut transaction, run, "release", &flipped).await?;
        failpoint::here("switch.flipping");
        transaction.commit().await?;
        begun.push((release, flipped.clone()));
        failpoint::here("switch.flipped");
        drop(place);
        let away = since.elapsed();
        for (name, began, ended) in [("hold", since, held), ("cut", held, was_cut), ("flip", was_cut, now)] {
            counted(name, ended.duration_since(began), flipped.len());
        }

        let released = Instant::now();
        door::cut_left_behind(&self.pool, &flipped, Side::Primary).await?;
        failpoint::here("switch.released");
        counted("release", released.elapsed(), flipped.len());
        let addresses: HashMap<MailboxId, String> = ready.into_iter().map(|one| (one.mailbox, one.address)).collect();
        let ends = flipped.iter().map(|mailbox| {
            let stake = stake_of.remove(mailbox).unwrap_or_default();
            let end = json!({
                "outcome": "done",
                "rpo_seconds": stake["unseen_seconds"],
                "rto_seconds": away.as_secs_f64(),
                "lost_transactions": stake["not_applied"],
                "stake": stake,
                "address": addresses.get(mailbox),
            });
            (*mailbox, end)
        });
        let ends: Vec<(MailboxId, Value)> = ends.collect();
        let mut db = self.pool.begin().await?;
        step::end(&mut *db, run, release, &flipped, RELEASED).await?;
        rows::end(&mut *db, run, &ends).await?;
        db.commit().await?;
        results.extend(ends);
        Ok(())
    }

    /// Notes that these cannot be moved, and why.
    async fn refuse(
        &self,
        moving: &Moving<'_>,
        refused: Vec<(Candidate, Value)>,
        started: Instant,
        results: &mut Results,
    ) -> Result<(), Stop> {
        let run = moving.run.run_id;
        let told = |value: &Value| format!("failed: {}", value["reason"].as_str().unwrap_or_default());
        let outcomes: HashMap<MailboxId, String> =
            refused.iter().map(|(one, value)| (one.mailbox, told(value))).collect();
        let (from_before, numbers) = (
            refused
                .iter()
                .filter(|(one, _)| one.phase == "switching_over")
                .map(|(one, _)| one.mailbox)
                .collect::<Vec<_>>(),
            refused.iter().map(|(one, _)| (one.mailbox, one.epoch)).collect::<Vec<_>>(),
        );
        let mut db = self.pool.begin().await?;
        let taken = rows::claim(&mut db, run, &numbers, &vec![json!({}); numbers.len()]).await?;
        let outcomes: Vec<String> = taken.iter().map(|mailbox| outcomes[mailbox].clone()).collect();
        let ago = Ago { began: started.elapsed().as_secs_f64(), ended: 0.0 };
        step::taken(&mut db, run, "check", ago, &taken, &outcomes).await?;
        db.commit().await?;
        if !from_before.is_empty() {
            // Held before the program was interrupted.
            route::release(&self.pool, &from_before).await?;
            let mut db = self.pool.begin().await?;
            rows::set_phase(&mut db, &from_before, &["switching_over"], "mirroring", run).await?;
            db.commit().await?;
        }
        let taken: HashSet<MailboxId> = taken.into_iter().collect();
        let refused = refused.into_iter().filter(|(one, _)| taken.contains(&one.mailbox)).collect();
        self.ended_at_once(moving, refused, results).await
    }

    /// Notes what became of mailboxes for which nothing is to be done.
    async fn ended_at_once(
        &self,
        moving: &Moving<'_>,
        ended: Vec<(Candidate, Value)>,
        results: &mut Results,
    ) -> Result<(), Stop> {
        if ended.is_empty() {
            return Ok(());
        }
        let run = moving.run.run_id;
        let mut values: HashMap<MailboxId, Value> =
            ended.iter().map(|(one, value)| (one.mailbox, with_address(value.clone(), &one.address))).collect();
        let numbers: Vec<(MailboxId, Epoch)> = ended.iter().map(|(one, _)| (one.mailbox, one.epoch)).collect();
        let mut db = self.pool.begin().await?;
        let taken = rows::claim(&mut db, run, &numbers, &vec![json!({}); numbers.len()]).await?;
        let ends: Vec<(MailboxId, Value)> =
            taken.into_iter().filter_map(|mailbox| Some((mailbox, values.remove(&mailbox)?))).collect();
        rows::end(&mut *db, run, &ends).await?;
        db.commit().await?;
        results.extend(ends);
        Ok(())
    }

    /// Takes these mailboxes for the run and announces that their log-ins wait. Gives those that are its to move, and their step.
    async fn announce(
        &self,
        moving: &Moving<'_>,
        mut ready: Vec<Candidate>,
        stakes: Vec<Value>,
        started: Instant,
    ) -> Result<(Vec<Candidate>, step::Begun), Stop> {
        let run = moving.run.run_id;
        let numbers: Vec<(MailboxId, Epoch)> = ready.iter().map(|one| (one.mailbox, one.epoch)).collect();
        let told: HashMap<MailboxId, String> = ready
            .iter()
            .zip(&stakes)
            .map(|(one, stake)| (one.mailbox, stake["told"].as_str().unwrap_or_default().to_owned()))
            .collect();
        let stakes: Vec<Value> = stakes.into_iter().map(|stake| json!({ "stake": stake })).collect();
        let mut db = self.pool.begin().await?;
        let taken: HashSet<MailboxId> = rows::claim(&mut db, run, &numbers, &stakes).await?.into_iter().collect();
        ready.retain(|one| taken.contains(&one.mailbox));
        let numbers: Vec<MailboxId> = ready.iter().map(|one| one.mailbox).collect();
        rows::set_phase(&mut db, &numbers, &["seeding", "mirroring"], "switching_over", run).await?;
        route::announce_hold(&mut *db, &numbers).await?;
        let outcomes: Vec<String> = numbers.iter().map(|mailbox| told[mailbox].clone()).collect();
        let ago = Ago { began: started.elapsed().as_secs_f64(), ended: 0.0 };
        step::taken(&mut db, run, "check", ago, &numbers, &outcomes).await?;
        let hold = step::begin(&mut db, run, "hold", &numbers).await?;
        db.commit().await?;
        Ok((ready, hold))
    }

    /// Somebody wants the run to stop: these stay where they are.
    async fn let_go(
        &self,
        moving: &Moving<'_>,
        ready: &[Candidate],
        hold: Option<step::Begun>,
        results: &mut Results,
    ) -> Result<(), Stop> {
        let run = moving.run.run_id;
        let numbers: Vec<MailboxId> = ready.iter().map(|one| one.mailbox).collect();
        route::release(&self.pool, &numbers).await?;
        let mut db = self.pool.begin().await?;
        for (phase, is_of) in [("seeding", true), ("mirroring", false)] {
            let of_phase = ready.iter().filter(|one| (one.phase == "seeding") == is_of);
            let numbers: Vec<MailboxId> = of_phase.map(|one| one.mailbox).collect();
            rows::set_phase(&mut db, &numbers, &["switching_over"], phase, run).await?;
        }
        if let Some(hold) = hold {
            step::end(&mut *db, run, hold, &numbers, "cancelled").await?;
        }
        db.commit().await?;
        let ended = ready.iter().map(|one| (one.clone(), json!({ "outcome": "cancelled" }))).collect();
        self.ended_at_once(moving, ended, results).await
    }

    /// Skips UIDs on the standbys of these mailboxes.
    async fn headroom(&self, ready: &[Candidate]) -> Result<(), Stop> {
        let mut by_standby: BTreeMap<i64, HashMap<MailboxId, &str>> = BTreeMap::new();
        for one in ready {
            by_standby.entry(one.standby).or_default().insert(one.mailbox, &one.standby_address);
        }
        for (number, mailboxes) in by_standby {
            if let Some(standby) = self.server_of(number).await? {
                headroom::raise_together(&self.pool, &standby, &mailboxes).await;
            }
        }
        Ok(())
    }

    /// The side of these was changed before the program was interrupted: whatever was left undone after that.
    async fn after_flip_together(
        &self,
        moving: &Moving<'_>,
        flipped: Vec<Candidate>,
        results: &mut Results,
    ) -> Result<(), Stop> {
        if flipped.is_empty() {
            return Ok(());
        }
        let run = moving.run.run_id;
        let numbers: Vec<MailboxId> = flipped.iter().map(|one| one.mailbox).collect();
        let behind: HashSet<MailboxId> =
            step::behind(&self.pool, run, "release", &numbers).await?.into_iter().collect();
        let left: Vec<MailboxId> = numbers.iter().copied().filter(|mailbox| !behind.contains(mailbox)).collect();
        if !left.is_empty() {
            let mut db = self.pool.acquire().await?;
            let release = step::begin(&mut db, run, "release", &left).await?;
            drop(db);
            door::cut_left_behind(&self.pool, &left, Side::Primary).await?;
            failpoint::here("switch.released");
            step::end(&self.pool, run, release, &left, RELEASED).await?;
        }
        let ends: Vec<(MailboxId, Value)> = flipped
            .into_iter()
            .map(|one| {
                let mut detail = one.ours.map(|ours| ours.detail).unwrap_or_default();
                detail["outcome"] = json!("done");
                (one.mailbox, with_address(detail, &one.address))
            })
            .collect();
        rows::end(&self.pool, run, &ends).await?;
        results.extend(ends);
        Ok(())
    }

    /// Was the source gateway not told for a while? It is told of everybody at the end, and of everything when it asks anew.
    fn is_time_to_tell(&self, moving: &Moving<'_>) -> bool {
        let mut told = moving.found.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|at| at.elapsed() >= TELLING);
        if due {
            *told = Some(Instant::now());
        }
        due
    }
}

fn with_address(mut value: Value, address: &str) -> Value {
    value["address"] = json!(address);
    value
}

fn counted(step: &'static str, took: Duration, mailboxes: usize) {
    metrics::histogram!("understudy_switch_seconds", "step" => step).record_many(took.as_secs_f64(), mailboxes);
}
