//! From Wasm to something that can run: compiling, and loading what was compiled into an engine.
//!
//! Invariant: only files whose seal the registry has verified are loaded; this is the one place that trusts them.

use std::fs::File;
use std::sync::Arc;

use wasmtime::{Engine, Instance, InstancePre, Memory, Module, ModuleExport, Store, TypedFunc};

use super::abi::INITIALIZE;
use super::ending::GuestFault;
use super::engine::{EngineError, EnginePool, Footprint, Metering, compatibility, compiling_engine};
use super::epoch::EngineClock;
use super::host::{GuestState, HostFault, linker};
use super::validate::ModuleRefused;
use super::wasi;

/// Compiles modules. Cheap to clone; compiling blocks for as long as it takes.
#[derive(Clone)]
pub struct Compiler {
    plain: Engine,
    fuel: Engine,
}

impl Compiler {
    /// Makes the engines that compile.
    pub fn new() -> Result<Self, EngineError> {
        Ok(Self {
            plain: compiling_engine(Metering::Off)?,
            fuel: compiling_engine(Metering::Fuel)?,
        })
    }

    /// Sixteen hex digits that change whenever older artifacts would not load: other settings, version or processor.
    pub fn compatibility(&self, metering: Metering) -> String {
        compatibility(self.engine(metering))
    }

    /// Compiles a module that passed [`super::inspect`]. Blocks, for seconds with large modules.
    pub fn compile(&self, wasm: &[u8], metering: Metering) -> Result<Vec<u8>, ModuleRefused> {
        let engine = self.engine(metering);
        let refused = |error: wasmtime::Error| {
            ModuleRefused::Unsupported(format!("the module cannot be compiled: {error:#}"))
        };
        let artifact = engine.precompile_module(wasm).map_err(refused)?;
        // What shows only when a module is loaded: sizes that a pool has no slots for, imports of another type.
        let module = trusted_from_bytes(engine, &artifact).map_err(refused)?;
        linker(engine)
            .and_then(|linker| linker.instantiate_pre(&module))
            .map_err(refused)?;
        Ok(artifact)
    }

    fn engine(&self, metering: Metering) -> &Engine {
        match metering {
            Metering::Off => &self.plain,
            Metering::Fuel => &self.fuel,
        }
    }
}

#[allow(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the one place that trusts compiled code made in this call"
)]
fn trusted_from_bytes(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: the bytes come from `precompile_module` of the same engine, a moment ago, and nobody else has seen them.
    unsafe { Module::deserialize(engine, artifact) }
}

#[allow(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the one place that trusts compiled code from files"
)]
fn trusted_from_file(engine: &Engine, file: File) -> wasmtime::Result<Module> {
    // SAFETY: `Prepared::load` promises that the file carries this node's seal, verified through this descriptor, and
    // that nothing modifies it: files of mode 0400 in a folder of mode 0700 that are only ever replaced by renaming.
    unsafe { Module::deserialize_open_file(engine, file) }
}

/// A module ready to be instantiated in one executor's engine.
pub struct Prepared {
    pre: InstancePre<GuestState>,
    clock: EngineClock,
    memory: Option<ModuleExport>,
    alloc: Option<ModuleExport>,
    initialize: Option<ModuleExport>,
    output_getters: Option<(ModuleExport, ModuleExport)>,
    uses_wasi: bool,
    metering: Metering,
}

impl Prepared {
    /// Maps a compiled file whose seal has been verified through this very descriptor. Blocks for a moment.
    pub fn load(engines: &EnginePool, metering: Metering, file: &File) -> Result<Arc<Self>, EngineError> {
        let mut running = engines.get(metering, Footprint::Page)?;
        let mut module = trusted_from_file(&running.engine, file.try_clone()?)?;
        if Footprint::of(&module) == Footprint::Pages {
            running = engines.get(metering, Footprint::Pages)?;
            module = trusted_from_file(&running.engine, file.try_clone()?)?;
        }
        let pre = running.linker.instantiate_pre(&module)?;
        let export = |name: &str| module.get_export_index(name);
        Ok(Arc::new(Self {
            pre,
            clock: running.clock.clone(),
            memory: export("memory"),
            alloc: export("alloc"),
            initialize: export(INITIALIZE),
            output_getters: export("get_output_ptr").zip(export("get_output_len")),
            uses_wasi: module.imports().any(|import| import.module() == wasi::MODULE),
            metering,
        }))
    }

    /// Whether the module imports WASI.
    pub(super) fn uses_wasi(&self) -> bool {
        self.uses_wasi
    }

    pub(super) fn metering(&self) -> Metering {
        self.metering
    }

    pub(super) fn clock(&self) -> &EngineClock {
        &self.clock
    }

    pub(super) fn engine(&self) -> &Engine {
        self.pre.module().engine()
    }

    /// A fresh instance, initialized if the module asks for that.
    pub(super) async fn instantiate(&self, store: &mut Store<GuestState>) -> Result<Instance, GuestFault> {
        if self.uses_wasi {
            let builder = wasi::builder(&store.data().log);
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        let instance = self.instantiate_bare(store).await?;
        if let Some(initialize) = self.function::<(), ()>(&self.initialize, &instance, store) {
            initialize.call_async(&mut *store, ()).await?;
        }
        Ok(instance)
    }

    /// A fresh instance, as it is after its start function.
    pub(super) async fn instantiate_bare(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Instance> {
        self.pre.instantiate_async(&mut *store).await
    }

    pub(super) fn memory(
        &self,
        instance: &Instance,
        store: &mut Store<GuestState>,
    ) -> Result<Memory, HostFault> {
        let export = self
            .memory
            .as_ref()
            .and_then(|export| instance.get_module_export(&mut *store, export));
        export
            .and_then(wasmtime::Extern::into_memory)
            .ok_or(HostFault::NoMemory)
    }

    pub(super) fn alloc(
        &self,
        instance: &Instance,
        store: &mut Store<GuestState>,
    ) -> Option<TypedFunc<u32, u32>> {
        self.function(&self.alloc, instance, store)
    }

    pub(super) fn output_getters(
        &self,
        instance: &Instance,
        store: &mut Store<GuestState>,
    ) -> Option<(TypedFunc<(), u32>, TypedFunc<(), u32>)> {
        let (start, len) = self.output_getters.as_ref()?;
        let start = instance.get_module_export(&mut *store, start)?.into_func()?;
        let len = instance.get_module_export(&mut *store, len)?.into_func()?;
        Some((start.typed(&*store).ok()?, len.typed(&*store).ok()?))
    }

    fn function<P: wasmtime::WasmParams, R: wasmtime::WasmResults>(
        &self,
        export: &Option<ModuleExport>,
        instance: &Instance,
        store: &mut Store<GuestState>,
    ) -> Option<TypedFunc<P, R>> {
        let function = instance
            .get_module_export(&mut *store, export.as_ref()?)?
            .into_func()?;
        function.typed(&*store).ok()
    }
}
