//! From Wasm to something that can run: compiling, and loading what was compiled into an engine.
//!
//! Invariant: only files whose seal the registry has verified are loaded; this is the one place that trusts them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use super::component::{self, LoadedComponent};
use super::engine::{EngineError, EnginePool, Footprint, Metering, compatibility, compiling_engine};
use super::epoch::EngineClock;
use super::host::linker;
use super::module::LoadedModule;
use super::validate::{ModuleRefused, is_component};

/// Compiles modules. Cheap to clone; compiling blocks for as long as it takes.
#[derive(Clone)]
pub struct Compiler {
    engines: [Engine; Metering::ALL.len()],
}

impl Compiler {
    /// Makes the engines that compile.
    pub fn new() -> Result<Self, EngineError> {
        Ok(Self {
            engines: [
                compiling_engine(Metering::Off)?,
                compiling_engine(Metering::Fuel)?,
                compiling_engine(Metering::Canonical)?,
                compiling_engine(Metering::Checked)?,
            ],
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
        if is_component(wasm) {
            return precompiled_component(engine, wasm).map_err(refused);
        }
        let artifact = engine.precompile_module(wasm).map_err(refused)?;
        // What shows only when a module is loaded: sizes that a pool has no slots for, imports of another type.
        let module = trusted_from_bytes(engine, &artifact).map_err(refused)?;
        linker(engine)
            .and_then(|linker| linker.instantiate_pre(&module))
            .map_err(refused)?;
        Ok(artifact)
    }

    fn engine(&self, metering: Metering) -> &Engine {
        &self.engines[metering as usize]
    }
}

fn precompiled_component(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let artifact = engine.precompile_component(wasm)?;
    let component = trusted_component_from_bytes(engine, &artifact)?;
    component::linker(engine)?.instantiate_pre(&component)?;
    Ok(artifact)
}

#[allow(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the one place that trusts compiled code made in this call"
)]
fn trusted_component_from_bytes(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from `precompile_component` of the same engine, a moment ago, and nobody else has seen them.
    unsafe { Component::deserialize(engine, artifact) }
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

#[allow(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the one place that trusts compiled code from files"
)]
fn trusted_component_from_file(engine: &Engine, file: &File) -> wasmtime::Result<Component> {
    // SAFETY: as for modules. The path is no name that could come to mean another file: the kernel resolves it to the
    // very file that this descriptor has open, which `file` keeps open until it is mapped.
    unsafe { Component::deserialize_file(engine, path_of(file)) }
}

/// Where the kernel shows the file that a descriptor has open. Wasmtime maps components from paths only.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A module or component ready to be instantiated in one executor's engine.
pub struct Prepared {
    code: Code,
    clock: EngineClock,
    metering: Metering,
}

/// What there is to instantiate.
pub(super) enum Code {
    Module(LoadedModule),
    Component(LoadedComponent),
}

impl Prepared {
    /// Maps a compiled file whose seal has been verified through this very descriptor. Blocks for a moment.
    pub fn load(engines: &EnginePool, metering: Metering, file: &File) -> Result<Arc<Self>, EngineError> {
        let is_component = matches!(
            Engine::detect_precompiled_file(path_of(file))?,
            Some(Precompiled::Component)
        );
        if !is_component {
            return Self::load_module(engines, metering, file);
        }
        let (code, clock) = load_component(engines, metering, file)?;
        Ok(Arc::new(Self {
            code,
            clock,
            metering,
        }))
    }

    /// As [`Prepared::load`], of what is known to be no component.
    pub fn load_module(
        engines: &EnginePool,
        metering: Metering,
        file: &File,
    ) -> Result<Arc<Self>, EngineError> {
        let (code, clock) = load_module(engines, metering, file)?;
        Ok(Arc::new(Self {
            code,
            clock,
            metering,
        }))
    }

    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    pub(super) fn metering(&self) -> Metering {
        self.metering
    }

    pub(super) fn clock(&self) -> &EngineClock {
        &self.clock
    }

    pub(super) fn engine(&self) -> &Engine {
        match &self.code {
            Code::Module(module) => module.engine(),
            Code::Component(component) => component.engine(),
        }
    }
}

fn load_module(
    engines: &EnginePool,
    metering: Metering,
    file: &File,
) -> Result<(Code, EngineClock), EngineError> {
    // What it starts with shows once it is mapped, and so it is mapped again where the guess was wrong.
    let guess = Footprint::guess(file.metadata()?.len());
    let mut running = engines.get(metering, guess)?;
    let mut module = trusted_from_file(&running.engine, file.try_clone()?)?;
    let footprint = Footprint::of(&module);
    if footprint != guess {
        running = engines.get(metering, footprint)?;
        module = trusted_from_file(&running.engine, file.try_clone()?)?;
    }
    let pre = running.linker.instantiate_pre(&module)?;
    Ok((
        Code::Module(LoadedModule::new(&module, pre)),
        running.clock.clone(),
    ))
}

fn load_component(
    engines: &EnginePool,
    metering: Metering,
    file: &File,
) -> Result<(Code, EngineClock), EngineError> {
    let running = engines.get(metering, Footprint::Component)?;
    let component = trusted_component_from_file(&running.engine, file)?;
    let pre = running.components.instantiate_pre(&component)?;
    Ok((Code::Component(LoadedComponent::new(pre)), running.clock.clone()))
}
