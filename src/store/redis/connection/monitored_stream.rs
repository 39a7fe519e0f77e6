//! The bytes between redis-rs and one server. It records the last activity, and closes a
//! connection on which the server sends an unrequested or too large reply, before redis-rs
//! stores it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::resp::{FramingError, RespFraming};

/// The largest body, in bytes: an encrypted answer of 8 MiB several times over.
pub(crate) const MAX_BODY_BYTES: usize = 32 << 20;

/// What a connection transfers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Everything but large bodies. The largest replies are maps of clusters and pages of
    /// lists.
    Commands,
    /// Large bodies.
    Bodies,
}

impl Traffic {
    /// The largest reply, in bytes.
    pub(crate) fn bound(self) -> usize {
        match self {
            Self::Commands => 1 << 20,
            Self::Bodies => MAX_BODY_BYTES + (1 << 20),
        }
    }
}

/// The error for a larger one.
pub(crate) const TOO_LARGE: &str = "the reply is larger than requested";

/// When a connection last transferred bytes.
pub(crate) struct Activity {
    born: Instant,
    /// Milliseconds after `born`.
    last_received: AtomicU64,
    taken: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            last_received: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })
    }

    /// When the last byte was received.
    pub(crate) fn last_received(&self) -> Instant {
        self.born + Duration::from_millis(self.last_received.load(Ordering::Relaxed))
    }

    /// When the last byte was received, or accepted by the socket.
    pub(crate) fn moved(&self) -> Instant {
        let taken = Duration::from_millis(self.taken.load(Ordering::Relaxed));
        self.last_received().max(self.born + taken)
    }

    /// Records activity at that time.
    pub(crate) fn record_at(&self, at: Instant) {
        let at = at.saturating_duration_since(self.born).as_millis() as u64;
        self.taken.fetch_max(at, Ordering::Relaxed);
    }

    fn mark(&self, which: &AtomicU64) {
        let now = self.born.elapsed().as_millis() as u64;
        which.fetch_max(now, Ordering::Relaxed);
    }
}

/// A stream to a server.
pub(crate) struct MonitoredStream {
    stream: Box<dyn Stream>,
    activity: Arc<Activity>,
    sent: RespFraming,
    received: RespFraming,
    /// Commands sent, less the replies received.
    under_way: u64,
    /// The error that ends the connection, once the bytes before it have been read.
    broken: Option<io::Error>,
}

/// Plain, or within TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl MonitoredStream {
    /// With replies of `bound` bytes at most.
    pub(crate) fn new(stream: Box<dyn Stream>, bound: usize) -> (Self, Arc<Activity>) {
        let activity = Activity::new();
        let stream = Self {
            stream,
            activity: activity.clone(),
            sent: RespFraming::new(usize::MAX),
            received: RespFraming::new(bound),
            under_way: 0,
            broken: None,
        };
        (stream, activity)
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let under_way = &mut self.under_way;
        let read = self.received.read(bytes, |kind| {
            // A push message is no reply. Pushes confirm a subscription, so its command
            // stays counted.
            if kind == b'>' {
                return Ok(());
            }
            *under_way = under_way.checked_sub(1).ok_or(StreamError::Unrequested)?;
            Ok(())
        });
        read.map_err(|refused| {
            let reason = match refused {
                StreamError::Unrequested => "the server sent an unrequested reply",
                StreamError::Framing(FramingError::TooLarge) => TOO_LARGE,
                StreamError::Framing(FramingError::Malformed) => "the server does not speak RESP",
            };
            io::Error::new(io::ErrorKind::ConnectionAborted, reason)
        })
    }

    fn send(&mut self, bytes: &[u8]) {
        let under_way = &mut self.under_way;
        let sent = self.sent.read::<FramingError>(bytes, |_| {
            *under_way += 1;
            Ok(())
        });
        debug_assert_eq!(sent, Ok(()), "a command that is not RESP");
    }
}

/// Why a connection is ended.
enum StreamError {
    Unrequested,
    Framing(FramingError),
}

impl From<FramingError> for StreamError {
    fn from(broken: FramingError) -> Self {
        Self::Framing(broken)
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Err(broken));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let received = &buffer.filled()[before..];
        if !received.is_empty() {
            self.activity.mark(&self.activity.last_received);
            let received = self.receive(received);
            if let Err(broken) = received {
                // The replies before it belong to other commands.
                let whole = self.received.whole;
                if whole == 0 {
                    return Poll::Ready(Err(broken));
                }
                buffer.set_filled(before + whole);
                self.broken = Some(broken);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if taken > 0 {
            self.activity.mark(&self.activity.taken);
            self.send(&bytes[..taken]);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    /// The bytes read from a server that sends these, after so many commands.
    async fn received(commands: usize, bytes: &[u8]) -> io::Result<usize> {
        let (here, mut there) = duplex(1 << 20);
        let (mut stream, _) = MonitoredStream::new(Box::new(here), 100);
        for _ in 0..commands {
            stream.write_all(PING).await?;
        }
        there.write_all(bytes).await?;
        drop(there);
        let (mut all, mut buffer) = (0, [0; 1000]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(all),
                count => all += count,
            }
        }
    }

    /// Red when replies are not counted, when pushes are, or when a reply is refused only
    /// once all of it was received.
    #[tokio::test]
    async fn unrequested_and_large_replies_are_refused() {
        let push = b">2\r\n+message\r\n+x\r\n";
        assert_eq!(received(2, b"+PONG\r\n+PONG\r\n").await.unwrap(), 14);
        assert_eq!(received(0, push).await.unwrap(), push.len());
        let refused = async |commands, bytes: &[u8]| {
            let error = received(commands, bytes).await.unwrap_err();
            error.to_string()
        };
        assert!(refused(0, b"+").await.contains("unrequested"));
        let three = b"+PONG\r\n+PONG\r\n$-1\r\n";
        assert!(refused(2, three).await.contains("unrequested"));
        assert_eq!(refused(1, b"$1000000\r\n").await, TOO_LARGE);
        assert_eq!(refused(0, b">1\r\n$1000\r\n").await, TOO_LARGE);
        assert!(refused(1, b"HTTP/1.1 400\r\n").await.contains("RESP"));
    }

    /// Red where replies in the same read as a refused reply are lost: redis-rs would
    /// return the refusal to the first waiting command.
    #[tokio::test]
    async fn replies_before_refused_one_are_read() {
        let (here, mut there) = duplex(1 << 20);
        let (mut stream, _) = MonitoredStream::new(Box::new(here), 100);
        for _ in 0..2 {
            stream.write_all(PING).await.unwrap();
        }
        there.write_all(b"+PONG\r\n$1000000\r\nxxx").await.unwrap();
        let mut buffer = [0; 1000];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 7);
        assert_eq!(&buffer[..7], b"+PONG\r\n");
        let error = stream.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.to_string(), TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn activity_follows_bytes_both_ways() {
        let (here, mut there) = duplex(10);
        let (mut stream, activity) = MonitoredStream::new(Box::new(here), 100);
        let second = Duration::from_secs(1);
        let born = Instant::now();
        tokio::time::advance(second).await;
        assert_eq!(activity.moved(), born);
        // The socket accepts only a part of it.
        assert_eq!(stream.write(PING).await.unwrap(), 10);
        assert_eq!(
            (activity.last_received(), activity.moved()),
            (born, born + second)
        );
        tokio::time::advance(second).await;
        there.write_all(b"+").await.unwrap();
        stream.read_u8().await.unwrap();
        assert_eq!(activity.last_received(), born + 2 * second);
    }
}
