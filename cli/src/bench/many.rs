//! `wess bench --scenario many`: a worker with thousands of modules. How soon it is ready, what it holds in memory for them, and
//! what calls to any of them cost against calls to one.
//!
//! Where more are called than a worker keeps ready, the difference is what loading them again costs; the report says how often.

use std::time::Duration;

use serde::Serialize;

use super::cases::{Cpu, Sample, median};
use super::goals::{self, Goal};
use super::load::{Expected, Generator, Load};
use super::metrics::Metrics;
use super::modules::{self, PREPARED, Ready, call_each, used};
use super::report::sample_row;
use super::rig::{Rig, needs_own_server};
use super::usage::cpu_us;
use crate::args::BenchArgs;
use crate::output;
use crate::transport::over;

const IN_FLIGHT: usize = 50;
/// Calls that had to load their module first, as the worker counts them.
const COLD_CALLS: &str = "worker_cold_calls_total";

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct ManyReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// How many modules are stored.
    pub modules: u64,
    /// From the worker's start to its `ready` line, in milliseconds.
    pub start_ms: f64,
    /// Memory.
    pub memory: Held,
    /// Calls to one module.
    pub one: Sample,
    /// Calls to any of them.
    pub any: Sample,
    /// The rate of those as a part of the others': the median of the rounds' ratios.
    pub ratio: f64,
    /// Of the calls to any of them, how many per cent had to load their module again.
    pub cold_percent: f64,
    /// Modules ready at the end, once per executor.
    pub prepared: u64,
    /// What was wanted.
    pub goals: Vec<Goal>,
}

/// The worker's resident memory, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Held {
    /// Of a worker that knows no module.
    pub idle_bytes: u64,
    /// More for each module that is stored, after a restart.
    pub stored_bytes: u64,
    /// More for each that was called.
    pub cached: Ready,
    /// After all the measured calls.
    pub warm_bytes: u64,
    /// After about as many again.
    pub again_bytes: u64,
}

/// How many steps a run has.
pub fn count(args: &BenchArgs) -> u64 {
    4 + args.rounds
}

/// Measures everything; `done` is called after each step.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<ManyReport> {
    needs_own_server(args, "many")?;
    let modules = args.modules();
    let mut rig = Rig::start(args).await?;
    let idle_bytes = used(&rig.worker)?.resident_bytes;
    let client = rig.connect().await?;
    let transport = over(client.clone(), rig.subjects());
    let subjects = modules::store_many(&rig, transport.as_ref(), modules).await?;
    done();
    let mut starts = Vec::new();
    for _ in 0..args.rounds {
        let (restarted, start) = rig.restart_worker().await?;
        rig = restarted;
        starts.push(start.as_secs_f64() * 1000.0);
    }
    done();
    let stored = used(&rig.worker)?.resident_bytes;
    let cached = modules::make_ready(&rig, &client, &subjects).await?;
    call_each(&client, &subjects).await?;
    done();

    let mut field = Field::new(&rig, Generator::new(client).await?, &subjects, args);
    let mut turns = Vec::new();
    for _ in 0..args.rounds {
        turns.push(field.turn().await?);
        done();
    }
    let warm_bytes = used(&rig.worker)?.resident_bytes;
    for _ in 0..args.rounds {
        field.any().await?;
    }
    done();
    let held = Held {
        idle_bytes,
        stored_bytes: stored.saturating_sub(idle_bytes) / modules,
        cached,
        warm_bytes,
        again_bytes: used(&rig.worker)?.resident_bytes,
    };
    let prepared = Metrics::read(&rig.worker).await?.number(PREPARED)?;
    rig.stop().await?;
    Ok(ManyReport::of(
        modules,
        median(starts.into_iter()),
        held,
        &turns,
        prepared,
    ))
}

/// Whom to call, and by whom.
struct Field<'a> {
    rig: &'a Rig,
    generator: Generator,
    subjects: Vec<async_nats::Subject>,
    load: Load,
}

/// One module, then any of them.
struct Turn {
    one: Sample,
    any: Sample,
    cold_percent: f64,
}

impl<'a> Field<'a> {
    fn new(rig: &'a Rig, generator: Generator, subjects: &[String], args: &BenchArgs) -> Self {
        let subjects: Vec<async_nats::Subject> =
            subjects.iter().map(|subject| subject.as_str().into()).collect();
        let load = Load {
            subject: subjects[0].clone(),
            payload: "hello".into(),
            expected: Expected::Exactly("HELLO".into()),
            in_flight: IN_FLIGHT,
            // One, any, and any again.
            duration: Duration::from_secs(args.seconds).div_f64(3.0 * args.rounds as f64),
        };
        Self {
            rig,
            generator,
            subjects,
            load,
        }
    }

    async fn turn(&mut self) -> anyhow::Result<Turn> {
        let only = [self.load.subject.clone()];
        let (one, _) = self.sample(&only).await?;
        let cold = Metrics::read(&self.rig.worker).await?.number(COLD_CALLS)?;
        let (any, calls) = self.any().await?;
        let cold = Metrics::read(&self.rig.worker).await?.number(COLD_CALLS)? - cold;
        Ok(Turn {
            one,
            any,
            cold_percent: 100.0 * cold as f64 / calls as f64,
        })
    }

    async fn any(&mut self) -> anyhow::Result<(Sample, u64)> {
        let subjects = std::mem::take(&mut self.subjects);
        let sample = self.sample(&subjects).await;
        self.subjects = subjects;
        sample
    }

    /// The rate, and how many calls it was.
    async fn sample(&mut self, subjects: &[async_nats::Subject]) -> anyhow::Result<(Sample, u64)> {
        let pids = [
            self.rig.nats_pid(),
            Some(self.rig.worker.pid()),
            Some(std::process::id()),
        ];
        let spent = || pids.map(|pid| pid.and_then(cpu_us));
        let before = spent();
        let measured = self.generator.run_among(&self.load, subjects).await?;
        let after = spent();
        let per_call =
            |at: usize| Some(after[at]?.saturating_sub(before[at]?) as f64 / measured.calls as f64);
        let cpu_us = Cpu {
            nats: per_call(0),
            responder: per_call(1),
            generator: per_call(2),
        };
        Ok((Sample::of(&measured, cpu_us), measured.calls))
    }
}

impl ManyReport {
    fn of(modules: u64, start_ms: f64, memory: Held, turns: &[Turn], prepared: u64) -> Self {
        let samples = |of: fn(&Turn) -> Sample| Sample::median(&turns.iter().map(of).collect::<Vec<_>>());
        let ratio = median(
            turns
                .iter()
                .map(|turn| turn.any.calls_per_s / turn.one.calls_per_s),
        );
        let growth = memory.again_bytes as f64 / memory.warm_bytes as f64;
        let [idle, cached] = modules::goals(memory.idle_bytes, &memory.cached);
        let goals = vec![
            Goal::at_most("start to ready, ms", 1000.0, start_ms),
            idle,
            cached,
            Goal::at_least("rate of calls to any, of one", 0.9, ratio),
            Goal::at_most("memory after as many calls again, of before", 1.05, growth),
        ];
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            modules,
            start_ms,
            memory,
            one: samples(|turn| turn.one),
            any: samples(|turn| turn.any),
            ratio,
            cold_percent: median(turns.iter().map(|turn| turn.cold_percent)),
            prepared,
            goals,
        }
    }

    /// Tables for people.
    pub fn text(&self) -> String {
        let calls = output::table(COLUMNS, self.rows());
        let facts = output::table(["MEASURED", ""], self.facts());
        goals::text_below(format!("{calls}\n\n{facts}"), &self.goals)
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let calls = output::markdown(COLUMNS, self.rows());
        let facts = output::markdown(["measured", ""], self.facts());
        goals::markdown_below(format!("{calls}\n\n{facts}"), &self.goals)
    }

    fn rows(&self) -> [[String; 9]; 2] {
        let row = |what: &str, sample: &Sample, ratio: String, cold: String| {
            let [rate, p50, p99, nats, responder, generator] = sample_row(sample);
            [
                what.into(),
                rate,
                ratio,
                cold,
                p50,
                p99,
                nats,
                responder,
                generator,
            ]
        };
        let any = format!("any of {}", self.modules);
        let cold = format!("{:.0} %", self.cold_percent);
        [
            row("one module", &self.one, String::new(), String::new()),
            row(&any, &self.any, format!("{:.2}", self.ratio), cold),
        ]
    }

    fn facts(&self) -> Vec<[String; 2]> {
        let memory = self.memory;
        let size = |what: &str, bytes| [what.into(), output::size(bytes)];
        vec![
            ["cores".into(), self.cores.to_string()],
            [
                format!("start with {} modules", self.modules),
                format!("{:.0} ms", self.start_ms),
            ],
            size("without modules, resident", memory.idle_bytes),
            size("each stored module", memory.stored_bytes),
            [
                format!("each cached module, on {:.1} executors", memory.cached.on),
                output::size(memory.cached.resident_bytes),
            ],
            size("after the calls, resident", memory.warm_bytes),
            size("after as many again, resident", memory.again_bytes),
            [
                "modules ready, once per executor".into(),
                self.prepared.to_string(),
            ],
        ]
    }
}

const COLUMNS: [&str; 9] = [
    "calls to",
    "calls/s",
    "of one",
    "loaded again",
    "p50 µs",
    "p99 µs",
    "CPU µs: nats",
    "responder",
    "generator",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_middle_round_and_memory_is_held_against_its_goals() {
        let sample = Sample::of_rate;
        let turn = |any| Turn {
            one: sample(100.0),
            any: sample(any),
            cold_percent: 50.0,
        };
        let memory = Held {
            idle_bytes: 16 << 20,
            stored_bytes: 2048,
            cached: Ready {
                resident_bytes: 24 << 10,
                anonymous_bytes: 12 << 10,
                on: 2.0,
            },
            warm_bytes: 100,
            again_bytes: 101,
        };
        let report = ManyReport::of(10, 300.0, memory, &[turn(90.0), turn(10.0), turn(95.0)], 20);
        let measured: Vec<_> = report.goals.iter().map(|goal| goal.measured).collect();
        assert_eq!(measured, [300.0, 16.0, 24.0, 0.9, 1.01]);
        assert_eq!(report.rows()[1][..4], ["any of 10", "90", "0.90", "50 %"]);
    }
}
