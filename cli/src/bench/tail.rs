//! `wess bench --scenario tail`: what short calls notice of guests that burn beside them, and how much of a core is left for those.
//!
//! Quiet and burning in turn: what disturbs the machine disturbs both.

use std::cell::Cell;
use std::time::Duration;

use anyhow::ensure;
use async_nats::{Client, Subject};
use futures_util::future::{try_join, try_join_all};
use serde::Serialize;
use wess_schemas::Limits;
use wess_schemas::settings::SettingsChange;

use super::burner::{Burner, INPUT};
use super::cases::{Sample, WARM_UP, letters, median};
use super::goals::Goal;
use super::load::Expected;
use super::modules::upper;
use super::report::{Table, sample_row};
use super::rig::{Rig, needs_own_server};
use super::turns::{Contender, Turns, ratio};
use crate::args::BenchArgs;

const BYTES: usize = 64;
/// Short calls at once.
const IN_FLIGHT: usize = 50;
/// Guests that burn at once.
const BURNERS: u32 = 4;
/// How long each of them burns.
const BURN: Duration = Duration::from_millis(85);
/// How long one may take in all: beside others it gets a part of a core only.
const BURNER_LIMIT_MS: u64 = 60_000;
const RATE_GOAL: f64 = 0.85;
const P99_GOAL: f64 = 2.0;
const CORE_GOAL: f64 = 0.40;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct TailReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Short calls at once.
    pub in_flight: usize,
    /// Short calls alone.
    pub quiet: Sample,
    /// Short calls beside burners.
    pub beside: Sample,
    /// Their rate beside burners, as a part of that alone: the median of the rounds' ratios.
    pub rate_ratio: f64,
    /// The same of their 99th percentile.
    pub p99_ratio: f64,
    /// The burners.
    pub burners: Burners,
    /// What this should have come to.
    pub goals: Vec<Goal>,
}

/// What became of those that burn.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Burners {
    /// How many at once.
    pub at_once: u32,
    /// Processor time of one call by Wasmtime alone, in microseconds.
    pub burn_us: f64,
    /// How many were answered while short calls were measured, in all rounds.
    pub answered: u64,
    /// What part of one core that was: the median of the rounds.
    pub of_core: f64,
}

/// How many measurements there are in a round.
pub const COUNT: u64 = 2;

/// What is measured: both modules, stored.
struct Field {
    rig: Rig,
    client: Client,
    short: Contender,
    burning: Subject,
    burner: Burner,
}

impl Field {
    async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        needs_own_server(args, "tail")?;
        let burner = Burner::of(BURN)?;
        let rig = Rig::start(args).await?;
        let client = rig.connect().await?;
        let subject = rig
            .store(&client, "short", upper(0)?.into(), SettingsChange::default())
            .await?;
        let input = letters(BYTES);
        let short = Contender {
            subject,
            expected: Expected::Exactly(input.to_ascii_uppercase().into()),
            payload: input.into(),
            pid: Some(rig.worker.pid()),
        };
        let limits = Limits {
            timeout_ms: Some(BURNER_LIMIT_MS),
            ..Limits::default()
        };
        let terms = SettingsChange {
            limits: Some(limits),
            settings: None,
        };
        let burning = rig.store(&client, "burning", burner.wasm.clone(), terms).await?;
        Ok(Self {
            rig,
            client,
            short,
            burning,
            burner,
        })
    }
}

/// What one round of burning came to.
struct Beside {
    sample: Sample,
    answered: u64,
    of_core: f64,
}

/// Measures quiet and burning in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<TailReport> {
    let field = Field::start(args).await?;
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * COUNT)?;
    let mut turns = Turns::new(field.rig.connect().await?, field.rig.nats_pid()).await?;
    let (mut quiet, mut rounds) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        quiet.push(turns.turn(&field.short, IN_FLIGHT, each).await?);
        done();
        rounds.push(beside(&mut turns, &field, each).await?);
        done();
    }
    let burn_us = field.burner.burn_us;
    field.rig.stop().await?;
    Ok(report(&quiet, &rounds, burn_us))
}

fn report(quiet: &[Sample], rounds: &[Beside], burn_us: f64) -> TailReport {
    let beside: Vec<Sample> = rounds.iter().map(|round| round.sample).collect();
    let rate_ratio = ratio(&beside, quiet);
    let p99s = beside.iter().zip(quiet);
    let p99_ratio = median(p99s.map(|(beside, quiet)| beside.p99_us / quiet.p99_us));
    let of_core = median(rounds.iter().map(|round| round.of_core));
    TailReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        in_flight: IN_FLIGHT,
        quiet: Sample::median(quiet),
        beside: Sample::median(&beside),
        rate_ratio,
        p99_ratio,
        burners: Burners {
            at_once: BURNERS,
            burn_us,
            answered: rounds.iter().map(|round| round.answered).sum(),
            of_core,
        },
        goals: vec![
            Goal::at_least("rate beside burners, of that without", RATE_GOAL, rate_ratio),
            Goal::at_most("p99 beside burners, times that without", P99_GOAL, p99_ratio),
            Goal::at_least("of a core for burners", CORE_GOAL, of_core),
        ],
    }
}

/// Burners burn before the short calls are measured and until after: of those, as many begin in the time that is measured
/// as end in it, so that those that end in it tell what was burnt in it.
async fn beside(turns: &mut Turns, field: &Field, each: Duration) -> anyhow::Result<Beside> {
    let (answered, over) = (Cell::new(0), Cell::new(false));
    let short = async {
        let warm_up = each.mul_f64(WARM_UP).max(BURN * BURNERS);
        turns.run(&field.short, IN_FLIGHT, warm_up).await?;
        let before = answered.get();
        let measured = turns.measure(&field.short, IN_FLIGHT, each).await?;
        over.set(true);
        anyhow::Ok((measured, answered.get() - before))
    };
    let burning = try_join_all((0..BURNERS).map(|at| burn(field, at, &answered, &over)));
    let (((sample, elapsed), answered), _) = try_join(short, burning).await?;
    let burnt_us = answered as f64 * field.burner.burn_us;
    Ok(Beside {
        sample,
        answered,
        of_core: burnt_us / 1e6 / elapsed.as_secs_f64(),
    })
}

/// One burner after the other until all is over. Each of these lanes begins apart from the others, or all would end at once.
async fn burn(field: &Field, at: u32, answered: &Cell<u64>, over: &Cell<bool>) -> anyhow::Result<()> {
    tokio::time::sleep(BURN * at / BURNERS).await;
    while !over.get() {
        let call = async_nats::Request::new()
            .payload(INPUT.into())
            .timeout(Some(Duration::from_millis(BURNER_LIMIT_MS)));
        let answer = field.client.send_request(field.burning.clone(), call).await?;
        ensure!(
            answer.payload == field.burner.answer,
            "a burner answered {:?}",
            answer.payload
        );
        answered.set(answered.get() + 1);
    }
    Ok(())
}

impl Table<8> for TailReport {
    const COLUMNS: [&str; 8] = [
        "what",
        "answers/s",
        "of quiet",
        "p50 µs",
        "p99 µs",
        "of quiet",
        "answered",
        "of a core",
    ];

    fn rows(&self) -> Vec<[String; 8]> {
        let short = |what: String, sample: &Sample, [rate_ratio, p99_ratio]: [String; 2]| {
            let [rate, p50, p99, ..] = sample_row(sample);
            [
                what,
                rate,
                rate_ratio,
                p50,
                p99,
                p99_ratio,
                String::new(),
                String::new(),
            ]
        };
        let Burners {
            at_once,
            burn_us,
            answered,
            of_core,
        } = self.burners;
        let mut burners: [String; 8] = Default::default();
        burners[0] = format!("{at_once} burners of {:.0} ms", burn_us / 1000.0);
        burners[6] = answered.to_string();
        burners[7] = format!("{of_core:.2}");
        let ratios = [self.rate_ratio, self.p99_ratio].map(|ratio| format!("{ratio:.2}"));
        vec![
            short(
                format!("{} short calls", self.in_flight),
                &self.quiet,
                Default::default(),
            ),
            short("the same beside burners".into(), &self.beside, ratios),
            burners,
        ]
    }

    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(calls_per_s: f64, p99_us: f64) -> Sample {
        Sample {
            p99_us,
            ..Sample::of_rate(calls_per_s)
        }
    }

    #[test]
    fn a_report_compares_round_by_round_and_counts_all_burners() {
        let quiet = [(100.0, 10.0), (200.0, 20.0), (400.0, 40.0)].map(|(rate, p99)| sample(rate, p99));
        let rounds =
            [(90.0, 15.0, 0.5), (100.0, 30.0, 0.2), (380.0, 60.0, 0.4)].map(|(rate, p99, of_core)| Beside {
                sample: sample(rate, p99),
                answered: 7,
                of_core,
            });
        let report = report(&quiet, &rounds, 85_000.0);
        let measured: Vec<f64> = report.goals.iter().map(|goal| goal.measured).collect();
        assert_eq!(measured, [0.9, 1.5, 0.4]);
        assert_eq!(report.burners.answered, 21);
        assert_eq!(report.rows()[2][0], "4 burners of 85 ms");
    }
}
