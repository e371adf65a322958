//! What is done about a primary that is down, and about one that is back.

use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::Instant;
use understudy_database::health::{self, Group, Movable};
use understudy_health::{
    decide::{Decision, Fence, Restart, Situation, decide},
    verdict::{Judgement, RECOVERY, Verdict, Vote},
};
use understudy_protocol::{
    policy::{Automatic, Switchback},
    words::counted,
};
use uuid::Uuid;

use super::{Watch, rules};

/// A standby that was not found to answer within this is not there.
const STANDBY_FRESH: Duration = Duration::from_secs(10);
/// How often it is asked again what can be moved while an outage lasts.
const LOOK: Duration = Duration::from_secs(2);
/// How often mailboxes are tried to be brought home by themselves.
const HOME_EVERY: Duration = Duration::from_secs(600);

/// One outage of a primary, for the mailboxes of one policy.
#[derive(Default)]
pub(super) struct Outage {
    /// While it lasts.
    is_on: bool,
    looked: Option<Instant>,
    restarted: Option<Instant>,
    attempted: Option<Instant>,
    /// What was last told to people.
    told: Option<Value>,
    brought_home: Option<Instant>,
}

impl Watch {
    /// Does what the policy of a group says about its primary.
    pub(super) async fn consider(&mut self, group: &Group) -> understudy_database::Result<()> {
        let now = self.now();
        let judged = self.observed.judge(&group.server, &rules(&group.policy), now);
        let key = (group.server_id, group.tenant.0, group.policy_name.clone());
        if judged.verdict != Verdict::Down {
            let outage = self.outages.entry(key).or_default();
            if judged.verdict == Verdict::Up && outage.is_on {
                let told = outage.told.is_some();
                *outage = Outage::default();
                if told {
                    let detail = json!({ "server": group.server, "policy": group.policy_name });
                    health::tell(&self.pool, group.tenant, "outage_over", &detail).await?;
                }
            }
            return self.consider_return(group).await;
        }
        let outage = self.outages.entry(key.clone()).or_default();
        outage.is_on = true;
        if group.policy.switchover == Automatic::Off || outage.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        outage.looked = Some(Instant::now());
        let mut db = self.pool.begin().await?;
        understudy_database::switch::lock_requests(&mut db).await?;
        let movable = health::movable(&mut db, group).await?;
        let decision = decide(&self.situation(group, &judged, &movable, &key));
        let count = movable.mailboxes.len();
        let Some(outage) = self.outages.get_mut(&key) else { return Ok(()) };
        let said = match &decision {
            Decision::Nothing => return Ok(()),
            Decision::Wait(why) => json!({ "decision": "wait", "why": why }),
            Decision::Refused { reason, remedy } => json!({ "decision": "refused", "why": reason, "remedy": remedy }),
            Decision::Restart => json!({ "decision": "restart" }),
            Decision::Switch => json!({ "decision": "switch" }),
            Decision::WouldRestart => json!({ "decision": "would_restart" }),
            Decision::WouldSwitch => json!({ "decision": "would_switch" }),
        };
        let mut run = None;
        match decision {
            Decision::Restart | Decision::WouldRestart => outage.restarted = Some(Instant::now()),
            Decision::Switch => {
                let request =
                    json!({ "mode": "emergency", "max_loss": group.policy.max_loss, "primary_down": group.server });
                let reason = format!("{} is down: {}", group.server, judged.reason);
                let begun = health::begin(&mut db, group, "switchover", &movable.mailboxes, request, &reason).await?;
                outage.attempted = Some(Instant::now());
                run = Some(begun.run_id);
            }
            Decision::WouldSwitch => outage.attempted = Some(Instant::now()),
            _ => {}
        }
        if outage.told.as_ref() != Some(&said) {
            outage.told = Some(said.clone());
            let mut detail = said;
            detail["server"] = json!(group.server);
            detail["policy"] = json!(group.policy_name);
            detail["mailboxes"] = json!(count);
            detail["reason"] = json!(told(group, &detail, &judged.reason, count));
            detail["run"] = json!(run);
            detail["votes"] = votes(&judged);
            // A person hears of what is done or refused, not of every pause before it.
            let kind = if detail["decision"] == "wait" { "outage" } else { "verdict" };
            health::tell(&mut *db, group.tenant, kind, &detail).await?;
            tracing::warn!(server.name = group.server, policy = group.policy_name, mailboxes = count,
                decision = %detail["decision"], reason = judged.reason, "A primary is down");
        }
        db.commit().await?;
        if decision == Decision::Restart {
            self.restart(group, &judged);
        }
        Ok(())
    }

    fn situation(&self, group: &Group, judged: &Judgement, movable: &Movable, key: &(i64, i64, String)) -> Situation {
        let now = self.now();
        let outage = self.outages.get(key);
        let is_down = |standby: &&String| {
            let good = self.observed.last_good(standby, RECOVERY);
            self.observed.is_suspect(standby, RECOVERY) && good.is_none_or(|at| now.saturating_sub(at) > TWITCH)
                || good.is_none_or(|at| now.saturating_sub(at) > STANDBY_FRESH)
        };
        let fence = self.fences.get(&group.server).map_or_else(
            || {
                Fence::Unknown(format!(
                    "nobody has tried yet whether users reach {} past the front doors",
                    group.server
                ))
            },
            |tried| tried.fence.clone(),
        );
        let restart = match (&group.policy.restart, outage.and_then(|outage| outage.restarted)) {
            (None, _) => Restart::None,
            (Some(_), None) => Restart::Untried,
            (Some(restart), Some(at)) => Restart::Tried {
                ago: at.elapsed(),
                patience: Duration::try_from_secs_f64(restart.wait_seconds).unwrap_or_default(),
            },
        };
        Situation {
            automatic: group.policy.switchover,
            verdict: judged.verdict,
            in_maintenance: group.policy.in_maintenance(Utc::now()),
            movable: movable.mailboxes.len(),
            held_down: usize::try_from(movable.held_down).unwrap_or_default(),
            standbys_down: movable.standbys.iter().filter(is_down).cloned().collect(),
            fence,
            restart,
            attempted: outage.and_then(|outage| outage.attempted).map(|at| at.elapsed()),
            is_moving: movable.is_moving,
        }
    }

    /// Lets the operator's own attempt to get the primary back be made.
    fn restart(&self, group: &Group, judged: &Judgement) {
        let Some(restart) = group.policy.restart.clone() else { return };
        let (hooks, pool, tenant, server) = (self.hooks.clone(), self.pool.clone(), group.tenant, group.server.clone());
        let what =
            json!({ "event": "restart", "server": server, "policy": group.policy_name, "reason": judged.reason });
        tokio::spawn(async move {
            let called = hooks.call(&restart.hook, &Uuid::now_v7().to_string(), &what).await;
            let (done, said) = match called {
                Ok(said) => (true, said),
                Err(why) => (false, why),
            };
            tracing::info!(server.name = server, hook = restart.hook.name(), done, "Tried to restart a primary");
            let detail = json!({ "server": server, "hook": restart.hook.name(), "done": done, "said": said });
            if let Err(error) = health::tell(&pool, tenant, "restart_tried", &detail).await {
                tracing::warn!(error = %error, "Could not note what came of a restart");
            }
        });
    }

    /// Brings home what was moved by itself, where that is wanted.
    async fn consider_return(&mut self, group: &Group) -> understudy_database::Result<()> {
        if group.policy.switchback != Switchback::On || group.policy.in_maintenance(Utc::now()) {
            return Ok(());
        }
        let hold_down = Duration::try_from_secs_f64(group.policy.hold_down_seconds).unwrap_or_default();
        let now = self.now();
        if self.up_since.get(&group.server).is_none_or(|since| now.saturating_sub(*since) < hold_down) {
            return Ok(());
        }
        let key = (group.server_id, group.tenant.0, group.policy_name.clone());
        let outage = self.outages.entry(key).or_default();
        let pause = HOME_EVERY.min(hold_down.max(LOOK));
        if outage.brought_home.is_some_and(|at| at.elapsed() < pause) {
            return Ok(());
        }
        outage.brought_home = Some(Instant::now());
        let mut db = self.pool.begin().await?;
        understudy_database::switch::lock_requests(&mut db).await?;
        let mailboxes = health::returnable(&mut *db, group).await?;
        if !mailboxes.is_empty() {
            let reason = format!("{} has answered again for {} s", group.server, hold_down.as_secs());
            health::begin(&mut db, group, "switchback", &mailboxes, json!({ "dry_run": false }), &reason).await?;
        }
        db.commit().await?;
        Ok(())
    }
}

/// One look at a standby that failed is no reason yet.
const TWITCH: Duration = Duration::from_secs(3);

/// One sentence for people.
fn told(group: &Group, said: &Value, why: &str, mailboxes: usize) -> String {
    let (server, policy) = (&group.server, &group.policy_name);
    let (are, would_be) =
        if mailboxes == 1 { ("is moved to its standby", "is") } else { ("are moved to their standbys", "are") };
    let mailboxes = counted(mailboxes, "mailbox", "mailboxes");
    match said["decision"].as_str().unwrap_or_default() {
        "switch" => {
            format!("{server} is down ({why}): {mailboxes} of policy {policy} {are}")
        }
        "would_switch" => {
            format!(
                "{server} is down ({why}): {mailboxes} of policy {policy} would be moved, and {would_be} not, since it only watches"
            )
        }
        "restart" => format!("{server} is down ({why}): its restart is tried first"),
        "would_restart" => format!(
            "{server} is down ({why}): its restart would be tried first, and is not, since policy {policy} only watches"
        ),
        "refused" => {
            format!("{server} is down ({why}), and nobody is moved: {}", said["why"].as_str().unwrap_or_default())
        }
        _ => format!("{server} is down ({why}): {}", said["why"].as_str().unwrap_or_default()),
    }
}

fn votes(judged: &Judgement) -> Value {
    let told = |vote: &Vote| match vote {
        Vote::Up => "up".to_owned(),
        Vote::Down(why) => format!("down: {why}"),
        Vote::Unsure => "unsure".to_owned(),
        Vote::Silent => "silent".to_owned(),
    };
    judged.votes.iter().map(|(observer, vote)| (observer.clone(), json!(told(vote)))).collect()
}
