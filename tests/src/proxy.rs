//! A TCP proxy that can cut, delay and hold, or let just so much pass, and counts what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wait;

/// Connections that are cut are closed within moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the proxy does with bytes; applies to all connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Takes nothing more and closes nothing.
    Hold,
    /// Closes what there is and refuses what comes.
    Cut,
    /// Each piece waits this long.
    Delay(Duration),
    /// Holds what goes to clients once so many bytes have, by all connections since the beginning; not one more.
    UpTo(u64),
}

impl Mode {
    /// How many bytes may have gone to the server in all, …
    fn limit_to_server(self) -> u64 {
        if self == Self::Hold { 0 } else { u64::MAX }
    }

    /// … and to clients.
    fn limit_to_client(self) -> u64 {
        match self {
            Self::Hold => 0,
            Self::UpTo(limit) => limit,
            Self::Pass | Self::Cut | Self::Delay(_) => u64::MAX,
        }
    }
}

/// Listens on loopback until dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counters: Arc<Counters>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Counters {
    to_server: AtomicU64,
    to_client: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
}

/// One that is open.
struct Open(Arc<Counters>);

impl Open {
    fn count(counters: &Arc<Counters>) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (mode, watched) = watch::channel(Mode::Pass);
        let counters = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(
            listener,
            target,
            watched,
            counters.clone(),
            stop.clone(),
        )));
        Ok(Self { address, mode, counters, _stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Lets so many more bytes go to clients, and then no more.
    pub fn allow(&self, bytes: u64) {
        self.set(Mode::UpTo(self.bytes_to_client() + bytes));
    }

    /// [`Mode::Cut`], and returns only when nothing is open any more: set back at once, nobody might have noticed.
    pub async fn cut(&self) -> Result<()> {
        self.set(Mode::Cut);
        let closed = async || Ok(self.counters.open.load(Ordering::Relaxed) == 0);
        wait::until("what went through the proxy is cut", PATIENCE, closed).await
    }

    /// Bytes that went towards the server so far.
    pub fn bytes_to_server(&self) -> u64 {
        self.counters.to_server.load(Ordering::Relaxed)
    }

    pub fn bytes_to_client(&self) -> u64 {
        self.counters.to_client.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    while let Ok((client, _)) = listener.accept().await {
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let connection = connect(client, target, mode.clone(), Open::count(&counters));
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>, open: Open) {
    let counters = &open.0;
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        // Without it the proxy would add delays of its own.
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = (mode.clone(), mode.clone());
    tokio::select! {
        ((), ()) = async { tokio::join!(
            pump(from_client, to_server, up, &counters.to_server, Mode::limit_to_server),
            pump(from_server, to_client, down, &counters.to_client, Mode::limit_to_client),
        ) } => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    count: &AtomicU64,
    limit: fn(Mode) -> u64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let may_pass = mode.wait_for(|mode| count.load(Ordering::Relaxed) < limit(*mode)).await;
            let Ok(now) = may_pass.map(|mode| *mode) else { return };
            // Other connections count too.
            let Some(room) = claim(count, rest.len(), limit(now)) else { continue };
            let (piece, later) = rest.split_at(room);
            if let Mode::Delay(delay) = now {
                tokio::time::sleep(delay).await;
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
            rest = later;
        }
    }
    let _ = to.shutdown().await;
}

/// Counts up to `length` bytes, as many as `limit` leaves room for; answers how many.
fn claim(count: &AtomicU64, length: usize, limit: u64) -> Option<usize> {
    let add = |so_far: u64| (length as u64).min(limit.saturating_sub(so_far));
    let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |so_far| Some(so_far + add(so_far))).ok()?;
    usize::try_from(add(before)).ok().filter(|room| *room > 0)
}
