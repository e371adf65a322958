//! The one-time token: where the recovery site is, by which fingerprint it is recognised, and a secret.
//!
//! Keeps true: a token that was copied badly is told apart from one that is wrong.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::Fingerprint;

const PREFIX: &str = "understudy-join-";
const VERSION: u8 = 1;
const SECRET: usize = 20;
const CHECK: usize = 4;
/// Addresses in all, in bytes.
const LONGEST: usize = 4096;

/// What `link invite` prints.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the recovery site listens, the best first.
    pub urls: Vec<String>,
    /// Of the recovery site's authority.
    pub authority: Fingerprint,
    pub secret: [u8; SECRET],
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it does not begin with {PREFIX}")]
    Other,
    #[error("a part of it is missing or was changed on the way")]
    Damaged,
    #[error("it was made by a later version of Understudy")]
    Later,
}

/// What is kept of a token's secret.
#[must_use]
pub fn secret_digest(secret: &[u8]) -> [u8; 32] {
    *blake3::hash(secret).as_bytes()
}

impl JoinToken {
    /// With a secret of its own.
    #[must_use]
    pub fn new(urls: Vec<String>, authority: Fingerprint) -> Self {
        Self { urls, authority, secret: rand::random() }
    }

    /// As a person carries it to the other site.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(self.urls.join(" ").as_bytes());
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK]);
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token; white space around it and within it, as mail programs add it, does not count.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text: String = text.split_whitespace().collect();
        let text = text.strip_prefix(PREFIX).ok_or(TokenError::Other)?;
        if text.len() > LONGEST * 2 {
            return Err(TokenError::Damaged);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or(TokenError::Damaged)?;
        if blake3::hash(body).as_bytes()[..CHECK] != check[..] {
            return Err(TokenError::Damaged);
        }
        let (&version, body) = body.split_first().ok_or(TokenError::Damaged)?;
        if version != VERSION {
            return Err(TokenError::Later);
        }
        let (authority, body) = body.split_first_chunk::<32>().ok_or(TokenError::Damaged)?;
        let (secret, urls) = body.split_first_chunk::<SECRET>().ok_or(TokenError::Damaged)?;
        let urls = std::str::from_utf8(urls).map_err(|_| TokenError::Damaged)?;
        let urls: Vec<String> = urls.split(' ').filter(|url| !url.is_empty()).map(str::to_owned).collect();
        if urls.is_empty() {
            return Err(TokenError::Damaged);
        }
        Ok(Self { urls, authority: Fingerprint(*authority), secret: *secret })
    }
}

/// Without the secret.
impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("urls", &self.urls)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_damaged_one_is_not() {
        let urls = vec!["https://dr.example.org:8443".to_owned(), "https://192.0.2.1:8443".to_owned()];
        let token = JoinToken::new(urls, Fingerprint([7; 32]));
        let text = token.encode();
        assert_eq!(JoinToken::parse(&text).unwrap(), token);
        let (head, tail) = text.split_at(40);
        assert_eq!(JoinToken::parse(&format!(" {head}\n  {tail}\n")).unwrap(), token);
        for cut in 0..text.len() {
            assert!(JoinToken::parse(&text[..cut]).is_err());
        }
        for place in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(JoinToken::parse(&changed).is_err(), "{changed}");
        }
        assert_eq!(JoinToken::parse("hello"), Err(TokenError::Other));
        assert!(!format!("{token:?}").contains("secret:"));
    }
}
