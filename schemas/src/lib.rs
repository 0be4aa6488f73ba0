//! The wire contract of Wess as types: everything a client can observe is defined here and nowhere else.
//!
//! Values are parsed once, at the edge, into types that cannot hold anything invalid. Nothing here does I/O.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod beat;
pub mod binding;
pub mod chain;
pub mod digest;
pub mod error;
pub mod error_code;
pub mod export;
pub mod header;
pub mod hosts;
pub mod id;
pub mod invocation;
pub mod job;
pub mod limits;
pub mod module;
pub mod outcome;
pub mod pattern;
pub mod payload;
pub mod reference;
pub mod route;
pub mod schema;
pub mod secret;
pub mod seed;
pub mod settings;
pub mod store;
pub mod subject;
pub mod timestamp;
pub mod wit;

pub use digest::Digest;
pub use error::ErrorBody;
pub use error_code::ErrorCode;
pub use id::{BindingName, JobId, ModuleId, ModuleName, Tag, Tenant, WorkerId};
pub use invocation::Invocation;
pub use limits::Limits;
pub use module::Module;
pub use outcome::Outcome;
pub use reference::Reference;
