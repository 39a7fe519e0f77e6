//! The rules of a record: an exhaustive search of their interleavings, the typestates
//! without an engine, and a simulation of engines, callers, operators and faults.

mod protocol {
    #[cfg(feature = "testing")]
    mod execution;
    mod model;
    #[cfg(feature = "testing")]
    mod simulation;
}
