//! An instance between two of its calls, for modules whose owner lets one serve several.
//!
//! Invariant: nothing of a call stays in it but what the guest itself holds, in memory that is charged and bounded.

use std::fmt;
use std::sync::Arc;

use wasmtime::Store;
use wess_schemas::limits::EffectiveLimits;

use super::artifact::Prepared;
use super::component::LiveComponent;
use super::engine::Metering;
use super::host::GuestState;
use super::limits::Held;
use super::module::LiveModule;

/// How much more memory an instance may hold than after its first call: a guest that leaks gets a fresh one in time.
pub(super) const MAX_GROWTH_BYTES: u64 = 1 << 20;

/// What is asked for a call whose module may be served by one instance several times.
#[derive(Debug)]
pub struct Reuse {
    /// Calls that one instance serves.
    pub most: u32,
    /// An instance that the call may have; else it gets a fresh one.
    pub kept: Option<Box<Kept>>,
}

/// The instance of a run, once it is made.
#[derive(Default)]
pub(super) struct Live {
    pub module: Option<LiveModule>,
    pub component: Option<LiveComponent>,
}

/// What an instance has been through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    calls: u32,
    /// What it held after its first call.
    first: Held,
}

/// An instance that waits for its next call.
pub struct Kept {
    prepared: Arc<Prepared>,
    pub(super) store: Store<GuestState>,
    pub(super) live: Live,
    pub(super) past: Past,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("past", &self.past)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// An instance whose run answered, unless it has served its calls, or cannot be trusted with another.
    pub(super) fn after(
        prepared: Arc<Prepared>,
        mut store: Store<GuestState>,
        live: Live,
        past: Past,
        most: u32,
    ) -> Option<Box<Self>> {
        let is_component = live.component.is_some();
        let state = store.data_mut();
        let past = past.and_another(state.limiter.held());
        let stays = past.calls < most
            && past.is_below_mark(state.limiter.held())
            && state.limiter.refused().is_none()
            && !(is_component && state.holds_resources());
        if !stays {
            return None;
        }
        state.rest();
        Some(Box::new(Self {
            prepared,
            store,
            live,
            past,
        }))
    }

    /// Whether a call of this module with these limits may have it.
    pub fn serves(&self, prepared: &Arc<Prepared>, limits: &EffectiveLimits) -> bool {
        self.is_of(prepared) && self.store.data().limiter.held().memory_bytes <= limits.memory_bytes
    }

    /// How its module was compiled.
    pub fn metering(&self) -> Metering {
        self.prepared.metering()
    }

    /// Whether it is an instance of this very module.
    pub fn is_of(&self, prepared: &Arc<Prepared>) -> bool {
        Arc::ptr_eq(&self.prepared, prepared)
    }

    /// Whether it has served one call only.
    pub fn is_new(&self) -> bool {
        self.past.calls == 1
    }
}

impl Past {
    fn and_another(self, held: Held) -> Self {
        Self {
            calls: self.calls + 1,
            first: if self.calls == 0 { held } else { self.first },
        }
    }

    fn is_below_mark(&self, held: Held) -> bool {
        held.memory_bytes <= self.first.memory_bytes + MAX_GROWTH_BYTES
            && held.table_elements <= self.first.table_elements
    }
}
