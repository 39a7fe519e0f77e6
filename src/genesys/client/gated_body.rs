//! The body of one call, whose end reaches the connection only while the lease is live. A
//! request whose end never reached a connection was not executed. It changes no byte.

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

use crate::upstream::{Call, SendGate};

/// A body of at most so many bytes is written together with its head. A larger one can be
/// refused, or lose its connection, while it is written.
const MAX_FIRST_PART: usize = 64 * 1024;

/// The time from the writing of a large body's first part until its end follows. A server
/// that refuses the request by its head has answered by then, or has reset the connection.
/// A remote server does so while the first part is written.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether the HTTP client has the whole body; a clone shares it.
///
/// The client asks for the body after it has a connection and has written the head. So a
/// process that was stopped while it connected checks the lease after it resumes.
///
/// A request without the end of its body cannot be executed. Its head announces the length
/// (`Content-Length`), and a server treats a shorter body as incomplete (RFC 9112 sections
/// 6.3 and 8). The part that the server has is not JSON, since the byte that completes the
/// text is in the end. Only an answer can show that a server acted all the same: see
/// [`acted_on`](Self::acted_on).
#[derive(Clone, Debug)]
pub(super) struct SendEvidence {
    call: Call,
    gate: Arc<SendGate>,
}

impl SendEvidence {
    /// Ends the send. Returns whether the end of the body has not left, and then it never
    /// leaves, although a connection might still have the body.
    pub(super) fn is_unsent(&self) -> bool {
        let unsent = self.gate.close();
        if unsent {
            self.call.forget(&self.gate);
        }
        unsent
    }

    /// The server has answered without a refusal: it might have acted on a part of the
    /// body, so that the end of this send proves nothing.
    pub(super) fn acted_on(&self) {
        self.gate.pass();
    }

    pub(super) fn max_response_bytes(&self) -> usize {
        self.call.max_response_bytes()
    }
}

/// The body of one call: in one frame, or in two if it is large.
pub(super) struct GatedBody {
    evidence: SendEvidence,
    left: Left,
}

/// The part of a body that the connection does not have.
enum Left {
    Whole(Bytes),
    /// The first part is under way. The end follows after the task.
    End(Bytes, JoinHandle<()>),
    Nothing,
}

impl GatedBody {
    /// The body of `call`, and the evidence whether it has left.
    pub(super) fn new(call: &Call) -> (Self, SendEvidence) {
        let evidence = SendEvidence {
            call: call.clone(),
            gate: call.gate(),
        };
        let body = Self {
            left: Left::Whole(call.body()),
            evidence: evidence.clone(),
        };
        (body, evidence)
    }

    /// The first frame of a large body. The connection finds a refusal, or its own end, by
    /// reading, and it reads before it asks for the next frame. So the next frame waits
    /// until this one is written and an answer had time to arrive.
    fn begin(&mut self, mut body: Bytes) -> Result<Bytes, GateClosed> {
        let SendEvidence { call, gate } = &self.evidence;
        if gate.is_closed() || !call.may_leave() {
            return Err(GateClosed);
        }
        let last = body.iter().rposition(|byte| !byte.is_ascii_whitespace());
        let end = body.split_off(last.unwrap_or(0));
        let (held, written) = oneshot::channel();
        let later = tokio::spawn(async {
            // Nothing is sent: this ends when the connection drops the written frame.
            let _ = written.await;
            sleep(PAUSE).await;
        });
        self.left = Left::End(end, later);
        Ok(Bytes::from_owner(Part { body, _held: held }))
    }

    /// The last frame or the only one, with which the request is whole.
    fn finish(&self, end: Bytes) -> Result<Bytes, GateClosed> {
        let SendEvidence { call, gate } = &self.evidence;
        let passes = call.may_leave() && gate.pass();
        passes.then_some(end).ok_or(GateClosed)
    }
}

/// The first part of a large body, which the connection drops after writing it.
struct Part {
    body: Bytes,
    _held: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Why a body did not reach the connection.
#[derive(Debug, thiserror::Error)]
#[error("the lease expired, or the attempt ended, before the whole request was sent")]
pub(super) struct GateClosed;

impl Body for GatedBody {
    type Data = Bytes;
    type Error = GateClosed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GateClosed>>> {
        if let Left::End(_, later) = &mut self.left {
            // If the runtime ends, so does the connection.
            let _ = ready!(Pin::new(later).poll(context));
        }
        let frame = match mem::replace(&mut self.left, Left::Nothing) {
            Left::Whole(body) if body.len() > MAX_FIRST_PART => self.begin(body),
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

    fn next(body: &mut GatedBody) -> Option<Result<Bytes, GateClosed>> {
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
    fn call_by_hand_yields_its_body_once() {
        let (mut body, evidence) = GatedBody::new(&call());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body).unwrap().unwrap(), "[1]");
        assert!(!evidence.is_unsent() && body.is_end_stream());
        assert!(next(&mut body).is_none());
    }

    /// I1.
    #[tokio::test(start_paused = true)]
    async fn expired_lease_yields_no_body() {
        let second = Duration::from_secs(1);
        let lease = Lease::until(Instant::now() + second);
        let (mut body, evidence) = GatedBody::new(&call().under(&lease));
        advance(second).await;
        assert!(next(&mut body).unwrap().is_err());
        assert!(evidence.is_unsent());
        // A later extension of the lease does not reopen the body.
        lease.extend(Instant::now() + second);
        assert!(next(&mut body).is_none());

        let (mut body, evidence) = GatedBody::new(&call().under(&lease));
        assert!(next(&mut body).unwrap().is_ok());
        assert!(!evidence.is_unsent());
    }

    fn large() -> Call {
        let payload = format!("\"{}\" \n", "x".repeat(MAX_FIRST_PART));
        Call::new(DataActionRequest::new("refund", payload).unwrap(), 1)
    }

    #[test]
    fn body_of_one_write_is_one_frame() {
        let payload = format!("\"{}\"", "x".repeat(MAX_FIRST_PART - 2));
        let call = Call::new(DataActionRequest::new("refund", payload).unwrap(), 1);
        let (mut body, evidence) = GatedBody::new(&call);
        assert_eq!(next(&mut body).unwrap().unwrap().len(), MAX_FIRST_PART);
        assert!(body.is_end_stream() && !evidence.is_unsent());
    }

    /// Red if the end follows with the first part, or as soon as that is written.
    #[tokio::test(start_paused = true)]
    async fn end_of_large_body_waits_for_the_first_part() {
        let (mut body, evidence) = GatedBody::new(&large());
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
        assert!(body.is_end_stream() && !evidence.is_unsent());
    }

    /// Red if the first part passes the gate: a connection that fails with half of the
    /// request then leaves the key indeterminate.
    #[tokio::test(start_paused = true)]
    async fn large_body_without_its_end_is_unsent() {
        let second = Duration::from_secs(1);
        let lease = Lease::until(Instant::now() + second);
        let (mut body, evidence) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        assert!(evidence.is_unsent());
        sleep(2 * PAUSE).await;
        assert!(next(&mut body).unwrap().is_err());

        // I1 for the end, and for the beginning.
        let (mut body, evidence) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        advance(second).await;
        sleep(2 * PAUSE).await;
        assert!(next(&mut body).unwrap().is_err());
        assert!(evidence.is_unsent());
        let (mut body, evidence) = GatedBody::new(&large().under(&lease));
        assert!(next(&mut body).unwrap().is_err());
        assert!(evidence.is_unsent());
    }

    /// Red without `acted_on`.
    #[tokio::test]
    async fn answer_disproves_a_missing_end() {
        let lease = Lease::until(Instant::now() + Duration::from_secs(1));
        let (mut body, evidence) = GatedBody::new(&large().under(&lease));
        drop(next(&mut body).unwrap().unwrap());
        evidence.acted_on();
        assert!(!evidence.is_unsent());
        assert!(!lease.is_unsent());
    }

    /// For an upstream without a gate, which checks before it sends. Red if only the
    /// lease counts.
    #[tokio::test(start_paused = true)]
    async fn ended_attempt_lets_nothing_leave() {
        let lease = Lease::until(Instant::now() + Duration::from_secs(1));
        let call = call().under(&lease);
        assert!(call.may_leave());
        assert!(!lease.is_unsent());
        lease.extend(Instant::now() + Duration::from_secs(2));
        assert!(!call.may_leave());
    }

    /// A connection's task might still have the body when the attempt ends. Red if the end
    /// of a send reads the gate without closing it.
    #[test]
    fn proof_of_unsent_stays_true() {
        let (mut body, evidence) = GatedBody::new(&call());
        assert!(evidence.is_unsent());
        assert!(next(&mut body).unwrap().is_err());
        assert!(evidence.is_unsent());
    }

    /// The engine's view: the end of an attempt whose upstream was dropped.
    #[tokio::test(start_paused = true)]
    async fn attempt_end_is_judged_by_its_gate() {
        let lease = || Lease::until(Instant::now() + Duration::from_secs(1));
        let unknown = lease();
        let _call = call().under(&unknown);
        assert!(!unknown.is_unsent(), "an upstream without a gate");

        let dropped = lease();
        let (mut body, evidence) = GatedBody::new(&call().under(&dropped));
        drop(evidence);
        assert!(dropped.is_unsent());
        assert!(next(&mut body).unwrap().is_err());

        let passed = lease();
        let under = call().under(&passed);
        let (mut body, _) = GatedBody::new(&under);
        assert!(next(&mut body).unwrap().is_ok());
        let _again = GatedBody::new(&under);
        assert!(!passed.is_unsent(), "an earlier send of the call");

        let ended = lease();
        let (_body, evidence) = GatedBody::new(&call().under(&ended));
        assert!(evidence.is_unsent());
        assert!(!ended.is_unsent(), "its upstream might go on");
    }
}
