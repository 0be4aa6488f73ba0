//! Bytes in an object store: hashed and bounded on their way in, bounded and verified on their way out.
//!
//! Trusts nothing that the store says of itself: whoever may upload may also write an object's metadata.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_nats::jetstream::object_store::{
    DeleteErrorKind, GetErrorKind, InfoErrorKind, Object, ObjectMetadata, ObjectStore,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use wess_schemas::Digest;

/// Bounds the wait for the next chunk: an object whose chunks are missing would be waited for without end.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read at a time. A chunk in the store is 128 KiB.
const BUFFER_BYTES: usize = 128 * 1024;

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
    store: &ObjectStore,
    object: &str,
    source: impl AsyncRead + Unpin,
    limit: u64,
) -> Result<Stored, ObjectError> {
    let mut metered = Metered::new(source, limit);
    let result = store
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
    store: &ObjectStore,
    object: &str,
    expected: Stored,
    sink: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ObjectError> {
    let mut source = open(store, object).await?.take(expected.size.saturating_add(1));
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut hasher, mut size) = (Sha256::new(), 0);
    loop {
        let chunk = next_chunk(object, &mut source, &mut buffer).await?;
        if chunk.is_empty() {
            break;
        }
        hasher.update(chunk);
        size += chunk.len() as u64;
        sink.write_all(chunk).await.map_err(|source| ObjectError::Copy {
            object: object.into(),
            source,
        })?;
    }
    let found = Stored {
        digest: finish(hasher),
        size,
    };
    if found != expected {
        return Err(ObjectError::Mismatch {
            object: object.into(),
            expected,
        });
    }
    Ok(())
}

/// Deletes an object; one that is not there counts as deleted.
pub async fn delete(store: &ObjectStore, object: &str) -> Result<(), ObjectError> {
    match store.delete(object).await {
        Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(unavailable(object, error)),
        _ => Ok(()),
    }
}

/// Links are refused: they can lead to other buckets, and in circles.
async fn open(store: &ObjectStore, object: &str) -> Result<Object, ObjectError> {
    let not_found = || ObjectError::NotFound {
        object: object.into(),
    };
    let info = store.info(object).await.map_err(|error| match error.kind() {
        InfoErrorKind::NotFound | InfoErrorKind::InvalidName => not_found(),
        InfoErrorKind::TimedOut | InfoErrorKind::Other => unavailable(object, error),
    })?;
    if info.options.is_some_and(|options| options.link.is_some()) {
        return Err(not_found());
    }
    let opened = tokio::time::timeout(CHUNK_TIMEOUT, store.get(object)).await;
    opened
        .map_err(|elapsed| unavailable(object, elapsed))?
        .map_err(|error| match error.kind() {
            GetErrorKind::NotFound | GetErrorKind::InvalidName | GetErrorKind::BucketLink => not_found(),
            GetErrorKind::ConsumerCreate | GetErrorKind::Other | GetErrorKind::TimedOut => {
                unavailable(object, error)
            }
        })
}

async fn next_chunk<'a>(
    object: &str,
    source: &mut (impl AsyncRead + Unpin),
    buffer: &'a mut [u8],
) -> Result<&'a [u8], ObjectError> {
    let read = tokio::time::timeout(CHUNK_TIMEOUT, source.read(buffer)).await;
    let count = read
        .map_err(|elapsed| unavailable(object, elapsed))?
        .map_err(|error| unavailable(object, error))?;
    Ok(&buffer[..count])
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

    #[tokio::test(start_paused = true)]
    async fn an_object_whose_chunks_are_missing_is_not_waited_for_without_end() {
        let (mut never_read, _never_written) = tokio::io::duplex(1);
        let error = next_chunk("object", &mut never_read, &mut [0; 8])
            .await
            .unwrap_err();
        assert!(matches!(error, ObjectError::Unavailable { .. }), "{error}");
    }
}
