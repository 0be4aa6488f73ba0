//! How fast the line before the slots moves, as the last turns have shown, and so how long one more call would wait.
//!
//! Goes by turns that left calls in the line: in others the executor waited for calls, not they for it. Those can only
//! show that it is faster than was thought.

use std::time::{Duration, Instant};

/// How much a turn counts against those before it: an eighth, so that one odd guest neither opens nor shuts the door.
const TURNS: u32 = 8;
/// How much slower than those before it a turn can be for all that it counts: a process that was stopped is not slow.
const SLOWER: u32 = 8;

/// The pace of one executor's line.
#[derive(Debug, Default)]
pub struct Pace {
    per_call: Option<Duration>,
    /// When the last turn began, and how many guests it started, if it left calls in the line.
    last: Option<(Instant, u32)>,
}

impl Pace {
    /// A turn begins.
    pub fn begin(&mut self, now: Instant) {
        if let Some((begun, started)) = self.last.take()
            && let Some(took) = now.duration_since(begun).checked_div(started)
        {
            self.per_call = Some(self.with(took));
        }
    }

    /// The turn that began then has started so many guests in this time; `left_some` says whether more could have started.
    pub fn end(&mut self, begun: Instant, took: Duration, started: u32, left_some: bool) {
        if left_some {
            self.last = Some((begun, started));
        } else if let (Some(before), Some(took)) = (self.per_call, took.checked_div(started)) {
            self.per_call = Some(before.min(self.with(took)));
        }
    }

    /// How long a call would wait behind so many; nothing while no turn has shown it.
    pub fn wait_behind(&self, line: usize) -> Duration {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.per_call.unwrap_or_default().saturating_mul(line)
    }

    fn with(&self, took: Duration) -> Duration {
        let Some(before) = self.per_call else { return took };
        (before * (TURNS - 1) + took.min(before * SLOWER)) / TURNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A pace that turns have shown which left calls in the line; each started one guest and took so long.
    fn after(turns: &[u32]) -> Pace {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for ms in turns {
            pace.begin(now);
            pace.end(now, MS, 1, true);
            now += *ms * MS;
        }
        pace.begin(now);
        pace
    }

    #[test]
    fn one_more_waits_as_long_as_those_before_it_took_each() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        pace.begin(begun);
        assert_eq!(pace.wait_behind(1000), Duration::ZERO);
        pace.end(begun, MS, 4, true);
        pace.begin(begun + 2 * MS);
        assert_eq!(
            (pace.wait_behind(100), pace.wait_behind(0)),
            (50 * MS, Duration::ZERO)
        );
    }

    #[test]
    fn one_turn_counts_for_an_eighth_however_long_it_was() {
        assert_eq!(after(&[8]).wait_behind(1), 8 * MS);
        assert_eq!(after(&[8, 16]).wait_behind(1), 9 * MS);
        assert_eq!(after(&[8, 64]).wait_behind(1), 15 * MS);
        assert_eq!(after(&[8, 60_000]).wait_behind(1), 15 * MS);
    }

    #[test]
    fn a_turn_that_emptied_the_line_can_only_show_that_it_is_faster() {
        let (mut pace, now) = (after(&[8]), Instant::now());
        pace.end(now, 80 * MS, 1, false);
        assert_eq!(pace.wait_behind(1), 8 * MS);
        for _ in 0..64 {
            pace.end(now, MS, 1, false);
        }
        assert!(pace.wait_behind(1) < 2 * MS);
        let mut nothing_known = Pace::default();
        nothing_known.end(now, MS, 1, false);
        assert_eq!(nothing_known.wait_behind(1), Duration::ZERO);
    }

    #[test]
    fn a_turn_that_started_nobody_shows_nothing() {
        let (mut pace, now) = (after(&[8]), Instant::now());
        pace.end(now, MS, 0, true);
        pace.begin(now + 1000 * MS);
        pace.end(now, MS, 0, false);
        assert_eq!(pace.wait_behind(1), 8 * MS);
    }
}
