//! The one door to workers: a request goes in, a reply comes out, whether they are across NATS or in this process.
//!
//! Knows no codes of workers: what a worker answers, refusals included, is a [`Reply`].

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, RequestError, RequestErrorKind, StatusCode};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wess_schemas::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::header::{SERVICE_ERROR_CODE, WAIT_MS};

use crate::http;
use crate::http::caller::{Asking, refusal};
use crate::http::inboxes::Inboxes;
use crate::queue::calls;
use crate::trace_context::TraceParent;

/// How long to look for a worker, or for NATS itself, before giving up: a restart takes less.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_STEP: Duration = Duration::from_millis(10);
const LARGEST_STEP: Duration = Duration::from_millis(200);
/// How long a question waits for the first worker that stands for a request over HTTP.
const QUESTION_WAIT: Duration = Duration::from_secs(10);

/// What to ask of a worker.
#[derive(Debug, Clone)]
pub struct Request {
    /// The full subject.
    pub subject: String,
    /// The trace that it belongs to, which becomes a header where it travels as a message.
    pub trace: Option<TraceParent>,
    /// The other headers; may be empty.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Bytes,
    /// How long to wait for the reply.
    pub timeout: Duration,
}

impl Request {
    /// All headers, as a message has them.
    pub fn all_headers(&self) -> HeaderMap {
        with_trace(self.headers.clone(), self.trace)
    }
}

fn with_trace(mut headers: HeaderMap, trace: Option<TraceParent>) -> HeaderMap {
    if let Some(trace) = trace {
        trace.write(&mut headers);
    }
    headers
}

/// What a worker answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The headers; may be empty.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Bytes,
}

/// An HTTP request for a worker.
#[derive(Debug)]
pub struct HttpRequest {
    /// The full subject.
    pub subject: String,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// What it asks for besides; may be empty.
    pub headers: HeaderMap,
    /// The request, whose URI has an authority.
    pub request: http::Request,
    /// How long to wait for the response's head.
    pub timeout: Duration,
}

impl HttpRequest {
    /// All that it asks for besides the request, as the headers of a message.
    pub fn facts(&self) -> HeaderMap {
        with_trace(self.headers.clone(), self.trace)
    }
}

/// A response whose body comes as it is read, or a worker's refusal. Dropping it, or the future that it comes from,
/// cancels the guest.
pub type HttpAnswer = Result<http::Response, ErrorBody>;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens.
    #[error("no worker answers {subject}")]
    NoWorkers {
        /// The subject asked.
        subject: String,
    },
    /// Somebody listens, but did not answer in time: a guest may have run.
    #[error("no reply on {subject} within {timeout:?}")]
    TimedOut {
        /// The subject asked.
        subject: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// Headers and body do not fit into one message.
    #[error("the message is larger than the {limit} bytes that NATS takes")]
    TooLarge {
        /// The server's `max_payload`.
        limit: usize,
    },
    /// The subject cannot be published to.
    #[error("{subject:?} is no subject")]
    InvalidSubject {
        /// The subject asked.
        subject: String,
    },
    /// There is no connection to NATS, and nothing was sent.
    #[error("no connection to NATS")]
    Disconnected,
    /// The connection failed after the request was handed to it: a guest may have run.
    #[error("the connection to NATS failed")]
    Failed {
        /// What it said.
        source: RequestError,
    },
}

impl BusError {
    /// The code that a caller is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoWorkers { .. } => ErrorCode::NoWorkers,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::InvalidSubject { .. } => ErrorCode::InvalidRequest,
            Self::Disconnected => ErrorCode::Unavailable,
            Self::TimedOut { .. } | Self::Failed { .. } => ErrorCode::Internal,
        }
    }

    /// Whether a worker may still be at it: what it was pointed to must stay.
    pub fn leaves_unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Failed { .. } => true,
            Self::NoWorkers { .. }
            | Self::TooLarge { .. }
            | Self::InvalidSubject { .. }
            | Self::Disconnected => false,
        }
    }
}

/// A way to reach workers.
pub trait Bus: Send + Sync + 'static {
    /// Asks, and waits for the reply.
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Reply, BusError>>;

    /// Sends an HTTP request, and waits for the head of its response.
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpAnswer, BusError>>;

    /// The largest message, headers included, in bytes.
    fn max_payload(&self) -> usize;
}

/// Workers across NATS.
#[derive(Debug, Clone)]
pub struct NatsBus {
    client: Client,
    nobody: Option<Arc<Notify>>,
    inboxes: Inboxes,
    /// HTTP exchanges under way. Each ends with whoever waits for it or reads it.
    exchanges: TaskTracker,
}

/// Why no worker came for a request. No guest has run.
enum Refused {
    /// The reason that its caller is told.
    Told(ErrorBody),
    /// Nobody heard the question.
    Unheard,
}

impl NatsBus {
    /// Asks over `client`.
    pub fn new(client: Client) -> Self {
        Self {
            inboxes: Inboxes::new(client.clone()),
            client,
            nobody: None,
            exchanges: TaskTracker::new(),
        }
    }

    /// Wakes `nobody` whenever a request finds nobody that listens, and still looks for somebody.
    #[must_use]
    pub fn telling(self, nobody: Arc<Notify>) -> Self {
        Self {
            nobody: Some(nobody),
            ..self
        }
    }

    /// Nobody listening, and no connection, are tried again until `patience` ends: neither has reached a worker.
    async fn ask(&self, request: Request) -> Result<Reply, BusError> {
        let deadline = Instant::now() + request.timeout;
        let patience = deadline.min(Instant::now() + PATIENCE);
        let mut step = FIRST_STEP;
        loop {
            let error = match self.try_once(&request, deadline).await {
                Err(error @ (BusError::NoWorkers { .. } | BusError::Disconnected)) => error,
                settled => return settled,
            };
            if let (BusError::NoWorkers { .. }, Some(nobody)) = (&error, &self.nobody) {
                nobody.notify_one();
            }
            if Instant::now() + step > patience {
                return Err(error);
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(LARGEST_STEP);
        }
    }

    /// As [`NatsBus::ask`], for HTTP: a body is not touched before a worker has said a word. Where `nobody` is told, a request
    /// waits for the first worker for as long as it may.
    async fn exchange(&self, request: HttpRequest) -> Result<HttpAnswer, BusError> {
        let timeout = request.timeout;
        let mut asking = match Asking::new(&self.inboxes, request).await {
            Ok(asking) => asking,
            Err(error) => return Ok(Err(error)),
        };
        let begun = Instant::now();
        let patience = begun + timeout.min(PATIENCE);
        let mut question = None;
        let mut step = FIRST_STEP;
        loop {
            let error = match self.ask_over_http(&mut asking, timeout).await {
                Ok(first) => {
                    let subject = asking.subject().to_owned();
                    let answer = asking.answer(first, &self.exchanges).await;
                    return answer.ok_or(BusError::TimedOut { subject, timeout });
                }
                Err(error) => error,
            };
            if question.is_none() && self.nobody.is_some() && matches!(error, BusError::NoWorkers { .. }) {
                question = asking.question().map(|(subject, wait)| (subject, begun + wait));
            }
            match (&error, &question) {
                (BusError::NoWorkers { .. }, Some((subject, until))) => {
                    match self.somebody(subject, *until).await {
                        Ok(()) => asking.may_wait(until.saturating_duration_since(Instant::now())),
                        Err(Refused::Told(refusal)) => return Ok(Err(refusal)),
                        Err(Refused::Unheard) => return Err(error),
                    }
                }
                (BusError::NoWorkers { .. } | BusError::Disconnected, _)
                    if Instant::now() + step <= patience => {}
                _ => return Err(error),
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(LARGEST_STEP);
        }
    }

    async fn ask_over_http(&self, asking: &mut Asking, timeout: Duration) -> Result<Message, BusError> {
        if self.client.connection_state() != State::Connected {
            return Err(BusError::Disconnected);
        }
        let first = asking.ask(&self.client).await;
        let subject = || asking.subject().to_owned();
        match first {
            Ok(Some(first)) if first.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(BusError::NoWorkers { subject: subject() })
            }
            Ok(Some(first)) => Ok(first),
            Ok(None) => Err(BusError::TimedOut {
                subject: subject(),
                timeout,
            }),
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(BusError::TooLarge {
                limit: self.max_payload(),
            }),
            Err(_) => Err(BusError::InvalidSubject { subject: subject() }),
        }
    }

    /// Waits until there is a worker. No queue holds what goes on in frames, so it is a question about the module that waits
    /// there in its stead, wakes the first worker and is answered by that; a short one, asked again and again, as who leaves
    /// cannot take it along.
    async fn somebody(&self, subject: &str, until: Instant) -> Result<(), Refused> {
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(QUESTION_WAIT);
            let mut headers = HeaderMap::new();
            headers.insert(WAIT_MS, wait.as_millis().to_string());
            let question = Request {
                subject: subject.to_owned(),
                trace: None,
                headers,
                payload: Bytes::new(),
                timeout: wait,
            };
            let refused = match self.ask(question).await {
                Ok(reply) if reply.headers.get(SERVICE_ERROR_CODE).is_some() => refusal(&reply.payload),
                Ok(_) => return Ok(()),
                Err(BusError::TimedOut { .. }) => calls::overdue(),
                Err(_) => return Err(Refused::Unheard),
            };
            if refused.code() != ErrorCode::Expired || Instant::now() >= until {
                return Err(Refused::Told(refused));
            }
        }
    }

    async fn try_once(&self, request: &Request, deadline: Instant) -> Result<Reply, BusError> {
        if self.client.connection_state() != State::Connected {
            return Err(BusError::Disconnected);
        }
        let message = async_nats::Request::new()
            .headers(request.all_headers())
            .payload(request.payload.clone())
            .timeout(Some(deadline.saturating_duration_since(Instant::now())));
        let reply = self.client.send_request(request.subject.clone(), message).await;
        match reply {
            Ok(message) => Ok(Reply {
                headers: message.headers.unwrap_or_default(),
                payload: message.payload,
            }),
            Err(error) => Err(self.explain(request, error)),
        }
    }

    fn explain(&self, request: &Request, error: RequestError) -> BusError {
        let subject = request.subject.clone();
        match error.kind() {
            RequestErrorKind::NoResponders => BusError::NoWorkers { subject },
            RequestErrorKind::TimedOut => BusError::TimedOut {
                subject,
                timeout: request.timeout,
            },
            RequestErrorKind::MaxPayloadExceeded => BusError::TooLarge {
                limit: self.max_payload(),
            },
            RequestErrorKind::InvalidSubject => BusError::InvalidSubject { subject },
            RequestErrorKind::Other => BusError::Failed { source: error },
        }
    }
}

impl Bus for NatsBus {
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Reply, BusError>> {
        Box::pin(self.ask(request))
    }

    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpAnswer, BusError>> {
        Box::pin(self.exchange(request))
    }

    fn max_payload(&self) -> usize {
        self.client.max_payload()
    }
}
