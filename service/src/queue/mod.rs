//! Publishing into the queue's streams, as workers and gateways both do: calls that found no slot, and jobs whose time
//! has come.
//!
//! Invariant: what is said to be stored has JetStream's own word for it.

pub mod assets;
pub mod calls;
pub mod overdue;
pub mod timers;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError};
use async_nats::jetstream::{Error as StreamError, ErrorCode as StreamErrorCode};
use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;
use wess_schemas::error_code::ErrorCode;

/// Why a message is not in its stream, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// One with the same subject is there already.
    #[error("a message with this id is in the queue already")]
    Duplicate,
    /// There is no room.
    #[error("the queue is full")]
    Full {
        /// What the server said.
        source: PublishError,
    },
    /// The message is larger than NATS takes.
    #[error("the message is larger than NATS takes")]
    TooLarge,
    /// The server refuses what it says.
    #[error("NATS refuses it: {said}")]
    Refused {
        /// What the server said.
        said: String,
    },
    /// It was not stored: the stream is away.
    #[error("the queue is not available")]
    Unavailable {
        /// What the server or the client said.
        source: PublishError,
    },
    /// Nobody said whether it was stored.
    #[error("the queue did not say whether it took the message")]
    Unknown {
        /// What the client said.
        source: PublishError,
    },
}

impl QueueError {
    /// The code that a caller is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Duplicate => ErrorCode::Conflict,
            Self::Full { .. } => ErrorCode::QueueFull,
            Self::TooLarge => ErrorCode::PayloadTooLarge,
            Self::Refused { .. } => ErrorCode::InvalidRequest,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Unknown { .. } => ErrorCode::Internal,
        }
    }
}

impl From<PublishError> for QueueError {
    fn from(source: PublishError) -> Self {
        match source.kind() {
            PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => Self::Duplicate,
            PublishErrorKind::MaxPayloadExceeded => Self::TooLarge,
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => Self::Unknown { source },
            PublishErrorKind::StreamNotFound | PublishErrorKind::MaxAckPending => {
                Self::Unavailable { source }
            }
            PublishErrorKind::Other => refused(source),
        }
    }
}

/// What a server means that names a reason. It has one code for every bound of a stream, and says in words which it was.
fn refused(source: PublishError) -> QueueError {
    let said = std::error::Error::source(&source).and_then(|cause| cause.downcast_ref::<StreamError>());
    let Some((code, status, text)) = said.map(|said| (said.error_code(), said.code(), said.to_string()))
    else {
        return QueueError::Unavailable { source };
    };
    match code {
        StreamErrorCode::STREAM_STORE_FAILED if text.contains("per subject") => QueueError::Duplicate,
        StreamErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => QueueError::Duplicate,
        StreamErrorCode::STREAM_STORE_FAILED if text.contains("maximum") => QueueError::Full { source },
        // The account's bound, and the server's.
        StreamErrorCode::ACCOUNT_RESOURCES_EXCEEDED | StreamErrorCode::INSUFFICIENT_RESOURCES => {
            QueueError::Full { source }
        }
        StreamErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => QueueError::TooLarge,
        _ if status == 400 => QueueError::Refused { said: text },
        _ => QueueError::Unavailable { source },
    }
}

/// What the server's clock says that keeps a stream. Ours may be wrong; what it keeps and fires goes by its own.
pub async fn server_time(jetstream: &Context, stream: &str) -> Result<OffsetDateTime, RequestError> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(with = "time::serde::rfc3339")]
        ts: OffsetDateTime,
    }
    let said: Said = jetstream.request(format!("STREAM.INFO.{stream}"), &()).await?;
    Ok(said.ts)
}

/// Publishes into a stream, and waits for the stream's word; gives the sequence number.
pub async fn publish(
    jetstream: &Context,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<u64, QueueError> {
    let accepted = jetstream
        .publish_with_headers(subject, headers, payload)
        .await?
        .await?;
    Ok(accepted.sequence)
}
