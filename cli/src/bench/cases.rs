//! Echo and worker in turn, case by case: rate, latency and processor time of each process, as medians.
//!
//! A B A B: what disturbs the machine disturbs both, so that the ratio holds where the figures move.

use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use serde::Serialize;

use super::goals::Goal;
use super::load::{Generator, Load, Measured};
use super::usage::cpu_us;

/// How many calls are in flight.
const IN_FLIGHT: [usize; 3] = [1, 50, 256];
/// How large a call is.
const BYTES: [usize; 2] = [64, 1024];
/// What of each measurement's time is spent before it, unmeasured.
pub const WARM_UP: f64 = 0.1;

/// Somebody who answers.
#[derive(Debug, Clone)]
pub struct Responder {
    /// Where it listens.
    pub subject: Subject,
    /// What it makes of lower-case letters.
    pub answer: fn(&[u8]) -> Vec<u8>,
    /// Its process.
    pub pid: u32,
}

/// Who is measured.
#[derive(Debug, Clone)]
pub struct Field {
    /// The bare one.
    pub echo: Responder,
    /// Ours.
    pub worker: Responder,
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
    fn of_each(self) -> Duration {
        let measurements = IN_FLIGHT.len() as u64 * BYTES.len() as u64 * 2 * self.rounds;
        self.total / u32::try_from(measurements).unwrap_or(u32::MAX)
    }
}

/// How much of the echo's rate the worker should reach with so many calls of so many bytes in flight.
const GOALS: [(usize, usize, f64); 2] = [(50, 64, 0.80), (256, 64, 0.60)];

/// What these cases are held against.
pub fn goals(cases: &[Case]) -> Vec<Goal> {
    let goal = |(in_flight, bytes, goal)| {
        let case = cases
            .iter()
            .find(|case| (case.in_flight, case.bytes) == (in_flight, bytes))?;
        let what = format!("rate at {in_flight} in flight, of echo");
        Some(Goal::at_least(what, goal, case.ratio))
    };
    GOALS.into_iter().filter_map(goal).collect()
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
    let mut generator = Generator::new(client).await?;
    let mut cases = Vec::new();
    for bytes in BYTES {
        for in_flight in IN_FLIGHT {
            cases.push(case(&mut generator, field, plan, (in_flight, bytes)).await?);
            done();
        }
    }
    Ok(cases)
}

async fn case(
    generator: &mut Generator,
    field: &Field,
    plan: Plan,
    (in_flight, bytes): (usize, usize),
) -> anyhow::Result<Case> {
    let (mut echo, mut worker) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        for (responder, samples) in [(&field.echo, &mut echo), (&field.worker, &mut worker)] {
            let load = load(responder, in_flight, bytes, plan.of_each());
            samples.push(sample(generator, &load, [field.nats_pid, Some(responder.pid)]).await?);
        }
    }
    let ratios = worker
        .iter()
        .zip(&echo)
        .map(|(worker, echo)| worker.calls_per_s / echo.calls_per_s);
    let ratio = median(ratios);
    Ok(Case {
        in_flight,
        bytes,
        echo: Sample::median(&echo),
        worker: Sample::median(&worker),
        ratio,
    })
}

fn load(responder: &Responder, in_flight: usize, bytes: usize, duration: Duration) -> Load {
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(bytes).collect();
    let expected = (responder.answer)(&payload).into();
    Load {
        subject: responder.subject.clone(),
        payload: Bytes::from(payload),
        expected,
        in_flight,
        duration,
    }
}

async fn sample(generator: &mut Generator, load: &Load, pids: [Option<u32>; 2]) -> anyhow::Result<Sample> {
    let warm_up = load.duration.mul_f64(WARM_UP);
    generator
        .run(&Load {
            duration: warm_up,
            ..load.clone()
        })
        .await?;
    let pids = [pids[0], pids[1], Some(std::process::id())];
    let before = pids.map(|pid| pid.and_then(cpu_us));
    let measured = generator
        .run(&Load {
            duration: load.duration - warm_up,
            ..load.clone()
        })
        .await?;
    let after = pids.map(|pid| pid.and_then(cpu_us));
    let per_call = |at: usize| Some((after[at]?.saturating_sub(before[at]?)) as f64 / measured.calls as f64);
    Ok(Sample::of(
        &measured,
        Cpu {
            nats: per_call(0),
            responder: per_call(1),
            generator: per_call(2),
        },
    ))
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
        assert_eq!(
            plan.of_each() * 36,
            Duration::from_secs(60).mul_f64(1.0) - Duration::from_nanos(24)
        );
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
