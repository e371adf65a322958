//! The recovery site's own small authority: signs certificates for both ends of the link, and nothing else.
//!
//! Keeps true: of a request only the public key is taken; name, purpose and dates are ours.

use std::{path::Path, time::Duration};

use chrono::{DateTime, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject,
};

use crate::{Error, FileError, Fingerprint, files, link_folder};

/// The name by which the recovery site is known on the link, whatever address it has.
pub const RECOVERY_NAME: &str = "recovery.understudy.internal";
const FILE: &str = "authority.pem";
/// As long as nobody will want to pair anew because of it.
const AUTHORITY_DAYS: i64 = 25 * 365;
/// Clocks may differ by so much.
const CLOCKS: Duration = Duration::from_secs(3600);

/// From when to when a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

impl Life {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, Error> {
        let unreadable = || Error::Unreadable("a certificate");
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        let moment = |time: x509_parser::time::ASN1Time| DateTime::from_timestamp(time.timestamp(), 0);
        let (from, until) = (moment(parsed.validity().not_before), moment(parsed.validity().not_after));
        Ok(Self { from: from.ok_or_else(unreadable)?, until: until.ok_or_else(unreadable)? })
    }

    /// When to take care of the next one: after two thirds.
    #[must_use]
    pub fn renew_at(&self) -> DateTime<Utc> {
        // Certificates are dated back for clocks that differ.
        let issued = self.from + CLOCKS;
        self.until - (self.until - issued) / 3
    }
}

/// A certificate just signed.
#[derive(Clone, Debug)]
pub struct Issued {
    pub der: Vec<u8>,
    pub pem: String,
    pub fingerprint: Fingerprint,
    pub life: Life,
}

/// The key that signs, and its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of this recovery site; made at the first call.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = link_folder(data_dir).join(FILE);
        if let Some(text) = files::read(&path)? {
            let broken = |reason: String| FileError::Broken { path: path.clone(), reason };
            let key = KeyPair::from_pem(&text).map_err(|error| broken(error.to_string()))?;
            let certificate =
                CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| broken(error.to_string()))?;
            return Self::of(key, certificate);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = named("Understudy link authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        date(&mut params, Duration::from_secs(AUTHORITY_DAYS.unsigned_abs() * 24 * 3600));
        let certificate = params.self_signed(&key)?;
        files::write(data_dir, FILE, &format!("{}{}", key.serialize_pem(), certificate.pem()))?;
        Self::of(key, certificate.der().clone())
    }

    fn of(key: KeyPair, certificate: CertificateDer<'static>) -> Result<Self, Error> {
        let pem = pem_of(&certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, pem })
    }

    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// A certificate for the source gateway called `name`, for the key that signed this request (DER).
    pub fn sign(&self, name: &str, request: &[u8], valid: Duration) -> Result<Issued, Error> {
        let request = CertificateSigningRequestDer::from(request);
        let asked = CertificateSigningRequestParams::from_der(&request).map_err(|_| Error::Forged)?;
        let mut params = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        date(&mut params, valid);
        let certificate = params.signed_by(&asked.public_key, &self.issuer)?;
        issued(certificate.der())
    }

    /// A key and a certificate for the recovery gateway itself; kept in memory only.
    pub fn serve(&self, valid: Duration) -> Result<(Issued, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = named("Understudy recovery gateway");
        params.subject_alt_names = CertificateParams::new(vec![RECOVERY_NAME.to_owned()])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        date(&mut params, valid);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((issued(certificate.der())?, key))
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn date(params: &mut CertificateParams, valid: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - CLOCKS).into();
    params.not_after = (now + valid).into();
}

fn issued(certificate: &CertificateDer<'_>) -> Result<Issued, Error> {
    Ok(Issued {
        der: certificate.to_vec(),
        pem: pem_of(certificate),
        fingerprint: Fingerprint::of(certificate),
        life: Life::of(certificate)?,
    })
}

pub(crate) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

    use super::*;
    use crate::Request;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_authority_is_made_once_and_signs_what_asks_with_its_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        assert_eq!(authority.fingerprint(), Authority::open(dir.path()).unwrap().fingerprint());
        let request = Request::new().unwrap();
        let issued = authority.sign("mail-a", request.der(), HOUR).unwrap();
        let left = issued.life.until - Utc::now();
        assert!(left.num_minutes() >= 58 && left.num_minutes() <= 60, "{left}");
        let renew_in = issued.life.renew_at() - Utc::now();
        assert!(renew_in.num_minutes() >= 38 && renew_in.num_minutes() <= 41, "{renew_in}");
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let request = Request::new().unwrap();
        // All that its signature covers; what is around it says only how it was signed.
        let (_, parsed) = X509CertificationRequest::from_der(request.der()).unwrap();
        let covered = parsed.certification_request_info.raw;
        let begin = covered.as_ptr().addr() - request.der().as_ptr().addr();
        for place in begin..begin + covered.len() {
            let mut changed = request.der().to_vec();
            changed[place] ^= 1;
            assert!(authority.sign("mail-a", &changed, HOUR).is_err(), "octet {place}");
        }
    }
}
