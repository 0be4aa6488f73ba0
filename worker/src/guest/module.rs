//! A core module ready to be instantiated, its imports linked and the exports that ABIs know looked up.

use wasmtime::{Engine, Instance, InstancePre, Memory, Module, ModuleExport, Store, TypedFunc};

use super::abi::INITIALIZE;
use super::ending::GuestFault;
use super::host::{GuestState, HostFault};
use super::wasi;

/// A core module in one executor's engine.
pub(super) struct LoadedModule {
    pre: InstancePre<GuestState>,
    memory: Option<ModuleExport>,
    alloc: Option<ModuleExport>,
    initialize: Option<ModuleExport>,
    output_getters: Option<(ModuleExport, ModuleExport)>,
    uses_wasi: bool,
}

impl LoadedModule {
    pub fn new(module: &Module, pre: InstancePre<GuestState>) -> Self {
        let export = |name: &str| module.get_export_index(name);
        Self {
            pre,
            memory: export("memory"),
            alloc: export("alloc"),
            initialize: export(INITIALIZE),
            output_getters: export("get_output_ptr").zip(export("get_output_len")),
            uses_wasi: module.imports().any(|import| import.module() == wasi::MODULE),
        }
    }

    /// Whether the module imports WASI.
    pub fn uses_wasi(&self) -> bool {
        self.uses_wasi
    }

    pub fn engine(&self) -> &Engine {
        self.pre.module().engine()
    }

    /// A fresh instance, initialized if the module asks for that.
    pub async fn instantiate(&self, store: &mut Store<GuestState>) -> Result<Instance, GuestFault> {
        if self.uses_wasi {
            let builder = wasi::builder(store.data());
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        let instance = self.instantiate_bare(store).await?;
        if let Some(initialize) = self.function::<(), ()>(&self.initialize, &instance, store) {
            initialize.call_async(&mut *store, ()).await?;
        }
        Ok(instance)
    }

    /// A fresh instance, as it is after its start function.
    pub async fn instantiate_bare(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Instance> {
        self.pre.instantiate_async(&mut *store).await
    }

    pub fn memory(&self, instance: &Instance, store: &mut Store<GuestState>) -> Result<Memory, HostFault> {
        let export = self
            .memory
            .as_ref()
            .and_then(|export| instance.get_module_export(&mut *store, export));
        export
            .and_then(wasmtime::Extern::into_memory)
            .ok_or(HostFault::NoMemory)
    }

    pub fn alloc(&self, instance: &Instance, store: &mut Store<GuestState>) -> Option<TypedFunc<u32, u32>> {
        self.function(&self.alloc, instance, store)
    }

    pub fn output_getters(
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
