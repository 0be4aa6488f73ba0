//! What this worker knows of bindings: a copy of `wess-bindings`, with the revision that it has come to.
//!
//! Invariant: a revision counts as seen only once what it says is done: its subscription is there, or is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use wess_schemas::BindingName;
use wess_schemas::binding::Binding;

/// A binding, or that there is none, at a revision; 0 where there never was one.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What the next write must expect.
    pub revision: u64,
    /// The binding.
    pub binding: Option<Arc<Binding>>,
}

/// The copy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirror(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<BTreeMap<BindingName, Known>>,
    seen: watch::Sender<u64>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self(Arc::new(Inner {
            known: Mutex::default(),
            seen: watch::Sender::default(),
        }))
    }
}

impl Mirror {
    /// What is known of one.
    pub fn get(&self, name: &BindingName) -> Known {
        self.known().get(name).cloned().unwrap_or_default()
    }

    /// Every binding, by name.
    pub fn all(&self) -> Vec<Binding> {
        let known = self.known();
        let bindings = known.values().filter_map(|known| known.binding.as_deref());
        bindings.cloned().collect()
    }

    /// Takes a whole bucket in; gives the names that it knew and that are not in there.
    pub(super) fn replace(&self, bucket: BTreeMap<BindingName, Known>) -> Vec<BindingName> {
        let old = std::mem::replace(&mut *self.known(), bucket.clone());
        old.into_keys()
            .filter(|name| !bucket.contains_key(name))
            .collect()
    }

    /// Takes one change in.
    pub(super) fn learn(&self, name: BindingName, known: Known) {
        self.known().insert(name, known);
    }

    /// Says that everything up to a revision is done. After a replay it may be less than before.
    pub(super) fn has_done(&self, revision: u64) {
        self.0.seen.send_replace(revision);
    }

    /// Waits until everything up to a revision is done; `false` when that takes longer than `patience`.
    pub async fn sees(&self, revision: u64, patience: Duration) -> bool {
        let mut seen = self.0.seen.subscribe();
        let seen = seen.wait_for(|seen| *seen >= revision);
        matches!(tokio::time::timeout(patience, seen).await, Ok(Ok(_)))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<BindingName, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
