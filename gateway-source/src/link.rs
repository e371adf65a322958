//! The client's end of the link: HTTP/2 to the recovery gateway, over whichever of its addresses answers.
//!
//! In: requests of the shipper and the supervisor. Out: answers; how the paths fare; bytes counted.
//! Keeps true: a request that failed may be sent again: whatever the other side took of it, it says so.

mod body;
mod connection;
mod limit;
mod meter;
mod silence;
mod ways;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;
use understudy_protocol::{
    Digest, MailboxId, PartKey, Seq, TenantId,
    codec::{self, CodecError},
    messages::{
        Directives, Heartbeat, Hello, Known, LINK_VERSION, Lacks, LinkReport, OLDEST_LINK_VERSION, Report, Shipped,
        Trouble, Welcome,
    },
};
use uuid::Uuid;

use crate::LinkAccess;
use connection::{Answer, Common, Proof};
use limit::Limiter;
use meter::Meter;
use ways::{Access, Ways};

pub(crate) use body::Body;
pub(crate) use connection::TurnedAway;
pub(crate) use meter::Kind;

/// Bytes are reported no more often than this, …
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// … than this while mail crosses the link, and a path that changed at once.
const BUSY_REPORT_EVERY: Duration = Duration::from_secs(5);

/// The recovery site has no room: nothing can be taken in.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.reason)]
pub(crate) struct NoRoom(pub(crate) Trouble);

/// What was reported last of the link.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// Of the paths.
    version: u64,
    /// Of mail, in bytes.
    carried: u64,
    at: Instant,
}

impl Reported {
    fn is_news_after(self, last: Option<Self>) -> bool {
        last.is_none_or(|last| {
            let every = if last.carried == self.carried { REPORT_EVERY } else { BUSY_REPORT_EVERY };
            last.version != self.version || self.at.duration_since(last.at) >= every
        })
    }
}

/// The recovery gateway as the source gateway reaches it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    ways: Ways,
    limiter: Limiter,
    meter: Meter,
    reported: Arc<Mutex<Option<Reported>>>,
    /// Do both gateways work on one data folder?
    shares_spool: bool,
    /// The recovery gateway said that it takes spool files by name.
    hands_over: Arc<AtomicBool>,
    /// … and that messages may come in parts.
    takes_parts: Arc<AtomicBool>,
    /// … and for how many seconds one stays there that nothing names.
    keeps_seconds: Arc<AtomicU64>,
    /// The key of each tenant's parts.
    part_keys: Arc<Mutex<HashMap<TenantId, PartKey>>>,
}

impl Link {
    /// `gateway` is this process life, named in every request.
    pub(crate) fn new(access: LinkAccess, data_dir: &Path, gateway: Uuid, shares_spool: bool) -> Self {
        let (meter, limiter) = (Meter::default(), Limiter::new());
        let common = Common { gateway, meter: meter.clone(), limiter: limiter.clone() };
        let ways = match access {
            LinkAccess::Clear { recovery_urls, secret } => {
                Ways::new(Access::Secret(Proof::Secret(Arc::new(secret))), Some(recovery_urls), common)
            }
            LinkAccess::Paired { recovery_urls } => {
                Ways::new(Access::Paired { data_dir: data_dir.to_owned() }, recovery_urls, common)
            }
        };
        Self {
            ways,
            limiter,
            meter,
            reported: Arc::default(),
            shares_spool,
            hands_over: Arc::default(),
            takes_parts: Arc::default(),
            keeps_seconds: Arc::default(),
            part_keys: Arc::default(),
        }
    }

    /// Keeps a connection until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        self.ways.run(shutdown).await;
    }

    async fn post(&self, route: &str, body: Body, kind: Kind, held: Duration) -> anyhow::Result<Answer> {
        let open = self.ways.connection().await?;
        Ok(open.post(route, body, kind, held).await?.keeping(open))
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        route: &str,
        question: &Q,
        held: Duration,
    ) -> anyhow::Result<A> {
        let body = codec::encode(question)?;
        let answer = self.post(route, body.into(), Kind::Control, held).await?.bytes().await?;
        Ok(codec::decode(&answer)?)
    }

    pub(crate) async fn hello(&self, hello: &Hello) -> anyhow::Result<Welcome> {
        let welcome: Welcome = self.ask("hello", hello, Duration::ZERO).await?;
        is_spoken(welcome.link_version)?;
        self.hands_over.store(self.shares_spool && welcome.hands_over, Ordering::Relaxed);
        self.takes_parts.store(welcome.takes_parts, Ordering::Relaxed);
        self.keeps_seconds.store(welcome.keeps_seconds, Ordering::Relaxed);
        // Whoever it is may know nothing of our paths.
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(welcome)
    }

    /// Are spool files handed over by name?
    pub(crate) fn hands_over(&self) -> bool {
        self.hands_over.load(Ordering::Relaxed)
    }

    /// Sends a heartbeat; one that is held open also says how the link fares, where that is news.
    pub(crate) async fn heartbeat(&self, heartbeat: &Heartbeat) -> anyhow::Result<Directives> {
        let held = Duration::from_millis(heartbeat.wait_ms);
        if held.is_zero() {
            return self.ask("heartbeat", heartbeat, held).await;
        }
        let news = self.news();
        let heartbeat = Heartbeat { link: news.as_ref().map(|(_, report)| report.clone()), ..heartbeat.clone() };
        let directives: Directives = self.ask("heartbeat", &heartbeat, held).await?;
        if let Some((reported, _)) = news {
            *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(reported);
        }
        if directives.version != heartbeat.seen_version {
            self.limiter.set(&directives.limits);
            let keys = directives.part_keys.iter().cloned().collect();
            *self.part_keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(directives)
    }

    /// The key of a tenant's parts; none while messages travel whole.
    pub(crate) fn part_key(&self, tenant: TenantId) -> Option<PartKey> {
        if !self.takes_parts.load(Ordering::Relaxed) {
            return None;
        }
        self.part_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    /// For how long after it was acknowledged a part is surely there; none where the recovery gateway has not said. Half of what it says, so
    /// that neither clocks nor a slow line matter.
    pub(crate) fn keeps_parts(&self) -> Option<Duration> {
        let seconds = self.keeps_seconds.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds) / 2)
    }

    /// Which of these parts the recovery site does not have.
    pub(crate) async fn lacks(&self, tenant: TenantId, parts: Vec<Digest>) -> anyhow::Result<Vec<Digest>> {
        let answer: Lacks = self.ask("lacks", &Lacks { tenant, parts }, Duration::ZERO).await?;
        Ok(answer.parts)
    }

    fn news(&self) -> Option<(Reported, LinkReport)> {
        let (version, paths) = self.ways.report();
        let now = Reported { version, carried: self.meter.carried(), at: Instant::now() };
        let reported = *self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        now.is_news_after(reported).then(|| (now, LinkReport { paths, bytes: self.meter.read() }))
    }

    pub(crate) async fn report(&self, report: &Report) -> anyhow::Result<()> {
        self.post("report", codec::encode(report)?.into(), Kind::Control, Duration::ZERO).await?.bytes().await?;
        Ok(())
    }

    /// Ships a body of frames. However thin the line: one on which nothing moves is given up.
    pub(crate) async fn ship(&self, tenant: TenantId, body: Body, kind: Kind) -> anyhow::Result<Shipped> {
        let answer = self.post(&format!("ship?tenant={tenant}"), body, kind, Duration::ZERO).await?.bytes().await?;
        Ok(codec::decode(&answer)?)
    }

    /// May anything be seeded at this time?
    pub(crate) fn may_seed(&self) -> bool {
        self.limiter.may_seed()
    }

    /// Waits until seeding may go on.
    pub(crate) async fn may_seed_again(&self) {
        self.limiter.may_seed_again().await;
    }

    /// Sends what the primary holds, for a verification.
    pub(crate) async fn inventory(&self, id: Uuid, body: Body) -> anyhow::Result<()> {
        self.post(&format!("inventory/{id}"), body, Kind::Check, Duration::from_secs(3600)).await?.bytes().await?;
        Ok(())
    }

    /// Sends a message that the recovery site asked for.
    pub(crate) async fn content(&self, id: Uuid, body: Body) -> anyhow::Result<()> {
        self.post(&format!("content/{id}"), body, Kind::Check, Duration::ZERO).await?.bytes().await?;
        Ok(())
    }

    /// What the recovery site holds of a mailbox, frame by frame.
    pub(crate) async fn known(&self, mailbox: MailboxId, received: Seq) -> anyhow::Result<KnownFrames> {
        let route = format!("known/{mailbox}?received={}", received.0);
        let answer = self.post(&route, Body::default(), Kind::Check, Duration::ZERO).await?;
        Ok(KnownFrames { answer, buffer: BytesMut::new() })
    }
}

/// Do we understand what the recovery gateway chose to speak?
fn is_spoken(version: u32) -> anyhow::Result<()> {
    anyhow::ensure!(
        (OLDEST_LINK_VERSION..=LINK_VERSION).contains(&version),
        "the recovery gateway speaks version {version} of the link; this source gateway needs {OLDEST_LINK_VERSION} to \
         {LINK_VERSION}: run the same version at both sites"
    );
    Ok(())
}

/// Frames as they arrive.
pub(crate) struct KnownFrames {
    answer: Answer,
    buffer: BytesMut,
}

impl KnownFrames {
    /// The next frame; an end without [`Known::End`] is an error.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Known> {
        loop {
            if let Some((frame, taken)) = codec::decode_frame(&self.buffer)? {
                let _ = self.buffer.split_to(taken);
                return Ok(frame);
            }
            let piece = self.answer.chunk().await?.ok_or(CodecError::Truncated)?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_gateway_of_another_version_is_refused_with_what_to_do() {
        assert!(is_spoken(LINK_VERSION).is_ok());
        for version in [OLDEST_LINK_VERSION - 1, LINK_VERSION + 1] {
            assert!(is_spoken(version).unwrap_err().to_string().contains("the same version at both sites"));
        }
    }

    #[test]
    fn a_path_is_reported_at_once_mail_soon_and_silence_seldom() {
        let last = Reported { version: 3, carried: 100, at: Instant::now() };
        let after = |seconds, version, carried| {
            let now = Reported { version, carried, at: last.at + Duration::from_secs(seconds) };
            now.is_news_after(Some(last))
        };
        assert!(last.is_news_after(None));
        assert!(after(0, 4, 100));
        assert!(after(5, 3, 101) && !after(4, 3, 101));
        assert!(after(60, 3, 100) && !after(59, 3, 100));
    }
}
