//! The workers of a fleet as their beats tell of them: who is there, and what each said last.
//!
//! Who has not listened for a whole [`BEAT_EXPIRY`] does not claim to know who is there.

use std::collections::HashMap;

use async_nats::{SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;
use wess_schemas::WorkerId;
use wess_schemas::beat::{BEAT_EXPIRY, WorkerBeat};
use wess_schemas::subject::Subjects;

use crate::nats::{Connection, ConnectionWatch};

/// Workers that are listened to. Anyone who may publish beats could make more up.
const MAX_PEERS: usize = 4096;

/// What a listener is told.
#[derive(Debug)]
pub enum Heard {
    /// A worker beats.
    Beat(WorkerBeat),
    /// There is no connection to hear anybody on.
    Disconnected,
    /// There is one again: who was silent meanwhile may still be there.
    Reconnected,
}

/// Beats as they come, and what happens to the connection that brings them.
#[derive(Debug)]
pub struct Beats {
    messages: Subscriber,
    connection: ConnectionWatch,
    connects: u64,
}

impl Beats {
    /// Begins to listen.
    pub async fn subscribe(connection: &Connection, subjects: &Subjects) -> Result<Self, SubscribeError> {
        let messages = connection.client.subscribe(subjects.worker_beat()).await?;
        let connection = connection.watch.clone();
        Ok(Self {
            messages,
            connects: connection.state().connects,
            connection,
        })
    }

    /// Waits for what is heard next; `None` once the connection is gone for good. Dropping the wait loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            tokio::select! {
                message = self.messages.next() => match serde_json::from_slice(&message?.payload) {
                    Ok(beat) => return Some(Heard::Beat(beat)),
                    Err(error) => tracing::debug!(%error, "a beat that is none"),
                },
                state = self.connection.changed() => {
                    let state = state?;
                    if state.connects > self.connects {
                        self.connects = state.connects;
                        return Some(Heard::Reconnected);
                    }
                    if !state.connected {
                        return Some(Heard::Disconnected);
                    }
                },
            }
        }
    }
}

/// Everybody who was heard.
#[derive(Debug)]
pub struct Peers {
    heard: HashMap<WorkerId, Peer>,
    listening_since: Instant,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it said last.
    pub beat: WorkerBeat,
    heard_at: Instant,
}

impl Peer {
    /// When it is no longer counted as alive, unless it beats again.
    pub fn expires_at(&self) -> Instant {
        self.heard_at + BEAT_EXPIRY
    }

    fn is_alive(&self, now: Instant) -> bool {
        now < self.expires_at()
    }
}

impl Peers {
    /// Nobody yet, listened for from `now` on.
    pub fn new(now: Instant) -> Self {
        Self {
            heard: HashMap::new(),
            listening_since: now,
        }
    }

    /// Takes note of a beat, and gives the one before it.
    pub fn hear(&mut self, beat: WorkerBeat, now: Instant) -> Option<WorkerBeat> {
        if self.heard.len() >= MAX_PEERS {
            self.forget_silent(now);
        }
        if self.heard.len() >= MAX_PEERS && !self.heard.contains_key(&beat.worker) {
            return None;
        }
        let peer = Peer { beat, heard_at: now };
        self.heard
            .insert(peer.beat.worker.clone(), peer)
            .map(|peer| peer.beat)
    }

    /// Begins to listen anew, after beats may have been missed.
    pub fn listen_anew(&mut self, now: Instant) {
        self.listening_since = now;
    }

    /// Makes room: who has been silent for too long is as one who never was.
    pub fn forget_silent(&mut self, now: Instant) {
        self.heard.retain(|_, peer| peer.is_alive(now));
    }

    /// Who beats.
    pub fn alive(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        self.heard.values().filter(move |peer| peer.is_alive(now))
    }

    /// From when on everybody who is there has been heard.
    pub fn introduced_at(&self) -> Instant {
        self.listening_since + BEAT_EXPIRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat() -> WorkerBeat {
        WorkerBeat {
            worker: WorkerId::generate(),
            slots_busy: 0,
            slots_total: 1,
            waiting: 0,
            catalog_revision: 1,
            draining: false,
            calls_answered: 0,
        }
    }

    #[test]
    fn a_silent_worker_is_alive_until_it_expires() {
        let now = Instant::now();
        let mut peers = Peers::new(now);
        peers.hear(beat(), now);
        let expiry = peers.alive(now).next().unwrap().expires_at();
        assert_eq!(expiry, now + BEAT_EXPIRY);
        assert_eq!(peers.alive(expiry).count(), 0);
    }

    #[test]
    fn each_beat_comes_with_the_one_before_it() {
        let now = Instant::now();
        let (mut peers, first) = (Peers::new(now), beat());
        let second = WorkerBeat {
            calls_answered: 9,
            ..first.clone()
        };
        assert_eq!(peers.hear(first.clone(), now), None);
        assert_eq!(peers.hear(second.clone(), now), Some(first));
        assert_eq!(peers.alive(now).next().unwrap().beat, second);
    }

    #[test]
    fn made_up_workers_are_bounded_and_make_room_when_they_expire() {
        let now = Instant::now();
        let (mut peers, last) = (Peers::new(now), beat());
        for _ in 0..MAX_PEERS {
            peers.hear(beat(), now);
        }
        peers.hear(last.clone(), now);
        assert_eq!(peers.heard.len(), MAX_PEERS);
        assert!(!peers.heard.contains_key(&last.worker));
        peers.hear(last, now + BEAT_EXPIRY);
        assert_eq!(peers.heard.len(), 1);
    }
}
