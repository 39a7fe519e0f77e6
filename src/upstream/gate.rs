//! The proof that a request was not whole when its attempt ended. It sends nothing, and
//! knows no body.

use std::sync::atomic::{AtomicU8, Ordering};

/// The end of a body, without which the request is not whole, passes this gate before it
/// leaves. The gate is passed once, or closed for good. So an attempt that closes it knows
/// what has left, even while a connection's task still has the body.
#[derive(Debug, Default)]
pub(crate) struct SendGate(AtomicU8);

impl SendGate {
    const UNUSED: u8 = 0;
    #[cfg(feature = "genesys")]
    const PASSED: u8 = 1;
    const CLOSED: u8 = 2;

    /// Lets the end of the body pass, unless the gate is closed; returns whether it may.
    #[cfg(feature = "genesys")]
    pub(crate) fn pass(&self) -> bool {
        self.set(Self::PASSED) == Self::PASSED
    }

    /// Whether the end of the body can never pass.
    #[cfg(feature = "genesys")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::CLOSED
    }

    /// Closes the gate; returns whether nothing has passed it.
    pub(crate) fn close(&self) -> bool {
        self.set(Self::CLOSED) == Self::CLOSED
    }

    /// Sets an unused gate to `state`, and returns its state.
    fn set(&self, state: u8) -> u8 {
        let set = self
            .0
            .compare_exchange(Self::UNUSED, state, Ordering::SeqCst, Ordering::SeqCst);
        set.map_or_else(|found| found, |_| state)
    }
}
