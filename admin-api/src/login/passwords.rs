//! Passwords: made, judged, kept as Argon2id makes them, compared.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, anyhow};
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{PasswordHash, SaltString},
};
use tokio::sync::Semaphore;

/// OWASP's first choice but one: 19 MiB, two passes. In KiB.
const MEMORY: u32 = 19 << 10;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Passwords compared at once; more wait, so that log-ins never take the memory of the rest.
const AT_ONCE: usize = 4;
const SHORTEST: usize = 12;
const LONGEST: usize = 256;
/// Letters and digits that nobody mistakes for each other.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// What a name that nobody has is compared with.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody has this password").unwrap_or_default());

/// Compares passwords, a few at once.
#[derive(Clone)]
pub(crate) struct Passwords(Arc<Semaphore>);

impl Passwords {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// What is kept of a password.
    pub(crate) async fn keep(&self, password: String) -> anyhow::Result<String> {
        let _permit = self.0.acquire().await?;
        tokio::task::spawn_blocking(move || hash(&password)).await?
    }

    /// Whether this is the password that `kept` was made of. Takes as long when nothing is kept.
    pub(crate) async fn is(&self, password: String, kept: Option<String>) -> anyhow::Result<bool> {
        let _permit = self.0.acquire().await?;
        tokio::task::spawn_blocking(move || {
            let known = kept.is_some();
            let kept = kept.unwrap_or_else(|| NOBODY.clone());
            let kept = PasswordHash::new(&kept).map_err(|error| anyhow!("a kept password is damaged: {error}"))?;
            Ok(argon2()?.verify_password(password.as_bytes(), &kept).is_ok() && known)
        })
        .await
        .context("a password could not be compared")?
    }
}

fn argon2() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(MEMORY, PASSES, LANES, None).map_err(|error| anyhow!("Argon2id: {error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|error| anyhow!("a salt: {error}"))?;
    let hash = argon2()?.hash_password(password.as_bytes(), &salt).map_err(|error| anyhow!("Argon2id: {error}"))?;
    Ok(hash.to_string())
}

/// Random words of letters that can be read aloud, joined with hyphens.
pub(crate) fn random_words(words: usize, letters: usize) -> String {
    let letter = || char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    let words: Vec<String> = (0..words).map(|_| (0..letters).map(|_| letter()).collect()).collect();
    words.join("-")
}

/// What is wrong with a password somebody chose.
pub(crate) fn password_problem(name: &str, password: &str) -> Option<String> {
    let length = password.chars().count();
    if !(SHORTEST..=LONGEST).contains(&length) {
        return Some(format!("a password has {SHORTEST} to {LONGEST} characters"));
    }
    let lower = password.to_lowercase();
    if lower.contains(&name.to_lowercase()) || lower.contains("understudy") {
        return Some("a password does not contain the name of its account or of the product".to_owned());
    }
    let mut kinds: Vec<char> = lower.chars().collect();
    kinds.sort_unstable();
    kinds.dedup();
    (kinds.len() < 6).then(|| "a password has at least 6 different characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_is_the_same() {
        let passwords = Passwords::new();
        let kept = passwords.keep("correct horse battery".to_owned()).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert!(passwords.is("correct horse battery".to_owned(), Some(kept.clone())).await.unwrap());
        assert!(!passwords.is("correct horse batterx".to_owned(), Some(kept)).await.unwrap());
        assert!(!passwords.is("nobody has this password".to_owned(), None).await.unwrap());
    }

    #[test]
    fn passwords_that_are_easily_guessed_are_refused() {
        for bad in ["short", "aaaaaaaaaaaaaaaa", "my-name-is-ann-x", "understudy-1234"] {
            assert!(password_problem("ann", bad).is_some(), "{bad}");
        }
        assert_eq!(password_problem("ann", "correct horse battery"), None);
        assert_eq!(password_problem("bob", &random_words(4, 5)), None);
    }
}
