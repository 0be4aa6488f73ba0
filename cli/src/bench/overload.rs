//! `wess bench --scenario overload`: three times what a worker can do is offered by a generator that does not wait. Every call
//! must be answered or refused with a code, the worker must still do about what it can, and be itself again a second later.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;

use super::cases::median;
use super::flood::{Fates, Flood, Flooder};
use super::goals::Goal;
use super::load::{Expected, Generator, Load, Measured};
use super::modules;
use super::report::Table;
use super::rig::Rig;
use super::usage;
use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::over;

/// Turns of the guest's loop: some 400 µs. What generator and server need for each call that is offered is taken from the same
/// cores: of a guest that does nothing three times its capacity could not be offered, and of a short one it would leave no room.
const TURNS: u32 = 900_000;
const BYTES: usize = 64;
/// Calls in flight by which capacity is measured.
const CAPACITY_IN_FLIGHT: usize = 256;
/// Calls in flight of a normal load.
const NORMAL_IN_FLIGHT: usize = 50;
/// How much of the capacity is offered.
const TIMES: f64 = 3.0;
/// How long a capacity or a normal load is measured at most.
const WINDOW: Duration = Duration::from_secs(1);
/// How soon after the overload the worker should be itself again.
const RECOVERY: Duration = Duration::from_secs(1);

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct OverloadReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Answers a second to calls that wait for each other.
    pub capacity_per_s: f64,
    /// Calls a second that were really offered.
    pub offered_per_s: f64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Calls in all.
    pub calls: u64,
    /// Those that were answered, whenever.
    pub answered: u64,
    /// Those that were refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Those of which nothing was heard.
    pub lost: u64,
    /// Answers a second while it was offered.
    pub goodput_per_s: f64,
    /// The worker's resident memory before, in bytes.
    pub before_bytes: Option<u64>,
    /// The most that it was, in bytes.
    pub peak_bytes: Option<u64>,
    /// Of a normal load before, in microseconds.
    pub p99_before_us: f64,
    /// Of the same a second after, in microseconds.
    pub p99_after_us: f64,
    /// What was wanted.
    pub goals: Vec<Goal>,
}

/// How many steps a run has.
pub fn count(args: &BenchArgs) -> u64 {
    args.rounds + 2
}

/// Measures everything; `done` is called after each step.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<OverloadReport> {
    if args.nats.is_some() {
        let text = "--scenario overload floods a nats-server of its own: --nats is for calls";
        return Err(Fault::local(Exit::Config, text).into());
    }
    let rig = Rig::start(args).await?;
    let client = rig.connect().await?;
    let transport = over(client.clone(), rig.subjects());
    let name = "wess-bench-spin";
    modules::store_wasm(transport.as_ref(), name, modules::spin(TURNS)?.into()).await?;
    let mut generator = Generator::new(client).await?;
    let duration = Duration::from_secs(args.seconds);
    let load = load(modules::subject(&rig, name)?, WINDOW.min(duration / 8));
    let capacity = Load {
        in_flight: CAPACITY_IN_FLIGHT,
        ..load.clone()
    };
    // What is cold is not what the worker can do.
    generator.run(&capacity).await?;
    let (mut rates, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        rates.push(rate(&generator.run(&capacity).await?));
        p99s.push(p99_us(&generator.run(&load).await?));
        done();
    }
    let capacity_per_s = median(rates.into_iter());
    let before = usage::memory(rig.worker.pid());
    let mut flooder = Flooder::connect(rig.url()).await?;
    let flood = Flood {
        subject: load.subject.to_string(),
        payload: load.payload.clone(),
        expected: load.expected.clone(),
        calls_per_s: capacity_per_s * TIMES,
        duration,
    };
    let mut fates = flooder.offer(&flood).await?;
    done();
    tokio::time::sleep(RECOVERY).await;
    let after = generator
        .run(&load)
        .await
        .context("the worker does not answer any more")?;
    flooder.settle(&flood, &mut fates).await?;
    done();
    let peak = usage::memory(rig.worker.pid());
    let report = OverloadReport {
        before_bytes: before.map(|memory| memory.resident_bytes),
        peak_bytes: peak.map(|memory| memory.peak_bytes),
        p99_before_us: median(p99s.into_iter()),
        p99_after_us: p99_us(&after),
        ..OverloadReport::of(capacity_per_s, &fates)
    };
    rig.stop().await?;
    Ok(report.with_goals())
}

fn load(subject: String, duration: Duration) -> Load {
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(BYTES).collect();
    let expected = Expected::Exactly(payload.to_ascii_uppercase().into());
    Load {
        subject: subject.into(),
        payload: Bytes::from(payload),
        expected,
        in_flight: NORMAL_IN_FLIGHT,
        duration,
    }
}

fn rate(measured: &Measured) -> f64 {
    measured.calls as f64 / measured.elapsed.as_secs_f64()
}

fn p99_us(measured: &Measured) -> f64 {
    measured.latency_ns.value_at_quantile(0.99) as f64 / 1000.0
}

impl OverloadReport {
    fn of(capacity_per_s: f64, fates: &Fates) -> Self {
        let seconds = fates.sending.as_secs_f64();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            capacity_per_s,
            offered_per_s: fates.sent as f64 / seconds,
            seconds,
            calls: fates.sent,
            answered: fates.answered,
            refused: fates.refused.clone(),
            lost: fates.lost(),
            goodput_per_s: fates.answered_meanwhile as f64 / seconds,
            before_bytes: None,
            peak_bytes: None,
            p99_before_us: 0.0,
            p99_after_us: 0.0,
            goals: Vec::new(),
        }
    }

    fn with_goals(self) -> Self {
        let of_capacity = |rate: f64| rate / self.capacity_per_s;
        let goals = vec![
            // A generator that falls a little behind has still offered far too much.
            Goal::at_least(
                "offered, of capacity",
                TIMES * 0.95,
                of_capacity(self.offered_per_s),
            ),
            Goal::at_most("calls lost", 0.0, self.lost as f64),
            Goal::at_least("goodput, of capacity", 0.8, of_capacity(self.goodput_per_s)),
            Goal::at_most(
                "p99 of a normal load a second after, of before",
                2.0,
                self.p99_after_us / self.p99_before_us,
            ),
        ];
        Self { goals, ..self }
    }
}

impl Table<2> for OverloadReport {
    const COLUMNS: [&str; 2] = ["measured", ""];

    fn rows(&self) -> Vec<[String; 2]> {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), output::size);
        let rate = |rate: f64| format!("{rate:.0} calls/s");
        let us = |us: f64| format!("{us:.0} µs");
        let mut rows = vec![
            ["cores".into(), self.cores.to_string()],
            ["capacity, 256 in flight".into(), rate(self.capacity_per_s)],
            [
                format!("offered for {:.0} s", self.seconds),
                rate(self.offered_per_s),
            ],
            ["answered meanwhile".into(), rate(self.goodput_per_s)],
            ["calls".into(), self.calls.to_string()],
            ["answered".into(), self.answered.to_string()],
        ];
        let refused = self.refused.iter();
        rows.extend(refused.map(|(code, count)| [format!("refused, {code}"), count.to_string()]));
        rows.extend([
            ["lost".into(), self.lost.to_string()],
            ["worker before, resident".into(), size(self.before_bytes)],
            ["worker at most, resident".into(), size(self.peak_bytes)],
            ["p99 before, 50 in flight".into(), us(self.p99_before_us)],
            ["p99 a second after, 50 in flight".into(), us(self.p99_after_us)],
        ]);
        rows
    }

    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_is_what_was_answered_while_it_was_offered() {
        let fates = Fates {
            sending: Duration::from_secs(2),
            sent: 600,
            answered: 250,
            answered_meanwhile: 180,
            refused: [("overloaded".into(), 349)].into(),
            ..Fates::default()
        };
        let report = OverloadReport {
            p99_before_us: 100.0,
            p99_after_us: 150.0,
            ..OverloadReport::of(100.0, &fates)
        };
        let goals = report.with_goals().goals;
        let measured: Vec<_> = goals.iter().map(|goal| goal.measured).collect();
        assert_eq!(measured, [3.0, 1.0, 0.9, 1.5]);
    }
}
