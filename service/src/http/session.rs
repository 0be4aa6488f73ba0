//! One exchange of bodies over NATS: frames both ways between two inboxes, as far as each side has room for them.
//!
//! Invariant: what was sent and is not yet read is never more than [`WINDOW_BYTES`] a direction; a side that hears nothing
//! from the other for [`SILENCE`], or finds it gone, breaks off.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Client, HeaderMap as Facts, Message, StatusCode, Subject};
use bytes::Bytes;
use http_body::Frame as Piece;
use http_body_util::BodyExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use wess_schemas::subject::Subjects;
use wess_schemas::{ErrorBody, ErrorCode};

use super::inboxes::{Inbox, Inboxes};
use super::wire::{Frame, read_frame, write_frame};
use super::{Body, Broken};

/// What may be under way in one direction, in bytes.
pub const WINDOW_BYTES: u64 = 512 << 10;
/// How much is read before more is granted.
const GRANT_BYTES: u64 = WINDOW_BYTES / 4;
/// The largest frame, where messages may be that large.
const FRAME_BYTES: usize = 64 << 10;
/// How often each side says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// How long a side may be silent.
pub const SILENCE: Duration = Duration::from_secs(10);

/// One side of an exchange.
pub struct Session {
    client: Client,
    subjects: Subjects,
    inbox: Inbox,
    peer: Option<Subject>,
    heard: Instant,
    beat: Interval,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
}

/// A body on its way out.
struct Outgoing {
    body: Body,
    /// Read, and not yet sent.
    ahead: Bytes,
    sent: u64,
    granted: u64,
    seq: u64,
    frame_bytes: usize,
}

/// A body on its way in.
struct Incoming {
    pieces: mpsc::UnboundedSender<Result<Piece<Bytes>, Broken>>,
    read: Arc<Read>,
    received: u64,
    granted: u64,
    seq: u64,
}

/// How much of a body its reader has taken.
#[derive(Default)]
struct Read {
    bytes: AtomicU64,
    changed: Notify,
}

/// Something that a session waits for has come.
pub enum Event {
    /// A message, or the end of the connection.
    Message(Option<Message>),
    /// The next piece of the body on its way out.
    Piece(Option<Result<Piece<Bytes>, Broken>>),
    /// There is room for more of it.
    Room,
    /// More of the body on its way in was read.
    Read,
    /// It is time to beat.
    Beat,
}

impl Session {
    /// Listens on an inbox of its own; `peer` is where the other side does, if that is known.
    pub async fn open(
        inboxes: &Inboxes,
        subjects: Subjects,
        peer: Option<Subject>,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = inboxes.open().await?;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        Ok(Self {
            client: inboxes.client().clone(),
            subjects,
            inbox,
            peer,
            heard: Instant::now(),
            beat,
            outgoing: None,
            incoming: None,
        })
    }

    /// Where this side listens.
    pub fn inbox(&self) -> &Subject {
        self.inbox.subject()
    }

    /// Sends a body, of which so many bytes may go at once.
    pub fn send(&mut self, body: Body, granted: u64) {
        let most = self.client.max_payload() / 2;
        self.outgoing = Some(Outgoing {
            body,
            ahead: Bytes::new(),
            sent: 0,
            granted,
            seq: 0,
            frame_bytes: most.clamp(1, FRAME_BYTES),
        });
    }

    /// Whether a body is on its way out.
    pub fn sends(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Receives a body, of which so many bytes have been granted.
    pub fn receive(&mut self, granted: u64) -> Body {
        let (pieces, arriving) = mpsc::unbounded_channel();
        let read = Arc::new(Read::default());
        self.incoming = Some(Incoming {
            pieces,
            read: Arc::clone(&read),
            received: 0,
            granted,
            seq: 0,
        });
        let arriving = Arriving {
            pieces: arriving,
            read,
            has_ended: false,
        };
        arriving.boxed_unsync()
    }

    /// Whether a body is on its way in.
    pub fn receives(&self) -> bool {
        self.incoming.is_some()
    }

    /// Whether nobody reads the body on its way in any more.
    pub fn is_unread(&self) -> bool {
        self.incoming
            .as_ref()
            .is_some_and(|incoming| incoming.pieces.is_closed())
    }

    /// The next message alone. Nothing is lost when this is dropped before.
    pub async fn next_message(&mut self) -> Option<Message> {
        self.inbox.next().await
    }

    /// What comes next. Nothing is lost when this is dropped before.
    pub async fn next(&mut self) -> Event {
        let silent = self.heard + SILENCE;
        tokio::select! {
            biased;
            message = self.inbox.next() => Event::Message(message),
            event = next_piece(&mut self.outgoing) => event,
            () = was_read(&self.incoming) => Event::Read,
            _ = self.beat.tick() => Event::Beat,
            () = tokio::time::sleep_until(silent), if self.peer.is_some() => Event::Beat,
        }
    }

    /// Does what an event calls for. A message that is no frame comes back. An error breaks the exchange off.
    pub async fn handle(&mut self, event: Event) -> Result<Option<Message>, ErrorBody> {
        match event {
            Event::Message(None) => Err(lost("the connection to NATS has ended")),
            Event::Message(Some(message)) => self.hear(message),
            Event::Piece(piece) => self.pass(piece).await.map(|()| None),
            Event::Room => self.send_ahead().await.map(|()| None),
            Event::Read => self.grant().await.map(|()| None),
            Event::Beat if self.peer.is_some() && self.heard.elapsed() >= SILENCE => {
                Err(lost("the other side of the exchange is silent"))
            }
            Event::Beat => self.tell(Frame::Beat).await.map(|()| None),
        }
    }

    fn hear(&mut self, message: Message) -> Result<Option<Message>, ErrorBody> {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            if self.peer.is_none() {
                return Ok(Some(message));
            }
            return Err(lost("the other side of the exchange is gone"));
        }
        self.heard = Instant::now();
        if let Some(peer) = message.reply.as_ref().filter(|_| self.peer.is_none()) {
            if !self.subjects.may_reply_to(peer) {
                return Err(lost("the other side listens where nobody may"));
            }
            self.peer = Some(peer.clone());
        }
        let none = Facts::new();
        let facts = message.headers.as_ref().unwrap_or(&none);
        let Some(frame) = read_frame(facts, message.payload.clone())? else {
            return Ok(Some(message));
        };
        match (frame, &mut self.incoming, &mut self.outgoing) {
            (Frame::Data(seq, data), Some(incoming), _) => incoming.take(seq, data)?,
            (Frame::End(seq, trailers), Some(incoming), _) => {
                incoming.check(seq)?;
                if let Some(trailers) = trailers {
                    incoming.give(Ok(Piece::trailers(trailers)));
                }
                incoming.give_end();
                self.incoming = None;
            }
            (Frame::Abort(error), ..) => return Err(*error),
            (Frame::Credit(bytes), _, Some(outgoing)) => {
                outgoing.granted = outgoing.granted.saturating_add(bytes);
            }
            // What was under way when this side had enough.
            (Frame::Data(..) | Frame::End(..) | Frame::Credit(_) | Frame::Beat, ..) => {}
        }
        Ok(None)
    }

    async fn pass(&mut self, piece: Option<Result<Piece<Bytes>, Broken>>) -> Result<(), ErrorBody> {
        let Some(outgoing) = &mut self.outgoing else {
            return Ok(());
        };
        let trailers = match piece {
            Some(Err(broken)) => return Err(broken.0),
            Some(Ok(piece)) => match piece.into_data() {
                Ok(data) => {
                    outgoing.ahead = data;
                    return self.send_ahead().await;
                }
                Err(piece) => piece.into_trailers().ok(),
            },
            None => None,
        };
        let end = Frame::End(outgoing.seq, trailers);
        self.outgoing = None;
        self.tell(end).await
    }

    async fn send_ahead(&mut self) -> Result<(), ErrorBody> {
        while let Some(outgoing) = &mut self.outgoing {
            let room = usize::try_from(outgoing.granted.saturating_sub(outgoing.sent)).unwrap_or(usize::MAX);
            let most = outgoing.ahead.len().min(outgoing.frame_bytes).min(room);
            if most == 0 {
                break;
            }
            let data = outgoing.ahead.split_to(most);
            let frame = Frame::Data(outgoing.seq, data);
            outgoing.sent += most as u64;
            outgoing.seq += 1;
            self.tell(frame).await?;
        }
        Ok(())
    }

    async fn grant(&mut self) -> Result<(), ErrorBody> {
        let Some(incoming) = &mut self.incoming else {
            return Ok(());
        };
        let read = incoming.read.bytes.load(Ordering::Relaxed);
        let more = (read + WINDOW_BYTES).saturating_sub(incoming.granted);
        if more < GRANT_BYTES {
            return Ok(());
        }
        incoming.granted += more;
        self.tell(Frame::Credit(more)).await
    }

    /// Tells the other side, if it is known where it listens.
    pub async fn tell(&mut self, frame: Frame) -> Result<(), ErrorBody> {
        let (facts, payload) = write_frame(frame);
        self.publish(facts, payload).await
    }

    /// Sends any message to the other side, and with it where this one listens.
    pub async fn publish(&mut self, facts: Facts, payload: Bytes) -> Result<(), ErrorBody> {
        let Some(peer) = self.peer.clone() else {
            return Ok(());
        };
        self.beat.reset();
        let inbox = self.inbox.subject().clone();
        let sent = self
            .client
            .publish_with_reply_and_headers(peer, inbox, facts, payload);
        sent.await.map_err(|error| lost(&error.to_string()))
    }

    /// Ends both bodies as incomplete, here and there.
    pub async fn break_off(mut self, error: ErrorBody) {
        // Who is gone is not told.
        let _ = self.tell(Frame::Abort(Box::new(error.clone()))).await;
        if let Some(incoming) = self.incoming {
            incoming.give(Err(Broken(error)));
        }
    }
}

fn lost(why: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, why)
}

async fn next_piece(outgoing: &mut Option<Outgoing>) -> Event {
    match outgoing {
        Some(outgoing) if outgoing.granted > outgoing.sent && !outgoing.ahead.is_empty() => Event::Room,
        Some(outgoing) if outgoing.ahead.is_empty() => Event::Piece(outgoing.body.frame().await),
        _ => std::future::pending().await,
    }
}

async fn was_read(incoming: &Option<Incoming>) {
    match incoming {
        Some(incoming) => tokio::select! {
            () = incoming.read.changed.notified() => (),
            () = incoming.pieces.closed() => (),
        },
        None => std::future::pending().await,
    }
}

impl Incoming {
    fn check(&mut self, seq: u64) -> Result<(), ErrorBody> {
        if seq != self.seq {
            return Err(lost("a part of the body was lost"));
        }
        self.seq += 1;
        Ok(())
    }

    fn take(&mut self, seq: u64, data: Bytes) -> Result<(), ErrorBody> {
        self.check(seq)?;
        self.received += data.len() as u64;
        if self.received > self.granted {
            return Err(lost("the other side sent more than it may"));
        }
        if !data.is_empty() {
            self.give(Ok(Piece::data(data)));
        }
        Ok(())
    }

    fn give(&self, piece: Result<Piece<Bytes>, Broken>) {
        // A reader that is gone has had enough.
        drop(self.pieces.send(piece));
    }

    fn give_end(&self) {
        self.give(Ok(Piece::data(Bytes::new())));
    }
}

/// A body on its way in, as its reader has it. It ends with an empty piece: without one it broke off.
struct Arriving {
    pieces: mpsc::UnboundedReceiver<Result<Piece<Bytes>, Broken>>,
    read: Arc<Read>,
    has_ended: bool,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece<Bytes>, Broken>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(piece)) => {
                let bytes = piece.data_ref().map(Bytes::len);
                if bytes == Some(0) {
                    self.has_ended = true;
                    return None;
                }
                self.read
                    .bytes
                    .fetch_add(bytes.unwrap_or(0) as u64, Ordering::Relaxed);
                self.read.changed.notify_one();
                Some(Ok(piece))
            }
            Some(Err(broken)) => Some(Err(broken)),
            None => Some(Err(Broken(lost("the exchange was given up")))),
        })
    }
}
