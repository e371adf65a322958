//! One protected mailbox, from the first look to the last: waits, looks, captures.
//!
//! In: hints, timers, requests. Out: captured transactions (the shipper is told), reports on how it fares.
//! Keeps true: every wait has a timer; an error drops everything in memory and starts anew from the journal; whatever it waits for, it ends
//! at once when it is to.

use std::{pin::pin, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use understudy_failpoint as failpoint;
use understudy_imap_session::{Address, Error, Level, Login};
use understudy_protocol::{
    MailboxId, Seq,
    messages::{Assignment, MailboxReport, Trouble},
    server::Server,
};
use understudy_replication::trouble::explain;

use crate::{
    look::{Depth, Found, NoInbox, Obstacle, Unlisted, look},
    mailbox::{Mailbox, Tools},
    room::disk_full,
    supervisor::Reports,
    turns::Turn,
    watch::{Door, Sessions},
};

/// A mailbox that just changed is asked this often; the pause grows while nothing comes.
const HOT_PAUSE: Duration = Duration::from_millis(10);
/// … up to this.
const WARM_PAUSE: Duration = Duration::from_secs(2);
/// A mailbox without changes for this long is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(60);
/// A quiet mailbox is asked this often.
const QUIET_PAUSE: Duration = Duration::from_secs(30);
/// However quiet or busy, a session of its own lists all folders this often.
const SWEEP_PAUSE: Duration = Duration::from_secs(300);
/// For a moment after its last folder went, Dovecot 2.3.19 lists a level still, and says nothing when it no longer does. So
/// for a while after a level that holds nothing came, …
const HOLLOW_FOR: Duration = Duration::from_secs(60);
/// … all folders are listed this often.
const HOLLOW_PAUSE: Duration = Duration::from_secs(10);
/// Where the server keeps no journal, all messages are compared this often.
const COMPARE_PAUSE: Duration = Duration::from_secs(15);
/// After a look that could not finish and found nothing, wait before the next.
const STUCK_PAUSE: Duration = Duration::from_millis(200);
/// A look may be unable to finish for this long, while folders change under it, before that is trouble.
const OBSTACLE_PATIENCE: Duration = Duration::from_secs(30);
/// While somebody waits for a barrier, a session of its own lists the folders at least this far apart.
const AFRESH_PAUSE: Duration = Duration::from_secs(1);
/// While a first copy waits for its turn, it is looked after this often.
const TURN_LOOK: Duration = Duration::from_secs(10);
/// The first wait after an error, …
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// … doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Answers a barrier with the last number captured.
pub(crate) type BarrierAnswer = oneshot::Sender<Seq>;

/// Everything a tail needs.
pub(crate) struct Tail {
    pub(crate) tools: Tools,
    pub(crate) reports: Reports,
    pub(crate) mask: Vec<String>,
    pub(crate) logins: Arc<Semaphore>,
    pub(crate) assignment: Assignment,
    pub(crate) server: Server,
    pub(crate) barriers: mpsc::Receiver<BarrierAnswer>,
    /// The journal here has been compared with what the recovery site had received when it gave the assignment.
    pub(crate) compared: bool,
    /// Before it begins: what the recovery site refuses again and again is not sent again and again at once.
    pub(crate) pause: Duration,
}

impl Tail {
    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        let mut waiting: Vec<BarrierAnswer> = Vec::new();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(self.pause) => {}
        }
        loop {
            let mut lived = false;
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.live(&mut waiting, &mut lived) => ended,
            };
            let Err(error) = ended else { return };
            if lived {
                backoff = FIRST_BACKOFF;
            }
            self.report_trouble(&error);
            let pause = backoff.mul_f64(rand::random_range(0.75..1.25));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    fn id(&self) -> MailboxId {
        self.assignment.mailbox
    }

    /// From log-in to the first error, or until nobody is left who could ask anything. May be dropped at any time.
    async fn live(&mut self, waiting: &mut Vec<BarrierAnswer>, lived: &mut bool) -> anyhow::Result<()> {
        let (mut mailbox, mut sessions) = self.open().await?;
        self.compared = true;
        // What a former life captured may not have been shipped.
        self.tools.shipper.captured(mailbox.id, !mailbox.seeded);
        let mut rhythm = Rhythm::new(sessions.reader.level());
        let mut afresh_at = Instant::now();
        let mut asked = waiting.len();
        loop {
            // Barriers count from here: what was done before they were asked for is in this look.
            while let Ok(barrier) = self.barriers.try_recv() {
                waiting.push(barrier);
            }
            let (new, pause_is_over) = (waiting.len() > asked, afresh_at.elapsed() >= AFRESH_PAUSE);
            let afresh = mailbox.seeded && (new || (!waiting.is_empty() && pause_is_over) || rhythm.sweep_is_due());
            if afresh {
                afresh_at = Instant::now();
            }
            if !waiting.is_empty() {
                mailbox.unreadable.hurry();
            }
            let turn = self.turn(&mailbox, &mut sessions).await?;
            let depth = if waiting.is_empty() { rhythm.depth() } else { Depth::Everything };
            let found = look_once(&mut mailbox, &mut sessions, depth, afresh).await?;
            drop(turn);
            *lived = true;
            // Looking is not proof: a look that never captures all it sees is a mailbox that stands still.
            if found.complete || found.something {
                self.reports.prove(self.id());
            }
            if found.complete {
                for barrier in waiting.drain(..) {
                    let _ = barrier.send(mailbox.captured);
                }
            }
            asked = waiting.len();
            rhythm.looked(&found, depth, afresh);
            let obstacle = rhythm.lasting(&found);
            self.report(&mailbox, sessions.reader.level(), &found, obstacle);
            if found.complete && sessions.arm().await? {
                continue;
            }
            if !self.wait(&mut sessions, &mut rhythm, found.complete, found.something, waiting).await? {
                return Ok(());
            }
            failpoint::here("look.hinted");
        }
    }

    async fn open(&self) -> anyhow::Result<(Mailbox, Sessions)> {
        let assignment = &self.assignment;
        let address = Address::parse(&self.server.imap, self.server.ca_file.clone())?;
        let login = Login::for_user(&self.server.login, &assignment.address).await?;
        let door = Door {
            server: self.server.name.clone(),
            address,
            login,
            mask: self.mask.clone(),
            logins: self.logins.clone(),
        };
        let mut sessions = Sessions::open(door).await?;
        let mailbox = Mailbox::open(&self.tools, assignment, self.compared).await?;
        if mailbox.seeded {
            sessions.arm().await?;
        }
        Ok((mailbox, sessions))
    }

    /// A first copy waits for its turn, and gives up its session when that takes long. That it stands still meanwhile is our own will.
    async fn turn(&self, mailbox: &Mailbox, sessions: &mut Sessions) -> Result<Option<Turn>, Error> {
        if mailbox.seeded {
            return Ok(None);
        }
        let mut turn = pin!(self.tools.turns.take(&self.server.name, self.id()));
        loop {
            tokio::select! {
                turn = &mut turn => return Ok(Some(turn)),
                waited = sessions.wait(TURN_LOOK) => drop(waited?),
            }
            self.reports.prove(self.id());
        }
    }

    /// Waits until it is time to look again; `false` when nobody is left who could ask.
    async fn wait(
        &mut self,
        sessions: &mut Sessions,
        rhythm: &mut Rhythm,
        complete: bool,
        something: bool,
        waiting: &mut Vec<BarrierAnswer>,
    ) -> Result<bool, Error> {
        if !complete {
            tokio::time::sleep(if something { Duration::ZERO } else { STUCK_PAUSE }).await;
            return Ok(true);
        }
        loop {
            tokio::select! {
                barrier = self.barriers.recv() => {
                    match barrier {
                        Some(barrier) => waiting.push(barrier),
                        None => return Ok(false),
                    }
                    return Ok(true);
                }
                hinted = sessions.wait(rhythm.pause()) => {
                    if hinted? {
                        return Ok(true);
                    }
                }
            }
            if rhythm.sweep_is_due() || sessions.ask().await?.unwrap_or(true) {
                return Ok(true);
            }
            self.reports.prove(self.id());
        }
    }

    fn report(&self, mailbox: &Mailbox, level: Level, found: &Found, obstacle: Option<&Obstacle>) {
        self.reports.put(MailboxReport {
            mailbox: mailbox.id,
            captured: mailbox.captured,
            capability: level.to_string(),
            progress: mailbox.progress(found.messages),
            seeded: mailbox.seeded,
            swept_at: found.complete.then(Utc::now) as Option<DateTime<Utc>>,
            trouble: obstacle.map(|obstacle| unsettled(&self.server.name, obstacle)),
            unreadable: Some(mailbox.unreadable_messages()),
        });
    }

    fn report_trouble(&self, error: &anyhow::Error) {
        let trouble = trouble(&self.server.name, error);
        tracing::warn!(mailbox.id = %self.id(), server.name = self.server.name, kind = trouble.kind,
            "Capturing stopped; trying again");
        self.reports.trouble(self.id(), trouble);
    }
}

async fn look_once(
    mailbox: &mut Mailbox,
    sessions: &mut Sessions,
    depth: Depth,
    afresh: bool,
) -> anyhow::Result<Found> {
    let sweep = if afresh { sessions.reader.sweep_afresh().await? } else { sessions.sweep().await? };
    failpoint::here("look.listed");
    look(mailbox, &sweep, &mut sessions.reader, depth).await
}

/// An error of a tail, for a person.
fn trouble(server: &str, error: &anyhow::Error) -> Trouble {
    if let Some(trouble) = disk_full(error) {
        return trouble;
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return explain(server, error);
    }
    if error.is::<NoInbox>() {
        return Trouble {
            kind: "no_folders".to_owned(),
            reason: format!("{server} lets this log-in list or read nothing of the mailbox, not even INBOX"),
            remedy: "Give the log-in the right to list and read: with Dovecot's acl plugin a line \
                     `* user=understudy lr` in the global ACL file."
                .to_owned(),
            fault: true,
        };
    }
    if error.is::<Unlisted>() {
        return Trouble {
            kind: "unlisted".to_owned(),
            reason: format!("{server}: {error}; nothing is removed because of it"),
            remedy:
                "It is looked at again by itself. If it lasts: give the log-in the right to list that folder, or let \
                     the server make its index of folders anew (Dovecot: remove dovecot.list.index* of the user)."
                    .to_owned(),
            fault: false,
        };
    }
    Trouble {
        kind: "internal".to_owned(),
        reason: format!("{error:#}"),
        remedy: "It is tried again by itself; the log of the source gateway says more.".to_owned(),
        fault: false,
    }
}

/// What has kept looks from capturing all they saw, for a person.
fn unsettled(server: &str, obstacle: &Obstacle) -> Trouble {
    Trouble {
        kind: "unsettled".to_owned(),
        reason: format!("{server}: {obstacle}; what changed since is not all captured"),
        remedy:
            "It is looked at again all the time, and nothing is removed because of it. If it lasts: see whether a mail \
                 client can open that folder, and let the server repair its index of folders."
                .to_owned(),
        fault: false,
    }
}

/// When to ask again.
struct Rhythm {
    /// Since when looks have not captured all they saw.
    unfinished_since: Option<Instant>,
    changed_at: Option<Instant>,
    /// When a session of its own last listed all folders.
    swept_at: Instant,
    compared_at: Option<Instant>,
    /// When a level that holds nothing was listed for the first time.
    hollow_at: Option<Instant>,
    level: Level,
}

impl Rhythm {
    fn new(level: Level) -> Self {
        Self {
            unfinished_since: None,
            changed_at: None,
            swept_at: Instant::now(),
            compared_at: None,
            hollow_at: None,
            level,
        }
    }

    /// What was in this look's way, once it has been there for long.
    fn lasting<'f>(&mut self, found: &'f Found) -> Option<&'f Obstacle> {
        if found.complete || found.something {
            self.unfinished_since = None;
            return None;
        }
        let since = *self.unfinished_since.get_or_insert_with(Instant::now);
        found.obstacle.as_ref().filter(|_| since.elapsed() >= OBSTACLE_PATIENCE)
    }

    /// How deep the next look goes.
    fn depth(&self) -> Depth {
        let due = self.compared_at.is_none_or(|at| at.elapsed() >= COMPARE_PAUSE);
        if self.level == Level::None && due { Depth::Everything } else { Depth::Changed }
    }

    fn looked(&mut self, found: &Found, depth: Depth, afresh: bool) {
        let now = Instant::now();
        if afresh {
            self.swept_at = now;
        }
        if depth == Depth::Everything && found.complete {
            self.compared_at = Some(now);
        }
        if found.something {
            self.changed_at = Some(now);
        }
        if found.hollow {
            self.hollow_at = Some(now);
        }
    }

    /// How long to wait for a hint before asking. Grows evenly with the time nothing came.
    fn pause(&self) -> Duration {
        let quiet = if self.level == Level::None { COMPARE_PAUSE } else { QUIET_PAUSE };
        match self.changed_at.map(|at| at.elapsed()) {
            Some(elapsed) if elapsed < QUIET_AFTER => (elapsed / 20).clamp(HOT_PAUSE, WARM_PAUSE),
            _ => quiet,
        }
    }

    fn sweep_is_due(&self) -> bool {
        let hollow = self.hollow_at.is_some_and(|at| at.elapsed() < HOLLOW_FOR);
        self.swept_at.elapsed() >= if hollow { HOLLOW_PAUSE } else { SWEEP_PAUSE }
    }
}
