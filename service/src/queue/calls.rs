//! Synchronous calls that wait in `WESS_CALLS`: each as it was asked, with where its reply goes and until when it may wait.
//!
//! The caller's own headers travel under names of ours, so that none of them tells JetStream anything.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::{HeaderMap, HeaderValue, Message, Subject};
use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::header::{CALLER_PREFIX, DEADLINE_MS, REPLY_TO, SUBJECT, WAIT_MS};
use wess_schemas::job::{DEFAULT_JOB_WAIT_MS, MAX_JOB_WAIT_MS};
use wess_schemas::limits::{DEFAULT_WAIT_MS, MAX_WAIT_MS};
use wess_schemas::subject::{Endpoint, Queue, Subjects};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};

use super::{QueueError, publish};

/// How long after its deadline a call that nobody looked at is dropped by the stream.
const GARBAGE: Duration = Duration::from_secs(10);
/// When to come back to a queue that is full.
const RETRY_AFTER_MS: u64 = 1000;

/// A call as it was asked.
#[derive(Debug, Clone)]
pub struct QueuedCall {
    /// The subject that was asked.
    pub subject: String,
    /// The caller's headers; may be empty.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Bytes,
    /// Where the caller waits. Without one it is done all the same, and nobody is told.
    pub reply: Option<Subject>,
    /// Until when it may wait, in milliseconds since 1970.
    pub deadline_ms: u64,
}

/// A message of the queue that is no call.
#[derive(Debug, thiserror::Error)]
#[error("a message in the queue of calls has no {0}")]
pub struct NoCall(&'static str);

impl QueuedCall {
    /// Puts it into the queue under a new id; gives its number once the stream has it. `now_ms` is the wall clock.
    pub async fn enqueue(
        self,
        jetstream: &Context,
        subjects: &Subjects,
        now_ms: u64,
    ) -> Result<u64, QueueError> {
        let queued = subjects.queued(Queue::Calls, &Tenant::default(), &JobId::generate());
        let (headers, payload) = self.into_message(now_ms);
        publish(jetstream, queued, headers, payload).await
    }

    fn into_message(self, now_ms: u64) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            let name: &str = name.as_ref();
            for value in values {
                headers.append(format!("{CALLER_PREFIX}{name}"), value.clone());
            }
        }
        headers.insert(SUBJECT, self.subject);
        headers.insert(DEADLINE_MS, self.deadline_ms.to_string());
        if let Some(reply) = self.reply {
            headers.insert(REPLY_TO, reply.as_str());
        }
        let left = Duration::from_millis(self.deadline_ms.saturating_sub(now_ms)) + GARBAGE;
        // NATS takes whole seconds, and drops no earlier than told.
        headers.insert(
            async_nats::header::NATS_MESSAGE_TTL,
            (left.as_secs() + 1).to_string(),
        );
        (headers, self.payload)
    }

    /// Reads it back.
    pub fn read(message: Message) -> Result<Self, NoCall> {
        let headers = message.headers.ok_or(NoCall("headers"))?;
        let text = |name: &str| headers.get(name).map(HeaderValue::as_str);
        let subject = text(SUBJECT).ok_or(NoCall(SUBJECT))?.to_owned();
        let deadline_ms = text(DEADLINE_MS).and_then(|text| text.parse().ok());
        let mut call = Self {
            subject,
            headers: HeaderMap::new(),
            payload: message.payload,
            reply: text(REPLY_TO).map(Subject::from),
            deadline_ms: deadline_ms.ok_or(NoCall(DEADLINE_MS))?,
        };
        for (name, values) in headers.iter() {
            let Some(name) = AsRef::<str>::as_ref(name).strip_prefix(CALLER_PREFIX) else {
                continue;
            };
            for value in values {
                call.headers.append(name, value.clone());
            }
        }
        Ok(call)
    }

    /// How long it may still wait; nothing once it is overdue.
    pub fn time_left(&self, now_ms: u64) -> Option<Duration> {
        let left = self.deadline_ms.checked_sub(now_ms)?;
        (left > 0).then(|| Duration::from_millis(left))
    }
}

/// What a caller is told whose call the queue did not take.
pub fn refusal(error: &QueueError) -> ErrorBody {
    match error {
        QueueError::Full { .. } => ErrorBody::new(
            ErrorCode::Overloaded,
            "no worker is free, and the queue of calls is full",
        )
        .with("retry_after_ms", RETRY_AFTER_MS),
        QueueError::TooLarge => ErrorBody::new(
            ErrorCode::PayloadTooLarge,
            "the request leaves no room in a message for what the queue of calls adds to it: store its input, and refer to it",
        ),
        // What the server refuses is how the queue was made: no caller can choose what is said there.
        QueueError::Unavailable { .. } | QueueError::Refused { .. } => ErrorBody::new(
            ErrorCode::Unavailable,
            "no worker is free, and the queue of calls is not available",
        ),
        QueueError::Duplicate | QueueError::Unknown { .. } => {
            ErrorBody::new(ErrorCode::Internal, "nobody said whether the call was queued")
        }
    }
}

/// What a caller is told whose call no worker was given in time.
pub fn overdue() -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Expired,
        "no worker had room for the call before its wait ended",
    )
}

/// How long a request says that it may wait for a worker. What it says wrong is for a worker to refuse.
pub fn wait(endpoint: &Endpoint, headers: &HeaderMap, payload: &[u8]) -> Duration {
    #[derive(Default, Deserialize)]
    struct Waits {
        wait_ms: Option<u64>,
        timeout_ms: Option<u64>,
    }
    let said = || serde_json::from_slice::<Waits>(payload).unwrap_or_default();
    let header = headers.get(WAIT_MS).and_then(|value| value.as_str().parse().ok());
    let wait_ms = match endpoint {
        Endpoint::Invoke | Endpoint::Chain => header.or_else(|| said().wait_ms).unwrap_or(DEFAULT_WAIT_MS),
        // A question about a module may stand for a request to it.
        Endpoint::InvokeRaw(..) | Endpoint::ModulesGet(_) => header.unwrap_or(DEFAULT_WAIT_MS),
        Endpoint::JobsWait(_) => said()
            .timeout_ms
            .unwrap_or(DEFAULT_JOB_WAIT_MS)
            .min(MAX_JOB_WAIT_MS),
        // Whoever stores has time: the worker compiles before it answers.
        Endpoint::Store => MAX_WAIT_MS,
        _ => DEFAULT_WAIT_MS,
    };
    Duration::from_millis(wait_ms.min(MAX_WAIT_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> QueuedCall {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "key");
        headers.insert("Nats-Rollup", "all");
        headers.append("Two", "a");
        headers.append("Two", "b");
        QueuedCall {
            subject: "wess.invoke.upper".into(),
            headers,
            payload: "hello".into(),
            reply: Some("_INBOX.a.1".into()),
            deadline_ms: 10_500,
        }
    }

    fn message(headers: Option<HeaderMap>, payload: Bytes) -> Message {
        Message {
            subject: "wess.queue.calls.default.a".into(),
            reply: None,
            length: payload.len(),
            payload,
            headers,
            status: None,
            description: None,
        }
    }

    #[test]
    fn a_call_comes_back_as_it_was_asked_and_tells_jetstream_nothing_but_its_ttl() {
        let (headers, payload) = call().into_message(10_000);
        let told: Vec<_> = headers
            .iter()
            .map(|(name, _)| name.to_string())
            .filter(|name| name.to_ascii_lowercase().starts_with("nats-"))
            .collect();
        assert_eq!(told, ["Nats-TTL"]);
        assert_eq!(headers.get("Nats-TTL").unwrap().as_str(), "11");
        let read = QueuedCall::read(message(Some(headers), payload)).unwrap();
        let asked = call();
        assert_eq!(read.headers, asked.headers);
        assert_eq!(
            (read.subject, read.payload, read.reply, read.deadline_ms),
            (asked.subject, asked.payload, asked.reply, asked.deadline_ms)
        );
    }

    #[test]
    fn what_is_no_call_is_told_by_what_it_lacks() {
        assert!(QueuedCall::read(message(None, Bytes::new())).is_err());
        for name in [SUBJECT, DEADLINE_MS] {
            let (headers, payload) = call().into_message(0);
            let rest: HeaderMap = headers
                .iter()
                .filter(|(other, _)| AsRef::<str>::as_ref(*other) != name)
                .flat_map(|(name, values)| values.iter().map(move |value| (name.clone(), value.clone())))
                .collect();
            let missing = QueuedCall::read(message(Some(rest), payload)).unwrap_err();
            assert!(missing.to_string().contains(name), "{missing}");
        }
    }

    #[test]
    fn a_call_is_overdue_from_its_deadline_on() {
        assert_eq!(call().time_left(10_499), Some(Duration::from_millis(1)));
        assert_eq!(
            (call().time_left(10_500), call().time_left(u64::MAX)),
            (None, None)
        );
    }

    #[test]
    fn a_request_waits_as_long_as_it_says_and_no_longer_than_any_may() {
        let none = HeaderMap::new();
        let seconds = |endpoint: Endpoint, headers: &HeaderMap, payload: &str| {
            wait(&endpoint, headers, payload.as_bytes()).as_millis()
        };
        let raw = || Endpoint::InvokeRaw("upper".parse().unwrap(), None);
        let mut header = HeaderMap::new();
        header.insert(WAIT_MS, "7");
        assert_eq!(
            seconds(Endpoint::Invoke, &none, r#"{"module":"a","wait_ms":5}"#),
            5
        );
        assert_eq!(seconds(Endpoint::Chain, &none, "no json"), 30_000);
        assert_eq!(seconds(Endpoint::Invoke, &header, "{}"), 7);
        assert_eq!(
            (seconds(raw(), &header, ""), seconds(raw(), &none, "")),
            (7, 30_000)
        );
        let job = || Endpoint::JobsWait("a".parse().unwrap());
        assert_eq!(
            (
                seconds(job(), &none, r#"{"timeout_ms":9}"#),
                seconds(job(), &none, "")
            ),
            (9, 30_000)
        );
        assert_eq!(
            seconds(Endpoint::Invoke, &none, r#"{"wait_ms":999999999}"#),
            120_000
        );
        assert_eq!(seconds(Endpoint::Store, &none, ""), 120_000);
    }
}
