//! Guests' requests to hosts outside, through a whole worker: as far as settings and the operator let them.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, guest};
use wess_schemas::{ErrorCode, header};

use crate::rig::{Answered, Caller, Rig, Worker, command, refused, refused_naming};

/// A server that says hello, or nothing ever; whoever waited for nothing and left is told of.
struct Upstream {
    authority: String,
    left: mpsc::UnboundedReceiver<()>,
}

/// Tells that it was dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Upstream {
    async fn start() -> Self {
        let (tell, left) = mpsc::unbounded_channel();
        let never = async move || {
            let _told = Told(tell.clone());
            std::future::pending::<()>().await
        };
        let router = Router::new()
            .route("/hello", get(async || "hello"))
            .route("/never", get(never));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
        Self { authority, left }
    }

    /// The same server by its name.
    fn by_name(&self) -> String {
        self.authority.replace("127.0.0.1", "localhost")
    }
}

impl Caller {
    /// Stores `guests/http/fetch.wat`, granted these hosts.
    pub async fn store_granted(&self, hosts: &[&str]) -> Answered<()> {
        let settings = json!({"grants": {"http": hosts}}).to_string();
        let headers = [(header::MODULE, "fetch"), (header::SETTINGS, &*settings)];
        self.ask("wess.store", &headers, guest("fetch")).await.map(drop)
    }

    async fn try_fetch(&self, scheme: &str, authority: &str, path: &str) -> Answered<Value> {
        let args = json!([scheme == "https", authority, path, null, 0]);
        let call =
            json!({"module": "fetch", "function": "fetch", "args": args, "limits": {"timeout_ms": 2000}});
        self.invoke(call)
            .await
            .map(|outcome| outcome.results.unwrap().remove(0))
    }

    async fn fetch(&self, scheme: &str, authority: &str) -> Value {
        self.try_fetch(scheme, authority, "/hello").await.unwrap()
    }
}

fn hello() -> Value {
    json!({"ok": [200, {"base64": "aGVsbG8="}]})
}

#[tokio::test]
async fn guests_send_requests_where_their_settings_let_them() {
    let (rig, upstream) = (Rig::start(&[]).await, Upstream::start().await);
    let (authority, by_name) = (&*upstream.authority, &*upstream.by_name());
    rig.caller.store_granted(&[]).await.unwrap();
    let denied = json!({"err": "HTTP-request-denied"});
    assert_eq!(rig.caller.fetch("http", authority).await, denied);
    rig.caller.store_granted(&[authority]).await.unwrap();
    assert_eq!(rig.caller.fetch("http", authority).await, hello());
    assert_eq!(rig.caller.fetch("http", by_name).await, denied);
    rig.caller.store_granted(&[by_name]).await.unwrap();
    let prohibited = json!({"err": "destination-IP-prohibited"});
    assert_eq!(rig.caller.fetch("http", by_name).await, prohibited);
    for (outcome, count) in [("answered", 1), ("denied", 1), ("address_prohibited", 1)] {
        let metric = format!("wess_worker_outbound_requests_total{{outcome={outcome:?}}}");
        assert_eq!(rig.worker.metric(&metric).await, count, "{outcome}");
    }
    let wrong = rig.caller.store_granted(&["https://a.example/path"]).await;
    refused_naming(ErrorCode::InvalidRequest, "https://a.example/path", wrong);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_that_waits_for_a_silent_host_ends_by_its_deadline_and_leaves_nothing() {
    let (rig, mut upstream) = (Rig::start(&[]).await, Upstream::start().await);
    rig.caller.store_granted(&[&upstream.authority]).await.unwrap();
    let waited = rig.caller.try_fetch("http", &upstream.authority, "/never").await;
    refused(ErrorCode::DeadlineExceeded, waited);
    upstream.left.recv().await.unwrap();
    rig.is_unharmed().await;
}

#[tokio::test]
async fn the_operator_keeps_all_guests_from_private_addresses_or_from_any() {
    let upstream = Upstream::start().await;
    for (reach, code) in [
        ("public", "destination-IP-prohibited"),
        ("off", "HTTP-request-denied"),
    ] {
        let rig = Rig::with(&["--outbound", reach], &[]).await;
        rig.caller.store_granted(&[&upstream.authority]).await.unwrap();
        let refused = rig.caller.fetch("http", &upstream.authority).await;
        assert_eq!(refused, json!({"err": code}), "{reach}");
    }
}

#[tokio::test]
async fn certificates_are_those_that_the_machine_trusts() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let (acceptor, listener) = (
        TlsAcceptor::from(Arc::new(config)),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let authority = listener.local_addr().unwrap().to_string();
    TaskTracker::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever does not trust us says so, and leaves.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                let _ = stream.write_all(response).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let folder = TempDir::new().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, cert.pem()).unwrap();
    let nats = NatsServer::start();
    let caller = Caller::connect(&nats).await;
    let mut with_file = command(&nats, &folder.path().join("data"), &[]);
    with_file.env("SSL_CERT_FILE", &trusted);
    let worker = Worker::of(with_file);
    caller.store_granted(&[&authority]).await.unwrap();
    assert_eq!(caller.fetch("https", &authority).await, hello());
    drop(worker);
    let _without = Worker::start(&nats, &[]);
    let untrusted = json!({"err": "TLS-certificate-error"});
    assert_eq!(caller.fetch("https", &authority).await, untrusted);
}
