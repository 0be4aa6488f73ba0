//! A bucket as a feed: what lies in it now, then every change in order.
//!
//! Belongs to one connection: after a reconnect a feed is opened anew, as the server may have come back with other data.

use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::kv::Store;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;

const OPERATION: &str = "KV-Operation";

/// One entry of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its key.
    pub key: String,
    /// The revision that says so.
    pub revision: u64,
    /// `None` when the key was deleted.
    pub value: Option<Bytes>,
}

/// The changes, and how many of them are the replay.
pub struct Feed {
    changes: push::Ordered,
    prefix: String,
    pending: u64,
}

impl Feed {
    /// Asks for the keys of a bucket that fit a pattern. NATS shows `description` to its operators.
    pub async fn open(
        client: &Client,
        bucket: Store,
        keys: &str,
        description: &str,
    ) -> Result<Self, async_nats::Error> {
        let consumer = bucket.stream.create_consumer(push::OrderedConfig {
            deliver_subject: client.new_inbox(),
            description: Some(description.into()),
            filter_subject: format!("{}{keys}", bucket.prefix),
            replay_policy: ReplayPolicy::Instant,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..Default::default()
        });
        let consumer = consumer.await?;
        let pending = consumer.cached_info().num_pending;
        Ok(Self {
            changes: consumer.messages().await?,
            prefix: bucket.prefix,
            pending,
        })
    }

    /// Whether there is more of what lay in the bucket when it was asked for.
    pub fn is_replaying(&self) -> bool {
        self.pending > 0
    }

    /// What lies in the bucket now, in the order of the stream. To be asked first.
    pub async fn replay(&mut self) -> Result<Vec<RawRecord>, async_nats::Error> {
        let mut records = Vec::new();
        while self.is_replaying() {
            records.push(self.next().await?);
        }
        Ok(records)
    }

    /// The next change.
    pub async fn next(&mut self) -> Result<RawRecord, async_nats::Error> {
        let message = self
            .changes
            .next()
            .await
            .ok_or("the records can no longer be followed")??;
        let info = message.info()?;
        let (revision, pending) = (info.stream_sequence, info.pending);
        self.pending = pending;
        let key = message
            .subject
            .strip_prefix(self.prefix.as_str())
            .unwrap_or(message.subject.as_str());
        let value = (!is_deletion(message.headers.as_ref())).then(|| message.payload.clone());
        Ok(RawRecord {
            key: key.to_owned(),
            revision,
            value,
        })
    }
}

/// Whether a message of a bucket's stream says that its key is gone.
pub fn is_deletion(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| {
        headers
            .get(OPERATION)
            .is_some_and(|operation| operation.as_str() != "PUT")
    })
}
