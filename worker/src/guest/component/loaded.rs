//! A component ready to be instantiated, its imports linked.

use wasmtime::component::{Component, Func, Instance, InstancePre};
use wasmtime::{Engine, Store};
use wess_schemas::wit::WitFunction;

use crate::guest::ending::GuestFault;
use crate::guest::host::GuestState;

/// Most bytes of the host's memory in the values of one hand-over, in either direction, of a call as of an import. A call's
/// own limits are held where its arguments are made, and where its answer becomes output.
pub(in crate::guest) const MAX_VALUE_BYTES: usize = 64 << 20;
/// Most handles that a guest may hold, its own resources included.
const MAX_HANDLES: usize = 16 << 10;

/// A component in one executor's engine.
pub(in crate::guest) struct LoadedComponent {
    pre: InstancePre<GuestState>,
    uses_wasi: bool,
}

/// An instance of a component, and the function that was called last, by its name.
pub(in crate::guest) struct LiveComponent {
    instance: Instance,
    function: Option<(String, Func)>,
}

impl LiveComponent {
    /// One of its exports.
    pub fn function(
        &mut self,
        component: &LoadedComponent,
        store: &mut Store<GuestState>,
        name: String,
    ) -> wasmtime::Result<Func> {
        match &self.function {
            Some((known, function)) if *known == name => Ok(*function),
            _ => {
                let function = component.function(&self.instance, store, &name)?;
                self.function = Some((name, function));
                Ok(function)
            }
        }
    }
}

impl LoadedComponent {
    pub fn new(pre: InstancePre<GuestState>) -> Self {
        let component = pre.component();
        let uses_wasi = component
            .component_type()
            .imports(component.engine())
            .next()
            .is_some();
        Self { pre, uses_wasi }
    }

    /// Whether it imports anything; then its runs get a WASI context, even where it needs none.
    pub fn uses_wasi(&self) -> bool {
        self.uses_wasi
    }

    pub fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    /// The instance that there is, else a fresh one. The run must have a WASI context by now.
    pub async fn instance<'a>(
        &self,
        store: &mut Store<GuestState>,
        live: &'a mut Option<LiveComponent>,
    ) -> Result<&'a mut LiveComponent, GuestFault> {
        if live.is_none() {
            let instance = self.instantiate(store).await?;
            *live = Some(LiveComponent {
                instance,
                function: None,
            });
        }
        live.as_mut().ok_or(GuestFault::Mismatch)
    }

    /// A fresh instance. The run must have a WASI context by now.
    pub async fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Instance> {
        store.set_max_component_handles(MAX_HANDLES);
        store.set_hostcall_fuel(MAX_VALUE_BYTES);
        self.pre.instantiate_async(&mut *store).await
    }

    /// One of an instance's exports.
    pub fn function(
        &self,
        instance: &Instance,
        store: &mut Store<GuestState>,
        function: &str,
    ) -> wasmtime::Result<Func> {
        let component: &Component = self.pre.component();
        let (interface, name) = WitFunction::split(function);
        let interface =
            interface.map(|interface| component.get_export_index(None, interface).ok_or_else(missing));
        let interface = interface.transpose()?;
        let index = component
            .get_export_index(interface.as_ref(), name)
            .ok_or_else(missing)?;
        instance.get_func(store, index).ok_or_else(missing)
    }
}

fn missing() -> wasmtime::Error {
    wasmtime::Error::msg("the component does not have what its record says")
}
