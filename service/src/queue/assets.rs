//! The queue's streams and their durable consumers, which must be there before any worker is: an autoscaler reads them.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use futures_util::FutureExt;
use wess_schemas::subject::{
    CALLS_CONSUMER, CALLS_STREAM, DEAD_STREAM, JOBS_CONSUMER, JOBS_STREAM, Queue, SWEEP_CONSUMER, Subjects,
    TIMERS_CONSUMER, TIMERS_STREAM,
};

use crate::assets::{AssetError, AssetOptions, ensure};

/// Calls waiting at once.
const MAX_CALLS: i64 = 10_000;
/// What waiting calls may hold together, in bytes of the server's memory.
const MAX_CALLS_BYTES: i64 = 64 << 20;
/// Deliveries of one job before it is given up.
pub const MAX_DELIVERIES: i64 = 20;
/// What only has to be moved or written down is delivered until that is done: nothing says that it was given up.
const NO_END: i64 = -1;
/// Messages that all workers together may have in hand: more than the largest fleet has slots.
const MAX_ACK_PENDING: i64 = 65_536;
/// Pull requests that may wait at a consumer: more than the largest fleet sends.
const MAX_WAITING: i64 = 8192;

/// Handles to the queue's consumers. Cheap to clone.
#[derive(Clone)]
pub struct QueueAssets {
    /// Of submitted jobs.
    pub jobs: PullConsumer,
    /// Of waiting calls.
    pub calls: PullConsumer,
    /// Of what schedules fired; `None` where the server knows no schedules.
    pub timers: Option<PullConsumer>,
    /// Of advisories that a job was delivered too often.
    pub sweep: PullConsumer,
}

/// Opens every stream and consumer, making those that are missing.
pub async fn ensure_queue(jetstream: &Context, options: &AssetOptions) -> Result<QueueAssets, AssetError> {
    let subjects = &options.subjects;
    let (jobs, calls, timers, sweep) = tokio::try_join!(
        ensure_consumer(
            jetstream,
            options,
            jobs_stream(options),
            JOBS_CONSUMER,
            Queue::Jobs
        )
        .boxed(),
        ensure_consumer(
            jetstream,
            options,
            calls_stream(subjects),
            CALLS_CONSUMER,
            Queue::Calls
        )
        .boxed(),
        ensure_timers(jetstream, options).boxed(),
        ensure_sweep(jetstream, options).boxed(),
    )?;
    Ok(QueueAssets {
        jobs,
        calls,
        timers,
        sweep,
    })
}

async fn ensure_consumer(
    jetstream: &Context,
    options: &AssetOptions,
    stream: Config,
    consumer: &'static str,
    queue: Queue,
) -> Result<PullConsumer, AssetError> {
    let name = stream.name.clone();
    ensure_stream(jetstream, options, stream).await?;
    let filter = options.subjects.queue_wildcard(queue);
    open_consumer(jetstream, options, &name, consumer, filter, MAX_DELIVERIES).await
}

/// A server before 2.12 takes the stream without its schedules, or not at all.
async fn ensure_timers(
    jetstream: &Context,
    options: &AssetOptions,
) -> Result<Option<PullConsumer>, AssetError> {
    let made = ensure_stream(jetstream, options, timers_stream(&options.subjects)).await;
    match made {
        Ok(config) if config.allow_message_schedules => {}
        Ok(_) => return Ok(None),
        Err(error) if !jetstream.client().is_server_compatible(2, 12, 0) => {
            tracing::warn!(%error, "this NATS server knows no schedules: jobs start at once or not at all");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let filter = options.subjects.queue_wildcard(Queue::Fired);
    open_consumer(
        jetstream,
        options,
        &options.subjects.stream(TIMERS_STREAM),
        TIMERS_CONSUMER,
        filter,
        NO_END,
    )
    .await
    .map(Some)
}

async fn ensure_sweep(jetstream: &Context, options: &AssetOptions) -> Result<PullConsumer, AssetError> {
    ensure_stream(jetstream, options, dead_stream(&options.subjects)).await?;
    open_consumer(
        jetstream,
        options,
        &options.subjects.stream(DEAD_STREAM),
        SWEEP_CONSUMER,
        options.subjects.max_deliveries_advisory(),
        NO_END,
    )
    .await
}

/// Gives the settings that the stream has.
async fn ensure_stream(
    jetstream: &Context,
    options: &AssetOptions,
    stream: Config,
) -> Result<Config, AssetError> {
    let name = stream.name.clone();
    let wanted = stream.subjects.clone();
    let stream = Config {
        num_replicas: usize::from(options.replicas),
        allow_direct: true,
        ..stream
    };
    let found = ensure(
        &name,
        || jetstream.get_stream(&name),
        || jetstream.create_stream(stream),
    )
    .await?;
    let config = found.cached_info().config.clone();
    match wanted.iter().find(|subject| !config.subjects.contains(subject)) {
        None => Ok(config),
        Some(missing) => Err(AssetError::new(&name, format!("it does not hold {missing}"))),
    }
}

async fn open_consumer(
    jetstream: &Context,
    options: &AssetOptions,
    stream: &str,
    consumer: &str,
    filter_subject: String,
    max_deliver: i64,
) -> Result<PullConsumer, AssetError> {
    let config = pull::Config {
        durable_name: Some(consumer.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: options.ack_wait(),
        max_deliver,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        filter_subject,
        ..pull::Config::default()
    };
    ensure(
        consumer,
        || jetstream.get_consumer_from_stream(consumer, stream),
        || jetstream.create_consumer_on_stream(config, stream),
    )
    .await
}

fn jobs_stream(options: &AssetOptions) -> Config {
    Config {
        name: options.subjects.stream(JOBS_STREAM),
        subjects: vec![options.subjects.queue_wildcard(Queue::Jobs)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages: options.max_jobs,
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        ..Config::default()
    }
}

fn calls_stream(subjects: &Subjects) -> Config {
    Config {
        name: subjects.stream(CALLS_STREAM),
        subjects: vec![subjects.queue_wildcard(Queue::Calls)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::Memory,
        discard: DiscardPolicy::New,
        max_messages: MAX_CALLS,
        max_bytes: MAX_CALLS_BYTES,
        allow_message_ttl: true,
        ..Config::default()
    }
}

/// A stream with schedules can neither discard what is new nor be a work queue.
fn timers_stream(subjects: &Subjects) -> Config {
    Config {
        name: subjects.stream(TIMERS_STREAM),
        subjects: vec![
            subjects.queue_wildcard(Queue::At),
            subjects.queue_wildcard(Queue::Fired),
        ],
        storage: StorageType::File,
        allow_message_schedules: true,
        allow_message_ttl: true,
        ..Config::default()
    }
}

/// The advisories are kept with the letters, so that one which comes while nobody listens is not lost.
fn dead_stream(subjects: &Subjects) -> Config {
    Config {
        name: subjects.stream(DEAD_STREAM),
        subjects: vec![
            subjects.queue_wildcard(Queue::Dead),
            subjects.max_deliveries_advisory(),
        ],
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    }
}
