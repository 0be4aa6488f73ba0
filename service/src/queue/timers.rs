//! Jobs that start later: each waits as a schedule of NATS's own in `WESS_TIMERS`, and is moved to `WESS_JOBS` once it fired.
//!
//! Every worker and gateway moves what fired, so that it is moved where there is no worker. A firing that is delivered
//! twice makes the same message again, which the stream of jobs refuses: once each.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET, NATS_SCHEDULE_TIME_ZONE};
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError};
use async_nats::jetstream::{AckKind, Context, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;
use wess_schemas::header::{REQUEST_DIGEST, TRACEPARENT};
use wess_schemas::subject::{Queue, Subjects, TIMERS_STREAM};
use wess_schemas::{JobId, Tenant};

use super::assets::QueueAssets;
use super::{QueueError, publish, server_time};
use crate::lifecycle::Lifecycle;

/// What NATS says of a schedule that has fired for the last time.
const LAST: &str = "purge";
const SCHEDULE_NEXT: &str = "Nats-Schedule-Next";
/// Firings taken at once.
const BATCH: usize = 64;
/// How long one request for firings waits at the server.
const EXPIRES: Duration = Duration::from_secs(5);
/// How long to wait before a firing that could not be moved, or asked for, is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// When a job starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Once, so long from now by the clock of the server that fires it; NATS takes whole seconds.
    In(Duration),
    /// Again and again, as NATS reads it.
    Cron {
        /// `@every 1m`, `@hourly` or six fields.
        pattern: String,
        /// An IANA name.
        time_zone: Option<String>,
    },
}

/// Puts a job off. Fails with [`QueueError::Duplicate`] if there is a schedule with its id.
pub async fn schedule(
    jetstream: &Context,
    subjects: &Subjects,
    job_id: &JobId,
    schedule: &Schedule,
    mut headers: HeaderMap,
    payload: Bytes,
) -> Result<u64, QueueError> {
    let tenant = Tenant::default();
    match schedule {
        Schedule::In(delay) => {
            let now = server_time(jetstream, &subjects.stream(TIMERS_STREAM)).await;
            let at = now.map_err(unavailable)? + *delay;
            headers.insert(NATS_SCHEDULE, format!("@at {}", whole_seconds(at)));
        }
        Schedule::Cron { pattern, time_zone } => {
            headers.insert(NATS_SCHEDULE, pattern.as_str());
            if let Some(zone) = time_zone {
                headers.insert(NATS_SCHEDULE_TIME_ZONE, zone.as_str());
            }
        }
    }
    headers.insert(
        NATS_SCHEDULE_TARGET,
        subjects.queued(Queue::Fired, &tenant, job_id),
    );
    headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    publish(
        jetstream,
        subjects.queued(Queue::At, &tenant, job_id),
        headers,
        payload,
    )
    .await
}

/// Nothing was stored yet.
fn unavailable(error: RequestError) -> QueueError {
    let source = PublishError::with_source(PublishErrorKind::Other, error);
    QueueError::Unavailable { source }
}

/// RFC 3339, never earlier than asked.
fn whole_seconds(at: OffsetDateTime) -> String {
    let up = if at.nanosecond() == 0 { 0 } else { 1 };
    let whole = at.replace_nanosecond(0).unwrap_or(at) + time::Duration::seconds(up);
    // A date that we made always prints.
    whole.format(&Rfc3339).unwrap_or_default()
}

/// Moves what fires until shutdown, where the server knows schedules.
pub fn spawn(lifecycle: &Lifecycle, jetstream: Context, queue: &QueueAssets, subjects: &Subjects) {
    if let Some(consumer) = queue.timers.clone() {
        let end = lifecycle.shutdown.clone();
        lifecycle.spawn(
            "move what fired",
            move_fired(jetstream, consumer, subjects.clone(), end),
        );
    }
}

/// Moves what fires until `end`.
pub async fn move_fired(
    jetstream: Context,
    consumer: PullConsumer,
    subjects: Subjects,
    end: CancellationToken,
) {
    while !end.is_cancelled() {
        let moving = move_batch(&jetstream, &consumer, &subjects);
        match end.run_until_cancelled(moving).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "schedules cannot be asked for what fired");
                end.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
            None => return,
        }
    }
}

async fn move_batch(
    jetstream: &Context,
    consumer: &PullConsumer,
    subjects: &Subjects,
) -> Result<(), async_nats::Error> {
    let mut fired = consumer
        .batch()
        .max_messages(BATCH)
        .expires(EXPIRES)
        .messages()
        .await?;
    while let Some(message) = fired.next().await {
        move_one(jetstream, subjects, message?).await?;
    }
    Ok(())
}

/// A firing goes only once the stream of jobs has its job.
async fn move_one(jetstream: &Context, subjects: &Subjects, fired: Message) -> Result<(), async_nats::Error> {
    let sequence = fired.info()?.stream_sequence;
    let Some((job_id, headers)) = job_of(subjects, &fired, sequence) else {
        tracing::error!(subject = %fired.subject, "a schedule fired that is none of ours");
        return fired.ack_with(AckKind::Term).await;
    };
    let queued = subjects.queued(Queue::Jobs, &Tenant::default(), &job_id);
    match publish(jetstream, queued, headers, fired.payload.clone()).await {
        Ok(_) | Err(QueueError::Duplicate) => {
            fired.ack().await?;
            jetstream
                .get_stream_no_info(subjects.stream(TIMERS_STREAM))
                .await?
                .delete_message(sequence)
                .await?;
        }
        Err(error) => {
            tracing::warn!(%job_id, %error, "a job that is due cannot be queued yet");
            fired.ack_with(AckKind::Nak(Some(PAUSE))).await?;
        }
    }
    Ok(())
}

/// The job that a firing is: of a schedule that goes on, each has a number of its own.
fn job_of(subjects: &Subjects, fired: &Message, sequence: u64) -> Option<(JobId, HeaderMap)> {
    let (_, _, id) = subjects.parse_queued(&fired.subject).ok()?;
    let said = fired.headers.as_ref()?;
    let once = said.get(SCHEDULE_NEXT).is_none_or(|next| next.as_str() == LAST);
    let job_id = if once {
        id
    } else {
        format!("{id}-{sequence}").parse().ok()?
    };
    let mut headers = HeaderMap::new();
    for kept in [TRACEPARENT, REQUEST_DIGEST] {
        if let Some(value) = said.get(kept) {
            headers.insert(kept, value.clone());
        }
    }
    Some((job_id, headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_schedule_is_in_whole_seconds_and_never_early() {
        assert_eq!(
            whole_seconds(datetime!(2026-02-03 04:05:06 UTC)),
            "2026-02-03T04:05:06Z"
        );
        assert_eq!(
            whole_seconds(datetime!(2026-02-03 04:05:06.001 UTC)),
            "2026-02-03T04:05:07Z"
        );
        assert_eq!(
            whole_seconds(datetime!(2026-12-31 23:59:59.9 UTC)),
            "2027-01-01T00:00:00Z"
        );
    }
}
