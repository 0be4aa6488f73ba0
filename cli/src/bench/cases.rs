//! Echo and worker in turn, case by case: rate, latency and processor time of each process, as medians.
//!
//! A B A B: what disturbs the machine disturbs both, so that the ratio holds where the figures move.

use std::time::Duration;

use anyhow::bail;
use async_nats::{Client, Subject};
use serde::Serialize;
use wess_worker::guest::BarePlugin;

use super::bare;
use super::goals::Goal;
use super::load::{Expected, Measured};
use super::turns::{Contender, Turns, ratio};

/// How many calls are in flight.
const IN_FLIGHT: [usize; 3] = [1, 50, 256];
/// How large a call is.
const BYTES: [usize; 2] = [64, 1024];
/// What of each measurement's time is spent before it, unmeasured.
pub const WARM_UP: f64 = 0.1;

/// How long the bare call takes of what another's turn takes: its time is counted exactly, so that little of it is enough.
const BARE_TURN: f64 = 0.25;

/// Somebody who answers.
#[derive(Debug, Clone)]
pub struct Responder {
    /// Where it listens.
    pub subject: Subject,
    /// What it makes of lower-case letters.
    pub answer: fn(&[u8]) -> Vec<u8>,
    /// Its process, when that is known.
    pub pid: Option<u32>,
}

/// Who is measured.
pub struct Field {
    /// The bare one.
    pub echo: Responder,
    /// Ours.
    pub worker: Responder,
    /// What ours runs, called by Wasmtime alone.
    pub bare: BarePlugin,
    /// Others that answer as ours does, by their names.
    pub peers: Vec<(String, Responder)>,
    /// The server's process, when it is one of this machine.
    pub nats_pid: Option<u32>,
}

/// Both at one size and number.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// Calls at once.
    pub in_flight: usize,
    /// Bytes in each.
    pub bytes: usize,
    /// The bare one.
    pub echo: Sample,
    /// Ours.
    pub worker: Sample,
    /// Our rate as a part of the bare one's: the median of the rounds' ratios.
    pub ratio: f64,
    /// Processor time of a call by Wasmtime alone, in microseconds.
    pub bare_us: f64,
    /// Processor time of the bare responder and the bare call, as a part of the worker's: the median of the rounds' ratios.
    pub efficiency: Option<f64>,
    /// The others.
    pub peers: Vec<PeerCase>,
}

/// Somebody else's responder, at the same size and number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerCase {
    /// What it was called.
    pub name: String,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a part of the bare one's: the median of the rounds' ratios.
    pub ratio: f64,
}

/// What one responder did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Answers a second.
    pub calls_per_s: f64,
    /// From call to answer, in microseconds.
    pub p50_us: f64,
    /// From call to answer, in microseconds.
    pub p99_us: f64,
    /// Processor time for each call, in microseconds.
    pub cpu_us: Cpu,
}

/// Processor time of each process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cpu {
    /// The server.
    pub nats: Option<f64>,
    /// Who answers.
    pub responder: Option<f64>,
    /// This process, which asks.
    pub generator: Option<f64>,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// All measurements together.
    pub total: Duration,
    /// Each of them so often.
    pub rounds: u64,
}

impl Plan {
    /// How long a turn is when so many take turns, and the bare call.
    fn of_each(self, contenders: usize) -> Duration {
        let measurements = count() * self.rounds;
        self.total
            .div_f64(measurements as f64 * (contenders as f64 + BARE_TURN))
    }
}

/// How much of the echo's rate the worker should reach with so many calls of so many bytes in flight.
const GOALS: [(usize, usize, f64); 2] = [(50, 64, 0.80), (256, 64, 0.60)];
/// How much of the worker's processor time the bare responder and the bare call should account for.
const EFFICIENCY_GOAL: f64 = 0.90;

/// What these cases are held against.
pub fn goals(cases: &[Case]) -> Vec<Goal> {
    let goal = |(in_flight, bytes, goal)| {
        let case = cases
            .iter()
            .find(|case| (case.in_flight, case.bytes) == (in_flight, bytes))?;
        let at = format!("{in_flight} in flight, {bytes} bytes");
        let efficiency = case
            .efficiency
            .map(|efficiency| Goal::at_least(format!("efficiency, {at}"), EFFICIENCY_GOAL, efficiency));
        let rate = Goal::at_least(format!("of echo, {at}"), goal, case.ratio);
        Some([Some(rate), efficiency].into_iter().flatten())
    };
    GOALS.into_iter().filter_map(goal).flatten().collect()
}

/// How many cases there are.
pub const fn count() -> u64 {
    (IN_FLIGHT.len() * BYTES.len()) as u64
}

/// Measures every case; `done` is called after each.
pub async fn measure(
    client: Client,
    field: &Field,
    plan: Plan,
    mut done: impl FnMut(),
) -> anyhow::Result<Vec<Case>> {
    let mut turns = Turns::new(client, field.nats_pid).await?;
    let mut cases = Vec::new();
    for bytes in BYTES {
        for in_flight in IN_FLIGHT {
            cases.push(case(&mut turns, field, plan, (in_flight, bytes)).await?);
            done();
        }
    }
    Ok(cases)
}

async fn case(
    turns: &mut Turns,
    field: &Field,
    plan: Plan,
    (in_flight, bytes): (usize, usize),
) -> anyhow::Result<Case> {
    let input = letters(bytes);
    let (ours, peers) = (
        [&field.echo, &field.worker],
        field.peers.iter().map(|(_, peer)| peer),
    );
    let contenders: Vec<Contender> = ours
        .into_iter()
        .chain(peers)
        .map(|responder| contender(responder, &input))
        .collect();
    let each = plan.of_each(contenders.len());
    let (mut samples, mut bare_us) = (vec![Vec::new(); contenders.len()], Vec::new());
    for _ in 0..plan.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            samples.push(turns.turn(contender, in_flight, each).await?);
        }
        let expected = input.to_ascii_uppercase();
        bare_us.push(bare::cpu_us(
            &field.bare,
            &input,
            &expected,
            each.mul_f64(BARE_TURN),
        )?);
    }
    let [echo, worker, peers @ ..] = samples.as_slice() else {
        bail!("echo and worker take turns");
    };
    Ok(Case {
        in_flight,
        bytes,
        ratio: ratio(worker, echo),
        efficiency: efficiency(echo, worker, &bare_us),
        echo: Sample::median(echo),
        worker: Sample::median(worker),
        bare_us: median(bare_us.into_iter()),
        peers: peer_cases(field, peers, echo),
    })
}

fn peer_cases(field: &Field, peers: &[Vec<Sample>], echo: &[Sample]) -> Vec<PeerCase> {
    let case = |((name, _), samples): (&(String, Responder), &Vec<Sample>)| PeerCase {
        name: name.clone(),
        sample: Sample::median(samples),
        ratio: ratio(samples, echo),
    };
    field.peers.iter().zip(peers).map(case).collect()
}

/// Nothing where processor time is not known, or was too short to be seen.
fn efficiency(echo: &[Sample], worker: &[Sample], bare_us: &[f64]) -> Option<f64> {
    let rounds = echo.iter().zip(worker).zip(bare_us);
    let parts = rounds.filter_map(|((echo, worker), bare_us)| {
        let worker_us = worker.cpu_us.responder.filter(|us| *us > 0.0)?;
        Some((echo.cpu_us.responder? + bare_us) / worker_us)
    });
    let parts: Vec<f64> = parts.collect();
    (!parts.is_empty()).then(|| median(parts.into_iter()))
}

/// Lower-case letters, which every responder is sent.
pub fn letters(bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(bytes).collect()
}

fn contender(responder: &Responder, input: &[u8]) -> Contender {
    Contender {
        subject: responder.subject.clone(),
        payload: input.to_vec().into(),
        expected: Expected::Exactly((responder.answer)(input).into()),
        pid: responder.pid,
    }
}

impl Sample {
    /// What came of a measurement.
    pub fn of(measured: &Measured, cpu_us: Cpu) -> Self {
        let us = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        let calls_per_s = measured.calls as f64 / measured.elapsed.as_secs_f64();
        Self {
            calls_per_s,
            p50_us: us(0.5),
            p99_us: us(0.99),
            cpu_us,
        }
    }

    /// The median of each figure.
    pub fn median(samples: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(samples.iter().map(field));
        let cpu = |field: fn(&Cpu) -> Option<f64>| {
            let known: Option<Vec<f64>> = samples.iter().map(|sample| field(&sample.cpu_us)).collect();
            known.map(|known| median(known.into_iter()))
        };
        Self {
            calls_per_s: of(|sample| sample.calls_per_s),
            p50_us: of(|sample| sample.p50_us),
            p99_us: of(|sample| sample.p99_us),
            cpu_us: Cpu {
                nats: cpu(|cpu| cpu.nats),
                responder: cpu(|cpu| cpu.responder),
                generator: cpu(|cpu| cpu.generator),
            },
        }
    }
}

/// The middle one; of an even number, the lower of the two in the middle. Zero of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
impl Sample {
    /// One of which only the rate matters.
    pub fn of_rate(calls_per_s: f64) -> Self {
        let cpu_us = Cpu {
            nats: None,
            responder: None,
            generator: None,
        };
        Self {
            calls_per_s,
            p50_us: 1.0,
            p99_us: 1.0,
            cpu_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn all_measurements_together_take_the_time_that_was_given() {
        let plan = Plan {
            total: Duration::from_secs(60),
            rounds: 3,
        };
        let turns = count() * plan.rounds;
        let all =
            plan.of_each(2).mul_f64(turns as f64 * 2.0) + plan.of_each(2).mul_f64(turns as f64 * BARE_TURN);
        assert!(all.abs_diff(plan.total) < Duration::from_micros(1), "{all:?}");
    }

    fn sample_of(responder: Option<f64>) -> Sample {
        let cpu_us = Cpu {
            nats: None,
            responder,
            generator: Some(2.0),
        };
        Sample {
            calls_per_s: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            cpu_us,
        }
    }

    #[test]
    fn efficiency_is_what_the_parts_cost_by_what_the_worker_costs() {
        let (echo, worker) = ([sample_of(Some(1.5)); 2], [sample_of(Some(8.0)); 2]);
        assert_eq!(efficiency(&echo, &worker, &[2.5, 2.5]), Some(0.5));
        let unseen = [sample_of(Some(0.0)), sample_of(None)];
        assert_eq!(efficiency(&echo, &unseen, &[2.5, 2.5]), None);
    }

    #[test]
    fn a_processor_time_that_is_missing_once_is_missing() {
        let sample = |nats| {
            let cpu_us = Cpu {
                nats,
                responder: Some(1.0),
                generator: Some(2.0),
            };
            Sample {
                calls_per_s: 1.0,
                p50_us: 1.0,
                p99_us: 1.0,
                cpu_us,
            }
        };
        let cpu = Sample::median(&[sample(Some(1.0)), sample(None), sample(Some(1.0))]).cpu_us;
        assert_eq!((cpu.nats, cpu.responder), (None, Some(1.0)));
    }
}
