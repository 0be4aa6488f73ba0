//! This worker among the others: it beats, hears who else does, and knows what they have seen of the catalog.
//!
//! A worker that has not listened for a whole [`BEAT_EXPIRY`] does not claim to know who is there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, SubscribeError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wess_schemas::WorkerId;
use wess_schemas::beat::{BEAT_INTERVAL, WorkerBeat};
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::Connection;
use wess_service::peers::{Beats, Heard, Peer, Peers};

/// How long a change waits for the others.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(1);

/// How busy this worker is, and has been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Guests running or suspended.
    pub busy: u32,
    /// Guests that may.
    pub total: u32,
    /// Calls waiting for a slot.
    pub waiting: u32,
    /// Calls answered since the start.
    pub answered: u64,
}

/// Asked before each beat. Must not block.
pub type CountSlots = Arc<dyn Fn() -> SlotCounts + Send + Sync>;

/// The fleet as this worker hears it. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    worker: WorkerId,
    client: Client,
    subject: String,
    revision: watch::Receiver<u64>,
    peers: watch::Sender<Peers>,
}

impl Fleet {
    /// Begins to listen to the others. `revision` is that of this worker's own catalog.
    pub async fn listen(
        worker: WorkerId,
        subjects: &Subjects,
        connection: &Connection,
        revision: watch::Receiver<u64>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, SubscribeError> {
        let (client, subject) = (connection.client.clone(), subjects.worker_beat());
        let beats = Beats::subscribe(connection, subjects).await?;
        let peers = watch::Sender::new(Peers::new(Instant::now()));
        let fleet = Self(Arc::new(Inner {
            worker,
            client,
            subject,
            revision,
            peers,
        }));
        let hearing = fleet.clone().hear(beats);
        lifecycle.spawn_background("hear beats", until(lifecycle.closed.clone(), hearing));
        Ok(fleet)
    }

    /// Begins to beat. To be called once every subscription of this worker is known to the server.
    pub fn beat(&self, slots: CountSlots, lifecycle: &Lifecycle) {
        let beating = self.clone().keep_beating(slots, lifecycle.shutdown.clone());
        lifecycle.spawn_background("beat", until(lifecycle.closed.clone(), beating));
    }

    /// How many workers beat, this one included.
    pub fn workers(&self) -> usize {
        1 + self.0.peers.borrow().alive(Instant::now()).count()
    }

    /// Whether another worker takes work.
    pub fn has_others(&self) -> bool {
        any(&self.0.peers.borrow(), Instant::now(), |_| true)
    }

    /// Whether another worker takes work and had a free slot when it last beat.
    pub fn others_have_room(&self) -> bool {
        any(&self.0.peers.borrow(), Instant::now(), has_room)
    }

    /// Waits until every beating worker that takes work has seen a revision of the catalog, at most a second.
    pub async fn propagated(&self, revision: u64) -> bool {
        let everybody = async { self.seen_here(revision).await && self.seen_elsewhere(revision).await };
        tokio::time::timeout(PROPAGATION_TIMEOUT, everybody)
            .await
            .unwrap_or(false)
    }

    async fn seen_here(&self, revision: u64) -> bool {
        let mut seen = self.0.revision.clone();
        seen.wait_for(|seen| *seen >= revision).await.is_ok()
    }

    /// `false` only when nobody listens any more.
    async fn seen_elsewhere(&self, revision: u64) -> bool {
        let mut peers = self.0.peers.subscribe();
        loop {
            let Some(until) = lagging_until(&peers.borrow_and_update(), revision, Instant::now()) else {
                return true;
            };
            tokio::select! {
                changed = peers.changed() => if changed.is_err() { return false },
                () = tokio::time::sleep_until(until) => (),
            }
        }
    }

    async fn hear(self, mut beats: Beats) {
        while let Some(heard) = beats.next().await {
            let now = Instant::now();
            match heard {
                Heard::Beat(beat) if beat.worker == self.0.worker => (),
                Heard::Beat(beat) => self.0.peers.send_modify(|peers| {
                    peers.hear(beat, now);
                }),
                Heard::Reconnected => self.0.peers.send_modify(|peers| peers.listen_anew(now)),
                Heard::Disconnected => (),
            }
        }
    }

    async fn keep_beating(self, slots: CountSlots, shutdown: CancellationToken) {
        let mut revision = self.0.revision.clone();
        let mut ticks = tokio::time::interval(BEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => (),
                Ok(()) = revision.changed() => (),
                () = shutdown.cancelled(), if !draining => draining = true,
            }
            let revision = *revision.borrow_and_update();
            self.send(slots(), revision, draining).await;
        }
    }

    /// Without a connection nothing is sent: old beats that arrive late would say what is no longer so.
    async fn send(&self, slots: SlotCounts, catalog_revision: u64, draining: bool) {
        if self.0.client.connection_state() != State::Connected {
            return;
        }
        let beat = WorkerBeat {
            worker: self.0.worker.clone(),
            slots_busy: slots.busy,
            slots_total: slots.total,
            waiting: slots.waiting,
            catalog_revision,
            draining,
            calls_answered: slots.answered,
        };
        let sent = match serde_json::to_vec(&beat) {
            Ok(payload) => self
                .0
                .client
                .publish(self.0.subject.clone(), payload.into())
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            tracing::debug!(error, "a beat was not sent");
        }
    }
}

/// Whether this is so of anybody who takes work.
fn any(peers: &Peers, now: Instant, is_so: impl Fn(&Peer) -> bool) -> bool {
    peers.alive(now).any(|peer| !peer.beat.draining && is_so(peer))
}

fn has_room(peer: &Peer) -> bool {
    peer.beat.slots_busy < peer.beat.slots_total
}

/// When to look again, while somebody may not have seen a revision; `None` when everybody has.
fn lagging_until(peers: &Peers, revision: u64, now: Instant) -> Option<Instant> {
    let introduced = peers.introduced_at();
    let lags = |peer: &&Peer| !peer.beat.draining && peer.beat.catalog_revision < revision;
    let lagging = peers.alive(now).filter(lags).map(Peer::expires_at);
    lagging.chain((now < introduced).then_some(introduced)).min()
}

async fn until(end: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = end.cancelled() => (),
        () = task => (),
    }
}

#[cfg(test)]
mod tests {
    use wess_schemas::beat::BEAT_EXPIRY;

    use super::*;

    fn beat(catalog_revision: u64, draining: bool) -> WorkerBeat {
        let worker = WorkerId::generate();
        WorkerBeat {
            worker,
            slots_busy: 0,
            slots_total: 1,
            waiting: 0,
            catalog_revision,
            draining,
            calls_answered: 0,
        }
    }

    /// Peers that have been listened to for long, and the time now.
    fn peers(beats: &[WorkerBeat]) -> (Peers, Instant) {
        let mut peers = Peers::new(Instant::now());
        let now = peers.introduced_at() + BEAT_EXPIRY;
        for beat in beats {
            peers.hear(beat.clone(), now);
        }
        (peers, now)
    }

    #[test]
    fn everybody_has_seen_it_once_the_last_one_has() {
        let mut slow = beat(6, false);
        let (mut peers, now) = peers(&[beat(7, false), slow.clone()]);
        assert_eq!(lagging_until(&peers, 6, now), None);
        assert_eq!(lagging_until(&peers, 7, now), Some(now + BEAT_EXPIRY));
        slow.catalog_revision = 7;
        peers.hear(slow, now);
        assert_eq!(lagging_until(&peers, 7, now), None);
    }

    #[test]
    fn a_silent_worker_is_waited_for_until_it_expires_and_a_draining_one_never() {
        let (peers, now) = peers(&[beat(1, false), beat(1, true)]);
        let expiry = lagging_until(&peers, 2, now).unwrap();
        assert_eq!(expiry, now + BEAT_EXPIRY);
        assert_eq!(lagging_until(&peers, 2, expiry), None);
    }

    #[test]
    fn who_drains_or_is_silent_takes_nothing_and_who_is_busy_has_no_room() {
        let busy = WorkerBeat {
            slots_busy: 1,
            ..beat(1, false)
        };
        let (mut peers, now) = peers(&[busy, beat(1, true)]);
        assert!(any(&peers, now, |_| true) && !any(&peers, now, has_room));
        peers.hear(beat(1, false), now);
        assert!(any(&peers, now, has_room) && !any(&peers, now + BEAT_EXPIRY, |_| true));
    }

    #[test]
    fn who_has_just_begun_to_listen_does_not_know_who_is_there() {
        let now = Instant::now();
        let peers = Peers::new(now);
        let introduced = now + BEAT_EXPIRY;
        assert_eq!(lagging_until(&peers, 0, now), Some(introduced));
        assert_eq!(lagging_until(&peers, 0, introduced), None);
    }
}
