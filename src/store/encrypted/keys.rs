//! The keys, and how they encrypt and decrypt one outcome. It knows no store, and shows no
//! key.

use std::fmt;
use std::iter;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use http::{HeaderMap, HeaderValue};

use crate::error::{Error, RefusalKind, StoreError};
use crate::outcome::{Outcome, SEALED_WITH};
use crate::record::{StoredOutcome, decode_outcome, encode_outcome};

/// The bytes of a key.
const KEY_BYTES: usize = 32;

/// The bytes of a nonce, which precede the ciphertext. Random nonces of this length do not
/// repeat (draft-irtf-cfrg-xchacha, section 3.1).
const NONCE_BYTES: usize = 24;

/// The longest id of a key, in bytes. With it an outcome without a body still fits into a
/// full Redis, which takes small writes only.
const MAX_ID: usize = 64;

/// The keys of an [`Encrypted`](super::Encrypted) store: one that encrypts, and
/// any number that decrypt what was encrypted with them earlier.
///
/// A key is 32 random bytes with an id of 1–64 letters, digits, `.`, `_` or `-`, which is
/// readable in each record. **To rotate**, give the new key to all processes with
/// [`also_reads`](Self::also_reads) first. When all have it, let it encrypt, with the old
/// one in `also_reads`. Remove the old one when the last outcome encrypted with it has
/// expired (`result_ttl`, 24 h by default, or the longest `ttl` of a request).
///
/// The bytes are zeroised when dropped; `Debug` shows the ids only. Generate one with
/// `openssl rand -hex 32`, and store it apart from the store's backups.
///
/// ```
/// use genesys_once::EncryptionKeys;
///
/// # let (new, old) = ([7; 32], [8; 32]);
/// let keys = EncryptionKeys::new("2026-11", new)?.also_reads("2026-05", old)?;
/// assert_eq!(format!("{keys:?}"), r#"EncryptionKeys { encrypts: "2026-11", also_reads: ["2026-05"] }"#);
/// assert!(EncryptionKeys::new("2026-11", b"too short").is_err());
/// # Ok::<(), genesys_once::Error>(())
/// ```
pub struct EncryptionKeys {
    encrypts: Key,
    also_reads: Vec<Key>,
}

impl EncryptionKeys {
    /// The key that encrypts from now on, and decrypts.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the setting `encryption_keys`: the key does not have 32
    /// bytes, or the id is empty, longer than 64 bytes or has other characters than
    /// letters, digits, `.`, `_` and `-`.
    pub fn new(id: impl AsRef<str>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        Ok(Self {
            encrypts: Key::new(id.as_ref(), key.as_ref())?,
            also_reads: Vec::new(),
        })
    }

    /// A further key that decrypts.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and for an id that another key has.
    pub fn also_reads(mut self, id: impl AsRef<str>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let key = Key::new(id.as_ref(), key.as_ref())?;
        if self.find(&key.id).is_some() {
            let id = id.as_ref();
            return Err(invalid(format!("two encryption keys have the id {id:?}")));
        }
        self.also_reads.push(key);
        Ok(self)
    }

    fn find(&self, id: &HeaderValue) -> Option<&Key> {
        let mut keys = iter::once(&self.encrypts).chain(&self.also_reads);
        keys.find(|key| key.id == *id)
    }

    /// The encrypted form of an outcome in the store: the key's id, then a nonce and the
    /// ciphertext of status, headers, body and how much of them is stored. `bound_to` must
    /// be the same when it is decrypted.
    pub(super) fn seal(
        &self,
        bound_to: &str,
        stored: &StoredOutcome,
    ) -> Result<StoredOutcome, StoreError> {
        let body = self.encrypt(bound_to, &encode_outcome(stored))?;
        let id = self.encrypts.id.clone();
        let headers = HeaderMap::from_iter([(SEALED_WITH, id)]);
        Ok(StoredOutcome::full(Outcome::sealed(headers, body)))
    }

    /// A nonce and the ciphertext.
    fn encrypt(&self, bound_to: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let Key { id, cipher } = &self.encrypts;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| StoreError::refused_as(RefusalKind::NotNow, error.to_string()))?;
        let payload = Payload {
            msg: plain,
            aad: &associated(id, bound_to),
        };
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreError::refused("it is too large to encrypt"))?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// The encrypted form of a short text in the store: the key's id, a colon, and nonce
    /// and ciphertext in base64.
    pub(super) fn seal_text(&self, bound_to: &str, plain: &[u8]) -> Result<String, StoreError> {
        let sealed = BASE64.encode(self.encrypt(bound_to, plain)?);
        // An id is ASCII.
        let id = self.encrypts.id.to_str().unwrap_or_default();
        Ok(format!("{id}:{sealed}"))
    }

    /// Decrypts what [`seal_text`](Self::seal_text) made; `None` where it cannot.
    pub(super) fn open_text(&self, bound_to: &str, sealed: &str) -> Option<Vec<u8>> {
        let (id, sealed) = sealed.split_once(':')?;
        let key = self.find(&HeaderValue::from_str(id).ok()?)?;
        let sealed = BASE64.decode(sealed).ok()?;
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(&key.id, bound_to),
        };
        key.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }

    /// Decrypts what [`seal`](Self::seal) made.
    pub(super) fn open(
        &self,
        bound_to: &str,
        sealed: &Outcome,
    ) -> Result<StoredOutcome, StoreError> {
        let unreadable = |why: String| StoreError::unreadable(why);
        let mut ids = sealed.headers().get_all(SEALED_WITH).iter();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return Err(unreadable("it does not name its encryption key".into()));
        };
        let Some(Key { cipher, .. }) = self.find(id) else {
            // Written by another program: of any length and content.
            let id: String = id.as_bytes().escape_ascii().to_string();
            let id = id.get(..MAX_ID).unwrap_or(&id);
            return Err(unreadable(format!(
                "unknown encryption key {id:?}: give it to `EncryptionKeys::also_reads`"
            )));
        };
        let Some((nonce, ciphertext)) = sealed.body().split_first_chunk::<NONCE_BYTES>() else {
            return Err(unreadable("its ciphertext is truncated".into()));
        };
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(id, bound_to),
        };
        let plain = cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| {
                unreadable(
                    "it cannot be decrypted: it was changed, or moved from another record".into(),
                )
            })?;
        decode_outcome(&plain)
    }
}

/// What the ciphertext is authenticated with, beside its key. No part contains a line feed,
/// so different lists of parts have different bytes.
fn associated(id: &HeaderValue, bound_to: &str) -> Vec<u8> {
    [
        b"genesys-once/3 sealed\n",
        id.as_bytes(),
        b"\n",
        bound_to.as_bytes(),
    ]
    .concat()
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let also_reads: Vec<_> = self.also_reads.iter().map(|key| &key.id).collect();
        f.debug_struct("EncryptionKeys")
            .field("encrypts", &self.encrypts.id)
            .field("also_reads", &also_reads)
            .finish()
    }
}

struct Key {
    id: HeaderValue,
    /// Zeroises its bytes when dropped. Boxed: a moved box leaves no copy of them.
    cipher: Box<XChaCha20Poly1305>,
}

impl Key {
    fn new(id: &str, bytes: &[u8]) -> Result<Self, Error> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let good = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(good);
        let Some(value) = HeaderValue::from_str(id).ok().filter(|_| good) else {
            return Err(invalid(format!(
                "invalid id of an encryption key: expected 1 to {MAX_ID} letters, digits, '.', '_' or '-'"
            )));
        };
        let cipher = XChaCha20Poly1305::new_from_slice(bytes).map_err(|_| {
            let length = bytes.len();
            invalid(format!(
                "invalid encryption key {id:?}: expected {KEY_BYTES} bytes, found {length}"
            ))
        })?;
        Ok(Self {
            id: value,
            cipher: Box::new(cipher),
        })
    }
}

fn invalid(reason: String) -> Error {
    Error::invalid_config("encryption_keys", reason)
}
