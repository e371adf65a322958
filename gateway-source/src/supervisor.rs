//! Keeps one tail running for every mailbox the recovery site assigned, and talks to it all the while.
//!
//! In: directives. Out: heartbeats with reports; answers to what was asked.
//! Keeps true: the directives are complete, so what they do not name is stopped and forgotten. While they are not being followed no
//! heartbeat goes out, so a gateway that hangs is silent over there; and here it says at what it stands.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_database::{PgPool, source};
use understudy_protocol::{
    Digest, FolderPath, MailboxId, Seq, UidSet,
    messages::{
        Asked, Assignment, Directives, Heartbeat, Hello, LINK_VERSION, MailboxReport, Report, Reported, Request,
        Trouble, Unproven,
    },
    server::Server,
};
use understudy_replication::inventory::Wanted;
use uuid::Uuid;

use crate::{
    again, health, inquiry,
    link::{Link, TurnedAway},
    mailbox::Tools,
    measure,
    shipper::Dispute,
    tail::{BarrierAnswer, Tail},
};

/// The shared heartbeat of an idle link.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A mailbox whose primary has not answered for so long counts as unproven; a quiet one is asked every 30 s.
const UNPROVEN_AFTER: Duration = Duration::from_secs(45);
/// Reports are gathered this long before they are sent.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// The first wait after the link failed, …
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// … doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);
/// A mailbox about which the recovery site disagrees again pauses this long at first, …
const FIRST_DISPUTE_PAUSE: Duration = Duration::from_millis(500);
/// … doubled up to this.
const LONGEST_DISPUTE_PAUSE: Duration = Duration::from_secs(30);
/// What takes longer than this should, is said; and again after as long.
const SLOW: Duration = Duration::from_secs(20);
/// Log-ins under way at once, so that a start with many mailboxes is no storm on their servers.
const LOGINS: usize = 16;
/// Barriers of one mailbox that may wait for its next look.
const BARRIERS: usize = 64;

/// How every mailbox fares, until the recovery site has been told. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reports {
    shared: Arc<SharedReports>,
}

#[derive(Default)]
struct SharedReports {
    state: Mutex<ReportState>,
    news: Notify,
}

#[derive(Default)]
struct ReportState {
    unsent: HashMap<MailboxId, MailboxReport>,
    last: HashMap<MailboxId, MailboxReport>,
    /// What stands in the way of shipping, however well capturing goes.
    shipping: HashMap<MailboxId, Trouble>,
    /// When each primary last answered for its mailbox.
    proven: HashMap<MailboxId, Instant>,
    /// Mailboxes of which the log says that they are unproven.
    said: HashSet<MailboxId>,
}

impl Reports {
    pub(crate) fn put(&self, mut report: MailboxReport) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if report.trouble.is_none() {
            report.trouble = state.shipping.get(&report.mailbox).cloned();
        }
        state.last.insert(report.mailbox, report.clone());
        state.unsent.insert(report.mailbox, report);
        drop(state);
        self.shared.news.notify_one();
    }

    /// Something stands in the way of this mailbox.
    pub(crate) fn trouble(&self, mailbox: MailboxId, trouble: Trouble) {
        let last = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).last.get(&mailbox).cloned();
        let mut report = last.unwrap_or(MailboxReport {
            mailbox,
            captured: Seq(0),
            capability: String::new(),
            progress: understudy_protocol::messages::SeedProgress::default(),
            seeded: false,
            swept_at: None,
            trouble: None,
            unreadable: None,
        });
        report.trouble = Some(trouble);
        self.put(report);
    }

    /// Something stands in the way of shipping this mailbox, or no longer.
    pub(crate) fn shipping(&self, mailbox: MailboxId, trouble: Option<Trouble>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match trouble.clone() {
            Some(trouble) => state.shipping.insert(mailbox, trouble),
            None => state.shipping.remove(&mailbox),
        };
        if before.as_ref().map(|before| &before.kind) == trouble.as_ref().map(|trouble| &trouble.kind) {
            return;
        }
        let last = state.last.get(&mailbox).cloned();
        drop(state);
        match (last, trouble) {
            (Some(report), trouble) if report.trouble.is_none() || report.trouble == before => {
                self.put(MailboxReport { trouble, ..report });
            }
            (None, Some(trouble)) => self.trouble(mailbox, trouble),
            _ => {}
        }
    }

    /// The primary answered for this mailbox just now.
    pub(crate) fn prove(&self, mailbox: MailboxId) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.proven.insert(mailbox, Instant::now());
    }

    /// Nobody looks at this mailbox any more.
    fn unwatched(&self, mailbox: MailboxId) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).proven.remove(&mailbox);
    }

    /// Mailboxes of which nothing has been known for too long, and where that stopped. Each is said once while it lasts.
    fn unproven(&self) -> Vec<Unproven> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = state.proven.iter().filter(|(_, at)| at.elapsed() >= UNPROVEN_AFTER);
        let unproven: Vec<Unproven> = silent
            .map(|(&mailbox, at)| {
                let trouble = state.last.get(&mailbox).and_then(|report| report.trouble.as_ref());
                let ours = trouble.is_some_and(|trouble| trouble.kind == "internal");
                let place = if ours { "source_gateway" } else { "primary" }.to_owned();
                Unproven { mailbox, seconds: at.elapsed().as_secs(), place }
            })
            .collect();
        for Unproven { mailbox, seconds, place } in &unproven {
            if !state.said.contains(mailbox) {
                tracing::warn!(mailbox.id = %mailbox, place, "Nothing has been proven of this mailbox for {seconds} s");
            }
        }
        state.said = unproven.iter().map(|unproven| unproven.mailbox).collect();
        unproven
    }

    /// Everything a recovery gateway that has forgotten us must hear again.
    fn repeat(&self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = state.last.clone();
        for (mailbox, report) in last {
            state.unsent.entry(mailbox).or_insert(report);
        }
        drop(state);
        self.shared.news.notify_one();
    }

    fn forget(&self, mailbox: MailboxId) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.remove(&mailbox);
        state.shipping.remove(&mailbox);
        state.unsent.remove(&mailbox);
    }

    async fn news(&self) {
        self.shared.news.notified().await;
    }

    fn take(&self) -> Vec<MailboxReport> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.unsent).into_values().collect()
    }

    /// Could not be sent: newer ones win.
    fn put_back(&self, reports: Vec<MailboxReport>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports {
            state.unsent.entry(report.mailbox).or_insert(report);
        }
    }
}

/// Who this source gateway is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// This process life.
    pub(crate) gateway: Uuid,
    /// The database it works with, through all its lives.
    pub(crate) installation: Uuid,
}

/// What the recovery site wants of us.
enum Order {
    Follow {
        directives: Directives,
        /// Through where journals had been received before these directives were asked for; nothing on a link that lasts.
        received: HashMap<MailboxId, Seq>,
    },
    /// It listens to another source gateway: capture nothing, forget nothing.
    StandDown,
}

/// A running tail.
struct Running {
    assignment: Assignment,
    server: Server,
    barriers: mpsc::Sender<BarrierAnswer>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends the tail and waits until it has.
    async fn end(&mut self) {
        self.shutdown.cancel();
        let _ = saying("a mailbox to stop", &mut self.task).await;
    }
}

/// Owns every tail.
pub(crate) struct Supervisor {
    tools: Tools,
    mask: Vec<String>,
    logins: Arc<Semaphore>,
    reports: Reports,
    identity: Identity,
    running: HashMap<MailboxId, Running>,
    answering: HashSet<Uuid>,
    disputes: Disputes,
    tasks: TaskTracker,
}

impl Supervisor {
    pub(crate) fn new(tools: Tools, reports: Reports, mask: Vec<String>, identity: Identity) -> Self {
        Self {
            tools,
            mask,
            logins: Arc::new(Semaphore::new(LOGINS)),
            reports,
            identity,
            running: HashMap::new(),
            answering: HashSet::new(),
            disputes: Disputes::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs until `shutdown`, then stops every tail.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut orders) = mpsc::channel(1);
        let (targets, watched) = watch::channel(Vec::new());
        let link = &self.tools.link;
        let (pool, reports) = (self.tools.pool.clone(), self.reports.clone());
        let talking = tokio::spawn(listen(link.clone(), pool, self.identity, reports, sender, shutdown.clone()));
        let reporting =
            tokio::spawn(report(link.clone(), self.identity.gateway, self.reports.clone(), shutdown.clone()));
        let looking = tokio::spawn(health::run(link.clone(), self.identity.gateway, watched, shutdown.clone()));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                received = orders.recv() => match received {
                    Some(Order::Follow { directives, received }) => {
                        let _ = targets.send(health::targets(&directives));
                        self.follow(directives, &received, &shutdown).await;
                    }
                    Some(Order::StandDown) => self.stand_down().await,
                    None => break,
                },
                disputed = self.tools.shipper.disputed() => self.settle(disputed, &shutdown).await,
            }
        }
        for running in self.running.values() {
            running.shutdown.cancel();
        }
        for (_, mut running) in self.running.drain() {
            running.end().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        let _ = tokio::join!(talking, reporting, looking);
    }

    /// Makes what runs equal to what is wanted.
    async fn follow(
        &mut self,
        directives: Directives,
        received: &HashMap<MailboxId, Seq>,
        shutdown: &CancellationToken,
    ) {
        let servers: HashMap<&str, &Server> =
            directives.servers.iter().map(|server| (server.name.as_str(), server)).collect();
        let wanted: HashSet<MailboxId> = directives.mailboxes.iter().map(|assignment| assignment.mailbox).collect();
        let unwanted: Vec<MailboxId> = self.running.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for mailbox in unwanted {
            self.stop(mailbox).await;
        }
        if let Err(error) = saying("clearing away what is no longer protected", self.forget_unwanted(&wanted)).await {
            tracing::warn!(error = format!("{error:#}"), "Could not clear away what is no longer protected");
        }
        for assignment in directives.mailboxes {
            let Some(&server) = servers.get(assignment.server.as_str()) else { continue };
            // It was told us as received and is not: they have an old copy of their database. A tail compares when it begins.
            let is_lost = received.get(&assignment.mailbox).is_some_and(|&before| assignment.received < before);
            if is_lost {
                self.stop(assignment.mailbox).await;
            }
            self.keep(assignment, server.clone(), shutdown).await;
        }
        let open: HashSet<Uuid> = directives.requests.iter().map(|request| request.id).collect();
        self.answering.retain(|id| open.contains(id));
        for request in directives.requests {
            if self.answering.insert(request.id) {
                if let Asked::Recapture { mailbox, folders } = &request.what {
                    self.recapture(*mailbox, folders, shutdown).await;
                }
                self.answer(request, shutdown);
            }
        }
    }

    async fn forget_unwanted(&self, wanted: &HashSet<MailboxId>) -> anyhow::Result<()> {
        for mailbox in source::mailboxes(&self.tools.pool).await?.into_iter().filter(|id| !wanted.contains(id)) {
            let mut db = self.tools.pool.begin().await?;
            let files = source::forget(&mut db, mailbox).await?;
            db.commit().await?;
            self.tools.spool.remove(&files);
            self.reports.forget(mailbox);
        }
        Ok(())
    }

    /// Starts, restarts or leaves alone one mailbox's tail.
    async fn keep(&mut self, assignment: Assignment, server: Server, shutdown: &CancellationToken) {
        self.tools.shipper.rank(assignment.mailbox, assignment.priority);
        self.tools.turns.rank(assignment.mailbox, assignment.priority);
        if let Some(running) = self.running.get(&assignment.mailbox) {
            let same = running.server == server
                && running.assignment.epoch == assignment.epoch
                && running.assignment.attempt == assignment.attempt
                && running.assignment.address == assignment.address
                && !assignment.paused
                && !running.task.is_finished();
            if same {
                return;
            }
            self.stop(assignment.mailbox).await;
        }
        if !assignment.paused {
            self.start(assignment, server, shutdown);
        }
    }

    fn start(&mut self, assignment: Assignment, server: Server, shutdown: &CancellationToken) {
        self.start_after(Duration::ZERO, assignment, server, shutdown);
    }

    fn start_after(&mut self, pause: Duration, assignment: Assignment, server: Server, shutdown: &CancellationToken) {
        self.reports.prove(assignment.mailbox);
        let (barriers, asked) = mpsc::channel(BARRIERS);
        let shutdown = shutdown.child_token();
        let tail = Tail {
            tools: self.tools.clone(),
            reports: self.reports.clone(),
            mask: self.mask.clone(),
            logins: self.logins.clone(),
            assignment: assignment.clone(),
            server: server.clone(),
            barriers: asked,
            compared: false,
            pause,
        };
        let task = tokio::spawn(tail.run(shutdown.clone()));
        self.running.insert(assignment.mailbox, Running { assignment, server, barriers, shutdown, task });
    }

    async fn stop(&mut self, mailbox: MailboxId) {
        self.reports.unwatched(mailbox);
        if let Some(mut running) = self.running.remove(&mailbox) {
            running.end().await;
        }
    }

    /// Another source gateway does our work. What we captured stays, for when we are listened to again.
    async fn stand_down(&mut self) {
        let running: Vec<MailboxId> = self.running.keys().copied().collect();
        for mailbox in running {
            self.stop(mailbox).await;
        }
    }

    /// The recovery site disagrees about these journals: begin again from what it says.
    async fn settle(&mut self, disputed: Vec<Dispute>, shutdown: &CancellationToken) {
        for Dispute { mailbox, received, diverged } in disputed {
            if let Some(mut running) = self.running.remove(&mailbox) {
                running.end().await;
                if diverged && let Err(error) = source::distrust(&self.tools.pool, mailbox).await {
                    tracing::warn!(mailbox.id = %mailbox, error = %error, "Could not give up a journal that diverged");
                }
                // What was said of the transaction received last is of an earlier one.
                let assignment = Assignment { received, digest: Digest::default(), ..running.assignment };
                let pause = self.disputes.pause(mailbox, Instant::now());
                self.start_after(pause, assignment, running.server, shutdown);
            }
        }
    }

    /// Begins a mailbox anew without the memory of some messages: its next look finds them.
    async fn recapture(&mut self, mailbox: MailboxId, folders: &[(FolderPath, UidSet)], shutdown: &CancellationToken) {
        let Some(mut running) = self.running.remove(&mailbox) else { return };
        running.end().await;
        let forgotten = async {
            let mut db = self.tools.pool.begin().await?;
            for (path, uids) in folders {
                source::forget_messages(&mut db, mailbox, path, uids).await?;
            }
            db.commit().await?;
            anyhow::Ok(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(mailbox.id = %mailbox, error = format!("{error:#}"), "Could not forget what is to be captured again");
        }
        self.start(running.assignment, running.server, shutdown);
    }

    /// Answers a request in a task of its own.
    fn answer(&mut self, request: Request, shutdown: &CancellationToken) {
        let link = self.tools.link.clone();
        let shutdown = shutdown.clone();
        let running = match &request.what {
            Asked::Barrier { mailbox }
            | Asked::Inventory { mailbox, .. }
            | Asked::Recapture { mailbox, .. }
            | Asked::Content { mailbox, .. } => self.running.get(mailbox),
            Asked::Check { .. } | Asked::Discover { .. } | Asked::Measure { .. } => None,
        };
        let barriers = running.map(|running| running.barriers.clone());
        let subject = running.map(|running| (running.assignment.clone(), running.server.clone()));
        let mask = self.mask.clone();
        let (pool, spool) = (self.tools.pool.clone(), self.tools.spool.clone());
        self.tasks.spawn(async move {
            let work = async {
                let outcome = match request.what {
                    Asked::Barrier { .. } | Asked::Recapture { .. } => barrier(barriers).await,
                    Asked::Inventory { bodies, summary, only, .. } => match subject {
                        Some((assignment, server)) => {
                            let wanted = Wanted { bodies, summary, only, unreadable: Vec::new() };
                            inquiry::inventory(&pool, &link, request.id, &assignment, &server, wanted).await
                        }
                        None => Err(not_running()),
                    },
                    Asked::Content { path, uid, content, .. } => match subject {
                        Some((assignment, server)) => {
                            let wanted = again::Wanted { path, uid, content };
                            again::send(&spool, &link, request.id, &assignment, &server, wanted).await
                        }
                        None => Err(not_running()),
                    },
                    Asked::Check { server, address } => {
                        Ok(Reported::Check(inquiry::check(&server, address.as_deref(), &mask).await))
                    }
                    Asked::Discover { server } => inquiry::discover(&server).await,
                    Asked::Measure { server, addresses } => Ok(measure::measure(&server, addresses, &mask).await),
                };
                let report = Report { id: request.id, outcome };
                let mut backoff = FIRST_BACKOFF;
                while let Err(error) = link.report(&report).await {
                    tracing::warn!(error = format!("{error:#}"), "Could not report; trying again");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// Waits for something that should take moments, and says so while it does not.
async fn saying<D>(what: &'static str, work: impl Future<Output = D>) -> D {
    let (mut work, began) = (pin!(work), Instant::now());
    loop {
        match tokio::time::timeout(SLOW, &mut work).await {
            Ok(done) => return done,
            Err(_) => tracing::warn!(seconds = began.elapsed().as_secs(), "Still waiting for {what}"),
        }
    }
}

/// How often the recovery site disagreed about each mailbox lately.
#[derive(Default)]
struct Disputes(HashMap<MailboxId, (Instant, Duration)>);

impl Disputes {
    /// How long to wait before the mailbox begins again: not at all at first, then longer each time.
    fn pause(&mut self, mailbox: MailboxId, now: Instant) -> Duration {
        self.0.retain(|_, (until, _)| now.saturating_duration_since(*until) < LONGEST_DISPUTE_PAUSE * 2);
        let pause = self
            .0
            .get(&mailbox)
            .map_or(Duration::ZERO, |(_, pause)| (*pause * 2).clamp(FIRST_DISPUTE_PAUSE, LONGEST_DISPUTE_PAUSE));
        self.0.insert(mailbox, (now + pause, pause));
        pause
    }
}

async fn barrier(barriers: Option<mpsc::Sender<BarrierAnswer>>) -> Result<Reported, Trouble> {
    let barriers = barriers.ok_or_else(not_running)?;
    let (sender, answer) = oneshot::channel();
    barriers.send(sender).await.map_err(|_| not_running())?;
    answer.await.map(|captured| Reported::Barrier { captured }).map_err(|_| not_running())
}

fn not_running() -> Trouble {
    Trouble {
        kind: "not_running".to_owned(),
        reason: "nothing is captured from this mailbox just now: it is paused, or was only just protected".to_owned(),
        remedy: "Resume it, or try again in a moment.".to_owned(),
        fault: false,
    }
}

/// Holds a heartbeat open and passes on every new set of directives.
async fn listen(
    link: Link,
    pool: PgPool,
    identity: Identity,
    reports: Reports,
    sender: mpsc::Sender<Order>,
    shutdown: CancellationToken,
) {
    let mut backoff = FIRST_BACKOFF;
    let mut turned_away = false;
    let mut said = String::new();
    loop {
        let talked = tokio::select! {
            () = shutdown.cancelled() => return,
            talked = listen_once(&link, &pool, identity, &reports, &sender) => talked,
        };
        let Err((error, heard)) = talked else { return };
        if heard {
            backoff = FIRST_BACKOFF;
            turned_away = false;
            said.clear();
        }
        if error.is::<TurnedAway>() {
            // Said once, and asked again patiently: the other one may stop.
            if !std::mem::replace(&mut turned_away, true) {
                tracing::error!(error = format!("{error:#}"), "Standing down");
            }
            if sender.send(Order::StandDown).await.is_err() {
                return;
            }
            backoff = LONGEST_BACKOFF;
        } else {
            let error = format!("{error:#}");
            // Said once, however long it lasts.
            if said != error {
                tracing::warn!(error, "The link is down; trying again");
                said = error;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.mul_f64(rand::random_range(0.75..1.25))) => {}
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// From a greeting to the first error; the flag says whether anything was heard.
async fn listen_once(
    link: &Link,
    pool: &PgPool,
    Identity { gateway, installation }: Identity,
    reports: &Reports,
    sender: &mpsc::Sender<Order>,
) -> Result<(), (anyhow::Error, bool)> {
    let product_version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Hello { link_version: LINK_VERSION, gateway, installation, product_version };
    let welcome = link.hello(&hello).await.map_err(|error| (error, false))?;
    tracing::info!(link_version = welcome.link_version, "The link is up");
    reports.repeat();
    let mut received = source::received_through(pool).await.map_err(|error| (error.into(), true))?;
    let mut seen_version = 0;
    loop {
        let heartbeat = Heartbeat {
            gateway,
            sent_at: Utc::now(),
            wait_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            seen_version,
            mailboxes: Vec::new(),
            unproven: reports.unproven(),
            looks: Vec::new(),
            link: None,
        };
        let answered = saying("an answer to our heartbeat", link.heartbeat(&heartbeat)).await;
        let directives = answered.map_err(|error| (error, true))?;
        if directives.version != seen_version {
            seen_version = directives.version;
            let followed = sender.send(Order::Follow { directives, received: std::mem::take(&mut received) });
            if saying("earlier directives to be followed; no heartbeat goes out meanwhile", followed).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Sends reports soon after they are made.
async fn report(link: Link, gateway: Uuid, reports: Reports, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = reports.news() => {}
        }
        tokio::time::sleep(REPORT_PAUSE).await;
        let mailboxes = reports.take();
        if mailboxes.is_empty() {
            continue;
        }
        let heartbeat = Heartbeat { mailboxes, ..Heartbeat::news(gateway) };
        let sent = tokio::select! {
            () = shutdown.cancelled() => return,
            sent = link.heartbeat(&heartbeat) => sent,
        };
        if sent.is_err() {
            reports.put_back(heartbeat.mailboxes);
            // Nobody may have news for long: what failed is tried again all the same.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LONGEST_BACKOFF) => {}
            }
            reports.shared.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_disputed_again_and_again_waits_longer_each_time() {
        let (mut disputes, mut now) = (Disputes::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = disputes.pause(MailboxId(1), now);
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(disputes.pause(MailboxId(2), now), Duration::ZERO, "another mailbox");
        // Long after, it is no more held against it.
        assert_eq!(disputes.pause(MailboxId(1), now + LONGEST_DISPUTE_PAUSE * 3), Duration::ZERO);
    }
}
