//! `wess.store` in its three forms: raw bytes with a header, bytes within JSON, and a reference to an upload.
//!
//! Told apart by the header `Wess-Module` alone. Every form is bounded by the same size and ends in the same place.

use std::error::Error as _;

use async_nats::HeaderMap;
use async_nats::jetstream::object_store::InfoErrorKind;
use bytes::Bytes;
use wess_schemas::header::{self, CallHeaders};
use wess_schemas::limits::{LimitPolicy, MIB};
use wess_schemas::module::Module;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::settings::InvalidSettings;
use wess_schemas::store::{StoreRequest, StoreSource};
use wess_schemas::subject::Subjects;
use wess_schemas::{Digest, ErrorBody, ErrorCode, ModuleName};
use wess_service::secrets::OpeningKeys;

use super::stored_chain;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::registry::{self, NewModule, Registry, Terms};
use crate::secrets;

/// What WebAssembly begins with.
const MAGIC: &[u8] = b"\0asm";

/// Stores modules.
pub struct StoreEndpoint {
    /// Where they go.
    pub registry: Registry,
    /// Who has to hear of them.
    pub fleet: Fleet,
    /// Which subjects are ours.
    pub subjects: Subjects,
    /// What limits a module may have.
    pub policy: LimitPolicy,
    /// What opens modules' secrets.
    pub secrets: OpeningKeys,
    /// Most bytes of Wasm in one module.
    pub max_bytes: u64,
}

/// What a request asks for, its bytes not fetched yet.
#[derive(Debug, PartialEq)]
struct Order {
    name: ModuleName,
    source: StoreSource,
    terms: Terms,
}

impl StoreEndpoint {
    /// Stores as a worker was told.
    pub fn new(config: &Config, registry: &Registry, fleet: &Fleet) -> Self {
        Self {
            registry: registry.clone(),
            fleet: fleet.clone(),
            subjects: config.nats.subjects.clone(),
            policy: config.policy,
            secrets: config.secrets.clone(),
            max_bytes: config.registry.max_module_bytes(),
        }
    }

    /// Answers one request, once what it stored is durable.
    pub async fn answer(&self, headers: &HeaderMap, payload: Bytes) -> Result<Module, ErrorBody> {
        self.carry_out(read(headers, payload)?, PayloadBucket::Calls)
            .await
    }

    /// Stores what a request in JSON says, whose upload lies in `bucket`.
    pub async fn store(&self, request: StoreRequest, bucket: PayloadBucket) -> Result<Module, ErrorBody> {
        self.carry_out(order(request)?, bucket).await
    }

    /// Refuses a request that could not be carried out, and gives where its upload lies, if it has one.
    pub async fn check(&self, request: &StoreRequest) -> Result<Option<PayloadRef>, ErrorBody> {
        let Order { name, source, terms } = order(request.clone())?;
        self.check_terms(&name, &terms)?;
        match source {
            StoreSource::Bytes(bytes) => self.check_size(bytes.len() as u64).map(|()| None),
            StoreSource::Upload { digest, object } => {
                self.locate(PayloadBucket::Calls, digest, object).await.map(Some)
            }
            StoreSource::Known(digest) => self.registry.holds(&digest).map(|()| None),
        }
    }

    fn check_terms(&self, name: &ModuleName, terms: &Terms) -> Result<(), ErrorBody> {
        if let Some(limits) = &terms.limits {
            self.policy
                .check(limits)
                .map_err(|refused| invalid(refused.to_string()))?;
        }
        let Some(settings) = &terms.settings else {
            return Ok(());
        };
        settings.check().map_err(|refused| invalid(refused.to_string()))?;
        secrets::open(&self.secrets, name, settings)?;
        // A pattern's first token is none of NATS's wildcards.
        let ours = |subject: &&String| !self.subjects.may_reply_to(&subject.replace(['*', '>'], "any"));
        match settings.grants.publish.iter().find(ours) {
            Some(subject) => Err(invalid(InvalidSettings::Subject(subject.clone()).to_string())),
            None => Ok(()),
        }
    }

    async fn carry_out(&self, order: Order, bucket: PayloadBucket) -> Result<Module, ErrorBody> {
        let Order { name, source, terms } = order;
        self.check_terms(&name, &terms)?;
        let wasm = match source {
            StoreSource::Bytes(bytes) => Bytes::from(bytes),
            StoreSource::Upload { digest, object } => {
                let upload = self.locate(bucket, digest, object).await?;
                self.fetch(&upload).await?
            }
            StoreSource::Known(digest) => self.registry.bytes(digest).await?,
        };
        self.check_size(wasm.len() as u64)?;
        if let Some(chain) = registry::chain_of(&wasm) {
            stored_chain::check(&self.registry, &self.policy, &name, &chain?, &terms)?;
        }
        let published = self.registry.store(NewModule { name, wasm, terms }).await?;
        let propagated = self.fleet.propagated(published.revision).await;
        let module = self.registry.module(&published.name, published.version).await?;
        Ok(Module {
            propagated: Some(propagated),
            stored: Some(published.stored),
            ..module
        })
    }

    /// Where an upload lies, and how large its store says that it is.
    async fn locate(
        &self,
        bucket: PayloadBucket,
        digest: Digest,
        object: String,
    ) -> Result<PayloadRef, ErrorBody> {
        let assets = self.registry.storage().assets().await?;
        let uploads = match bucket {
            PayloadBucket::Calls => assets.payloads,
            PayloadBucket::Jobs => assets.job_payloads,
        };
        let size = match uploads.store.info(&object).await {
            Ok(info) => info.size as u64,
            Err(error) if matches!(error.kind(), InfoErrorKind::NotFound | InfoErrorKind::InvalidName) => {
                return Err(invalid(format!("there is no upload {object:?}")));
            }
            Err(error) => {
                tracing::warn!(%error, "the object store of uploads did not answer");
                return Err(ErrorBody::new(
                    ErrorCode::Unavailable,
                    "the object store of uploads did not answer",
                ));
            }
        };
        self.check_size(size)?;
        Ok(PayloadRef {
            bucket,
            object,
            digest,
            size,
        })
    }

    async fn fetch(&self, upload: &PayloadRef) -> Result<Bytes, ErrorBody> {
        let payloads = self.registry.storage().assets().await?.payloads();
        let fetched = payloads.get(upload, self.max_bytes).await;
        fetched.map_err(|error| {
            tracing::debug!(%error, cause = error.source(), "an upload could not be fetched");
            ErrorBody::new(error.code(), error.to_string())
        })
    }

    fn check_size(&self, size: u64) -> Result<(), ErrorBody> {
        if size <= self.max_bytes {
            return Ok(());
        }
        let text = format!(
            "the module has {size} bytes; at most {} MiB are taken",
            self.max_bytes / MIB
        );
        Err(ErrorBody::new(ErrorCode::PayloadTooLarge, text))
    }
}

fn read(headers: &HeaderMap, payload: Bytes) -> Result<Order, ErrorBody> {
    match headers.get(header::MODULE) {
        Some(name) => read_raw(name.as_str(), headers, payload),
        None => read_json(&payload),
    }
}

fn read_raw(name: &str, headers: &HeaderMap, payload: Bytes) -> Result<Order, ErrorBody> {
    let name = name.parse()?;
    let get = |name: &'static str| headers.get(name).map(|value| value.as_str());
    let stated = CallHeaders::read(get).map_err(|error| invalid(error.to_string()))?;
    let limits = (!stated.limits.is_empty()).then_some(stated.limits);
    let settings = get(header::SETTINGS).map(serde_json::from_str).transpose();
    let settings = settings.map_err(|error| invalid(format!("{}: {error}", header::SETTINGS)))?;
    Ok(Order {
        name,
        source: StoreSource::Bytes(payload.into()),
        terms: Terms { limits, settings },
    })
}

fn read_json(payload: &[u8]) -> Result<Order, ErrorBody> {
    if payload.starts_with(MAGIC) {
        return Err(invalid(format!(
            "raw WebAssembly needs the header {}: <name>",
            header::MODULE
        )));
    }
    let request: StoreRequest = serde_json::from_slice(payload)
        .map_err(|error| invalid(format!("the body is no store request in JSON: {error}")))?;
    order(request)
}

fn order(request: StoreRequest) -> Result<Order, ErrorBody> {
    let source = request.source().map_err(|error| invalid(error.to_string()))?;
    Ok(Order {
        name: request.name,
        source,
        terms: Terms {
            limits: request.limits,
            settings: request.settings,
        },
    })
}

fn invalid(text: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        headers
    }

    fn refusal(headers: &HeaderMap, payload: &'static str) -> String {
        let error = read(headers, payload.into()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        error.error.message
    }

    #[test]
    fn the_header_tells_raw_bytes_from_json() {
        let raw = read(&headers(&[("Wess-Module", "hello")]), "{}".into()).unwrap();
        assert_eq!(
            (raw.name.as_str(), raw.source, raw.terms),
            ("hello", StoreSource::Bytes(b"{}".into()), Terms::default())
        );
        let json = read(
            &HeaderMap::new(),
            r#"{"name":"hello","wasm_base64":"AGFzbQ=="}"#.into(),
        )
        .unwrap();
        assert_eq!(json.source, StoreSource::Bytes(MAGIC.into()));
        let digest = Digest::from_bytes([1; 32]);
        let upload = format!(r#"{{"name":"hello","digest":"{digest}","object":"x","limits":{{"fuel":5}}}}"#);
        let upload = read(&HeaderMap::new(), upload.into()).unwrap();
        assert_eq!(
            upload.source,
            StoreSource::Upload {
                digest,
                object: "x".into()
            }
        );
        assert_eq!(upload.terms.limits.unwrap().fuel, Some(5));
    }

    #[test]
    fn limits_of_raw_bytes_come_by_header() {
        let headers = headers(&[
            ("Wess-Module", "hello"),
            ("Wess-Timeout-Ms", "20"),
            ("Wess-Memory-Mb", "2"),
        ]);
        let limits = read(&headers, "".into()).unwrap().terms.limits.unwrap();
        assert_eq!(
            (limits.timeout_ms, limits.memory_mb, limits.fuel),
            (Some(20), Some(2), None)
        );
    }

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        let none = HeaderMap::new();
        assert!(refusal(&none, "\0asm\u{1}\0\0\0").contains("Wess-Module"));
        assert!(refusal(&none, "hello").contains("JSON"));
        assert!(refusal(&none, r#"{"name":"a","wasm":"x"}"#).contains("`wasm`"));
        assert!(refusal(&none, r#"{"name":"a"}"#).contains("wasm_base64"));
        assert!(refusal(&none, r#"{"name":"a","wasm_base64":"?"}"#).contains("base64"));
        assert!(refusal(&none, r#"{"name":"A","wasm_base64":""}"#).contains("module name"));
        assert!(refusal(&headers(&[("Wess-Module", "A")]), "").contains("module name"));
        let bad = headers(&[("Wess-Module", "a"), ("Wess-Fuel", "many")]);
        assert!(refusal(&bad, "").contains("Wess-Fuel"));
    }
}
