//! The caller's side of an exchange: a request goes out in one message or in frames, its response comes back likewise.

use std::time::Duration;

use async_nats::{Client, HeaderMap as Facts, Message, PublishError, Subject};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;
use wess_schemas::header::{HTTP_WINDOW, SERVICE_ERROR_CODE, WAIT_MS};
use wess_schemas::subject::{Endpoint, Prefix, Subjects};
use wess_schemas::{ErrorBody, ErrorCode};

use super::inboxes::Inboxes;
use super::session::{Event, Session, WINDOW_BYTES};
use super::wire::{
    announce_stream, is_streamed, read_response, read_trailers, write_request, write_trailers,
};
use super::{Gathered, Response, with_trailers};
use crate::bus::{HttpAnswer, HttpRequest};
use crate::queue::calls;

/// An exchange that was asked for, before anybody has answered.
pub struct Asking {
    session: Session,
    subject: String,
    facts: Facts,
    payload: Bytes,
    deadline: Instant,
}

impl Asking {
    /// Takes a request apart. What is there of its body goes with its head if it is all of it and fits into a message.
    pub async fn new(inboxes: &Inboxes, request: HttpRequest) -> Result<Self, ErrorBody> {
        let inline_bytes = inboxes.client().max_payload() / 2;
        let deadline = Instant::now() + request.timeout;
        let mut facts = request.facts();
        let (head, body) = request.request.into_parts();
        write_request(&head, &mut facts);
        facts.insert(HTTP_WINDOW, WINDOW_BYTES.to_string());
        let gathered = Gathered::new(body, inline_bytes).map_err(|broken| broken.0)?;
        let opened = Session::open(inboxes, subjects_of(&request.subject), None).await;
        let mut session =
            opened.map_err(|error| ErrorBody::new(ErrorCode::Unavailable, error.to_string()))?;
        let payload = match gathered.into_whole(inline_bytes) {
            Ok((whole, trailers)) => {
                write_trailers(trailers.as_ref(), &mut facts);
                whole
            }
            Err(gathered) => {
                announce_stream(&mut facts);
                session.send(gathered.into_body(), 0);
                Bytes::new()
            }
        };
        Ok(Self {
            session,
            subject: request.subject,
            facts,
            payload,
            deadline,
        })
    }

    /// The subject that is asked.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What to ask about the module, and how long the request may wait for who can answer it.
    pub fn question(&self) -> Option<(String, Duration)> {
        let subjects = subjects_of(&self.subject);
        let Ok(Endpoint::Http(reference)) = subjects.parse(&self.subject) else {
            return None;
        };
        let wait = calls::wait(&Endpoint::InvokeRaw(reference.clone(), None), &self.facts, &[]);
        Some((subjects.endpoint(&Endpoint::ModulesGet(reference)), wait))
    }

    /// What is left of the time that the request may wait for a slot.
    pub fn may_wait(&mut self, left: Duration) {
        self.facts.insert(WAIT_MS, left.as_millis().to_string());
    }

    /// Asks; the first message that comes back, if one does in time.
    pub async fn ask(&mut self, client: &Client) -> Result<Option<Message>, PublishError> {
        let inbox = self.session.inbox().clone();
        let subject = Subject::from(self.subject.as_str());
        client
            .publish_with_reply_and_headers(subject, inbox, self.facts.clone(), self.payload.clone())
            .await?;
        let first = timeout_at(self.deadline, self.session.next_message());
        Ok(first.await.ok().flatten())
    }

    /// Goes on from the first message; nothing if no head came in time. What is left to do then is a task of its own,
    /// which ends when nobody waits for the answer, or reads it, any more.
    pub async fn answer(self, first: Message, tasks: &TaskTracker) -> Option<HttpAnswer> {
        let (tell, told) = oneshot::channel();
        let mut driving = Driving {
            session: self.session,
            tell: Some(tell),
        };
        if let Err(error) = driving.take(Event::Message(Some(first))).await {
            return Some(Err(error));
        }
        if !driving.is_over() {
            tasks.spawn(driving.run(self.deadline));
        }
        told.await.ok()
    }
}

/// Subjects with the prefix that this one has.
fn subjects_of(subject: &str) -> Subjects {
    let prefix = subject
        .split('.')
        .next()
        .and_then(|prefix| prefix.parse::<Prefix>().ok());
    prefix.map(Subjects::new).unwrap_or_default()
}

/// An exchange under way.
struct Driving {
    session: Session,
    /// Who waits for the head.
    tell: Option<oneshot::Sender<HttpAnswer>>,
}

impl Driving {
    fn is_over(&self) -> bool {
        self.tell.is_none() && !self.session.receives()
    }

    async fn run(mut self, deadline: Instant) {
        while !self.is_over() {
            let event = tokio::select! {
                event = self.session.next() => event,
                () = given_up(&mut self.tell) => return self.session.break_off(cancelled()).await,
                () = sleep_until(deadline), if self.tell.is_some() => {
                    return self.session.break_off(cancelled()).await;
                }
            };
            if let Err(error) = self.take(event).await {
                if let Some(tell) = self.tell.take() {
                    drop(tell.send(Err(error.clone())));
                }
                return self.session.break_off(error).await;
            }
            if self.session.is_unread() {
                return self.session.break_off(cancelled()).await;
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), ErrorBody> {
        let Some(message) = self.session.handle(event).await? else {
            return Ok(());
        };
        let Some(tell) = self.tell.take() else {
            return Ok(());
        };
        // Whoever waited and is gone drops the response, which ends the exchange.
        drop(tell.send(self.response(message)));
        Ok(())
    }

    fn response(&mut self, message: Message) -> HttpAnswer {
        let facts = message.headers.unwrap_or_default();
        if facts.get(SERVICE_ERROR_CODE).is_some() {
            return Err(refusal(&message.payload));
        }
        let head = read_response(&facts)?.ok_or_else(unreadable)?;
        let body = if is_streamed(&facts) {
            self.session.receive(WINDOW_BYTES)
        } else {
            with_trailers(message.payload, read_trailers(&facts)?)
        };
        Ok(Response::from_parts(head, body))
    }
}

async fn given_up(tell: &mut Option<oneshot::Sender<HttpAnswer>>) {
    match tell {
        Some(tell) => tell.closed().await,
        None => std::future::pending().await,
    }
}

fn cancelled() -> ErrorBody {
    ErrorBody::new(ErrorCode::Cancelled, "nobody waits for the response any more")
}

/// What a worker says that refuses.
pub fn refusal(payload: &[u8]) -> ErrorBody {
    serde_json::from_slice(payload).unwrap_or_else(|_| unreadable())
}

fn unreadable() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "a worker's response could not be read")
}
