//! Durable consumers of bound streams, one for each binding, by its name. They keep the binding's place in the stream.
//!
//! Invariant: no consumer outlives its binding: whoever makes one looks afterwards whether the binding is still there.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use wess_schemas::binding::{Binding, Deliver};
use wess_schemas::subject::binding_group;
use wess_schemas::{BindingName, ErrorBody, ErrorCode};

use super::records::Records;
use crate::queue::bad_request;
use crate::registry::Storage;

/// Messages of one binding that all workers together may have in hand.
const MAX_ACK_PENDING: i64 = 8192;
/// Pull requests that may wait at a consumer: more than the largest fleet sends.
const MAX_WAITING: i64 = 8192;

/// Makes and deletes consumers. Cheap to clone.
#[derive(Clone)]
pub struct Consumers {
    /// The way to JetStream.
    pub storage: Storage,
    /// Bindings' records.
    pub records: Records,
    /// How long a worker may be silent about a message.
    pub ack_wait: Duration,
}

impl Consumers {
    /// The subjects that a stream holds; refuses one that is not there.
    pub async fn subjects_of(&self, stream: &str) -> Result<Vec<String>, ErrorBody> {
        let found = self.storage.jetstream().get_stream(stream).await;
        let found = found.map_err(|error| explain_stream(stream, &error))?;
        Ok(found.cached_info().config.subjects.clone())
    }

    /// Makes a binding's consumer, or makes the one that is there take what the binding says. Its place stays.
    pub async fn ensure(&self, binding: &Binding, stream: &str) -> Result<PullConsumer, ErrorBody> {
        let (name, jetstream) = (binding_group(&binding.name), self.storage.jetstream());
        let there: Result<PullConsumer, _> = jetstream.get_consumer_from_stream(&name, stream).await;
        let deliver_policy = match (there, binding.deliver) {
            (Ok(there), _) => there.cached_info().config.deliver_policy,
            (Err(_), Deliver::All) => DeliverPolicy::All,
            (Err(_), Deliver::New) => DeliverPolicy::New,
        };
        let config = pull::Config {
            durable_name: Some(name),
            description: Some(format!("binding of {}", binding.module)),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            // Who is delivered too often is given up by whoever gets it next, and not left in the stream.
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            max_waiting: MAX_WAITING,
            deliver_policy,
            filter_subject: binding.filter.clone().unwrap_or_default(),
            ..pull::Config::default()
        };
        let made = jetstream.create_consumer_on_stream(config, stream).await;
        made.map_err(|error| explain(stream, &error))
    }

    /// As [`Consumers::ensure`], for a binding whose record lies at a revision: `None` when it does no more.
    pub async fn open(
        &self,
        binding: &Binding,
        stream: &str,
        revision: u64,
    ) -> Result<Option<PullConsumer>, ErrorBody> {
        if self.records.revision(&binding.name).await? != revision {
            return Ok(None);
        }
        let consumer = self.ensure(binding, stream).await?;
        // Whoever deletes a binding deletes its record first: if it is there yet, this consumer is still to be deleted.
        if self.records.revision(&binding.name).await? == revision {
            return Ok(Some(consumer));
        }
        self.delete(&binding.name, stream).await?;
        Ok(None)
    }

    /// Deletes a binding's consumer, with its place; one that is gone, alone or with its stream, is deleted.
    pub async fn delete(&self, name: &BindingName, stream: &str) -> Result<(), ErrorBody> {
        let jetstream = self.storage.jetstream();
        let deleted = jetstream
            .delete_consumer_from_stream(&binding_group(name), stream)
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(said) if said.code() == 404 => Ok(()),
                _ => Err(explain(stream, &error)),
            },
        }
    }
}

fn explain_stream(stream: &str, error: &GetStreamError) -> ErrorBody {
    match error.kind() {
        GetStreamErrorKind::JetStream(said) if said.code() == 404 => no_stream(stream),
        _ => away(stream, error),
    }
}

fn explain(stream: &str, error: &ConsumerError) -> ErrorBody {
    match error.kind() {
        ConsumerErrorKind::JetStream(said) if said.code() == 404 => no_stream(stream),
        ConsumerErrorKind::JetStream(said) if said.code() < 500 => {
            bad_request(format!("stream {stream} takes no such consumer: {said}"))
        }
        _ => away(stream, error),
    }
}

fn no_stream(stream: &str) -> ErrorBody {
    bad_request(format!("there is no stream {stream}"))
}

fn away(stream: &str, error: &dyn std::fmt::Display) -> ErrorBody {
    tracing::warn!(%error, stream, "a bound stream did not answer");
    ErrorBody::new(
        ErrorCode::Unavailable,
        format!("the stream {stream} did not answer"),
    )
}
