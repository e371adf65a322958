//! What people log in with: passwords, second factors, and how often they may try.
//!
//! Keeps true: a password is compared as slowly for a name nobody has as for one somebody has; no more than a few are compared at
//! once; a secret that must be readable (the second factor's) rests sealed under a key that is not in the database.

mod limit;
mod passwords;
mod seal;
mod totp;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::Context;

pub(crate) use limit::{Limits, TRIES};
pub(crate) use passwords::{Passwords, password_problem, random_words};
pub(crate) use seal::Seal;
pub(crate) use totp::{Totp, matching_step};

/// What logging in needs, shared by all requests.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) passwords: Passwords,
    pub(crate) limits: Arc<Mutex<Limits>>,
    pub(crate) seal: Arc<Seal>,
}

impl Login {
    /// With a key that lasts as long as the process.
    pub(crate) fn new() -> Self {
        Self::with(Seal::random())
    }

    /// With the key in this file, made when it is not there.
    pub(crate) fn with_key_file(path: &Path) -> anyhow::Result<Self> {
        let seal =
            Seal::from_file(path).with_context(|| format!("could not read or make the key {}", path.display()))?;
        Ok(Self::with(seal))
    }

    fn with(seal: Seal) -> Self {
        Self { passwords: Passwords::new(), limits: Arc::default(), seal: Arc::new(seal) }
    }
}
