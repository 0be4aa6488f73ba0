//! Calls that find no slot here, on their way into the queue of calls, where any worker takes them.
//!
//! Hands over only what came over NATS with a reply subject; never what came from inside or from the queue itself.
//! Invariant: a call is answered here unless the stream has said that it holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::queue::QueueError;
use wess_service::queue::calls::QueuedCall;

use super::respond::Responder;
use super::slots::Waits;
use super::steps::{Event, Pending, Ticket, overloaded, stopping};
use super::turns::Executor;
use crate::endpoints::invoke::Form;
use crate::registry::Resolved;

/// The largest body that is handed over: the stream has room for sixty-four of them. Larger ones wait here.
const MAX_BYTES: usize = 1 << 20;
/// Calls on their way at once.
const MAX_IN_FLIGHT: usize = 256;
/// What calls on their way may hold together that are not in the house, in bytes.
const MAX_OUTSIDE_BYTES: usize = 16 << 20;
/// How long no call is handed over once the stream was not there; then one, and more once it is.
const PAUSE: Duration = Duration::from_secs(1);
/// The same once the stream was full: refusing must cost less than running.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// A call as it was asked, kept until its guest starts.
#[derive(Debug)]
pub struct Origin {
    subject: Subject,
    headers: Option<HeaderMap>,
    payload: Bytes,
}

impl Origin {
    /// `None` for what may not be handed over, or is too large for that.
    pub fn new(
        subject: Subject,
        headers: Option<HeaderMap>,
        payload: Bytes,
        responder: &Responder,
    ) -> Option<Self> {
        let may_leave = matches!(responder, Responder::Nats(_, Some(_))) && payload.len() <= MAX_BYTES;
        may_leave.then_some(Self {
            subject,
            headers,
            payload,
        })
    }

    /// What it holds besides what the parsed call does, in bytes: raw input is the very same bytes.
    pub fn size_bytes(&self, form: Option<Form>) -> usize {
        match form {
            Some(Form::Json) => self.payload.len(),
            _ => 0,
        }
    }

    fn to_call(&self, reply: Option<&Subject>, deadline_ms: u64) -> QueuedCall {
        QueuedCall {
            subject: self.subject.to_string(),
            headers: self.headers.clone().unwrap_or_default(),
            payload: self.payload.clone(),
            reply: reply.cloned(),
            deadline_ms,
        }
    }
}

/// What one executor has on its way into the queue.
pub struct Spills {
    jetstream: Context,
    in_flight: usize,
    outside_bytes: usize,
    /// Set while the stream takes no calls, or took none when it was last tried.
    shut: Option<Shut>,
}

/// Why the stream takes no calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is not there.
    Away,
    /// It has no room.
    Full,
}

/// The stream takes no calls, and is not asked until then.
#[derive(Debug, Clone, Copy)]
struct Shut {
    why: Why,
    until: Instant,
}

impl Shut {
    fn after(error: &QueueError, now: Instant) -> Option<Self> {
        let (why, pause) = match error {
            QueueError::Unavailable { .. } => (Why::Away, PAUSE),
            QueueError::Full { .. } => (Why::Full, FULL_PAUSE),
            QueueError::Duplicate
            | QueueError::TooLarge
            | QueueError::Refused { .. }
            | QueueError::Unknown { .. } => return None,
        };
        let until = now + pause;
        Some(Self { why, until })
    }

    /// Whether it is not to be asked yet.
    fn holds(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Whether it was full a moment ago: under a load that keeps it so it is tried all the time.
    fn is_full(&self, now: Instant) -> bool {
        self.why == Why::Full && now < self.until + FULL_PAUSE
    }
}

impl Spills {
    /// Nothing on its way.
    pub fn new(client: Client) -> Self {
        Self {
            jetstream: jetstream::new(client),
            in_flight: 0,
            outside_bytes: 0,
            shut: None,
        }
    }

    /// Whether none is on its way.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// How many more may be on their way.
    fn room(&self) -> usize {
        let most = match self.shut {
            None => MAX_IN_FLIGHT,
            Some(shut) => usize::from(!shut.holds(Instant::now())),
        };
        most.saturating_sub(self.in_flight)
    }

    /// Whether the stream was full a moment ago.
    fn is_full(&self) -> bool {
        self.shut.is_some_and(|shut| shut.is_full(Instant::now()))
    }

    /// Whether it was, and is not to be asked yet.
    fn refuses(&self) -> bool {
        self.shut
            .is_some_and(|shut| shut.why == Why::Full && shut.holds(Instant::now()))
    }
}

/// A call on its way into the queue.
pub enum Leaving {
    /// From the line; it keeps its place in the house.
    InLine(Box<Ticket>),
    /// One that the house had no room for.
    Outside(Box<Pending>),
    /// Of a stored chain, no step of which has a slot here.
    Chain(Box<Pending>, Arc<Resolved>),
}

/// What became of it.
pub struct Spilled {
    leaving: Leaving,
    result: Result<(), QueueError>,
}

impl Leaving {
    fn responder(&self) -> &Responder {
        match self {
            Self::InLine(ticket) => &ticket.responder,
            Self::Outside(pending) | Self::Chain(pending, _) => &pending.responder,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::InLine(ticket) => ticket.origin.as_ref(),
            Self::Outside(pending) | Self::Chain(pending, _) => pending.origin.as_ref(),
        }
    }

    fn expires(&self) -> Instant {
        match self {
            Self::InLine(ticket) => ticket.expires(),
            Self::Outside(pending) | Self::Chain(pending, _) => pending.call.expires(),
        }
    }

    fn to_call(&self, now_ms: u64) -> Option<QueuedCall> {
        let left = self.expires().saturating_duration_since(Instant::now());
        let Responder::Nats(_, reply) = self.responder() else {
            return None;
        };
        let deadline_ms = now_ms.saturating_add(left.as_millis() as u64);
        Some(self.origin()?.to_call(reply.as_ref(), deadline_ms))
    }
}

impl Executor {
    /// Moves who stands in line to other executors of this process that have a slot: a guest that runs for long here
    /// holds up nobody who could run there.
    pub(super) fn move_line(&mut self) {
        if !self.slots.is_full() || !self.slots.has_line() || self.draining {
            return;
        }
        let common = Arc::clone(&self.common);
        let Some(executors) = common.executors.get() else {
            return;
        };
        while let Some(mut ticket) = self.slots.step_first_out() {
            // Code is prepared for one executor's engine.
            let (prepared, size_bytes) = (ticket.prepared.take(), ticket.size_bytes());
            match executors.move_over(ticket) {
                Ok(()) => self.slots.leave(size_bytes),
                Err(mut ticket) => {
                    ticket.prepared = prepared;
                    return self.slots.line_up_again(ticket);
                }
            }
        }
    }

    /// Gives calls from the queue back to it that came here when there was room, if there is none now but elsewhere.
    pub(super) fn return_queued(&mut self) {
        if !self.slots.is_full() || self.draining || !self.common.fleet.others_have_room() {
            return;
        }
        let returned = self.slots.take_where(|ticket| ticket.responder.is_queued());
        for ticket in returned {
            ticket.responder.give_back();
        }
    }

    /// Hands over who stands in line while no slot is free, in their order; refuses them while the queue is full.
    pub(super) fn spill_line(&mut self) {
        if !self.slots.is_full() || !self.slots.has_leavers() || !self.is_in_reach() {
            return;
        }
        if self.spills.refuses() {
            for ticket in self.slots.step_out(usize::MAX) {
                self.slots.leave(ticket.size_bytes());
                self.fail(ticket.responder, ticket.job_id, overloaded());
            }
            return;
        }
        for ticket in self.slots.step_out(self.spills.room()) {
            self.spill(Leaving::InLine(ticket));
        }
    }

    /// A call that the house has no room for: the queue may have.
    pub(super) fn turn_out(&mut self, pending: Box<Pending>) {
        if self.may_leave(&pending) {
            self.spills.outside_bytes += pending.size_bytes;
            self.spill(Leaving::Outside(pending));
        } else {
            self.refuse(pending, overloaded());
        }
    }

    /// A chain that is not in the house: where no slot is free, the queue may have room. If it has none, it runs here.
    pub(super) fn turn_out_chain(&mut self, pending: Box<Pending>, module: Arc<Resolved>) {
        if self.slots.is_full() && self.may_leave(&pending) {
            self.spills.outside_bytes += pending.size_bytes;
            self.spill(Leaving::Chain(pending, module));
        } else {
            self.begin_chain(pending, module);
        }
    }

    /// Whether the line here is so long that a call has to wait in the queue, or be refused as that is full. While the queue
    /// is away or so many are on their way to it as may be, and for what may not wait there, the line is as long as it must be.
    pub(super) fn waits_elsewhere(&self, pending: &Pending) -> bool {
        self.pace.wait_behind(self.slots.line()) > self.common.bounds.patience
            && (self.may_leave(pending)
                || (self.spills.is_full() && pending.origin.is_some() && self.is_in_reach()))
    }

    fn may_leave(&self, pending: &Pending) -> bool {
        let fits = self.spills.outside_bytes + pending.size_bytes <= MAX_OUTSIDE_BYTES;
        pending.origin.is_some() && fits && self.may_spill()
    }

    /// A worker that stops hands over only what another one can take.
    pub(super) fn may_spill(&self) -> bool {
        self.spills.room() > 0 && self.is_in_reach()
    }

    /// Whether the queue can be asked, and somebody will take from it.
    fn is_in_reach(&self) -> bool {
        self.client.connection_state() == State::Connected
            && (!self.draining || self.common.fleet.has_others())
    }

    fn spill(&mut self, leaving: Leaving) {
        let now_ms = (self.common.clock)().unix_ms();
        self.spills.in_flight += 1;
        let Some(call) = leaving.to_call(now_ms) else {
            let result = Err(QueueError::TooLarge);
            return self.on_spilled(Spilled { leaving, result });
        };
        let (jetstream, subjects) = (self.spills.jetstream.clone(), self.common.subjects.clone());
        let (overdue, deadline, reply) = (self.common.overdue.clone(), leaving.expires(), call.reply.clone());
        self.errand(async move {
            let result = call.enqueue(&jetstream, &subjects, now_ms).await.map(|number| {
                if let Some(reply) = reply {
                    overdue.add(deadline.into(), number, reply);
                }
            });
            Event::Spilled(Box::new(Spilled { leaving, result }))
        });
    }

    pub(super) fn on_spilled(&mut self, Spilled { leaving, result }: Spilled) {
        self.spills.in_flight -= 1;
        match &result {
            Ok(()) => self.spills.shut = None,
            Err(error) => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::debug!(%error, cause, "a call was not handed over");
                self.spills.shut = Shut::after(error, Instant::now()).or(self.spills.shut);
            }
        }
        match leaving {
            Leaving::InLine(ticket) => self.spilled_from_line(ticket, result),
            Leaving::Chain(pending, module) => {
                self.spills.outside_bytes -= pending.size_bytes;
                match result {
                    Ok(()) | Err(QueueError::Duplicate) => self.tally.spilled.add(1),
                    Err(error @ QueueError::Unknown { .. }) => self.refuse(pending, told(&error)),
                    Err(QueueError::Full { .. }) => self.refuse(pending, overloaded()),
                    Err(_) if self.cut.is_cancelled() => self.refuse(pending, stopping()),
                    Err(_) => self.begin_chain(pending, module),
                }
            }
            Leaving::Outside(pending) => {
                self.spills.outside_bytes -= pending.size_bytes;
                match result {
                    Ok(()) | Err(QueueError::Duplicate) => self.tally.spilled.add(1),
                    Err(error @ QueueError::Unknown { .. }) => self.refuse(pending, told(&error)),
                    Err(QueueError::Full { .. }) => self.refuse(pending, overloaded()),
                    Err(_) => self.stay(pending),
                }
            }
        }
    }

    /// A call that the queue cannot take waits here, if the house has room for it.
    fn stay(&mut self, mut pending: Box<Pending>) {
        pending.origin = None;
        if self.cut.is_cancelled() {
            self.refuse(pending, stopping());
        } else {
            self.let_in(pending);
        }
    }

    fn spilled_from_line(&mut self, mut ticket: Box<Ticket>, result: Result<(), QueueError>) {
        let error = match result {
            Ok(()) | Err(QueueError::Duplicate) => {
                self.slots.leave(ticket.size_bytes());
                return self.tally.spilled.add(1);
            }
            Err(QueueError::Unavailable { .. } | QueueError::TooLarge | QueueError::Refused { .. })
                if self.cut.is_cancelled() =>
            {
                stopping()
            }
            Err(
                error @ (QueueError::Unavailable { .. } | QueueError::TooLarge | QueueError::Refused { .. }),
            ) => {
                if let QueueError::TooLarge | QueueError::Refused { .. } = error {
                    ticket.origin = None;
                }
                return self.slots.line_up_again(ticket);
            }
            Err(QueueError::Full { .. }) => overloaded(),
            Err(error @ QueueError::Unknown { .. }) => told(&error),
        };
        self.slots.leave(ticket.size_bytes());
        self.fail(ticket.responder, ticket.job_id, error);
    }
}

/// Whoever takes the call from the queue, if it is there, runs its guest.
fn told(error: &QueueError) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> jetstream::context::PublishError {
        jetstream::context::PublishErrorKind::Other.into()
    }

    #[test]
    fn a_full_queue_is_asked_again_after_its_pause_and_not_taken_for_full_long_after() {
        let now = Instant::now();
        let shut = Shut::after(&QueueError::Full { source: source() }, now).unwrap();
        let moment = Duration::from_nanos(1);
        assert!(shut.holds(now + FULL_PAUSE - moment) && !shut.holds(now + FULL_PAUSE));
        assert!(shut.is_full(now + 2 * FULL_PAUSE - moment) && !shut.is_full(now + 2 * FULL_PAUSE));
    }

    #[test]
    fn a_queue_that_is_away_is_not_full_and_other_failures_are_of_their_call_alone() {
        let now = Instant::now();
        let shut = Shut::after(&QueueError::Unavailable { source: source() }, now).unwrap();
        assert!(shut.holds(now + FULL_PAUSE) && !shut.holds(now + PAUSE) && !shut.is_full(now));
        assert!(Shut::after(&QueueError::TooLarge, now).is_none());
        assert!(Shut::after(&QueueError::Duplicate, now).is_none());
    }
}
