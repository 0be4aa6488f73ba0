//! A gateway in this process over a real nats-server, and workers that answer as a test tells them to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use clap::Parser;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use serde::Serialize;
use wess_gateway::config::Cli;
use wess_gateway::hosts::Hosts;
use wess_gateway::places::Place;
use wess_gateway::{Gateway, Metrics};
use wess_harness::NatsServer;
use wess_schemas::subject::Subjects;
use wess_schemas::{Digest, ErrorBody, ErrorCode};
use wess_service::assets::{AssetOptions, Assets, ensure_assets};
use wess_service::bus::{Bus, BusError, HttpAnswer, HttpRequest, Reply, Request};
use wess_service::health::Phase;
use wess_service::lifecycle::Lifecycle;
use wess_service::payloads::Payloads;

type Answered = Result<Reply, BusError>;
type Script = dyn Fn(Request) -> BoxFuture<'static, Answered> + Send + Sync;

/// Workers that answer by a script. Remembers what they were asked.
pub struct Workers {
    script: Box<Script>,
    asked: Mutex<Vec<Request>>,
    max_payload: AtomicUsize,
}

impl Workers {
    pub fn new(
        script: impl Fn(Request) -> BoxFuture<'static, Answered> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            asked: Mutex::default(),
            max_payload: AtomicUsize::new(1024 * 1024),
        })
    }

    /// Workers that answer at once.
    pub fn answering(script: impl Fn(Request) -> Answered + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |request| std::future::ready(script(request)).boxed())
    }

    /// Workers for tests that ask none.
    pub fn none() -> Arc<Self> {
        Self::answering(|request| panic!("nobody should ask {}", request.subject))
    }

    pub fn set_max_payload(&self, bytes: usize) {
        self.max_payload.store(bytes, Ordering::Relaxed);
    }

    /// The one thing they were asked.
    pub fn asked(&self) -> Request {
        let asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    pub fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Bus for Workers {
    fn request(&self, request: Request) -> BoxFuture<'_, Answered> {
        self.asked.lock().unwrap().push(request.clone());
        (self.script)(request)
    }

    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpAnswer, BusError>> {
        panic!("nobody should ask {}", request.subject)
    }

    fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }
}

pub fn raw(payload: impl Into<Bytes>, headers: &[(&str, &str)]) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    Reply {
        headers: map,
        payload: payload.into(),
    }
}

pub fn json(body: &impl Serialize) -> Reply {
    raw(
        serde_json::to_vec(body).unwrap(),
        &[("Content-Type", "application/json")],
    )
}

pub fn refusal(error: &ErrorBody) -> Reply {
    let status = error.code().http_status().to_string();
    raw(
        serde_json::to_vec(error).unwrap(),
        &[("Nats-Service-Error", "no"), ("Nats-Service-Error-Code", &status)],
    )
}

/// One of the contract's golden messages.
pub fn golden(name: &str) -> serde_json::Value {
    let path = format!("{}/../schemas/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// Bytes that no two places of repeat.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A gateway and what it stands on.
pub struct House {
    pub nats: NatsServer,
    pub lifecycle: Lifecycle,
    pub address: SocketAddr,
    pub assets: Assets,
    pub registry: Registry,
}

impl House {
    pub async fn start(workers: Arc<dyn Bus>) -> Self {
        Self::with_options(workers, &[]).await
    }

    pub async fn with_options(workers: Arc<dyn Bus>, options: &[&str]) -> Self {
        let nats = NatsServer::start();
        let assets = assets(&nats).await;
        let (lifecycle, mut registry) = (Lifecycle::default(), Registry::default());
        let gateway = Gateway {
            http: http(options),
            places: vec![Place::here(workers)],
            subjects: Subjects::default(),
            assets: assets.clone(),
            hosts: Hosts::default(),
            metrics: Metrics::register(&mut registry),
        };
        let address = gateway.start(&lifecycle).await.unwrap();
        lifecycle.health.enter(Phase::Ready);
        Self {
            nats,
            lifecycle,
            address,
            assets,
            registry,
        }
    }

    pub fn payloads(&self) -> Payloads {
        self.assets.payloads()
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// A store that is away is told within seconds, so that tests of that are short.
async fn assets(nats: &NatsServer) -> Assets {
    const PATIENCE: Duration = Duration::from_secs(1);
    let options = async_nats::ConnectOptions::new().request_timeout(Some(PATIENCE));
    let mut jetstream = jetstream::new(options.connect(nats.url()).await.unwrap());
    jetstream.set_timeout(PATIENCE);
    ensure_assets(&jetstream, &AssetOptions::default()).await.unwrap()
}

fn http(options: &[&str]) -> wess_gateway::config::HttpConfig {
    let args = ["wess-gateway", "--listen", "127.0.0.1:0"].iter().chain(options);
    Cli::try_parse_from(args).unwrap().validate().unwrap().http
}

/// A failure with nothing special about it.
pub fn failure(code: ErrorCode) -> ErrorBody {
    ErrorBody::new(code, format!("why {code}"))
        .with("fact", 7)
        .for_job("job-1".parse().unwrap())
}
