//! `wess bench --scenario http`: one component that serves HTTP, by Wess in one process and through NATS, and by `wasmtime
//! serve`; a plugin that is called over HTTP, and a bare echo in its place; beside a bare axum echo.
//!
//! A B A B: what disturbs the machine disturbs all, so that the ratios hold where the figures move.

mod field;
mod rival;

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::cases::{Sample, median};
use super::goals::Goal;
use super::report::{Table, sample_row};
use super::stream::{self, Framing, StreamLoad};
use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::fault::Fault;

use field::{Field, Server};

const CONNECTIONS: usize = 50;

/// Who is measured, besides peers.
const WHO: [&str; 9] = [
    "wasmtime serve",
    "wasmtime serve, best flags",
    "wasmtime serve, reused instances",
    "axum echo",
    "wess up",
    "gateway, NATS, worker",
    "gateway, NATS, echo",
    "gateway, NATS, plugin",
    "wess up, plugin",
];
const SERVE: usize = 0;
const BEST: usize = 1;
const AXUM: usize = 3;
const UP: usize = 4;
const THROUGH: usize = 5;
const ECHO: usize = 6;
const PLUGIN: usize = 7;
const UP_PLUGIN: usize = 8;

/// Whose rate shall be how much of whose.
const GOALS: [(usize, usize, f64); 6] = [
    (UP, SERVE, 3.0),
    (UP, BEST, 1.5),
    (THROUGH, SERVE, 1.5),
    (PLUGIN, ECHO, 0.95),
    (PLUGIN, AXUM, 0.45),
    (UP_PLUGIN, AXUM, 0.70),
];

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct HttpReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Each server.
    pub cases: Vec<HttpCase>,
    /// What was wanted.
    pub goals: Vec<Goal>,
}

/// One server.
#[derive(Debug, Clone, Serialize)]
pub struct HttpCase {
    /// Who serves.
    pub what: String,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a multiple of that of `wasmtime serve` as it comes: the median of the rounds' ratios.
    pub of_serve: f64,
    /// The same of `wasmtime serve` at its best.
    pub of_best: f64,
    /// The same of the bare axum echo.
    pub of_axum: f64,
}

/// How many measurements there are in a round.
pub fn count(args: &BenchArgs) -> u64 {
    (WHO.len() + args.peers.len()) as u64
}

/// Measures every server in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<HttpReport> {
    if args.nats.is_some() {
        let text = "--scenario http starts nats-servers of its own: --nats is for calls";
        return Err(Fault::local(Exit::Config, text).into());
    }
    let field = Field::start(args).await?;
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * count(args))?;
    let mut samples = vec![Vec::new(); field.servers.len()];
    for _ in 0..args.rounds {
        for (server, samples) in field.servers.iter().zip(&mut samples) {
            let sample = sample(server, each).await;
            samples.push(sample.with_context(|| format!("{} failed", server.what))?);
            done();
        }
    }
    let case = |(server, of): (&Server, &Vec<Sample>)| HttpCase {
        what: server.what.clone(),
        sample: Sample::median(of),
        of_serve: ratio(of, &samples[SERVE]),
        of_best: ratio(of, &samples[BEST]),
        of_axum: ratio(of, &samples[AXUM]),
    };
    let report = HttpReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cases: field.servers.iter().zip(&samples).map(case).collect(),
        goals: GOALS.map(|goal| reached(goal, &samples)).into(),
    };
    field.stop().await?;
    Ok(report)
}

/// One rate as a multiple of another: the median of the rounds' ratios.
fn ratio(of: &[Sample], to: &[Sample]) -> f64 {
    let pairs = of.iter().zip(to);
    median(pairs.map(|(one, measure)| one.calls_per_s / measure.calls_per_s))
}

fn reached((of, to, goal): (usize, usize, f64), samples: &[Vec<Sample>]) -> Goal {
    let what = format!("{}, of {}", WHO[of], WHO[to]);
    Goal::at_least(what, goal, ratio(&samples[of], &samples[to]))
}

async fn sample(server: &Server, duration: Duration) -> anyhow::Result<Sample> {
    let mut streams = stream::connect(server.address, CONNECTIONS).await?;
    let load = StreamLoad {
        request: server.request.clone(),
        framing: Framing::Http,
        expected: server.expected.clone(),
        in_flight: 1,
        duration,
    };
    stream::sample(&mut streams, &load, &server.pids).await
}

impl Table<9> for HttpReport {
    const COLUMNS: [&str; 9] = [
        "what",
        "answers/s",
        "of serve",
        "of its best",
        "of axum",
        "p50 µs",
        "p99 µs",
        "CPU µs: responder",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 9]> {
        let row = |case: &HttpCase| {
            let [rate, p50, p99, _, responder, generator] = sample_row(&case.sample);
            let ratio = |ratio: f64| format!("{ratio:.2}");
            [
                case.what.clone(),
                rate,
                ratio(case.of_serve),
                ratio(case.of_best),
                ratio(case.of_axum),
                p50,
                p99,
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
