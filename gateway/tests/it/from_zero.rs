//! From no worker to one, all of it real: what was asked before is answered by the first worker that starts.

use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use wess_harness::{NatsServer, Process, eventually, guest};
use wess_schemas::ErrorCode;

use crate::http::{get, post, send};
use crate::process::{address, gateway};

/// How long the callers wait, as `nats req --timeout 30s` does.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn worker(nats: &NatsServer, data: &TempDir) -> Command {
    let mut command = wess_harness::binary("wess-worker");
    command.args(["--nats", &nats.url(), "--admin", "127.0.0.1:0", "--data"]);
    command.arg(data.path());
    command
}

pub async fn until_front(gateway: &Process) {
    let admin = address(gateway, "admin");
    eventually("the gateway in the workers' place", async || {
        let metrics = get(admin, "/metrics").await;
        metrics.text().contains("\nwess_gateway_front 1\n").then_some(())
    })
    .await;
}

async fn ask(client: &Client, subject: &str, body: &str) -> Message {
    let asked = client.request(subject.to_owned(), body.to_owned().into());
    asked.await.unwrap()
}

#[tokio::test]
async fn a_request_to_a_module_that_serves_http_waits_for_the_first_worker_and_is_what_wakes_it() {
    let (nats, data) = (NatsServer::start(), TempDir::new().unwrap());
    let gateway = Process::start(&mut gateway(&["--nats", &nats.url()]));
    let http = address(&gateway, "http");
    let mut first = Process::start(&mut worker(&nats, &data));
    let stored = post(http, "/v1/modules?name=web", &guest("web")).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    assert_eq!(first.stop().code(), Some(0), "{}", first.stderr());
    until_front(&gateway).await;

    // One that waits as briefly as it says is told so, and what stood for it in the queue goes with it.
    let brief = send(http, "GET", "/v1/http/web/echo", &[("wess-wait-ms", "300")], "").await;
    assert_eq!(brief.problem().code, ErrorCode::Expired);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let queued = async || {
        let jetstream = async_nats::jetstream::new(client.clone());
        let mut stream = jetstream.get_stream("WESS_CALLS").await.ok()?;
        Some(stream.info().await.ok()?.state.messages)
    };
    eventually("nothing in the queue", async || {
        (queued().await? == 0).then_some(())
    })
    .await;

    // A module that is not there is told so by the first worker, who must not be asked for ever.
    let unknown = send(http, "GET", "/v1/http/nobody/", &[], "");
    // What goes on in frames waits as well as what fits a message.
    let long = "x".repeat(2 << 20);
    let short = post(http, "/v1/http/web/echo", "hello");
    let streamed = post(http, "/v1/http/web/echo", &long);
    let second = async {
        eventually("work that a scaler sees", async || {
            (queued().await? == 3).then_some(())
        })
        .await;
        Process::start(&mut worker(&nats, &data))
    };
    let (unknown, short, streamed, _second) = tokio::join!(unknown, short, streamed, second);
    assert_eq!(unknown.problem().code, ErrorCode::ModuleNotFound);
    assert_eq!(short.status, 200, "{}", short.text());
    assert!(short.text().contains("hello"), "{}", short.text());
    assert_eq!(
        (streamed.status, streamed.text().matches('x').count()),
        (200, long.len())
    );
}

#[tokio::test]
async fn what_is_asked_of_no_worker_over_nats_and_http_is_answered_by_the_first_that_starts() {
    const CALLS: usize = 50;
    let (nats, data) = (NatsServer::start(), TempDir::new().unwrap());
    let gateway = Process::start(&mut gateway(&["--nats", &nats.url()]));
    let http = address(&gateway, "http");
    until_front(&gateway).await;
    let options = ConnectOptions::new().request_timeout(Some(PATIENCE));
    let client = options.connect(nats.url()).await.unwrap();

    // Even the module is stored by way of the queue.
    let wasm = guest("upper");
    let mut store = Box::pin(post(http, "/v1/modules?name=upper", &wasm));
    let calls_are_queued = async {
        eventually("the store in the queue", async || {
            let jetstream = async_nats::jetstream::new(client.clone());
            let mut stream = jetstream.get_stream("WESS_CALLS").await.ok()?;
            (stream.info().await.ok()?.state.messages == 1).then_some(())
        })
        .await;
    };
    tokio::select! {
        answer = &mut store => panic!("nobody is there, and says {}", answer.status),
        () = calls_are_queued => (),
    }
    let mut first = Process::start(&mut worker(&nats, &data));
    assert_eq!(store.await.status, 201);
    assert_eq!(first.stop().code(), Some(0), "{}", first.stderr());
    until_front(&gateway).await;

    let raw = join_all((0..CALLS).map(|_| ask(&client, "wess.invoke.upper", "hello")));
    let typed = ask(&client, "wess.invoke", r#"{"module":"upper","input":"hello"}"#);
    let chain = ask(&client, "wess.chain", r#"{"steps":["upper"],"input":"hello"}"#);
    let described = ask(&client, "wess.modules.get.upper", "");
    let job = json!({"job_id": "mine", "invoke": {"module": "upper", "input": "hello"}}).to_string();
    let by_http = post(http, "/v1/modules/upper/invoke", "hello");
    let submitted = send(http, "POST", "/v1/jobs", &[], &job);
    let worker = async {
        eventually("all of it in the queue", async || {
            let jetstream = async_nats::jetstream::new(client.clone());
            let mut stream = jetstream.get_stream("WESS_CALLS").await.ok()?;
            (stream.info().await.ok()?.state.messages >= CALLS as u64 + 5).then_some(())
        })
        .await;
        Process::start(&mut worker(&nats, &data))
    };
    let (raw, typed, chain, described, by_http, submitted, _second) =
        tokio::join!(raw, typed, chain, described, by_http, submitted, worker);
    for answer in raw {
        assert_eq!(answer.payload, "HELLO");
    }
    for answer in [typed, chain] {
        let outcome: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(outcome["output"], "HELLO");
    }
    let module: Value = serde_json::from_slice(&described.payload).unwrap();
    assert_eq!(module["version"], 1);
    assert_eq!((by_http.status, by_http.text()), (200, "HELLO"));
    assert_eq!(
        (submitted.status, submitted.header("location")),
        (202, Some("/v1/jobs/mine"))
    );
    let record: Value = get(http, "/v1/jobs/mine/wait").await.json();
    assert_eq!(
        (&record["state"], &record["outcome"]["output"]),
        (&json!("succeeded"), &json!("HELLO"))
    );
}
