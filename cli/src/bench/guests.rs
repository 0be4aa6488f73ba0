//! `wess bench --scenario guests`: what kinds of guests and calls cost beside each other, and beside the bare echo.

use async_nats::Client;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use wess_schemas::settings::SettingsChange;
use wess_schemas::subject::Endpoint;

use super::cases::{Sample, letters};
use super::goals::Goal;
use super::load::Expected;
use super::modules::upper;
use super::report::{Table, sample_row};
use super::rig::{ECHO, Rig};
use super::turns::{Contender, at_each, ratio};
use crate::args::BenchArgs;

const BYTES: usize = 64;
const IN_FLIGHT: [usize; 2] = [50, 256];
const SHAPED: &str = include_str!("shaped.wat");
const COMMAND: &str = include_str!("command.wat");
/// Each kind of call. The first two are the measures of the others.
const KINDS: [&str; 5] = [
    "echo",
    "tiny plugin, raw",
    "plugin laid out by rustc, raw",
    "WASI command, raw",
    "tiny plugin, JSON",
];

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct GuestsReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Each kind of call, at each number in flight.
    pub cases: Vec<GuestsCase>,
    /// What this should have come to: of these nothing is wanted yet.
    pub goals: Vec<Goal>,
}

/// One kind of call.
#[derive(Debug, Clone, Serialize)]
pub struct GuestsCase {
    /// Which.
    pub what: &'static str,
    /// Calls at once.
    pub in_flight: usize,
    /// Bytes of its input.
    pub bytes: usize,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a part of the echo's: the median of the rounds' ratios.
    pub of_echo: f64,
    /// The same of the tiny plugin's, called raw.
    pub of_tiny: f64,
}

/// How many measurements there are in a round.
pub const COUNT: u64 = (KINDS.len() * IN_FLIGHT.len()) as u64;

/// Measures every kind in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, done: impl FnMut()) -> anyhow::Result<GuestsReport> {
    let turns = at_each((args, "guests"), &IN_FLIGHT, contenders, done).await?;
    let cases = turns
        .iter()
        .flat_map(|(in_flight, samples)| of(*in_flight, samples));
    let cases: Vec<_> = cases.collect();
    Ok(GuestsReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cases,
        goals: Vec::new(),
    })
}

/// In the order of [`KINDS`].
async fn contenders(rig: &Rig, client: &Client) -> anyhow::Result<Vec<Contender>> {
    let input: Bytes = letters(BYTES).into();
    let upper_case: Bytes = input.to_ascii_uppercase().into();
    let store = |name, wasm: Vec<u8>| rig.store(client, name, wasm.into(), SettingsChange::default());
    let raw = |subject| Contender {
        subject,
        payload: input.clone(),
        expected: Expected::Exactly(upper_case.clone()),
        pid: Some(rig.worker.pid()),
    };
    let echo = Contender {
        expected: Expected::Exactly(input.clone()),
        pid: Some(rig.echo.pid()),
        ..raw(ECHO.into())
    };
    let tiny = raw(store("tiny", upper(0)?).await?);
    let shaped = raw(store("shaped", wat::parse_str(SHAPED)?).await?);
    let command = raw(store("command", wat::parse_str(COMMAND)?).await?);
    let invocation = json!({"module": "tiny", "input": String::from_utf8_lossy(&input)});
    let output = format!("\"output\":\"{}\"", String::from_utf8_lossy(&upper_case));
    let enveloped = Contender {
        payload: invocation.to_string().into(),
        expected: Expected::Holding(output.into()),
        ..raw(rig.subjects().endpoint(&Endpoint::Invoke).into())
    };
    Ok(vec![echo, tiny, shaped, command, enveloped])
}

fn of(in_flight: usize, samples: &[Vec<Sample>]) -> Vec<GuestsCase> {
    let case = |(what, samples_of): (&'static str, &Vec<Sample>)| GuestsCase {
        what,
        in_flight,
        bytes: BYTES,
        sample: Sample::median(samples_of),
        of_echo: ratio(samples_of, &samples[0]),
        of_tiny: ratio(samples_of, &samples[1]),
    };
    KINDS.into_iter().zip(samples).map(case).collect()
}

impl Table<10> for GuestsReport {
    const COLUMNS: [&str; 10] = [
        "what",
        "in flight",
        "calls/s",
        "of echo",
        "of tiny",
        "p50 µs",
        "p99 µs",
        "CPU µs: nats",
        "responder",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 10]> {
        let row = |case: &GuestsCase| {
            let [rate, p50, p99, nats, responder, generator] = sample_row(&case.sample);
            [
                case.what.into(),
                case.in_flight.to_string(),
                rate,
                format!("{:.2}", case.of_echo),
                format!("{:.2}", case.of_tiny),
                p50,
                p99,
                nats,
                responder,
                generator,
            ]
        };
        self.cases.iter().map(row).collect()
    }

    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wess_worker::guest::BarePlugin;

    #[test]
    fn the_plugin_that_rustc_would_lay_out_starts_with_17_pages_and_answers_in_upper_case() {
        assert!(SHAPED.contains("(memory (export \"memory\") 17)"));
        let plugin = BarePlugin::new(&wat::parse_str(SHAPED).unwrap()).unwrap();
        assert_eq!(plugin.call(b"az{9").unwrap(), b"AZ{9");
    }
}
