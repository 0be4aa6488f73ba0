//! KEDA's part from zero workers up and back to no lag: real processes, and workers started as its numbers say.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use wess_harness::{NatsServer, Process, eventually, guest};

use crate::http::{post, send};
use crate::process::address;
use crate::scaler::{Stage, pushed};

/// Calls sent to nobody.
const CALLS: usize = 20;
/// How many of them KEDA is told to be one worker's share.
const TARGET: u32 = 10;

/// A worker with a disk of its own.
struct Worker {
    process: Process,
    _disk: TempDir,
}

impl Worker {
    fn start(nats: &NatsServer) -> Self {
        let disk = TempDir::new().unwrap();
        let mut command = wess_harness::binary("wess-worker");
        command.args([
            "--nats",
            &nats.url(),
            "--admin",
            "127.0.0.1:0",
            "--executors",
            "1",
        ]);
        let process = Process::start(command.arg("--data").arg(disk.path()));
        Self { process, _disk: disk }
    }

    fn stop(&mut self) {
        assert_eq!(self.process.stop().code(), Some(0), "{}", self.process.stderr());
    }
}

/// What the HPA makes of a metric's value and one worker's share of it.
fn replicas(value: f64, target: u32) -> usize {
    (value / f64::from(target)).ceil() as usize
}

async fn until_workers(stage: &Stage, count: u64) {
    eventually(&format!("{count} workers"), async || {
        (stage.gauge("wess_gateway_fleet_workers").await? == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_to_no_worker_become_lag_that_starts_workers_and_is_drained_by_them() {
    let stage = Stage::set().await;
    let mut first = Worker::start(&stage.nats);
    let http = address(&stage.gateway, "http");
    assert_eq!(
        post(http, "/v1/modules?name=upper", guest("upper")).await.status,
        201
    );
    first.stop();
    until_workers(&stage, 0).await;
    eventually("the gateway to stand in", async || {
        (stage.gauge("wess_gateway_front").await? == 1).then_some(())
    })
    .await;
    let mut pushes = stage.keda.pushes().await;
    assert!(!pushed(&mut pushes).await, "there is nothing to do");
    assert_eq!(stage.lag("WESS_CALLS", "wess-calls").await, Some(0));

    let calls = join_all((0..CALLS).map(|_| {
        let request = async_nats::Request::new()
            .payload("hello".into())
            .timeout(Some(Duration::from_secs(60)));
        stage.client.send_request("wess.invoke.upper", request)
    }));
    let keda = async {
        assert!(pushed(&mut pushes).await, "zero becomes one");
        eventually("the whole lag", async || {
            (stage.lag("WESS_CALLS", "wess-calls").await? == CALLS as u64).then_some(())
        })
        .await;
        let work = eventually("the whole work", async || {
            stage.keda.work().await.ok().filter(|work| *work == CALLS as f64)
        })
        .await;
        let workers: Vec<_> = (0..replicas(work, TARGET))
            .map(|_| Worker::start(&stage.nats))
            .collect();
        eventually("no lag", async || {
            (stage.lag("WESS_CALLS", "wess-calls").await? == 0).then_some(())
        })
        .await;
        workers
    };
    let (answers, mut workers) = tokio::join!(calls, keda);
    assert_eq!((answers.len(), workers.len()), (CALLS, 2));
    for answer in answers {
        assert_eq!(answer.unwrap().payload, "HELLO");
    }
    until_workers(&stage, 2).await;
    eventually("no work", async || {
        (stage.keda.work().await.ok()? == 0.0).then_some(())
    })
    .await;
    assert!(
        stage.keda.active().await.unwrap(),
        "calls were answered a moment ago"
    );
    workers.iter_mut().for_each(Worker::stop);
}

#[tokio::test]
async fn a_message_of_a_bound_stream_starts_a_worker_that_takes_it() {
    let stage = Stage::set().await;
    stage.stream("ORDERS", "orders.>").await;
    let mut first = Worker::start(&stage.nats);
    let http = address(&stage.gateway, "http");
    let stored = post(http, "/v1/modules?name=upper", guest("upper")).await;
    assert_eq!(stored.status, 201);
    let binding = r#"{"module":"upper","stream":"ORDERS","publish_to":"done"}"#;
    let bound = send(http, "PUT", "/v1/bindings/orders", &[], binding).await;
    assert_eq!(bound.status, 200, "{}", bound.text());
    first.stop();
    until_workers(&stage, 0).await;

    let mut out = stage.client.subscribe("done").await.unwrap();
    stage.client.flush().await.unwrap();
    for order in ["orders.one", "orders.two"] {
        stage.submit(order).await;
    }
    eventually("the whole work", async || {
        (stage.keda.work().await.ok()? == 2.0).then_some(())
    })
    .await;
    assert!(stage.keda.active().await.unwrap());
    let mut second = Worker::start(&stage.nats);
    for _ in 0..2 {
        assert_eq!(out.next().await.unwrap().payload, "{}");
    }
    eventually("no lag", async || {
        (stage.gauge("wess_bound_pending").await? == 0 && stage.gauge("wess_bound_ack_pending").await? == 0)
            .then_some(())
    })
    .await;
    second.stop();
}
