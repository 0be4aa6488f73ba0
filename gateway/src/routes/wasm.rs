//! Giving modules back: the bytes stream from the object store, and the last of them go only when all were verified.
//!
//! Invariant: a client never holds a complete answer whose bytes have another digest than its `ETag` says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wess_schemas::module::BlobLocation;
use wess_schemas::subject::{BLOBS_BUCKET, Endpoint};
use wess_schemas::{ErrorCode, Reference};
use wess_service::objects::{self, Bucket, ObjectError, Stored};
use wess_service::trace_context::TraceParent;

use crate::admission::{Reservation, Room};
use crate::app::App;
use crate::extract::{InPath, Trace};
use crate::problem::Problem;
use crate::workers::{Question, unreadable};

/// Chunks between the object store and a client's connection: one to send, one to fetch.
const CHUNKS_AHEAD: usize = 2;

type Piece = Result<Bytes, ObjectError>;

/// `GET /v1/modules/{ref}/wasm`
pub async fn download(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(reference): InPath<Reference>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let location = locate(&app, reference, trace).await?;
    let etag = format!("\"{}\"", location.digest);
    if client_has(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, validators(etag)).into_response());
    }
    let (kind, body) = open(&app, &location).await?;
    let described = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_LENGTH, location.size.to_string()),
    ];
    Ok((described, validators(etag), body).into_response())
}

async fn locate(app: &App, reference: Reference, trace: TraceParent) -> Result<BlobLocation, Problem> {
    let question = Question::record(Endpoint::ModulesFetch(reference), Bytes::new(), trace);
    let reply = app.workers.ask(question).await?;
    let location: BlobLocation =
        serde_json::from_slice(&reply.payload).map_err(|error| unreadable(&error))?;
    if location.bucket == BLOBS_BUCKET {
        return Ok(location);
    }
    Err(Problem::new(ErrorCode::Internal, "the module lies in an unknown bucket").before_guest())
}

/// A reference may name other bytes tomorrow: a client may keep them, but has to ask.
fn validators(etag: String) -> [(HeaderName, String); 2] {
    [(ETAG, etag), (CACHE_CONTROL, "private, no-cache".into())]
}

fn client_has(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*")
}

/// Of which kind the bytes are, chains being JSON, and all of them. Waits for the first piece, so that what fails before it is a problem and not a
/// broken answer.
async fn open(app: &App, location: &BlobLocation) -> Result<(&'static str, Body), Problem> {
    let (blobs, room) = (app.stores.blobs.clone(), app.admission.download(location.size)?);
    let (sender, mut pieces) = mpsc::channel(CHUNKS_AHEAD);
    let (cut, location) = (app.lifecycle.cut.clone(), location.clone());
    app.lifecycle.spawn_brief("download", async move {
        cut.run_until_cancelled(copy(blobs, location, sender, room)).await;
    });
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(broken(&error)),
        None => return Err(Problem::new(ErrorCode::Internal, "the download did not begin").before_guest()),
    };
    let rest = stream::unfold(pieces, |mut pieces| async {
        Some((pieces.recv().await?, pieces))
    });
    let kind = match first.trim_ascii_start().starts_with(b"{") {
        true => "application/json",
        false => "application/wasm",
    };
    Ok((kind, Body::from_stream(stream::iter([Ok(first)]).chain(rest))))
}

fn broken(error: &ObjectError) -> Problem {
    let code = match error {
        ObjectError::Unavailable { .. } => ErrorCode::Unavailable,
        ObjectError::NotFound { .. }
        | ObjectError::TooLarge { .. }
        | ObjectError::Mismatch { .. }
        | ObjectError::Copy { .. } => ErrorCode::Internal,
    };
    Problem::new(code, "the module's bytes could not be read")
        .before_guest()
        .because(error)
}

/// Ends when all is sent, or when the client has gone.
async fn copy(blobs: Bucket, location: BlobLocation, sender: mpsc::Sender<Piece>, _room: Reservation) {
    let expected = Stored {
        digest: location.digest,
        size: location.size,
    };
    let mut sink = HoldingBack::new(sender.clone(), location.size);
    let copied = objects::copy(&blobs, &location.object, expected, &mut sink).await;
    let last = match copied {
        Ok(()) => Ok(sink.held),
        Err(error) => {
            tracing::warn!(%error, object = location.object, "a download failed");
            Err(error)
        }
    };
    // A client that has gone needs no last piece.
    let _ = sender.send(last).await;
}

/// Sends what is written to it, always one write behind, and nothing at all from the write on that is one too many:
/// the last of `expected` bytes never leaves before they are verified.
struct HoldingBack {
    sender: PollSender<Piece>,
    held: Bytes,
    left: u64,
}

impl HoldingBack {
    fn new(sender: mpsc::Sender<Piece>, expected: u64) -> Self {
        Self {
            sender: PollSender::new(sender),
            held: Bytes::new(),
            left: expected,
        }
    }
}

impl AsyncWrite for HoldingBack {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let Some(left) = self.left.checked_sub(buf.len() as u64) else {
            return Poll::Ready(Err(io::Error::other("the object is longer than it should be")));
        };
        if !self.held.is_empty() {
            ready!(self.sender.poll_reserve(cx)).map_err(gone)?;
            let held = std::mem::take(&mut self.held);
            self.sender.send_item(Ok(held)).map_err(gone)?;
        }
        self.left = left;
        self.held = Bytes::copy_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_last_write_is_held_back() {
        let (sender, mut pieces) = mpsc::channel(CHUNKS_AHEAD);
        let mut sink = HoldingBack::new(sender, 11);
        sink.write_all(b"one").await.unwrap();
        assert!(pieces.try_recv().is_err());
        sink.write_all(b"two").await.unwrap();
        assert_eq!(pieces.try_recv().unwrap().unwrap(), "one");
        assert_eq!(sink.held, "two");
        assert!(sink.write_all(b"longer").await.is_err());
        assert!(
            pieces.try_recv().is_err(),
            "bytes went out with one too many behind them"
        );
        drop(pieces);
        assert!(sink.write_all(b"three").await.is_err());
    }

    #[test]
    fn a_client_has_what_one_of_its_tags_names() {
        let has = |list: &str| {
            client_has(
                &HeaderMap::from_iter([(IF_NONE_MATCH, list.parse().unwrap())]),
                "\"a\"",
            )
        };
        assert!(has("\"a\"") && has("\"b\", W/\"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a") && !has("\"a"));
    }
}
