//! `wess bench --scenario cold`: what the first answer of a module takes more than its later ones, once the worker was
//! started again; and how soon a module that is new answers, against what compiling it takes.
//!
//! One call at a time. Whether a module was loaded for an answer is the worker's word: a call may reach any executor.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use serde::Serialize;
use wess_schemas::header;
use wess_worker::guest::{Compiler, Metering};

use super::cases::median;
use super::goals::{self, Goal};
use super::large::Large;
use super::metrics::Metrics;
use super::modules;
use super::rig::Rig;
use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::{Transport, over};

/// Small modules for each large one, of which there are at most [`MAX_LARGE`].
const SMALL_FOR_LARGE: u64 = 6;
const MAX_LARGE: u64 = 8;
/// Answers without a load that each module gives.
const WARM_ANSWERS: usize = 9;
/// Calls of one module at most, until it has given those: as many executors may have to load it.
const MAX_CALLS: usize = 4096;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct ColdReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// From the worker's start to its `ready` line, in milliseconds.
    pub start_ms: f64,
    /// The very first call after a restart, in microseconds.
    pub first_call_us: f64,
    /// Small modules and large ones.
    pub cases: Vec<ColdCase>,
    /// Compilations while all were called after restarts.
    pub compilations: u64,
    /// One that is new.
    pub fresh: Fresh,
    /// What was wanted.
    pub goals: Vec<Goal>,
}

/// Modules of one size. All figures are medians over the modules, then over the restarts.
#[derive(Debug, Clone, Serialize)]
pub struct ColdCase {
    /// Which.
    pub what: &'static str,
    /// How many.
    pub modules: u64,
    /// How large each is.
    pub wasm_bytes: usize,
    /// Its first answer, in microseconds.
    pub first_us: f64,
    /// The median of its later answers, in microseconds.
    pub warm_us: f64,
    /// The difference, in microseconds.
    pub more_us: f64,
}

/// A large module that nobody has stored before.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Fresh {
    /// How large it is.
    pub wasm_bytes: usize,
    /// To store it, in milliseconds.
    pub store_ms: f64,
    /// From the end of its store to its first answer, in milliseconds.
    pub answer_ms: f64,
    /// To compile it with Cranelift, as workers do, in milliseconds.
    pub compile_ms: f64,
    /// Its first answer by its compilation.
    pub ratio: f64,
}

/// Modules of one size, and where they are called.
struct Kind {
    what: &'static str,
    wasm_bytes: usize,
    subjects: Vec<String>,
}

/// How many steps a run has.
pub fn count(args: &BenchArgs) -> u64 {
    1 + 2 * args.rounds
}

/// Measures everything; `done` is called after each step.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<ColdReport> {
    if args.nats.is_some() {
        let text =
            "--scenario cold stores modules in numbers, in a nats-server of its own: --nats is for calls";
        return Err(Fault::local(Exit::Config, text).into());
    }
    let large = Large::new()?;
    let mut rig = Rig::start(args).await?;
    let client = rig.connect().await?;
    let transport = over(client.clone(), rig.subjects());
    let kinds = store_all(&rig, transport.as_ref(), args, &large).await?;
    let first = first_module(&rig, transport.as_ref()).await?;
    done();
    let mut restarts = Vec::new();
    for _ in 0..args.rounds {
        let (restarted, start) = rig.restart_worker().await?;
        rig = restarted;
        restarts.push(restart(&rig, &client, (start, &first), &kinds).await?);
        done();
    }
    let mut fresh = Vec::new();
    for round in 0..args.rounds {
        fresh.push(store_and_call(&rig, &client, large.numbered(MAX_LARGE + 1 + round).into()).await?);
        done();
    }
    rig.stop().await?;
    Ok(ColdReport::of(&kinds, &restarts, &fresh))
}

async fn store_all(
    rig: &Rig,
    transport: &dyn Transport,
    args: &BenchArgs,
    large: &Large,
) -> anyhow::Result<[Kind; 2]> {
    let small = args.modules();
    let larges = (small / SMALL_FOR_LARGE).clamp(1, MAX_LARGE);
    let (mut small_subjects, mut large_subjects) = (Vec::new(), Vec::new());
    for number in 1..=small {
        let wasm = modules::upper(number)?;
        small_subjects.push(store(rig, transport, &format!("small-{number}"), wasm.into()).await?);
    }
    for number in 1..=larges {
        let wasm = large.numbered(number);
        large_subjects.push(store(rig, transport, &format!("large-{number}"), wasm.into()).await?);
    }
    Ok([
        Kind {
            what: "small",
            wasm_bytes: modules::upper(1)?.len(),
            subjects: small_subjects,
        },
        Kind {
            what: "large",
            wasm_bytes: large.numbered(1).len(),
            subjects: large_subjects,
        },
    ])
}

/// Stores a module; where to call it.
async fn store(rig: &Rig, transport: &dyn Transport, name: &str, wasm: Bytes) -> anyhow::Result<String> {
    modules::store_wasm(transport, name, wasm).await?;
    modules::subject(rig, name)
}

/// What is called before all others.
async fn first_module(rig: &Rig, transport: &dyn Transport) -> anyhow::Result<String> {
    store(rig, transport, "first", modules::upper(0)?.into()).await
}

/// What came of one restart.
struct Restart {
    start: Duration,
    first_call: Duration,
    compilations: u64,
    /// Of each kind, each module's first answer and the median of its later ones, in microseconds.
    answers: [Vec<(f64, f64)>; 2],
}

async fn restart(
    rig: &Rig,
    client: &Client,
    (start, first): (Duration, &str),
    kinds: &[Kind; 2],
) -> anyhow::Result<Restart> {
    let compiled = Metrics::read(&rig.worker).await?.compilations()?;
    let (first_call, _) = ask(client, first).await?;
    let mut answers = [Vec::new(), Vec::new()];
    for (kind, answers) in kinds.iter().zip(&mut answers) {
        for subject in &kind.subjects {
            answers.push(first_and_later(client, subject).await?);
        }
    }
    Ok(Restart {
        start,
        first_call,
        compilations: Metrics::read(&rig.worker).await?.compilations()? - compiled,
        answers,
    })
}

/// A module's first answer, and the median of its later ones, in microseconds.
async fn first_and_later(client: &Client, subject: &str) -> anyhow::Result<(f64, f64)> {
    let (first, was_cold) = ask(client, subject).await?;
    ensure!(was_cold, "{subject} was ready before it was called");
    let mut warm = Vec::new();
    for _ in 0..MAX_CALLS {
        let (took, was_cold) = ask(client, subject).await?;
        if !was_cold {
            warm.push(us(took));
        }
        if warm.len() == WARM_ANSWERS {
            break;
        }
    }
    ensure!(warm.len() == WARM_ANSWERS, "{subject} does not stay ready");
    Ok((us(first), median(warm.into_iter())))
}

/// One call, and whether its module had to be loaded for it.
async fn ask(client: &Client, subject: &str) -> anyhow::Result<(Duration, bool)> {
    let mut headers = HeaderMap::new();
    headers.insert(header::FACTS, "1");
    let request = Request::new().headers(headers).payload("hello".into());
    let asking = Instant::now();
    let answer = client.send_request(subject.to_owned(), request).await?;
    let took = asking.elapsed();
    ensure!(
        answer.payload == "HELLO",
        "{subject} answered {:?}",
        answer.payload
    );
    let facts = answer
        .headers
        .context("a call that asks for facts is told none")?;
    let cold = facts
        .get(header::COLD)
        .context("an answer does not say if it was cold")?;
    Ok((took, cold.as_str() == "true"))
}

async fn store_and_call(rig: &Rig, client: &Client, wasm: Bytes) -> anyhow::Result<Fresh> {
    let transport = over(client.clone(), rig.subjects());
    let storing = Instant::now();
    let subject = store(rig, transport.as_ref(), "fresh", wasm.clone()).await?;
    let stored = storing.elapsed();
    let (answer, _) = ask(client, &subject).await?;
    let wasm_bytes = wasm.len();
    let compile = tokio::task::spawn_blocking(move || compile(&wasm)).await??;
    Ok(Fresh {
        wasm_bytes,
        store_ms: us(stored) / 1000.0,
        answer_ms: us(answer) / 1000.0,
        compile_ms: us(compile) / 1000.0,
        ratio: answer.as_secs_f64() / compile.as_secs_f64(),
    })
}

fn compile(wasm: &[u8]) -> anyhow::Result<Duration> {
    let compiler = Compiler::new()?;
    let compiling = Instant::now();
    compiler.compile(wasm, Metering::Off)?;
    Ok(compiling.elapsed())
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl ColdReport {
    fn of(kinds: &[Kind; 2], restarts: &[Restart], fresh: &[Fresh]) -> Self {
        let case = |(at, kind): (usize, &Kind)| ColdCase::of(kind, restarts.iter().map(|of| &of.answers[at]));
        let cases: Vec<_> = kinds.iter().enumerate().map(case).collect();
        let compilations = restarts.iter().map(|restart| restart.compilations).sum();
        let fresh = Fresh::median(fresh);
        let goals = vec![
            Goal::at_most(
                "a small module's first answer, µs more than later ones",
                150.0,
                cases[0].more_us,
            ),
            Goal::at_most(
                "a large module's first answer, µs more than later ones",
                1500.0,
                cases[1].more_us,
            ),
            Goal::at_most("compilations after restarts", 0.0, compilations as f64),
            Goal::at_most(
                "a new module's first answer, of its compilation",
                0.4,
                fresh.ratio,
            ),
        ];
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            start_ms: median(restarts.iter().map(|restart| us(restart.start) / 1000.0)),
            first_call_us: median(restarts.iter().map(|restart| us(restart.first_call))),
            cases,
            compilations,
            fresh,
            goals,
        }
    }

    /// Tables for people.
    pub fn text(&self) -> String {
        let cases = output::table(COLUMNS, self.rows());
        let facts = output::table(["MEASURED", ""], self.facts());
        goals::text_below(format!("{cases}\n\n{facts}"), &self.goals)
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let cases = output::markdown(COLUMNS, self.rows());
        let facts = output::markdown(["measured", ""], self.facts());
        goals::markdown_below(format!("{cases}\n\n{facts}"), &self.goals)
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let row = |case: &ColdCase| {
            [
                case.what.into(),
                case.modules.to_string(),
                output::size(case.wasm_bytes as u64),
                format!("{:.0}", case.first_us),
                format!("{:.0}", case.warm_us),
                format!("{:.0}", case.more_us),
            ]
        };
        self.cases.iter().map(row).collect()
    }

    fn facts(&self) -> Vec<[String; 2]> {
        let ms = |ms: f64| format!("{ms:.1} ms");
        vec![
            ["cores".into(), self.cores.to_string()],
            ["start to ready".into(), ms(self.start_ms)],
            [
                "the very first call after a restart".into(),
                format!("{:.0} µs", self.first_call_us),
            ],
            [
                "compilations after restarts".into(),
                self.compilations.to_string(),
            ],
            ["a new large module, its store".into(), ms(self.fresh.store_ms)],
            ["then its first answer".into(), ms(self.fresh.answer_ms)],
            ["its compilation alone".into(), ms(self.fresh.compile_ms)],
        ]
    }
}

const COLUMNS: [&str; 6] = [
    "modules",
    "how many",
    "bytes",
    "first answer, µs",
    "later, µs",
    "more, µs",
];

impl ColdCase {
    fn of<'a>(kind: &Kind, restarts: impl Iterator<Item = &'a Vec<(f64, f64)>>) -> Self {
        let each: Vec<[f64; 3]> = restarts
            .map(|answers| {
                let of = |field: fn(&(f64, f64)) -> f64| median(answers.iter().map(field));
                [of(|one| one.0), of(|one| one.1), of(|one| one.0 - one.1)]
            })
            .collect();
        let [first_us, warm_us, more_us] =
            [0, 1, 2].map(|at| median(each.iter().map(|of: &[f64; 3]| of[at])));
        Self {
            what: kind.what,
            modules: kind.subjects.len() as u64,
            wasm_bytes: kind.wasm_bytes,
            first_us,
            warm_us,
            more_us,
        }
    }
}

impl Fresh {
    fn median(all: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(all.iter().map(field));
        Self {
            wasm_bytes: all.first().map_or(0, |one| one.wasm_bytes),
            store_ms: of(|one| one.store_ms),
            answer_ms: of(|one| one.answer_ms),
            compile_ms: of(|one| one.compile_ms),
            ratio: of(|one| one.ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_first_answer_takes_more_is_told_module_by_module() {
        let kind = Kind {
            what: "small",
            wasm_bytes: 300,
            subjects: vec![String::new(); 3],
        };
        let restarts = [
            vec![(400.0, 100.0), (300.0, 200.0), (900.0, 100.0)],
            vec![(500.0, 100.0), (300.0, 250.0), (900.0, 100.0)],
            vec![(100.0, 100.0), (100.0, 100.0), (100.0, 100.0)],
        ];
        let case = ColdCase::of(&kind, restarts.iter());
        assert_eq!(
            (case.modules, case.first_us, case.warm_us, case.more_us),
            (3, 400.0, 100.0, 300.0)
        );
    }
}
