//! Relays: where mail is handed in, one after the other until one takes it.

use std::{fmt, net::IpAddr, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use secrecy::ExposeSecret;
use url::Url;

use crate::RelayLogin;

/// How long a relay may take for one mail.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where mail is handed in.
#[derive(Clone, Debug)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    /// `smtps://`: TLS from the first byte. Else STARTTLS, which off loopback must be offered.
    pub tls: bool,
    pub login: Option<RelayLogin>,
    /// Authorities to trust instead of the system's, in PEM.
    pub authorities: Option<Vec<u8>>,
}

/// Why a relay did not take a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayError {
    /// For good: another relay would say the same of this recipient.
    Refused(String),
    /// For now, or only this relay.
    Deferred(String),
}

impl Relay {
    /// From `smtp://HOST:PORT` or `smtps://HOST:PORT`.
    pub fn new(url: &str, login: Option<RelayLogin>, authorities: Option<Vec<u8>>) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("`{url}` is no address: {error}"))?;
        let tls = match parsed.scheme() {
            "smtp" => false,
            "smtps" => true,
            scheme => return Err(format!("a relay is smtp:// or smtps://, not {scheme}://")),
        };
        let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or("a relay's address names its host")?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: parsed.port().unwrap_or(if tls { 465 } else { 587 }), tls, login, authorities })
    }

    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, lettre::transport::smtp::Error> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(pem) = &self.authorities {
            parameters = parameters.add_root_certificate(Certificate::from_pem(pem)?);
        }
        let parameters = parameters.build_rustls()?;
        let tls = match (self.tls, self.is_local() && self.login.is_none()) {
            (true, _) => Tls::Wrapper(parameters),
            (false, true) => Tls::None,
            (false, false) => Tls::Required(parameters),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(PATIENCE));
        if let Some(login) = &self.login {
            let password = login.password.expose_secret().to_owned();
            builder = builder.credentials(Credentials::new(login.user.clone(), password));
        }
        Ok(builder.build())
    }

    /// Hands in a mail. What the relay said, when it took it.
    pub(crate) async fn hand_in(&self, mail: Message) -> Result<String, RelayError> {
        let transport = self.transport().map_err(|error| RelayError::Deferred(reasons(&error)))?;
        let sent = tokio::time::timeout(PATIENCE, transport.send(mail)).await;
        match sent {
            Ok(Ok(response)) => Ok(response.message().collect::<Vec<_>>().join(" ")),
            Ok(Err(error)) if error.is_permanent() => Err(RelayError::Refused(reasons(&error))),
            Ok(Err(error)) => Err(RelayError::Deferred(reasons(&error))),
            Err(_) => Err(RelayError::Deferred(format!("no answer within {} seconds", PATIENCE.as_secs()))),
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An error and its causes, on one line.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
