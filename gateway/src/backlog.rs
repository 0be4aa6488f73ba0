//! What waits in the queue's streams and in bound ones, as JetStream says: read every second while NATS is connected, never by a scrape.
//!
//! Keeps what it last read through a short absence; what is older than [`KEPT`] is not known any more, rather than 0.

mod bound;

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{Info, PullConsumer};
use async_nats::jetstream::kv::Store;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use wess_schemas::subject::{
    CALLS_CONSUMER, CALLS_STREAM, DEAD_STREAM, JOBS_CONSUMER, JOBS_STREAM, Subjects,
};
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};

pub use bound::Bound;

/// How often it is read: three small requests and one for each binding of a stream, whatever the backlog.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a number is told that could not be read again.
const KEPT: Duration = Duration::from_secs(10);

/// What a consumer has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages that no worker has.
    pub pending: u64,
    /// Messages that a worker has and has not settled.
    pub ack_pending: u64,
}

impl Lag {
    fn of(info: &Info) -> Self {
        Self {
            pending: info.num_pending,
            ack_pending: info.num_ack_pending as u64,
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            pending: self.pending + other.pending,
            ack_pending: self.ack_pending + other.ack_pending,
        }
    }

    /// All of them: what KEDA calls lag.
    pub fn total(self) -> u64 {
        self.pending + self.ack_pending
    }
}

/// What waits. `None` is what could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Durable jobs.
    pub jobs: Option<Lag>,
    /// Synchronous calls that found no slot or no worker.
    pub calls: Option<Lag>,
    /// Messages of bound streams.
    pub bound: Bound,
    /// Jobs that were given up.
    pub dead_letters: Option<u64>,
}

/// Begins to read, until the lifecycle is closed, and tells of each change.
pub fn follow(
    connection: &Connection,
    jetstream: Context,
    subjects: Subjects,
    bindings: Store,
    lifecycle: &Lifecycle,
) -> watch::Receiver<Backlog> {
    let (sender, receiver) = watch::channel(Backlog::default());
    bound::spawn(connection, jetstream.clone(), bindings, sender.clone(), lifecycle);
    let (closed, watch) = (lifecycle.closed.clone(), connection.watch.clone());
    lifecycle.spawn_background("read the backlog", async move {
        closed
            .run_until_cancelled(run(jetstream, subjects, watch, sender))
            .await;
    });
    receiver
}

async fn run(
    jetstream: Context,
    subjects: Subjects,
    connection: ConnectionWatch,
    backlog: watch::Sender<Backlog>,
) {
    let (mut jobs, mut calls, mut dead_letters) =
        (Reading::default(), Reading::default(), Reading::default());
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let read = match connection.state().connected {
            true => read(&jetstream, &subjects).await,
            false => Backlog::default(),
        };
        let now = Instant::now();
        backlog.send_if_modified(|backlog| {
            let new = Backlog {
                jobs: jobs.update(read.jobs, now),
                calls: calls.update(read.calls, now),
                dead_letters: dead_letters.update(read.dead_letters, now),
                ..*backlog
            };
            std::mem::replace(backlog, new) != new
        });
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn read(jetstream: &Context, subjects: &Subjects) -> Backlog {
    let (jobs, calls, dead_letters) = tokio::join!(
        lag(jetstream, subjects.stream(JOBS_STREAM), JOBS_CONSUMER),
        lag(jetstream, subjects.stream(CALLS_STREAM), CALLS_CONSUMER),
        dead_letters(jetstream, subjects),
    );
    Backlog {
        jobs: known(JOBS_STREAM, jobs),
        calls: known(CALLS_STREAM, calls),
        dead_letters: known(DEAD_STREAM, dead_letters),
        ..Backlog::default()
    }
}

async fn lag(jetstream: &Context, stream: String, consumer: &str) -> Result<Lag, async_nats::Error> {
    let consumer: PullConsumer = jetstream.get_consumer_from_stream(consumer, stream).await?;
    Ok(Lag::of(consumer.cached_info()))
}

/// The stream's messages without its advisories. To have those counted, which are of one subject, is cheap; to have
/// the letters counted, each of another subject, would bring all their names.
async fn dead_letters(jetstream: &Context, subjects: &Subjects) -> Result<u64, async_nats::Error> {
    let stream = jetstream.get_stream_no_info(subjects.stream(DEAD_STREAM)).await?;
    let mut counted = stream
        .info_with_subjects(subjects.max_deliveries_advisory())
        .await?;
    let mut letters = counted.info.state.messages;
    while let Some(subject) = counted.next().await {
        let (_, advisories) = subject?;
        letters = letters.saturating_sub(advisories as u64);
    }
    Ok(letters)
}

fn known<T>(asset: &str, read: Result<T, async_nats::Error>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(asset, %error, "cannot read how much waits"))
        .ok()
}

/// A number and when it was read.
#[derive(Debug, Default)]
struct Reading<T>(Option<(T, Instant)>);

impl<T: Copy> Reading<T> {
    /// Takes what was read, and gives what may be told.
    fn update(&mut self, read: Option<T>, now: Instant) -> Option<T> {
        if let Some(value) = read {
            self.0 = Some((value, now));
        }
        self.0.filter(|(_, at)| now < *at + KEPT).map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_read_again_is_kept_for_a_while_and_then_not_known() {
        let (now, mut reading) = (Instant::now(), Reading::default());
        assert_eq!(reading.update(None, now), None);
        assert_eq!(reading.update(Some(7), now), Some(7));
        assert_eq!(reading.update(None, now + KEPT - INTERVAL), Some(7));
        assert_eq!(reading.update(None, now + KEPT), None);
        assert_eq!(reading.update(Some(8), now + KEPT), Some(8));
    }
}
