//! Requests to components that serve HTTP: a request becomes a call, its guest's response and ending become one answer.
//!
//! Invariant: a response ends as complete only once its guest has ended well, and only if it is as long as it announced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::http::header::CONTENT_LENGTH;
use ::http::{Method, StatusCode};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use wess_schemas::header::CallHeaders;
use wess_schemas::invocation::check_wait;
use wess_schemas::limits::DEFAULT_WAIT_MS;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Reference};
use wess_service::http::{Body, Broken, Gathered, Request, Response, fits, with_trailers};
use wess_service::trace_context::TraceParent;

use crate::call::Call;
use crate::guest::abi::CallInput;
use crate::guest::abi::http::HttpExchange;

/// How much of a response is read before its head goes out, if it is there.
const AHEAD_BYTES: usize = 64 << 10;

/// How the guest of a request ended.
pub type HttpEnd = Result<(), ErrorBody>;

/// What comes of a request: its response, or why there is none. Dropped, it cancels the guest.
#[derive(Debug)]
pub struct Answering {
    response: oneshot::Receiver<Response>,
    ended: oneshot::Receiver<HttpEnd>,
    is_head: bool,
}

/// What is told of a request once its guest has had its first turn.
#[derive(Debug)]
pub enum HttpTold {
    /// All of it: the guest has ended.
    Ended(Result<Response, ErrorBody>),
    /// The guest goes on.
    Answering(Answering),
}

/// A request that came as a message.
#[derive(Debug)]
pub struct Asked {
    /// What comes of it.
    pub answering: Answering,
    /// Where the caller listens.
    pub caller: Subject,
    /// How much it takes before it grants more; nothing for one that takes a single message.
    pub window: Option<u64>,
}

/// A request whose guest may end before its executor's turn does. Taken once: when the guest ends, or at the end of the turn.
/// Nobody ever waits for its lock; it is one because the guest may end on another executor's thread, when all is taken.
#[derive(Debug, Clone)]
pub struct Fresh(Arc<Mutex<Option<Asked>>>);

impl From<Asked> for Fresh {
    fn from(asked: Asked) -> Self {
        Self(Arc::new(Mutex::new(Some(asked))))
    }
}

impl Fresh {
    /// The request, for whoever comes first.
    pub fn take(&self) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Who waits for a guest that serves a request.
#[derive(Debug)]
pub struct HttpWaiting {
    ended: oneshot::Sender<HttpEnd>,
    first: First,
}

/// Who is told nothing before the guest has had its first turn: most guests have ended by then.
#[derive(Debug)]
enum First {
    Nobody,
    /// Another thread, which is woken once instead of for each piece.
    Door(Box<(Answering, oneshot::Sender<HttpTold>)>),
    /// A caller across NATS, for whom no task is made then.
    Caller(Fresh),
}

impl From<oneshot::Sender<HttpEnd>> for HttpWaiting {
    fn from(ended: oneshot::Sender<HttpEnd>) -> Self {
        let first = First::Nobody;
        Self { ended, first }
    }
}

impl HttpWaiting {
    /// Gives `fresh` back at the guest's end, unless somebody took it before.
    pub fn of_caller(ended: oneshot::Sender<HttpEnd>, fresh: Fresh) -> Self {
        let first = First::Caller(fresh);
        Self { ended, first }
    }

    /// Tells `tell` after the guest's first turn; `answering` is what was made with `ended`.
    pub fn after_first_turn(
        ended: oneshot::Sender<HttpEnd>,
        answering: Answering,
        tell: oneshot::Sender<HttpTold>,
    ) -> Self {
        let first = First::Door(Box::new((answering, tell)));
        Self { ended, first }
    }

    /// The guest has ended. Gives back who asked across NATS and has not been told anything yet.
    pub fn end(self, end: HttpEnd) -> Option<Asked> {
        // Who no longer waits has gone.
        drop(self.ended.send(end));
        match self.first {
            First::Nobody => None,
            First::Door(first) => {
                let (answering, tell) = *first;
                let known = answering.known(|response| response.and_then(gathered));
                drop(tell.send(HttpTold::Ended(known.unwrap_or_else(|| Err(stopped())))));
                None
            }
            First::Caller(fresh) => fresh.take(),
        }
    }

    /// The guest's first turn is over, and the guest is not.
    pub fn go_on(&mut self) {
        if let First::Door(first) = std::mem::replace(&mut self.first, First::Nobody) {
            let (answering, tell) = *first;
            // Who no longer waits drops what it is told, which cancels the guest.
            drop(tell.send(HttpTold::Answering(answering)));
        }
    }

    /// Ready once nobody waits any more.
    pub fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.first {
            First::Door(first) => first.1.poll_closed(context),
            First::Caller(_) | First::Nobody => self.ended.poll_closed(context),
        }
    }
}

/// Makes a call of a request; the second is for whoever runs it.
pub fn call(
    reference: Reference,
    facts: &HeaderMap,
    request: Request,
    arrived: Instant,
) -> Result<(Box<Call>, oneshot::Sender<HttpEnd>, Answering), ErrorBody> {
    let headers = CallHeaders::read(|name| facts.get(name).map(|value| value.as_str())).map_err(invalid)?;
    check_wait(headers.wait_ms).map_err(invalid)?;
    if headers.input_ref.is_some() || headers.job_id.is_some() {
        return Err(invalid(
            "HTTP requests have neither an idempotency key nor a stored input",
        ));
    }
    if request.uri().authority().is_none() {
        return Err(invalid("the request names no host"));
    }
    if !fits(request.headers()) {
        return Err(invalid("the request has more header lines than it may have"));
    }
    let is_head = request.method() == Method::HEAD;
    let (respond, response) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let call = Call {
        job_id: JobId::generate(),
        is_keyed: false,
        reference,
        input: CallInput::default(),
        stored_input: None,
        http: Some(Box::new(HttpExchange { request, respond })),
        limits: headers.limits,
        is_step: false,
        wait: Duration::from_millis(headers.wait_ms.unwrap_or(DEFAULT_WAIT_MS)),
        trace: TraceParent::of(facts),
        accepted: None,
        arrived,
    };
    let answering = Answering {
        response,
        ended,
        is_head,
    };
    Ok((Box::new(call), end, answering))
}

fn invalid(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
}

pub(crate) fn stopped() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the worker stopped during the request")
}

impl Answering {
    /// What is read of the response of a guest that has ended; nothing if that panicked. Not counted by tokio's budget for
    /// one task: past it what is there would look as if it were not.
    pub fn known<T>(self, read: impl FnOnce(Result<Response, ErrorBody>) -> T) -> Option<T> {
        let known = unconstrained(async { read(self.response().await) });
        catch_unwind(AssertUnwindSafe(|| known.now_or_never())).ok()?
    }

    /// The response as soon as its head is there. A guest that has failed by then has none, whatever it had set.
    pub async fn response(self) -> Result<Response, ErrorBody> {
        let Self {
            mut response,
            mut ended,
            is_head,
        } = self;
        let (head, known) = tokio::select! {
            biased;
            end = &mut ended => {
                end.unwrap_or_else(|_| Err(stopped()))?;
                // A guest that ends well has set its response.
                (response.try_recv().map_err(|_| stopped())?, Some(Ok(())))
            }
            Ok(head) = &mut response => (head, None),
        };
        let announced = announced(&head, is_head);
        Ok(head.map(|body| {
            let watched = Watched {
                body: Some(body),
                end: known.map_or(End::Waits(ended), End::Known),
                announced,
                passed: 0,
                last: None,
                trailers: None,
            };
            watched.boxed_unsync()
        }))
    }
}

/// What is there of a response's body, in one piece if that is all of it. One that has broken off is none.
pub fn gathered(response: Response) -> Result<Response, ErrorBody> {
    let (head, body) = response.into_parts();
    let gathered = Gathered::new(body, AHEAD_BYTES).map_err(|broken| broken.0)?;
    let body = match gathered.into_whole(AHEAD_BYTES) {
        Ok((whole, trailers)) => with_trailers(whole, trailers),
        Err(gathered) => gathered.into_body(),
    };
    Ok(Response::from_parts(head, body))
}

/// How long the body will be, where the head says so and a body may follow.
fn announced(head: &Response, is_head: bool) -> Option<u64> {
    let has_none = is_head || matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = head.headers().get(CONTENT_LENGTH).filter(|_| !has_none)?;
    length.to_str().ok()?.parse().ok()
}

enum End {
    Waits(oneshot::Receiver<HttpEnd>),
    Known(HttpEnd),
}

/// A response's body. What would complete it is kept until its guest has ended well.
struct Watched {
    body: Option<Body>,
    end: End,
    announced: Option<u64>,
    passed: u64,
    last: Option<Bytes>,
    trailers: Option<Frame<Bytes>>,
}

impl Watched {
    /// Whether the guest ended well.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<HttpEnd> {
        if let End::Waits(ended) = &mut self.end {
            let end = ready!(Pin::new(ended).poll(context));
            self.end = End::Known(end.unwrap_or_else(|_| Err(stopped())));
        }
        match &self.end {
            End::Known(end) => Poll::Ready(end.clone()),
            End::Waits(_) => Poll::Pending,
        }
    }

    fn take(&mut self, data: Bytes) -> Result<Option<Frame<Bytes>>, Broken> {
        self.passed += data.len() as u64;
        match self.announced {
            Some(announced) if self.passed > announced => Err(self.other_length()),
            Some(announced) if self.passed == announced => {
                self.last = Some(data);
                Ok(None)
            }
            _ => Ok(Some(Frame::data(data))),
        }
    }

    fn other_length(&self) -> Broken {
        let text = format!(
            "the guest announced {} bytes of a body and gave {}",
            self.announced.unwrap_or_default(),
            self.passed
        );
        Broken::new(ErrorCode::GuestTrapped, text)
    }

    fn break_off(&mut self, broken: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        (self.body, self.last, self.trailers) = (None, None, None);
        self.end = End::Known(Ok(()));
        self.announced = None;
        Poll::Ready(Some(Err(broken)))
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        while let Some(body) = &mut self.body {
            match ready!(Pin::new(body).poll_frame(context)) {
                None => self.body = None,
                Some(Err(broken)) => return self.break_off(broken),
                Some(Ok(frame)) => match frame.into_data().map(|data| self.take(data)) {
                    Ok(Ok(None)) => {}
                    Ok(Ok(Some(frame))) => return Poll::Ready(Some(Ok(frame))),
                    Ok(Err(broken)) => return self.break_off(broken),
                    Err(trailers) => self.trailers = Some(trailers),
                },
            }
        }
        if let Err(error) = ready!(self.poll_end(context)) {
            return self.break_off(Broken(error));
        }
        if self.announced.is_some_and(|announced| announced != self.passed) {
            let broken = self.other_length();
            return self.break_off(broken);
        }
        let rest = self.last.take().map(Frame::data).or_else(|| self.trailers.take());
        Poll::Ready(rest.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::channel::Channel;
    use wess_service::http::whole;

    use super::*;

    /// A guest that has set its response, with a body in two pieces, and what comes of it.
    fn answered() -> (oneshot::Sender<HttpEnd>, Answering) {
        let request = ::http::Request::get("http://a.example/").body(whole(Bytes::new()));
        let reference = "web".parse().unwrap();
        let called = call(reference, &HeaderMap::new(), request.unwrap(), Instant::now());
        let (call, ended, answering) = called.unwrap();
        // As a guest's body is: what tokio's channels hand over counts.
        let (mut pieces, body) = Channel::new(2);
        for piece in ["one", "two"] {
            pieces.try_send(Frame::data(Bytes::from(piece))).unwrap();
        }
        let response = Response::new(body.boxed_unsync());
        call.http.unwrap().respond.send(response).unwrap();
        (ended, answering)
    }

    /// The same, and who waits for it in this process.
    fn responded() -> (HttpWaiting, oneshot::Receiver<HttpTold>) {
        let (ended, answering) = answered();
        let (tell, told) = oneshot::channel();
        (HttpWaiting::after_first_turn(ended, answering, tell), told)
    }

    #[tokio::test]
    async fn a_guest_that_ends_in_its_first_turn_is_told_whole_with_its_length() {
        let (waiting, mut told) = responded();
        assert!(told.try_recv().is_err());
        waiting.end(Ok(()));
        let Ok(HttpTold::Ended(Ok(response))) = told.await else {
            panic!("it has ended well")
        };
        assert_eq!(response.body().size_hint().exact(), Some(6));
        assert_eq!(response.collect().await.unwrap().to_bytes(), "onetwo");
    }

    /// The same, for a caller across NATS.
    fn asked() -> (HttpWaiting, Fresh) {
        let (ended, answering) = answered();
        let fresh = Fresh::from(Asked {
            answering,
            caller: "_INBOX.a".into(),
            window: None,
        });
        (HttpWaiting::of_caller(ended, fresh.clone()), fresh)
    }

    #[tokio::test]
    async fn a_caller_across_nats_is_answered_once_at_the_guests_end_or_at_the_turns() {
        let (waiting, fresh) = asked();
        let asked_before = waiting.end(Ok(())).expect("nobody has taken it");
        let response = asked_before.answering.known(Result::unwrap).unwrap();
        assert_eq!(response.collect().await.unwrap().to_bytes(), "onetwo");
        assert!(fresh.take().is_none());

        let (waiting, fresh) = asked();
        let answering = fresh.take().expect("the guest goes on").answering;
        assert!(waiting.end(Ok(())).is_none());
        let response = answering.response().await.unwrap();
        assert_eq!(response.collect().await.unwrap().to_bytes(), "onetwo");
    }

    #[tokio::test]
    async fn however_many_end_in_one_turn_each_is_told_whole() {
        for _ in 0..1000 {
            let (waiting, mut told) = responded();
            assert!(waiting.end(Ok(())).is_none());
            let Ok(HttpTold::Ended(Ok(response))) = unconstrained(async { told.try_recv() }).await else {
                panic!("it has ended well")
            };
            assert_eq!(response.body().size_hint().exact(), Some(6));
            let (waiting, _) = asked();
            let asked = waiting.end(Ok(())).expect("nobody has taken it");
            let whole = asked
                .answering
                .known(|response| gathered(response.unwrap()).unwrap());
            assert_eq!(whole.unwrap().body().size_hint().exact(), Some(6));
        }
    }

    #[tokio::test]
    async fn a_guest_that_fails_in_its_first_turn_has_no_response() {
        let (waiting, told) = responded();
        waiting.end(Err(ErrorBody::new(ErrorCode::GuestTrapped, "it trapped")));
        let Ok(HttpTold::Ended(Err(error))) = told.await else {
            panic!("it has failed")
        };
        assert_eq!(error.code(), ErrorCode::GuestTrapped);
    }

    #[tokio::test]
    async fn a_guest_that_goes_on_is_passed_on_as_it_comes_and_complete_only_at_its_end() {
        let (mut waiting, told) = responded();
        waiting.go_on();
        let Ok(HttpTold::Answering(answering)) = told.await else {
            panic!("it goes on")
        };
        let mut body = answering.response().await.unwrap().into_body();
        for piece in ["one", "two"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        assert!(body.frame().now_or_never().is_none());
        waiting.end(Err(ErrorBody::new(ErrorCode::GuestTrapped, "it trapped")));
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_guest_that_nobody_waits_for_is_given_up_before_and_after_its_first_turn() {
        let given_up = |waiting: &mut HttpWaiting| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            waiting.poll_given_up(&mut context).is_ready()
        };
        let (mut waiting, told) = responded();
        assert!(!given_up(&mut waiting));
        drop(told);
        assert!(given_up(&mut waiting));
        let (mut waiting, told) = responded();
        waiting.go_on();
        assert!(!given_up(&mut waiting));
        drop(told);
        assert!(given_up(&mut waiting));
    }
}
