//! Components: what one is made of, what it may import, what it exports, and how it is loaded.
//!
//! Invariant: what a component claims about itself costs a bounded time to read, before anything is compiled.

mod granted;
mod interface;
mod link;
mod loaded;
mod outline;

pub(super) use link::linker;
pub(super) use loaded::LoadedComponent;

use wess_schemas::module::Abi;
use wess_schemas::wit::ComponentInterface;

use super::inspect::Inspection;
use super::validate::{ModuleRefused, unsupported};

/// The interface of a component that serves HTTP requests.
const HTTP_HANDLER: &str = "wasi:http/incoming-handler";

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
    let mut functions = interface.functions.iter();
    if functions.clone().any(|function| function.is_command()) {
        return Ok(Abi::Command);
    }
    let serves_http = |name: &str| name.split('@').next() == Some(HTTP_HANDLER);
    if functions.any(|function| !function.parts().0.is_some_and(serves_http)) {
        return Ok(Abi::Component);
    }
    let text = match interface.functions.first() {
        Some(_) => {
            "the component only serves HTTP requests (wasi:http/incoming-handler), which is not supported"
        }
        None => "the component exports no function that could be called",
    };
    Err(unsupported(text))
}
