//! Serves the link: HTTP/2 on every connection, windows wide enough for a long line, an end that does not wait for
//! the dead.

use std::{io, time::Duration};

use axum::{Router, extract::Request};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::alarm::Alarm;

/// How much of one shipment may be under way, in bytes: 20 Mbit/s over 400 ms is 1 MB.
const STREAM_WINDOW: u32 = 4 << 20;
/// How much of all shipments together, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A connection that says nothing is tested this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long requests under way may take to end after `shutdown`.
const DRAIN: Duration = Duration::from_secs(3);
/// After an accept that failed (no file descriptors left, mostly), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then waits a little for requests under way.
pub(crate) async fn serve(listener: TcpListener, router: Router, alarm: &Alarm, shutdown: CancellationToken) {
    let ending = GracefulShutdown::new();
    let connections = tokio_util::task::TaskTracker::new();
    let drop_all = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| prepared(stream)) {
            Ok(stream) => {
                let connection = ending.watch(connection(stream, router.clone()));
                let drop_all = drop_all.clone();
                let connected = alarm.connected();
                connections.spawn(async move {
                    let _connected = connected;
                    tokio::select! {
                        // A connection that breaks is the source gateway's to make again.
                        _ = connection => {}
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
    let _ = tokio::time::timeout(DRAIN, ending.shutdown()).await;
    drop_all.cancel();
    connections.close();
    connections.wait().await;
}

/// Without Nagle's delay: window updates are small and must not wait for each other's acknowledgement.
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn connection(
    stream: TcpStream,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    let service =
        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| router.clone().call(request));
    // Frames stay at HTTP/2's own 16 KiB: with larger ones h2 0.4 lost window when a request was broken off inside a frame,
    // and the next one on the connection waited for ever (`a_shipment_cut_within_or_after_its_last_frame…`).
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service)
}
