//! Running untrusted code: bytes, limits and a host in, an ending out.
//!
//! Knows neither NATS nor tenants nor disk. Wasmtime is named in this folder and nowhere else.

pub mod abi;
mod artifact;
mod bare;
mod component;
mod effort;
mod ending;
mod engine;
mod epoch;
mod fixed;
mod host;
mod http;
mod inspect;
mod invoke;
mod kept;
mod limits;
mod log;
mod module;
mod objects;
mod pipe;
#[cfg(test)]
mod tests;
mod validate;
mod wasi;

pub use artifact::{Compiler, Prepared};
pub use bare::BarePlugin;
pub use ending::{Answer, Ending, GuestFault};
pub use engine::{EngineError, EnginePool, Metering, Needs};
pub use epoch::{Ticker, poll_noting_overstay};
pub use fixed::Fixed;
pub use host::{Host, MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES, StateError, StateFuture};
pub use inspect::{Inspection, MAX_FUNCTION_BYTES, inspect};
pub use invoke::{Run, invoke};
pub use kept::{Kept, Reuse};
pub use limits::{MemoryBudget, Spares};
pub use log::LogStream;
pub use objects::{CHUNK_BYTES, Found, Made, ObjectFault, ObjectFuture, Objects, Upload, Written};
pub use validate::ModuleRefused;
