//! The listeners: TCP for everyone with a token, a unix socket for the system user that runs Understudy.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use axum::{Extension, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::caller::Local;

/// How long requests under way may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Serves on TCP until `shutdown`.
pub(crate) async fn tcp(listener: TcpListener, router: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    patiently(server.into_future(), shutdown).await.context("could not serve HTTP")
}

/// Opens the local socket, where one is wanted.
pub(crate) async fn open_socket(path: Option<PathBuf>) -> anyhow::Result<Option<(UnixListener, PathBuf)>> {
    let Some(path) = path else { return Ok(None) };
    let listener = bind(&path).await.with_context(|| format!("could not open the local socket {}", path.display()))?;
    Ok(Some((listener, path)))
}

/// Serves on the local socket until `shutdown`, and takes it away then.
pub(crate) async fn unix(
    socket: Option<(UnixListener, PathBuf)>,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some((listener, path)) = socket else { return Ok(()) };
    let server = axum::serve(listener, router.layer(Extension(Local)));
    let server = server.with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let served = patiently(server.into_future(), shutdown).await;
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(error = %error, "The local socket could not be removed; the next start replaces it");
    }
    served.context("could not serve on the local socket")
}

/// Serves until it ends, which it has a moment to do once `shutdown` is asked for.
async fn patiently(server: impl Future<Output = io::Result<()>>, shutdown: CancellationToken) -> io::Result<()> {
    let impatience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = impatience => Ok(()),
    }
}

/// Opens the socket so that nobody else ever sees it open: made under another name, closed to others, then renamed into
/// place, over one that a killed process left.
async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(there) = tokio::fs::symlink_metadata(path).await
        && !there.file_type().is_socket()
    {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is not a socket is there"));
    }
    let fresh = path.with_extension("new");
    if let Err(error) = tokio::fs::remove_file(&fresh).await
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&fresh)?;
    tokio::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).await?;
    tokio::fs::rename(&fresh, path).await?;
    Ok(listener)
}
