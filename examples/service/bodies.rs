//! Reads the whole body of each request before its handler runs: in a limited time, up to a
//! limited length, and counted against a total over all connections, so that no number of
//! clients can fill the memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::problem::Problem;
use crate::settings::Settings;

/// When a client may retry that was refused for lack of memory.
const SOON: Duration = Duration::from_secs(1);

/// The largest form of a client that has not logged in, in bytes.
const FORM: usize = 4096;

#[derive(Clone)]
pub struct Bodies {
    /// The number of bytes that may still arrive.
    free: Arc<Semaphore>,
    max: usize,
    limit: Duration,
}

impl Bodies {
    /// For payloads to execute, and for what operators write.
    pub fn new(settings: &Settings) -> Self {
        Self {
            free: Arc::new(Semaphore::new(settings.body_total)),
            max: settings.body_limit,
            limit: settings.body_time,
        }
    }

    /// For forms of clients without a token: small, and with a total of their own, so that
    /// such a client uses no memory that is reserved for callers.
    pub fn of_forms(settings: &Settings) -> Self {
        Self {
            free: Arc::new(Semaphore::new(256 * FORM)),
            max: FORM,
            limit: settings.body_time,
        }
    }

    /// The whole body, and its share of the total.
    async fn read(&self, mut body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
        // A body that is announced as too large is refused before it is sent.
        if body.size_hint().lower() > self.max as u64 {
            return Err(self.too_large());
        }
        let (mut read, mut counted) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("the body did not arrive whole: {error}");
                Problem::new("invalid_request", detail)
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if read.len() + data.len() > self.max {
                return Err(self.too_large());
            }
            let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let more = self.free.clone().try_acquire_many_owned(bytes);
            let more = more.map_err(|_| {
                let detail = "the service has no memory left for the body";
                Problem::new("overloaded", detail).retry_after(SOON)
            })?;
            match &mut counted {
                Some(counted) => counted.merge(more),
                None => counted = Some(more),
            }
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), counted))
    }

    fn too_large(&self) -> Problem {
        let detail = format!("the body has more than {} bytes", self.max);
        Problem::new("payload_too_large", detail)
    }
}

/// Reads the body, then runs the handler with it. The body counts until the answer is
/// known, even if its client has left: until then the engine might keep it.
pub async fn collect(
    State(bodies): State<Bodies>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let read = timeout(bodies.limit, bodies.read(body)).await;
    let late = |_| Problem::new("request_timeout", "the body did not arrive in time");
    let (bytes, counted) = read.map_err(late)??;
    let request = Request::from_parts(parts, Body::from(bytes));
    let answered = tokio::spawn(async move {
        let _counted = counted;
        next.run(request).await
    });
    let broken = |_| Problem::new("internal", "the request's handler broke off");
    answered.await.map_err(broken)
}
