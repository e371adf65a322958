//! Sealing contents at rest: XChaCha20-Poly1305 in segments, one data key a tenant, wrapped by a master key kept elsewhere.
//!
//! In: the master keys of a file, newest first. Out: sealed segments and their opening.
//! Keeps true: no nonce is used twice with one key, since every content gets a random prefix of its own; segments that were left out,
//! swapped or cut off do not open.

use std::fmt;

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretBox};
use understudy_database::content::WrappedKey;
use understudy_protocol::{Digest, TenantId};

/// Plain bytes of a segment: what must be read to read any byte of it.
pub(crate) const SEGMENT: usize = 64 << 10;
/// What each segment gains.
pub(crate) const TAG: usize = 16;
/// What precedes the first segment of a content.
pub(crate) const PREFIX: usize = 16;
/// The nonce of a wrapped key.
const NONCE: usize = 24;

/// Something did not open: other bytes, another key, another place.
#[derive(Debug, thiserror::Error)]
#[error("it does not open with its key: it was changed, or the key is another")]
pub(crate) struct Unopened;

/// How many bytes a content takes once it is sealed.
pub(crate) fn sealed_size(size: u64) -> u64 {
    if size == 0 { 0 } else { size + PREFIX as u64 + TAG as u64 * size.div_ceil(SEGMENT as u64) }
}

/// Keys that wrap data keys, the one in use first.
#[derive(Clone)]
pub struct MasterKeys(std::sync::Arc<[Master]>);

struct Master {
    /// Tells keys apart; says nothing of the key.
    name: String,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|master| &master.name)).finish()
    }
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    #[error("it holds no key")]
    Empty,
    #[error("line {0} is not a key: 64 hexadecimal digits, 32 bytes at random")]
    Line(usize),
}

impl MasterKeys {
    /// One key a line, 64 hexadecimal digits each: first the one in use, then those it replaced. Lines with `#` are notes.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let digest: Digest = line.parse().map_err(|_| BadKeys::Line(index + 1))?;
            let key = SecretBox::new(Box::new(digest.0));
            let name = blake3::derive_key("understudy 2026 name of a content master key", key.expose_secret());
            keys.push(Master {
                name: Digest(name).to_string()[..16].to_owned(),
                cipher: XChaCha20Poly1305::new(key.expose_secret().into()),
            });
        }
        if keys.is_empty() { Err(BadKeys::Empty) } else { Ok(Self(keys.into())) }
    }

    /// The key in use.
    pub(crate) fn current(&self) -> &str {
        &self.0[0].name
    }

    /// A new data key for a tenant, and how it is kept.
    pub(crate) fn make(&self, tenant: TenantId) -> Result<(DataKey, Vec<u8>), Unopened> {
        let mut key = SecretBox::new(Box::new([0; 32]));
        rand::rng().fill_bytes(secrecy::ExposeSecretMut::expose_secret_mut(&mut key));
        let wrapped = self.wrap(tenant, key.expose_secret())?;
        Ok((DataKey::new(&key), wrapped))
    }

    fn wrap(&self, tenant: TenantId, key: &[u8; 32]) -> Result<Vec<u8>, Unopened> {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let mut sealed = key.to_vec();
        self.0[0].cipher.encrypt_in_place(&nonce.into(), &bound(tenant), &mut sealed).map_err(|_| Unopened)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The data key, and how it is kept from now on where another key than the one in use wraps it.
    pub(crate) fn unwrap(&self, kept: &WrappedKey) -> Result<(DataKey, Option<Vec<u8>>), Unopened> {
        let master = self.0.iter().find(|master| master.name == kept.master).ok_or(Unopened)?;
        let (nonce, sealed) = kept.wrapped.split_first_chunk::<NONCE>().ok_or(Unopened)?;
        let mut opened = sealed.to_vec();
        master
            .cipher
            .decrypt_in_place(&XNonce::from(*nonce), &bound(kept.tenant), &mut opened)
            .map_err(|_| Unopened)?;
        let key = SecretBox::new(Box::new(<[u8; 32]>::try_from(opened.as_slice()).map_err(|_| Unopened)?));
        let rewrapped =
            if master.name == self.current() { None } else { Some(self.wrap(kept.tenant, key.expose_secret())?) };
        Ok((DataKey::new(&key), rewrapped))
    }
}

/// A wrapped key opens for its own tenant only.
fn bound(tenant: TenantId) -> Vec<u8> {
    [b"understudy content key of tenant ".as_slice(), tenant.to_string().as_bytes()].concat()
}

/// What a tenant's contents are sealed with.
pub(crate) struct DataKey(XChaCha20Poly1305);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    fn new(key: &SecretBox<[u8; 32]>) -> Self {
        Self(XChaCha20Poly1305::new(key.expose_secret().into()))
    }

    /// Opens the segment of this number in place.
    pub(crate) fn open(
        &self,
        prefix: &[u8; PREFIX],
        index: u64,
        last: bool,
        segment: &mut Vec<u8>,
    ) -> Result<(), Unopened> {
        self.0.decrypt_in_place(&nonce(prefix, index, last), &[], segment).map_err(|_| Unopened)
    }
}

/// Which segment, and whether it is the last: one that is cut off there, or moved, does not open.
fn nonce(prefix: &[u8; PREFIX], index: u64, last: bool) -> XNonce {
    let mut nonce = [0; NONCE];
    nonce[..PREFIX].copy_from_slice(prefix);
    nonce[PREFIX..].copy_from_slice(&(index << 1 | u64::from(last)).to_be_bytes());
    nonce.into()
}

/// A content being sealed as it comes by.
pub(crate) struct Sealing {
    key: std::sync::Arc<DataKey>,
    prefix: [u8; PREFIX],
    index: u64,
    plain: Vec<u8>,
    begun: bool,
}

impl Sealing {
    pub(crate) fn new(key: std::sync::Arc<DataKey>) -> Self {
        let mut prefix = [0; PREFIX];
        rand::rng().fill_bytes(&mut prefix);
        Self { key, prefix, index: 0, plain: Vec::new(), begun: false }
    }

    /// Takes a piece; gives what is sealed of it to `out`.
    pub(crate) fn write<E>(
        &mut self,
        mut piece: &[u8],
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Unopened> {
        while !piece.is_empty() {
            // Kept back until more comes: the last segment is sealed as the last.
            if self.plain.len() == SEGMENT
                && let Err(error) = self.segment(false, out)?
            {
                return Ok(Err(error));
            }
            let (now, rest) = piece.split_at(piece.len().min(SEGMENT - self.plain.len()));
            self.plain.extend_from_slice(now);
            piece = rest;
        }
        Ok(Ok(()))
    }

    /// The content is whole.
    pub(crate) fn finish<E>(mut self, out: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Result<(), E>, Unopened> {
        if self.plain.is_empty() { Ok(Ok(())) } else { self.segment(true, out) }
    }

    fn segment<E>(
        &mut self,
        last: bool,
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Unopened> {
        if !self.begun {
            self.begun = true;
            if let Err(error) = out(&self.prefix) {
                return Ok(Err(error));
            }
        }
        let nonce = nonce(&self.prefix, self.index, last);
        self.key.0.encrypt_in_place(&nonce, &[], &mut self.plain).map_err(|_| Unopened)?;
        self.index += 1;
        let written = out(&self.plain);
        self.plain.clear();
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

    fn sealed(key: &Arc<DataKey>, plain: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut take = |bytes: &[u8]| -> Result<(), Infallible> {
            out.extend_from_slice(bytes);
            Ok(())
        };
        let mut sealing = Sealing::new(key.clone());
        for piece in plain.chunks(piece) {
            sealing.write(piece, &mut take).expect("seal").expect("take");
        }
        sealing.finish(&mut take).expect("seal").expect("take");
        out
    }

    fn opened(key: &DataKey, sealed: &[u8], size: usize) -> Option<Vec<u8>> {
        let Some((prefix, mut rest)) = sealed.split_first_chunk::<PREFIX>() else { return Some(Vec::new()) };
        let last = size.div_ceil(SEGMENT) - 1;
        let mut out = Vec::new();
        for index in 0..=last {
            let (segment, after) = rest.split_at(rest.len().min(SEGMENT + TAG));
            let mut segment = segment.to_vec();
            key.open(prefix, index as u64, index == last, &mut segment).ok()?;
            out.extend(segment);
            rest = after;
        }
        Some(out)
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let keys = MasterKeys::parse(KEY).expect("keys");
        let (key, _) = keys.make(TenantId(1)).expect("key");
        let (other, _) = keys.make(TenantId(1)).expect("key");
        let key = Arc::new(key);
        for size in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 3 * SEGMENT + 7] {
            let plain: Vec<u8> = (0..size).map(|at| at as u8).collect();
            for piece in [7000, SEGMENT, 200_000] {
                let sealed = sealed(&key, &plain, piece);
                assert_eq!(sealed.len() as u64, sealed_size(size as u64));
                assert_eq!(opened(&key, &sealed, size).as_deref(), Some(&plain[..]));
                if size > 0 {
                    assert_eq!(opened(&other, &sealed, size), None);
                    for at in [0, sealed.len() / 2, sealed.len() - 1] {
                        let mut changed = sealed.clone();
                        changed[at] ^= 1;
                        assert_eq!(opened(&key, &changed, size), None, "{size} {at}");
                    }
                }
                if size > SEGMENT {
                    // Cut at a segment, with a size to match.
                    assert_eq!(opened(&key, &sealed[..PREFIX + SEGMENT + TAG], SEGMENT), None);
                }
            }
        }
        assert_ne!(sealed(&key, b"same", 9), sealed(&key, b"same", 9));
    }

    #[test]
    fn another_master_key_takes_over_and_the_first_may_go() {
        let tenant = TenantId(7);
        let (old, both, new) = (
            MasterKeys::parse(KEY).expect("keys"),
            MasterKeys::parse(&format!("# newest first\n{OTHER}\n{KEY}\n")).expect("keys"),
            MasterKeys::parse(OTHER).expect("keys"),
        );
        let (key, wrapped) = old.make(tenant).expect("key");
        let text = sealed(&Arc::new(key), b"text", 9);
        let kept = WrappedKey { key: 1, tenant, master: old.current().to_owned(), wrapped };
        assert!(new.unwrap(&kept).is_err());
        let (_, rewrapped) = both.unwrap(&kept).expect("key");
        let kept = WrappedKey { master: both.current().to_owned(), wrapped: rewrapped.expect("rewrapped"), ..kept };
        let (key, rewrapped) = new.unwrap(&kept).expect("key");
        assert!(rewrapped.is_none());
        assert_eq!(opened(&key, &text, 4).as_deref(), Some(&b"text"[..]));
        assert!(new.unwrap(&WrappedKey { tenant: TenantId(8), ..kept }).is_err(), "a key of another tenant");
        assert!(matches!(MasterKeys::parse("\n#\n"), Err(BadKeys::Empty)));
        assert!(matches!(MasterKeys::parse(&format!("{KEY}\nabc")), Err(BadKeys::Line(2))));
        assert!(!format!("{both:?}").contains(&KEY[..8]));
    }
}
