//! Encrypted outcomes: the store that seals and opens them, its keys, and the
//! check that refuses them to a reader without keys. It decides no transition.

#[cfg(feature = "encrypted")]
mod keys;
mod sealed;
#[cfg(feature = "encrypted")]
mod wrapper;

#[cfg(feature = "encrypted")]
pub use self::keys::EncryptionKeys;
pub(crate) use self::sealed::readable;
#[cfg(feature = "encrypted")]
pub use self::wrapper::Encrypted;
