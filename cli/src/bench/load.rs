//! The generator: so many calls in flight over one connection, each answer timed and checked.
//!
//! One wildcard inbox for all of them: a slot is a reply subject, used again as soon as its answer is there. That
//! costs the generator less than a request of the client library does, so that less of it is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{Client, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use hdrhistogram::Histogram;

/// How long the last answers may take after the time is over.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What to send, for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub subject: Subject,
    /// What.
    pub payload: Bytes,
    /// What must come back.
    pub expected: Expected,
    /// How many at once.
    pub in_flight: usize,
    /// How long.
    pub duration: Duration,
}

/// What every answer must be.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These bytes.
    Exactly(Bytes),
    /// Something with these bytes in it.
    Holding(Bytes),
}

impl Expected {
    /// Whether this answer is.
    pub fn is_met_by(&self, answer: &[u8]) -> bool {
        match self {
            Self::Exactly(bytes) => answer == bytes,
            Self::Holding(bytes) => memchr::memmem::find(answer, bytes).is_some(),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    /// Answered calls.
    pub calls: u64,
    /// From the first call to the last answer.
    pub elapsed: Duration,
    /// From each call to its answer, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

/// One connection with its inbox.
pub struct Generator {
    client: Client,
    inbox: String,
    answers: Subscriber,
}

impl Generator {
    /// Subscribes the inbox.
    pub async fn new(client: Client) -> anyhow::Result<Self> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        client.flush().await?;
        Ok(Self {
            client,
            inbox,
            answers,
        })
    }

    /// Sends until the time is over, then waits for the last answers.
    pub async fn run(&mut self, load: &Load) -> anyhow::Result<Measured> {
        self.run_among(load, std::slice::from_ref(&load.subject)).await
    }

    /// As [`Generator::run`], but each call goes to any of `subjects`, the same ones in every run.
    pub async fn run_among(&mut self, load: &Load, subjects: &[Subject]) -> anyhow::Result<Measured> {
        self.run_at_most(load, subjects, u64::MAX).await
    }

    /// As [`Generator::run_among`], but with so many calls at most; those that are in flight at once are always sent.
    pub async fn run_at_most(
        &mut self,
        load: &Load,
        subjects: &[Subject],
        most: u64,
    ) -> anyhow::Result<Measured> {
        let mut dice = Dice::new();
        let replies: Vec<Subject> = (0..load.in_flight)
            .map(|slot| format!("{}.{slot}", self.inbox).into())
            .collect();
        let started = Instant::now();
        let mut sent = vec![started; load.in_flight];
        for (slot, reply) in replies.iter().enumerate() {
            self.send(dice.pick(subjects), load, reply, &mut sent[slot])
                .await?;
        }
        let mut latency_ns = Histogram::new(3)?;
        let (mut flying, mut left) = (load.in_flight, most.saturating_sub(load.in_flight as u64));
        while flying > 0 {
            let answer = tokio::time::timeout(load.duration + LAST_ANSWERS, self.answers.next());
            let answer = answer
                .await
                .context("an answer is missing")?
                .context("the connection is gone")?;
            let slot = slot_of(&answer).context("an answer to nothing that was asked")?;
            check(&answer, load)?;
            latency_ns.record(sent[slot].elapsed().as_nanos() as u64)?;
            if left > 0 && started.elapsed() < load.duration {
                left -= 1;
                self.send(dice.pick(subjects), load, &replies[slot], &mut sent[slot])
                    .await?;
            } else {
                flying -= 1;
            }
        }
        Ok(Measured {
            calls: latency_ns.len(),
            elapsed: started.elapsed(),
            latency_ns,
        })
    }

    async fn send(
        &self,
        subject: &Subject,
        load: &Load,
        reply: &Subject,
        sent: &mut Instant,
    ) -> anyhow::Result<()> {
        *sent = Instant::now();
        Ok(self
            .client
            .publish_with_reply(subject.clone(), reply.clone(), load.payload.clone())
            .await?)
    }
}

/// Numbers that look random: Marsaglia's xorshift with 64 bits.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The remainder is below a length, so that it is an index.
        &from[(self.0 % from.len() as u64) as usize]
    }
}

fn slot_of(answer: &Message) -> Option<usize> {
    answer.subject.rsplit('.').next()?.parse().ok()
}

/// A rate of wrong answers would be worth nothing.
fn check(answer: &Message, load: &Load) -> anyhow::Result<()> {
    let answered = || String::from_utf8_lossy(&answer.payload[..answer.payload.len().min(200)]).into_owned();
    ensure!(
        load.expected.is_met_by(&answer.payload),
        "{} answered {:?}",
        load.subject,
        answered()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_met_whole_or_by_what_it_holds() {
        let exactly = Expected::Exactly("AB".into());
        assert!(exactly.is_met_by(b"AB") && !exactly.is_met_by(b"ABC"));
        let holding = Expected::Holding("AB".into());
        assert!(holding.is_met_by(b"xABx") && !holding.is_met_by(b"A"));
    }

    #[test]
    fn dice_throw_every_number_about_as_often() {
        let (mut dice, faces) = (Dice::new(), [0, 1, 2, 3]);
        let mut thrown = [0; 4];
        for _ in 0..4000 {
            thrown[*dice.pick(&faces)] += 1;
        }
        assert!(
            thrown.iter().all(|count| (900..1100).contains(count)),
            "{thrown:?}"
        );
    }
}
