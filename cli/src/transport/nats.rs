//! Straight to the workers: requests over NATS, large payloads by way of the object store `wess-payloads`.

mod jobs;

use std::time::Duration;

use async_nats::{Client, HeaderMap, jetstream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::io::StreamReader;
use wess_schemas::binding::{Binding, BindingList, BindingRequest, Unbound};
use wess_schemas::chain::{ChainOutcome, ChainRequest};
use wess_schemas::limits::{DEFAULT_WAIT_MS, LimitPolicy};
use wess_schemas::module::{Deleted, ListRequest, Module, ModuleList, TagRequest};
use wess_schemas::payload::PayloadRef;
use wess_schemas::settings::SettingsChange;
use wess_schemas::store::{STORE_TIMEOUT, StoreRequest};
use wess_schemas::subject::{Endpoint, Subjects};
use wess_schemas::{BindingName, ErrorBody, ErrorCode, Invocation, ModuleName, Outcome, Reference, header};
use wess_service::bus::{Bus, BusError, NatsBus, Reply, Request};
use wess_service::nats::NatsConfig;
use wess_service::payloads::Payloads;

use super::upload::pieces;
use super::{Answer, NewModule, Payload, Transport};
use crate::fault::Fault;

/// How long a question about modules may take, but for storing them.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a call may take beside waiting and running: a fetch and a compilation on a cold worker.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The way over NATS.
pub struct Nats {
    bus: NatsBus,
    client: Client,
    subjects: Subjects,
}

impl Nats {
    /// Connects.
    pub async fn connect(config: NatsConfig) -> Result<Self, Fault> {
        let client = config.connect("wess").await?.client;
        Ok(Self::over(client, config.subjects))
    }

    /// Asks over a connection that is there.
    pub fn over(client: Client, subjects: Subjects) -> Self {
        Self {
            bus: NatsBus::new(client.clone()),
            client,
            subjects,
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, Fault> {
        read(&self.request(endpoint, message(body)?, timeout).await?)
    }

    async fn request(
        &self,
        endpoint: Endpoint,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Reply, BusError> {
        let request = Request {
            subject: self.subjects.endpoint(&endpoint),
            trace: None,
            headers: HeaderMap::new(),
            payload,
            timeout,
        };
        self.bus.request(request).await
    }

    /// Whether a body can travel as a message; above half of what the server takes it goes by reference.
    fn fits(&self, body: &impl Serialize) -> bool {
        serde_json::to_vec(body).is_ok_and(|body| body.len() <= self.bus.max_payload() / 2)
    }

    async fn payloads(&self) -> Result<Payloads, Fault> {
        Payloads::open(&jetstream::new(self.client.clone()))
            .await
            .map_err(|error| Fault::coded(ErrorCode::Unavailable, &*error))
    }

    async fn upload(&self, bytes: Bytes, what: &str) -> Result<PayloadRef, Fault> {
        let size = bytes.len() as u64;
        let source = StreamReader::new(pieces(bytes, what));
        Ok(self.payloads().await?.put_stream(source, size).await?)
    }

    /// Within the message where it fits, else uploaded.
    async fn place(&self, input: Option<Bytes>) -> Result<Payload, Fault> {
        let Some(input) = input else {
            return Ok(Payload::default());
        };
        let inline = Payload::inline(&input);
        if self.fits(&(&inline.text, &inline.base64)) {
            return Ok(inline);
        }
        let stored = Some(self.upload(input, "input").await?);
        Ok(Payload {
            stored,
            ..Payload::default()
        })
    }

    /// Fetches what was answered by reference.
    async fn fetch(&self, reference: &PayloadRef) -> Result<Bytes, Fault> {
        let most = LimitPolicy::default().ceiling.output_bytes;
        Ok(self.payloads().await?.get(reference, most).await?)
    }

    /// Lets the store forget what has been used.
    async fn discard(&self, stored: impl IntoIterator<Item = PayloadRef>) {
        for reference in stored {
            if let Ok(payloads) = self.payloads().await {
                payloads.discard(&reference).await;
            }
        }
    }

    async fn invoke(&self, invocation: Invocation, input: Option<Bytes>) -> Result<Outcome, Fault> {
        let invocation = self.place(input).await?.into_invocation(invocation);
        let timeout = call_timeout(invocation.wait_ms, [invocation.limits.timeout_ms]);
        let answer = self.ask::<Outcome>(Endpoint::Invoke, &invocation, timeout).await;
        self.discard(invocation.input_ref).await;
        let mut outcome = answer?;
        let used = self.fill(&mut outcome).await?;
        self.discard(used).await;
        Ok(outcome)
    }

    /// Puts an output that was answered by reference where the others are; gives what it no longer needs.
    async fn fill(&self, outcome: &mut Outcome) -> Result<Option<PayloadRef>, Fault> {
        let stored = outcome.output_ref.take();
        if let Some(reference) = &stored {
            outcome.set_output(self.fetch(reference).await?.into());
        }
        Ok(stored)
    }

    /// The same for every output of a chain.
    async fn fill_chain(&self, outcome: &mut ChainOutcome) -> Result<Vec<PayloadRef>, Fault> {
        let mut used = Vec::new();
        for step in &mut outcome.steps {
            used.extend(self.fill(step).await?);
        }
        if let Some(reference) = outcome.output_ref.take() {
            let Payload { text, base64, .. } = Payload::inline(&self.fetch(&reference).await?);
            (outcome.output, outcome.output_base64) = (text, base64);
            used.push(reference);
        }
        Ok(used)
    }

    async fn chain(&self, chain: ChainRequest, input: Option<Bytes>) -> Result<ChainOutcome, Fault> {
        let chain = self.place(input).await?.into_chain(chain);
        let timeout = call_timeout(chain.wait_ms, chain.steps.iter().map(|_| None));
        let answer = self.ask::<ChainOutcome>(Endpoint::Chain, &chain, timeout).await;
        self.discard(chain.input_ref).await;
        let mut outcome = answer?;
        // The last step's output and the chain's may be the same object: nothing is forgotten before all is read.
        let used = self.fill_chain(&mut outcome).await?;
        self.discard(used).await;
        Ok(outcome)
    }

    async fn configure(&self, name: ModuleName, terms: SettingsChange) -> Result<Module, Fault> {
        let newest = Endpoint::ModulesGet(Reference::Latest(name.clone()));
        let newest: Module = self.ask(newest, &NOTHING, REGISTRY_TIMEOUT).await?;
        let request = StoreRequest {
            name,
            wasm_base64: None,
            digest: Some(newest.digest),
            object: None,
            limits: terms.limits,
            settings: terms.settings,
        };
        self.ask(Endpoint::Store, &request, STORE_TIMEOUT).await
    }

    async fn store(&self, module: NewModule) -> Result<Module, Fault> {
        let NewModule { name, wasm, terms } = module;
        let wasm_base64 = Some(BASE64.encode(&wasm));
        let inline = StoreRequest {
            name,
            wasm_base64,
            digest: None,
            object: None,
            limits: terms.limits,
            settings: terms.settings,
        };
        if self.fits(&inline) {
            return self.ask(Endpoint::Store, &inline, STORE_TIMEOUT).await;
        }
        let uploaded = self.upload(wasm, inline.name.as_str()).await?;
        let PayloadRef { object, digest, .. } = uploaded.clone();
        let request = StoreRequest {
            wasm_base64: None,
            digest: Some(digest),
            object: Some(object),
            ..inline
        };
        let reply = self
            .request(Endpoint::Store, message(&request)?, STORE_TIMEOUT)
            .await;
        if !reply.as_ref().is_err_and(BusError::leaves_unknown) {
            self.discard([uploaded]).await;
        }
        read(&reply?)
    }
}

impl Transport for Nats {
    fn invoke(&self, invocation: Invocation, input: Option<Bytes>) -> Answer<'_, Outcome> {
        Box::pin(self.invoke(invocation, input))
    }

    fn chain(&self, chain: ChainRequest, input: Option<Bytes>) -> Answer<'_, ChainOutcome> {
        Box::pin(self.chain(chain, input))
    }

    fn configure(&self, name: ModuleName, terms: SettingsChange) -> Answer<'_, Module> {
        Box::pin(self.configure(name, terms))
    }

    fn store(&self, module: NewModule) -> Answer<'_, Module> {
        Box::pin(self.store(module))
    }

    fn list(&self, request: ListRequest) -> Answer<'_, ModuleList> {
        Box::pin(async move { self.ask(Endpoint::ModulesList, &request, REGISTRY_TIMEOUT).await })
    }

    fn get(&self, reference: Reference) -> Answer<'_, Module> {
        Box::pin(self.ask(Endpoint::ModulesGet(reference), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn delete(&self, reference: Reference) -> Answer<'_, Deleted> {
        Box::pin(self.ask(Endpoint::ModulesDelete(reference), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn tag(&self, name: ModuleName, request: TagRequest) -> Answer<'_, Module> {
        Box::pin(async move {
            self.ask(Endpoint::ModulesTag(name), &request, REGISTRY_TIMEOUT)
                .await
        })
    }

    fn bind(&self, name: BindingName, request: BindingRequest) -> Answer<'_, Binding> {
        Box::pin(async move {
            self.ask(Endpoint::BindingsPut(name), &request, REGISTRY_TIMEOUT)
                .await
        })
    }

    fn bindings(&self) -> Answer<'_, BindingList> {
        Box::pin(self.ask(Endpoint::BindingsList, &NOTHING, REGISTRY_TIMEOUT))
    }

    fn unbind(&self, name: BindingName) -> Answer<'_, Unbound> {
        Box::pin(self.ask(Endpoint::BindingsDelete(name), &NOTHING, REGISTRY_TIMEOUT))
    }
}

/// The body of a request that needs none: `{}`.
#[derive(Serialize)]
struct Nothing {}
const NOTHING: Nothing = Nothing {};

/// Longer than any run that was asked for can take: who is still without an answer then has lost its worker.
fn call_timeout(wait_ms: Option<u64>, runs: impl IntoIterator<Item = Option<u64>>) -> Duration {
    let longest_ms = LimitPolicy::default().ceiling.timeout_ms;
    let wait = Duration::from_millis(wait_ms.unwrap_or(DEFAULT_WAIT_MS));
    let one = |timeout_ms: Option<u64>| {
        wait + LOAD_TIMEOUT + Duration::from_millis(timeout_ms.unwrap_or(longest_ms))
    };
    runs.into_iter().map(one).sum()
}

fn message(body: &impl Serialize) -> Result<Bytes, Fault> {
    let bytes = serde_json::to_vec(body);
    bytes
        .map(Bytes::from)
        .map_err(|error| Fault::coded(ErrorCode::Internal, &error))
}

fn read<T: DeserializeOwned>(reply: &Reply) -> Result<T, Fault> {
    let unreadable = |error| Fault::coded(ErrorCode::Internal, &error);
    match reply.headers.get(header::SERVICE_ERROR_CODE) {
        Some(_) => {
            Err(serde_json::from_slice::<ErrorBody>(&reply.payload).map_or_else(unreadable, Into::into))
        }
        None => serde_json::from_slice(&reply.payload).map_err(unreadable),
    }
}
