//! `wess bench --scenario scaling`: a guest that computes and one that does next to nothing, on a worker with one executor and on
//! one with two, in turn.
//!
//! What is judged is calls for each second that executors were busy: where generator and server need the same cores, the rate says
//! how many cores there were, and not whether executors stand in each other's way.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use serde::Serialize;
use wess_schemas::settings::SettingsChange;
use wess_schemas::subject::{Prefix, Subjects};

use super::burner::{Burner, INPUT};
use super::cases::{Sample, letters, median};
use super::goals::Goal;
use super::load::Expected;
use super::modules::upper;
use super::processes::Process;
use super::report::{Table, sample_row};
use super::rig::{Rig, needs_own_server, start_worker, store};
use super::turns::{Contender, Turns, ratio};
use crate::args::BenchArgs;

/// How long the guest that computes does.
const BURN: Duration = Duration::from_micros(200);
const BYTES: usize = 64;
/// Of each guest, how many calls are in flight: enough for every executor to have the next one there when one ends.
const IN_FLIGHT: [(&str, &[usize]); 2] = [("burner", &[32]), ("upper", &[50, 256])];
const EXECUTORS: [u16; 2] = [1, 2];
/// What is wanted of two executors, and with which guest and how many calls in flight.
const GOAL: f64 = 1.8;
const JUDGED: [(&str, usize); 2] = [("burner", 32), ("upper", 256)];

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct ScalingReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Processor time of one call by Wasmtime alone, in microseconds.
    pub burn_us: f64,
    /// Each worker, with each guest and each number of calls in flight.
    pub cases: Vec<ScalingCase>,
    /// What this should have come to.
    pub goals: Vec<Goal>,
}

/// One worker with one guest.
#[derive(Debug, Clone, Serialize)]
pub struct ScalingCase {
    /// Which guest.
    pub guest: &'static str,
    /// How many executors it has.
    pub executors: u16,
    /// Calls at once.
    pub in_flight: usize,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a multiple of that of one executor: the median of the rounds' ratios.
    pub ratio: f64,
    /// Calls for each second that all its executors were busy: so many executors by the processor time of a call.
    pub busy_calls_per_s: Option<f64>,
    /// The same as a multiple of that of one executor: the median of the rounds' ratios.
    pub busy_ratio: Option<f64>,
}

/// One that both workers run.
struct Guest {
    name: &'static str,
    wasm: Bytes,
    input: Bytes,
    answer: Bytes,
}

/// How many measurements there are in a round.
pub const COUNT: u64 = (EXECUTORS.len() * (IN_FLIGHT[0].1.len() + IN_FLIGHT[1].1.len())) as u64;

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
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * COUNT)?;
    let mut turns = Turns::new(client.clone(), rig.nats_pid()).await?;
    let mut cases = Vec::new();
    for (guest, (_, in_flight)) in guests(&burner)?.iter().zip(IN_FLIGHT) {
        let contenders = [
            contender(&client, rig.subjects(), guest, &rig.worker).await?,
            contender(&client, Subjects::new(other.clone()), guest, &two).await?,
        ];
        for in_flight in in_flight {
            let turn = (args.rounds, each);
            let samples = turns.rounds(&contenders, *in_flight, turn, &mut done).await?;
            cases.extend(of((guest.name, *in_flight), &samples));
        }
    }
    two.stop().await?;
    rig.stop().await?;
    Ok(report(cases, burner.burn_us))
}

/// In the order of [`IN_FLIGHT`].
fn guests(burner: &Burner) -> anyhow::Result<[Guest; 2]> {
    let [(computing, _), (tiny, _)] = IN_FLIGHT;
    let text = letters(BYTES);
    Ok([
        Guest {
            name: computing,
            wasm: burner.wasm.clone(),
            input: INPUT.into(),
            answer: burner.answer.clone(),
        },
        Guest {
            name: tiny,
            wasm: upper(0)?.into(),
            answer: text.to_ascii_uppercase().into(),
            input: text.into(),
        },
    ])
}

async fn contender(
    client: &Client,
    subjects: Subjects,
    guest: &Guest,
    worker: &Process,
) -> anyhow::Result<Contender> {
    let terms = SettingsChange::default();
    let subject = store(client, subjects, guest.name, guest.wasm.clone(), terms);
    Ok(Contender {
        subject: subject.await?,
        payload: guest.input.clone(),
        expected: Expected::Exactly(guest.answer.clone()),
        pid: Some(worker.pid()),
    })
}

/// A case for each worker.
fn of((guest, in_flight): (&'static str, usize), samples: &[Vec<Sample>]) -> Vec<ScalingCase> {
    let rounds_of = |executors, samples: &[Sample]| -> Vec<Option<f64>> {
        samples.iter().map(|sample| busy(executors, sample)).collect()
    };
    let one = rounds_of(EXECUTORS[0], &samples[0]);
    let case = |(executors, samples_of): (u16, &Vec<Sample>)| {
        let rounds = rounds_of(executors, samples_of);
        let ratios = rounds
            .iter()
            .zip(&one)
            .map(|(these, one)| Some((*these)? / (*one)?));
        ScalingCase {
            guest,
            executors,
            in_flight,
            sample: Sample::median(samples_of),
            ratio: ratio(samples_of, &samples[0]),
            busy_ratio: median_of_known(ratios),
            busy_calls_per_s: median_of_known(rounds.iter().copied()),
        }
    };
    EXECUTORS.into_iter().zip(samples).map(case).collect()
}

/// Calls while each of so many executors is busy for a second. Nothing where processor time is not known, or was too short to be seen.
fn busy(executors: u16, sample: &Sample) -> Option<f64> {
    let us = sample.cpu_us.responder.filter(|us| *us > 0.0)?;
    Some(f64::from(executors) * 1e6 / us)
}

/// Nothing where nothing is known.
fn median_of_known(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = values.flatten().collect();
    (!known.is_empty()).then(|| median(known.into_iter()))
}

fn report(cases: Vec<ScalingCase>, burn_us: f64) -> ScalingReport {
    let goal = |(guest, in_flight)| {
        let case = cases
            .iter()
            .find(|case| (case.guest, case.in_flight, case.executors) == (guest, in_flight, EXECUTORS[1]))?;
        let what = format!("calls a busy second of two executors, of one: {guest}, {in_flight} in flight");
        Some(Goal::at_least(what, GOAL, case.busy_ratio?))
    };
    ScalingReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        burn_us,
        goals: JUDGED.into_iter().filter_map(goal).collect(),
        cases,
    }
}

impl Table<11> for ScalingReport {
    const COLUMNS: [&str; 11] = [
        "guest",
        "executors",
        "in flight",
        "busy calls/s",
        "of one",
        "calls/s",
        "of one",
        "p50 µs",
        "p99 µs",
        "CPU µs: worker",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 11]> {
        let row = |case: &ScalingCase| {
            let [rate, p50, p99, _, worker, generator] = sample_row(&case.sample);
            let known =
                |value: Option<f64>, digits| value.map_or("?".into(), |known| format!("{known:.digits$}"));
            [
                case.guest.into(),
                case.executors.to_string(),
                case.in_flight.to_string(),
                known(case.busy_calls_per_s, 0),
                known(case.busy_ratio, 2),
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
    use crate::bench::cases::Cpu;

    fn sample(calls_per_s: f64, responder: Option<f64>) -> Sample {
        let cpu_us = Cpu {
            responder,
            ..Sample::of_rate(0.0).cpu_us
        };
        Sample {
            cpu_us,
            ..Sample::of_rate(calls_per_s)
        }
    }

    #[test]
    fn two_executors_are_held_against_one_round_by_round() {
        let samples = [
            vec![
                sample(10.0, Some(200.0)),
                sample(20.0, Some(200.0)),
                sample(40.0, Some(100.0)),
            ],
            vec![
                sample(15.0, Some(250.0)),
                sample(40.0, Some(400.0)),
                sample(76.0, Some(100.0)),
            ],
        ];
        let report = report(of(("burner", 32), &samples), 200.0);
        let [one, two] = [&report.cases[0], &report.cases[1]];
        assert_eq!((one.ratio, two.ratio), (1.0, 1.9));
        assert_eq!(
            (one.busy_calls_per_s, two.busy_calls_per_s),
            (Some(5000.0), Some(8000.0))
        );
        assert_eq!((one.busy_ratio, two.busy_ratio), (Some(1.0), Some(1.6)));
        assert_eq!((report.goals.len(), report.goals[0].measured), (1, 1.6));
        assert_eq!(
            report.rows()[1][..7],
            ["burner", "2", "32", "8000", "1.60", "40", "1.90"]
        );
    }

    #[test]
    fn rounds_without_processor_time_are_left_out_and_without_any_nothing_is_judged() {
        let unseen = [
            vec![sample(10.0, None), sample(10.0, Some(100.0))],
            vec![sample(10.0, Some(100.0)), sample(10.0, Some(0.0))],
        ];
        let report = report(of(("upper", 256), &unseen), 200.0);
        assert_eq!(report.cases[1].busy_ratio, None);
        assert_eq!(report.goals, []);
        assert_eq!(report.rows()[1][3..5], ["20000", "?"]);
    }

    #[test]
    fn what_is_judged_is_measured() {
        let is_measured = |(guest, in_flight)| {
            let mut guests = IN_FLIGHT.iter().filter(|(name, _)| *name == guest);
            guests.any(|(_, measured)| measured.contains(&in_flight))
        };
        assert!(JUDGED.into_iter().all(is_measured));
    }
}
