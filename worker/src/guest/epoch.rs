//! The clock that interrupts guests: one thread advances the epoch of every engine that has guests.
//!
//! Invariant: while a [`Running`] lives, its engine's epoch advances every [`TICK`], wherever its future is polled.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How often the epoch advances.
pub const TICK: Duration = Duration::from_millis(1);
/// Ticks without any guest after which the thread sleeps until one starts.
const IDLE_TICKS: u32 = 50;

/// The ticking thread; it stops when the last handle goes.
#[derive(Clone)]
pub struct Ticker {
    shared: Arc<Shared>,
    _thread: Arc<StopOnDrop>,
}

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
        let shared = Arc::new(Shared {
            engines: Mutex::new(Vec::new()),
            parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
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
