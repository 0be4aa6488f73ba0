//! What a guest may hold: memory and table bounds of one run, and the memory budget of the whole process.
//!
//! Invariant: every byte charged to the budget is given back when its guest goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::engine::MAX_MEMORY_BYTES;

/// Most elements one table may hold.
pub(super) const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Guest memory of a whole process. Many guests at their limits are refused growth before the kernel kills the worker.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
        })
    }

    /// What guests hold now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// What guests may hold together, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn charge(&self, bytes: u64) -> bool {
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit_bytes;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
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

/// One run's account.
pub(super) struct GuestLimiter {
    limit_bytes: u64,
    held_bytes: u64,
    peak_bytes: u64,
    refused: Option<Refused>,
    hides_nothing: bool,
    budget: Arc<MemoryBudget>,
}

impl GuestLimiter {
    pub fn new(limit_bytes: u64, budget: Arc<MemoryBudget>) -> Self {
        Self {
            limit_bytes: limit_bytes.min(MAX_MEMORY_BYTES as u64),
            held_bytes: 0,
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

    /// Most linear memory held at once, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// The last refusal, if there was any.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    fn grow_by(&mut self, bytes: u64) -> bool {
        let refused = if self.held_bytes.saturating_add(bytes) > self.limit_bytes {
            Some(Refused::Limit)
        } else if !self.budget.charge(bytes) {
            Some(Refused::Budget)
        } else {
            self.held_bytes += bytes;
            self.peak_bytes = self.peak_bytes.max(self.held_bytes);
            None
        };
        self.refused = refused.or(self.refused);
        refused.is_none()
    }
}

impl Drop for GuestLimiter {
    fn drop(&mut self) {
        self.budget.release(self.held_bytes);
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
        let within_limit = self.held_bytes.saturating_add(more_bytes) <= self.limit_bytes;
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
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(usize::MAX).min(MAX_TABLE_ELEMENTS))
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

    #[test]
    fn tables_stop_at_their_bound() {
        let mut limiter = GuestLimiter::new(0, MemoryBudget::new(0));
        assert!(limiter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).unwrap());
        assert!(!limiter.table_growing(0, 11, Some(10)).unwrap());
    }
}
