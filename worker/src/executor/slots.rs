//! Admission: how many guests run at once, how many calls wait, and what happens to the next one.
//!
//! Invariant: a call is in the house (`enter`, until `leave` or `start`) or holds a slot (`start`, until `release`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bounds of one executor.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Guests running or suspended at once.
    pub slots: usize,
    /// Calls waiting at once, for a slot or for their module.
    pub waiting: usize,
    /// What waiting calls may hold together, in bytes.
    pub waiting_bytes: usize,
    /// How long the next call may have to wait for others before it; with more it waits in the queue, where it may.
    pub patience: Duration,
}

impl Bounds {
    /// Instances that may be there at once: one more than guests, as another thread that needs memory may be on its way to
    /// give back that of one that waited for its next call. Such threads take turns.
    pub fn instances(&self) -> u32 {
        self.slots as u32 + 1
    }
}

/// One that waits for a slot.
pub trait Waits {
    /// What it holds, in bytes.
    fn size_bytes(&self) -> usize;
    /// When it has waited long enough.
    fn expires(&self) -> Instant;
    /// When it came.
    fn arrived(&self) -> Instant;
    /// Whether it may wait elsewhere instead.
    fn may_leave(&self) -> bool;
}

impl<T: Waits> Waits for Box<T> {
    fn size_bytes(&self) -> usize {
        T::size_bytes(self)
    }

    fn expires(&self) -> Instant {
        T::expires(self)
    }

    fn arrived(&self) -> Instant {
        T::arrived(self)
    }

    fn may_leave(&self) -> bool {
        T::may_leave(self)
    }
}

/// The slots of one executor and the line before them.
#[derive(Debug)]
pub struct Slots<T> {
    bounds: Bounds,
    busy: usize,
    waiting: usize,
    waiting_bytes: usize,
    line: VecDeque<T>,
    /// How many in the line may leave.
    leavers: usize,
}

impl<T: Waits> Slots<T> {
    /// All slots free, nobody waiting.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            busy: 0,
            waiting: 0,
            waiting_bytes: 0,
            line: VecDeque::new(),
            leavers: 0,
        }
    }

    /// Lets a call of so many bytes in, unless the house is full.
    #[must_use]
    pub fn enter(&mut self, bytes: usize) -> bool {
        let fits =
            self.waiting < self.bounds.waiting && self.waiting_bytes + bytes <= self.bounds.waiting_bytes;
        if fits {
            self.waiting += 1;
            self.waiting_bytes += bytes;
        }
        fits
    }

    /// A call that was let in is answered without having run.
    pub fn leave(&mut self, bytes: usize) {
        self.waiting -= 1;
        self.waiting_bytes -= bytes;
    }

    /// A call that was let in has all it needs but a slot.
    pub fn line_up(&mut self, call: T) {
        self.leavers += usize::from(call.may_leave());
        self.line.push_back(call);
    }

    /// Puts one back who stepped out: before all who came later.
    pub fn line_up_again(&mut self, call: T) {
        self.leavers += usize::from(call.may_leave());
        let arrived = call.arrived();
        let at = self.line.partition_point(|other| other.arrived() <= arrived);
        self.line.insert(at, call);
    }

    /// The first in the line who may leave, at most so many. They keep their places in the house.
    pub fn step_out(&mut self, most: usize) -> VecDeque<T> {
        let most = most.min(self.leavers);
        if most == 0 {
            return VecDeque::new();
        }
        let mut left = most;
        let (out, stay): (VecDeque<_>, _) = std::mem::take(&mut self.line).into_iter().partition(|call| {
            let leaves = left > 0 && call.may_leave();
            left -= usize::from(leaves);
            leaves
        });
        self.line = stay;
        self.leavers -= most;
        out
    }

    /// The first in the line, whoever it is. It keeps its place in the house.
    pub fn step_first_out(&mut self) -> Option<T> {
        let call = self.line.pop_front()?;
        self.leavers -= usize::from(call.may_leave());
        Some(call)
    }

    /// The next call, with a slot for it; `None` when there is no call or no slot.
    pub fn start(&mut self) -> Option<T> {
        if self.is_full() {
            return None;
        }
        let call = self.line.pop_front()?;
        self.leavers -= usize::from(call.may_leave());
        self.leave(call.size_bytes());
        self.busy += 1;
        Some(call)
    }

    /// A guest has ended.
    pub fn release(&mut self) {
        self.busy -= 1;
    }

    /// Takes out of the line who has waited long enough. They have left the house.
    pub fn take_expired(&mut self, now: Instant) -> VecDeque<T> {
        self.take_where(|call| call.expires() <= now)
    }

    /// Takes out everybody in the line. They have left the house.
    pub fn take_all(&mut self) -> VecDeque<T> {
        self.take_where(|_| true)
    }

    /// Takes out of the line whoever this is true of. They have left the house.
    pub fn take_where(&mut self, leaves: impl Fn(&T) -> bool) -> VecDeque<T> {
        if !self.line.iter().any(&leaves) {
            return VecDeque::new();
        }
        let (gone, stay): (VecDeque<_>, _) = std::mem::take(&mut self.line).into_iter().partition(leaves);
        self.line = stay;
        for call in &gone {
            self.leavers -= usize::from(call.may_leave());
            self.leave(call.size_bytes());
        }
        gone
    }

    /// Guests running or suspended.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Calls in the house.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nobody is in the house and no slot is held.
    pub fn is_empty(&self) -> bool {
        self.busy == 0 && self.waiting == 0
    }

    /// Whether every slot is held.
    pub fn is_full(&self) -> bool {
        self.busy == self.bounds.slots
    }

    /// Whether anybody waits for a slot who may wait elsewhere.
    pub fn has_leavers(&self) -> bool {
        self.leavers > 0
    }

    /// Whether a call could start now.
    pub fn can_start(&self) -> bool {
        self.busy < self.bounds.slots && !self.line.is_empty()
    }

    /// Whether anybody waits for a slot.
    pub fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many wait for a slot.
    pub fn line(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Clone, Copy)]
    struct Fake(usize, Instant);

    impl Waits for Fake {
        fn size_bytes(&self) -> usize {
            self.0
        }
        fn expires(&self) -> Instant {
            self.1
        }
        fn arrived(&self) -> Instant {
            self.1
        }
        fn may_leave(&self) -> bool {
            self.0.is_multiple_of(2)
        }
    }

    fn slots(slots: usize, waiting: usize, waiting_bytes: usize) -> Slots<Fake> {
        Slots::new(Bounds {
            slots,
            waiting,
            waiting_bytes,
            patience: Duration::ZERO,
        })
    }

    #[test]
    fn the_call_past_the_bound_is_refused_by_count_and_by_bytes() {
        let mut full = slots(1, 2, 100);
        assert!(full.enter(10) && full.enter(10) && !full.enter(10));
        full.leave(10);
        assert!(full.enter(90) && !full.enter(0));
        full.leave(90);
        assert!(!full.enter(91) && full.enter(90));
    }

    #[test]
    fn calls_start_in_order_while_slots_are_free() {
        let later = Instant::now() + Duration::from_secs(1);
        let mut slots = slots(1, 10, 100);
        for size in [1, 2] {
            assert!(slots.enter(size));
            slots.line_up(Fake(size, later));
        }
        assert_eq!(slots.start(), Some(Fake(1, later)));
        assert_eq!((slots.start(), slots.busy(), slots.waiting()), (None, 1, 1));
        slots.release();
        assert_eq!(slots.start(), Some(Fake(2, later)));
        assert_eq!((slots.start(), slots.waiting()), (None, 0));
    }

    #[test]
    fn who_steps_out_keeps_a_place_in_the_house_and_comes_back_before_who_came_later() {
        let now = Instant::now();
        let mut slots = slots(1, 10, 100);
        for (size, after) in [(2, 0), (1, 1), (4, 2), (6, 3)] {
            assert!(slots.enter(size));
            slots.line_up(Fake(size, now + Duration::from_secs(after)));
        }
        let out: Vec<_> = slots.step_out(2).into_iter().collect();
        assert_eq!(out.iter().map(|call| call.0).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((slots.waiting(), slots.has_leavers()), (4, true));
        assert_eq!(
            slots.step_out(9).iter().map(|call| call.0).collect::<Vec<_>>(),
            [6]
        );
        assert!(!slots.has_leavers() && slots.step_out(9).is_empty());
        for call in out.into_iter().rev() {
            slots.line_up_again(call);
        }
        let mut started = Vec::new();
        while let Some(call) = slots.start() {
            started.push(call.0);
            slots.release();
        }
        assert_eq!(
            (started, slots.waiting(), slots.has_leavers()),
            (vec![2, 1, 4], 1, false)
        );
    }

    #[test]
    fn who_has_waited_long_enough_leaves_and_makes_room() {
        let now = Instant::now();
        let mut slots = slots(0, 3, 100);
        for (size, after) in [(1, 0), (2, 5), (3, 0)] {
            assert!(slots.enter(size));
            slots.line_up(Fake(size, now + Duration::from_secs(after)));
        }
        let gone: Vec<usize> = slots.take_expired(now).iter().map(|call| call.0).collect();
        assert_eq!((gone, slots.waiting()), (vec![1, 3], 1));
        assert_eq!(slots.take_all().len(), 1);
        assert_eq!((slots.waiting(), slots.waiting_bytes), (0, 0));
    }
}
