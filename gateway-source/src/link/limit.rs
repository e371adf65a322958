//! How fast bodies may go: the calendar's rate in bytes on the wire, live changes before everything else.
//!
//! Keeps true: over any second no more goes out than the rate and one piece; control requests are never held back, but
//! counted; a piece is given out only when the one before has been paid for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Datelike, Local, Timelike};
use tokio::{sync::Notify, time::Instant};
use understudy_protocol::{
    calendar::{Calendar, Rate},
    messages::Limits,
};

use super::meter::Kind;

/// Pieces under a limit: small, so that a live change never waits for a large one.
pub(super) const LIMITED_PIECE: usize = 16 << 10;
pub(super) const FREE_PIECE: usize = 256 << 10;
/// What may go at once after a pause, in seconds of the rate.
const BURST_SECONDS: f64 = 0.1;
/// The calendar is asked anew this often.
const LOOK: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(2);

/// Shared by all connections of a source gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// New limits, or a live piece went.
    changed: Notify,
    clock: fn() -> DateTime<Local>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    wire: Bucket,
    seeding: Bucket,
    /// Given out to bodies and not yet on the wire.
    promised: u64,
    live_waiting: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    calendar: Calendar,
    /// Bytes that may go now; below zero what is owed.
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// Fills up to now and answers the rate of the moment.
    fn fill(&mut self, clock: fn() -> DateTime<Local>) -> Rate {
        let rate = self.rate(clock);
        let now = Instant::now();
        let since = self.filled_at.replace(now).map_or(Duration::ZERO, |at| now - at);
        match rate {
            Rate::Bytes(rate) => {
                let rate = rate as f64;
                let most = (rate * BURST_SECONDS).max(LIMITED_PIECE as f64);
                self.tokens = (self.tokens + rate * since.as_secs_f64()).min(most);
            }
            Rate::Unlimited | Rate::Off => self.tokens = 0.0,
        }
        rate
    }

    fn rate(&self, clock: fn() -> DateTime<Local>) -> Rate {
        let now = clock();
        let day = u8::try_from(now.weekday().num_days_from_monday()).unwrap_or(0);
        self.calendar.at(day, u16::try_from(now.hour() * 60 + now.minute()).unwrap_or(0))
    }

    /// How long until something may go; none: now.
    fn wait(&self, rate: Rate) -> Option<Duration> {
        match rate {
            Rate::Unlimited => None,
            Rate::Off => Some(LOOK),
            Rate::Bytes(_) if self.tokens > 0.0 => None,
            Rate::Bytes(rate) => {
                Some(Duration::from_secs_f64((1.0 - self.tokens) / rate as f64).clamp(SHORTEST_WAIT, LOOK))
            }
        }
    }

    fn pay(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self::with_clock(Local::now)
    }

    fn with_clock(clock: fn() -> DateTime<Local>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), changed: Notify::new(), clock }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these limits hold, also for what is under way.
    pub(crate) fn set(&self, limits: &Limits) {
        let mut state = self.state();
        if state.limits == *limits {
            return;
        }
        let read = |text: &str, which: &str| {
            text.parse().unwrap_or_else(|error| {
                // The admin API refuses what cannot be read; a later version may know more.
                tracing::error!(error = %error, "The limit of {which} cannot be read and is not kept");
                Calendar::default()
            })
        };
        state.wire = Bucket { calendar: read(&limits.wire, "the link"), ..Bucket::default() };
        state.seeding = Bucket { calendar: read(&limits.seeding, "seeding"), ..Bucket::default() };
        state.limits = limits.clone();
        drop(state);
        tracing::info!(wire = limits.wire, seeding = limits.seeding, "The link has new limits");
        self.shared.changed.notify_waiters();
    }

    /// May anything be seeded at this time?
    pub(crate) fn may_seed(&self) -> bool {
        self.state().seeding.rate(self.shared.clock) != Rate::Off
    }

    /// Waits until seeding may go on.
    pub(crate) async fn may_seed_again(&self) {
        while !self.may_seed() {
            let changed = self.shared.changed.notified();
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }

    /// So many bytes went out on a socket.
    pub(super) fn sent(&self, bytes: usize) {
        let bytes = bytes as u64;
        let mut state = self.state();
        let paid = state.promised.min(bytes);
        state.promised -= paid;
        state.wire.pay(bytes - paid);
    }

    /// A connection ended: what was promised to it will not come.
    pub(super) fn forget_promises(&self) {
        self.state().promised = 0;
    }

    /// Waits until a piece of a body may go, at most `available` bytes long, and says how long.
    pub(super) async fn pass(self, kind: Kind, available: usize) -> usize {
        if kind == Kind::Control {
            return available;
        }
        let _waiting = (kind == Kind::Live).then(|| LiveWaiting::new(&self));
        loop {
            let changed = self.shared.changed.notified();
            let wait = {
                let mut state = self.state();
                let wire = state.wire.fill(self.shared.clock);
                let mut wait = state.wire.wait(wire);
                if kind == Kind::Seed {
                    let seeding = state.seeding.fill(self.shared.clock);
                    wait = wait.max(state.seeding.wait(seeding));
                    if wire != Rate::Unlimited && state.live_waiting > 0 {
                        wait = wait.max(Some(SHORTEST_WAIT));
                    }
                }
                if wait.is_none() {
                    let limited = wire != Rate::Unlimited
                        || (kind == Kind::Seed && state.seeding.rate(self.shared.clock) != Rate::Unlimited);
                    let piece = available.min(if limited { LIMITED_PIECE } else { FREE_PIECE });
                    state.wire.pay(piece as u64);
                    state.promised += piece as u64;
                    if kind == Kind::Seed {
                        state.seeding.pay(piece as u64);
                    }
                    return piece;
                }
                wait
            };
            if let Some(wait) = wait {
                let _ = tokio::time::timeout(wait, changed).await;
            }
        }
    }
}

/// Seeds wait while this lives.
struct LiveWaiting<'l>(&'l Limiter);

impl<'l> LiveWaiting<'l> {
    fn new(limiter: &'l Limiter) -> Self {
        limiter.state().live_waiting += 1;
        Self(limiter)
    }
}

impl Drop for LiveWaiting<'_> {
    fn drop(&mut self) {
        self.0.state().live_waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn limited(wire: &str, seeding: &str) -> Limiter {
        // A Monday at noon.
        let limiter =
            Limiter::with_clock(|| Local.with_ymd_and_hms(2026, 11, 23, 12, 0, 0).single().unwrap_or_default());
        limiter.set(&Limits { wire: wire.to_owned(), seeding: seeding.to_owned() });
        limiter
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_with_what_the_wire_adds() {
        let limiter = limited("mon-fri 08:00-18:00: 1 MB/s, else unlimited", "");
        let began = Instant::now();
        let mut left = 3_000_000;
        while left > 0 {
            let piece = limiter.clone().pass(Kind::Live, left).await;
            left -= piece;
            // Frames and TLS: a fiftieth more.
            limiter.sent(piece + piece / 50);
        }
        let took = began.elapsed().as_secs_f64();
        assert!((2.8..3.3).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_piece_goes_before_seeds_that_wait() {
        let limiter = limited("100 kB/s", "");
        let seeds: Vec<_> = (0..8)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move {
                    loop {
                        let piece = limiter.clone().pass(Kind::Seed, 1 << 20).await;
                        limiter.sent(piece);
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(10)).await;
        for _ in 0..20 {
            let began = Instant::now();
            let piece = limiter.clone().pass(Kind::Live, 2000).await;
            limiter.sent(piece);
            // No longer than one piece takes at this rate, and the next look at the bucket.
            assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        seeds.into_iter().for_each(|seed| seed.abort());
    }

    #[tokio::test(start_paused = true)]
    async fn seeding_waits_for_the_night_and_live_changes_do_not() {
        let limiter = limited("", "mon-fri 08:00-18:00: off");
        assert!(!limiter.may_seed());
        let waits = tokio::time::timeout(Duration::from_secs(3600), limiter.clone().pass(Kind::Seed, 100)).await;
        assert!(waits.is_err());
        assert_eq!(limiter.clone().pass(Kind::Live, 100).await, 100);
        let seed = tokio::spawn(limiter.clone().pass(Kind::Seed, 100));
        limiter.set(&Limits::default());
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), seed).await.unwrap().unwrap(), 100);
        assert!(limiter.may_seed());
    }
}
