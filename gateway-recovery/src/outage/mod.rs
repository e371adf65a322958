//! Watches every mail server, and does what policies say when one is down.
//!
//! In: looks of this gateway, of the source gateway (with its heartbeats) and of witnesses (rows of `vote`); policies. Out: what is
//! shown of each server's health, runs that nobody asked for, and events that say what was or would have been done.
//! Keeps true: time is what a monotonic clock says; what is decided is decided by `understudy_health`, which does no I/O.

mod act;
pub(crate) mod fence;
mod minutes;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use understudy_database::health::{self, Group, Watched};
use understudy_health::{
    decide::Fence,
    looking::{Found, Lookers, Target},
    verdict::{Judgement, Kind, Observation, Observed, Outcome, RECOVERY, Rules, SOURCE, Verdict, Vote},
};
use understudy_protocol::{
    messages::{Look, LookOutcome},
    policy::{Automatic, Policy},
};

use self::{act::Outage, minutes::Minutes};
use crate::hooks::Hooks;

/// How often everything is judged.
const TICK: Duration = Duration::from_millis(500);
/// How often it is asked which servers and policies there are.
const REFRESH: Duration = Duration::from_secs(5);
/// How often what was found is written down.
const WRITE: Duration = Duration::from_secs(10);
/// How often what is too old is forgotten.
const FORGET: Duration = Duration::from_secs(3600);
/// How often it is tried whether users reach a primary past the front doors.
const FENCE_EVERY: Duration = Duration::from_secs(600);
/// Looks waiting to be taken note of.
const WAITING: usize = 1024;

/// Takes what the source gateway found. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Looks(mpsc::Sender<(&'static str, Found)>);

impl Looks {
    /// What came with a heartbeat. When too much waits, some is forgotten: it is said again.
    pub(crate) fn heard(&self, looks: &[Look]) {
        for look in looks {
            let outcome = match &look.outcome {
                LookOutcome::Good => Outcome::Good,
                LookOutcome::Bad(why) => Outcome::Bad(why.clone()),
                LookOutcome::Unknown(why) => Outcome::Unknown(why.clone()),
            };
            let kind = if look.deep { Kind::Deep } else { Kind::Quick };
            let took = Duration::try_from_secs_f64(look.seconds).unwrap_or_default();
            let _ = self.0.try_send((SOURCE, (look.server.clone(), Observation { kind, outcome, took })));
        }
    }
}

/// What was last found when a fence was tried.
#[derive(Clone, Debug)]
struct Tried {
    fence: Fence,
    /// As it was tried.
    server: understudy_protocol::server::Server,
    at: Option<Instant>,
    shown: Value,
}

/// Both ends of a channel.
type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// The task that watches.
pub(crate) struct Watch {
    pool: PgPool,
    hooks: Hooks,
    heard: mpsc::Receiver<(&'static str, Found)>,
    looks: mpsc::Sender<(&'static str, Found)>,
    observed: Observed,
    minutes: Minutes,
    servers: Vec<Watched>,
    groups: Vec<Group>,
    outages: HashMap<(i64, i64, String), Outage>,
    fences: HashMap<String, Tried>,
    fence_found: Channel<(String, Tried)>,
    /// Since when each server has been found up.
    up_since: HashMap<String, Duration>,
    shown: HashMap<i64, Value>,
    last_vote: i64,
    started: Instant,
}

impl Watch {
    pub(crate) fn new(pool: PgPool, hooks: Hooks) -> Self {
        let (looks, heard) = mpsc::channel(WAITING);
        Self {
            pool,
            hooks,
            heard,
            looks,
            observed: Observed::default(),
            minutes: Minutes::default(),
            servers: Vec::new(),
            groups: Vec::new(),
            outages: HashMap::new(),
            fences: HashMap::new(),
            fence_found: mpsc::channel(WAITING),
            up_since: HashMap::new(),
            shown: HashMap::new(),
            last_vote: 0,
            started: Instant::now(),
        }
    }

    /// Where the source gateway's looks go.
    pub(crate) fn looks(&self) -> Looks {
        Looks(self.looks.clone())
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut own) = mpsc::channel(WAITING);
        let mut lookers = Lookers::new(sender);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Due::default();
        let mut failed = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some((observer, found)) = self.heard.recv() => self.note(observer, found),
                Some(found) = own.recv() => self.note(RECOVERY, found),
                Some((server, tried)) = self.fence_found.1.recv() => {
                    self.fences.insert(server, tried);
                }
                _ = ticks.tick() => {
                    let ticked = self.tick(&mut lookers, &mut due).await;
                    if let Err(error) = &ticked && !failed {
                        tracing::warn!(error = %error, "Could not judge the mail servers: the recovery site's database does not answer");
                    }
                    failed = ticked.is_err();
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn note(&mut self, observer: &str, (server, observation): Found) {
        let now = self.now();
        self.observed.note(now, &server, observer, &observation);
        let Some(watched) = self.servers.iter().find(|watched| watched.server.name == server) else { return };
        self.minutes.add(watched.server_id, observer, &observation);
        if observer == RECOVERY {
            let check = minutes::kind(observation.kind);
            let labels = [("server", server), ("check", check.to_owned())];
            metrics::histogram!("understudy_health_check_seconds", &labels).record(observation.took.as_secs_f64());
            let up = if matches!(observation.outcome, Outcome::Bad(_)) { 0.0 } else { 1.0 };
            metrics::gauge!("understudy_health_up", &labels).set(up);
        }
    }

    async fn tick(&mut self, lookers: &mut Lookers, due: &mut Due) -> understudy_database::Result<()> {
        self.observed.tick(self.now());
        if due.refresh.is_due(REFRESH) {
            self.refresh(lookers).await?;
        }
        for vote in health::votes_after(&self.pool, self.last_vote).await? {
            self.last_vote = self.last_vote.max(vote.vote_id);
            let outcome = if vote.is_up { Outcome::Good } else { Outcome::Bad(vote.reason) };
            let took = Duration::try_from_secs_f64(vote.seconds).unwrap_or_default();
            self.note(&vote.observer, (vote.server, Observation { kind: Kind::Quick, outcome, took }));
        }
        self.show().await?;
        for group in self.groups.clone() {
            self.consider(&group).await?;
        }
        if due.write.is_due(WRITE) {
            let minutes = self.minutes.take();
            if !minutes.is_empty() {
                health::add_minutes(&self.pool, &minutes).await?;
            }
        }
        if due.forget.is_due(FORGET) {
            health::forget_old(&mut *self.pool.acquire().await?).await?;
        }
        Ok(())
    }

    /// Which servers and policies there are now.
    async fn refresh(&mut self, lookers: &mut Lookers) -> understudy_database::Result<()> {
        self.servers = health::watched(&self.pool).await?;
        self.groups = health::groups(&self.pool).await?;
        self.groups.retain(|group| group.policy.problems().is_empty());
        let (standbys, primaries): (Vec<_>, Vec<_>) =
            self.servers.iter().partition(|watched| health::is_standby(&watched.server));
        let names = |all: &[&Watched]| -> Vec<String> { all.iter().map(|one| one.server.name.clone()).collect() };
        self.observed.keep(&names(&primaries), &names(&standbys));
        let target = |watched: &Watched| Target::new(watched.server.clone(), watched.mailbox.clone());
        lookers.follow(self.servers.iter().map(target).collect());
        self.up_since.retain(|name, _| self.servers.iter().any(|watched| watched.server.name == *name));
        let groups = &self.groups;
        self.outages.retain(|(server_id, tenant, policy), _| {
            let is = |group: &Group| {
                (group.server_id, group.tenant.0, group.policy_name.as_str()) == (*server_id, *tenant, policy.as_str())
            };
            groups.iter().any(is)
        });
        self.try_fences();
        Ok(())
    }

    /// Tries fences that were not tried lately, of primaries that answer and have a canary or may be left by themselves.
    fn try_fences(&mut self) {
        let wanted = |watched: &&Watched| {
            let is_group =
                |group: &Group| group.server_id == watched.server_id && group.policy.switchover != Automatic::Off;
            let canary = watched.server.canary.as_ref().filter(|_| !health::is_standby(&watched.server));
            canary.is_some_and(|canary| canary.password_file.is_some()) || self.groups.iter().any(is_group)
        };
        let wanted: Vec<Watched> = self.servers.iter().filter(wanted).cloned().collect();
        for watched in wanted {
            let name = watched.server.name.clone();
            let known = self.fences.entry(name.clone()).or_insert_with(|| restored(&watched));
            let is_new = known.server != watched.server;
            let settled = if matches!(known.fence, Fence::Holds(_)) { FENCE_EVERY } else { REFRESH * 4 };
            if !is_new && known.at.is_some_and(|at| at.elapsed() < settled) {
                continue;
            }
            if self.observed.last_good(&name, RECOVERY).is_none() || self.observed.is_suspect(&name, RECOVERY) {
                continue;
            }
            known.at = Some(Instant::now());
            known.server = watched.server.clone();
            let (found, pool) = (self.fence_found.0.clone(), self.pool.clone());
            tokio::spawn(async move {
                let fence = fence::tried(&pool, watched.server_id, &watched.server).await;
                let shown = fence::shown(&fence);
                let tried = Tried { fence, server: watched.server, at: Some(Instant::now()), shown };
                let _ = found.send((name, tried)).await;
            });
        }
    }

    /// Judges every server for people, and writes down what changed.
    async fn show(&mut self) -> understudy_database::Result<()> {
        let now = self.now();
        for watched in &self.servers {
            let name = &watched.server.name;
            let strictest = self.groups.iter().filter(|group| group.server_id == watched.server_id);
            let strictest = strictest.min_by(|a, b| a.policy.threshold_seconds.total_cmp(&b.policy.threshold_seconds));
            let mut rules = strictest.map_or_else(|| rules(&Policy::default()), |group| rules(&group.policy));
            if health::is_standby(&watched.server) {
                // Nobody but this gateway looks at standbys.
                rules.quorum = 1;
            }
            let judged = self.observed.judge(name, &rules, now);
            if judged.verdict == Verdict::Up {
                self.up_since.entry(name.clone()).or_insert(now);
            } else {
                self.up_since.remove(name);
            }
            let fence = self.fences.get(name).map(|tried| tried.shown.clone());
            let shown = shown(&judged, fence);
            let before = self.shown.get(&watched.server_id).or(watched.health.as_ref());
            let same =
                before.is_some_and(|before| ["verdict", "votes", "fence"].iter().all(|key| before[key] == shown[key]));
            if same {
                continue;
            }
            let verdict_changed = before.is_none_or(|before| before["verdict"] != shown["verdict"]);
            let mut shown = shown;
            let since = before.filter(|_| !verdict_changed).map(|before| before["since"].clone());
            shown["since"] = since.unwrap_or_else(|| json!(Utc::now()));
            let had = before.is_some();
            health::set_health(&self.pool, watched.server_id, &shown).await?;
            if verdict_changed && (had || judged.verdict != Verdict::Up) {
                // A person hears of an outage; the rest is for who looks.
                let kind = if judged.verdict == Verdict::Down { "verdict" } else { "health" };
                let detail = json!({
                    "server": name, "verdict": shown["verdict"], "reason": format!("{name} is {}: {}", shown["verdict"].as_str().unwrap_or_default(), judged.reason),
                    "remedy": format!("See what was found: `understudy server health {name}`."), "votes": shown["votes"],
                });
                health::tell(&self.pool, watched.tenant, kind, &detail).await?;
            }
            self.shown.insert(watched.server_id, shown);
        }
        Ok(())
    }
}

/// When a policy finds a server down.
fn rules(policy: &Policy) -> Rules {
    Rules {
        threshold: Duration::try_from_secs_f64(policy.threshold_seconds).unwrap_or(Duration::from_secs(15)),
        quorum: policy.quorum as usize,
        degradation: policy.degradation,
    }
}

fn shown(judged: &Judgement, fence: Option<Value>) -> Value {
    let verdict = match judged.verdict {
        Verdict::Up => "up",
        Verdict::Suspect => "suspect",
        Verdict::Down => "down",
    };
    let votes: BTreeMap<&String, &str> = judged
        .votes
        .iter()
        .map(|(observer, vote)| {
            let vote = match vote {
                Vote::Up => "up",
                Vote::Down(_) => "down",
                Vote::Unsure => "unsure",
                Vote::Silent => "silent",
            };
            (observer, vote)
        })
        .collect();
    json!({ "verdict": verdict, "reason": judged.reason, "votes": votes, "fence": fence })
}

/// What an earlier life of this process found out.
fn restored(watched: &Watched) -> Tried {
    let shown = watched.health.as_ref().map(|health| health["fence"].clone()).unwrap_or_default();
    let fence = fence::restored(&shown).unwrap_or_else(|| {
        Fence::Unknown(format!("nobody has tried yet whether users reach {} past the front doors", watched.server.name))
    });
    Tried { fence, server: watched.server.clone(), at: None, shown }
}

/// What is done now and then.
#[derive(Default)]
struct Due {
    refresh: Every,
    write: Every,
    forget: Every,
}

#[derive(Default)]
struct Every(Option<Instant>);

impl Every {
    /// Is it time, for what is done every so often? The first time always is.
    fn is_due(&mut self, every: Duration) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= every);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}
