//! Time-based one-time passwords (RFC 6238) as authenticator apps make them: SHA-1, six digits, thirty seconds.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

const STEP_SECONDS: i64 = 30;
/// A clock may be one step off.
const SLACK: i64 = 1;
const SECRET: usize = 20;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A second factor to set up.
pub(crate) struct Totp([u8; SECRET]);

impl Totp {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As people type it into their app.
    pub(crate) fn text(&self) -> String {
        base32(&self.0)
    }

    /// As the app reads it from a picture.
    pub(crate) fn uri(&self, account: &str) -> String {
        let account: String = url::form_urlencoded::byte_serialize(account.as_bytes()).collect();
        let account = account.replace('+', "%20");
        format!("otpauth://totp/Understudy:{account}?secret={}&issuer=Understudy", self.text())
    }
}

/// Which time step around `now` (Unix seconds) this is the code of.
pub(crate) fn matching_step(secret: &[u8], code: &str, now: i64) -> Option<i64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let step = now / STEP_SECONDS;
    (step - SLACK..=step + SLACK).rev().find(|step| code_of(secret, *step) == code)
}

fn code_of(secret: &[u8], step: i64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let digest: [u8; 20] = mac.finalize().into_bytes().into();
    let at = usize::from(digest[19] & 15);
    let number = u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(BASE32[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(BASE32[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, its last six digits.
        let secret = b"12345678901234567890";
        for (at, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            assert_eq!(matching_step(secret, code, at), Some(at / STEP_SECONDS));
            assert_eq!(matching_step(secret, code, at + STEP_SECONDS), Some(at / STEP_SECONDS));
            assert_eq!(matching_step(secret, code, at + 3 * STEP_SECONDS), None);
        }
        assert_eq!(matching_step(secret, "287 082", 59), Some(1));
        assert_eq!(matching_step(secret, "", 59), None);
    }

    #[test]
    fn secrets_are_written_as_apps_read_them() {
        // RFC 4648, section 10, without padding.
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(b"f"), "MY");
        assert!(Totp([0; SECRET]).uri("ann b").starts_with("otpauth://totp/Understudy:ann%20b?secret=AAAA"));
    }
}
