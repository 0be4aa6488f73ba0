//! `wess bench --scenario scaling`: a guest that computes, on a worker with one executor and on one with two, in turn.

use std::time::Duration;

use async_nats::Client;
use serde::Serialize;
use wess_schemas::settings::SettingsChange;
use wess_schemas::subject::{Prefix, Subjects};

use super::burner::{Burner, INPUT};
use super::cases::Sample;
use super::goals::Goal;
use super::load::Expected;
use super::processes::Process;
use super::report::{Table, sample_row};
use super::rig::{Rig, needs_own_server, start_worker, store};
use super::turns::{Contender, Turns, ratio};
use crate::args::BenchArgs;

/// How long the guest computes.
const BURN: Duration = Duration::from_micros(200);
/// Enough for every executor to have the next call there when one ends.
const IN_FLIGHT: usize = 32;
const EXECUTORS: [u16; 2] = [1, 2];
const GOAL: f64 = 1.8;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct ScalingReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Processor time of one call by Wasmtime alone, in microseconds.
    pub burn_us: f64,
    /// Each worker.
    pub cases: Vec<ScalingCase>,
    /// What this should have come to.
    pub goals: Vec<Goal>,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct ScalingCase {
    /// How many executors it has.
    pub executors: u16,
    /// Calls at once.
    pub in_flight: usize,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a multiple of that of one executor: the median of the rounds' ratios.
    pub ratio: f64,
}

/// How many measurements there are in a round.
pub const COUNT: u64 = EXECUTORS.len() as u64;

/// Measures each worker in every round, while the other has nothing to do; `done` is called after each.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<ScalingReport> {
    needs_own_server(args, "scaling")?;
    let burner = Burner::of(BURN)?;
    let rig = Rig::start_with(args, Some(EXECUTORS[0])).await?;
    let client = rig.connect().await?;
    let other: Prefix = format!("{}-two", rig.prefix()).parse()?;
    let folder = rig.folder().join("two");
    tokio::fs::create_dir(&folder).await?;
    let two = start_worker(&folder, rig.url(), &other, Some(EXECUTORS[1])).await?;
    let contenders = [
        contender(&client, rig.subjects(), &burner, &rig.worker).await?,
        contender(&client, Subjects::new(other), &burner, &two).await?,
    ];
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * COUNT)?;
    let mut turns = Turns::new(client, rig.nats_pid()).await?;
    let samples = turns
        .rounds(&contenders, IN_FLIGHT, (args.rounds, each), &mut done)
        .await?;
    two.stop().await?;
    rig.stop().await?;
    Ok(report(&samples, burner.burn_us))
}

async fn contender(
    client: &Client,
    subjects: Subjects,
    burner: &Burner,
    worker: &Process,
) -> anyhow::Result<Contender> {
    let subject = store(
        client,
        subjects,
        "burning",
        burner.wasm.clone(),
        SettingsChange::default(),
    );
    Ok(Contender {
        subject: subject.await?,
        payload: INPUT.into(),
        expected: Expected::Exactly(burner.answer.clone()),
        pid: Some(worker.pid()),
    })
}

fn report(samples: &[Vec<Sample>], burn_us: f64) -> ScalingReport {
    let case = |(executors, samples_of): (u16, &Vec<Sample>)| ScalingCase {
        executors,
        in_flight: IN_FLIGHT,
        sample: Sample::median(samples_of),
        ratio: ratio(samples_of, &samples[0]),
    };
    let cases: Vec<ScalingCase> = EXECUTORS.into_iter().zip(samples).map(case).collect();
    let goal = |case: &ScalingCase| Goal::at_least("calls/s of two executors, of one", GOAL, case.ratio);
    ScalingReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        burn_us,
        goals: cases.last().map(goal).into_iter().collect(),
        cases,
    }
}

impl Table<9> for ScalingReport {
    const COLUMNS: [&str; 9] = [
        "executors",
        "guest µs",
        "in flight",
        "calls/s",
        "of one",
        "p50 µs",
        "p99 µs",
        "CPU µs: worker",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 9]> {
        let row = |case: &ScalingCase| {
            let [rate, p50, p99, _, worker, generator] = sample_row(&case.sample);
            [
                case.executors.to_string(),
                format!("{:.0}", self.burn_us),
                case.in_flight.to_string(),
                rate,
                format!("{:.2}", case.ratio),
                p50,
                p99,
                worker,
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

    #[test]
    fn two_executors_are_held_against_one_round_by_round() {
        let sample = Sample::of_rate;
        let report = report(
            &[
                vec![sample(10.0), sample(20.0), sample(40.0)],
                vec![sample(15.0), sample(40.0), sample(76.0)],
            ],
            200.0,
        );
        assert_eq!((report.cases[0].ratio, report.cases[1].ratio), (1.0, 1.9));
        assert_eq!((report.goals.len(), report.goals[0].measured), (1, 1.9));
        assert_eq!(report.rows()[1][..3], ["2", "200", "32"]);
    }
}
