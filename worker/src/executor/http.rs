//! HTTP requests over NATS: whole ones are calls like any other, the rest has a session for its bodies.
//!
//! Invariant: what is complete within the guest's first turn is answered by one message, which goes the way of all replies.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use wess_schemas::header::HTTP_WINDOW;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Reference};
use wess_service::bus::Reply;
use wess_service::http::inboxes::Inboxes;
use wess_service::http::session::{Session, WINDOW_BYTES};
use wess_service::http::wire::{
    Frame, announce_stream, is_streamed, read_request, read_trailers, write_response, write_trailers,
};
use wess_service::http::{Gathered, Request, Response, with_trailers};

use super::respond::Responder;
use super::turns::Executor;
use super::{Arrival, Common};
use crate::endpoints::error_reply;
use crate::endpoints::http::{Answering, Asked, Fresh, HttpWaiting, call, stopped};
use crate::endpoints::invoke::Form;

/// What a session needs of its executor.
struct Desk {
    client: Client,
    inboxes: Inboxes,
    common: Arc<Common>,
    /// Where the caller listens.
    caller: Subject,
    /// How much it takes before it grants more; nothing for one that takes a single message.
    window: Option<u64>,
}

impl Executor {
    /// Takes a request that came as a message.
    pub(super) fn take_http(
        &mut self,
        reference: Reference,
        headers: Option<HeaderMap>,
        payload: Bytes,
        reply: Option<Subject>,
    ) {
        let Some(caller) = reply else {
            // Nobody would read the response.
            return;
        };
        let facts = headers.unwrap_or_default();
        let window = facts.get(HTTP_WINDOW).map(|window| window.as_str().parse());
        let taken = match (&window, is_streamed(&facts)) {
            (Some(Err(_)), _) | (None, true) => Err(ErrorBody::new(
                ErrorCode::InvalidRequest,
                format!("a body in frames needs a number of bytes in the header {HTTP_WINDOW}"),
            )),
            (Some(Ok(window)), true) => {
                let desk = self.desk(caller, Some(*window));
                self.sessions.spawn(desk.take_streamed(reference, facts));
                return;
            }
            (_, false) => whole_request(&facts, payload)
                .and_then(|request| call(reference, &facts, request, Instant::now())),
        };
        match taken {
            Ok((call, ended, answering)) => {
                let asked = Asked {
                    answering,
                    caller,
                    window: window.and_then(Result::ok),
                };
                let fresh = Fresh::from(asked);
                self.fresh.push(fresh.clone());
                let waiting = HttpWaiting::of_caller(ended, fresh);
                self.take_call(Ok(*call), Responder::Http(waiting), None);
            }
            Err(error) => self.fail(
                Responder::Nats(Form::Http, Some(caller)),
                JobId::generate(),
                error,
            ),
        }
    }

    /// Gives a session to each request that came in this turn and whose guest has not ended in it.
    pub(super) fn follow_fresh(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for asked in fresh.drain(..).filter_map(|fresh| fresh.take()) {
            let desk = self.desk(asked.caller, asked.window);
            self.sessions.spawn(desk.answer(asked.answering, None));
        }
        self.fresh = fresh;
    }

    /// Answers a request whose guest has ended within the turn that it came in.
    pub(super) fn respond(&mut self, asked: Asked) {
        let inline_bytes = self.client.max_payload() / 2;
        let known = asked.answering.known(|answer| settle(answer, inline_bytes));
        match known.unwrap_or_else(|| Settled::Reply(error_reply(&stopped()))) {
            Settled::Reply(reply) => self.outbox.push_back((asked.caller, reply)),
            Settled::Stream(head, gathered) => {
                let desk = self.desk(asked.caller, asked.window);
                self.sessions.spawn(desk.stream(head, gathered));
            }
        }
    }

    fn desk(&self, caller: Subject, window: Option<u64>) -> Desk {
        Desk {
            client: self.client.clone(),
            inboxes: self.inboxes.clone(),
            common: Arc::clone(&self.common),
            caller,
            window,
        }
    }
}

fn whole_request(facts: &HeaderMap, payload: Bytes) -> Result<Request, ErrorBody> {
    let head = read_request(facts, !payload.is_empty())?;
    let body = with_trailers(payload, read_trailers(facts)?);
    Ok(Request::from_parts(head, body))
}

impl Desk {
    /// Listens for a body, grants its first part, and has the request run.
    async fn take_streamed(self, reference: Reference, facts: HeaderMap) {
        let opened = self.open().await;
        let taken = opened.and_then(|mut session| {
            let head = read_request(&facts, true)?;
            let request = Request::from_parts(head, session.receive(WINDOW_BYTES));
            let (call, ended, answering) = call(reference, &facts, request, Instant::now())?;
            let executors = self.common.executors.get().ok_or_else(super::steps::stopping)?;
            executors.dispatch_to_idlest(Arrival::Http(call, ended.into()))?;
            Ok((session, answering))
        });
        match taken {
            Ok((mut session, answering)) => {
                // Should the caller be gone, the session hears of it.
                let _ = session.tell(Frame::Credit(WINDOW_BYTES)).await;
                self.answer(answering, Some(session)).await;
            }
            Err(error) => self.reply(error_reply(&error)).await,
        }
    }

    async fn open(&self) -> Result<Session, ErrorBody> {
        let subjects = self.common.subjects.clone();
        let opened = Session::open(&self.inboxes, subjects, Some(self.caller.clone())).await;
        opened.map_err(|error| ErrorBody::new(ErrorCode::Unavailable, error.to_string()))
    }

    /// Sends the response of a request, in one message if it is there at once.
    async fn answer(self, answering: Answering, session: Option<Session>) {
        let mut response = pin!(answering.response());
        let mut early = match session {
            None => response.as_mut().now_or_never(),
            Some(_) => None,
        };
        if self.window.is_none() && early.is_none() {
            early = Some(response.as_mut().await);
        }
        match early.map(|answer| settle(answer, self.inline_bytes())) {
            Some(Settled::Reply(reply)) => self.reply(reply).await,
            Some(Settled::Stream(head, gathered)) => self.stream(head, gathered).await,
            None => self.follow(session, None, response).await,
        }
    }

    /// Sends a response whose head is there: in frames, or in one message to a caller that takes no others.
    async fn stream(self, head: Reply, gathered: Gathered) {
        match self.window {
            Some(_) => self.follow(None, Some((head, gathered)), pin!(pending())).await,
            None => self.reply(self.collected(head, gathered).await).await,
        }
    }

    /// Sends a response as it comes, from its head on if that is there.
    async fn follow(
        &self,
        session: Option<Session>,
        early: Option<(Reply, Gathered)>,
        mut response: Pin<&mut impl Future<Output = Result<Response, ErrorBody>>>,
    ) {
        let opened = match session {
            Some(session) => Ok(session),
            None => self.open().await,
        };
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => return self.reply(error_reply(&error)).await,
        };
        let mut has_head = early.is_some();
        let begun = match early {
            Some((head, gathered)) => self.begin(&mut session, head, gathered).await,
            // From this the caller knows where to say that it has gone.
            None => session.tell(Frame::Beat).await,
        };
        if let Err(error) = begun {
            return session.break_off(error).await;
        }
        while !has_head || session.sends() {
            let done = tokio::select! {
                event = session.next() => session.handle(event).await.map(drop),
                answer = response.as_mut(), if !has_head => match settle(answer, self.inline_bytes()) {
                    Settled::Reply(reply) => return drop(session.publish(reply.headers, reply.payload).await),
                    Settled::Stream(head, gathered) => {
                        has_head = true;
                        self.begin(&mut session, head, gathered).await
                    }
                },
            };
            if let Err(error) = done {
                // The guest goes with the response that nobody gets.
                return session.break_off(error).await;
            }
        }
    }

    /// What a message may carry of a body.
    fn inline_bytes(&self) -> usize {
        self.client.max_payload() / 2
    }

    /// Sends a head whose body follows.
    async fn begin(&self, session: &mut Session, head: Reply, gathered: Gathered) -> Result<(), ErrorBody> {
        let mut headers = head.headers;
        announce_stream(&mut headers);
        session.publish(headers, Bytes::new()).await?;
        session.send(gathered.into_body(), self.window.unwrap_or_default());
        Ok(())
    }

    /// A response for a caller that takes one message, once it is complete.
    async fn collected(&self, mut head: Reply, gathered: Gathered) -> Reply {
        let limit = self.inline_bytes();
        match gathered.collect(limit).await {
            Ok(Some((payload, trailers))) => {
                write_trailers(trailers.as_ref(), &mut head.headers);
                head.payload = payload;
                head
            }
            Ok(None) => {
                let text = "the response is larger than a message, and the caller takes no frames";
                error_reply(&ErrorBody::new(ErrorCode::OutputTooLarge, text).with("limit_bytes", limit))
            }
            Err(broken) => error_reply(&broken.0),
        }
    }

    async fn reply(&self, reply: Reply) {
        let Reply { headers, payload } = reply;
        let sent = self
            .client
            .publish_with_headers(self.caller.clone(), headers, payload);
        if let Err(error) = sent.await {
            tracing::warn!(%error, "a response was not sent");
        }
    }
}

/// What is known of a response when its head is.
enum Settled {
    /// All of it, or why there is none.
    Reply(Reply),
    /// Its head; the body goes on.
    Stream(Reply, Gathered),
}

/// What is to be sent of a response of which at most so many bytes go in one message.
fn settle(answer: Result<Response, ErrorBody>, inline_bytes: usize) -> Settled {
    let (head, body) = match answer {
        Ok(response) => response.into_parts(),
        Err(error) => return Settled::Reply(error_reply(&error)),
    };
    let mut headers = HeaderMap::new();
    write_response(&head, &mut headers);
    match Gathered::new(body, inline_bytes).map(|gathered| gathered.into_whole(inline_bytes)) {
        Err(broken) => Settled::Reply(error_reply(&broken.0)),
        Ok(Ok((payload, trailers))) => {
            write_trailers(trailers.as_ref(), &mut headers);
            Settled::Reply(Reply { headers, payload })
        }
        Ok(Err(gathered)) => {
            let payload = Bytes::new();
            Settled::Stream(Reply { headers, payload }, gathered)
        }
    }
}
