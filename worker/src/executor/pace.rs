//! How fast the line before the slots moves, as the last turns have shown, and so how long one more call would wait.
//!
//! Goes by turns that left calls in the line alone: in any other the executor waited for calls, not they for it.

use std::time::{Duration, Instant};

/// How much a turn counts against those before it: an eighth, so that one odd guest neither opens nor shuts the door.
const TURNS: u32 = 8;

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
        let Some((begun, started)) = self.last.take() else {
            return;
        };
        let Some(took) = now.duration_since(begun).checked_div(started) else {
            return;
        };
        self.per_call = Some(match self.per_call {
            None => took,
            Some(before) => (before * (TURNS - 1) + took) / TURNS,
        });
    }

    /// The turn that began then has started so many guests; `left_some` says whether more could have started.
    pub fn end(&mut self, begun: Instant, started: u32, left_some: bool) {
        self.last = left_some.then_some((begun, started));
    }

    /// How long a call would wait behind so many; nothing while no turn has shown it.
    pub fn wait_behind(&self, line: usize) -> Duration {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.per_call.unwrap_or_default().saturating_mul(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_more_waits_as_long_as_those_before_it_took_each() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        pace.begin(begun);
        assert_eq!(pace.wait_behind(1000), Duration::ZERO);
        pace.end(begun, 4, true);
        pace.begin(begun + 2 * MS);
        assert_eq!((pace.wait_behind(100), pace.wait_behind(0)), (50 * MS, Duration::ZERO));
    }

    #[test]
    fn one_turn_counts_for_an_eighth() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        for (turn, took) in [(0, 8), (8, 16)] {
            pace.end(begun + turn * MS, 1, true);
            pace.begin(begun + (turn + took) * MS);
        }
        assert_eq!(pace.wait_behind(1), 9 * MS);
    }

    #[test]
    fn a_turn_that_emptied_the_line_or_started_nobody_shows_nothing() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        for (turn, started, left_some) in [(0, 0, true), (1, 1, false)] {
            pace.end(begun + turn * MS, started, left_some);
            pace.begin(begun + (turn + 1) * MS);
        }
        assert_eq!(pace.wait_behind(usize::MAX), Duration::ZERO);
    }
}
