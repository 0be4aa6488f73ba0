//! The ways to Wess: one set of questions, asked over NATS or over HTTP, with the same answers.
//!
//! Payloads too large for a message, in either direction, travel by reference without the caller noticing.

mod http;
mod jobs;
mod nats;
mod upload;

use async_nats::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use wess_schemas::binding::{Binding, BindingList, BindingRequest, Unbound};
use wess_schemas::chain::{ChainOutcome, ChainRequest};
use wess_schemas::module::{Deleted, ListRequest, Module, ModuleList, TagRequest};
use wess_schemas::payload::PayloadRef;
use wess_schemas::settings::SettingsChange;
use wess_schemas::subject::Subjects;
use wess_schemas::{BindingName, Invocation, ModuleName, Outcome, Reference};

pub use http::client as http_client;
pub use jobs::Jobs;

use crate::args::Remote;
use crate::fault::Fault;

/// The answer to a question.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// One way to Wess.
pub trait Transport: Jobs {
    /// Runs a module once. Any output is in the outcome itself.
    fn invoke(&self, invocation: Invocation, input: Option<Bytes>) -> Answer<'_, Outcome>;
    /// Runs modules in a row. Any last output is in the outcome itself.
    fn chain(&self, chain: ChainRequest, input: Option<Bytes>) -> Answer<'_, ChainOutcome>;
    /// Stores a module.
    fn store(&self, module: NewModule) -> Answer<'_, Module>;
    /// One page of modules.
    fn list(&self, request: ListRequest) -> Answer<'_, ModuleList>;
    /// Gives the newest version's bytes other terms.
    fn configure(&self, name: ModuleName, terms: SettingsChange) -> Answer<'_, Module>;
    /// One module.
    fn get(&self, reference: Reference) -> Answer<'_, Module>;
    /// Deletes a module, a version or a tag.
    fn delete(&self, reference: Reference) -> Answer<'_, Deleted>;
    /// Sets a tag, or takes it away.
    fn tag(&self, name: ModuleName, request: TagRequest) -> Answer<'_, Module>;
    /// Makes or changes a binding.
    fn bind(&self, name: BindingName, request: BindingRequest) -> Answer<'_, Binding>;
    /// Every binding.
    fn bindings(&self) -> Answer<'_, BindingList>;
    /// Deletes a binding.
    fn unbind(&self, name: BindingName) -> Answer<'_, Unbound>;
}

/// A module to store.
pub struct NewModule {
    /// Its name.
    pub name: ModuleName,
    /// Its bytes.
    pub wasm: Bytes,
    /// What holds for it.
    pub terms: SettingsChange,
}

/// Opens the way that the command line says.
pub async fn open(remote: &Remote) -> Result<Box<dyn Transport>, Fault> {
    Ok(match &remote.gateway {
        Some(url) => Box::new(http::Http::new(url, remote.token.as_deref())?),
        None => Box::new(nats::Nats::connect(remote.nats.validate()?).await?),
    })
}

/// The way over a connection that is there.
pub fn over(client: Client, subjects: Subjects) -> Box<dyn Transport> {
    Box::new(nats::Nats::over(client, subjects))
}

/// Input or output as it travels with JSON; at most one of the three.
#[derive(Default)]
struct Payload {
    text: Option<String>,
    base64: Option<String>,
    stored: Option<PayloadRef>,
}

impl Payload {
    /// Within the message: text where it is text, else base64.
    fn inline(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self {
                text: Some(text.into()),
                ..Self::default()
            },
            Err(_) => Self {
                base64: Some(BASE64.encode(bytes)),
                ..Self::default()
            },
        }
    }

    /// Puts it where an invocation has its input.
    fn into_invocation(self, invocation: Invocation) -> Invocation {
        let Self { text, base64, stored } = self;
        Invocation {
            input: text.map(Value::from),
            input_base64: base64,
            input_ref: stored,
            ..invocation
        }
    }

    /// Puts it where a chain has its input.
    fn into_chain(self, chain: ChainRequest) -> ChainRequest {
        let Self { text, base64, stored } = self;
        ChainRequest {
            input: text.map(Value::from),
            input_base64: base64,
            input_ref: stored,
            ..chain
        }
    }
}
