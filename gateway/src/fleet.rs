//! The workers as this gateway hears them beat: how many take work, how busy they are, when one last answered a call.
//!
//! Beats themselves are refused no one and believed; what was not heard for a whole expiry is not claimed to be so.

use std::time::Duration;

use async_nats::SubscribeError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use wess_schemas::beat::WorkerBeat;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::Connection;
use wess_service::peers::{Beats, Heard, Peer, Peers};

/// What the beats say of all workers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetState {
    /// Whether NATS is connected and beats have been listened to for long enough to know who is there. While this is
    /// `false` there may be workers that are not counted.
    pub known: bool,
    /// Workers that beat and take work.
    pub taking: u32,
    /// Workers that beat and drain.
    pub draining: u32,
    /// Guests running or suspended, those of draining workers included.
    pub slots_busy: u64,
    /// Guests that may, on the workers that take work.
    pub slots_total: u64,
    /// Calls waiting for a slot.
    pub waiting: u64,
    /// When a beat last told that its worker had answered calls since the one before.
    pub answered_at: Option<Instant>,
}

impl FleetState {
    /// Whether a call was answered in the last `span`.
    pub fn answered_within(&self, span: Duration, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now < at + span)
    }
}

/// Follows the workers' beats. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    state: watch::Receiver<FleetState>,
}

impl Fleet {
    /// Begins to listen, until the lifecycle is closed.
    pub async fn listen(
        connection: &Connection,
        subjects: &Subjects,
        lifecycle: &Lifecycle,
    ) -> Result<Self, SubscribeError> {
        let beats = Beats::subscribe(connection, subjects).await?;
        let (sender, state) = watch::channel(FleetState::default());
        let closed = lifecycle.closed.clone();
        let listener = Listener::new(Instant::now());
        lifecycle.spawn_background("hear beats", async move {
            closed.run_until_cancelled(listener.run(beats, sender)).await;
        });
        Ok(Self { state })
    }

    /// The workers now, and each change: a beat that says something else, a worker that went silent.
    pub fn state(&self) -> watch::Receiver<FleetState> {
        self.state.clone()
    }
}

/// What is remembered between beats.
struct Listener {
    peers: Peers,
    connected: bool,
    answered_at: Option<Instant>,
}

impl Listener {
    fn new(now: Instant) -> Self {
        Self {
            peers: Peers::new(now),
            connected: true,
            answered_at: None,
        }
    }

    /// Ends only with the connection.
    async fn run(mut self, mut beats: Beats, state: watch::Sender<FleetState>) {
        loop {
            let now = Instant::now();
            self.peers.forget_silent(now);
            publish(&state, self.state(now));
            let alarm = self.changes_at(now);
            tokio::select! {
                heard = beats.next() => match heard {
                    Some(heard) => self.heard(heard, Instant::now()),
                    None => return,
                },
                () = sleep_until(alarm.unwrap_or(now)), if alarm.is_some() => (),
            }
        }
    }

    fn heard(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Beat(beat) => self.beat(beat, now),
            Heard::Disconnected => self.connected = false,
            Heard::Reconnected => {
                self.connected = true;
                self.peers.listen_anew(now);
            }
        }
    }

    /// A worker that was not there before has answered what it says since; one that was only not listened to has not.
    fn beat(&mut self, beat: WorkerBeat, now: Instant) {
        let answered = beat.calls_answered;
        let was_listening = self.knows(now);
        let before = self.peers.hear(beat, now).map(|beat| beat.calls_answered);
        if before
            .or(was_listening.then_some(0))
            .is_some_and(|before| answered > before)
        {
            self.answered_at = Some(now);
        }
    }

    fn knows(&self, now: Instant) -> bool {
        self.connected && self.peers.introduced_at() <= now
    }

    fn state(&self, now: Instant) -> FleetState {
        let mut state = FleetState {
            known: self.knows(now),
            answered_at: self.answered_at,
            ..FleetState::default()
        };
        for Peer { beat, .. } in self.peers.alive(now) {
            state.slots_busy += u64::from(beat.slots_busy);
            state.waiting += u64::from(beat.waiting);
            if beat.draining {
                state.draining += 1;
            } else {
                state.taking += 1;
                state.slots_total += u64::from(beat.slots_total);
            }
        }
        state
    }

    /// When the state is another one though nothing was heard.
    fn changes_at(&self, now: Instant) -> Option<Instant> {
        let introduced = self.peers.introduced_at();
        let expiries = self.peers.alive(now).map(Peer::expires_at);
        expiries.chain((now < introduced).then_some(introduced)).min()
    }
}

fn publish(state: &watch::Sender<FleetState>, new: FleetState) {
    state.send_if_modified(|old| {
        let modified = *old != new;
        *old = new;
        modified
    });
}

#[cfg(test)]
mod tests {
    use wess_schemas::WorkerId;
    use wess_schemas::beat::{BEAT_EXPIRY, BEAT_INTERVAL};

    use super::*;

    fn beat(calls_answered: u64) -> WorkerBeat {
        WorkerBeat {
            worker: WorkerId::generate(),
            slots_busy: 3,
            slots_total: 8,
            waiting: 2,
            catalog_revision: 0,
            draining: false,
            calls_answered,
        }
    }

    /// One that has listened long enough, and the time now.
    fn listener() -> (Listener, Instant) {
        let listener = Listener::new(Instant::now());
        let now = listener.peers.introduced_at();
        (listener, now)
    }

    #[test]
    fn workers_are_summed_and_draining_ones_told_apart() {
        let (mut listener, now) = listener();
        let draining = WorkerBeat {
            draining: true,
            ..beat(0)
        };
        for beat in [beat(0), beat(0), draining] {
            listener.beat(beat, now);
        }
        let state = FleetState {
            known: true,
            taking: 2,
            draining: 1,
            slots_busy: 9,
            slots_total: 16,
            waiting: 6,
            answered_at: None,
        };
        assert_eq!(listener.state(now), state);
    }

    #[test]
    fn a_worker_is_gone_after_three_beats_that_did_not_come() {
        let (mut listener, now) = listener();
        listener.beat(beat(0), now);
        let gone = listener.changes_at(now).unwrap();
        assert_eq!(gone, now + 3 * BEAT_INTERVAL);
        assert_eq!(listener.state(gone - Duration::from_millis(1)).taking, 1);
        assert_eq!(
            (listener.state(gone).taking, listener.changes_at(gone)),
            (0, None)
        );
    }

    #[test]
    fn who_is_there_is_known_only_after_listening_while_connected() {
        let now = Instant::now();
        let mut listener = Listener::new(now);
        let known = |listener: &Listener, now| listener.state(now).known;
        assert!(!known(&listener, now));
        let introduced = listener.changes_at(now).unwrap();
        assert!(known(&listener, introduced));
        listener.heard(Heard::Disconnected, introduced);
        assert!(!known(&listener, introduced));
        listener.heard(Heard::Reconnected, introduced);
        assert!(!known(&listener, introduced));
        assert!(known(&listener, introduced + BEAT_EXPIRY));
    }

    #[test]
    fn an_answer_is_seen_when_the_number_moves_or_a_new_worker_has_one() {
        let (mut listener, now) = listener();
        let mut first = beat(0);
        listener.beat(first.clone(), now);
        assert_eq!(listener.answered_at, None);
        let later = now + BEAT_INTERVAL;
        first.calls_answered = 1;
        listener.beat(first.clone(), later);
        listener.beat(first, later + BEAT_INTERVAL);
        assert_eq!(listener.answered_at, Some(later));
        let span = Duration::from_secs(60);
        assert!(
            listener
                .state(later)
                .answered_within(span, later + span - Duration::from_millis(1))
        );
        assert!(!listener.state(later).answered_within(span, later + span));

        let new = later + Duration::from_secs(9);
        listener.beat(beat(1), new);
        assert_eq!(listener.answered_at, Some(new));
    }

    #[test]
    fn what_was_answered_before_anybody_listened_is_no_news() {
        let now = Instant::now();
        let mut listener = Listener::new(now);
        listener.beat(beat(7), now);
        assert_eq!(listener.answered_at, None);
    }
}
