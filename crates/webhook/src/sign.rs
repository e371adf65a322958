//! Signatures as Standard Webhooks writes them: HMAC-SHA256 over id, time and body.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2_next::Sha256;

/// Before the base64 of a key.
const PREFIX: &str = "whsec_";

/// What `webhook-signature` says: `v1,` and the base64 of the HMAC over `id.timestamp.body`.
///
/// The key is what follows `whsec_` as base64; a secret without that prefix is taken as it is.
#[must_use]
pub fn signature(secret: &SecretString, id: &str, timestamp: i64, body: &str) -> String {
    let secret = secret.expose_secret();
    let decoded = secret.strip_prefix(PREFIX).and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}
