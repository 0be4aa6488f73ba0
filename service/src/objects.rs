//! Bytes in an object store: hashed and bounded on their way in, bounded and verified on their way out.
//!
//! Trusts nothing that the store says of itself: whoever may upload may also write an object's metadata.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::object_store::{DeleteErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use async_nats::jetstream::{Context as JetStream, context::GetStreamError};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use wess_schemas::Digest;

/// What a chunk has at least, on average: each costs a round trip, so that many tiny ones could hold their reader up for hours.
const MIN_CHUNK_BYTES: u64 = 1024;
/// Chunks that may be smaller.
const MAX_SMALL_CHUNKS: u64 = 64;

/// An object store, and the stream below it. Cheap to clone.
///
/// Chunks are read from the stream one by one. The client library makes a consumer for each object that it reads, which
/// stays for 30 s, and nats-server has room for 1 000 of them: 33 objects a second, from all processes together.
#[derive(Clone)]
pub struct Bucket {
    /// The object store.
    pub store: ObjectStore,
    name: String,
    stream: Stream<()>,
}

impl Bucket {
    /// Goes with `store`, which is the bucket `name`. Asks the server nothing.
    pub async fn new(jetstream: &JetStream, store: ObjectStore, name: &str) -> Result<Self, GetStreamError> {
        let stream = jetstream.get_stream_no_info(format!("OBJ_{name}")).await?;
        Ok(Self {
            store,
            name: name.into(),
            stream,
        })
    }

    /// The stream below it.
    pub fn stream(&self) -> &Stream<()> {
        &self.stream
    }
}

/// What bytes were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("there is no object {object}")]
    NotFound {
        /// Its name.
        object: String,
    },
    /// It has more bytes than allowed.
    #[error("object {object} is larger than {limit} bytes")]
    TooLarge {
        /// Its name.
        object: String,
        /// How many are allowed.
        limit: u64,
    },
    /// Its bytes are not the ones asked for.
    #[error("the bytes of object {object} are not {expected:?}")]
    Mismatch {
        /// Its name.
        object: String,
        /// What was asked for.
        expected: Stored,
    },
    /// What was to be stored could not be read, or what was read not be written.
    #[error("cannot copy the bytes of object {object}")]
    Copy {
        /// Its name.
        object: String,
        /// Why.
        source: io::Error,
    },
    /// The object store is away.
    #[error("the object store did not answer for object {object}")]
    Unavailable {
        /// The object's name.
        object: String,
        /// What it said.
        source: async_nats::Error,
    },
}

/// Stores what `source` gives, at most `limit` bytes. What was stored before a failure is not visible.
pub async fn put(
    bucket: &Bucket,
    object: &str,
    source: impl AsyncRead + Unpin,
    limit: u64,
) -> Result<Stored, ObjectError> {
    let mut metered = Metered::new(source, limit);
    let result = bucket
        .store
        .put(
            ObjectMetadata {
                name: object.into(),
                ..Default::default()
            },
            &mut metered,
        )
        .await;
    match (result, metered.fault) {
        (Ok(_), _) => Ok(Stored {
            digest: finish(metered.hasher),
            size: metered.size,
        }),
        (Err(_), Some(Fault::TooLarge)) => Err(ObjectError::TooLarge {
            object: object.into(),
            limit,
        }),
        (Err(_), Some(Fault::Source(source))) => Err(ObjectError::Copy {
            object: object.into(),
            source,
        }),
        (Err(error), None) => Err(unavailable(object, error)),
    }
}

/// Copies an object to `sink`. Its bytes may be used only when this has returned `Ok`: they are verified last.
pub async fn copy(
    bucket: &Bucket,
    object: &str,
    expected: Stored,
    sink: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ObjectError> {
    let chunks = chunks_of(bucket, object, expected).await?;
    let (mut hasher, mut size, mut sequence) = (Sha256::new(), 0, 0);
    let mut chunks_left = MAX_SMALL_CHUNKS + expected.size / MIN_CHUNK_BYTES;
    while size < expected.size {
        let chunk = next_chunk(bucket, object, &chunks, sequence + 1).await?;
        (size, sequence) = (size + chunk.payload.len() as u64, chunk.sequence);
        if size > expected.size || chunks_left == 0 {
            return Err(mismatch(object, expected));
        }
        chunks_left -= 1;
        hasher.update(&chunk.payload);
        sink.write_all(&chunk.payload)
            .await
            .map_err(|source| ObjectError::Copy {
                object: object.into(),
                source,
            })?;
    }
    let found = Stored {
        digest: finish(hasher),
        size,
    };
    if found == expected {
        Ok(())
    } else {
        Err(mismatch(object, expected))
    }
}

/// Deletes an object; one that is not there counts as deleted.
pub async fn delete(bucket: &Bucket, object: &str) -> Result<(), ObjectError> {
    match bucket.store.delete(object).await {
        Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(unavailable(object, error)),
        _ => Ok(()),
    }
}

/// The subject of an object's chunks. Links are refused: they can lead to other buckets, and in circles.
async fn chunks_of(bucket: &Bucket, object: &str, expected: Stored) -> Result<String, ObjectError> {
    let not_found = || ObjectError::NotFound {
        object: object.into(),
    };
    let info = bucket
        .store
        .info(object)
        .await
        .map_err(|error| match error.kind() {
            InfoErrorKind::NotFound | InfoErrorKind::InvalidName => not_found(),
            InfoErrorKind::TimedOut | InfoErrorKind::Other => unavailable(object, error),
        })?;
    let is_link = info.options.is_some_and(|options| options.link.is_some());
    let is_id = !info.nuid.is_empty() && info.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_link || info.deleted || !is_id {
        return Err(not_found());
    }
    if info.size as u64 != expected.size {
        return Err(mismatch(object, expected));
    }
    Ok(format!("$O.{}.C.{}", bucket.name, info.nuid))
}

/// The first chunk from `sequence` on: from any replica, else from the leader, whom a replica may lag behind.
async fn next_chunk(
    bucket: &Bucket,
    object: &str,
    chunks: &str,
    sequence: u64,
) -> Result<StreamMessage, ObjectError> {
    let stream = &bucket.stream;
    match stream.direct_get_next_for_subject(chunks, Some(sequence)).await {
        Ok(chunk) => Ok(chunk),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => stream
            .get_first_raw_message_by_subject(chunks, sequence)
            .await
            .map_err(|error| unavailable(object, error)),
        Err(error) => Err(unavailable(object, error)),
    }
}

fn mismatch(object: &str, expected: Stored) -> ObjectError {
    ObjectError::Mismatch {
        object: object.into(),
        expected,
    }
}

fn unavailable(object: &str, source: impl Into<async_nats::Error>) -> ObjectError {
    ObjectError::Unavailable {
        object: object.into(),
        source: source.into(),
    }
}

fn finish(hasher: Sha256) -> Digest {
    Digest::from_bytes(hasher.finalize().into())
}

/// Counts and hashes what is read through it; fails past the limit.
struct Metered<R> {
    source: R,
    limit: u64,
    size: u64,
    hasher: Sha256,
    fault: Option<Fault>,
}

enum Fault {
    TooLarge,
    Source(io::Error),
}

impl<R> Metered<R> {
    fn new(source: R, limit: u64) -> Self {
        Self {
            source,
            limit,
            size: 0,
            hasher: Sha256::new(),
            fault: None,
        }
    }

    /// Keeps what happened here, because the store's own error only says that reading failed.
    fn fail(&mut self, fault: Fault) -> Poll<io::Result<()>> {
        self.fault = Some(fault);
        Poll::Ready(Err(io::Error::other("the source of the object failed")))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Metered<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.source).poll_read(cx, buf)) {
            return self.fail(Fault::Source(error));
        }
        let read = &buf.filled()[before..];
        self.size += read.len() as u64;
        if self.size > self.limit {
            return self.fail(Fault::TooLarge);
        }
        self.hasher.update(read);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn read(bytes: &[u8], limit: u64) -> (io::Result<usize>, Metered<&[u8]>) {
        let mut metered = Metered::new(bytes, limit);
        let result = metered.read_to_end(&mut Vec::new()).await;
        (result, metered)
    }

    #[tokio::test]
    async fn a_source_of_exactly_the_limit_passes_and_one_byte_more_fails() {
        let (result, metered) = read(b"hello", 5).await;
        assert_eq!((result.unwrap(), metered.size), (5, 5));
        assert_eq!(
            finish(metered.hasher),
            Digest::from_bytes(Sha256::digest(b"hello").into())
        );
        let (result, metered) = read(b"hello!", 5).await;
        assert!(result.is_err() && matches!(metered.fault, Some(Fault::TooLarge)));
    }
}
