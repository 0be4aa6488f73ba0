//! `wess bench --scenario memory`: what a worker holds in memory, and for what. Idle, for each small module that is ready, for each
//! guest that waits for the host, and from tenth to tenth of a million calls.
//!
//! What is judged of suspended guests and of growth is what is the process's own: mapped files are the kernel's to take back.

use std::time::Duration;

use async_nats::Subject;
use serde::Serialize;

use super::goals::Goal;
use super::load::{Expected, Generator, Load};
use super::modules::{self, Ready, used};
use super::report::Table;
use super::rig::{Rig, needs_own_server};
use super::suspended::{Sleepers, Suspended};
use super::usage::{Code, MIB, Memory};
use crate::args::BenchArgs;
use crate::output;
use crate::transport::over;

/// Calls, when there is time for them.
const CALLS: u64 = 1_000_000;
/// After each of so many equal parts of them memory is taken.
const PARTS: u64 = 10;
const IN_FLIGHT: usize = 50;
/// How much memory may grow from the first tenth's end to the last one's. A bound in bytes, not in parts of what a worker holds:
/// over 900 000 calls it is two bytes each, less than anything that could be left of a call, and more than the pages by which
/// an allocator that keeps nothing moves.
const GROWTH_MIB: f64 = 2.0;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// How many executors the worker has.
    pub executors: u16,
    /// How many modules are stored.
    pub modules: u64,
    /// A worker that was just started and knows no module.
    pub idle: Memory,
    /// More for each module that is ready.
    pub ready: Ready,
    /// Compiled code, after all calls.
    pub code: Code,
    /// Guests that wait for the host.
    pub suspended: Suspended,
    /// How many calls there were in all.
    pub calls: u64,
    /// By how much the worker's own memory was more after the last part of them than after the first.
    pub growth_bytes: u64,
    /// Memory after each part.
    pub parts: Vec<Part>,
    /// What was wanted.
    pub goals: Vec<Goal>,
}

/// The worker's memory after so many calls.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Part {
    /// All so far.
    pub calls: u64,
    /// All that is resident, mapped files included.
    pub resident_bytes: u64,
    /// What is the process's own.
    pub anonymous_bytes: u64,
}

/// How many steps a run has.
pub fn count(args: &BenchArgs) -> u64 {
    args.rounds + 2 + PARTS
}

/// Measures everything; `done` is called after each step.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<MemoryReport> {
    needs_own_server(args, "memory")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let executors = args.executors.unwrap_or(u16::try_from(cores)?);
    let mut rig = Rig::start_with(args, Some(executors)).await?;
    let idle = used(&rig.worker)?;
    let client = rig.connect().await?;
    let sleepers = Sleepers::store(&rig, client.clone(), executors).await?;
    let mut crowds = Vec::new();
    for _ in 0..args.rounds {
        (rig, _) = rig.restart_worker().await?;
        crowds.push(sleepers.measure(&rig).await?);
        done();
    }
    let transport = over(client.clone(), rig.subjects());
    let subjects = modules::store_many(&rig, transport.as_ref(), args.modules()).await?;
    done();
    (rig, _) = rig.restart_worker().await?;
    let ready = modules::make_ready(&rig, &client, &subjects).await?;
    done();
    let parts = call(&rig, Generator::new(client).await?, &subjects, args, done).await?;
    let code = Code::of(rig.worker.pid(), rig.folder())?;
    rig.stop().await?;
    let report = MemoryReport {
        cores,
        executors,
        modules: args.modules(),
        idle,
        ready,
        code,
        suspended: sleepers.of(&crowds),
        calls: parts.last().map_or(0, |last| last.calls),
        growth_bytes: growth(&parts),
        parts,
        goals: Vec::new(),
    };
    Ok(report.with_goals())
}

/// A million calls of them all, or as many as there is time for, and memory after each part.
async fn call(
    rig: &Rig,
    mut generator: Generator,
    subjects: &[String],
    args: &BenchArgs,
    mut done: impl FnMut(),
) -> anyhow::Result<Vec<Part>> {
    let subjects: Vec<Subject> = subjects.iter().map(|subject| subject.as_str().into()).collect();
    let load = Load {
        subject: subjects[0].clone(),
        payload: "hello".into(),
        expected: Expected::Exactly("HELLO".into()),
        in_flight: IN_FLIGHT,
        duration: Duration::from_secs(args.seconds) / PARTS as u32,
    };
    let (mut parts, mut calls) = (Vec::new(), 0);
    for _ in 0..PARTS {
        calls += generator
            .run_at_most(&load, &subjects, CALLS / PARTS)
            .await?
            .calls;
        let memory = used(&rig.worker)?;
        parts.push(Part {
            calls,
            resident_bytes: memory.resident_bytes,
            anonymous_bytes: memory.anonymous_bytes,
        });
        done();
    }
    Ok(parts)
}

/// Nothing when it shrank.
fn growth(parts: &[Part]) -> u64 {
    let own = |part: Option<&Part>| part.map_or(0, |part| part.anonymous_bytes);
    own(parts.last()).saturating_sub(own(parts.first()))
}

impl MemoryReport {
    fn with_goals(self) -> Self {
        let [idle, ready] = modules::goals(self.idle.resident_bytes, &self.ready);
        let goals = vec![
            idle,
            ready,
            self.code.goal(),
            self.suspended.goal(),
            Goal::at_most(
                "growth after the first tenth of the calls, MiB",
                GROWTH_MIB,
                self.growth_bytes as f64 / MIB,
            ),
        ];
        Self { goals, ..self }
    }
}

impl Table<2> for MemoryReport {
    const COLUMNS: [&str; 2] = ["measured", ""];

    fn rows(&self) -> Vec<[String; 2]> {
        let size = |what: &str, bytes| [what.into(), output::size(bytes)];
        let both = |what: String, resident, own| {
            let (resident, own) = (output::size(resident), output::size(own));
            [what, format!("{resident} resident, {own} its own")]
        };
        let mut rows = vec![
            ["cores".into(), self.cores.to_string()],
            ["executors".into(), self.executors.to_string()],
            both("idle".into(), self.idle.resident_bytes, self.idle.anonymous_bytes),
            both(
                format!("each ready module, on {:.1} executors", self.ready.on),
                self.ready.resident_bytes,
                self.ready.anonymous_bytes,
            ),
            both(
                format!("compiled code of {} modules", self.modules),
                self.code.resident_bytes,
                self.code.private_bytes,
            ),
            [
                "guests suspended at once".into(),
                self.suspended.guests.to_string(),
            ],
            size("each, the first time", self.suspended.first_bytes),
            size("each, kept when they have ended", self.suspended.kept_bytes),
            size("each, on top, as many again", self.suspended.again_bytes),
            size("each, in all", self.suspended.grown_bytes),
        ];
        let after = |part: &Part| {
            both(
                format!("after {} calls", part.calls),
                part.resident_bytes,
                part.anonymous_bytes,
            )
        };
        rows.extend(self.parts.iter().map(after));
        rows.push(size("growth after the first tenth, its own", self.growth_bytes));
        rows
    }

    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(calls: u64, anonymous_bytes: u64) -> Part {
        Part {
            calls,
            resident_bytes: 64 << 20,
            anonymous_bytes,
        }
    }

    fn report(parts: Vec<Part>) -> MemoryReport {
        MemoryReport {
            cores: 2,
            executors: 2,
            modules: 10,
            idle: Memory {
                resident_bytes: 16 << 20,
                anonymous_bytes: 6 << 20,
                peak_bytes: 16 << 20,
            },
            ready: Ready {
                resident_bytes: 24 << 10,
                anonymous_bytes: 12 << 10,
                on: 2.0,
            },
            code: Code {
                resident_bytes: 1 << 20,
                private_bytes: 4096,
            },
            suspended: Suspended {
                guests: 96,
                first_bytes: 20 << 10,
                kept_bytes: 32 << 10,
                again_bytes: 8 << 10,
                grown_bytes: 40 << 10,
            },
            calls: 20,
            growth_bytes: growth(&parts),
            parts,
            goals: Vec::new(),
        }
    }

    #[test]
    fn growth_is_from_the_first_parts_end_to_the_last_ones_and_none_where_it_shrank() {
        let parts = [part(10, 5 << 20), part(20, 9 << 20), part(30, 8 << 20)];
        assert_eq!(growth(&parts), 3 << 20);
        assert_eq!(growth(&parts[1..]), 0);
        assert_eq!(growth(&[]), 0);
    }

    #[test]
    fn memory_is_held_against_its_goals_and_told_part_by_part() {
        let report = report(vec![part(10, 5 << 20), part(20, 8 << 20)]).with_goals();
        let measured: Vec<_> = report.goals.iter().map(|goal| goal.measured).collect();
        assert_eq!(measured, [16.0, 24.0, 4.0, 40.0, 3.0]);
        assert!(report.goals.iter().all(|goal| !goal.at_least));
        let after = ["after 20 calls", "64.00 MiB resident, 8.00 MiB its own"];
        assert!(
            report.rows().contains(&after.map(Into::into)),
            "{:?}",
            report.rows()
        );
    }
}
