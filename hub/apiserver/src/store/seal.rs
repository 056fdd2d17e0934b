//! Encryption of Secrets at rest: AES-256-GCM with keys that the operator keeps in files.

use std::{fmt, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The kinds whose objects are encrypted.
const SEALED_KINDS: [&str; 1] = ["secrets"];

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
/// A key file holds 32 bytes or their base64; more than this is something else.
const FILE_BYTES_MAX: u64 = 128;

/// Names a key without telling it: the start of a digest of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId([u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl KeyId {
    /// The key of sealed bytes.
    pub(super) fn of_sealed(sealed: &[u8]) -> Option<KeyId> {
        sealed.first_chunk().map(|id| KeyId(*id))
    }
}

/// A key that encrypts Secrets in the database; clones are handles to the same one.
#[derive(Clone)]
pub struct EncryptionKey(Arc<Key>);

struct Key {
    id: KeyId,
    key: RandomizedNonceKey,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({})", self.0.id)
    }
}

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {path}: {cause}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the key file {path} has mode {mode:04o}: nobody but its owner may use it: chmod 600")]
    Open {
        /// Which file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// It does not hold a key.
    #[error(
        "the key file {path} holds no key: write 32 random bytes, or their base64, for example with \
         `head -c 32 /dev/urandom | base64`"
    )]
    Content {
        /// Which file.
        path: String,
    },
}

impl EncryptionKey {
    /// Reads a key from a file with 32 bytes or their base64, which its owner alone may use.
    pub fn read(path: &Path) -> Result<EncryptionKey, KeyFileError> {
        let shown = || path.display().to_string();
        let failed = |cause| KeyFileError::Read { path: shown(), cause };
        let about = fs::metadata(path).map_err(failed)?;
        if about.mode() & 0o077 != 0 {
            return Err(KeyFileError::Open { path: shown(), mode: about.mode() & 0o7777 });
        }
        let content = || KeyFileError::Content { path: shown() };
        if about.len() > FILE_BYTES_MAX {
            return Err(content());
        }
        let bytes = fs::read(path).map_err(failed)?;
        let key = match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Some(key),
            Err(_) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| STANDARD.decode(text.trim()).ok())
                .and_then(|bytes| bytes.try_into().ok()),
        };
        key.and_then(|key| EncryptionKey::new(&key)).ok_or_else(content)
    }

    /// A key of those bytes. `None`: the cipher does not take them.
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Option<EncryptionKey> {
        let named = [b"muster key id".as_slice(), bytes].concat();
        let id = *digest(&SHA256, &named).as_ref().first_chunk()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()?;
        Some(EncryptionKey(Arc::new(Key { id: KeyId(id), key })))
    }

    pub(super) fn id(&self) -> KeyId {
        self.0.id
    }

    /// The key's id, a nonce, and the encrypted bytes with their tag. `None`: the host gives no
    /// randomness for a nonce.
    pub(super) fn seal(&self, bound: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.0.key.seal_in_place_append_tag(Aad::from(bound), &mut sealed).ok()?;
        let mut all = Vec::with_capacity(ID_BYTES + NONCE_BYTES + sealed.len());
        all.extend_from_slice(&self.0.id.0);
        all.extend_from_slice(nonce.as_ref());
        all.append(&mut sealed);
        Some(all)
    }
}

/// Why sealed bytes cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    Damaged,
    Key(KeyId),
}

/// How objects are encrypted from now on, and the keys of those that are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sealing {
    /// The first one encrypts.
    keys: Vec<EncryptionKey>,
    /// The keys only open: everything is written as it is.
    off: bool,
}

impl Sealing {
    pub(crate) fn new(keys: Vec<EncryptionKey>, off: bool) -> Sealing {
        Sealing { keys, off }
    }

    /// The key with which objects of a kind are to be encrypted.
    pub(super) fn wants(&self, kind: &str) -> Option<&EncryptionKey> {
        self.keys.first().filter(|_| !self.off && SEALED_KINDS.contains(&kind))
    }

    pub(super) fn open(&self, bound: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let id = KeyId::of_sealed(sealed).ok_or(OpenError::Damaged)?;
        let key = self.keys.iter().find(|key| key.id() == id).ok_or(OpenError::Key(id))?;
        let (nonce, sealed) =
            sealed[ID_BYTES..].split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.0.key.open_in_place(nonce, Aad::from(bound), &mut plain);
        let length = opened.map_err(|_| OpenError::Damaged)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}
