//! A gateway on a server that allows what `docs/operations.md` says and nothing else.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::{Client, ConnectOptions, HeaderMap, jetstream};
use futures_util::StreamExt;
use wess_harness::{NatsServer, Process, eventually};
use wess_schemas::subject::Subjects;
use wess_schemas::{ErrorBody, ErrorCode, JobId};
use wess_service::payloads::Payloads;
use wess_service::queue::timers::{Schedule, schedule};

use crate::hosts::ask;
use crate::http::{get, post};
use crate::process::{address, gateway};
use crate::support::noise;

/// Where the permission lists stand.
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const PASSWORD: &str = "correct-horse";

/// A user for each of the documented lists.
fn with_permissions() -> String {
    let (_, section) = OPERATIONS.split_once("\n## NATS permissions\n").unwrap();
    let (_, block) = section.split_once("\n```\n").unwrap();
    let (lists, _) = block.split_once("\n```\n").unwrap();
    let users = ["worker", "gateway", "client"]
        .map(|user| format!("{{ user: {user}, password: {PASSWORD}, permissions: ${user} }}"));
    format!("authorization {{\n{lists}\nusers = [{}]\n}}", users.join(", "))
}

async fn connect(nats: &NatsServer, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), PASSWORD.into());
    options.connect(nats.url()).await.unwrap()
}

#[tokio::test]
async fn a_gateway_stands_in_for_workers_with_the_permissions_that_the_documents_list() {
    let nats = NatsServer::builder().config(&with_permissions()).start();
    let user = ["--nats-user", "gateway", "--nats-password", PASSWORD];
    let mut process = Process::start(gateway(&["--nats", &nats.url()]).args(user));
    let (worker, client) = (connect(&nats, "worker").await, connect(&nats, "client").await);

    // It joins, queues, deletes from the queue and answers.
    let expired = eventually("an answer", async || {
        let asked = client.request("wess.invoke", r#"{"module":"upper","wait_ms":0}"#.into());
        asked.await.ok()
    });
    let expired: ErrorBody = serde_json::from_slice(&expired.await.payload).unwrap();
    assert_eq!(expired.code(), ErrorCode::Expired);

    // It moves what fired.
    let jetstream = jetstream::new(worker.clone());
    let job_id: JobId = "later".parse().unwrap();
    let at = Schedule::In(Duration::from_millis(100));
    let (subjects, none) = (Subjects::default(), HeaderMap::new());
    let scheduled = schedule(&jetstream, &subjects, &job_id, &at, none, "{}".into());
    scheduled.await.unwrap();
    eventually("the job", async || {
        let mut stream = jetstream.get_stream("WESS_JOBS").await.ok()?;
        (stream.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await;

    // It stores a large input, and reads a job's output.
    let output = noise(1024 * 1024);
    let payloads = Payloads::open(&jetstream).await.unwrap();
    let stored = payloads.put_for_job(&job_id, &output).await.unwrap();
    let mut calls = worker.subscribe("wess.invoke.upper").await.unwrap();
    worker.flush().await.unwrap();
    let answering = async {
        let call = calls.next().await.unwrap();
        assert!(call.headers.unwrap().get("Wess-Input-Ref").is_some());
        let mut headers = HeaderMap::new();
        headers.insert("Wess-Output-Ref", serde_json::to_string(&stored).unwrap());
        let answer = worker.publish_with_headers(call.reply.unwrap(), headers, "".into());
        answer.await.unwrap();
    };
    let path = "/v1/modules/upper/invoke";
    let (answer, ()) = tokio::join!(post(address(&process, "http"), path, &output), answering);
    assert!(answer.status == 200 && answer.body == output, "{}", answer.status);

    // It follows the modules' hosts.
    let head = r#"{"id":"01988000-0000-7000-8000-000000000000","tags":{},"versions":[1],"routes":["web.localhost"],
        "created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z"}"#;
    let modules = jetstream.get_key_value("wess-modules").await.unwrap();
    modules.put("default.web", head.into()).await.unwrap();
    let http = address(&process, "http");
    // And asks the first worker about them, who does not come.
    let expired = eventually("the module's host", async || {
        let answer = ask(http, "web.localhost", "/", "Wess-Wait-Ms: 0\r\n").await;
        (answer.status != 404).then_some(answer)
    });
    assert_eq!(expired.await.problem().code, ErrorCode::Expired);
    assert_eq!(process.stop().code(), Some(0));
    assert!(!process.stderr().contains("Violation"), "{}", process.stderr());
}

#[tokio::test]
async fn a_gateway_reads_what_waits_in_bound_streams_with_the_same_permissions() {
    let nats = NatsServer::builder().config(&with_permissions()).start();
    let user = ["--nats-user", "gateway", "--nats-password", PASSWORD];
    let mut process = Process::start(gateway(&["--nats", &nats.url()]).args(user));
    let jetstream = jetstream::new(connect(&nats, "worker").await);
    // Any stream that a worker may write to will do.
    let consumer = pull::Config {
        durable_name: Some("wess-bind-late".into()),
        filter_subject: "$KV.wess-modules.default.late".into(),
        ..pull::Config::default()
    };
    let made = jetstream.create_consumer_on_stream(consumer, "KV_wess-modules");
    made.await.unwrap();
    let modules = jetstream.get_key_value("wess-modules").await.unwrap();
    modules.put("default.late", "{}".into()).await.unwrap();
    let binding = r#"{"name":"late","module":"upper","stream":"KV_wess-modules","fed_by":[],
        "created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z"}"#;
    let bindings = jetstream.get_key_value("wess-bindings").await.unwrap();
    bindings.put("default.late", binding.into()).await.unwrap();
    let admin = address(&process, "admin");
    eventually("the message that waits", async || {
        let scrape = get(admin, "/metrics").await;
        scrape.text().contains("\nwess_bound_pending 1\n").then_some(())
    })
    .await;
    assert_eq!(process.stop().code(), Some(0));
    assert!(!process.stderr().contains("Violation"), "{}", process.stderr());
}
