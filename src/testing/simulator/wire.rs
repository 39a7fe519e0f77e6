//! HTTP helpers: reading a body up to a limit, decoding forms and path segments, and making
//! hyper's response of an outcome, whole or cut. It knows no route.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};

use crate::outcome::Outcome;
use crate::testing::answers;

/// The largest body that the simulator keeps.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// The largest one that it reads to its end, to answer instead of resetting a
/// client that is still writing.
const MAX_READ: usize = 4 * MAX_BODY;

/// Why a body was not read.
pub(super) enum BodyError {
    TooLarge,
    /// The client disconnected, or sent malformed HTTP.
    Broken,
}

pub(super) async fn read(mut body: Incoming) -> Result<Bytes, BodyError> {
    let mut kept = BytesMut::new();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let data = frame.into_data().unwrap_or_default();
        read += data.len();
        if read <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else if read > MAX_READ {
            break;
        }
    }
    if read > MAX_BODY {
        Err(BodyError::TooLarge)
    } else {
        Ok(kept.freeze())
    }
}

/// The fields of a form, in order; `None` if the text is not a form.
pub(super) fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let pairs = std::str::from_utf8(body)
        .ok()?
        .split('&')
        .filter(|pair| !pair.is_empty());
    let decode = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((form_decode(name)?, form_decode(value)?))
    };
    pairs.map(decode).collect()
}

/// Decodes one name or value of a form.
pub(super) fn form_decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Decodes one path segment; `None` where a `%` starts no byte, or the bytes
/// are no UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let value = |digit: u8| char::from(digit).to_digit(16);
                (
                    u8::try_from(value(digits[0])? << 4 | value(digits[1])?).ok()?,
                    after,
                )
            }
            plain => (*plain, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// What hyper sends.
pub(super) type WireAnswer = Response<Either<Full<Bytes>, CutBody>>;

/// The outcome as a response, with a correlation id where it has none.
pub(super) fn whole(outcome: Outcome) -> WireAnswer {
    let mut response = Response::new(Either::Left(Full::new(outcome.body().clone())));
    *response.status_mut() = outcome.status();
    *response.headers_mut() = outcome.headers().clone();
    // Both frame the message, which is hyper's work.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(TRANSFER_ENCODING);
    identify(response)
}

/// 200 with a body that ends before its `Content-Length`.
pub(super) fn cut() -> WireAnswer {
    let sent = Bytes::from_static(br#"{"refund":"R-"#);
    let mut response = Response::new(Either::Right(CutBody {
        left: Some(sent),
        flushed: false,
    }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("4096"));
    identify(response)
}

fn identify(mut response: WireAnswer) -> WireAnswer {
    let id = HeaderValue::from_str(&answers::fresh_id()).expect("hex digits and hyphens");
    let name = HeaderName::from_static(answers::CORRELATION_ID);
    response.headers_mut().entry(name).or_insert(id);
    response
}

/// A body that fails after its first bytes, which ends the connection.
pub(super) struct CutBody {
    left: Option<Bytes>,
    flushed: bool,
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.left.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            // hyper throws away what it has not flushed when a body fails, and
            // flushes when a body has nothing ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_path_segment_is_refused() {
        assert_eq!(percent_decode("custom_-_1").as_deref(), Some("custom_-_1"));
        assert_eq!(percent_decode("a%20%C3%A9%2fb").as_deref(), Some("a é/b"));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn form_is_read_as_pairs() {
        let pairs = form(b"a=1+2&b=%3D&c").unwrap();
        let expected = [("a", "1 2"), ("b", "="), ("c", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
        assert_eq!(form(b""), Some(Vec::new()));
        assert_eq!(form(b"\xff=1"), None);
    }
}
