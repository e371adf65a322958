//! Who the source gateway is on the link: its key, its certificate, and how the recovery site is recognised.

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::{Error, FileError, Fingerprint, Life, files, link_folder};

/// The one file; key and certificate always fit, since they are written together.
pub const SOURCE_FILE: &str = "source.json";

/// As it lies in its file.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    recovery_urls: Vec<String>,
    authority: String,
    certificate: String,
    key: String,
}

/// A paired source gateway.
#[derive(Clone)]
pub struct Identity {
    pub name: String,
    /// Where the recovery site said it listens when the sites were paired.
    pub recovery_urls: Vec<String>,
    pub authority: CertificateDer<'static>,
    pub certificate: CertificateDer<'static>,
    pub life: Life,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
    key_pem: String,
}

/// Without the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fingerprint = self.fingerprint();
        f.debug_struct("Identity").field("name", &self.name).field("fingerprint", &fingerprint).finish_non_exhaustive()
    }
}

/// A key just made, and the request to have it certified. The key stays here.
pub struct Request {
    key: KeyPair,
    der: Vec<u8>,
}

/// What `link join` sends, as JSON.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Base64 of the token's secret.
    pub secret: String,
    /// Base64 of the request for a certificate, in DER.
    pub request: String,
    /// What the source site calls itself.
    pub name: String,
    pub product_version: String,
}

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    pub name: String,
    /// PEM.
    pub certificate: String,
}

impl Request {
    /// A new key.
    pub fn new() -> Result<Self, Error> {
        Self::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    fn of(key: KeyPair) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let der = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, der })
    }

    /// The request, without the key.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key now has this certificate (PEM): it is kept, and its file written.
    pub fn keep(
        self,
        data_dir: &Path,
        name: String,
        recovery_urls: Vec<String>,
        authority: &CertificateDer<'_>,
        certificate_pem: &str,
    ) -> Result<Identity, Error> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| Error::Unreadable("the recovery site's answer"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| Error::Unreadable("the recovery site's answer"))?;
        if parsed.public_key().raw != self.key.subject_public_key_info() {
            return Err(Error::Unreadable("the recovery site's answer"));
        }
        let stored = Stored {
            name,
            recovery_urls,
            authority: crate::authority::pem_of(authority),
            certificate: certificate_pem.to_owned(),
            key: self.key.serialize_pem(),
        };
        let identity = Identity::of(&stored).map_err(|reason| Error::File(broken(data_dir, reason)))?;
        identity.write(data_dir)?;
        Ok(identity)
    }
}

fn broken(data_dir: &Path, reason: String) -> FileError {
    FileError::Broken { path: link_folder(data_dir).join(SOURCE_FILE), reason }
}

impl Identity {
    /// Who this site is; none when it was never paired.
    pub fn open(data_dir: &Path) -> Result<Option<Self>, FileError> {
        let Some(text) = files::read(&link_folder(data_dir).join(SOURCE_FILE))? else { return Ok(None) };
        let stored: Stored = serde_json::from_str(&text).map_err(|error| broken(data_dir, error.to_string()))?;
        Self::of(&stored).map(Some).map_err(|reason| broken(data_dir, reason))
    }

    fn of(stored: &Stored) -> Result<Self, String> {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string());
        let own = certificate(&stored.certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(stored.key.as_bytes()).map_err(|_| "its key is unreadable".to_owned())?;
        Ok(Self {
            name: stored.name.clone(),
            recovery_urls: stored.recovery_urls.clone(),
            authority: certificate(&stored.authority)?,
            life: Life::of(&own).map_err(|error| error.to_string())?,
            certificate: own,
            key: Arc::new(key),
            key_pem: stored.key.clone(),
        })
    }

    fn write(&self, data_dir: &Path) -> Result<(), FileError> {
        let stored = Stored {
            name: self.name.clone(),
            recovery_urls: self.recovery_urls.clone(),
            authority: crate::authority::pem_of(&self.authority),
            certificate: crate::authority::pem_of(&self.certificate),
            key: self.key_pem.clone(),
        };
        let text = serde_json::to_string_pretty(&stored).map_err(|error| broken(data_dir, error.to_string()))?;
        files::write(data_dir, SOURCE_FILE, &(text + "\n")).map(|_| ())
    }

    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The next certificate for a new key, from the recovery site's answer.
    pub fn renewed(&self, data_dir: &Path, request: Request, certificate_pem: &str) -> Result<Self, Error> {
        request.keep(data_dir, self.name.clone(), self.recovery_urls.clone(), &self.authority, certificate_pem)
    }
}
