//! What a call's guest gets from outside: its module's state in JetStream KV, its log on NATS.

use std::sync::Arc;

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use wess_schemas::pattern::covers;
use wess_schemas::settings::Settings;
use wess_schemas::subject::{Subjects, guest_key, state_key};
use wess_schemas::{JobId, header};

use super::tally::Tally;
use crate::guest::{Host, LogStream, Objects, StateError, StateFuture};
use crate::objects::ObjectStore;
use crate::outbound::Outbound;
use crate::registry::{Resolved, Storage};
use crate::secrets::Secrets;

/// Lines under way to NATS; past it lines are dropped and counted, so that no guest waits for its log.
const LOG_LINES: usize = 1024;

/// One call's host.
#[derive(Clone)]
pub struct CallHost {
    pub job_id: JobId,
    pub module: Arc<Resolved>,
    pub outside: Arc<Outside>,
}

/// What the hosts of one executor share.
pub struct Outside {
    storage: Storage,
    lines: mpsc::Sender<LogLine>,
    tally: Arc<Tally>,
    subjects: Subjects,
    outbound: Arc<Outbound>,
    objects: ObjectStore,
}

/// One line of a guest's log.
pub struct LogLine {
    module: Arc<Resolved>,
    job_id: JobId,
    stream: LogStream,
    text: String,
}

impl Outside {
    /// Shares one connection's way to storage; the receiver is for [`publish_logs`].
    pub fn new(
        storage: Storage,
        tally: Arc<Tally>,
        subjects: Subjects,
        outbound: Arc<Outbound>,
        objects: ObjectStore,
    ) -> (Arc<Self>, mpsc::Receiver<LogLine>) {
        let (lines, receiver) = mpsc::channel(LOG_LINES);
        (
            Arc::new(Self {
                storage,
                lines,
                tally,
                subjects,
                outbound,
                objects,
            }),
            receiver,
        )
    }
}

/// Publishes lines until every host is gone.
pub async fn publish_logs(client: Client, subjects: Subjects, mut lines: mpsc::Receiver<LogLine>) {
    while let Some(line) = lines.recv().await {
        let module = &line.module;
        let subject = match &module.name {
            Some(name) => subjects.logs(name.as_str()),
            None => subjects.logs(&module.digest.to_hex()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::JOB_ID, line.job_id.as_str());
        headers.insert(header::LOG_STREAM, line.stream.as_str());
        if let Some(version) = module.version {
            headers.insert(header::MODULE_VERSION, version.to_string());
        }
        if let Err(error) = client
            .publish_with_headers(subject, headers, line.text.into())
            .await
        {
            tracing::debug!(%error, "a guest's log line was not published");
        }
    }
}

/// Most keys that one listing reads.
const MAX_LISTED: u64 = 10_000;
/// Where a bucket says that a key was deleted.
const KV_OPERATION: &str = "KV-Operation";
/// How often a count is tried anew that somebody else changed meanwhile.
const MAX_RACES: usize = 64;

impl CallHost {
    /// The subjects of a bucket that have a value and match a filter.
    async fn listed(&self, state: &Store, filter: &str) -> Result<Vec<String>, StateError> {
        let consumer = state.stream.create_consumer(push::OrderedConfig {
            deliver_subject: self.outside.storage.client().new_inbox(),
            filter_subject: filter.to_owned(),
            headers_only: true,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..push::OrderedConfig::default()
        });
        let consumer = consumer.await.map_err(|error| self.outside.lost(error))?;
        let pending = consumer.cached_info().num_pending;
        if pending > MAX_LISTED {
            return Err(StateError::TooManyKeys);
        }
        let messages = consumer
            .messages()
            .await
            .map_err(|error| self.outside.lost(error))?;
        let mut messages = messages.take(pending as usize);
        let mut subjects = Vec::with_capacity(pending as usize);
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| self.outside.lost(error))?;
            let headers = message.headers.as_ref();
            // Only what was deleted says what was done.
            if headers.is_none_or(|headers| headers.get(KV_OPERATION).is_none()) {
                subjects.push(message.subject.to_string());
            }
        }
        Ok(subjects)
    }

    /// What every key of the module begins with.
    fn prefix(&self) -> Result<String, StateError> {
        self.key(&[])
    }

    fn key(&self, key: &[u8]) -> Result<String, StateError> {
        if self.module.settings.deterministic {
            return Err(StateError::Deterministic);
        }
        self.module
            .name
            .as_ref()
            .map(|name| state_key(name, key))
            .ok_or(StateError::Nameless)
    }
}

impl Outside {
    async fn state(&self) -> Result<Store, StateError> {
        self.storage
            .assets()
            .await
            .map(|assets| assets.state)
            .map_err(|away| unavailable(&away))
    }

    /// A state store that fails may have gone: the next call looks for it anew.
    fn lost(&self, error: impl std::fmt::Display) -> StateError {
        self.storage.forget();
        unavailable(&error)
    }
}

/// Headers as the client has them, if there are any.
fn header_map(headers: &[(String, String)]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.as_str(), value.as_str());
    }
    (!map.is_empty()).then_some(map)
}

/// What a counter says.
fn number(value: &[u8]) -> Result<u64, StateError> {
    let text = std::str::from_utf8(value).map_err(|_| StateError::NoNumber)?;
    text.parse().map_err(|_| StateError::NoNumber)
}

fn unavailable(error: &dyn std::fmt::Display) -> StateError {
    tracing::warn!(%error, "guest state is unavailable");
    StateError::Unavailable
}

impl Host for CallHost {
    fn log(&self, stream: LogStream, line: &str) {
        let (module, job_id) = (Arc::clone(&self.module), self.job_id.clone());
        let line = LogLine {
            module,
            job_id,
            stream,
            text: line.to_owned(),
        };
        if self.outside.lines.try_send(line).is_err() {
            self.outside.tally.log_lines_dropped.add_from_anywhere(1);
        }
    }

    fn get_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, Option<Bytes>> {
        let get = async move {
            let (key, state) = (self.key(key)?, self.outside.state().await?);
            state.get(key).await.map_err(|error| self.outside.lost(error))
        };
        get.boxed()
    }

    fn set_state<'a>(&'a self, key: &'a [u8], value: Bytes) -> StateFuture<'a, ()> {
        let set = async move {
            let (key, state) = (self.key(key)?, self.outside.state().await?);
            state
                .put(key, value)
                .await
                .map(drop)
                .map_err(|error| self.outside.lost(error))
        };
        set.boxed()
    }

    fn settings(&self) -> &Settings {
        &self.module.settings
    }

    fn secrets(&self) -> &Secrets {
        &self.module.secrets
    }

    fn outbound(&self) -> Option<&Arc<Outbound>> {
        Some(&self.outside.outbound)
    }

    fn objects(&self) -> Option<Arc<dyn Objects>> {
        let module = self.module.name.as_ref();
        module.map(|module| self.outside.objects.of(module))
    }

    fn increment_state<'a>(&'a self, key: &'a [u8], delta: u64) -> StateFuture<'a, u64> {
        let increment = async move {
            let (key, state) = (self.key(key)?, self.outside.state().await?);
            for _ in 0..MAX_RACES {
                let entry = state
                    .entry(&key)
                    .await
                    .map_err(|error| self.outside.lost(error))?;
                let (before, revision) = match entry {
                    Some(entry) if entry.operation == Operation::Put => {
                        (number(&entry.value)?, entry.revision)
                    }
                    Some(gone) => (0, gone.revision),
                    None => (0, 0),
                };
                let sum = before.checked_add(delta).ok_or(StateError::NoNumber)?;
                match state.update(&key, sum.to_string().into(), revision).await {
                    Ok(_) => return Ok(sum),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                    Err(error) => return Err(self.outside.lost(error)),
                }
            }
            Err(self.outside.lost("a number keeps changing"))
        };
        increment.boxed()
    }

    fn list_state(&self) -> StateFuture<'_, Vec<Vec<u8>>> {
        let list = async move {
            let (prefix, state) = (self.prefix()?, self.outside.state().await?);
            // Keys of one module are one token behind its name.
            let module = prefix.split('.').next().unwrap_or_default();
            let listed = self
                .listed(&state, &format!("{}{module}.*", state.prefix))
                .await?;
            let mut keys: Vec<_> = listed.iter().filter_map(|subject| guest_key(subject)).collect();
            keys.sort_unstable();
            Ok(keys)
        };
        list.boxed()
    }

    fn publish<'a>(
        &'a self,
        subject: &'a str,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> StateFuture<'a, bool> {
        let publish = async move {
            let granted = &self.module.settings.grants.publish;
            let may = self.outside.subjects.may_reply_to(subject);
            if !may || !granted.iter().any(|pattern| covers(pattern, subject)) {
                return Ok(false);
            }
            let (client, subject) = (self.outside.storage.client(), subject.to_owned());
            let published = match header_map(headers) {
                Some(headers) => client.publish_with_headers(subject, headers, payload).await,
                None => client.publish(subject, payload).await,
            };
            published.map(|()| true).map_err(|error| match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => StateError::MessageTooLarge,
                PublishErrorKind::InvalidSubject | PublishErrorKind::Send => unavailable(&error),
            })
        };
        publish.boxed()
    }

    fn delete_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, ()> {
        let delete = async move {
            let (key, state) = (self.key(key)?, self.outside.state().await?);
            state.delete(key).await.map_err(|error| self.outside.lost(error))
        };
        delete.boxed()
    }
}
