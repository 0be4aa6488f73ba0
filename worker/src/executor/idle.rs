//! Instances that wait for their next call, of modules whose owners let one serve several.
//!
//! Invariant: with the guests that run they are never more than the slots, so that the pool has an instance for every slot;
//! and whoever needs their memory gets it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wess_schemas::ModuleId;

use super::steps::Ticket;
use super::tally::Tally;
use super::turns::Executor;
use crate::guest::{Kept, MemoryBudget, Prepared, Reuse, Spares};
use crate::registry::Resolved;

/// Most of one module: short calls run one after the other, so that only those that wait or compute for long need more.
const MAX_OF_A_MODULE: usize = 8;
/// Most of all modules; each may hold as much memory as its limit allows.
const MAX_IDLE: usize = 64;

/// Who an instance belongs to: a version, and so its bytes and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    module: ModuleId,
    number: u32,
}

impl Version {
    /// A module that is called by its digest is none, and has no settings either.
    fn of(module: &Resolved) -> Option<Self> {
        let (module, number) = module.id.zip(module.version)?;
        Some(Self { module, number })
    }
}

/// Instances of type `T`, who waits longest first.
pub struct Idle<T> {
    waiting: Mutex<VecDeque<(Version, T)>>,
    tally: Arc<Tally>,
}

impl<T: Send + 'static> Idle<T> {
    /// Nobody waits. Whoever does, gives up its memory before others are refused theirs.
    pub fn new(tally: Arc<Tally>, budget: &MemoryBudget) -> Arc<Self> {
        let idle = Arc::new(Self {
            waiting: Mutex::default(),
            tally,
        });
        let spares: Weak<Self> = Arc::downgrade(&idle);
        budget.draw_on(spares);
        idle
    }
}

impl<T> Idle<T> {
    /// The one of a version that came last, of those that serve.
    fn take(&self, version: Version, serves: impl Fn(&T) -> bool) -> Option<T> {
        let mut waiting = self.lock();
        let found = waiting
            .iter()
            .rposition(|(owner, kept)| *owner == version && serves(kept))?;
        let (_, kept) = waiting.remove(found)?;
        self.tally.idle.set(waiting.len() as u64);
        Some(kept)
    }

    /// Keeps one. Where there are too many of its module, or at all, who waited longest goes; a version's first one takes
    /// the place of those of versions before it.
    fn keep(&self, version: Version, kept: T, is_new: bool) {
        let is_of = |owner: &Version| owner.module == version.module;
        let mut dropped = Vec::new();
        let mut waiting = self.lock();
        if is_new {
            let older = |owner: &Version| is_of(owner) && owner.number < version.number;
            dropped.extend(remove_where(&mut waiting, |(owner, _)| older(owner)));
        }
        if waiting.iter().filter(|(owner, _)| is_of(owner)).count() >= MAX_OF_A_MODULE {
            let oldest = waiting.iter().position(|(owner, _)| is_of(owner));
            dropped.extend(oldest.and_then(|oldest| waiting.remove(oldest)));
        } else if waiting.len() >= MAX_IDLE {
            dropped.extend(waiting.pop_front());
        }
        waiting.push_back((version, kept));
        self.tally.idle.set(waiting.len() as u64);
        drop(waiting);
    }

    /// Lets go until at most so many wait. Only the executor's own thread adds any.
    fn shrink_to(&self, most: usize) {
        while self.tally.idle.get() > most as u64 && self.pop().is_some() {}
    }

    /// Lets go of some.
    fn drop_where(&self, goes: impl Fn(&T) -> bool) {
        if self.tally.idle.get() == 0 {
            return;
        }
        let mut waiting = self.lock();
        let dropped = remove_where(&mut waiting, |(_, kept)| goes(kept));
        self.tally.idle.set(waiting.len() as u64);
        drop(waiting);
        drop(dropped);
    }

    /// Whoever takes one drops it after the lock is free: giving back its memory takes a while.
    fn pop(&self) -> Option<(Version, T)> {
        let mut waiting = self.lock();
        let oldest = waiting.pop_front();
        self.tally.idle.set(waiting.len() as u64);
        oldest
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Version, T)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Spares for Idle<T> {
    fn drop_oldest(&self) -> bool {
        self.pop().is_some()
    }
}

fn remove_where<T>(waiting: &mut VecDeque<T>, goes: impl Fn(&T) -> bool) -> VecDeque<T> {
    if !waiting.iter().any(&goes) {
        return VecDeque::new();
    }
    let (gone, stay) = std::mem::take(waiting).into_iter().partition(goes);
    *waiting = stay;
    gone
}

impl Executor {
    /// How a call's guest may share its instance: not at all, or with so many calls, and with which that were before.
    pub(super) fn reuse(&self, ticket: &Ticket, prepared: &Arc<Prepared>) -> Option<Reuse> {
        let reuse = ticket.reuse.map(|most| {
            let version = Version::of(&ticket.module);
            let kept = version.and_then(|version| {
                self.idle
                    .take(version, |kept| kept.serves(prepared, &ticket.limits))
            });
            Reuse { most, kept }
        });
        match reuse.as_ref().is_some_and(|reuse| reuse.kept.is_some()) {
            true => self.tally.reused.add(1),
            // One more instance will be there than before.
            false => self.idle.shrink_to(self.common.bounds.slots - self.slots.busy()),
        }
        reuse
    }

    /// Keeps the instance of a guest that answered for its module's next call.
    pub(super) fn keep(&self, module: &Resolved, kept: Option<Box<Kept>>) {
        let Some(kept) = kept else { return };
        let Some(version) = Version::of(module) else {
            return;
        };
        let is_ready = |prepared: &Arc<Prepared>| kept.is_of(prepared);
        if !self.draining && self.shelf.has((module.digest, kept.metering()), is_ready) {
            let is_new = kept.is_new();
            self.idle.keep(version, kept, is_new);
        }
    }

    /// Lets go of the instances of a module that is not ready any more.
    pub(super) fn forget_instances(&self, prepared: &Arc<Prepared>) {
        self.idle.drop_where(|kept| kept.is_of(prepared));
    }

    /// Lets go of all instances: no call comes that could have one.
    pub(super) fn forget_all_instances(&self) {
        self.idle.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(module: ModuleId, number: u32) -> Version {
        Version { module, number }
    }

    fn waiting(idle: &Idle<usize>) -> Vec<usize> {
        let waiting: Vec<usize> = idle.lock().iter().map(|(_, kept)| *kept).collect();
        assert_eq!(
            idle.tally.idle.get(),
            waiting.len() as u64,
            "the gauge says so too"
        );
        waiting
    }

    #[test]
    fn a_call_gets_the_last_one_of_its_own_version_that_serves_it() {
        let idle = Idle::new(Arc::default(), &MemoryBudget::new(0));
        let (one, other) = (ModuleId::generate(), ModuleId::generate());
        for (kept, owner) in [version(one, 1), version(one, 1), version(other, 1)]
            .into_iter()
            .enumerate()
        {
            idle.keep(owner, kept, true);
        }
        assert_eq!(idle.take(version(one, 2), |_| true), None);
        assert_eq!(idle.take(version(one, 1), |kept| *kept != 1), Some(0));
        assert_eq!(idle.take(version(one, 1), |_| true), Some(1));
        assert_eq!(idle.take(version(one, 1), |_| true), None);
        assert_eq!(waiting(&idle), [2]);
    }

    #[test]
    fn idle_instances_are_bounded_for_a_module_and_for_all() {
        let idle = Idle::new(Arc::default(), &MemoryBudget::new(0));
        let module = ModuleId::generate();
        for kept in 0..=MAX_OF_A_MODULE {
            idle.keep(version(module, 1), kept, false);
        }
        assert_eq!(waiting(&idle), (1..=MAX_OF_A_MODULE).collect::<Vec<_>>());
        for kept in 100..100 + MAX_IDLE {
            idle.keep(version(ModuleId::generate(), 1), kept, false);
        }
        assert_eq!(waiting(&idle), (100..100 + MAX_IDLE).collect::<Vec<_>>());
    }

    #[test]
    fn a_versions_first_instance_takes_the_place_of_older_versions_ones() {
        let idle = Idle::new(Arc::default(), &MemoryBudget::new(0));
        let (module, other) = (ModuleId::generate(), ModuleId::generate());
        for (kept, owner) in [version(module, 1), version(other, 1), version(module, 3)]
            .into_iter()
            .enumerate()
        {
            idle.keep(owner, kept, true);
        }
        idle.keep(version(module, 1), 3, true);
        assert_eq!(waiting(&idle), [1, 2, 3], "a newer one stays");
        idle.keep(version(module, 3), 4, false);
        assert_eq!(
            waiting(&idle),
            [1, 2, 3, 4],
            "who served before was there already"
        );
    }

    #[test]
    fn who_waits_longest_goes_first_for_a_slot_and_for_memory() {
        let idle = Idle::new(Arc::default(), &MemoryBudget::new(0));
        for kept in 0..4 {
            idle.keep(version(ModuleId::generate(), 1), kept, true);
        }
        idle.shrink_to(3);
        assert_eq!(waiting(&idle), [1, 2, 3]);
        assert!(idle.drop_oldest());
        assert_eq!(waiting(&idle), [2, 3]);
        idle.drop_where(|kept| *kept == 2);
        assert_eq!(waiting(&idle), [3]);
        idle.shrink_to(0);
        assert!(!idle.drop_oldest() && waiting(&idle).is_empty());
    }
}
