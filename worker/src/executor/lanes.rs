//! Two lanes for guests: the executor's own, where a call is polled inline, and a slow one for whoever overstays.
//!
//! Invariant: no guest holds an executor's thread longer than its first ticks; on the slow lane guests take turns.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guest::{Ending, Prepared, Run, invoke, poll_noting_overstay};

/// How much lower the slow lanes' priority is: enough that short calls come first, not so much that nobody gets through.
const SLOW_LANE_NICE: i32 = 5;

/// What an executor knows of a call whose guest is under way.
pub trait Awaited {
    /// Ready once nobody waits for the guest any more, where that can be known.
    fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// Why a guest is no longer.
#[derive(Debug)]
pub enum GuestEnd {
    /// It answered, or failed by its own doing.
    Ended(Ending),
    /// Our own code panicked in it.
    Panicked,
    /// The process stops and its grace is over.
    Cut,
    /// Nobody waited for it any more.
    GivenUp,
}

/// A guest under way.
pub struct GuestFuture(Pin<Box<dyn Future<Output = Ending> + Send>>);

impl GuestFuture {
    /// A guest that has not begun.
    pub fn new(prepared: Arc<Prepared>, run: Run) -> Self {
        Self(Box::pin(invoke(prepared, run)))
    }
}

impl Future for GuestFuture {
    type Output = GuestEnd;

    /// A panic of ours ends this call alone.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<GuestEnd> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(polled) => polled.map(GuestEnd::Ended),
            Err(_) => Poll::Ready(GuestEnd::Panicked),
        }
    }
}

/// What a poll of a guest came to.
pub enum Polled {
    /// It ended.
    Ended(GuestEnd),
    /// It burned its ticks and has to change lanes.
    Overstayed(GuestFuture),
    /// It waits for the host and stays.
    Waits(GuestFuture),
}

/// Gives a new guest its first turn.
pub fn first_turn(mut guest: GuestFuture) -> Polled {
    // Whoever keeps a waiting guest polls it again with a real waker.
    let mut context = Context::from_waker(Waker::noop());
    match poll_noting_overstay(Pin::new(&mut guest), &mut context) {
        (Poll::Ready(ending), _) => Polled::Ended(ending),
        (Poll::Pending, true) => Polled::Overstayed(guest),
        (Poll::Pending, false) => Polled::Waits(guest),
    }
}

/// A guest that waits for the host on its executor, with what its executor knows of the call.
pub struct Suspended<T> {
    guest: Option<(GuestFuture, T)>,
}

impl<T> Suspended<T> {
    /// Keeps a guest until it ends or overstays.
    pub fn new(guest: GuestFuture, call: T) -> Self {
        Self {
            guest: Some((guest, call)),
        }
    }

    /// Ends the guest where it is.
    pub fn cut(self) -> Option<T> {
        self.guest.map(|(_, call)| call)
    }
}

/// Why a suspended guest is no longer.
pub enum Resumed<T> {
    /// It ended.
    Ended(GuestEnd, T),
    /// It went on to burn its ticks.
    Overstayed(GuestFuture, T),
}

impl<T: Awaited + Unpin> Future for Suspended<T> {
    type Output = Resumed<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Resumed<T>> {
        let Some((mut guest, mut call)) = self.guest.take() else {
            return Poll::Pending;
        };
        match poll_noting_overstay(Pin::new(&mut guest), context) {
            (Poll::Ready(ending), _) => Poll::Ready(Resumed::Ended(ending, call)),
            (Poll::Pending, true) => Poll::Ready(Resumed::Overstayed(guest, call)),
            (Poll::Pending, false) if call.poll_given_up(context).is_ready() => {
                Poll::Ready(Resumed::Ended(GuestEnd::GivenUp, call))
            }
            (Poll::Pending, false) => {
                self.guest = Some((guest, call));
                Poll::Pending
            }
        }
    }
}

/// A thread where guests that overstayed take turns, a tick each.
pub struct SlowLane<T> {
    guests: mpsc::UnboundedSender<(GuestFuture, T)>,
}

impl<T: Awaited + Send + 'static> SlowLane<T> {
    /// Starts the thread. It ends when the lane is dropped; guests still on it are dropped with it.
    ///
    /// Both channels are unbounded by type and bounded by the executor's slots: each guest holds one.
    pub fn start(
        name: String,
        ended: mpsc::UnboundedSender<(GuestEnd, T)>,
        cut: CancellationToken,
    ) -> std::io::Result<Self> {
        let (guests, arriving) = mpsc::unbounded_channel();
        // A turn is a tick long, so look at timers and sockets after each.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(1)
            .build()?;
        std::thread::Builder::new().name(name).spawn(move || {
            step_back();
            runtime.block_on(take_turns(arriving, ended, cut));
        })?;
        Ok(Self { guests })
    }

    /// Takes a guest over.
    pub fn take(&self, guest: GuestFuture, call: T) {
        // The lane outlives its executor's loop; were its thread gone, the caller's reply would be lost with a panic
        // already reported.
        if self.guests.send((guest, call)).is_err() {
            tracing::error!("the slow lane is gone");
        }
    }
}

async fn take_turns<T: Awaited + Send + 'static>(
    mut arriving: mpsc::UnboundedReceiver<(GuestFuture, T)>,
    ended: mpsc::UnboundedSender<(GuestEnd, T)>,
    cut: CancellationToken,
) {
    let turns = TaskTracker::new();
    while let Some((guest, mut call)) = arriving.recv().await {
        let (ended, cut) = (ended.clone(), cut.clone());
        turns.spawn(async move {
            let end = tokio::select! {
                biased;
                end = guest => end,
                () = cut.cancelled() => GuestEnd::Cut,
                () = poll_fn(|context| call.poll_given_up(context)) => GuestEnd::GivenUp,
            };
            // The executor that gave it to us has gone only if the process stops.
            drop(ended.send((end, call)));
        });
    }
}

/// Lowers this thread's priority, as far as the system lets us.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, SLOW_LANE_NICE) {
        tracing::debug!(%error, "the slow lane keeps its priority");
    }
}
