//! TLS 1.3 for the link, both sides authenticated; and, for the one request that asks for a certificate, a connection on
//! which only the recovery site proves itself.
//!
//! Keeps true: a certificate counts only while it is listed; what was refused is refused in the handshake, before any
//! request. No session is resumed, since a resumed one would not show its certificate again.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use uuid::Uuid;

use crate::{Authority, Error, Fingerprint, Identity, RECOVERY_NAME};

/// What the link speaks inside TLS.
pub const LINK_PROTOCOL: &[u8] = b"h2";
/// What a site speaks that has no certificate yet.
pub const JOIN_PROTOCOL: &[u8] = b"understudy-join/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What is known of a certificate that was signed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    Revoked,
}

/// One certificate on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub peer: Uuid,
    pub standing: Standing,
}

/// The certificates that were signed here; renewed from the database while connections come. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<RwLock<HashMap<Fingerprint, Listed>>>);

impl Known {
    pub fn replace(&self, listed: HashMap<Fingerprint, Listed>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = listed;
    }

    /// One more, before the next renewal of the list.
    pub fn add(&self, fingerprint: Fingerprint, listed: Listed) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, listed);
    }

    #[must_use]
    pub fn get(&self, fingerprint: Fingerprint) -> Option<Listed> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).copied()
    }
}

/// The recovery gateway's certificate of the moment. Cheap to clone.
#[derive(Clone)]
pub struct ServerKeys(Arc<RwLock<Arc<CertifiedKey>>>);

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKeys")
    }
}

impl ServerKeys {
    pub fn new(authority: &Authority, certificate: &[u8], key: &PrivateKeyDer<'_>) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(certified(authority, certificate, key)?))))
    }

    /// From the next handshake on; connections that are there stay.
    pub fn replace(&self, authority: &Authority, certificate: &[u8], key: &PrivateKeyDer<'_>) -> Result<(), Error> {
        let certified = certified(authority, certificate, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

/// The chain ends with the authority itself: who joins knows only its fingerprint.
fn certified(authority: &Authority, certificate: &[u8], key: &PrivateKeyDer<'_>) -> Result<Arc<CertifiedKey>, Error> {
    let key = ring::sign::any_supported_type(key)?;
    let chain = vec![CertificateDer::from(certificate.to_vec()), authority.certificate().clone()];
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

impl ResolvesServerCert for ServerKeys {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// For source gateways that were paired.
pub fn server_for_link(authority: &Authority, keys: &ServerKeys, known: &Known) -> Result<Arc<ServerConfig>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = Arc::new(OnlyListed { chain, known: known.clone() });
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(keys.clone()));
    Ok(finished(config, LINK_PROTOCOL))
}

/// For whoever has a token and no certificate yet.
pub fn server_for_join(keys: &ServerKeys) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let config = builder.with_no_client_auth().with_cert_resolver(Arc::new(keys.clone()));
    Ok(finished(config, JOIN_PROTOCOL))
}

fn finished(mut config: ServerConfig, protocol: &[u8]) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// To the recovery site that this one was paired with.
pub fn linked(identity: &Identity) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority.clone())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let chain = vec![identity.certificate.clone()];
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, identity.key.clone_key())?;
    Ok(dialling(config, LINK_PROTOCOL))
}

/// To the recovery site whose authority has this fingerprint; the authority it showed is in the second part afterwards.
pub fn joining(authority: Fingerprint) -> Result<(Arc<ClientConfig>, Shown), Error> {
    let shown = Shown::default();
    let verifier = Arc::new(ByFingerprint { authority, shown: shown.clone(), provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok((dialling(config, JOIN_PROTOCOL), shown))
}

fn dialling(mut config: ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The name every recovery site answers to.
#[must_use]
pub fn recovery_name() -> ServerName<'static> {
    ServerName::try_from(RECOVERY_NAME).unwrap_or(ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()))
}

/// Accepts what the authority signed, while it is on the list and nobody revoked it.
struct OnlyListed {
    chain: Arc<dyn ClientCertVerifier>,
    known: Known,
}

impl fmt::Debug for OnlyListed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnlyListed")
    }
}

impl ClientCertVerifier for OnlyListed {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match self.known.get(Fingerprint::of(end_entity)).map(|listed| listed.standing) {
            Some(Standing::Good) => Ok(verified),
            Some(Standing::Revoked) => Err(CertificateError::Revoked.into()),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The authority that a recovery site showed.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<RwLock<Option<CertificateDer<'static>>>>);

impl Shown {
    #[must_use]
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Accepts the recovery site whose authority has the fingerprint of the token.
#[derive(Debug)]
struct ByFingerprint {
    authority: Fingerprint,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|shown| Fingerprint::of(shown) == self.authority);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = chain.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Some(authority);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake means, for a person: why, and what to do. None when it failed for another reason.
#[must_use]
pub fn why_refused(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Some(
            "the recovery site refused our certificate because it has expired: pair the sites again (`understudy link \
             invite` there, `understudy link join` here), and check both clocks",
        ),
        rustls::Error::AlertReceived(AlertDescription::CertificateRevoked) => Some(
            "the recovery site has revoked our certificate: pair the sites again (`understudy link invite` there, \
             `understudy link join` here)",
        ),
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate,
        ) => Some(
            "the recovery site does not know our certificate: pair the sites again (`understudy link invite` there, \
             `understudy link join` here)",
        ),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => Some(
            "the recovery site wants a certificate: pair the sites (`understudy link invite` there, `understudy link join` here)",
        ),
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Some("what listens there is no recovery gateway of Understudy: check the address")
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Some("the other side does not speak TLS 1.3: upgrade it, or check the address")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Some("the recovery site's certificate is not valid at this time: check the clocks of both machines"),
        rustls::Error::InvalidCertificate(_) => Some(
            "what answered is not the recovery site this one was paired with (another authority): check the address, or pair \
             the sites again (`understudy link invite` there, `understudy link join` here)",
        ),
        rustls::Error::InvalidMessage(_) => Some(
            "what answered speaks no TLS: check the address, and that the recovery site does not listen in clear text",
        ),
        _ => None,
    }
}

fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An `io::Error` hides what it wraps from `source`.
        if let Some(found) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            if let Some(found) = found.downcast_ref::<rustls::Error>() {
                return Some(found);
            }
            if let Some(found) = found.source().and_then(tls_error) {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}
