//! The last moment before a request leaves: the end of its body is handed over
//! only while the lease lives, and a request whose end was never handed over is
//! proven not to have been executed. It changes no byte.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::upstream::{Call, Gate};

/// A body of so many bytes is handed over at once, and written at once with its
/// head. A larger one may be refused, or lose its connection, while it leaves.
const ONE_WRITE: usize = 64 * 1024;

/// From when the first part of a large body is written until its end is handed
/// over. A server that refuses the request by its head has said so by then, or has
/// reset the connection; on one that is far away, while the first part was written.
const PAUSE: Duration = Duration::from_millis(5);

/// What tells whether the HTTP client was given the whole body; a clone is the
/// same.
///
/// The client asks for it when a connection is there and the head is written,
/// so a process that was stopped while it connected asks here after it woke up.
///
/// A request without the end of its body cannot be executed. Its head announces
/// the length (`Content-Length`), and a server treats what is shorter as
/// incomplete (RFC 9112 §6.3 and §8). And what it has is no JSON text, since the
/// byte that would complete the text is in the end that is kept back. A server
/// that acts all the same is beyond any proof, except where it says so: see
/// [`acted_on`](Self::acted_on).
#[derive(Clone, Debug)]
pub(super) struct Handed {
    call: Call,
    gate: Arc<Gate>,
}

impl Handed {
    /// For the end of a send: whether the end of the body has not left. Then it
    /// never leaves, although a connection may still have the body.
    pub(super) fn nothing(&self) -> bool {
        let nothing = self.gate.close();
        if nothing {
            self.call.forget(&self.gate);
        }
        nothing
    }

    /// The server answers, and does not refuse the request: it may have acted on
    /// what it had of the body, and the end of this send proves nothing from now on.
    pub(super) fn acted_on(&self) {
        self.gate.pass();
    }

    pub(super) fn max_response_bytes(&self) -> usize {
        self.call.max_response_bytes()
    }
}

/// The body of one call: in one frame, or where it is large in two.
pub(super) struct GatedBody {
    handed: Handed,
    left: Left,
}

/// What of a body has not been handed over.
enum Left {
    Whole(Bytes),
    /// The first part is under way. The end follows when the task is over.
    End(Bytes, JoinHandle<()>),
    Nothing,
}

impl GatedBody {
    /// The body of `call`, and what will tell whether it was handed over.
    pub(super) fn new(call: &Call) -> (Self, Handed) {
        let handed = Handed {
            call: call.clone(),
            gate: call.gate(),
        };
        let body = Self {
            left: Left::Whole(call.body()),
            handed: handed.clone(),
        };
        (body, handed)
    }

    /// The first frame of a large body. The connection learns of a refusal or of
    /// its own end by reading, and it reads before it asks for the rest: so the rest
    /// is kept back until this is written and what the server says has had time to
    /// come.
    fn begin(&mut self, mut body: Bytes) -> Result<Bytes, Lapsed> {
        let Handed { call, gate } = &self.handed;
        if gate.is_closed() || !call.may_leave() {
            return Err(Lapsed);
        }
        let last = body.iter().rposition(|byte| !byte.is_ascii_whitespace());
        let end = body.split_off(last.unwrap_or(0));
        let (held, written) = oneshot::channel();
        let later = tokio::spawn(async {
            // Never sent: it ends when the connection drops what it has written.
            let _ = written.await;
            sleep(PAUSE).await;
        });
        self.left = Left::End(end, later);
        Ok(Bytes::from_owner(Part { body, _held: held }))
    }

    /// The last frame, or the only one: with it the request is whole.
    fn finish(&self, end: Bytes) -> Result<Bytes, Lapsed> {
        let Handed { call, gate } = &self.handed;
        let passes = call.may_leave() && gate.pass();
        passes.then_some(end).ok_or(Lapsed)
    }
}

/// The first part of a large body. The connection drops it when it is written.
struct Part {
    body: Bytes,
    _held: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Why a body was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("the lease lapsed, or the attempt ended, before the whole request was sent")]
pub(super) struct Lapsed;

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Lapsed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lapsed>>> {
        if let Left::End(_, later) = &mut self.left {
            // A runtime that ends takes the connection with it.
            let _ = ready!(Pin::new(later).poll(context));
        }
        let frame = match mem::replace(&mut self.left, Left::Nothing) {
            Left::Whole(body) if body.len() > ONE_WRITE => self.begin(body),
            Left::Whole(body) => self.finish(body),
            Left::End(end, _) => self.finish(end),
            Left::Nothing => return Poll::Ready(None),
        };
        Poll::Ready(Some(frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.left {
            Left::Whole(bytes) | Left::End(bytes, _) => bytes.len(),
            Left::Nothing => 0,
        };
        SizeHint::with_exact(left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::DataActionRequest;
    use crate::upstream::Lease;
    use tokio::time::{Instant, advance};

    fn next(body: &mut GatedBody) -> Option<Result<Bytes, Lapsed>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(frame) => frame.map(|frame| frame.map(|f| f.into_data().unwrap())),
            Poll::Pending => panic!("the connection would have to wait"),
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

    fn large() -> Call {
        let payload = format!("\"{}\" \n", "x".repeat(ONE_WRITE));
        Call::new(DataActionRequest::new("refund", payload).unwrap(), 1)
    }

    #[test]
    fn body_of_one_write_is_one_frame() {
        let payload = format!("\"{}\"", "x".repeat(ONE_WRITE - 2));
        let call = Call::new(DataActionRequest::new("refund", payload).unwrap(), 1);
        let (mut body, handed) = GatedBody::new(&call);
        assert_eq!(next(&mut body).unwrap().unwrap().len(), ONE_WRITE);
        assert!(body.is_end_stream() && !handed.nothing());
    }

    /// Red when the end is handed over with the rest, or as soon as it is written.
    #[tokio::test(start_paused = true)]
    async fn end_of_a_large_body_waits_until_the_rest_is_written() {
        let (mut body, handed) = GatedBody::new(&large());
        let length = body.size_hint().exact().unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let begun = next(&mut body).unwrap().unwrap();
        assert!(begun.starts_with(b"\"x") && begun.ends_with(b"x"));
        assert!(!body.is_end_stream());
        let mut is_pending = |body: &mut GatedBody| {
            let polled = Pin::new(body).poll_frame(&mut context);
            polled.is_pending()
        };
        sleep(2 * PAUSE).await;
        assert!(is_pending(&mut body), "it is not written yet");
        let written = begun.len() as u64;
        drop(begun);
        assert!(is_pending(&mut body), "nothing was read since");
        let end = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let end = end.await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(end, "\" \n");
        assert_eq!(written + end.len() as u64, length);
        assert!(body.is_end_stream() && !handed.nothing());
    }

    /// Red when the first part passes the gate: a connection that fails with half
    /// of the request then leaves the key indeterminate.
    #[tokio::test(start_paused = true)]
    async fn large_body_without_its_end_was_not_handed_over() {
        let second = Duration::from_secs(1);
        let lease = Lease::until(Instant::now() + second);
        let (mut body, handed) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        assert!(handed.nothing());
        sleep(2 * PAUSE).await;
        assert!(next(&mut body).unwrap().is_err());

        // I1 for the end, and for the beginning.
        let (mut body, handed) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        advance(second).await;
        sleep(2 * PAUSE).await;
        assert!(next(&mut body).unwrap().is_err());
        assert!(handed.nothing());
        let (mut body, handed) = GatedBody::new(&large().under(&lease));
        assert!(next(&mut body).unwrap().is_err());
        assert!(handed.nothing());
    }

    /// Red without `acted_on`.
    #[tokio::test]
    async fn answer_outweighs_a_missing_end() {
        let lease = Lease::until(Instant::now() + Duration::from_secs(1));
        let (mut body, handed) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        handed.acted_on();
        assert!(!handed.nothing());
        assert!(!lease.is_unsent());
    }

    /// For an upstream without a gate: it asks before it sends.
    ///
    /// Red when only the lease counts.
    #[tokio::test(start_paused = true)]
    async fn attempt_that_is_over_lets_nothing_leave() {
        let lease = Lease::until(Instant::now() + Duration::from_secs(1));
        let call = call().under(&lease);
        assert!(call.may_leave());
        assert!(!lease.is_unsent());
        lease.extend(Instant::now() + Duration::from_secs(2));
        assert!(!call.may_leave());
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
