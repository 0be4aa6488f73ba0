//! What a guest may be compiled from and how much room an engine has; the Wasm proposals we accept are named here alone.
//!
//! Invariant: every engine of one metering is built from the same settings, so that artifacts load in all of them.

use std::hash::{Hash, Hasher};

use wasmparser::WasmFeatures;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use wess_schemas::module::Abi;

use super::epoch::{EngineClock, Ticker};
use super::limits::MAX_TABLE_ELEMENTS;

/// Largest linear memory any guest can be given; operators may allow less.
pub(super) const MAX_MEMORY_BYTES: usize = 512 << 20;
/// Guest stack; past it a guest traps with `stack_overflow`.
const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// The whole stack of a run: the guest's, then ours in host calls.
const RUN_STACK_BYTES: usize = 2 << 20;
/// Memory that a pool slot keeps between guests when the kernel can tell us which pages were written.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;
/// The same when every kept byte must be cleared by hand.
const KEEP_RESIDENT_BLIND_BYTES: usize = 64 << 10;
/// Per-instance bookkeeping inside Wasmtime; a module with more functions than fit is refused.
const MAX_INSTANCE_BYTES: usize = 1 << 20;
/// Tables one module may define.
pub(super) const MAX_TABLES: u32 = 4;
/// Core instances that one component may have: its modules, and what tools put between them.
const MAX_CORE_INSTANCES: u32 = 64;
/// Memories that all of them may have together.
const MAX_COMPONENT_MEMORIES: u32 = 4;
/// Tables that all of them may have together.
const MAX_COMPONENT_TABLES: u32 = 16;

/// An engine could not be made, or did not take what it was given.
#[derive(Debug, Clone, thiserror::Error)]
#[error("WebAssembly engine: {0}")]
pub struct EngineError(String);

impl From<wasmtime::Error> for EngineError {
    fn from(error: wasmtime::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Largest module that is compiled [`Metering::Checked`]. A larger one has an interpreter or a language's runtime in it, and
/// computes for longer than a growing memory costs.
const MAX_CHECKED_BYTES: u64 = 1 << 20;

/// How a module is compiled: whether instructions are counted, and who notices an access beyond memory. Counting makes
/// tight loops slower, so it is compiled in only when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metering {
    /// Not counted.
    Off,
    /// Counted against a fuel budget.
    Fuel,
    /// Counted, and every NaN the same: for modules that are deterministic.
    Canonical,
    /// Not counted; each access to memory is compared with its end, instead of left to the processor to notice. Memory that
    /// grows needs no `mprotect` then, for which a process's threads wait for each other: for guests that are many and brief.
    Checked,
}

impl Metering {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Fuel, Self::Canonical, Self::Checked];

    /// A word for file names and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "plain",
            Self::Fuel => "fuel",
            Self::Canonical => "canonical",
            Self::Checked => "checked",
        }
    }

    /// What a call needs by its module's ABI, bytes and settings, and its fuel limit.
    pub fn of(abi: Abi, module_bytes: u64, is_deterministic: bool, fuel: Option<u64>) -> Self {
        match (is_deterministic, fuel) {
            (true, _) => Self::Canonical,
            (false, Some(_)) => Self::Fuel,
            (false, None) if abi == Abi::Http && module_bytes <= MAX_CHECKED_BYTES => Self::Checked,
            (false, None) => Self::Off,
        }
    }

    /// Whether stores must be given fuel.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Fuel | Self::Canonical)
    }
}

/// The proposals a module may use. References to garbage-collected things are not among them.
pub(super) fn accepted_features() -> WasmFeatures {
    WasmFeatures::WASM2.difference(WasmFeatures::GC_TYPES)
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

/// What the compiler must know besides: it writes modules of several memories itself, where one component of a component
/// hands values to another. Those of guests are refused before they are compiled.
fn compiled_features() -> WasmFeatures {
    accepted_features() | WasmFeatures::MULTI_MEMORY
}

/// How a module is compiled; the same for the compiler and for every engine that loads what it made.
fn config(metering: Metering, footprint: Footprint, slots: u32) -> Config {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::all().difference(compiled_features()), false)
        .wasm_features(compiled_features(), true)
        .relaxed_simd_deterministic(true)
        .concurrency_support(false)
        .consume_fuel(metering.counts())
        .cranelift_nan_canonicalization(metering == Metering::Canonical)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK_BYTES)
        .async_stack_size(RUN_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(footprint, slots)));
    if metering == Metering::Checked {
        config
            .signals_based_traps(false)
            .memory_reservation(MAX_MEMORY_BYTES as u64)
            .memory_guard_size(0);
    }
    config
}

fn pool(footprint: Footprint, slots: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let (pagemap_scan, keep_resident) = match footprint {
        Footprint::Pages if kernel_reports_written_pages() => (Enabled::Auto, KEEP_RESIDENT_BYTES),
        Footprint::Component if kernel_reports_written_pages() => (Enabled::Auto, KEEP_RESIDENT_BYTES),
        Footprint::Pages | Footprint::Page | Footprint::Component => (Enabled::No, KEEP_RESIDENT_BLIND_BYTES),
    };
    let (core_instances, memories, tables) = match footprint {
        Footprint::Page | Footprint::Pages => (1, 1, MAX_TABLES),
        Footprint::Component => (MAX_CORE_INSTANCES, MAX_COMPONENT_MEMORIES, MAX_COMPONENT_TABLES),
    };
    pool.total_component_instances(slots)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instances_per_component(core_instances)
        .max_memories_per_component(memories)
        .max_tables_per_component(tables)
        .total_core_instances(slots * core_instances)
        .total_memories(slots * memories)
        .total_tables(slots * tables)
        .total_stacks(slots)
        .max_memories_per_module(1)
        .max_tables_per_module(MAX_TABLES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_memory_size(MAX_MEMORY_BYTES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(keep_resident)
        .table_keep_resident(64 << 10)
        .pagemap_scan(pagemap_scan);
    pool
}

/// Linux 6.7 brought `PAGEMAP_SCAN`.
fn kernel_reports_written_pages() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

/// An engine without room to run anything: it compiles, and says what the others could not load.
pub(super) fn compiling_engine(metering: Metering) -> wasmtime::Result<Engine> {
    Engine::new(&config(metering, Footprint::Component, 1))
}

/// An engine with room for so many guests at once.
pub(super) fn running_engine(
    metering: Metering,
    footprint: Footprint,
    slots: u32,
) -> wasmtime::Result<Engine> {
    Engine::new(&config(metering, footprint, slots))
}

/// Sixteen hex digits that change whenever artifacts of this engine would not load in another.
pub(super) fn compatibility(engine: &Engine) -> String {
    let mut hasher = Blake3Hasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// A hasher whose result is the same in every build and process, which std's does not promise.
struct Blake3Hasher(blake3::Hasher);

impl Hasher for Blake3Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_be_bytes(first)
    }
}

/// How much memory a module starts with, which decides how its pool slot is cleaned after a guest: one page is cleared
/// faster than the kernel can be asked which parts of it were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Footprint {
    /// At most one page of 64 KiB.
    Page,
    /// More.
    Pages,
    /// A component, which may have several modules and memories.
    Component,
}

/// Compiled code of more than so many bytes seldom belongs to a module that starts with a single page.
const SMALL_CODE_BYTES: u64 = 64 << 10;

impl Footprint {
    /// What a module of so many bytes of compiled code starts with, as a guess.
    pub fn guess(code_bytes: u64) -> Self {
        if code_bytes <= SMALL_CODE_BYTES {
            Self::Page
        } else {
            Self::Pages
        }
    }

    /// What this module starts with.
    pub fn of(module: &wasmtime::Module) -> Self {
        match module.resources_required().max_initial_memory_size {
            None | Some(0 | 1) => Self::Page,
            Some(_) => Self::Pages,
        }
    }
}

/// Which engines the calls of a module need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Needs {
    /// How it is compiled.
    pub metering: Metering,
    /// Whether it is a component.
    pub is_component: bool,
}

/// One executor's engines, made when first needed: nobody who never asks for fuel pays for counting it.
pub struct EnginePool {
    slots: u32,
    ticker: Ticker,
    made: [[std::sync::OnceLock<RunningEngine>; 3]; Metering::ALL.len()],
}

/// An engine and the clock that interrupts its guests.
#[derive(Clone)]
pub(super) struct RunningEngine {
    pub engine: Engine,
    pub clock: EngineClock,
    pub linker: std::sync::Arc<wasmtime::Linker<super::host::GuestState>>,
    pub components: std::sync::Arc<wasmtime::component::Linker<super::host::GuestState>>,
}

impl EnginePool {
    /// Room for so many guests at once in each engine.
    pub fn new(slots: u32, ticker: Ticker) -> Self {
        Self {
            slots,
            ticker,
            made: Default::default(),
        }
    }

    /// Makes what these calls need and nobody has made yet. Blocks, for a millisecond or more each.
    pub fn make_ready(&self, needs: Needs) -> Result<(), EngineError> {
        let footprints = match needs.is_component {
            true => &[Footprint::Component][..],
            false => &[Footprint::Page, Footprint::Pages],
        };
        for footprint in footprints {
            self.get(needs.metering, *footprint)?;
        }
        Ok(())
    }

    /// Whether that has been made.
    pub fn is_ready(&self, needs: Needs) -> bool {
        let made = &self.made[needs.metering as usize];
        let is_made = |footprint| made[footprint as usize].get().is_some();
        match needs.is_component {
            true => is_made(Footprint::Component),
            false => is_made(Footprint::Page) && is_made(Footprint::Pages),
        }
    }

    pub(super) fn get(&self, metering: Metering, footprint: Footprint) -> wasmtime::Result<&RunningEngine> {
        let place = &self.made[metering as usize][footprint as usize];
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let engine = running_engine(metering, footprint, self.slots)?;
        let linker = std::sync::Arc::new(super::host::linker(&engine)?);
        let components = std::sync::Arc::new(super::component::linker(&engine)?);
        let clock = self.ticker.watch(&engine);
        Ok(place.get_or_init(|| RunningEngine {
            engine,
            clock,
            linker,
            components,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_modules_that_serve_http_are_checked_unless_they_are_counted() {
        let of = |abi, bytes, fuel| Metering::of(abi, bytes, false, fuel);
        assert_eq!(of(Abi::Http, MAX_CHECKED_BYTES, None), Metering::Checked);
        assert_eq!(of(Abi::Http, MAX_CHECKED_BYTES + 1, None), Metering::Off);
        assert_eq!(of(Abi::Http, 1, Some(1)), Metering::Fuel);
        assert_eq!(Metering::of(Abi::Http, 1, true, None), Metering::Canonical);
        for abi in [Abi::Typed, Abi::Plugin, Abi::Command, Abi::Component] {
            assert_eq!(of(abi, 1, None), Metering::Off);
        }
    }

    #[test]
    fn engines_are_ready_once_all_that_calls_of_their_kind_need_are_made() {
        let engines = EnginePool::new(1, Ticker::start().unwrap());
        let needs = |is_component| Needs {
            metering: Metering::Off,
            is_component,
        };
        engines.get(Metering::Off, Footprint::Page).unwrap();
        assert!(!engines.is_ready(needs(false)));
        engines.make_ready(needs(false)).unwrap();
        assert!(engines.is_ready(needs(false)) && !engines.is_ready(needs(true)));
        engines.make_ready(needs(true)).unwrap();
        assert!(engines.is_ready(needs(true)));
    }

    #[test]
    fn engines_of_one_metering_are_compatible_and_of_two_are_not() {
        let of = |metering| compatibility(&compiling_engine(metering).unwrap());
        assert_eq!(of(Metering::Off), of(Metering::Off));
        assert_ne!(of(Metering::Off), of(Metering::Fuel));
        assert_ne!(of(Metering::Fuel), of(Metering::Canonical));
        assert_ne!(of(Metering::Off), of(Metering::Checked));
        for footprint in [Footprint::Page, Footprint::Pages, Footprint::Component] {
            let roomy = compatibility(&running_engine(Metering::Off, footprint, 8).unwrap());
            assert_eq!(of(Metering::Off), roomy);
        }
    }
}
