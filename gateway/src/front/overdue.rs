//! Requests that nobody took from the queue in time, while no worker beats that would say so: they are answered
//! `expired` from here.
//!
//! Invariant: only what is deleted from the queue is answered, and only while nobody is there who could have it in hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wess_schemas::subject::CALLS_STREAM;
use wess_schemas::{ErrorBody, ErrorCode};

use super::Desk;

/// How long after its deadline a request is looked after: a worker that took it just before beats by then.
const MARGIN: Duration = Duration::from_secs(1);
/// Requests remembered; more than the queue holds, unless its operator made it larger.
const MAX_REMEMBERED: usize = 16_384;

/// What this gateway has queued and who waits for it, by when it is overdue.
#[derive(Debug, Default)]
pub struct Overdue {
    waiting: Mutex<BTreeMap<(Instant, u64), Subject>>,
    added: Notify,
}

impl Overdue {
    /// Remembers a request by its number in the queue. Past the bound it is not: it is never answered, as if NATS had lost it.
    pub fn add(&self, deadline: Instant, number: u64, reply: Subject) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_REMEMBERED {
            waiting.insert((deadline + MARGIN, number), reply);
        }
        drop(waiting);
        self.added.notify_one();
    }

    fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&self, now: Instant) -> impl Iterator<Item = (u64, Subject)> + use<> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let later = waiting.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut *waiting, later);
        due.into_iter().map(|((_, number), reply)| (number, reply))
    }
}

impl Desk {
    /// Until shutdown.
    pub(super) async fn answer_overdue(self: Arc<Self>) {
        let shutdown = self.lifecycle.shutdown.clone();
        let answering = async {
            loop {
                let next = self.overdue.next();
                tokio::select! {
                    () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => (),
                    () = self.overdue.added.notified() => continue,
                }
                for (number, reply) in self.overdue.take_due(Instant::now()) {
                    self.expire(number, reply).await;
                }
            }
        };
        shutdown.run_until_cancelled(answering).await;
    }

    /// Whatever beats, draining or not, may have the request in hand, and says itself that it is overdue.
    async fn expire(&self, number: u64, reply: Subject) {
        let state = *self.fleet.borrow();
        if !state.known || state.taking + state.draining > 0 {
            return;
        }
        let deleted = match self
            .jetstream
            .get_stream_no_info(self.subjects.stream(CALLS_STREAM))
            .await
        {
            Ok(stream) => stream.delete_message(number).await.unwrap_or(false),
            Err(_) => false,
        };
        if deleted {
            let text = "no worker was there before its wait ended";
            let error = ErrorBody::new(ErrorCode::Expired, text);
            self.ended(Some(reply), Err(error)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_in_the_order_of_their_deadlines_and_not_before() {
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
