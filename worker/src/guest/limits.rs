//! What a guest may hold: memory and table bounds of one run, and the memory budget of the whole process.
//!
//! Invariant: every byte charged to the budget is given back when its guest goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::ResourceLimiter;

use super::engine::MAX_MEMORY_BYTES;

/// Most elements one table may hold.
pub(super) const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Guest memory of a whole process. Many guests at their limits are refused growth before the kernel kills the worker.
#[derive(Debug)]
pub struct MemoryBudget(Arc<Ledger>);

#[derive(Debug)]
struct Ledger {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    spares: Mutex<Vec<Weak<dyn Spares>>>,
}

/// Guests that hold memory and are not needed now.
pub trait Spares: Send + Sync {
    /// Gives up the one that was not needed for longest; whether there was one.
    fn drop_oldest(&self) -> bool;
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self(Arc::new(Ledger {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            spares: Mutex::default(),
        })))
    }

    /// The same budget, for one thread's guests: they count who holds it apart from other threads', whom they would hinder.
    pub fn handle(&self) -> Arc<Self> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    /// Takes from these what others need, before those are refused it.
    pub fn draw_on(&self, spares: Weak<dyn Spares>) {
        self.spares().push(spares);
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Spares>>> {
        self.0.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What guests hold now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.0.used_bytes.load(Ordering::Relaxed)
    }

    /// What guests may hold together, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.0.limit_bytes
    }

    fn charge(&self, bytes: u64) -> bool {
        self.fits(bytes) || self.fits_without_spares(bytes)
    }

    fn fits_without_spares(&self, bytes: u64) -> bool {
        if bytes > self.0.limit_bytes {
            return false;
        }
        let spares = self.spares();
        let mut spares = spares.iter().filter_map(Weak::upgrade);
        spares.any(|spares| {
            std::iter::repeat_with(|| spares.drop_oldest())
                .take_while(|dropped| *dropped)
                .any(|_| self.fits(bytes))
        })
    }

    fn fits(&self, bytes: u64) -> bool {
        let before = self.0.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.0.limit_bytes;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: u64) {
        self.0.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a guest did not get the memory it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its own limit.
    Limit,
    /// The process had none left.
    Budget,
}

/// What a guest holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Linear memory, in bytes.
    pub memory_bytes: u64,
    /// Elements of tables.
    pub table_elements: usize,
}

/// One run's account.
pub(super) struct GuestLimiter {
    limit_bytes: u64,
    held: Held,
    peak_bytes: u64,
    refused: Option<Refused>,
    hides_nothing: bool,
    budget: Arc<MemoryBudget>,
}

impl GuestLimiter {
    pub fn new(limit_bytes: u64, budget: Arc<MemoryBudget>) -> Self {
        Self {
            limit_bytes: limit_bytes.min(MAX_MEMORY_BYTES as u64),
            held: Held::default(),
            peak_bytes: 0,
            refused: None,
            hides_nothing: false,
            budget,
        }
    }

    /// A guest that gets no memory because the process has none traps, as it could go on otherwise than elsewhere.
    pub fn hide_nothing(&mut self) {
        self.hides_nothing = true;
    }

    /// The account of another run in the same instance: what that holds stays charged.
    pub fn hand_over(&mut self, limit_bytes: u64) -> Self {
        let mut next = Self::new(limit_bytes, Arc::clone(&self.budget));
        next.held = std::mem::take(&mut self.held);
        next.peak_bytes = next.held.memory_bytes;
        next
    }

    /// What the guest holds now.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Most linear memory held at once, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// The last refusal, if there was any.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    fn grow_by(&mut self, bytes: u64) -> bool {
        let held_bytes = self.held.memory_bytes.saturating_add(bytes);
        let refused = if held_bytes > self.limit_bytes {
            Some(Refused::Limit)
        } else if !self.budget.charge(bytes) {
            Some(Refused::Budget)
        } else {
            self.held.memory_bytes = held_bytes;
            self.peak_bytes = self.peak_bytes.max(held_bytes);
            None
        };
        self.refused = refused.or(self.refused);
        refused.is_none()
    }
}

impl Drop for GuestLimiter {
    fn drop(&mut self) {
        self.budget.release(self.held.memory_bytes);
    }
}

impl ResourceLimiter for GuestLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more_bytes = desired.saturating_sub(current) as u64;
        let within_limit = self.held.memory_bytes.saturating_add(more_bytes) <= self.limit_bytes;
        if within_limit && maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own maximum says no: that is between the guest and its author.
            return Ok(false);
        }
        match self.grow_by(more_bytes) {
            false if self.hides_nothing && self.refused == Some(Refused::Budget) => Err(
                wasmtime::Error::msg("this worker has no memory for the guest now"),
            ),
            grown => Ok(grown),
        }
    }

    /// Growth past 4 GiB fails without being asked for first.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = self.refused.or(Some(Refused::Limit));
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= maximum.unwrap_or(usize::MAX).min(MAX_TABLE_ELEMENTS);
        if fits {
            self.held.table_elements += desired.saturating_sub(current);
        }
        Ok(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_refused_at_the_limit_then_at_the_budget_and_all_is_given_back() {
        let budget = MemoryBudget::new(100);
        let mut first = GuestLimiter::new(80, Arc::clone(&budget));
        assert!(first.memory_growing(0, 80, None).unwrap());
        assert!(!first.memory_growing(80, 81, None).unwrap());
        assert_eq!(first.refused(), Some(Refused::Limit));
        let mut second = GuestLimiter::new(80, Arc::clone(&budget));
        assert!(second.memory_growing(0, 20, None).unwrap());
        assert!(!second.memory_growing(20, 21, None).unwrap());
        assert_eq!(
            (second.refused(), second.peak_bytes()),
            (Some(Refused::Budget), 20)
        );
        drop(first);
        assert!(second.memory_growing(20, 21, None).unwrap());
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    /// Guests that hold so many bytes each.
    struct Idle(Mutex<Vec<GuestLimiter>>);

    impl Idle {
        fn new(budget: &Arc<MemoryBudget>, bytes: &[usize]) -> Arc<Self> {
            let guests = bytes.iter().map(|bytes| {
                let mut guest = GuestLimiter::new(100, Arc::clone(budget));
                assert!(guest.memory_growing(0, *bytes, None).unwrap());
                guest
            });
            let idle = Arc::new(Self(Mutex::new(guests.collect())));
            budget.draw_on(Arc::downgrade(&idle) as Weak<dyn Spares>);
            idle
        }

        fn left(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Spares for Idle {
        fn drop_oldest(&self) -> bool {
            let mut guests = self.0.lock().unwrap();
            let oldest = (!guests.is_empty()).then(|| guests.remove(0));
            oldest.is_some()
        }
    }

    #[test]
    fn who_needs_memory_gets_that_of_spares_as_far_as_it_is_needed() {
        let budget = MemoryBudget::new(100);
        let first = Idle::new(&budget, &[10, 20]);
        let second = Idle::new(&budget, &[30, 10]);
        let mut guest = GuestLimiter::new(1000, Arc::clone(&budget));
        assert!(guest.memory_growing(0, 30, None).unwrap());
        assert_eq!((first.left(), second.left()), (2, 2), "it was free");
        assert!(!guest.memory_growing(30, 131, None).unwrap());
        assert_eq!((first.left(), second.left()), (2, 2), "never could fit");
        assert!(guest.memory_growing(30, 60, None).unwrap());
        assert_eq!((first.left(), second.left(), budget.used_bytes()), (0, 2, 100));
        drop(first);
        assert!(guest.memory_growing(60, 100, None).unwrap());
        assert_eq!((second.left(), guest.refused()), (0, Some(Refused::Budget)));
        assert!(!guest.memory_growing(100, 101, None).unwrap());
        drop(guest);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn an_account_that_is_handed_over_keeps_what_is_held_and_has_the_next_runs_limit() {
        let budget = MemoryBudget::new(100);
        let mut account = GuestLimiter::new(50, Arc::clone(&budget));
        assert!(account.memory_growing(0, 50, None).unwrap() && account.table_growing(2, 5, None).unwrap());
        assert!(!account.memory_growing(50, 60, None).unwrap());
        let mut account = account.hand_over(60);
        assert_eq!((account.refused(), account.peak_bytes()), (None, 50));
        assert!(account.memory_growing(50, 60, None).unwrap());
        let held = Held {
            memory_bytes: 60,
            table_elements: 3,
        };
        assert_eq!((account.held(), budget.used_bytes()), (held, 60));
    }

    #[test]
    fn tables_stop_at_their_bound() {
        let mut limiter = GuestLimiter::new(0, MemoryBudget::new(0));
        assert!(limiter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).unwrap());
        assert!(!limiter.table_growing(0, 11, Some(10)).unwrap());
    }
}
