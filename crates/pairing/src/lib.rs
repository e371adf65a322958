//! Two sites that know each other: a small authority at the recovery site, certificates for both ends of the link, and
//! the one-time token by which the source site asks for its own.
//!
//! In: files under `data_dir/link`. Out: TLS 1.3 configurations with both sides authenticated.
//! Keeps true: a private key never leaves the machine that made it, and lies in files only their owner can read.
//! Not here: connections, SQL, what travels on the link.

mod authority;
mod files;
mod identity;
mod tls;
mod token;

pub use authority::{Authority, Issued, Life, RECOVERY_NAME};
pub use files::{FileError, link_folder};
pub use identity::{Identity, JoinAnswer, JoinRequest, Request, SOURCE_FILE};
pub use tls::{
    JOIN_PROTOCOL, Known, LINK_PROTOCOL, Listed, ServerKeys, Shown, Standing, joining, linked, recovery_name,
    server_for_join, server_for_link, why_refused,
};
pub use token::{JoinToken, TokenError, secret_digest};

/// What can be wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not make a key or a certificate: {0}")]
    Making(#[from] rcgen::Error),
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0} cannot be read as a certificate")]
    Unreadable(&'static str),
    #[error("the request for a certificate is not signed by the key that it names")]
    Forged,
}

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(certificate).into())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if number == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}
