//! What proves that a request was not whole when its attempt ended. It sends nothing.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the end of the body of one send has to pass: the part without which the
/// request is not whole. It opens once, or closes for good: so the attempt that
/// closes it knows what has left, also while a connection's task still has the
/// body.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    const UNUSED: u8 = 0;
    #[cfg(feature = "genesys")]
    const PASSED: u8 = 1;
    const CLOSED: u8 = 2;

    /// Whether the end of the body may be handed over. It has been from then on.
    #[cfg(feature = "genesys")]
    pub(crate) fn pass(&self) -> bool {
        self.turn(Self::PASSED) == Self::PASSED
    }

    /// Whether the end of the body will never be handed over.
    #[cfg(feature = "genesys")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::CLOSED
    }

    /// Closes the gate; whether nothing has passed it.
    pub(crate) fn close(&self) -> bool {
        self.turn(Self::CLOSED) == Self::CLOSED
    }

    /// Turns an unused gate to `state`, and returns the state that it is in.
    fn turn(&self, state: u8) -> u8 {
        let turned =
            self.0
                .compare_exchange(Self::UNUSED, state, Ordering::SeqCst, Ordering::SeqCst);
        turned.map_or_else(|found| found, |_| state)
    }
}
