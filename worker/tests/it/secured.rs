//! A worker on a server that asks who it is, speaks TLS, and allows what `docs/operations.md` says and nothing else.

use std::fs;
use std::path::PathBuf;

use async_nats::{ConnectOptions, jetstream};
use futures_util::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use wess_harness::{NatsServer, Process, eventually, guest};
use wess_schemas::ErrorCode;
use wess_service::payloads::Payloads;

use crate::rig::{Caller, Worker, add, command, refused, wat};

/// Where the permission lists stand.
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const PASSWORD: &str = "correct-horse";
const AS_WORKER: [&str; 4] = ["--nats-user", "worker", "--nats-password", PASSWORD];

/// The lists as the page has them, in the server's own language.
fn documented_permissions() -> &'static str {
    let (_, section) = OPERATIONS.split_once("\n## NATS permissions\n").unwrap();
    let (_, block) = section.split_once("\n```\n").unwrap();
    block.split_once("\n```\n").unwrap().0
}

/// A user for each of the documented lists.
fn with_permissions() -> String {
    let users = ["worker", "gateway", "client"]
        .map(|user| format!("{{ user: {user}, password: {PASSWORD}, permissions: ${user} }}"));
    format!(
        "authorization {{\n{}\nusers = [{}, {{ user: owner, password: {PASSWORD} }}]\n}}",
        documented_permissions(),
        users.join(", ")
    )
}

fn as_client() -> ConnectOptions {
    ConnectOptions::with_user_and_password("client".into(), PASSWORD.into())
}

/// Makes a stream of the owner's with one message in it.
async fn make_stream(options: ConnectOptions, nats: &NatsServer) {
    let owner = Caller::connect_with(options, nats).await;
    let config = jetstream::stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["orders".into()],
        ..Default::default()
    };
    let jetstream = owner.jetstream();
    jetstream.create_stream(config).await.unwrap();
    let stored = jetstream.publish("orders", "hello".into()).await.unwrap();
    stored.await.unwrap();
}

fn as_owner() -> ConnectOptions {
    ConnectOptions::with_user_and_password("owner".into(), PASSWORD.into())
}

/// An authority and a server's certificate of it, as PEM files.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let certificates = Self(TempDir::new().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(certificates.path("ca.pem"), authority.pem()).unwrap();
        fs::write(certificates.path("server.pem"), certificate.pem()).unwrap();
        fs::write(certificates.path("server.key"), key.serialize_pem()).unwrap();
        certificates
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn authority(&self) -> String {
        self.path("ca.pem").to_str().unwrap().to_owned()
    }

    fn server_config(&self) -> String {
        let [cert, key] = ["server.pem", "server.key"].map(|name| self.path(name).display().to_string());
        format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}")
    }
}

/// Makes, reads, lists and deletes objects.
async fn keeps_objects(caller: &Caller) {
    let stored = caller.store("keeper", guest("keeper")).await;
    let settings = json!({"grants": {"blobstore": ["pictures"]}});
    let store = json!({"name": "keeper", "digest": stored.digest, "settings": settings});
    caller.ask_json::<Value>("wess.store", &store).await.unwrap();
    for (function, args) in [
        ("make", json!(["pictures"])),
        ("keep", json!(["pictures", "a", [104, 105]])),
        ("keep", json!(["pictures", "a", [104, 111]])),
        ("look", json!(["pictures", "a", 0, 9])),
        ("names", json!(["pictures", 0, 9])),
        ("remove", json!(["pictures"])),
    ] {
        let call = json!({"module": "keeper", "function": function, "args": args});
        let results = caller.invoke(call).await.unwrap().results.unwrap();
        assert!(results[0].get("ok").is_some(), "{function}: {results:?}");
    }
}

/// Uses everything that a worker is for: modules, calls, chains, state, logs, large payloads, objects, discovery, other workers.
async fn serves_everything(caller: &Caller, workers: &[Worker]) {
    let mut lines = caller.client.subscribe("wess.logs.greet").await.unwrap();
    caller
        .store_guests(&["add", "upper", "counter", "greet", "wordcount"])
        .await;
    let large = r#"(module (import "host" "set_output" (func $set (param i32 i32))) (memory (export "memory") 12)
        (func (export "process") (param i32 i32) (result i32) (call $set (i32.const 0) (i32.const 700000)) (i32.const 0)))"#;
    let stored = caller.store("large", wat(large)).await;
    assert_eq!(stored.propagated, Some(true));
    assert_eq!(caller.invoke(add()).await.unwrap().results, Some(vec![json!(5)]));
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    let chain = json!({"steps": ["upper", "wordcount"], "input": "hello"});
    assert_eq!(
        caller.chain(chain).await.unwrap().output.as_deref(),
        Some("0 1 5\n")
    );
    for count in ["1", "2"] {
        assert_eq!(caller.raw("counter", "").await.unwrap().payload, count);
    }
    assert_eq!(caller.raw("counter", "reset").await.unwrap().payload, "0");
    caller.raw("greet", "Ada").await.unwrap();
    assert_eq!(lines.next().await.unwrap().payload, "greeting Ada");
    keeps_objects(caller).await;

    let payloads = Payloads::open(&jetstream::new(caller.client.clone()))
        .await
        .unwrap();
    let upload = payloads.put(&guest("in_place")).await.unwrap();
    let counted = caller
        .invoke(json!({"module": "wordcount", "input_ref": upload}))
        .await;
    assert_eq!(counted.unwrap().exit_code, Some(0));
    let output = caller
        .invoke(json!({"module": "large"}))
        .await
        .unwrap()
        .output_ref
        .unwrap();
    assert_eq!(payloads.get(&output, u64::MAX).await.unwrap().len(), 700_000);
    let order = json!({"name": "uploaded", "digest": upload.digest, "object": upload.object});
    assert_eq!(
        caller.ask_json::<Value>("wess.store", &order).await.unwrap()["version"],
        1
    );

    let ask = async |subject: &str, body: Value| caller.ask_json::<Value>(subject, &body).await.unwrap();
    let tagged = ask("wess.modules.tag.upper", json!({"tag": "stable", "version": 1})).await;
    assert_eq!(
        (&tagged["tags"]["stable"], &tagged["propagated"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        ask("wess.modules.fetch.upper@stable", json!({})).await["bucket"],
        "wess-blobs"
    );
    assert_eq!(
        ask("wess.modules.delete.uploaded", json!({})).await["propagated"],
        true
    );
    let modules = ask("wess.modules.list", json!({})).await;
    assert_eq!(modules["modules"].as_array().unwrap().len(), 7);
    refused(ErrorCode::ModuleNotFound, caller.raw("uploaded", "").await);
    let binding = ask(
        "wess.bindings.put.orders",
        json!({"module": "upper", "stream": "ORDERS"}),
    );
    assert_eq!(binding.await["fed_by"], json!(["orders"]));
    eventually("the stream's message to run", async || {
        (crate::bindings::runs(&workers.iter().collect::<Vec<_>>(), "orders").await == 1).then_some(())
    })
    .await;
    ask("wess.bindings.delete.orders", json!({})).await;
    for worker in workers {
        for verb in ["PING", "INFO", "STATS"] {
            let answer = ask(&format!("$SRV.{verb}.wess.{}", worker.id()), json!({})).await;
            assert_eq!(answer["id"], json!(worker.id()));
        }
        worker.comes_to_rest().await;
    }
}

#[tokio::test]
async fn a_worker_serves_everything_with_the_permissions_that_the_documents_list() {
    let nats = NatsServer::builder().config(&with_permissions()).start();
    let workers = [Worker::start(&nats, &AS_WORKER), Worker::start(&nats, &AS_WORKER)];
    make_stream(as_owner(), &nats).await;
    let caller = Caller::connect_with(as_client(), &nats).await;
    serves_everything(&caller, &workers).await;
    assert!(!nats.log().contains("Violation"), "{}", nats.log());
    // The server does look: a client is no worker.
    caller
        .client
        .publish("wess.worker.beat", "".into())
        .await
        .unwrap();
    eventually("the server to refuse a client's beat", async || {
        nats.log().contains("Publish Violation").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_serves_everything_over_tls() {
    let certificates = Certificates::new();
    let config = format!("{}\n{}", certificates.server_config(), with_permissions());
    let nats = NatsServer::builder().config(&config).start();
    let authority = certificates.authority();
    let flags = [&AS_WORKER[..], &["--nats-tls-ca", &authority]].concat();
    let workers = [Worker::start(&nats, &flags)];
    let over_tls = |options: ConnectOptions| {
        options
            .add_root_certificates(authority.clone().into())
            .require_tls(true)
    };
    make_stream(over_tls(as_owner()), &nats).await;
    let client = over_tls(as_client());
    let caller = Caller::connect_with(client, &nats).await;
    serves_everything(&caller, &workers).await;
    assert!(!nats.log().contains("Violation"), "{}", nats.log());
}

#[tokio::test]
async fn a_server_that_refuses_us_or_is_of_another_authority_ends_the_start_with_69() {
    let (ours, other) = (Certificates::new(), Certificates::new());
    let config = format!("{}\n{}", ours.server_config(), with_permissions());
    let nats = NatsServer::builder().config(&config).start();
    let data = tempfile::tempdir().unwrap();
    let (ours, other) = (ours.authority(), other.authority());
    for flags in [
        &[
            "--nats-tls-ca",
            &*other,
            "--nats-user",
            "worker",
            "--nats-password",
            PASSWORD,
        ][..],
        &["--nats-tls-ca", &ours],
        &[
            "--nats-tls-ca",
            &ours,
            "--nats-user",
            "worker",
            "--nats-password",
            "hunter22",
        ],
        &[
            "--nats-tls-ca",
            &ours,
            "--nats-user",
            "nobody",
            "--nats-password",
            PASSWORD,
        ],
    ] {
        let mut process = Process::spawn(&mut command(&nats, data.path(), flags));
        assert_eq!(process.wait_exit().code(), Some(69), "{flags:?}");
        let log = process.stderr();
        assert!(log.contains(&nats.port().to_string()), "{flags:?}: {log}");
        assert!(
            !log.contains("hunter22") && !log.contains(PASSWORD),
            "{flags:?}: {log}"
        );
    }
}
