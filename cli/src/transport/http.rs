//! By way of a gateway: the same questions over HTTP, problem documents read back into what NATS would have said.

mod jobs;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::json;
use wess_gateway::problem::ProblemDocument;
use wess_schemas::binding::{Binding, BindingList, BindingRequest, Unbound};
use wess_schemas::chain::{ChainOutcome, ChainRequest};
use wess_schemas::header::{SETTINGS, json_line};
use wess_schemas::module::{Deleted, ListRequest, Module, ModuleList, TagRequest};
use wess_schemas::settings::SettingsChange;
use wess_schemas::{BindingName, ErrorBody, ErrorCode, Invocation, ModuleName, Outcome, Reference, Tag};

use super::upload::pieces;
use super::{Answer, NewModule, Payload, Transport};
use crate::exit::Exit;
use crate::fault::Fault;

/// Bounds the connect; what is asked has bounds of its own, which the gateway keeps.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a gateway lets any request take: a chain of ten that all wait and run as long as they may.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// Speaks HTTP, over TLS by the one provider that is compiled in.
pub fn client() -> reqwest::Result<Client> {
    // Only a second install fails, and then the first is there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .build()
}

/// The way over HTTP.
pub struct Http {
    client: Client,
    base: Url,
    token: Option<String>,
}

impl Http {
    /// Speaks to the gateway at `url`. Connects with the first question.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, Fault> {
        let base = parse_base(url)
            .ok_or_else(|| config("--gateway: expected http://HOST:PORT or https://HOST:PORT"))?;
        let client = client().map_err(|error| Fault::coded(ErrorCode::Internal, &error))?;
        Ok(Self {
            client,
            base,
            token: token.map(Into::into),
        })
    }

    /// A request to the path of these segments, each one escaped.
    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.request_with(method, segments, &[])
    }

    /// As [`Http::request`], with those parameters that have a value.
    fn request_with(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, Option<String>)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let response = request.send().await.map_err(lost)?;
        let success = response.status().is_success();
        let response = if success {
            response
        } else {
            return Err(refusal(response).await);
        };
        let body = response.bytes().await.map_err(lost)?;
        serde_json::from_slice(&body).map_err(|error| Fault::coded(ErrorCode::Internal, &error))
    }

    fn store(&self, module: NewModule) -> RequestBuilder {
        let NewModule { name, wasm, terms } = module;
        let limits = terms.limits.unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let query = [
            ("name", Some(name.to_string())),
            ("timeout_ms", number(limits.timeout_ms)),
            ("memory_mb", number(limits.memory_mb)),
            ("fuel", number(limits.fuel)),
            ("output_bytes", number(limits.output_bytes)),
        ];
        let mut request = self.request_with(Method::POST, &["modules"], &query);
        if let Some(settings) = &terms.settings {
            request = request.header(SETTINGS, json_line(settings));
        }
        request
            .header(CONTENT_TYPE, "application/wasm")
            .header(CONTENT_LENGTH, wasm.len())
            .body(Body::wrap_stream(pieces(wasm, name)))
    }

    fn tag(&self, name: &ModuleName, tag: &Tag, version: Option<u32>) -> RequestBuilder {
        match version {
            Some(version) => self
                .request(Method::PUT, &["modules", name.as_str(), "tags", tag.as_str()])
                .json(&json!({ "version": version })),
            None => self.request(Method::DELETE, &["modules", name.as_str(), "tags", tag.as_str()]),
        }
    }
}

impl Transport for Http {
    fn invoke(&self, invocation: Invocation, input: Option<Bytes>) -> Answer<'_, Outcome> {
        let invocation = payload(input).into_invocation(invocation);
        Box::pin(self.ask(self.request(Method::POST, &["invoke"]).json(&invocation)))
    }

    fn chain(&self, chain: ChainRequest, input: Option<Bytes>) -> Answer<'_, ChainOutcome> {
        let chain = payload(input).into_chain(chain);
        Box::pin(self.ask(self.request(Method::POST, &["chain"]).json(&chain)))
    }

    fn store(&self, module: NewModule) -> Answer<'_, Module> {
        Box::pin(self.ask(self.store(module)))
    }

    fn configure(&self, name: ModuleName, terms: SettingsChange) -> Answer<'_, Module> {
        let request = self.request(Method::PUT, &["modules", name.as_str(), "settings"]);
        Box::pin(self.ask(request.json(&terms)))
    }

    fn list(&self, request: ListRequest) -> Answer<'_, ModuleList> {
        let ListRequest { prefix, after, limit } = request;
        let query = [
            ("prefix", prefix),
            ("after", after.map(Into::into)),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        Box::pin(self.ask(self.request_with(Method::GET, &["modules"], &query)))
    }

    fn get(&self, reference: Reference) -> Answer<'_, Module> {
        Box::pin(self.ask(self.request(Method::GET, &["modules", &reference.to_string()])))
    }

    fn delete(&self, reference: Reference) -> Answer<'_, Deleted> {
        Box::pin(self.ask(self.request(Method::DELETE, &["modules", &reference.to_string()])))
    }

    fn tag(&self, name: ModuleName, request: TagRequest) -> Answer<'_, Module> {
        Box::pin(self.ask(self.tag(&name, &request.tag, request.version)))
    }

    fn bind(&self, name: BindingName, request: BindingRequest) -> Answer<'_, Binding> {
        let put = self.request(Method::PUT, &["bindings", name.as_str()]);
        Box::pin(self.ask(put.json(&request)))
    }

    fn bindings(&self) -> Answer<'_, BindingList> {
        Box::pin(self.ask(self.request(Method::GET, &["bindings"])))
    }

    fn unbind(&self, name: BindingName) -> Answer<'_, Unbound> {
        Box::pin(self.ask(self.request(Method::DELETE, &["bindings", name.as_str()])))
    }
}

fn payload(input: Option<Bytes>) -> Payload {
    input.map_or_else(Payload::default, |input| Payload::inline(&input))
}

fn parse_base(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()).then_some(url)
}

fn config(message: &str) -> Fault {
    Fault::local(Exit::Config, message)
}

/// No answer, or only part of one. Without a connection nothing was asked; else a guest may have run.
fn lost(error: reqwest::Error) -> Fault {
    if !error.is_connect() {
        return Fault::coded(ErrorCode::Internal, &error);
    }
    let origin = error
        .url()
        .map(|url| url.origin().ascii_serialization())
        .unwrap_or_default();
    let mut root: &dyn Error = &error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    ErrorBody::new(
        ErrorCode::Unavailable,
        format!("cannot connect to the gateway at {origin}: {root}"),
    )
    .into()
}

/// What the gateway said; or what its status says, when something else answered in its place.
async fn refusal(response: Response) -> Fault {
    let (status, url) = (response.status(), response.url().clone());
    let document = response.json::<ProblemDocument>().await;
    document.map_or_else(
        |_| {
            ErrorBody::new(
                ErrorCode::Internal,
                format!("{url} answered {status}, which is no answer of a gateway"),
            )
            .into()
        },
        |document| ErrorBody::from(document).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(segments: &[&str]) -> String {
        let http = Http::new("http://127.0.0.1:1/behind/", Some("hush")).unwrap();
        let query = [("prefix", Some("a b".into())), ("after", None)];
        let request = http.request_with(Method::GET, segments, &query).build().unwrap();
        assert_eq!(request.headers()["authorization"], "Bearer hush");
        request.url().to_string()
    }

    #[test]
    fn a_gateway_may_stand_behind_a_path_and_segments_are_escaped() {
        assert_eq!(
            url(&["modules", "upper@3"]),
            "http://127.0.0.1:1/behind/v1/modules/upper@3?prefix=a+b"
        );
        assert_eq!(
            url(&["modules", "a/b?c"]),
            "http://127.0.0.1:1/behind/v1/modules/a%2Fb%3Fc?prefix=a+b"
        );
    }

    #[test]
    fn only_http_urls_are_gateways() {
        for bad in [
            "",
            "localhost",
            "nats://h:1",
            "http://",
            "http://h/?x=1",
            "file:///etc",
        ] {
            assert!(
                matches!(Http::new(bad, None), Err(fault) if fault.exit() == Exit::Config),
                "{bad}"
            );
        }
    }
}
