//! The modules that one executor has ready, the engines that they run in, and the calls that wait for one being loaded.
//!
//! Invariant: at most one load per module is under way, however many calls wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use lru::LruCache;
use tokio_util::task::TaskTracker;
use wess_schemas::{Digest, ErrorBody, ErrorCode};

use super::Common;
use crate::guest::{EnginePool, Metering, Needs, Prepared};
use crate::registry::Registry;

/// What is loaded: bytes, and whether they count fuel.
pub type Key = (Digest, Metering);

/// Ready modules, and calls of type `T` that wait for others.
pub struct Shelf<T> {
    ready: LruCache<Key, Arc<Prepared>>,
    loading: HashMap<Key, Vec<T>>,
    loaded_here: bool,
}

/// What a call finds on the shelf.
pub enum Found<T> {
    /// Its module, and the call itself.
    Ready(Arc<Prepared>, T),
    /// Nothing: it waits, and its caller has to start the load.
    StartLoad,
    /// Nothing yet: it waits for a load under way.
    Waits,
}

impl<T> Shelf<T> {
    /// Nothing on it, and room for so many.
    pub fn new(room: NonZeroUsize) -> Self {
        Self {
            ready: LruCache::new(room),
            loading: HashMap::new(),
            loaded_here: false,
        }
    }

    /// Finds a module, or lets the call wait for it.
    pub fn find(&mut self, key: Key, call: T) -> Found<T> {
        if let Some(prepared) = self.ready.get(&key) {
            return Found::Ready(Arc::clone(prepared), call);
        }
        match self.loading.entry(key) {
            Entry::Occupied(mut loading) => {
                loading.get_mut().push(call);
                Found::Waits
            }
            Entry::Vacant(none) => {
                none.insert(vec![call]);
                Found::StartLoad
            }
        }
    }

    /// A load is over; gives back who waited for it, and the module that had to go for it.
    pub fn loaded(&mut self, key: Key, prepared: Option<&Arc<Prepared>>) -> (Vec<T>, Option<Arc<Prepared>>) {
        let gone = prepared.and_then(|prepared| self.ready.push(key, Arc::clone(prepared)));
        let waiting = self.loading.remove(&key).unwrap_or_default();
        (waiting, gone.map(|(_, gone)| gone))
    }

    /// Gives back everybody who waits for a load.
    pub fn take_waiting(&mut self) -> Vec<T> {
        self.loading.drain().flat_map(|(_, waiting)| waiting).collect()
    }

    /// Whether any call waits for a load.
    pub fn has_waiting(&self) -> bool {
        !self.loading.is_empty()
    }

    /// Gives back those who wait for a load and have waited long enough; the loads go on.
    pub fn take_where(&mut self, leaves: impl Fn(&T) -> bool) -> Vec<T> {
        self.loading
            .values_mut()
            .flat_map(|waiting| waiting.extract_if(.., |call| leaves(call)))
            .collect()
    }

    /// Whether this very module is ready.
    pub fn has(&self, key: Key, is_it: impl FnOnce(&Arc<Prepared>) -> bool) -> bool {
        self.ready.peek(&key).is_some_and(is_it)
    }

    /// Whether a module may be loaded on this thread: one in a turn, or of many all calls would wait for each.
    pub fn may_load_here(&mut self) -> bool {
        !std::mem::replace(&mut self.loaded_here, true)
    }

    /// A turn is over.
    pub fn begin_turn(&mut self) {
        self.loaded_here = false;
    }

    /// How many modules are ready.
    pub fn len(&self) -> usize {
        self.ready.len()
    }
}

/// A load's result and how long it took, in microseconds.
pub struct Loaded {
    /// What was loaded.
    pub key: Key,
    /// The module, or why not.
    pub result: Result<Arc<Prepared>, ErrorBody>,
    /// How long it took.
    pub load_us: u64,
}

/// The engines of an executor. Those that stored modules need are made at once, or the first call of each kind would wait for
/// it; one that cannot be made fails the calls that need it, not the worker.
pub async fn engines(common: &Common) -> Arc<EnginePool> {
    let engines = Arc::new(EnginePool::new(common.bounds.instances(), common.ticker.clone()));
    let (making, registry) = (Arc::clone(&engines), common.registry.clone());
    let making = tokio::task::spawn_blocking(move || {
        let mut needs = registry.needs().into_iter();
        needs.try_for_each(|needs| making.make_ready(needs))
    });
    match making.await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::warn!(%error, "an engine could not be made ahead of its first call"),
        Err(error) => tracing::error!(%error, "making engines failed"),
    }
    engines
}

/// Gets a module's compiled file and maps it, off the executor's thread unless it may be `here` and takes less than the way
/// to another thread. What that leaves to do `here` tracks.
pub async fn load(
    registry: Registry,
    engines: Arc<EnginePool>,
    (digest, needs): (Digest, Needs),
    here: Option<TaskTracker>,
) -> Loaded {
    let (started, key) = (Instant::now(), (digest, needs.metering));
    let at_once = here.and_then(|here| at_once(&registry, &engines, key, &here));
    let result = match at_once {
        Some(prepared) => Ok(prepared),
        None => try_load(registry, engines, digest, needs).await,
    };
    Loaded {
        key,
        result,
        load_us: started.elapsed().as_micros() as u64,
    }
}

/// A small core module whose compiled file is in memory. One that cannot be mapped is left to [`try_load`], which says so.
fn at_once(
    registry: &Registry,
    engines: &EnginePool,
    (digest, metering): Key,
    here: &TaskTracker,
) -> Option<Arc<Prepared>> {
    let artifact = registry.artifact_at_once(digest, metering)?;
    let prepared = Prepared::load_module(engines, metering, &artifact.file).ok();
    here.spawn_blocking(move || artifact.note_use());
    prepared
}

async fn try_load(
    registry: Registry,
    engines: Arc<EnginePool>,
    digest: Digest,
    needs: Needs,
) -> Result<Arc<Prepared>, ErrorBody> {
    let metering = needs.metering;
    let failed = |why: &dyn std::fmt::Display| {
        tracing::error!(%digest, %why, "a compiled module could not be mapped");
        ErrorBody::new(ErrorCode::Internal, "the module could not be loaded").before_guest()
    };
    // What lies on this disk is verified and mapped in one go: each way to another thread takes longer than either.
    let at_hand = {
        let (registry, engines) = (registry.clone(), Arc::clone(&engines));
        move || {
            let artifact = registry.artifact_at_hand(digest, metering)?;
            // All of its kind: what is loaded next finds them made. One that cannot be made fails the load that needs it.
            let _ = engines.make_ready(needs);
            Some(Prepared::load(&engines, metering, &artifact.file))
        }
    };
    let at_hand = tokio::task::spawn_blocking(at_hand).await;
    let mapped = match at_hand.map_err(|panicked| failed(&panicked))? {
        Some(mapped) => mapped,
        None => {
            let artifact = registry.artifact(digest, metering).await?;
            let map = move || Prepared::load(&engines, metering, &artifact.file);
            let mapped = tokio::task::spawn_blocking(map).await;
            mapped.map_err(|panicked| failed(&panicked))?
        }
    };
    mapped.map_err(|refused| failed(&refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_module_in_a_turn_may_be_loaded_here() {
        let mut shelf = Shelf::<()>::new(NonZeroUsize::MIN);
        assert!(shelf.may_load_here() && !shelf.may_load_here());
        shelf.begin_turn();
        assert!(shelf.may_load_here());
    }
}
