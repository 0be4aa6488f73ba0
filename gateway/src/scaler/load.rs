//! How much there is to do, and whether anything should run to do it: what the fleet's beats and the queue say together.
//!
//! Refuses to answer from half of what it needs, unless that half says enough.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::backlog::{Backlog, Lag};
use crate::fleet::FleetState;

/// How long after an answered call workers are still wanted: direct calls leave no lag, and short ones no busy slot.
const ACTIVE_SPAN: Duration = Duration::from_secs(60);

/// The numbers at one moment.
#[derive(Debug, Clone, Copy)]
struct Load {
    backlog: Backlog,
    fleet: FleetState,
}

impl Load {
    /// Busy slots and all lags; `None` while one of them is not known.
    fn work(&self) -> Option<u64> {
        let fleet = self.fleet.known.then_some(self.fleet.slots_busy)?;
        let Backlog {
            jobs, calls, bound, ..
        } = self.backlog;
        Some(fleet + jobs?.total() + calls?.total() + bound.known()?.total())
    }

    /// Whether there is work or was a call lately; `None` when neither is seen and not all is known.
    fn is_active(&self, now: Instant) -> Option<bool> {
        let lag = |lag: Option<Lag>| lag.map_or(0, Lag::total);
        let Backlog {
            jobs, calls, bound, ..
        } = self.backlog;
        let seen = self.fleet.slots_busy + lag(jobs) + lag(calls) + bound.seen.total();
        if seen > 0 || self.fleet.answered_within(ACTIVE_SPAN, now) {
            return Some(true);
        }
        self.work().map(|work| work > 0)
    }

    /// When the last answered call is too long ago.
    fn changes_at(&self, now: Instant) -> Option<Instant> {
        let at = self.fleet.answered_at? + ACTIVE_SPAN;
        (now < at).then_some(at)
    }
}

/// Follows both. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LoadWatch {
    backlog: watch::Receiver<Backlog>,
    fleet: watch::Receiver<FleetState>,
}

impl LoadWatch {
    /// Follows what is heard there.
    pub fn new(backlog: watch::Receiver<Backlog>, fleet: watch::Receiver<FleetState>) -> Self {
        Self { backlog, fleet }
    }

    /// Busy slots and all lags; `None` while one of them is not known.
    pub fn work(&self) -> Option<u64> {
        self.load().work()
    }

    /// Whether anything should run; `None` when that is not known.
    pub fn is_active(&self) -> Option<bool> {
        self.load().is_active(Instant::now())
    }

    /// Waits until it is known whether anything should run, and is another answer than `told`; `None` once nobody
    /// listens to beats or reads the queue any more.
    pub async fn activity(&mut self, told: Option<bool>) -> Option<bool> {
        loop {
            let now = Instant::now();
            let load = Load {
                backlog: *self.backlog.borrow_and_update(),
                fleet: *self.fleet.borrow_and_update(),
            };
            match load.is_active(now) {
                Some(active) if Some(active) != told => return Some(active),
                _ => (),
            }
            let alarm = load.changes_at(now);
            tokio::select! {
                changed = self.backlog.changed() => changed.ok()?,
                changed = self.fleet.changed() => changed.ok()?,
                () = sleep_until(alarm.unwrap_or(now)), if alarm.is_some() => (),
            }
        }
    }

    fn load(&self) -> Load {
        Load {
            backlog: *self.backlog.borrow(),
            fleet: *self.fleet.borrow(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::Bound;

    fn lag(pending: u64, ack_pending: u64) -> Option<Lag> {
        Some(Lag { pending, ack_pending })
    }

    fn bound(pending: u64, ack_pending: u64) -> Bound {
        Bound {
            seen: Lag { pending, ack_pending },
            whole: true,
        }
    }

    fn idle() -> Load {
        Load {
            backlog: Backlog {
                jobs: lag(0, 0),
                calls: lag(0, 0),
                bound: bound(0, 0),
                dead_letters: Some(9),
            },
            fleet: FleetState {
                known: true,
                taking: 1,
                slots_total: 128,
                ..FleetState::default()
            },
        }
    }

    #[test]
    fn work_is_busy_slots_and_all_lags() {
        let mut load = idle();
        assert_eq!(load.work(), Some(0));
        load.fleet.slots_busy = 5;
        load.backlog.jobs = lag(100, 20);
        load.backlog.calls = lag(3, 4);
        load.backlog.bound = bound(1000, 8000);
        assert_eq!(load.work(), Some(9132));
    }

    #[test]
    fn each_kind_of_work_alone_is_reason_enough() {
        let now = Instant::now();
        let kinds: [fn(&mut Load); 7] = [
            |load| load.fleet.slots_busy = 1,
            |load| load.backlog.jobs = lag(1, 0),
            |load| load.backlog.jobs = lag(0, 1),
            |load| load.backlog.calls = lag(1, 0),
            |load| load.backlog.calls = lag(0, 1),
            |load| load.backlog.bound = bound(1, 0),
            |load| load.backlog.bound = bound(0, 1),
        ];
        assert_eq!(idle().is_active(now), Some(false));
        for kind in kinds {
            let mut load = idle();
            kind(&mut load);
            assert_eq!(
                (load.is_active(now), load.work()),
                (Some(true), Some(1)),
                "{load:?}"
            );
        }
    }

    #[test]
    fn a_fleet_that_answers_calls_is_kept_for_a_minute() {
        let (mut load, now) = (idle(), Instant::now());
        load.fleet.answered_at = Some(now);
        let end = now + Duration::from_secs(60);
        assert_eq!(load.changes_at(now), Some(end));
        assert_eq!(load.is_active(end - Duration::from_millis(1)), Some(true));
        assert_eq!((load.is_active(end), load.changes_at(end)), (Some(false), None));
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_nothing() {
        let now = Instant::now();
        let lacks: [fn(&mut Load); 4] = [
            |load| load.fleet.known = false,
            |load| load.backlog.jobs = None,
            |load| load.backlog.calls = None,
            |load| load.backlog.bound.whole = false,
        ];
        for lack in lacks {
            let mut load = idle();
            lack(&mut load);
            assert_eq!((load.is_active(now), load.work()), (None, None), "{load:?}");
            load.fleet.slots_busy = 1;
            assert_eq!((load.is_active(now), load.work()), (Some(true), None), "{load:?}");
        }
    }

    #[test]
    fn what_waits_in_one_bound_stream_is_reason_enough_where_another_is_not_known() {
        let mut load = idle();
        load.backlog.bound = bound(1, 0);
        load.backlog.bound.whole = false;
        assert_eq!((load.is_active(Instant::now()), load.work()), (Some(true), None));
    }

    #[tokio::test]
    async fn a_change_is_told_when_it_comes_and_when_the_minute_is_over() {
        let load = idle();
        let (backlog, fleet) = (
            watch::Sender::new(Backlog::default()),
            watch::Sender::new(load.fleet),
        );
        let mut watch = LoadWatch::new(backlog.subscribe(), fleet.subscribe());
        let first = async { backlog.send_replace(load.backlog) };
        let (told, _) = tokio::join!(watch.activity(None), first);
        assert_eq!(told, Some(false));
        let end = Instant::now() + Duration::from_millis(100);
        fleet.send_modify(|fleet| fleet.answered_at = Some(end - ACTIVE_SPAN));
        assert_eq!(watch.activity(told).await, Some(true));
        assert_eq!(watch.activity(Some(true)).await, Some(false));
        assert!(Instant::now() >= end);
        drop(backlog);
        assert_eq!(watch.activity(Some(false)).await, None);
    }
}
