//! The stores in memory, in a file and encrypted, and what every store does with a sensitive
//! answer. `redis` has the other tests of `RedisStore`.
#![cfg(feature = "testing")]

#[cfg(feature = "file")]
#[path = "support/own_process.rs"]
mod own_process;
#[cfg(feature = "redis")]
mod support;

mod stores {
    #[cfg(all(feature = "encrypted", feature = "file", feature = "redis"))]
    mod capacity;
    #[cfg(all(feature = "encrypted", feature = "file", feature = "redis"))]
    mod encrypted;
    #[cfg(feature = "file")]
    mod file;
    mod memory;
    #[cfg(all(feature = "encrypted", feature = "file", feature = "redis"))]
    mod sensitive;
}
