//! Counts every byte on the wire, by direction and kind.
//!
//! Keeps true: the kinds of a direction add up to what went through the sockets; what no body accounts for (TLS, HTTP/2,
//! handshakes, paths that were tried) is `overhead`.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use understudy_protocol::messages::WireBytes;

use super::limit::Limiter;

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes as they happen.
    Live,
    /// The first copy of a mailbox.
    Seed,
    /// Inventories, and what the recovery site holds.
    Check,
    /// Heartbeats, directives, reports, certificates.
    Control,
}

const KINDS: [Kind; 4] = [Kind::Live, Kind::Seed, Kind::Check, Kind::Control];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Seed => "seed",
            Self::Check => "check",
            Self::Control => "control",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

#[derive(Debug, Default)]
struct Way {
    wire: AtomicU64,
    bodies: [AtomicU64; 4],
    /// What the process's counters were told so far: each kind, then overhead.
    told: [AtomicU64; 5],
}

/// All connections of a source gateway together. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    ways: Arc<[Way; 2]>,
}

impl Meter {
    pub(super) fn body(&self, direction: Direction, kind: Kind, bytes: usize) {
        self.ways[direction as usize].bodies[kind as usize].fetch_add(bytes as u64, Relaxed);
    }

    fn wire(&self, direction: Direction, bytes: usize) {
        self.ways[direction as usize].wire.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes of mail sent since the start.
    pub(super) fn carried(&self) -> u64 {
        let out = &self.ways[Direction::Out as usize].bodies;
        [Kind::Live, Kind::Seed].iter().map(|kind| out[*kind as usize].load(Relaxed)).sum()
    }

    /// Every kind in both directions since the start.
    pub(crate) fn read(&self) -> Vec<WireBytes> {
        let mut counted = Vec::with_capacity(10);
        for (direction, way) in ["out", "in"].into_iter().zip(self.ways.iter()) {
            for (kind, bytes) in way.kinds() {
                counted.push(WireBytes { direction: direction.to_owned(), kind: kind.to_owned(), bytes });
            }
        }
        counted
    }

    /// Brings the process's counters up to date.
    pub(super) fn publish(&self) {
        for (direction, way) in ["out", "in"].into_iter().zip(self.ways.iter()) {
            for ((kind, bytes), told) in way.kinds().zip(&way.told) {
                let more = bytes.saturating_sub(told.fetch_max(bytes, Relaxed));
                metrics::counter!("understudy_link_bytes_total", "direction" => direction, "kind" => kind)
                    .increment(more);
            }
        }
    }
}

impl Way {
    fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // A body is counted when it is handed to HTTP/2, a little before it is on the wire.
        let bodies = KINDS.map(|kind| (kind.name(), self.bodies[kind as usize].load(Relaxed)));
        let sum: u64 = bodies.iter().map(|(_, bytes)| bytes).sum();
        bodies.into_iter().chain([("overhead", self.wire.load(Relaxed).saturating_sub(sum))])
    }
}

/// When the other side was last heard of.
#[derive(Debug)]
pub(super) struct Heard {
    began: Instant,
    at: AtomicU64,
}

impl Heard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), at: AtomicU64::new(0) })
    }

    fn now(&self) {
        self.at.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.at.load(Relaxed)))
    }
}

/// A socket that counts.
pub(super) struct Metered {
    stream: TcpStream,
    meter: Meter,
    limiter: Limiter,
    heard: Arc<Heard>,
}

impl Metered {
    pub(super) fn new(stream: TcpStream, meter: Meter, limiter: Limiter, heard: Arc<Heard>) -> Self {
        Self { stream, meter, limiter, heard }
    }

    fn wrote(&self, written: usize) {
        self.meter.wire(Direction::Out, written);
        self.limiter.sent(written);
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.meter.wire(Direction::In, read);
            self.heard.now();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
