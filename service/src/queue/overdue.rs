//! Calls queued from here that nobody has been given by their deadline: taken out of the queue, so that their callers
//! can be told.
//!
//! Invariant: what a worker was given in time is the worker's to answer; past that, whoever takes a call out of the queue tells
//! its caller, so that nobody is told twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::stream::{DeleteMessageError, DeleteMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wess_schemas::subject::{CALLS_CONSUMER, CALLS_STREAM, Subjects};

/// How long after its deadline a call is looked after; so long a worker has for one that it is given at the last moment.
/// Also the least time between two looks.
const MARGIN: Duration = Duration::from_millis(250);
/// Calls remembered; more than the queue holds, unless its operator made it larger.
const MAX_REMEMBERED: usize = 16_384;

/// What this process has queued and who waits for it, by when it is overdue. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Overdue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<BTreeMap<(Instant, u64), Subject>>,
    added: Notify,
}

impl Overdue {
    /// Remembers a call by its number in the queue. Past the bound it is not: it gets no answer unless a worker is given it.
    pub fn add(&self, deadline: Instant, number: u64, reply: Subject) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_REMEMBERED {
            waiting.insert((deadline + MARGIN, number), reply);
        }
        drop(waiting);
        self.0.added.notify_one();
    }

    /// Waits until calls are overdue, takes out of the queue those that nobody was given, and gives where their callers
    /// wait. A queue that is away has given, or lost, what was in it.
    pub async fn take_out(&self, jetstream: &Context, subjects: &Subjects) -> Vec<Subject> {
        let mut taken = Vec::new();
        let due = self.due().await;
        let Ok(stream) = jetstream.get_stream_no_info(subjects.stream(CALLS_STREAM)).await else {
            return taken;
        };
        let Some(given) = last_given(&stream).await else {
            return taken;
        };
        for (number, reply) in due {
            if number > given && take_one(&stream, number).await.unwrap_or(false) {
                taken.push(reply);
            }
        }
        taken
    }

    /// Whether an overdue call that a worker was given is the worker's to tell of, and not told of by who queued it. It is
    /// out of the queue then. Where the queue does not say: twice is better than never.
    pub async fn is_to_tell(jetstream: &Context, subjects: &Subjects, number: u64) -> bool {
        let Ok(stream) = jetstream.get_stream_no_info(subjects.stream(CALLS_STREAM)).await else {
            return true;
        };
        take_one(&stream, number).await.unwrap_or(true)
    }

    async fn due(&self) -> Vec<(u64, Subject)> {
        loop {
            let Some(next) = self.next() else {
                self.0.added.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.0.added.notified() => continue,
            }
            let due: Vec<_> = self.take_due(Instant::now()).collect();
            if !due.is_empty() {
                return due;
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&self, now: Instant) -> impl Iterator<Item = (u64, Subject)> + use<> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let later = waiting.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut *waiting, later);
        due.into_iter().map(|((_, number), reply)| (number, reply))
    }
}

/// Takes one call out of the queue; false when it is not there any more. Of several who try, it is true for one.
async fn take_one<I>(stream: &Stream<I>, number: u64) -> Result<bool, DeleteMessageError> {
    match stream.delete_message(number).await {
        Err(error) if is_gone(&error) => Ok(false),
        taken => taken,
    }
}

/// The server has a code for what is not there; of a stream in files it may say so in words alone.
fn is_gone(error: &DeleteMessageError) -> bool {
    let DeleteMessageErrorKind::JetStream(error) = error.kind() else {
        return false;
    };
    match error.error_code() {
        ErrorCode::SEQUENCE_NOT_FOUND | ErrorCode::NO_MESSAGE_FOUND => true,
        ErrorCode::STREAM_MESSAGE_DELETE_FAILED => {
            let said = error.to_string();
            said.contains("no message found") || said.contains("stream store EOF")
        }
        _ => false,
    }
}

/// The number of the last call that was given to anybody.
async fn last_given<I>(stream: &Stream<I>) -> Option<u64> {
    let consumer = stream.consumer_info(CALLS_CONSUMER).await;
    consumer.ok().map(|info| info.delivered.stream_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fall_due_in_the_order_of_their_deadlines_and_not_before() {
        let (overdue, now) = (Overdue::default(), Instant::now());
        let second = Duration::from_secs(1);
        overdue.add(now + 2 * second, 1, "b".into());
        overdue.add(now + second, 2, "a".into());
        overdue.add(now + second, 3, "a".into());
        assert_eq!(overdue.next(), Some(now + second + MARGIN));
        let due = |at| {
            overdue
                .take_due(at)
                .map(|(number, _)| number)
                .collect::<Vec<u64>>()
        };
        assert_eq!(due(now + second + MARGIN - Duration::from_nanos(1)), [0; 0]);
        assert_eq!(due(now + second + MARGIN), [2, 3]);
        assert_eq!(due(now + 9 * second), [1]);
        assert_eq!(overdue.next(), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (overdue, now) = (Overdue::default(), Instant::now());
        for number in 0..=MAX_REMEMBERED as u64 {
            overdue.add(now, number, "a".into());
        }
        assert_eq!(overdue.take_due(now + 2 * MARGIN).count(), MAX_REMEMBERED);
    }
}
