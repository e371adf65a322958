//! Two ways to one server: those who come from one address go the one, everybody else the other. With a [`Proxy`] on each, a server
//! can be cut off from some and not from others.
//!
//! [`Proxy`]: crate::proxy::Proxy

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Listens on loopback until dropped.
pub struct Fork {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Fork {
    /// Connections from `from` go to `theirs`, all others to `others`.
    pub async fn to(from: Ipv4Addr, theirs: SocketAddr, others: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let (each, ended) = (stop.clone(), stop.clone());
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            while let Ok((client, peer)) = listener.accept().await {
                let target = if peer.ip() == IpAddr::V4(from) { theirs } else { others };
                tokio::spawn(each.clone().run_until_cancelled_owned(join(client, target)));
            }
        }));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Ends both when one side ends, as a connection that is cut does.
async fn join(client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
