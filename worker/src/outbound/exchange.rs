//! One request and its response over a connection of their own.
//!
//! Invariant: bodies are handed on piece by piece as they are asked for; nothing here collects one.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wess_service::http::{MAX_HEADERS, fits};

use super::allowance::{Room, RunBytes};
use super::connect::connect;
use super::target::Target;
use super::{MAX_BODY_BYTES, MAX_RUN_BYTES, Outbound, OutboundFault, OutboundStats, Timeouts};

/// What a connection reads ahead at most, a head included.
const READ_AHEAD_BYTES: usize = 64 << 10;

type Answer = Result<Response<ResponseBody>, OutboundFault>;

/// A request under way.
pub(super) struct Exchange {
    pub outbound: Arc<Outbound>,
    pub target: Target,
    pub timeouts: Timeouts,
    pub bytes: Arc<RunBytes>,
}

impl Exchange {
    /// Connects, sends, tells of the response's head or of why there is none, and reads its body as it is asked for.
    pub async fn run<B>(self, request: Request<B>, tell: oneshot::Sender<Answer>)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let deadline = Instant::now() + self.timeouts.connect;
        let stream = match connect(&self.outbound, &self.target, deadline).await {
            Ok(stream) => stream,
            Err(fault) => return drop(tell.send(Err(fault))),
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_AHEAD_BYTES).max_headers(MAX_HEADERS);
        let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
            Ok(opened) => opened,
            Err(error) => return drop(tell.send(Err(OutboundFault::of_exchange(&error)))),
        };
        let fault = Arc::default();
        let request = request.map(|body| RequestBody {
            body,
            length: Length::new(&self.bytes, |bytes| &bytes.sent),
            fault: Arc::clone(&fault),
        });
        let mut connection = pin!(connection);
        let mut sending = pin!(timeout(self.timeouts.first_byte, sender.send_request(request)));
        let (sent, is_open) = tokio::select! {
            biased;
            sent = &mut sending => (sent, true),
            // Whoever waits for the response is told why it does not come.
            _ended = &mut connection => (sending.await, false),
        };
        let head = match sent {
            Err(_) => Err(OutboundFault::ReadTimeout),
            Ok(Err(error)) => Err(fault
                .get()
                .copied()
                .unwrap_or_else(|| OutboundFault::of_exchange(&error))),
            Ok(Ok(response)) => self.check(response),
        };
        let goes_on = head.is_ok() && is_open;
        if tell.send(head).is_ok() && goes_on {
            // What breaks it breaks the body too, which says so.
            let _ = connection.await;
        }
    }

    /// A response whose head is within its bounds, and whose body does not announce more than may come.
    fn check(&self, response: Response<Incoming>) -> Answer {
        if !fits(response.headers()) {
            return Err(OutboundFault::HeadTooLarge);
        }
        let length = Length::new(&self.bytes, |bytes| &bytes.received);
        if let Some(most) = length.exceeded_by(response.body().size_hint().lower()) {
            return Err(OutboundFault::ResponseTooLarge(most));
        }
        Ok(response.map(|incoming| ResponseBody {
            incoming,
            length,
            between_bytes: self.timeouts.between_bytes,
            waiting: None,
            held: None,
        }))
    }
}

/// How long a body is so far, of all that its run may send or receive.
struct Length {
    bytes: u64,
    run: Arc<RunBytes>,
    of_run: fn(&RunBytes) -> &AtomicU64,
}

impl Length {
    fn new(run: &Arc<RunBytes>, of_run: fn(&RunBytes) -> &AtomicU64) -> Self {
        let run = Arc::clone(run);
        Self {
            bytes: 0,
            run,
            of_run,
        }
    }

    /// The bound that so many more bytes would exceed.
    fn exceeded_by(&self, more: u64) -> Option<u64> {
        let of_run = (self.of_run)(&self.run).load(Ordering::Relaxed);
        if self.bytes.saturating_add(more) > MAX_BODY_BYTES {
            return Some(MAX_BODY_BYTES);
        }
        (of_run.saturating_add(more) > MAX_RUN_BYTES).then_some(MAX_RUN_BYTES)
    }

    /// Counts so many more bytes, which come however many they are; gives the bound that they exceed.
    fn add(&mut self, more: u64) -> Option<u64> {
        let exceeded = self.exceeded_by(more);
        self.bytes += more;
        (self.of_run)(&self.run).fetch_add(more, Ordering::Relaxed);
        exceeded
    }
}

/// A guest's body on its way out. What is wrong with it is kept: the connection only knows that something was.
struct RequestBody<B> {
    body: B,
    length: Length,
    fault: Arc<OnceLock<OutboundFault>>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = OutboundFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFault>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let counted = frame.map_err(|_| OutboundFault::RequestBroken).and_then(|frame| {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.length.add(bytes) {
                None => Ok(frame),
                Some(most) => Err(OutboundFault::RequestTooLarge(most)),
            }
        });
        if let Err(fault) = &counted {
            // The first one is the cause of any other.
            let _ = self.fault.set(*fault);
        }
        Poll::Ready(Some(counted))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a request under way holds: its connection, and its room. It ends when this is dropped.
pub(super) struct Held {
    _connection: AbortOnDropHandle<()>,
    _room: Room,
    stats: OutboundStats,
    is_counted: bool,
}

impl Held {
    pub fn new(connection: AbortOnDropHandle<()>, room: Room, stats: OutboundStats) -> Self {
        Self {
            _connection: connection,
            _room: room,
            stats,
            is_counted: false,
        }
    }

    fn answered(mut self) {
        self.is_counted = true;
        self.stats.answered();
    }

    pub fn failed(mut self, fault: OutboundFault) -> OutboundFault {
        self.is_counted = true;
        self.stats.failed(fault);
        fault
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_counted {
            self.stats.left();
        }
    }
}

/// A response's body, as long as it may be and no slower. Its connection is closed when it ends or is dropped.
pub struct ResponseBody {
    incoming: Incoming,
    length: Length,
    between_bytes: Duration,
    /// Runs while somebody waits for more.
    waiting: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
}

impl ResponseBody {
    pub(super) fn holding(mut self, held: Held) -> Self {
        match self.incoming.is_end_stream() {
            true => held.answered(),
            false => self.held = Some(held),
        }
        self
    }

    fn fail(&mut self, fault: OutboundFault) -> OutboundFault {
        match self.held.take() {
            Some(held) => held.failed(fault),
            None => fault,
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, OutboundFault> {
        if let Some(trailers) = frame.trailers_ref() {
            return match fits(trailers) {
                true => Ok(frame),
                false => Err(self.fail(OutboundFault::TrailersTooLarge)),
            };
        }
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.length.add(bytes) {
            None => Ok(frame),
            Some(most) => Err(self.fail(OutboundFault::ResponseTooLarge(most))),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = OutboundFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFault>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(context) {
            this.waiting = None;
            return Poll::Ready(match frame {
                Some(Ok(frame)) => Some(this.take(frame)),
                Some(Err(error)) => Some(Err(this.fail(OutboundFault::of_exchange(&error)))),
                None => {
                    if let Some(held) = this.held.take() {
                        held.answered();
                    }
                    None
                }
            });
        }
        let between_bytes = this.between_bytes;
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Some(Err(this.fail(OutboundFault::ReadTimeout))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_at_its_own_bound_and_all_bodies_of_a_run_at_theirs() {
        let run = Arc::default();
        let received = || Length::new(&run, |bytes| &bytes.received);
        let mut first = received();
        assert_eq!(first.add(MAX_BODY_BYTES), None);
        assert_eq!(first.add(1), Some(MAX_BODY_BYTES));
        let left = MAX_RUN_BYTES - MAX_BODY_BYTES - 1;
        assert_eq!(received().exceeded_by(left), None);
        assert_eq!(received().exceeded_by(left + 1), Some(MAX_RUN_BYTES));
        assert_eq!(received().add(left), None);
        assert_eq!(received().add(1), Some(MAX_RUN_BYTES));
        assert_eq!(Length::new(&run, |bytes| &bytes.sent).add(MAX_BODY_BYTES), None);
        assert_eq!(received().exceeded_by(u64::MAX), Some(MAX_BODY_BYTES));
    }
}
