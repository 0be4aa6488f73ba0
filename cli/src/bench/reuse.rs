//! `wess bench --scenario reuse`: what an instance that serves several calls saves, beside the bare echo.
//!
//! Two modules of the same bytes on one worker: one has a fresh instance for each call, the other does not.

use async_nats::{Client, Subject};
use bytes::Bytes;
use serde::Serialize;
use wess_schemas::settings::{Isolation, Settings, SettingsChange};

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
/// Calls of one instance.
const REUSE: u32 = 1000;
/// What a tiny guest that is reused should reach of the echo.
const GOAL: f64 = 0.95;
/// A component that imports nothing.
const GREETER: &str = include_str!("../../../guests/component/greeter.wat");

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct ReuseReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Calls that one instance serves.
    pub reuse: u32,
    /// Each guest, at each number in flight.
    pub cases: Vec<ReuseCase>,
    /// What this should have come to.
    pub goals: Vec<Goal>,
}

/// One guest.
#[derive(Debug, Clone, Serialize)]
pub struct ReuseCase {
    /// Which.
    pub guest: &'static str,
    /// Calls at once.
    pub in_flight: usize,
    /// The bare one, in the same rounds.
    pub echo: Sample,
    /// An instance for each call.
    pub fresh: Sample,
    /// Instances that serve several.
    pub reused: Sample,
    /// The rate of fresh instances as a part of the echo's: the median of the rounds' ratios.
    pub fresh_of_echo: f64,
    /// The same of reused ones.
    pub reused_of_echo: f64,
    /// The same of reused ones by fresh ones.
    pub reused_of_fresh: f64,
}

/// What is called.
#[derive(Clone, Copy)]
enum Guest {
    Upper,
    Greeter,
}

const GUESTS: [Guest; 2] = [Guest::Upper, Guest::Greeter];
/// The echo, and each guest twice.
const CONTENDERS: usize = 1 + 2 * GUESTS.len();
/// How many measurements there are in a round.
pub const COUNT: u64 = (CONTENDERS * IN_FLIGHT.len()) as u64;

impl Guest {
    fn name(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::Greeter => "greeter",
        }
    }

    fn wasm(self) -> anyhow::Result<Bytes> {
        Ok(match self {
            Self::Upper => upper(0)?,
            Self::Greeter => wat::parse_str(GREETER)?,
        }
        .into())
    }

    /// What follows the module's name in the subject.
    fn function(self) -> &'static str {
        match self {
            Self::Upper => "",
            Self::Greeter => ".hello",
        }
    }

    fn answer(self, input: &[u8]) -> Vec<u8> {
        match self {
            Self::Upper => input.to_ascii_uppercase(),
            Self::Greeter => [b"Hello, ", input, b"!"].concat(),
        }
    }
}

/// Measures everyone in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, done: impl FnMut()) -> anyhow::Result<ReuseReport> {
    let turns = at_each((args, "reuse"), &IN_FLIGHT, contenders, done).await?;
    let cases = turns
        .iter()
        .flat_map(|(in_flight, samples)| of(*in_flight, samples));
    let cases: Vec<_> = cases.collect();
    Ok(ReuseReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        reuse: REUSE,
        goals: cases.iter().filter_map(goal).collect(),
        cases,
    })
}

/// The echo, then each guest, fresh and reused.
async fn contenders(rig: &Rig, client: &Client) -> anyhow::Result<Vec<Contender>> {
    let input: Bytes = letters(BYTES).into();
    let mut contenders = vec![Contender {
        subject: ECHO.into(),
        payload: input.clone(),
        expected: Expected::Exactly(input.clone()),
        pid: Some(rig.echo.pid()),
    }];
    for guest in GUESTS {
        for isolation in [None, Some(Isolation { reuse: REUSE })] {
            contenders.push(Contender {
                subject: store(rig, client, guest, isolation).await?,
                payload: input.clone(),
                expected: Expected::Exactly(guest.answer(&input).into()),
                pid: Some(rig.worker.pid()),
            });
        }
    }
    Ok(contenders)
}

async fn store(
    rig: &Rig,
    client: &Client,
    guest: Guest,
    isolation: Option<Isolation>,
) -> anyhow::Result<Subject> {
    let kind = if isolation.is_some() { "reused" } else { "fresh" };
    let settings = Settings {
        isolation,
        ..Settings::default()
    };
    let terms = SettingsChange {
        limits: None,
        settings: Some(settings),
    };
    let name = format!("{}-{kind}", guest.name());
    let subject = rig.store(client, &name, guest.wasm()?, terms).await?;
    Ok(format!("{subject}{}", guest.function()).into())
}

fn of(in_flight: usize, samples: &[Vec<Sample>]) -> Vec<ReuseCase> {
    let Some((echo, guests)) = samples.split_first() else {
        return Vec::new();
    };
    let case = |(guest, samples): (Guest, &[Vec<Sample>])| {
        let [fresh, reused] = samples else { return None };
        Some(ReuseCase {
            guest: guest.name(),
            in_flight,
            echo: Sample::median(echo),
            fresh: Sample::median(fresh),
            reused: Sample::median(reused),
            fresh_of_echo: ratio(fresh, echo),
            reused_of_echo: ratio(reused, echo),
            reused_of_fresh: ratio(reused, fresh),
        })
    };
    GUESTS
        .into_iter()
        .zip(guests.chunks(2))
        .filter_map(case)
        .collect()
}

/// Of the component nothing is wanted: what it answers is longer than what the echo does.
fn goal(case: &ReuseCase) -> Option<Goal> {
    let what = format!("{} reused at {} in flight, of echo", case.guest, case.in_flight);
    (case.guest == Guest::Upper.name()).then(|| Goal::at_least(what, GOAL, case.reused_of_echo))
}

impl Table<9> for ReuseReport {
    const COLUMNS: [&str; 9] = [
        "guest",
        "in flight",
        "instances",
        "calls/s",
        "of echo",
        "of fresh",
        "p50 µs",
        "p99 µs",
        "CPU µs: responder",
    ];

    fn rows(&self) -> Vec<[String; 9]> {
        self.cases.iter().flat_map(case_rows).collect()
    }

    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

fn case_rows(case: &ReuseCase) -> [[String; 9]; 3] {
    let row = |instances: &str, sample: &Sample, [of_echo, of_fresh]: [Option<f64>; 2]| {
        let [rate, p50, p99, _, responder, _] = sample_row(sample);
        let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        [
            case.guest.into(),
            case.in_flight.to_string(),
            instances.into(),
            rate,
            ratio(of_echo),
            ratio(of_fresh),
            p50,
            p99,
            responder,
        ]
    };
    let reused = [Some(case.reused_of_echo), Some(case.reused_of_fresh)];
    [
        row("none: echo", &case.echo, [None, None]),
        row("fresh", &case.fresh, [Some(case.fresh_of_echo), None]),
        row("reused", &case.reused, reused),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::Cpu;

    #[test]
    fn each_guest_is_held_against_its_fresh_self_and_the_echo_of_its_round() {
        let sample = |calls_per_s: f64| {
            let cpu_us = Cpu {
                nats: None,
                responder: None,
                generator: None,
            };
            vec![Sample {
                calls_per_s,
                p50_us: 1.0,
                p99_us: 1.0,
                cpu_us,
            }]
        };
        let cases = of(50, &[100.0, 40.0, 80.0, 20.0, 50.0].map(sample));
        let ratios = |case: &ReuseCase| (case.fresh_of_echo, case.reused_of_echo, case.reused_of_fresh);
        assert_eq!(ratios(&cases[0]), (0.4, 0.8, 2.0));
        assert_eq!(ratios(&cases[1]), (0.2, 0.5, 2.5));
        let goals: Vec<Goal> = cases.iter().filter_map(goal).collect();
        assert_eq!(
            goals,
            [Goal::at_least("upper reused at 50 in flight, of echo", 0.95, 0.8)]
        );
    }
}
