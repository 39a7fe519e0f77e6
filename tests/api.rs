//! What a program that embeds the crate compiles against: the public API and its
//! typestates, keys, what is printed and logged, the simulator, and the order of the
//! crate's own modules.

#[path = "support/own_process.rs"]
mod own_process;
#[cfg(feature = "redis")]
mod support;

mod api {
    mod architecture;
    #[cfg(feature = "testing")]
    mod conversions;
    #[cfg(feature = "testing")]
    mod damaged_answers;
    #[cfg(feature = "testing")]
    mod embedder;
    #[cfg(feature = "testing")]
    mod keys;
    #[cfg(all(feature = "testing", feature = "genesys"))]
    mod public_api;
    #[cfg(all(feature = "testing", feature = "genesys"))]
    mod secrets;
    #[cfg(feature = "testing")]
    mod simulator;
    #[cfg(all(feature = "testing", feature = "tower"))]
    mod tower_layers;
    mod typestates;
}
