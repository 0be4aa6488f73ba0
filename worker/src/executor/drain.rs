//! How an executor stops: it takes nothing new from NATS, finishes what was taken, and cuts what outlives its grace.
//!
//! Nobody is waited for who cannot come: a connection that is away brings no calls and takes no replies.

use std::pin::pin;
use std::time::Duration;

use async_nats::connection::State;

use super::lanes::{GuestEnd, Suspended};
use super::slots::Waits;
use super::steps::stopping;
use super::turns::Executor;

/// How long calls that were cut may take to be answered, and answers to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often to look whether the connection is still there.
const LOOK: Duration = Duration::from_millis(20);

impl Executor {
    /// Ends once every call that was taken is answered.
    pub(super) async fn drain(&mut self) {
        let cut = self.cut.clone();
        cut.run_until_cancelled(self.finish_taken()).await;
        self.door.close();
        self.cut_off();
        if tokio::time::timeout(LAST_WORDS, self.finish_calls())
            .await
            .is_err()
        {
            tracing::error!(
                busy = self.slots.busy(),
                waiting = self.slots.waiting(),
                "calls are left without an answer"
            );
        }
    }

    /// Sends what is left: the last lines of guests' logs, then all that waits in the connection.
    pub(super) async fn close(self) {
        let (client, logs) = (self.client.clone(), self.logs.clone());
        drop(self);
        logs.close();
        let sent = async {
            logs.wait().await;
            client.flush().await
        };
        match tokio::time::timeout(LAST_WORDS, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last replies may not have been sent"),
            Err(_) => tracing::warn!("NATS is away: the last replies may not have been sent"),
        }
    }

    async fn finish_taken(&mut self) {
        self.draining = true;
        self.forget_all_instances();
        let client = self.client.clone();
        self.inbox.drain(&client).await;
        self.finish_inside().await;
        self.door.close();
        self.finish_calls().await;
    }

    /// Chains come back for their next steps, and who holds a door may come by it: it stays open for them.
    async fn finish_inside(&mut self) {
        let inside = self.common.inside.clone();
        inside.close();
        let mut ended = pin!(inside.wait());
        loop {
            tokio::select! {
                biased;
                () = &mut ended => return,
                () = self.arrivals() => {}
            }
            self.take_drain_turn().await;
        }
    }

    async fn finish_calls(&mut self) {
        loop {
            // The connection does not tell us when it goes.
            let _ = tokio::time::timeout(LOOK, self.arrivals()).await;
            self.take_drain_turn().await;
            let is_idle =
                self.slots.is_empty() && self.series == 0 && self.spills.is_idle() && self.keyed.is_idle();
            if is_idle && self.sessions.is_empty() && self.door.is_empty() && self.nobody_comes() {
                return;
            }
        }
    }

    /// As [`Executor::take_turn`]; nobody begins any more once grace is over, as a guest that was cut elsewhere may make room for.
    async fn take_drain_turn(&mut self) {
        if self.cut.is_cancelled() {
            self.cut_off();
        }
        self.take_turn().await;
    }

    fn nobody_comes(&self) -> bool {
        self.inbox.is_drained() || self.client.connection_state() != State::Connected
    }

    /// Answers everybody who is still here: grace is over.
    fn cut_off(&mut self) {
        let lined_up = self.slots.take_all();
        let loading = self.shelf.take_waiting();
        for ticket in &loading {
            self.slots.leave(ticket.size_bytes());
        }
        for ticket in lined_up.into_iter().chain(loading) {
            self.fail(ticket.responder, ticket.job_id, stopping());
        }
        let suspended = std::mem::take(&mut self.suspended);
        for running in suspended.into_iter().filter_map(Suspended::cut) {
            self.finish(GuestEnd::Cut, running);
        }
    }
}
