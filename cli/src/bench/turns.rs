//! Those who are measured, in turn: A B A B, so that what disturbs the machine disturbs all of them.

use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;

use super::cases::{Cpu, Sample, WARM_UP, median};
use super::load::{Expected, Generator, Load, Measured};
use super::rig::{Rig, needs_own_server};
use super::usage::cpu_us;
use crate::args::BenchArgs;

/// One of those that take turns: what it is asked, and whose processor time that costs.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Where it listens.
    pub subject: Subject,
    /// What it is sent.
    pub payload: Bytes,
    /// What it must answer.
    pub expected: Expected,
    /// Its process, when that is one of this machine.
    pub pid: Option<u32>,
}

impl Contender {
    fn load(&self, in_flight: usize, duration: Duration) -> Load {
        Load {
            subject: self.subject.clone(),
            payload: self.payload.clone(),
            expected: self.expected.clone(),
            in_flight,
            duration,
        }
    }
}

/// One generator for all turns.
pub struct Turns {
    generator: Generator,
    nats_pid: Option<u32>,
}

impl Turns {
    /// Over this connection, to a server whose process may be known.
    pub async fn new(client: Client, nats_pid: Option<u32>) -> anyhow::Result<Self> {
        let generator = Generator::new(client).await?;
        Ok(Self { generator, nats_pid })
    }

    /// A turn for each, so many times, with so many calls in flight; each one's samples, a round's at the same place in all.
    /// `done` is called after each turn.
    pub async fn rounds(
        &mut self,
        contenders: &[Contender],
        in_flight: usize,
        (rounds, each): (u64, Duration),
        done: &mut impl FnMut(),
    ) -> anyhow::Result<Vec<Vec<Sample>>> {
        let mut samples = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for (contender, samples) in contenders.iter().zip(&mut samples) {
                samples.push(self.turn(contender, in_flight, each).await?);
                done();
            }
        }
        Ok(samples)
    }

    /// One turn, the first part of it unmeasured.
    pub async fn turn(
        &mut self,
        contender: &Contender,
        in_flight: usize,
        duration: Duration,
    ) -> anyhow::Result<Sample> {
        let warm_up = duration.mul_f64(WARM_UP);
        self.run(contender, in_flight, warm_up).await?;
        let (sample, _) = self.measure(contender, in_flight, duration - warm_up).await?;
        Ok(sample)
    }

    /// What came of so many calls in flight for so long, and how long that was to the last answer.
    pub async fn measure(
        &mut self,
        contender: &Contender,
        in_flight: usize,
        duration: Duration,
    ) -> anyhow::Result<(Sample, Duration)> {
        let pids = [self.nats_pid, contender.pid, Some(std::process::id())];
        let before = pids.map(|pid| pid.and_then(cpu_us));
        let measured = self.run(contender, in_flight, duration).await?;
        let after = pids.map(|pid| pid.and_then(cpu_us));
        let per_call =
            |at: usize| Some((after[at]?.saturating_sub(before[at]?)) as f64 / measured.calls as f64);
        let cpu = Cpu {
            nats: per_call(0),
            responder: per_call(1),
            generator: per_call(2),
        };
        Ok((Sample::of(&measured, cpu), measured.elapsed))
    }

    /// So many calls in flight for so long, without a look at what they cost.
    pub async fn run(
        &mut self,
        contender: &Contender,
        in_flight: usize,
        duration: Duration,
    ) -> anyhow::Result<Measured> {
        self.generator.run(&contender.load(in_flight, duration)).await
    }
}

/// What each did in its turns, for each number of calls in flight.
pub type AtEach = Vec<(usize, Vec<Vec<Sample>>)>;

/// A scenario in which everybody has the same worker: its turns with each number of calls in flight. `done` is called after each.
pub async fn at_each(
    (args, scenario): (&BenchArgs, &str),
    in_flight: &[usize],
    contenders: impl AsyncFnOnce(&Rig, &Client) -> anyhow::Result<Vec<Contender>>,
    mut done: impl FnMut(),
) -> anyhow::Result<AtEach> {
    needs_own_server(args, scenario)?;
    let rig = Rig::start(args).await?;
    let client = rig.connect().await?;
    let contenders = contenders(&rig, &client).await?;
    let mut turns = Turns::new(client, rig.nats_pid()).await?;
    let count = args.rounds * (contenders.len() * in_flight.len()) as u64;
    let each = Duration::from_secs(args.seconds) / u32::try_from(count)?;
    let mut all = AtEach::new();
    for in_flight in in_flight {
        let turn = (args.rounds, each);
        let samples = turns.rounds(&contenders, *in_flight, turn, &mut done);
        all.push((*in_flight, samples.await?));
    }
    rig.stop().await?;
    Ok(all)
}

/// The one's rate as a part of the other's: the median of the rounds' ratios.
pub fn ratio(one: &[Sample], other: &[Sample]) -> f64 {
    let pairs = one.iter().zip(other);
    median(pairs.map(|(one, other)| one.calls_per_s / other.calls_per_s))
}
