//! Reading request bodies: bounded in bytes and in time, whole in memory only where they are small.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt, stream};
use serde::Deserialize;
use tokio_util::io::StreamReader;
use wess_schemas::ErrorCode;

use crate::admission::{Admission, Reservation};
use crate::problem::Problem;

/// What a stream gathers before it goes on: a client that sends single bytes must not make a message of each.
const GATHER_BYTES: usize = 128 * 1024;

/// How many bytes the client says it sends, if it does.
pub fn announced(body: &Body) -> Option<u64> {
    body.size_hint().exact()
}

/// Refuses a body that says of itself that it is too large, before any of it is read.
pub fn check_announced(body: &Body, limit: u64) -> Result<(), Problem> {
    if body.size_hint().lower() > limit {
        Err(too_large(limit))
    } else {
        Ok(())
    }
}

/// Reads a whole body.
pub async fn read(
    admission: &Admission,
    body: Body,
    limit: u64,
    patience: Duration,
) -> Result<Bytes, Problem> {
    check_announced(&body, limit)?;
    let reading = tokio::time::timeout(patience, read_whole(admission, body, limit));
    reading.await.map_err(|_| too_slow(patience))?
}

/// A body as JSON, its larger parts borrowed: they are counted where they are. What is wrong is said with its place.
pub fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|error| Problem::invalid(format!("the body is not the expected JSON: {error}")))
}

async fn read_whole(admission: &Admission, body: Body, limit: u64) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let first = next(&mut stream).await?.unwrap_or_default();
    let mut reservation = Reservation::default();
    admit(admission, &mut reservation, first.len(), limit)?;
    if stream.is_end_stream() {
        return Ok(reservation.hold(first));
    }
    let mut whole = BytesMut::from(first);
    while let Some(chunk) = next(&mut stream).await? {
        admit(admission, &mut reservation, whole.len() + chunk.len(), limit)?;
        whole.extend_from_slice(&chunk);
    }
    Ok(reservation.hold(whole))
}

fn admit(
    admission: &Admission,
    reservation: &mut Reservation,
    bytes: usize,
    limit: u64,
) -> Result<(), Problem> {
    let bytes = bytes as u64;
    if bytes > limit {
        Err(too_large(limit))
    } else {
        admission.grow(reservation, bytes)
    }
}

async fn next(stream: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    let chunk = stream.try_next().await;
    chunk.map_err(|error| Problem::invalid("the body ended before it was complete").because(&error))
}

/// A body to be read piece by piece, never whole in memory.
pub fn reader(body: Body) -> impl tokio::io::AsyncRead + Send {
    StreamReader::new(Box::pin(gathered(body.into_data_stream())))
}

fn gathered(stream: BodyDataStream) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(stream, |mut stream| async move {
        let mut gathered = BytesMut::new();
        while gathered.len() < GATHER_BYTES {
            match stream.try_next().await.map_err(io::Error::other)? {
                Some(chunk) => gathered.extend_from_slice(&chunk),
                None => break,
            }
        }
        Ok((!gathered.is_empty()).then(|| (gathered.freeze(), stream)))
    })
}

/// The body has more bytes than it may.
pub fn too_large(limit: u64) -> Problem {
    let message = format!("the body is larger than the {limit} bytes that are allowed");
    Problem::new(ErrorCode::PayloadTooLarge, message).with("limit_bytes", limit)
}

/// A line of the socket has more bytes than it may.
pub fn line_too_large(limit: u64) -> Problem {
    let message = format!("the line is larger than the {limit} bytes that are allowed");
    Problem::new(ErrorCode::PayloadTooLarge, message).with("limit_bytes", limit)
}

/// A line of the socket did not come in time.
pub fn line_too_slow(patience: Duration) -> Problem {
    Problem::invalid(format!("the line was not complete within {patience:?}"))
}

/// The body did not come in time.
pub fn too_slow(patience: Duration) -> Problem {
    Problem::invalid(format!("the body was not complete within {patience:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn admission() -> Admission {
        Admission::new(1, 1)
    }

    fn chunked(chunks: Vec<&'static str>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(io::Result::Ok)))
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_is_refused() {
        for whole in [Body::from("hello"), chunked(vec!["hel", "", "lo"])] {
            assert_eq!(read(&admission(), whole, 5, PATIENCE).await.unwrap(), "hello");
        }
        for longer in [Body::from("hello!"), chunked(vec!["hel", "lo!"])] {
            let refused = read(&admission(), longer, 5, PATIENCE).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::PayloadTooLarge);
        }
    }

    #[tokio::test]
    async fn more_bytes_than_there_is_room_for_are_refused_while_they_come() {
        let full = Body::from(vec![0; 1024 * 1024 + 1]);
        let refused = read(&admission(), full, u64::MAX, PATIENCE).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_refused_in_time() {
        let stalled = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let refused = read(&admission(), stalled, 5, PATIENCE).await.unwrap_err();
        assert!(refused.message().contains("within 5s"), "{}", refused.message());
    }

    #[tokio::test]
    async fn single_bytes_are_gathered() {
        let bytes = stream::iter((0..GATHER_BYTES + 1).map(|_| io::Result::Ok("x")));
        let chunks: Vec<_> = gathered(Body::from_stream(bytes).into_data_stream())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            chunks.iter().map(Bytes::len).collect::<Vec<_>>(),
            [GATHER_BYTES, 1]
        );
        let mut text = String::new();
        reader(chunked(vec!["hel", "lo"]))
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn json_says_where_it_is_wrong() {
        let refused = json::<Vec<u8>>(b"[1,").unwrap_err();
        assert!(
            refused.message().contains("line 1 column 3"),
            "{}",
            refused.message()
        );
    }
}
