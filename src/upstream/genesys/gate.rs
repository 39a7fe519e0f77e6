//! The last moment before a request leaves: its body is handed over only while
//! the lease lives, and what was never handed over is proven not to have been
//! executed. It changes no byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::upstream::{Call, Gate};

/// What tells whether the HTTP client was given the body; a clone is the same.
///
/// The client asks for it when a connection is there and the head is written,
/// so a process that was stopped while it connected asks here after it woke up.
/// A request without its body, which its head announces, cannot be executed:
/// as long as nobody took the body, nothing has been.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    call: Call,
    gate: Arc<Gate>,
}

impl Handed {
    /// For the end of a send: whether no byte of the body has left. Then none
    /// leaves any more, although a connection may still have it.
    pub(super) fn nothing(&self) -> bool {
        let nothing = self.gate.close();
        if nothing {
            self.call.forget(&self.gate);
        }
        nothing
    }
}

/// The body of one call.
pub(super) struct GatedBody {
    handed: Handed,
    bytes: Option<Bytes>,
}

impl GatedBody {
    /// The body of `call`, and what will tell whether it was handed over.
    pub(super) fn new(call: &Call) -> (Self, Handed) {
        let handed = Handed {
            call: call.clone(),
            gate: call.gate(),
        };
        let body = Self {
            bytes: Some(call.body()),
            handed: handed.clone(),
        };
        (body, handed)
    }
}

/// Why a body was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("the lease lapsed, or the attempt ended, before the first byte of the request was sent")]
pub(super) struct Lapsed;

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Lapsed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lapsed>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        let Handed { call, gate } = &self.handed;
        let passes = call.may_leave() && gate.pass();
        Poll::Ready(Some(passes.then(|| Frame::data(bytes)).ok_or(Lapsed)))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::DataActionRequest;
    use crate::upstream::Lease;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    fn next(body: &mut GatedBody) -> Option<Result<Bytes, Lapsed>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(frame) => frame.map(|frame| frame.map(|f| f.into_data().unwrap())),
            Poll::Pending => panic!("a body of bytes is never pending"),
        }
    }

    fn call() -> Call {
        Call::new(DataActionRequest::new("refund", "[1]").unwrap(), 1)
    }

    #[test]
    fn a_call_by_hand_is_handed_over_whole_and_once() {
        let (mut body, handed) = GatedBody::new(&call());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body).unwrap().unwrap(), "[1]");
        assert!(!handed.nothing() && body.is_end_stream());
        assert!(next(&mut body).is_none());
    }

    /// I1.
    #[tokio::test(start_paused = true)]
    async fn past_the_lease_nothing_is_handed_over() {
        let second = Duration::from_secs(1);
        let lease = Lease::until(Instant::now() + second);
        let (mut body, handed) = GatedBody::new(&call().under(&lease));
        advance(second).await;
        assert!(next(&mut body).unwrap().is_err());
        assert!(handed.nothing());
        // A lease that is extended meanwhile does not bring it back.
        lease.extend(Instant::now() + second);
        assert!(next(&mut body).is_none());

        let (mut body, handed) = GatedBody::new(&call().under(&lease));
        assert!(next(&mut body).unwrap().is_ok());
        assert!(!handed.nothing());
    }

    /// The task of a connection may still have the body when the attempt is over.
    ///
    /// Red when the end of a send looks at what was handed over without closing.
    #[test]
    fn proof_that_nothing_left_stays_true() {
        let (mut body, handed) = GatedBody::new(&call());
        assert!(handed.nothing());
        assert!(next(&mut body).unwrap().is_err());
        assert!(handed.nothing());
    }

    /// What only the engine can see: the end of an attempt whose upstream is gone.
    #[tokio::test(start_paused = true)]
    async fn end_of_an_attempt_is_judged_by_its_gate() {
        let lease = || Lease::until(Instant::now() + Duration::from_secs(1));
        let unknown = lease();
        let _call = call().under(&unknown);
        assert!(!unknown.is_unsent(), "an upstream without a gate");

        let dropped = lease();
        let (mut body, handed) = GatedBody::new(&call().under(&dropped));
        drop(handed);
        assert!(dropped.is_unsent());
        assert!(next(&mut body).unwrap().is_err());

        let passed = lease();
        let under = call().under(&passed);
        let (mut body, _) = GatedBody::new(&under);
        assert!(next(&mut body).unwrap().is_ok());
        let _again = GatedBody::new(&under);
        assert!(!passed.is_unsent(), "an earlier send of the call");

        let ended = lease();
        let (_body, handed) = GatedBody::new(&call().under(&ended));
        assert!(handed.nothing());
        assert!(!ended.is_unsent(), "its upstream may have gone on");
    }
}
