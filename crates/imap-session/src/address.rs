//! Where a server listens and how its connection is protected.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use url::{Host, Url};

use crate::{Error, Result, tls};

/// Where a server listens and how its connection is protected.
#[derive(Clone, Debug)]
pub struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protection: Protection,
}

/// How the connection is protected.
#[derive(Clone, Debug)]
pub(crate) enum Protection {
    /// TLS from the first octet.
    Tls(Trust),
    /// TLS after STARTTLS; without it nothing is said.
    StartTls(Trust),
    /// None; to this machine only.
    Loopback,
}

/// Whom to take for the server.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Address {
    /// Reads `imaps://host[:993]`, `imap://host[:143]` (STARTTLS required) or `imap+insecure://host[:143]` (this machine
    /// only). With `ca_file` only its certificates are trusted, otherwise the system's.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Self> {
        let refuse = |reason| Error::Address { url: shown(url), reason };
        let parsed = Url::parse(url).map_err(|_| refuse("it is no URL"))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refuse("users and passwords belong into `login`"));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refuse("it must end after the port"));
        }
        let host = match parsed.host() {
            // An address that `url` keeps as text, because it does not know our schemes.
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => return Err(refuse("it has no host")),
        };
        let trust = || -> Result<Trust> {
            let config = match &ca_file {
                Some(path) => tls::only(path).map_err(|source| Error::CaFile { path: path.clone(), source })?,
                None => {
                    tls::system().map_err(|source| Error::CaFile { path: PathBuf::from("of the system"), source })?
                }
            };
            let name = ServerName::try_from(host.clone()).map_err(|_| refuse("its host is no name"))?;
            Ok(Trust { config, name })
        };
        let (protection, port) = match parsed.scheme() {
            "imaps" => (Protection::Tls(trust()?), 993),
            "imap" => (Protection::StartTls(trust()?), 143),
            "imap+insecure" if is_loopback(&host) => (Protection::Loopback, 143),
            "imap+insecure" => return Err(refuse("without TLS only this machine itself may be spoken to")),
            _ => return Err(refuse("it must begin with imaps://, imap:// or imap+insecure://")),
        };
        Ok(Self { port: parsed.port().unwrap_or(port), host, protection })
    }

    /// For error texts: `host:port`.
    pub(crate) fn shown(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A URL for an error text: without what may be a password.
fn shown(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let shown = match Address::parse(url, None) {
            Ok(address) => format!(
                "{} {}",
                address.shown(),
                match address.protection {
                    Protection::Tls(_) => "tls",
                    Protection::StartTls(_) => "starttls",
                    Protection::Loopback => "loopback",
                }
            ),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn addresses_say_how_they_are_protected() {
        check("imaps://mail.example.com", "mail.example.com:993 tls");
        check("imap://mail.example.com:1143", "mail.example.com:1143 starttls");
        check("imaps://[::1]", "[::1]:993 tls");
        check("imaps://192.0.2.1", "192.0.2.1:993 tls");
        check("imap+insecure://127.0.0.1:1143", "127.0.0.1:1143 loopback");
        check("imap+insecure://localhost", "localhost:143 loopback");
        check("imap+insecure://[::1]:9", "[::1]:9 loopback");
        check("imap+insecure://mail.example.com", "only this machine itself");
        check("imap+insecure://127.0.0.1.example.com", "only this machine itself");
        check("http://mail.example.com", "must begin with imaps://");
        check("mail.example.com", "no URL");
        check("imaps://u:secret@mail.example.com", "belong into `login`");
        check("imaps://mail.example.com/x", "end after the port");
    }

    #[test]
    fn errors_hide_passwords_and_name_files() {
        let error = Address::parse("imaps://u:secret@mail.example.com", None).expect_err("refused");
        assert!(!error.to_string().contains("secret"));
        let error = Address::parse("imaps://x", Some("/none.pem".into())).expect_err("no file");
        assert_eq!((error.kind(), error.to_string().contains("/none.pem")), ("config", true));
    }
}
