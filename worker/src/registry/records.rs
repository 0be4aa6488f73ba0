//! Reading and writing single records of `wess-modules`: reads by the leader, writes by compare-and-set.
//!
//! A direct get may be answered by a replica that lags; nothing here uses one. Whether a write that timed out took
//! effect is unknown, and said so.

use std::error::Error as _;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream;
use async_nats::jetstream::ErrorCode as JetStreamCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::Serialize;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::module::{ModuleHead, ModuleVersion};
use wess_schemas::subject::ModuleKey;
use wess_schemas::{ModuleName, Tenant};
use wess_service::feed::is_deletion;

use super::record::{Garbage, RawRecord, parse_head, parse_version};
use super::stats::RegistryStats;
use super::storage::Storage;

const OPERATION: &str = "KV-Operation";
const DELETE: &str = "DEL";
/// Bounds one read or write. Callers wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bucket, record by record. Cheap to clone.
#[derive(Clone)]
pub(super) struct Records {
    storage: Storage,
    stats: RegistryStats,
}

/// A record, or that there is none, at a revision; 0 where there never was one.
#[derive(Debug, Clone)]
pub(super) struct Current<T> {
    pub(super) revision: u64,
    pub(super) record: Option<T>,
}

/// Why a write did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("somebody else changed the record first")]
    Lost,
    #[error("it is unknown whether the record was written")]
    Unknown(#[source] async_nats::Error),
    #[error("the record was not written")]
    Refused(#[source] async_nats::Error),
    #[error(transparent)]
    Away(#[from] super::storage::StorageAway),
}

impl From<WriteError> for ErrorBody {
    fn from(error: WriteError) -> Self {
        let code = match &error {
            WriteError::Lost => ErrorCode::Conflict,
            WriteError::Unknown(_) | WriteError::Refused(_) | WriteError::Away(_) => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl Records {
    pub(super) fn new(storage: Storage, stats: RegistryStats) -> Self {
        Self { storage, stats }
    }

    /// A module's head, as its leader has it.
    pub(super) async fn head(&self, name: &ModuleName) -> Result<Current<ModuleHead>, ErrorBody> {
        self.read(&ModuleKey::Head(Tenant::default(), name.clone()), parse_head)
            .await
    }

    /// A version's record, as its leader has it.
    pub(super) async fn version(
        &self,
        name: &ModuleName,
        number: u32,
    ) -> Result<Current<ModuleVersion>, ErrorBody> {
        self.read(&version_key(name, number)?, |value| parse_version(value, number))
            .await
    }

    /// Writes a version in place of its record at a revision; at 0, where no record of that number ever was.
    pub(super) async fn put_version(
        &self,
        name: &ModuleName,
        version: &ModuleVersion,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let key = version_key(name, version.version).map_err(|error| WriteError::Refused(error.into()))?;
        self.write(&key, encode(version)?, HeaderMap::new(), expected)
            .await
    }

    /// Moves a module's head on from a revision.
    pub(super) async fn put_head(
        &self,
        name: &ModuleName,
        head: &ModuleHead,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let key = ModuleKey::Head(Tenant::default(), name.clone());
        self.write(&key, encode(head)?, HeaderMap::new(), expected).await
    }

    /// Deletes a module's head from a revision.
    pub(super) async fn delete_head(&self, name: &ModuleName, expected: u64) -> Result<u64, WriteError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, DELETE);
        self.write(
            &ModuleKey::Head(Tenant::default(), name.clone()),
            Bytes::new(),
            headers,
            expected,
        )
        .await
    }

    /// Empties the record of a version that no head lists. Its number stays taken, so that it never names other bytes.
    pub(super) async fn bury_version(
        &self,
        name: &ModuleName,
        number: u32,
        expected: u64,
    ) -> Result<(), ErrorBody> {
        let assets = self.storage.assets().await?;
        let key = version_key(name, number)?.to_string();
        let buried = assets.modules.purge_expect_revision(key, Some(expected)).await;
        buried.map_err(|error| self.unavailable("bury a version", error.into()))
    }

    /// Removes every version record of a module that was deleted at a revision; newer ones are another module's.
    pub(super) async fn remove_versions(&self, name: &ModuleName, deleted_at: u64) -> Result<(), ErrorBody> {
        let assets = self.storage.assets().await?;
        let purge = assets
            .modules
            .stream
            .purge()
            .filter(version_subjects(&assets.modules, name))
            .sequence(deleted_at);
        purge
            .await
            .map(drop)
            .map_err(|error| self.unavailable("remove versions", error.into()))
    }

    /// The highest version number that any record of a module has or had.
    pub(super) async fn highest_number(&self, name: &ModuleName) -> Result<u32, ErrorBody> {
        let assets = self.storage.assets().await?;
        let failed = |error: async_nats::Error| self.unavailable("list versions", error);
        let stream = &assets.modules.stream;
        let subjects = stream
            .info_with_subjects(version_subjects(&assets.modules, name))
            .await;
        let mut subjects = subjects.map_err(|error| failed(error.into()))?;
        let mut highest = 0;
        while let Some((subject, _)) = subjects.try_next().await.map_err(|error| failed(error.into()))? {
            let key = subject
                .strip_prefix(&assets.modules.prefix)
                .and_then(|key| key.parse().ok());
            if let Some(ModuleKey::Version(_, _, number)) = key {
                highest = highest.max(number.get());
            }
        }
        Ok(highest)
    }

    /// The revision of the newest record there is.
    pub(super) async fn last_revision(&self) -> Result<u64, ErrorBody> {
        self.stats.leader_reads.inc();
        let assets = self.storage.assets().await?;
        let info = assets.modules.stream.get_info().await;
        info.map(|info| info.state.last_sequence)
            .map_err(|error| self.unavailable("ask for the revision", error.into()))
    }

    async fn read<T>(
        &self,
        key: &ModuleKey,
        parse: impl FnOnce(&[u8]) -> Result<T, Garbage>,
    ) -> Result<Current<T>, ErrorBody> {
        self.stats.leader_reads.inc();
        let raw = self.read_raw(key.to_string()).await?;
        let Some(value) = raw.value else {
            return Ok(Current {
                revision: raw.revision,
                record: None,
            });
        };
        let record = parse(&value).map_err(|garbage| {
            self.stats.garbage_records.inc();
            tracing::error!(%key, error = %garbage, cause = garbage.source(), "a module record is unreadable");
            ErrorBody::new(ErrorCode::Internal, format!("the record {key} is unreadable")).before_guest()
        })?;
        Ok(Current {
            revision: raw.revision,
            record: Some(record),
        })
    }

    async fn read_raw(&self, key: String) -> Result<RawRecord, ErrorBody> {
        let assets = self.storage.assets().await?;
        let subject = format!("{}{key}", assets.modules.prefix);
        let message = tokio::time::timeout(
            TIMEOUT,
            assets.modules.stream.get_last_raw_message_by_subject(&subject),
        )
        .await;
        match message {
            Ok(Ok(message)) => Ok(raw_record(key, message)),
            Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(RawRecord {
                key,
                revision: 0,
                value: None,
            }),
            Ok(Err(error)) => Err(self.unavailable("read a record", error.into())),
            Err(elapsed) => Err(self.unavailable("read a record", elapsed.into())),
        }
    }

    async fn write(
        &self,
        key: &ModuleKey,
        value: Bytes,
        mut headers: HeaderMap,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let assets = self.storage.assets().await?;
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        let prefix = assets
            .modules
            .put_prefix
            .as_ref()
            .unwrap_or(&assets.modules.prefix);
        let published = self
            .storage
            .jetstream()
            .publish_with_headers(format!("{prefix}{key}"), headers, value)
            .await;
        let acknowledged = match published {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        acknowledged
            .map(|acknowledgement| acknowledgement.sequence)
            .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: PublishError) -> WriteError {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => WriteError::Lost,
            _ if is_wrong_constant(&error) => WriteError::Lost,
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => WriteError::Unknown(error.into()),
            PublishErrorKind::StreamNotFound => {
                self.storage.forget();
                WriteError::Refused(error.into())
            }
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::MaxPayloadExceeded
            | PublishErrorKind::Other => WriteError::Refused(error.into()),
        }
    }

    fn unavailable(&self, what: &str, error: async_nats::Error) -> ErrorBody {
        tracing::warn!(%error, "JetStream could not {what}");
        self.storage.forget();
        ErrorBody::new(ErrorCode::Unavailable, format!("JetStream could not {what}"))
    }
}

/// What a message of the bucket's stream says. Deletions and purges are messages, too.
pub(super) fn raw_record(key: String, message: StreamMessage) -> RawRecord {
    let value = (!is_deletion(Some(&message.headers))).then_some(message.payload);
    RawRecord {
        key,
        revision: message.sequence,
        value,
    }
}

/// Some servers refuse a lost race by this code, which async-nats does not tell apart.
fn is_wrong_constant(error: &PublishError) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    source.is_some_and(|source| source.error_code() == JetStreamCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

fn version_key(name: &ModuleName, number: u32) -> Result<ModuleKey, ErrorBody> {
    let number = number
        .try_into()
        .map_err(|_| ErrorBody::new(ErrorCode::InvalidRequest, "versions begin at 1"))?;
    Ok(ModuleKey::Version(Tenant::default(), name.clone(), number))
}

fn version_subjects(modules: &Store, name: &ModuleName) -> String {
    format!(
        "{}{}.*",
        modules.prefix,
        ModuleKey::Head(Tenant::default(), name.clone())
    )
}

fn encode(record: &impl Serialize) -> Result<Bytes, WriteError> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|error| WriteError::Refused(error.into()))
}
