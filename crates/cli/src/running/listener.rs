//! A port that stays open while the role behind it starts again: who connects meanwhile waits instead of being refused.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context;

use crate::failure::{Failure, Result};

/// A listening socket, and where it really listens (port 0 has become a real one).
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Listens at `address`, the value of `setting`.
    pub(crate) fn open(address: SocketAddr, setting: &str) -> Result<Self> {
        let listening = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        listening.map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    format!("stop what uses it (ss -ltnp 'sport = :{}'), or set another one: {setting}", address.port())
                }
                std::io::ErrorKind::PermissionDenied => format!("choose a port above 1023: {setting}"),
                _ => format!("choose an address of this machine: {setting}"),
            };
            let why = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program listens there already".to_owned(),
                _ => error.to_string(),
            };
            Failure::new(format!("cannot listen on {address}"), why, remedy)
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same socket for one life of a role.
    pub(crate) fn listener(&self) -> anyhow::Result<tokio::net::TcpListener> {
        let twin = self.listener.try_clone().context("could not hand over the listener")?;
        tokio::net::TcpListener::from_std(twin).context("could not hand over the listener")
    }
}

/// The web address of a listener, as somebody on this machine reaches it.
pub(crate) fn web_address(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        }
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_says_so_and_what_to_do() {
        let first = Door::open("127.0.0.1:0".parse().unwrap(), "[admin] listen").unwrap();
        let refused = Door::open(first.address(), "[admin] listen").unwrap_err().to_string();
        assert!(refused.contains("another program listens there already"), "{refused}");
        assert!(refused.contains("[admin] listen"), "{refused}");
    }

    #[test]
    fn the_web_address_can_be_opened() {
        assert_eq!(web_address("0.0.0.0:8080".parse().unwrap()), "http://127.0.0.1:8080");
        assert_eq!(web_address("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(web_address("192.0.2.1:80".parse().unwrap()), "http://192.0.2.1:80");
    }
}
