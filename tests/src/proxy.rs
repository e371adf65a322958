//! A TCP proxy that can cut, delay and hold, and counts what passes.

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
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let connection = connect(client, target, mode.clone(), counters.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>, counters: Arc<Counters>) {
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
            pump(from_client, to_server, up, &counters.to_server),
            pump(from_server, to_client, down, &counters.to_client),
        ) } => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>, count: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if mode.wait_for(|mode| *mode != Mode::Hold).await.is_err() {
            return;
        }
        let now = *mode.borrow();
        if let Mode::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}
