//! Serves the link: HTTP/2 on every connection, windows wide enough for a long line, an end that does not wait for
//! the dead.
//!
//! Keeps true: off loopback every connection is TLS 1.3 with a certificate that counts at this moment; who asks to join
//! gets a connection on which nothing but that one request is answered.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::Service;
use understudy_pairing::JOIN_PROTOCOL;

use crate::{
    alarm::Alarm,
    bounds::Bounds,
    join,
    pairing::{Pairing, Peer},
};

/// How much of one shipment may be under way, in bytes: 20 Mbit/s over 400 ms is 1 MB.
const STREAM_WINDOW: u32 = 4 << 20;
/// How much of all shipments together, in bytes.
const CONNECTION_WINDOW: u32 = 24 << 20;
/// A connection that says nothing is tested this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long requests under way may take to end after `shutdown`.
const DRAIN: Duration = Duration::from_secs(3);
/// After an accept that failed (no file descriptors left, mostly), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long somebody may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may be doing so at once; others wait.
const HANDSHAKES: usize = 64;
/// How long a request to join may take.
const JOIN: Duration = Duration::from_secs(30);
/// How many connections that ask to join there may be at once.
const JOINS: usize = 8;
/// After a refusal: as long for the other side to read why.
const REFUSED: Duration = Duration::from_secs(1);

/// How connections prove who they are.
#[derive(Clone)]
pub(crate) enum Front {
    /// By the secret in each request; on this machine only.
    Clear,
    /// By certificate.
    Paired(Arc<Pairing>),
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    front: Front,
    router: Router,
    alarm: Alarm,
    bounds: Bounds,
    watcher: Arc<dyn Fn() -> Watcher + Send + Sync>,
    handshakes: Arc<Semaphore>,
    joins: Arc<Semaphore>,
}

/// Serves until `shutdown`, then waits a little for requests under way.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    front: Front,
    alarm: &Alarm,
    bounds: &Bounds,
    shutdown: CancellationToken,
) {
    let ending = Arc::new(GracefulShutdown::new());
    let connections = tokio_util::task::TaskTracker::new();
    let drop_all = CancellationToken::new();
    let serving = Serving {
        front,
        router,
        alarm: alarm.clone(),
        bounds: bounds.clone(),
        watcher: {
            let ending = Arc::downgrade(&ending);
            // Whoever comes after the end began is dropped with the rest.
            Arc::new(move || {
                ending.upgrade().map_or_else(|| GracefulShutdown::new().watcher(), |ending| ending.watcher())
            })
        },
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        joins: Arc::new(Semaphore::new(JOINS)),
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, from)| Ok((prepared(stream)?, from))) {
            Ok((stream, from)) => {
                let (serving, drop_all) = (serving.clone(), drop_all.clone());
                connections.spawn(async move {
                    tokio::select! {
                        // A connection that breaks is the source gateway's to make again.
                        () = serving.connection(stream, from) => {}
                        () = drop_all.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "Could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(serving);
    if let Some(ending) = Arc::into_inner(ending) {
        let _ = tokio::time::timeout(DRAIN, ending.shutdown()).await;
    }
    drop_all.cancel();
    connections.close();
    connections.wait().await;
}

/// Without Nagle's delay: window updates are small and must not wait for each other's acknowledgement.
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Serving {
    async fn connection(self, stream: TcpStream, from: SocketAddr) {
        match self.front.clone() {
            Front::Clear => {
                let _connected = self.alarm.connected();
                let _ = self.link(stream, None).await;
            }
            Front::Paired(pairing) => self.encrypted(stream, from, &pairing).await,
        }
    }

    async fn encrypted(self, stream: TcpStream, from: SocketAddr, pairing: &Arc<Pairing>) {
        let greeting = async {
            let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let mut acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
            let start = match (&mut acceptor).await {
                Ok(start) => start,
                Err(error) => {
                    pairing.refused_handshake(&error, from).await;
                    if let Some(stream) = acceptor.take_io() {
                        let_read(stream).await;
                    }
                    return Ok(None);
                }
            };
            let joins = start.client_hello().alpn().is_some_and(|mut offered| offered.any(|one| one == JOIN_PROTOCOL));
            let config = if joins { pairing.for_join.clone() } else { pairing.for_link.clone() };
            match start.into_stream(config).into_fallible().await {
                Ok(stream) => Ok::<_, io::Error>(Some((stream, joins))),
                Err((error, stream)) => {
                    pairing.refused_handshake(&error, from).await;
                    let_read(stream).await;
                    Ok(None)
                }
            }
        };
        let Ok(Ok(Some((stream, joins)))) = tokio::time::timeout(HANDSHAKE, greeting).await else { return };
        if joins {
            self.join(stream, from, pairing).await;
            return;
        }
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|shown| shown.to_vec());
        // It may have been revoked during the handshake.
        let known = certificate.and_then(|shown| pairing.peer(&shown).map(|peer| (shown, peer)));
        let Some((certificate, peer)) = known else { return };
        pairing.connected(peer, from).await;
        let _connected = self.alarm.connected();
        tokio::select! {
            _ = self.link(stream, Some(peer)) => {}
            () = pairing.gone(&certificate) => {
                tracing::warn!(from = %from.ip(), "Cut a connection whose certificate does not count any more");
            }
        }
    }

    /// One request, and then the connection ends.
    async fn join(&self, stream: TlsStream<TcpStream>, from: SocketAddr, pairing: &Arc<Pairing>) {
        let Ok(_turn) = self.joins.try_acquire() else { return };
        let router = join::router(pairing.clone(), from);
        let service =
            hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| router.clone().call(request));
        let serving = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE)
            .serve_connection(TokioIo::new(stream), service);
        let _ = tokio::time::timeout(JOIN, serving).await;
    }

    async fn link<S>(&self, stream: S, peer: Option<Peer>) -> Result<(), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_open) = self.bounds.connection() else {
            tracing::warn!("Closed a connection on the link: there are as many as there may be");
            return Ok(());
        };
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            router.clone().call(request)
        });
        // Frames stay at HTTP/2's own 16 KiB: with larger ones h2 0.4 lost window when a request was broken off inside a frame,
        // and the next one on the connection waited for ever (`a_shipment_cut_within_or_after_its_last_frame…`).
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .serve_connection(TokioIo::new(stream), service);
        (self.watcher)().watch(connection).await
    }
}

/// Ends a connection so that the reason reaches the other side: closing while something is unread would take it back.
async fn let_read(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut scrap = [0; 4096];
    let reading = async { while stream.read(&mut scrap).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(REFUSED, reading).await;
}
