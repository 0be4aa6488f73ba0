//! Writing `wess-bindings`, by compare-and-set. Reading is the mirror's.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use wess_schemas::binding::Binding;
use wess_schemas::subject::binding_key;
use wess_schemas::{BindingName, ErrorBody, ErrorCode, Tenant};
use wess_service::queue::{QueueError, publish};

use crate::registry::Storage;

/// The bucket. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    storage: Storage,
}

impl Records {
    /// Records behind `storage`.
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Writes a binding in place of what lies at a revision; gives its own.
    pub async fn put(&self, binding: &Binding, expected: u64) -> Result<u64, ErrorBody> {
        // A binding always serializes: it holds text and numbers.
        let body = serde_json::to_vec(binding).unwrap_or_default();
        self.write(&binding.name, HeaderMap::new(), body.into(), expected)
            .await
    }

    /// Deletes a binding that lies at a revision; gives that of its deletion.
    pub async fn delete(&self, name: &BindingName, expected: u64) -> Result<u64, ErrorBody> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        self.write(name, headers, Bytes::new(), expected).await
    }

    /// The revision of the newest change there is, as the bucket's leader has it.
    pub async fn last_revision(&self) -> Result<u64, ErrorBody> {
        let bindings = self.storage.assets().await?.bindings;
        let info = bindings.stream.get_info().await;
        info.map(|info| info.state.last_sequence)
            .map_err(|error| self.unavailable(&error))
    }

    /// The revision at which a binding lies, as the bucket's leader has it; 0 where there never was one.
    pub async fn revision(&self, name: &BindingName) -> Result<u64, ErrorBody> {
        let bindings = self.storage.assets().await?.bindings;
        let subject = format!("{}{}", bindings.prefix, binding_key(&Tenant::default(), name));
        match bindings.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    async fn write(
        &self,
        name: &BindingName,
        mut headers: HeaderMap,
        body: Bytes,
        expected: u64,
    ) -> Result<u64, ErrorBody> {
        let bindings = self.storage.assets().await?.bindings;
        let prefix = bindings.put_prefix.as_ref().unwrap_or(&bindings.prefix);
        let subject = format!("{prefix}{}", binding_key(&Tenant::default(), name));
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        let written = publish(self.storage.jetstream(), subject, headers, body).await;
        written.map_err(|error| match error {
            QueueError::Duplicate => ErrorBody::new(
                ErrorCode::Conflict,
                format!("somebody else changed the binding {name} first"),
            ),
            error => self.unavailable(&error),
        })
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> ErrorBody {
        tracing::warn!(%error, "the bucket of bindings did not answer");
        self.storage.forget();
        ErrorBody::new(ErrorCode::Unavailable, "the bucket of bindings did not answer")
    }
}
