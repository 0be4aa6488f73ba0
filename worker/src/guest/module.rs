//! A core module ready to be instantiated, its imports linked and the exports that ABIs know looked up.

use wasmtime::{Engine, Func, Instance, InstancePre, Memory, Module, ModuleExport, Store, TypedFunc};

use super::abi::{INITIALIZE, plugin};
use super::ending::GuestFault;
use super::host::{GuestState, HostFault};
use super::wasi;

/// A core module in one executor's engine.
pub(super) struct LoadedModule {
    pre: InstancePre<GuestState>,
    memory: Option<ModuleExport>,
    alloc: Option<ModuleExport>,
    /// What a plugin is called by, found without its name.
    entry: Option<ModuleExport>,
    initialize: Option<ModuleExport>,
    output_getters: Option<(ModuleExport, ModuleExport)>,
    uses_wasi: bool,
}

/// An instance of a module, and what has been looked up in it.
pub(super) struct LiveModule {
    instance: Instance,
    memory: Option<Memory>,
    alloc: Option<Option<TypedFunc<u32, u32>>>,
    output_getters: Option<Option<OutputGetters>>,
    /// The last function that was called, by its name.
    function: Option<(String, Func)>,
}

/// Where the output begins, and how long it is.
pub(super) type OutputGetters = (TypedFunc<(), u32>, TypedFunc<(), u32>);

impl LoadedModule {
    pub fn new(module: &Module, pre: InstancePre<GuestState>) -> Self {
        let export = |name: &str| module.get_export_index(name);
        Self {
            pre,
            memory: export("memory"),
            alloc: export("alloc"),
            entry: export(plugin::ENTRY),
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

    /// The instance that there is, else a fresh one, initialized if the module asks for that. Its WASI is this run's own.
    pub async fn instance<'a>(
        &self,
        store: &mut Store<GuestState>,
        live: &'a mut Option<LiveModule>,
    ) -> Result<&'a mut LiveModule, GuestFault> {
        if self.uses_wasi {
            let builder = wasi::builder(store.data());
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        if live.is_none() {
            let instance = self.instantiate_bare(store).await?;
            if let Some(initialize) = self.function::<(), ()>(&self.initialize, &instance, store) {
                initialize.call_async(&mut *store, ()).await?;
            }
            *live = Some(LiveModule::new(instance));
        }
        live.as_mut().ok_or(GuestFault::Mismatch)
    }

    /// A fresh instance, as it is after its start function.
    pub async fn instantiate_bare(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Instance> {
        self.pre.instantiate_async(&mut *store).await
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

    fn find_output_getters(
        &self,
        instance: &Instance,
        store: &mut Store<GuestState>,
    ) -> Option<OutputGetters> {
        let (start, len) = self.output_getters.as_ref()?;
        let start = instance.get_module_export(&mut *store, start)?.into_func()?;
        let len = instance.get_module_export(&mut *store, len)?.into_func()?;
        Some((start.typed(&*store).ok()?, len.typed(&*store).ok()?))
    }
}

impl LiveModule {
    fn new(instance: Instance) -> Self {
        Self {
            instance,
            memory: None,
            alloc: None,
            output_getters: None,
            function: None,
        }
    }

    pub fn memory(
        &mut self,
        module: &LoadedModule,
        store: &mut Store<GuestState>,
    ) -> Result<Memory, HostFault> {
        if let Some(memory) = self.memory {
            return Ok(memory);
        }
        let export = module
            .memory
            .as_ref()
            .and_then(|export| self.instance.get_module_export(&mut *store, export));
        self.memory = export.and_then(wasmtime::Extern::into_memory);
        self.memory.ok_or(HostFault::NoMemory)
    }

    pub fn alloc(
        &mut self,
        module: &LoadedModule,
        store: &mut Store<GuestState>,
    ) -> Option<&TypedFunc<u32, u32>> {
        let instance = &self.instance;
        let alloc = || module.function(&module.alloc, instance, store);
        self.alloc.get_or_insert_with(alloc).as_ref()
    }

    pub fn output_getters(
        &mut self,
        module: &LoadedModule,
        store: &mut Store<GuestState>,
    ) -> Option<&OutputGetters> {
        let instance = &self.instance;
        let getters = || module.find_output_getters(instance, store);
        self.output_getters.get_or_insert_with(getters).as_ref()
    }

    /// One of its functions.
    pub fn function(
        &mut self,
        module: &LoadedModule,
        store: &mut Store<GuestState>,
        name: String,
    ) -> Option<Func> {
        match &self.function {
            Some((known, function)) if *known == name => Some(*function),
            _ => {
                let function = match &module.entry {
                    Some(entry) if name == plugin::ENTRY => {
                        self.instance.get_module_export(store, entry)?.into_func()?
                    }
                    _ => self.instance.get_func(store, &name)?,
                };
                self.function = Some((name, function));
                Some(function)
            }
        }
    }
}
