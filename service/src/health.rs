//! What a process says about itself on `/readyz`: its phase, and the named things that keep it from being ready.
//!
//! Only moves forward: a draining process never becomes ready again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not all that it needs is open yet.
    Starting,
    /// It takes work.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether new work should be sent here.
    pub ready: bool,
    /// The phase.
    pub phase: Phase,
    /// What stands in the way, by name: empty when nothing does.
    pub reasons: BTreeMap<&'static str, String>,
}

/// Shared by everything in one process that may be unwell. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    reasons: BTreeMap<&'static str, String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Starting,
            reasons: BTreeMap::new(),
        })))
    }
}

impl Health {
    /// Moves to `phase`; a step back is ignored.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
    }

    /// Says that `name` keeps this process from being ready, and why.
    pub fn unwell(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().reasons.insert(name, reason.into());
    }

    /// Says that nothing is wrong with `name`.
    pub fn well(&self, name: &'static str) {
        self.lock().reasons.remove(name);
    }

    /// The answer of `/readyz` now.
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        let ready = state.phase == Phase::Ready && state.reasons.is_empty();
        Readiness {
            ready,
            phase: state.phase,
            reasons: state.reasons.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_makes_a_ready_process_not_ready_until_it_is_well() {
        let health = Health::default();
        assert!(!health.readiness().ready);
        health.enter(Phase::Ready);
        assert!(health.readiness().ready);
        health.unwell("nats", "disconnected");
        let readiness = health.readiness();
        assert_eq!(
            (readiness.ready, readiness.reasons["nats"].as_str()),
            (false, "disconnected")
        );
        health.well("nats");
        assert!(health.readiness().ready);
    }

    #[test]
    fn a_draining_process_never_becomes_ready_again() {
        let health = Health::default();
        health.enter(Phase::Draining);
        health.enter(Phase::Ready);
        assert_eq!(health.readiness().phase, Phase::Draining);
        assert!(!health.readiness().ready);
    }
}
