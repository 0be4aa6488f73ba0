//! Chunks that no object has, or has any more, are removed behind their guest's back, so that nobody waits for it.
//!
//! What a killed worker has not removed stays, and nobody is shown it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Inner;
use crate::guest::Upload;
use crate::registry::Storage;

/// Bounds each of the two steps that remove one upload.
const PATIENCE: Duration = Duration::from_secs(2);

/// An upload whose chunks are to be removed.
#[derive(Debug)]
pub struct Discarded {
    /// All of its chunks.
    chunks: String,
    /// One behind all others, where one of them may still be on its way.
    last: Option<String>,
}

/// Removes uploads until nobody can leave any behind.
pub async fn remove_discarded(storage: Storage, mut discarded: mpsc::Receiver<Discarded>) {
    while let Some(upload) = discarded.recv().await {
        // A purge may overtake a message, but no message another one of this connection.
        if let Some(last) = upload.last
            && timeout(PATIENCE, send(&storage, last)).await.is_err()
        {
            tracing::debug!("a last chunk was not acknowledged in time");
        }
        let chunks = upload.chunks;
        match timeout(PATIENCE, remove(&storage, &chunks)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error, chunks, "chunks of no object were not removed"),
            Err(_) => tracing::warn!(chunks, "chunks of no object were not removed in time"),
        }
    }
}

async fn send(storage: &Storage, last: String) {
    // Without a connection it would wait for one.
    if storage.objects().await.is_ok()
        && let Ok(sent) = storage.jetstream().publish(last, Bytes::new()).await
        && let Err(error) = sent.await
    {
        tracing::debug!(%error, "a last chunk was not taken");
    }
}

async fn remove(storage: &Storage, chunks: &str) -> Result<(), String> {
    let stream = storage.objects().await.map_err(|away| away.to_string())?;
    let removed = stream.purge().filter(chunks).await;
    removed.map(drop).map_err(|error| error.to_string())
}

impl Inner {
    /// Has the chunks of what was an object removed, when there is room to remember it.
    pub(super) async fn discard(&self, upload: &Upload) {
        let upload = Discarded {
            chunks: self.subjects.chunks(&upload.0),
            last: None,
        };
        if self.store.discarded.send(upload).await.is_err() {
            tracing::warn!("chunks of no object stay: the executor has stopped");
        }
    }

    /// Has the chunks of what will be no object removed, if there is room to remember it.
    pub(super) fn leave(&self, upload: &Upload) {
        let upload = Discarded {
            chunks: self.subjects.chunks(&upload.0),
            last: Some(self.subjects.chunk(&upload.0, u64::MAX)),
        };
        if let Err(full) = self.store.discarded.try_send(upload) {
            tracing::warn!(upload = ?full.into_inner(), "chunks of no object stay");
        }
    }
}

/// An upload that goes when this does, unless it is kept.
pub(super) struct Doomed<'a> {
    inner: &'a Inner,
    upload: &'a Upload,
    is_kept: bool,
}

impl<'a> Doomed<'a> {
    pub fn new(inner: &'a Inner, upload: &'a Upload) -> Self {
        Self {
            inner,
            upload,
            is_kept: false,
        }
    }

    /// Says whether it stays.
    pub fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }
}

impl Drop for Doomed<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.leave(self.upload);
        }
    }
}
