//! Keeps one connection to the recovery site, over the best of its addresses that answers, and certificates renewed.
//!
//! Keeps true: where there are several addresses, one that is silent for two seconds is left for another that answers (`silence`); the
//! best one is returned to once it has answered for a while, and what is under way on the other ends there. A way that turned out
//! bad is not tried first again at once, so that nothing swings to and fro.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use understudy_pairing::{Identity, JoinAnswer, Request};
use understudy_protocol::messages::PathReport;

use super::{
    body::Body,
    connection::{Common, Connection, Manner, Proof},
    meter::Kind,
    silence::{DOUBT, Dialling, Rival, Verdict},
};

/// With one address there is nowhere else to go, and pings cost bytes.
const PATIENT: Manner =
    Manner { connect: Duration::from_secs(10), ping: Duration::from_secs(10), silence: Duration::from_secs(10) };
const QUICK: Manner =
    Manner { connect: Duration::from_secs(5), ping: Duration::from_millis(600), silence: Duration::from_secs(10) };
/// How often it is looked.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// The next address is tried beside one that takes longer than this.
pub(super) const HEAD_START: Duration = Duration::from_millis(400);
/// How often better addresses are tried, and worse ones, so that a person knows of them.
const BETTER: Duration = Duration::from_secs(5);
const OTHERS: Duration = Duration::from_secs(60);
/// A better address is returned to when it answered so often in a row.
const STEADY: u32 = 2;
/// A way that fell silent is not returned to for so long, doubled each time up to the second.
const PENALTY: Duration = Duration::from_secs(10);
const LONGEST_PENALTY: Duration = Duration::from_secs(600);
/// What stood for so long has earned its trust again.
const TRUSTED: Duration = Duration::from_secs(300);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);
/// How often the file with our certificate is read, and a renewal that failed is tried again.
const FILE_LOOK: Duration = Duration::from_secs(2);
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// How long whoever wants to send waits for a connection.
const WAIT: Duration = Duration::from_secs(10);

/// Where the recovery site is, and how this one proves who it is.
pub(super) enum Access {
    /// In clear text, by a secret.
    Secret(Proof),
    /// By what pairing left in this folder; its addresses, unless others are configured.
    Paired { data_dir: PathBuf },
}

/// The ways to the recovery site. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ways {
    shared: Arc<Shared>,
}

struct Shared {
    access: Access,
    configured: Option<Vec<String>>,
    common: Common,
    current: watch::Sender<Option<Arc<Connection>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ways: Vec<Way>,
    identity: Option<Arc<Identity>>,
    /// Why there is no connection.
    trouble: Option<String>,
    /// Rises when a path changed.
    version: u64,
}

struct Way {
    url: String,
    state: &'static str,
    reason: Option<String>,
    since: DateTime<Utc>,
    round_trip_ms: Option<f64>,
    steady: u32,
    penalty: Duration,
    penalised_until: Option<Instant>,
}

impl Way {
    fn new(url: String) -> Self {
        Self {
            url,
            state: "untried",
            reason: None,
            since: Utc::now(),
            round_trip_ms: None,
            steady: 0,
            penalty: PENALTY,
            penalised_until: None,
        }
    }

    fn is_penalised(&self) -> bool {
        self.penalised_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Why a connection was left.
enum Left {
    Ended(String),
    /// … and another one answers, or nothing does.
    Silent(String, Option<Arc<Connection>>),
    /// Another one is there already.
    Replaced(Arc<Connection>),
}

impl Ways {
    pub(super) fn new(access: Access, configured: Option<Vec<String>>, common: Common) -> Self {
        let shared = Shared { access, configured, common, current: watch::Sender::new(None), state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of the moment; waits a little for one.
    pub(super) async fn connection(&self) -> anyhow::Result<Arc<Connection>> {
        let mut current = self.shared.current.subscribe();
        let waiting = current.wait_for(|current| current.as_ref().is_some_and(|open| !open.ended.is_cancelled()));
        if let Ok(Ok(open)) = timeout(WAIT, waiting).await
            && let Some(open) = open.as_ref()
        {
            return Ok(open.clone());
        }
        let trouble = self.state().trouble.clone();
        anyhow::bail!("{}", trouble.unwrap_or_else(|| "the recovery site has not answered yet".to_owned()))
    }

    /// How every way fares, and a number that rises when that changes.
    pub(super) fn report(&self) -> (u64, Vec<PathReport>) {
        let state = self.state();
        let reports = state.ways.iter().map(|way| PathReport {
            url: way.url.clone(),
            state: way.state.to_owned(),
            reason: way.reason.clone(),
            since: way.since,
            round_trip_ms: way.round_trip_ms,
        });
        (state.version, reports.collect())
    }

    /// Keeps a connection until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let publishing = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                self.shared.common.meter.publish();
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
            () = publishing => {}
        }
        self.shared.current.send_replace(None);
        self.shared.common.meter.publish();
    }

    async fn keep(&self) {
        let mut backoff = FIRST_BACKOFF;
        let (mut next, mut last_word) = (None, None);
        loop {
            let open = match next.take() {
                Some(open) => open,
                None => match self.connect(None).await {
                    Ok(open) => open,
                    Err(error) => {
                        let said = format!("{error:#}");
                        if self.state().trouble.replace(said.clone()).as_ref() != Some(&said) {
                            tracing::warn!(error = said, "No way to the recovery site; trying again");
                        }
                        sleep(backoff.mul_f64(rand::random_range(0.75..1.25))).await;
                        backoff = (backoff * 2).min(LONGEST_BACKOFF);
                        continue;
                    }
                },
            };
            backoff = FIRST_BACKOFF;
            self.used(&open, last_word.take());
            let since = Instant::now();
            self.shared.current.send_replace(Some(open.clone()));
            match self.watch(&open).await {
                Left::Replaced(better) => {
                    tracing::info!(from = open.url, to = better.url, "The link goes on over another connection");
                    self.left(&open.url, "standing_by", None, false);
                    // What is under way on the old one ends there: it closes with its last request.
                    next = Some(better);
                }
                Left::Ended(why) => {
                    last_word = Instant::now().checked_sub(open.silence());
                    tracing::warn!(url = open.url, reason = why, "The link broke");
                    self.shared.current.send_replace(None);
                    let bad = since.elapsed() < TRUSTED && self.several();
                    self.left(&open.url, "down", Some(why), bad);
                }
                Left::Silent(why, another) => {
                    last_word = Instant::now().checked_sub(open.silence());
                    tracing::warn!(url = open.url, reason = why, "The link is silent; taking the next way");
                    self.shared.current.send_replace(None);
                    open.ended.cancel();
                    self.left(&open.url, "down", Some(why), true);
                    next = another;
                }
            }
            if since.elapsed() > TRUSTED
                && let Some(way) = self.state().ways.iter_mut().find(|way| way.url == open.url)
            {
                way.penalty = PENALTY;
            }
        }
    }

    fn several(&self) -> bool {
        self.state().ways.len() > 1
    }

    fn manner(&self) -> Manner {
        if self.several() { QUICK } else { PATIENT }
    }

    fn change(&self, url: &str, change: impl FnOnce(&mut Way)) {
        let mut state = self.state();
        if let Some(way) = state.ways.iter_mut().find(|way| way.url == url) {
            let before = (way.state, way.reason.clone());
            change(way);
            if before != (way.state, way.reason.clone()) {
                way.since = Utc::now();
                state.version += 1;
            }
        }
    }

    /// `last_word`: when the way used before was last heard.
    fn used(&self, open: &Connection, last_word: Option<Instant>) {
        self.state().trouble = None;
        let round_trip = open.round_trip_ms();
        self.change(&open.url, |way| {
            (way.state, way.reason, way.round_trip_ms) = ("used", None, Some(round_trip));
            way.steady = 0;
        });
        let without_seconds = last_word.map(|last_word| last_word.elapsed().as_secs_f64());
        if let Some(seconds) = without_seconds {
            metrics::histogram!("understudy_link_without_seconds").record(seconds);
        }
        tracing::info!(url = open.url, round_trip_ms = round_trip, without_seconds, "The link is connected");
    }

    fn left(&self, url: &str, state: &'static str, reason: Option<String>, penalise: bool) {
        self.change(url, |way| {
            (way.state, way.reason, way.steady) = (state, reason, 0);
            if penalise {
                way.penalised_until = Some(Instant::now() + way.penalty);
                way.penalty = (way.penalty * 2).min(LONGEST_PENALTY);
            }
        });
    }

    /// Reads what pairing left, and which addresses there are.
    fn proof(&self) -> anyhow::Result<Proof> {
        let (proof, urls) = match &self.shared.access {
            Access::Secret(proof) => (proof.clone(), self.shared.configured.clone().unwrap_or_default()),
            Access::Paired { data_dir } => {
                let identity = Identity::open(data_dir)?.context(
                    "this site is not paired: `understudy link invite` at the recovery site, `understudy link join` here",
                )?;
                let identity = Arc::new(identity);
                self.state().identity = Some(identity.clone());
                let urls = self.shared.configured.clone().unwrap_or_else(|| identity.recovery_urls.clone());
                (Proof::Certificate(identity), urls)
            }
        };
        anyhow::ensure!(!urls.is_empty(), "no recovery_url is configured");
        let mut state = self.state();
        if !state.ways.iter().map(|way| &way.url).eq(&urls) {
            state.ways = urls.into_iter().map(Way::new).collect();
            state.version += 1;
        }
        Ok(proof)
    }

    /// The first address that answers, but for one; the best ones have a head start.
    async fn connect(&self, but: Option<&str>) -> anyhow::Result<Arc<Connection>> {
        let proof = self.proof()?;
        let order: Vec<String> = {
            let state = self.state();
            let ways = state.ways.iter().filter(|way| but != Some(way.url.as_str()));
            let (bad, good): (Vec<&Way>, Vec<&Way>) = ways.partition(|way| way.is_penalised());
            good.into_iter().chain(bad).map(|way| way.url.clone()).collect()
        };
        let manner = self.manner();
        let mut trying = JoinSet::new();
        let mut rest = order.into_iter();
        let mut failure = None;
        while let Some(url) = rest.next() {
            let (proof, common) = (proof.clone(), self.shared.common.clone());
            trying.spawn(async move {
                let opened = Connection::open(&url, &proof, &common, manner).await;
                (url, opened)
            });
            let wait = if rest.len() == 0 { manner.connect * 2 } else { HEAD_START };
            let began = Instant::now();
            while let Ok(Some(Ok((url, opened)))) =
                timeout(wait.saturating_sub(began.elapsed()), trying.join_next()).await
            {
                match opened {
                    Ok(open) => return Ok(Arc::new(open)),
                    Err(error) => {
                        self.left(&url, "down", Some(format!("{error:#}")), false);
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("the recovery site did not answer in time")))
    }

    /// Watches a connection until it is to be left.
    async fn watch(&self, open: &Arc<Connection>) -> Left {
        let several = self.several();
        let (mut better_at, mut others_at) = (Instant::now() + BETTER, Instant::now() + OTHERS.min(BETTER * 3));
        let mut file_at = Instant::now() + FILE_LOOK;
        let mut renew_at = Instant::now();
        let mut rival = Rival::default();
        loop {
            tokio::select! {
                () = open.ended.cancelled() => return Left::Ended(open.why()),
                () = rival.dialled() => {}
                () = sleep(LOOK) => {}
            }
            if several {
                let (this, url) = (self.clone(), open.url.clone());
                let dial = move || -> Dialling { Box::pin(async move { this.connect(Some(&url)).await }) };
                if let Verdict::Leave(another) = rival.judge(open.silence(), dial) {
                    return Left::Silent(format!("it said nothing for {:.1} s", open.silence().as_secs_f32()), another);
                }
                if open.silence() >= DOUBT {
                    continue;
                }
            }
            let now = Instant::now();
            if several && now >= better_at {
                better_at = now + BETTER;
                if let Some(better) = self.try_better(&open.url, open).await {
                    return Left::Replaced(better);
                }
            }
            if several && now >= others_at {
                others_at = now + OTHERS;
                self.try_others(&open.url, open).await;
            }
            if now >= file_at {
                file_at = now + FILE_LOOK;
                if let Some(fresh) = self.with_another_certificate(open).await {
                    return Left::Replaced(fresh);
                }
            }
            if now >= renew_at
                && let Some(outcome) = self.renew_if_due(open).await
            {
                match outcome {
                    Ok(fresh) => return Left::Replaced(fresh),
                    Err(error) => {
                        renew_at = now + self.renew_pause();
                        tracing::warn!(error = format!("{error:#}"), "Could not renew our certificate; trying again");
                    }
                }
            }
        }
    }

    /// Opens ways before this one; the first that has answered often enough.
    async fn try_better(&self, url: &str, open: &Connection) -> Option<Arc<Connection>> {
        let better: Vec<String> = {
            let state = self.state();
            let better = state.ways.iter().take_while(|way| way.url != url).filter(|way| !way.is_penalised());
            better.map(|way| way.url.clone()).collect()
        };
        for url in better {
            if let Some(opened) = self.try_one(&url, open).await
                && self.state().ways.iter().any(|way| way.url == url && way.steady >= STEADY)
            {
                return Some(opened);
            }
        }
        None
    }

    async fn try_others(&self, url: &str, open: &Connection) {
        let worse: Vec<String> = {
            let state = self.state();
            state.ways.iter().skip_while(|way| way.url != url).skip(1).map(|way| way.url.clone()).collect()
        };
        for url in worse {
            self.try_one(&url, open).await;
        }
    }

    /// Whether a way answers just now; gives up when the connection in use needs care.
    async fn try_one(&self, url: &str, open: &Connection) -> Option<Arc<Connection>> {
        let proof = self.proof().ok()?;
        match self.while_it_speaks(open, Connection::open(url, &proof, &self.shared.common, QUICK)).await? {
            Ok(opened) => {
                let round_trip = opened.round_trip_ms();
                self.change(url, |way| {
                    (way.state, way.reason, way.round_trip_ms) = ("standing_by", None, Some(round_trip));
                    way.steady += 1;
                });
                Some(Arc::new(opened))
            }
            Err(error) => {
                self.left(url, "down", Some(format!("{error:#}")), false);
                None
            }
        }
    }

    /// Somebody paired this site anew.
    async fn with_another_certificate(&self, open: &Connection) -> Option<Arc<Connection>> {
        let Access::Paired { data_dir } = &self.shared.access else { return None };
        let known = self.state().identity.clone()?;
        let found = Identity::open(data_dir).ok()??;
        if found.certificate == known.certificate {
            return None;
        }
        self.while_it_speaks(open, self.reopen(&open.url)).await?.ok()
    }

    async fn reopen(&self, url: &str) -> anyhow::Result<Arc<Connection>> {
        let proof = self.proof()?;
        let url = if self.state().ways.iter().any(|way| way.url == url) {
            url.to_owned()
        } else {
            self.state().ways.first().map(|way| way.url.clone()).context("there is no address")?
        };
        Ok(Arc::new(Connection::open(&url, &proof, &self.shared.common, self.manner()).await?))
    }

    fn renew_pause(&self) -> Duration {
        let life = self.state().identity.as_ref().map(|identity| identity.life);
        let left = life.and_then(|life| (life.until - Utc::now()).to_std().ok()).unwrap_or_default();
        (left / 10).clamp(Duration::from_secs(1), RENEW_AGAIN)
    }

    /// Asks for the next certificate in good time, and opens a connection with it.
    async fn renew_if_due(&self, open: &Connection) -> Option<anyhow::Result<Arc<Connection>>> {
        let Access::Paired { data_dir } = &self.shared.access else { return None };
        let identity = self.state().identity.clone()?;
        if Utc::now() < identity.life.renew_at() {
            return None;
        }
        let renewing = async {
            let request = Request::new()?;
            let answer = open.post("renew", Body::from(request.der().to_vec()), Kind::Control, Duration::ZERO).await?;
            let answer: JoinAnswer =
                serde_json::from_slice(&answer.bytes().await?).context("the answer is unreadable")?;
            let renewed = identity.renewed(data_dir, request, &answer.certificate)?;
            tracing::info!(until = %renewed.life.until, "Renewed our certificate");
            self.reopen(&open.url).await
        };
        self.while_it_speaks(open, renewing).await
    }

    /// Does something beside a connection; gives up when that needs care. Where there is but one way, pings are rare, and silence means
    /// nothing.
    async fn while_it_speaks<T>(&self, open: &Connection, work: impl Future<Output = T>) -> Option<T> {
        let doubted = async {
            while !self.several() || open.silence() < DOUBT {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = open.ended.cancelled() => None,
            () = doubted => None,
        }
    }
}
