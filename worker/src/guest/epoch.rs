//! The clock that interrupts guests: one thread advances the epoch of every engine that has guests.
//!
//! Invariant: while a [`Running`] lives, its engine's epoch advances every [`TICK`], wherever its future is polled.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How often the epoch advances.
pub const TICK: Duration = Duration::from_millis(1);
/// Ticks a guest may burn before it yields for the first time; the first may be almost over when it starts.
pub(super) const FIRST_TICKS: u64 = 2;
/// Ticks between later yields.
pub(super) const NEXT_TICKS: u64 = 1;
/// Ticks without any guest after which the thread sleeps until one starts.
const IDLE_TICKS: u32 = 50;

/// The ticking thread; it stops when the last handle goes.
#[derive(Clone)]
pub struct Ticker {
    shared: Arc<Shared>,
    _thread: Arc<StopOnDrop>,
}

#[derive(Default)]
struct Shared {
    engines: Mutex<Vec<(EngineWeak, Arc<AtomicUsize>)>>,
    parked: AtomicBool,
    stop: AtomicBool,
}

struct StopOnDrop {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been printed; there is nothing left to stop.
            drop(thread.join());
        }
    }
}

impl Ticker {
    /// Starts the thread, asleep until an engine has a guest.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticking = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wess-epoch".into())
            .spawn(move || ticking.run())?;
        let stop = StopOnDrop {
            shared: Arc::clone(&shared),
            thread: Some(thread),
        };
        Ok(Self {
            shared,
            _thread: Arc::new(stop),
        })
    }

    /// Advances this engine's epoch too, whenever it has guests.
    pub(super) fn watch(&self, engine: &Engine) -> EngineClock {
        let guests = Arc::new(AtomicUsize::new(0));
        let mut engines = self.shared.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push((engine.weak(), Arc::clone(&guests)));
        EngineClock {
            guests,
            ticker: self.clone(),
        }
    }

    fn wake(&self) {
        if self.shared.parked.load(Ordering::SeqCst)
            && let Some(thread) = &self._thread.thread
        {
            Thread::unpark(thread.thread());
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut idle_ticks = 0;
        while !self.stop.load(Ordering::SeqCst) {
            idle_ticks = if self.tick() { 0 } else { idle_ticks + 1 };
            if idle_ticks < IDLE_TICKS {
                std::thread::sleep(TICK);
                continue;
            }
            self.park_until_a_guest_starts();
            idle_ticks = 0;
        }
    }

    /// Says it is parked before it looks once more: a guest that starts in between sees one or is seen.
    fn park_until_a_guest_starts(&self) {
        self.parked.store(true, Ordering::SeqCst);
        while !self.tick() && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Advances every engine that has guests, forgets those that are gone; says whether any had.
    fn tick(&self) -> bool {
        let mut any = false;
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|(engine, guests)| {
            let busy = guests.load(Ordering::SeqCst) > 0;
            if busy && let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                any = true;
                return true;
            }
            busy || engine.upgrade().is_some()
        });
        any
    }
}

/// Counts one engine's guests for the ticker.
#[derive(Clone)]
pub(super) struct EngineClock {
    guests: Arc<AtomicUsize>,
    ticker: Ticker,
}

impl EngineClock {
    /// A guest starts; the epoch advances until the returned mark is dropped.
    pub fn enter(&self) -> Running {
        self.guests.fetch_add(1, Ordering::SeqCst);
        self.ticker.wake();
        Running {
            guests: Arc::clone(&self.guests),
        }
    }
}

/// A guest that has not ended.
pub(super) struct Running {
    guests: Arc<AtomicUsize>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    /// Set by a guest that yields because its ticks are used up; read by whoever polled it on this thread.
    static OVERSTAYED: Cell<bool> = const { Cell::new(false) };
    /// Set while a guest is polled that had come back to wait for its host, until its ticks are forgiven.
    static WAITED: Cell<bool> = const { Cell::new(false) };
}

/// Called by a guest's epoch callback just before it yields.
pub(super) fn note_overstay() {
    OVERSTAYED.set(true);
}

/// Polls a guest's future and says whether it came back because the guest burned through its ticks.
pub fn poll_noting_overstay<F: Future + ?Sized>(
    future: Pin<&mut F>,
    context: &mut Context<'_>,
) -> (Poll<F::Output>, bool) {
    OVERSTAYED.set(false);
    let polled = future.poll(context);
    (polled, OVERSTAYED.replace(false))
}

/// Polls a run. One that waited for its host gets its first ticks anew when it goes on: the host spent the others.
pub(super) fn forgiving_waits<F: Future>(mut run: Pin<&mut F>) -> impl Future<Output = F::Output> + Unpin {
    let mut waited = false;
    poll_fn(move |context| {
        OVERSTAYED.set(false);
        WAITED.set(waited);
        let polled = run.as_mut().poll(context);
        WAITED.set(false);
        waited = polled.is_pending() && !OVERSTAYED.get();
        polled
    })
}

/// Whether the guest that is polled on this thread waited for its host before, which counts once.
pub(super) fn take_wait() -> bool {
    WAITED.replace(false)
}

#[cfg(test)]
impl Ticker {
    /// A clock that only a test moves.
    pub(super) fn by_hand() -> Self {
        let shared = Arc::new(Shared::default());
        let no_thread = StopOnDrop {
            shared: Arc::clone(&shared),
            thread: None,
        };
        Self {
            shared,
            _thread: Arc::new(no_thread),
        }
    }

    /// One tick; whether any engine had guests.
    pub(super) fn tick(&self) -> bool {
        self.shared.tick()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_for_state(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_ticker_parks_without_guests_and_ticks_while_there_are_any() {
        let (ticker, engine) = (Ticker::start().unwrap(), Engine::default());
        let clock = ticker.watch(&engine);
        let parked = || ticker.shared.parked.load(Ordering::SeqCst);
        for _ in 0..3 {
            wait_for_state("parked without guests", parked);
            let (first, second) = (clock.enter(), clock.enter());
            wait_for_state("awake with guests", || !parked());
            drop(first);
            assert!(!parked(), "one is left");
            drop(second);
        }
    }

    #[test]
    fn engines_that_are_gone_are_forgotten() {
        let ticker = Ticker::start().unwrap();
        let (gone, stays) = (Engine::default(), Engine::default());
        drop(ticker.watch(&gone));
        let clock = ticker.watch(&stays);
        drop(gone);
        let _guest = clock.enter();
        wait_for_state("one engine left", || {
            ticker.shared.engines.lock().unwrap().len() == 1
        });
    }

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let ticker = Ticker::start().unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        let clock = ticker.watch(&Engine::default());
        drop(ticker);
        assert!(shared.upgrade().is_some());
        drop(clock);
        assert!(shared.upgrade().is_none());
    }
}
