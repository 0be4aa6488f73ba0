//! A guest that computes for as long as a scenario wants, on the machine that it runs on.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use wess_worker::guest::BarePlugin;

use super::bare;

const TEXT: &str = include_str!("burner.wat");
/// Where the text says how many steps it takes.
const STEPS: &str = "(local.set $left (i64.const 1))";
/// Steps that are timed to know how many a burner needs: some milliseconds' worth.
const TRIAL_STEPS: u64 = 4_000_000;
/// How long each measurement takes at least.
const MEASURE: Duration = Duration::from_millis(100);

/// A guest, with what it answers and takes.
pub struct Burner {
    /// Its bytes.
    pub wasm: Bytes,
    /// What it answers to [`INPUT`].
    pub answer: Bytes,
    /// Processor time of one call by Wasmtime alone, in microseconds.
    pub burn_us: f64,
}

/// What every burner is sent: the number to begin with.
pub const INPUT: &[u8] = b"wess-bcd";

impl Burner {
    /// One that burns about so long here.
    pub fn of(duration: Duration) -> anyhow::Result<Self> {
        let trial = Self::with(TRIAL_STEPS)?;
        let steps = TRIAL_STEPS as f64 * duration.as_secs_f64() * 1e6 / trial.burn_us;
        Self::with((steps as u64).max(1))
    }

    fn with(steps: u64) -> anyhow::Result<Self> {
        let wasm = wasm(steps)?;
        let plugin = BarePlugin::new(&wasm)?;
        let answer = plugin.call(INPUT).context("the burner failed")?;
        let burn_us = bare::cpu_us(&plugin, INPUT, &answer, MEASURE)?;
        Ok(Self {
            wasm: wasm.into(),
            answer: answer.into(),
            burn_us,
        })
    }
}

fn wasm(steps: u64) -> anyhow::Result<Vec<u8>> {
    let text = TEXT.replace(STEPS, &format!("(local.set $left (i64.const {steps}))"));
    ensure!(
        text != TEXT || steps == 1,
        "the burner's text has no steps to set"
    );
    Ok(wat::parse_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burner_takes_as_many_steps_as_it_is_told() {
        let step = |number: u64| {
            number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407)
        };
        let first = u64::from_le_bytes(INPUT.try_into().unwrap());
        for (steps, expected) in [(1, step(first)), (3, step(step(step(first))))] {
            let plugin = BarePlugin::new(&wasm(steps).unwrap()).unwrap();
            assert_eq!(plugin.call(INPUT).unwrap(), expected.to_le_bytes());
        }
    }

    #[test]
    fn a_burner_burns_about_as_long_as_it_should() {
        let burner = Burner::of(Duration::from_millis(2)).unwrap();
        assert!((500.0..8000.0).contains(&burner.burn_us), "{}", burner.burn_us);
    }
}
