//! One client of the socket: its lines become requests, whose replies go back in the order they were asked.
//!
//! Invariants: so many requests at most are in hand, and nothing more is taken from a client that leaves its replies. A
//! client that has sent its last request still gets every reply.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesOrdered;
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, PollSemaphore};

use super::commands::{Commands, Reply};
use super::lines::{Line, Lines};
use super::outbox::Outbox;
use crate::bodies;

/// Requests of one client in hand: enough to keep every executor busy, and few enough that others get their turn.
const MAX_IN_HAND: usize = 128;
/// Of a client that leaves so much unread nothing more is taken.
const MAX_UNSENT_BYTES: usize = 256 * 1024;
/// How often is looked whether a client still sends what it has begun, and takes what it has asked.
const LOOK: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To send the rest of a line.
    pub line: Duration,
    /// To take any of what it is sent.
    pub send: Duration,
}

/// One client.
pub struct Connection {
    stream: UnixStream,
    commands: Commands,
    room: PollSemaphore,
    patience: Patience,
    lines: Lines,
    /// A line that waits for room.
    next: Option<Line>,
    in_hand: FuturesOrdered<Reply>,
    outbox: Outbox,
    /// Nothing more is taken from the client.
    over: bool,
    look: Option<Pin<Box<Sleep>>>,
    seen: Seen,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Seen {
    taken: u64,
    sent: u64,
    half_for: Duration,
    stuck_for: Duration,
}

impl Connection {
    /// Serves `stream`. `room` is for the requests of all clients.
    pub fn new(
        stream: UnixStream,
        commands: Commands,
        room: PollSemaphore,
        lines: Lines,
        patience: Patience,
    ) -> Self {
        Self {
            stream,
            commands,
            room,
            patience,
            lines,
            next: None,
            in_hand: FuturesOrdered::new(),
            outbox: Outbox::default(),
            over: false,
            look: None,
            seen: Seen::default(),
        }
    }

    /// Serves until the client is done, or `shutdown`: then what is in hand is answered, and nothing more taken.
    pub async fn serve(mut self, shutdown: CancellationToken) -> io::Result<()> {
        let mut stopped = pin!(shutdown.cancelled());
        tokio::select! {
            biased;
            ended = poll_fn(|context| self.poll(context)) => return ended,
            () = &mut stopped => self.over = true,
        }
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut moved = self.begin(context);
            while let Poll::Ready(Some(reply)) = self.in_hand.poll_next_unpin(context) {
                self.outbox.push(reply);
                moved = true;
            }
            if !self.outbox.is_empty() {
                moved |= self.outbox.poll_send(&mut self.stream, context)?.is_ready();
            }
            if self.over && self.in_hand.is_empty() && self.outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.may_take() && self.next.is_none() {
                moved |= self.poll_read(context)?.is_ready();
            }
            if !moved {
                ready!(self.poll_look(context))?;
            }
        }
    }

    fn may_take(&self) -> bool {
        !self.over && self.in_hand.len() < MAX_IN_HAND && self.outbox.bytes() < MAX_UNSENT_BYTES
    }

    /// Takes requests in hand that have come, as long as there is room; whether any was.
    fn begin(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.may_take() {
            let Some(line) = self.next.take().or_else(|| self.lines.next()) else {
                break;
            };
            let Poll::Ready(Some(permit)) = self.room.poll_acquire(context) else {
                self.next = Some(line);
                break;
            };
            self.in_hand.push_back(self.commands.begin(line, Some(permit)));
            any = true;
        }
        any
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let read = ready!(poll_read_buf(stream, context, self.lines.space()))?;
        if read == 0 {
            // What came last may have no end of its own. There is room for it: something was still taken.
            if let Some(line) = self.lines.last() {
                self.in_hand.push_back(self.commands.begin(line, None));
            }
            self.over = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks whether the client does its part; ready when it did not for too long, and when it has to be seen to.
    fn poll_look(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_half = self.may_take() && self.next.is_none() && self.lines.has_half();
        if !is_half && self.outbox.is_empty() {
            // A timer that was set stays: under load this comes and goes with every read.
            self.seen = Seen::default();
            return Poll::Pending;
        }
        ready!(
            self.look
                .get_or_insert_with(|| Box::pin(sleep(LOOK)))
                .as_mut()
                .poll(context)
        );
        self.look = None;
        let Seen {
            taken,
            sent,
            half_for,
            stuck_for,
        } = self.seen;
        let since = |goes_on: bool, since: Duration| if goes_on { since + LOOK } else { Duration::ZERO };
        self.seen = Seen {
            taken: self.lines.taken(),
            sent: self.outbox.sent(),
            half_for: since(is_half && taken == self.lines.taken(), half_for),
            stuck_for: since(!self.outbox.is_empty() && sent == self.outbox.sent(), stuck_for),
        };
        if self.seen.stuck_for > self.patience.send {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.seen.half_for > self.patience.line {
            let refused = self
                .commands
                .begin(Err(bodies::line_too_slow(self.patience.line)), None);
            self.in_hand.push_back(refused);
            self.over = true;
        }
        Poll::Ready(Ok(()))
    }
}
