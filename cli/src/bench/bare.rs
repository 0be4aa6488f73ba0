//! The floor: a guest called by Wasmtime in this very process, with no message, no limit and no worker around it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};
use wess_worker::guest::BarePlugin;

use super::cases::WARM_UP;

/// Calls between two looks at the clock.
const BATCH: u64 = 16;

/// Processor time of one call in microseconds, on this thread, of as many as there is time for. Every answer is checked.
pub fn cpu_us(plugin: &BarePlugin, input: &[u8], expected: &[u8], duration: Duration) -> anyhow::Result<f64> {
    let warm_up = duration.mul_f64(WARM_UP);
    run(plugin, (input, expected), warm_up)?;
    let before = thread_us();
    let calls = run(plugin, (input, expected), duration - warm_up)?;
    Ok((thread_us() - before) / calls as f64)
}

/// At least one batch of calls, and as many as there is time for; how many that were.
fn run(plugin: &BarePlugin, (input, expected): (&[u8], &[u8]), duration: Duration) -> anyhow::Result<u64> {
    let started = Instant::now();
    let mut calls = 0;
    while calls == 0 || started.elapsed() < duration {
        for _ in 0..BATCH {
            let answer = plugin.call(input)?;
            ensure!(answer == expected, "the bare call answered {answer:?}");
        }
        calls += BATCH;
    }
    Ok(calls)
}

/// What this thread has had of a processor so far.
fn thread_us() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::modules::upper;

    #[test]
    fn a_bare_call_answers_and_costs_something_and_a_wrong_answer_is_told() {
        let plugin = BarePlugin::new(&upper(0).unwrap()).unwrap();
        let cost = cpu_us(&plugin, b"hello", b"HELLO", Duration::from_millis(5)).unwrap();
        assert!((0.01..1e6).contains(&cost), "{cost}");
        assert!(cpu_us(&plugin, b"hello", b"hello", Duration::ZERO).is_err());
    }
}
