//! What a worker holds for guests that wait for the host, all of them at once: as many as its slots take without a line.
//!
//! Each measurement begins with a worker that was just started, so that what its pools keep is seen once and not again.

use std::time::Duration;

use anyhow::{bail, ensure};
use async_nats::{Client, Request, Subject};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use wess_schemas::Limits;
use wess_schemas::settings::SettingsChange;

use super::cases::median;
use super::goals::Goal;
use super::metrics::Metrics;
use super::modules::{CALLS_OF_EACH, used};
use super::rig::Rig;
use super::usage::KIB;

const SLEEPER: &str = include_str!("sleeper.wat");
const AWAKE: &[u8] = b"awake";
/// Guests for each executor: fewer than its 64 slots, as NATS does not deal calls evenly.
const FOR_EACH_EXECUTOR: u64 = 48;
/// Guests at most, as a worker of very many executors has fewer slots on each.
const MAX_GUESTS: u64 = 1000;
/// How long each waits: until all of them do, on a machine that has other things to do as well.
const NAP: Duration = Duration::from_secs(3);
/// How long a call may take at most.
const LIMIT: Duration = Duration::from_secs(30);
/// How often the worker is asked how many there are.
const LOOK: Duration = Duration::from_millis(20);
const BUSY: &str = "worker_slots_busy";
/// How much more a guest may take.
const GOAL_KIB: f64 = 32.0;

/// The worker's own memory for each guest that waits, in bytes: medians of the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Suspended {
    /// How many wait at once.
    pub guests: u64,
    /// More for each while they wait for the first time.
    pub first_bytes: u64,
    /// More for each when they have ended, which is what pools keep: a page is cleared by hand, so that all of it is there then.
    pub kept_bytes: u64,
    /// More for each, on top of that, while as many wait again.
    pub again_bytes: u64,
    /// The most for each, all in all, that the worker has grown by.
    pub grown_bytes: u64,
}

/// What they are called by.
pub struct Sleepers {
    client: Client,
    subject: Subject,
    executors: u16,
    guests: u64,
}

/// The worker's own memory around two crowds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Crowds {
    before: u64,
    first: u64,
    between: u64,
    again: u64,
}

impl Sleepers {
    /// Stores the guest, of which so many executors are to have their share.
    pub async fn store(rig: &Rig, client: Client, executors: u16) -> anyhow::Result<Self> {
        let limits = Limits {
            timeout_ms: Some(LIMIT.as_millis() as u64),
            ..Limits::default()
        };
        let terms = SettingsChange {
            limits: Some(limits),
            settings: None,
        };
        let wasm = wat::parse_str(SLEEPER)?;
        let subject = rig.store(&client, "sleeper", wasm.into(), terms).await?;
        Ok(Self {
            client,
            subject,
            executors,
            guests: MAX_GUESTS.min(u64::from(executors) * FOR_EACH_EXECUTOR),
        })
    }

    /// Two crowds, one after the other, on a worker that has run nothing yet.
    pub async fn measure(&self, rig: &Rig) -> anyhow::Result<Crowds> {
        // The module itself is none of the guests' memory.
        for _ in 0..CALLS_OF_EACH * usize::from(self.executors) {
            self.call(Duration::ZERO).await?;
        }
        self.are_suspended(rig, 0).await?;
        let before = used(&rig.worker)?.anonymous_bytes;
        let first = self.crowd(rig).await?;
        let between = used(&rig.worker)?.anonymous_bytes;
        let again = self.crowd(rig).await?;
        Ok(Crowds {
            before,
            first,
            between,
            again,
        })
    }

    /// The worker's own memory while all of them wait; returns when all have ended.
    async fn crowd(&self, rig: &Rig) -> anyhow::Result<u64> {
        let naps = stream::iter(0..self.guests).map(|_| self.call(NAP));
        let naps = naps.buffer_unordered(self.guests as usize).try_collect::<()>();
        let look = async {
            self.are_suspended(rig, self.guests).await?;
            Ok(used(&rig.worker)?.anonymous_bytes)
        };
        let ((), bytes) = tokio::try_join!(naps, look)?;
        self.are_suspended(rig, 0).await?;
        Ok(bytes)
    }

    /// Waits until so many are.
    async fn are_suspended(&self, rig: &Rig, guests: u64) -> anyhow::Result<()> {
        let mut most = 0;
        let mut looks = tokio::time::interval(LOOK);
        let looking = async {
            loop {
                looks.tick().await;
                let busy = Metrics::read(&rig.worker).await?.number(BUSY)?;
                most = most.max(busy);
                if busy == guests {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(NAP, looking).await {
            Ok(found) => found,
            Err(_) => bail!("{guests} guests were to wait at once, {most} did at most"),
        }
    }

    async fn call(&self, nap: Duration) -> anyhow::Result<()> {
        let nanoseconds = Bytes::copy_from_slice(&(nap.as_nanos() as u64).to_le_bytes());
        let request = Request::new().payload(nanoseconds).timeout(Some(LIMIT));
        let answer = self.client.send_request(self.subject.clone(), request).await?;
        ensure!(
            answer.payload == AWAKE,
            "{} answered {:?}",
            self.subject,
            answer.payload
        );
        Ok(())
    }

    /// What all rounds came to.
    pub fn of(&self, rounds: &[Crowds]) -> Suspended {
        Suspended::of(self.guests, rounds)
    }
}

impl Suspended {
    fn of(guests: u64, rounds: &[Crowds]) -> Self {
        let each = |more: fn(&Crowds) -> u64| {
            let bytes = rounds.iter().map(|crowds| more(crowds) as f64 / guests as f64);
            median(bytes).round() as u64
        };
        Self {
            guests,
            first_bytes: each(|crowds| crowds.first.saturating_sub(crowds.before)),
            kept_bytes: each(|crowds| crowds.between.saturating_sub(crowds.before)),
            again_bytes: each(|crowds| crowds.again.saturating_sub(crowds.between)),
            grown_bytes: each(|crowds| crowds.first.max(crowds.again).saturating_sub(crowds.before)),
        }
    }

    /// What the process has really grown by: for a guest it needs what its pools keep for that as well.
    pub fn goal(&self) -> Goal {
        Goal::at_most(
            "each suspended guest, KiB",
            GOAL_KIB,
            self.grown_bytes as f64 / KIB,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_is_told_its_part_of_what_the_worker_grew_by() {
        let crowds = |first, again| Crowds {
            before: 1000,
            first,
            between: 1400,
            again,
        };
        let rounds = [crowds(5000, 2400), crowds(4200, 1800), crowds(1500, 6000)];
        let suspended = Suspended::of(4, &rounds);
        assert_eq!(
            (suspended.first_bytes, suspended.kept_bytes, suspended.again_bytes),
            (800, 100, 250)
        );
        assert_eq!((suspended.guests, suspended.grown_bytes), (4, 1000));
    }

    #[test]
    fn the_goal_is_on_all_that_the_worker_grew_by() {
        let suspended = Suspended {
            guests: 1,
            first_bytes: 24 << 10,
            kept_bytes: 40 << 10,
            again_bytes: 8 << 10,
            grown_bytes: 48 << 10,
        };
        let goal = suspended.goal();
        assert_eq!((goal.goal, goal.at_least, goal.measured), (32.0, false, 48.0));
    }
}
