//! The queue of calls as a test sees it: what waits there, calls put there as a gateway would, and replies that are counted.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;
use wess_harness::{DEADLINE, eventually};
use wess_schemas::subject::{CALLS_STREAM, Subjects};
use wess_schemas::timestamp::Timestamp;
use wess_service::queue::calls::QueuedCall;
use wess_service::queue::overdue::Overdue;

use crate::rig::{Answered, Caller, header_map, read};

/// How long calls here may wait, unless told.
pub const WAIT: Duration = Duration::from_secs(60);

/// The stream of calls with room for so many.
pub fn calls_stream(max_messages: i64) -> stream::Config {
    stream::Config {
        name: CALLS_STREAM.into(),
        subjects: vec!["wess.queue.calls.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        storage: stream::StorageType::Memory,
        discard: stream::DiscardPolicy::New,
        max_messages,
        allow_message_ttl: true,
        ..stream::Config::default()
    }
}

impl Caller {
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.clone())
    }

    /// How many calls are in the queue, those that a worker has in hand included.
    pub async fn queued(&self) -> u64 {
        let stream = self.jetstream().get_stream(CALLS_STREAM).await.unwrap();
        stream.cached_info().state.messages
    }

    /// Takes the queue away for good: its name is taken by a stream that holds something else. Calls wait with their
    /// worker then.
    pub async fn take_queue_away(&self) {
        let jetstream = self.jetstream();
        let decoy = stream::Config {
            name: CALLS_STREAM.into(),
            subjects: vec!["elsewhere".into()],
            ..stream::Config::default()
        };
        eventually("the queue to be away", async || {
            // A worker may make it anew in between.
            let _ = jetstream.delete_stream(CALLS_STREAM).await;
            jetstream.create_stream(decoy.clone()).await.ok()
        })
        .await;
    }

    /// Waits until so many calls are in the queue.
    pub async fn has_queued(&self, calls: u64) {
        let what = format!("{calls} calls to be in the queue");
        eventually(&what, async || (self.queued().await == calls).then_some(())).await;
    }
}

/// Requests whose replies are counted.
pub struct Counted {
    caller: Caller,
    inbox: String,
    replies: Subscriber,
    asked: usize,
}

impl Counted {
    pub async fn new(caller: &Caller) -> Self {
        let inbox = caller.client.new_inbox();
        let replies = caller.client.subscribe(format!("{inbox}.*")).await.unwrap();
        Self {
            caller: caller.clone(),
            inbox,
            replies,
            asked: 0,
        }
    }

    fn next_reply(&mut self) -> String {
        self.asked += 1;
        format!("{}.{}", self.inbox, self.asked - 1)
    }

    /// Asks whoever listens.
    pub async fn ask(&mut self, subject: &'static str, payload: impl Into<Bytes>) {
        let reply = self.next_reply();
        let client = &self.caller.client;
        client
            .publish_with_reply(subject, reply, payload.into())
            .await
            .unwrap();
    }

    /// Puts a request into the queue, as a gateway does when nobody listens.
    pub async fn enqueue(&mut self, subject: &str, headers: &[(&str, &str)], payload: impl Into<Bytes>) {
        self.enqueue_for(WAIT, subject, headers, payload).await;
    }

    /// As [`Counted::enqueue`], with a wait of its own.
    pub async fn enqueue_for(
        &mut self,
        wait: Duration,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<Bytes>,
    ) {
        let reply = self.next_reply();
        enqueue(&self.caller, wait, subject, headers, payload, &reply).await;
    }

    /// Puts calls into the queue whose wait has ended, as remembered by whoever put them there.
    pub async fn enqueue_overdue(&mut self, calls: usize, subject: &str) -> Overdue {
        let overdue = Overdue::default();
        for _ in 0..calls {
            let reply = self.next_reply();
            let number = enqueue(&self.caller, Duration::ZERO, subject, &[], "a", &reply).await;
            overdue.add(Instant::now(), number, reply.into());
        }
        overdue
    }

    /// The reply to every request, in the order of the requests. The queue must be empty by then, and nobody is answered
    /// twice.
    pub async fn answered_once(self) -> Vec<Answered<Message>> {
        self.answered_in_order().await.0
    }

    /// As [`Counted::answered_once`], and which request was answered first, second and so on.
    pub async fn answered_in_order(mut self) -> (Vec<Answered<Message>>, Vec<usize>) {
        let mut answers: Vec<Option<Answered<Message>>> = (0..self.asked).map(|_| None).collect();
        let mut order = Vec::new();
        for _ in 0..self.asked {
            let reply = tokio::time::timeout(DEADLINE, self.replies.next()).await;
            let reply = reply.unwrap_or_else(|_| {
                let missing = answers.iter().filter(|answer| answer.is_none()).count();
                panic!("{missing} of {} requests were not answered", answers.len())
            });
            let reply = reply.unwrap();
            let at: usize = reply.subject.rsplit('.').next().unwrap().parse().unwrap();
            assert!(answers[at].is_none(), "request {at} was answered twice");
            answers[at] = Some(read(reply));
            order.push(at);
        }
        self.caller.has_queued(0).await;
        // The server sends in order: whatever was published before this has come before it.
        let last = format!("{}.last", self.inbox);
        self.caller.client.publish(last.clone(), "".into()).await.unwrap();
        let reply = self.replies.next().await.unwrap();
        assert_eq!(reply.subject.as_str(), last, "a request was answered twice");
        (answers.into_iter().map(Option::unwrap).collect(), order)
    }
}

/// Puts a request into the queue that is answered at `reply`; gives its number there.
pub async fn enqueue(
    caller: &Caller,
    wait: Duration,
    subject: &str,
    headers: &[(&str, &str)],
    payload: impl Into<Bytes>,
    reply: &str,
) -> u64 {
    let now_ms = Timestamp::now().unix_ms();
    let call = QueuedCall {
        subject: subject.into(),
        headers: header_map(headers),
        payload: payload.into(),
        reply: Some(reply.into()),
        deadline_ms: now_ms + wait.as_millis() as u64,
    };
    let stored = call
        .enqueue(&caller.jetstream(), &Subjects::default(), now_ms)
        .await;
    stored.unwrap()
}
