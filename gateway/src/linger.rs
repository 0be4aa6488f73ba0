//! What becomes of a body that its handler did not read to the end: it is read and thrown away, within bounds.
//!
//! A client that is still sending when its connection closes is reset, and may lose the answer that says why it was
//! refused. One that asked first (`Expect: 100-continue`) and was not told to go on sends nothing: it is not read.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use bytes::Bytes;
use futures_util::TryStreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use wess_service::lifecycle::Lifecycle;

/// Bodies of at most so many bytes are in the kernel's buffers as soon as they are sent.
const SMALL_BYTES: u64 = 64 * 1024;
/// What is thrown away at most.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// For how long.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Sees to it that the request's body is taken off its connection, whatever becomes of the request.
pub fn lingering(request: Request, lifecycle: &Lifecycle) -> Request {
    let announced = request.body().size_hint().exact();
    if announced.is_some_and(|bytes| bytes <= SMALL_BYTES) {
        return request;
    }
    let held_back = request.headers().contains_key(EXPECT);
    request.map(|body| {
        Body::new(Lingering {
            body,
            held_back,
            lifecycle: lifecycle.clone(),
        })
    })
}

struct Lingering {
    body: Body,
    /// The client waits to be told to send.
    held_back: bool,
    lifecycle: Lifecycle,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.held_back = false;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if !self.held_back && !self.body.is_end_stream() {
            let (rest, shutdown) = (mem::take(&mut self.body), self.lifecycle.shutdown.clone());
            self.lifecycle.spawn_brief("linger", async move {
                let draining = tokio::time::timeout(MAX_TIME, drain(rest));
                let _ = shutdown.run_until_cancelled(draining).await;
            });
        }
    }
}

async fn drain(rest: Body) {
    let (mut rest, mut taken) = (rest.into_data_stream(), 0);
    while taken <= MAX_BYTES {
        match rest.try_next().await {
            Ok(Some(chunk)) => taken += chunk.len() as u64,
            Ok(None) | Err(_) => break,
        }
    }
}
