//! What a call's guest gets from outside: its module's state in JetStream KV, its log on NATS.

use std::sync::Arc;

use async_nats::jetstream::kv::Store;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use wess_schemas::subject::{Subjects, state_key};
use wess_schemas::{JobId, header};

use super::tally::Tally;
use crate::guest::{Host, LogStream, StateError, StateFuture};
use crate::registry::{Resolved, Storage};

/// Lines under way to NATS; past it lines are dropped and counted, so that no guest waits for its log.
const LOG_LINES: usize = 1024;

/// One call's host.
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
    pub fn new(storage: Storage, tally: Arc<Tally>) -> (Arc<Self>, mpsc::Receiver<LogLine>) {
        let (lines, receiver) = mpsc::channel(LOG_LINES);
        (
            Arc::new(Self {
                storage,
                lines,
                tally,
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

impl CallHost {
    fn key(&self, key: &[u8]) -> Result<String, StateError> {
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

    fn delete_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, ()> {
        let delete = async move {
            let (key, state) = (self.key(key)?, self.outside.state().await?);
            state.delete(key).await.map_err(|error| self.outside.lost(error))
        };
        delete.boxed()
    }
}
