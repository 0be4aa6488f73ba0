//! A plugin called as bare as Wasmtime allows: what a worker's cost of a call is held against.
//!
//! Its engine is set up as an executor's is, and each call has a fresh instance; limits, deadline, log and state it has none.

use wasmtime::{Engine, InstancePre, Linker, Module, ModuleExport, Store};

use super::abi::plugin;
use super::engine::{EngineError, Footprint, Metering, running_engine};

/// A plugin without imports, in an engine of its own.
pub struct BarePlugin {
    pre: InstancePre<()>,
    memory: ModuleExport,
    alloc: ModuleExport,
    entry: ModuleExport,
}

impl BarePlugin {
    /// Compiles it; blocks for as long as that takes.
    pub fn new(wasm: &[u8]) -> Result<Self, EngineError> {
        let mut module = Module::new(&engine(Footprint::Page)?, wasm)?;
        if Footprint::of(&module) == Footprint::Pages {
            module = Module::new(&engine(Footprint::Pages)?, wasm)?;
        }
        let export = |name: &str| {
            let found = module.get_export_index(name);
            found.ok_or_else(|| {
                EngineError::from(wasmtime::Error::msg(format!("the plugin exports no {name}")))
            })
        };
        Ok(Self {
            memory: export("memory")?,
            alloc: export("alloc")?,
            entry: export(plugin::ENTRY)?,
            pre: Linker::new(module.engine()).instantiate_pre(&module)?,
        })
    }

    /// Calls it once, in a fresh instance: what its input buffer holds afterwards.
    pub fn call(&self, input: &[u8]) -> Result<Vec<u8>, EngineError> {
        Ok(self.call_fresh(input)?)
    }

    fn call_fresh(&self, input: &[u8]) -> wasmtime::Result<Vec<u8>> {
        let mut store = Store::new(self.pre.module().engine(), ());
        // Nobody advances this engine's epoch: it is looked at, and never reached.
        store.set_epoch_deadline(1);
        let instance = self.pre.instantiate(&mut store)?;
        let mut export = |export| instance.get_module_export(&mut store, export);
        let memory = export(&self.memory).and_then(wasmtime::Extern::into_memory);
        let alloc = export(&self.alloc).and_then(wasmtime::Extern::into_func);
        let entry = export(&self.entry).and_then(wasmtime::Extern::into_func);
        let (Some(memory), Some(alloc), Some(entry)) = (memory, alloc, entry) else {
            return Err(wasmtime::Error::msg("the plugin's exports are of other kinds"));
        };
        let len = u32::try_from(input.len())?;
        let start = alloc.typed::<u32, u32>(&store)?.call(&mut store, len)?;
        memory.write(&mut store, start as usize, input)?;
        let exit_code = entry
            .typed::<(u32, u32), i32>(&store)?
            .call(&mut store, (start, len))?;
        if exit_code != 0 {
            return Err(wasmtime::Error::msg(format!("the plugin answered {exit_code}")));
        }
        let mut output = vec![0; input.len()];
        memory.read(&store, start as usize, &mut output)?;
        Ok(output)
    }
}

/// Called from one thread, one call after the other, it needs one slot.
fn engine(footprint: Footprint) -> wasmtime::Result<Engine> {
    running_engine(Metering::Off, footprint, 1)
}
