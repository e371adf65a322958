//! Whom to trust: the system's authorities, or only those of a file.
//!
//! A certificate in the file is also trusted as the server's own, byte for byte: what `openssl req -x509` makes says of
//! itself that it is an authority, and would otherwise be refused as a server's (`CaUsedAsEndEntity`).

use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// Whom to trust where a connection is none of IMAP's: the certificates of `ca_file` only, or the system's authorities.
pub fn trust(ca_file: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    ca_file.map_or_else(system, only)
}

/// Trust in the system's authorities; read once per process.
pub(crate) fn system() -> io::Result<Arc<ClientConfig>> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    // Unreadable single certificates are the system's business; without any, every server would be refused.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?;
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))))
}

/// Trust in the certificates of `file` only.
pub(crate) fn only(file: &Path) -> io::Result<Arc<ClientConfig>> {
    let pem = std::fs::read(file)?;
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let trusted = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let trusted = trusted.map_err(|error| invalid(error.to_string()))?;
    if trusted.is_empty() {
        return Err(invalid("it holds no certificate".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let provider = Arc::new(ring::default_provider());
    let chain = if roots.is_empty() {
        None
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Some(builder.build().map_err(io::Error::other)?)
    };
    let verifier = Arc::new(OnlyThese { trusted, chain, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Accepts a server that shows one of these certificates itself, or one that they sign for its name.
#[derive(Debug)]
struct OnlyThese {
    trusted: Vec<CertificateDer<'static>>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OnlyThese {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Named by the administrator, octet for octet: its name and dates add nothing to that. That the server holds
        // its key is still shown by the signature below.
        if self.trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
