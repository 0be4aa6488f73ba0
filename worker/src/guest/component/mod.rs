//! Components: what one is made of, what it may import, what it exports, and how it is loaded.
//!
//! Invariant: what a component claims about itself costs a bounded time to read, before anything is compiled.

pub(super) mod blobstore;
pub(super) mod granted;
mod interface;
mod link;
mod loaded;
pub(super) mod messaging;
mod outline;

pub(super) use link::linker;
pub(super) use loaded::{LiveComponent, LoadedComponent, MAX_VALUE_BYTES};

use wess_schemas::module::Abi;
use wess_schemas::wit::ComponentInterface;

use super::inspect::Inspection;
use super::validate::{ModuleRefused, unsupported};

/// Reads a valid component without compiling it.
pub(super) fn inspect(wasm: &[u8]) -> Result<Inspection, ModuleRefused> {
    outline::check(wasm)?;
    let interface = interface::read(wasm)?;
    Ok(Inspection {
        abi: abi(&interface)?,
        exports: Vec::new(),
        component: Some(interface),
    })
}

fn abi(interface: &ComponentInterface) -> Result<Abi, ModuleRefused> {
    let functions = &interface.functions;
    if functions.iter().any(|function| function.is_command()) {
        return Ok(Abi::Command);
    }
    if functions.iter().any(|function| function.serves_http()) {
        return Ok(Abi::Http);
    }
    if functions.is_empty() {
        return Err(unsupported(
            "the component exports no function that could be called",
        ));
    }
    Ok(Abi::Component)
}
