//! What each subject does: a message in, a reply out, whichever door it came in by.

pub mod admit;
pub mod bindings;
pub mod chain;
pub mod dead;
pub mod discovery;
pub mod http;
pub mod invoke;
pub mod job_list;
pub mod jobs;
pub mod modules;
mod names;
pub mod store;
pub mod stored_chain;

pub use wess_service::reply::{error_reply, json_reply};
