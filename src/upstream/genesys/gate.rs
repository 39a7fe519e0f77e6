//! The last moment before a request leaves: its body is handed over only while
//! the lease lives, and what was never handed over is proven not to have been
//! executed. It changes no byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::upstream::Call;

/// Whether the HTTP client was given the body; a clone is the same.
///
/// The client asks for it when a connection is there and the head is written,
/// so a process that was stopped while it connected asks here after it woke up.
/// A request without its body, which its head announces, cannot be executed:
/// as long as nobody took the body, nothing has been.
#[derive(Clone, Debug, Default)]
pub(super) struct Handed(Arc<AtomicBool>);

impl Handed {
    /// Whether a byte of the body may have left.
    pub(super) fn over(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The body of one call.
pub(super) struct GatedBody {
    call: Call,
    bytes: Option<Bytes>,
    handed: Handed,
}

impl GatedBody {
    /// The body of `call`, and what will tell whether it was handed over.
    pub(super) fn new(call: &Call) -> (Self, Handed) {
        let handed = Handed::default();
        let body = Self {
            call: call.clone(),
            bytes: Some(call.body()),
            handed: handed.clone(),
        };
        (body, handed)
    }
}

/// Why a body was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("the lease lapsed before the first byte of the request was sent")]
pub(super) struct Lapsed;

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Lapsed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lapsed>>> {
        if !self.call.may_leave() {
            self.bytes = None;
            return Poll::Ready(Some(Err(Lapsed)));
        }
        let bytes = self.bytes.take();
        if bytes.is_some() {
            self.handed.0.store(true, Ordering::SeqCst);
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
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
        assert!(!handed.over() && !body.is_end_stream());
        assert_eq!(next(&mut body).unwrap().unwrap(), "[1]");
        assert!(handed.over() && body.is_end_stream());
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
        assert!(!handed.over());
        // A lease that is extended meanwhile does not bring it back.
        lease.extend(Instant::now() + second);
        assert!(next(&mut body).is_none());

        let (mut body, handed) = GatedBody::new(&call().under(&lease));
        assert!(next(&mut body).unwrap().is_ok());
        assert!(handed.over());
    }
}
