//! This worker among the others: it beats, hears who else does, and knows what they have seen of the catalog.
//!
//! A worker that has not listened for a whole [`BEAT_EXPIRY`] does not claim to know who is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wess_schemas::WorkerId;
use wess_schemas::beat::{BEAT_EXPIRY, BEAT_INTERVAL, WorkerBeat};
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};

/// How long a change waits for the others.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Workers that are listened to. Anyone who may publish beats could make more up.
const MAX_PEERS: usize = 4096;

/// How busy this worker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Guests running or suspended.
    pub busy: u32,
    /// Guests that may.
    pub total: u32,
    /// Calls waiting for a slot.
    pub waiting: u32,
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

/// The other workers.
#[derive(Debug)]
struct Peers {
    heard: HashMap<WorkerId, Peer>,
    listening_since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    revision: u64,
    draining: bool,
    has_room: bool,
    heard_at: Instant,
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
        let beats = client.subscribe(subject.clone()).await?;
        let peers = watch::Sender::new(Peers::new());
        let fleet = Self(Arc::new(Inner {
            worker,
            client,
            subject,
            revision,
            peers,
        }));
        let hearing = fleet.clone().hear(beats, connection.watch.clone());
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
        let now = Instant::now();
        1 + self
            .0
            .peers
            .borrow()
            .heard
            .values()
            .filter(|peer| peer.is_alive(now))
            .count()
    }

    /// Whether another worker takes work.
    pub fn has_others(&self) -> bool {
        self.0.peers.borrow().any(Instant::now(), |_| true)
    }

    /// Whether another worker takes work and had a free slot when it last beat.
    pub fn others_have_room(&self) -> bool {
        self.0.peers.borrow().any(Instant::now(), |peer| peer.has_room)
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
            let Some(until) = peers.borrow_and_update().lagging_until(revision, Instant::now()) else {
                return true;
            };
            tokio::select! {
                changed = peers.changed() => if changed.is_err() { return false },
                () = tokio::time::sleep_until(until) => (),
            }
        }
    }

    async fn hear(self, mut beats: Subscriber, mut connection: ConnectionWatch) {
        let mut connects = connection.state().connects;
        loop {
            tokio::select! {
                beat = beats.next() => match beat {
                    Some(message) => self.heard(&message.payload),
                    None => return,
                },
                state = connection.changed() => match state {
                    Some(state) if state.connects > connects => {
                        connects = state.connects;
                        self.0.peers.send_modify(|peers| peers.listening_since = Instant::now());
                    }
                    Some(_) => (),
                    None => return,
                },
            }
        }
    }

    fn heard(&self, payload: &[u8]) {
        match serde_json::from_slice::<WorkerBeat>(payload) {
            Ok(beat) if beat.worker == self.0.worker => (),
            Ok(beat) => self
                .0
                .peers
                .send_modify(|peers| peers.hear(&beat, Instant::now())),
            Err(error) => tracing::debug!(%error, "a beat that is none"),
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

impl Peers {
    fn new() -> Self {
        Self {
            heard: HashMap::new(),
            listening_since: Instant::now(),
        }
    }

    fn hear(&mut self, beat: &WorkerBeat, now: Instant) {
        if self.heard.len() >= MAX_PEERS {
            self.heard.retain(|_, peer| peer.is_alive(now));
        }
        let known = self.heard.contains_key(&beat.worker);
        if known || self.heard.len() < MAX_PEERS {
            let peer = Peer {
                revision: beat.catalog_revision,
                draining: beat.draining,
                has_room: beat.slots_busy < beat.slots_total,
                heard_at: now,
            };
            self.heard.insert(beat.worker.clone(), peer);
        }
    }

    /// Whether this is so of anybody who takes work.
    fn any(&self, now: Instant, is_so: impl Fn(&Peer) -> bool) -> bool {
        self.heard
            .values()
            .any(|peer| peer.is_alive(now) && !peer.draining && is_so(peer))
    }

    /// When to look again, while somebody may not have seen a revision; `None` when everybody has.
    fn lagging_until(&self, revision: u64, now: Instant) -> Option<Instant> {
        let introduced = self.listening_since + BEAT_EXPIRY;
        let lags = |peer: &&Peer| peer.is_alive(now) && !peer.draining && peer.revision < revision;
        let lagging = self
            .heard
            .values()
            .filter(lags)
            .map(|peer| peer.heard_at + BEAT_EXPIRY);
        lagging.chain((now < introduced).then_some(introduced)).min()
    }
}

impl Peer {
    fn is_alive(&self, now: Instant) -> bool {
        now < self.heard_at + BEAT_EXPIRY
    }
}

async fn until(end: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = end.cancelled() => (),
        () = task => (),
    }
}

#[cfg(test)]
mod tests {
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
        }
    }

    /// Peers that have been listened to for long, and the time now.
    fn peers(beats: &[WorkerBeat]) -> (Peers, Instant) {
        let mut peers = Peers::new();
        let now = peers.listening_since + 2 * BEAT_EXPIRY;
        for beat in beats {
            peers.hear(beat, now);
        }
        (peers, now)
    }

    #[test]
    fn everybody_has_seen_it_once_the_last_one_has() {
        let mut slow = beat(6, false);
        let (mut peers, now) = peers(&[beat(7, false), slow.clone()]);
        assert_eq!(peers.lagging_until(6, now), None);
        assert_eq!(peers.lagging_until(7, now), Some(now + BEAT_EXPIRY));
        slow.catalog_revision = 7;
        peers.hear(&slow, now);
        assert_eq!(peers.lagging_until(7, now), None);
    }

    #[test]
    fn a_silent_worker_is_waited_for_until_it_expires_and_a_draining_one_never() {
        let (peers, now) = peers(&[beat(1, false), beat(1, true)]);
        let expiry = peers.lagging_until(2, now).unwrap();
        assert_eq!(expiry, now + BEAT_EXPIRY);
        assert_eq!(peers.lagging_until(2, expiry), None);
    }

    #[test]
    fn who_drains_or_is_silent_takes_nothing_and_who_is_busy_has_no_room() {
        let busy = WorkerBeat {
            slots_busy: 1,
            ..beat(1, false)
        };
        let (mut peers, now) = peers(&[busy, beat(1, true)]);
        let has_room = |peer: &Peer| peer.has_room;
        assert!(peers.any(now, |_| true) && !peers.any(now, has_room));
        peers.hear(&beat(1, false), now);
        assert!(peers.any(now, has_room) && !peers.any(now + BEAT_EXPIRY, |_| true));
    }

    #[test]
    fn who_has_just_begun_to_listen_does_not_know_who_is_there() {
        let peers = Peers::new();
        let introduced = peers.listening_since + BEAT_EXPIRY;
        assert_eq!(peers.lagging_until(0, peers.listening_since), Some(introduced));
        assert_eq!(peers.lagging_until(0, introduced), None);
    }

    #[test]
    fn made_up_workers_are_bounded_and_make_room_when_they_expire() {
        let beats: Vec<_> = (0..MAX_PEERS + 1).map(|_| beat(1, false)).collect();
        let (mut peers, now) = peers(&beats);
        assert_eq!(peers.heard.len(), MAX_PEERS);
        peers.hear(&beats[MAX_PEERS], now + BEAT_EXPIRY);
        assert_eq!(peers.heard.len(), 1);
    }
}
