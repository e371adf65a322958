//! Seals second factors, so that a copy of the database opens no account.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, anyhow, ensure};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

const KEY: usize = 32;
const NONCE: usize = 24;
/// What the key of digests is derived for.
const DIGESTS: &str = "understudy admin 2026-11 digests of requests";

/// The key, ready for use.
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    digests: [u8; KEY],
}

impl Seal {
    /// A key that lasts as long as the process.
    pub(crate) fn random() -> Self {
        Self::with(rand::random())
    }

    /// The key in this file, which nobody else may read; made when it is not there.
    pub(crate) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let key: [u8; KEY] = match fs::read(path) {
            Ok(key) => {
                let mode = fs::metadata(path)?.mode();
                ensure!(mode & 0o077 == 0, "others may read it; make it yours alone: chmod 600");
                key.try_into().map_err(|_| anyhow!("it does not hold a key of {KEY} bytes"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            Err(error) => return Err(error.into()),
        };
        Ok(Self::with(key))
    }

    fn with(key: [u8; KEY]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&key.into()), digests: blake3::derive_key(DIGESTS, &key) }
    }

    /// Begins a digest from which nobody who has only the database can guess what it is of.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.digests)
    }

    /// Seals a secret for one account.
    pub(crate) fn close(&self, account_id: i64, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: secret, aad: &account_id.to_be_bytes() };
        let sealed =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| anyhow!("could not seal a secret"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// What was sealed for this account.
    pub(crate) fn open(&self, account_id: i64, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).context("a sealed secret is cut off")?;
        let nonce: [u8; NONCE] = nonce.try_into()?;
        let payload = Payload { msg: sealed, aad: &account_id.to_be_bytes() };
        let opened = self.cipher.decrypt(&XNonce::from(nonce), payload);
        opened
            .map_err(|_| anyhow!("a second factor was sealed with another key; `understudy user reset-second-factor`"))
    }
}

/// Written beside and renamed into place: a crash leaves no half a key.
fn make(path: &Path) -> anyhow::Result<[u8; KEY]> {
    let key: [u8; KEY] = rand::random();
    let fresh = path.with_extension(format!("new{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_for_its_account_and_with_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.key");
        let sealed = Seal::from_file(&path).unwrap().close(7, b"secret").unwrap();
        let again = Seal::from_file(&path).unwrap();
        assert_eq!(again.open(7, &sealed).unwrap(), b"secret");
        assert!(again.open(8, &sealed).is_err());
        assert!(Seal::random().open(7, &sealed).is_err());
        assert!(again.open(7, &sealed[..NONCE - 1]).is_err());
    }
}
