//! A bucket as a feed: what lies in it now, then every change in order.
//!
//! Belongs to one connection: after a reconnect a feed is opened anew, as the server may have come back with other data.

use async_nats::Client;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::kv::Store;
use futures_util::StreamExt;

use super::record::RawRecord;
use super::records::is_deletion;

/// The changes, and how many of them are the replay.
pub(crate) struct Feed {
    changes: push::Ordered,
    prefix: String,
    pending: u64,
}

impl Feed {
    /// Asks for all of a bucket. NATS shows `description` to its operators.
    pub(crate) async fn open(
        client: &Client,
        bucket: Store,
        description: &str,
    ) -> Result<Self, async_nats::Error> {
        let consumer = bucket.stream.create_consumer(push::OrderedConfig {
            deliver_subject: client.new_inbox(),
            description: Some(description.into()),
            filter_subject: format!("{}>", bucket.prefix),
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

    /// What lies in the bucket now, in the order of the stream. To be asked first.
    pub(crate) async fn replay(&mut self) -> Result<Vec<RawRecord>, async_nats::Error> {
        let mut records = Vec::new();
        while self.pending > 0 {
            records.push(self.next().await?);
        }
        Ok(records)
    }

    /// The next change.
    pub(crate) async fn next(&mut self) -> Result<RawRecord, async_nats::Error> {
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
