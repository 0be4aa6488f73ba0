//! KEDA's part, played against the process `wess-gateway`: its gRPC scaler, `/jsz` as the nats-jetstream scaler reads it,
//! and the gauges of a scrape.

use std::net::SocketAddr;
use std::process::Command;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use wess_gateway::scaler::codec::ProstCodec;
use wess_gateway::scaler::wire::{
    GET_METRIC_SPEC, GET_METRICS, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IS_ACTIVE,
    IsActiveResponse, STREAM_IS_ACTIVE, ScaledObjectRef,
};
use wess_harness::{NatsServer, Process, eventually};
use wess_schemas::WorkerId;
use wess_schemas::beat::WorkerBeat;

use crate::http::{get, read_to_end};
use crate::process;

/// A server that tells of itself, a gateway that tells KEDA, and the three ways that KEDA and Prometheus ask.
pub struct Stage {
    pub nats: NatsServer,
    pub gateway: Process,
    pub client: async_nats::Client,
    pub keda: Keda,
}

impl Stage {
    pub async fn set() -> Self {
        let nats = NatsServer::builder().config("http: \"127.0.0.1:-1\"").start();
        let gateway = Process::start(&mut gateway(&nats, "127.0.0.1:0"));
        let client = async_nats::connect(nats.url()).await.unwrap();
        let keda = Keda::connect(gateway.value("scaler")).await;
        Self {
            nats,
            gateway,
            client,
            keda,
        }
    }

    pub async fn submit(&self, subject: &str) {
        let jetstream = jetstream::new(self.client.clone());
        let stored = jetstream.publish(subject.to_owned(), "{}".into()).await.unwrap();
        stored.await.unwrap();
    }

    /// Makes a stream of the subjects below a name.
    pub async fn stream(&self, name: &str, subjects: &str) {
        let config = Config {
            name: name.into(),
            subjects: vec![subjects.into()],
            ..Config::default()
        };
        let jetstream = jetstream::new(self.client.clone());
        jetstream.create_stream(config).await.unwrap();
    }

    /// A binding of a stream as a worker that is gone has left it.
    async fn bind(&self, name: &str, stream: &str) -> Store {
        let jetstream = jetstream::new(self.client.clone());
        let consumer = pull::Config {
            durable_name: Some(format!("wess-bind-{name}")),
            ..pull::Config::default()
        };
        let made = jetstream.create_consumer_on_stream(consumer, stream).await;
        made.unwrap();
        let record = serde_json::json!({
            "name": name, "module": "upper", "stream": stream, "fed_by": [],
            "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        });
        let bindings = jetstream.get_key_value("wess-bindings").await.unwrap();
        let put = bindings.put(format!("default.{name}"), record.to_string().into());
        put.await.unwrap();
        bindings
    }

    async fn purge(&self, stream: &str) {
        let jetstream = jetstream::new(self.client.clone());
        jetstream.get_stream(stream).await.unwrap().purge().await.unwrap();
    }

    async fn beat(&self, beat: &WorkerBeat) {
        let body = serde_json::to_vec(beat).unwrap();
        self.client
            .publish("wess.worker.beat", body.into())
            .await
            .unwrap();
    }

    /// A consumer's lag, found as KEDA's nats-jetstream scaler finds it; `None` is an error there.
    pub async fn lag(&self, stream: &str, consumer: &str) -> Option<u64> {
        // To HTTP/1.0 a page is not answered in chunks.
        let mut connection = TcpStream::connect(self.nats.monitor()).await.unwrap();
        let question = b"GET /jsz?acc=$G&consumers=true&config=true HTTP/1.0\r\n\r\n";
        connection.write_all(question).await.unwrap();
        let page = read_to_end(&mut connection).await;
        let page: Value = page.json();
        let named =
            |list: &Value, name: &str| list.as_array()?.iter().find(|item| item["name"] == name).cloned();
        let account = named(&page["account_details"], "$G")?;
        let stream = named(&account["stream_detail"], stream)?;
        let consumer = named(&stream["consumer_detail"], consumer)?;
        Some(consumer["num_pending"].as_u64()? + consumer["num_ack_pending"].as_u64()?)
    }

    /// A gauge as a scrape shows it.
    pub async fn gauge(&self, name: &str) -> Option<u64> {
        let admin: SocketAddr = self.gateway.value("admin").parse().unwrap();
        let text = get(admin, "/metrics").await.text().to_owned();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|level| level.parse().unwrap())
    }
}

fn gateway(nats: &NatsServer, scaler: &str) -> Command {
    process::gateway(&["--nats", &nats.url(), "--scaler", scaler])
}

/// KEDA's side of the gRPC scaler.
#[derive(Clone)]
pub struct Keda(Grpc<Channel>);

impl Keda {
    async fn connect(address: String) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn ask<A, B>(&self, path: &'static str, message: A) -> Result<B, Status>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<A, B>::default();
        let answer = grpc
            .unary(Request::new(message), path.parse().unwrap(), codec)
            .await?;
        Ok(answer.into_inner())
    }

    pub async fn active(&self) -> Result<bool, Status> {
        let answer: IsActiveResponse = self.ask(IS_ACTIVE, scaled_object("96")).await?;
        Ok(answer.result)
    }

    pub async fn work(&self) -> Result<f64, Status> {
        let request = GetMetricsRequest {
            scaled_object_ref: scaled_object("96"),
            metric_name: "wess_work".into(),
        };
        let answer: GetMetricsResponse = self.ask(GET_METRICS, request).await?;
        let [value] = answer.metric_values.as_slice() else {
            panic!("{answer:?}");
        };
        assert_eq!(
            (value.metric_name.as_str(), value.metric_value as f64),
            ("wess_work", value.metric_value_float)
        );
        Ok(value.metric_value_float)
    }

    pub async fn pushes(&self) -> Streaming<IsActiveResponse> {
        let mut grpc = self.0.clone();
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
        let request = Request::new(scaled_object("96"));
        let answer = grpc
            .server_streaming(request, STREAM_IS_ACTIVE.parse().unwrap(), codec)
            .await;
        answer.unwrap().into_inner()
    }
}

fn scaled_object(target: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "wess-worker".into(),
        namespace: "wess".into(),
        scaler_metadata: [("target".into(), target.into())].into(),
    }
}

pub async fn pushed(pushes: &mut Streaming<IsActiveResponse>) -> bool {
    pushes.next().await.unwrap().unwrap().result
}

#[tokio::test]
async fn lag_appears_with_no_worker_for_each_who_asks_and_is_pushed() {
    let stage = Stage::set().await;
    let mut pushes = stage.keda.pushes().await;
    assert!(!pushed(&mut pushes).await);
    assert_eq!(
        (
            stage.keda.active().await.unwrap(),
            stage.keda.work().await.unwrap()
        ),
        (false, 0.0)
    );
    let queues = [
        (
            "wess.queue.jobs.default.one",
            "WESS_JOBS",
            "wess-jobs",
            "wess_jobs_pending",
        ),
        (
            "wess.queue.calls.default.one",
            "WESS_CALLS",
            "wess-calls",
            "wess_calls_pending",
        ),
    ];
    for (subject, stream, consumer, gauge) in queues {
        assert_eq!(
            stage.lag(stream, consumer).await,
            Some(0),
            "{consumer} is there before any worker"
        );
        assert_eq!(stage.gauge(gauge).await, Some(0));
        stage.submit(subject).await;
        assert!(pushed(&mut pushes).await);
        assert_eq!(
            (
                stage.keda.active().await.unwrap(),
                stage.keda.work().await.unwrap()
            ),
            (true, 1.0)
        );
        assert_eq!(
            (stage.lag(stream, consumer).await, stage.gauge(gauge).await),
            (Some(1), Some(1))
        );
        stage.purge(stream).await;
        assert!(!pushed(&mut pushes).await);
    }
}

#[tokio::test]
async fn what_waits_in_bound_streams_is_work_until_they_are_unbound_or_gone() {
    let stage = Stage::set().await;
    stage.stream("ORDERS", "orders.>").await;
    stage.stream("OTHERS", "others.>").await;
    stage.submit("orders.old").await;
    let mut pushes = stage.keda.pushes().await;
    assert!(
        !pushed(&mut pushes).await,
        "nobody asked for the messages of a stream"
    );
    let bindings = stage.bind("one", "ORDERS").await;
    assert!(pushed(&mut pushes).await);
    stage.bind("two", "ORDERS").await;
    stage.bind("three", "OTHERS").await;
    stage.submit("others.new").await;
    eventually("each binding's lag", async || {
        (stage.keda.work().await.ok()? == 3.0).then_some(())
    })
    .await;
    assert_eq!(
        (
            stage.gauge("wess_bound_pending").await,
            stage.gauge("wess_bound_ack_pending").await
        ),
        (Some(3), Some(0))
    );
    bindings.delete("default.one").await.unwrap();
    bindings.delete("default.two").await.unwrap();
    eventually("what is bound yet", async || {
        (stage.keda.work().await.ok()? == 1.0).then_some(())
    })
    .await;
    assert!(stage.keda.active().await.unwrap());
    let jetstream = jetstream::new(stage.client.clone());
    jetstream.delete_stream("OTHERS").await.unwrap();
    assert!(
        !pushed(&mut pushes).await,
        "nothing waits where there is no stream"
    );
    assert_eq!(stage.keda.work().await.unwrap(), 0.0);
}

#[tokio::test]
async fn dead_letters_are_counted_without_the_advisories_beside_them() {
    let stage = Stage::set().await;
    eventually("none", async || {
        (stage.gauge("wess_dead_letters").await? == 0).then_some(())
    })
    .await;
    for subject in [
        "wess.queue.dead.default.one",
        "wess.queue.dead.default.two",
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.WESS_JOBS.wess-jobs",
    ] {
        stage.submit(subject).await;
    }
    eventually("two", async || {
        (stage.gauge("wess_dead_letters").await? == 2).then_some(())
    })
    .await;
    assert!(
        !stage.keda.active().await.unwrap(),
        "a dead letter needs a person, not a worker"
    );
}

#[tokio::test]
async fn a_fleet_that_is_busy_with_direct_calls_is_not_scaled_away() {
    let stage = Stage::set().await;
    let mut pushes = stage.keda.pushes().await;
    assert!(!pushed(&mut pushes).await);
    let mut beat = WorkerBeat {
        worker: WorkerId::generate(),
        slots_busy: 5,
        slots_total: 8,
        waiting: 0,
        catalog_revision: 0,
        draining: false,
        calls_answered: 0,
    };
    stage.beat(&beat).await;
    assert!(pushed(&mut pushes).await);
    assert!(
        !pushed(&mut pushes).await,
        "a worker that is silent counts no more"
    );

    // Between two beats a short call is never seen in a slot.
    (beat.slots_busy, beat.calls_answered) = (0, 1);
    stage.beat(&beat).await;
    assert!(pushed(&mut pushes).await);
    eventually("the worker to go", async || {
        (stage.gauge("wess_gateway_fleet_workers").await? == 0).then_some(())
    })
    .await;
    assert_eq!(
        (
            stage.keda.active().await.unwrap(),
            stage.keda.work().await.unwrap()
        ),
        (true, 0.0)
    );
}

#[tokio::test]
async fn what_is_not_known_is_unavailable_and_no_zero() {
    let mut stage = Stage::set().await;
    let mut pushes = stage.keda.pushes().await;
    assert!(!pushed(&mut pushes).await);
    stage.nats.kill();
    eventually("the beats to be missed", async || {
        let status = stage.keda.active().await.err()?;
        (status.code() == Code::Unavailable).then_some(())
    })
    .await;
    assert_eq!(stage.keda.work().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(stage.gauge("wess_gateway_fleet_workers").await, None);
    stage.nats.restart();
    eventually("an answer", async || stage.keda.active().await.ok()).await;
}

#[tokio::test]
async fn a_trigger_says_what_one_worker_can_take_and_mistakes_are_told() {
    let stage = Stage::set().await;
    let answer: GetMetricSpecResponse = stage
        .keda
        .ask(GET_METRIC_SPEC, scaled_object("2.5"))
        .await
        .unwrap();
    let [spec] = answer.metric_specs.as_slice() else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (
            spec.metric_name.as_str(),
            spec.target_size,
            spec.target_size_float
        ),
        ("wess_work", 3, 2.5)
    );
    let wrong: Result<GetMetricSpecResponse, _> =
        stage.keda.ask(GET_METRIC_SPEC, scaled_object("many")).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    let path = "/externalscaler.ExternalScaler/StreamMetricSpec";
    let missing: Result<GetMetricSpecResponse, _> = stage.keda.ask(path, scaled_object("1")).await;
    assert_eq!(missing.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn it_stops_with_a_stream_open_whose_client_does_not_listen_and_a_port_that_is_taken_ends_it_with_64() {
    let mut stage = Stage::set().await;
    let mut pushes = stage.keda.pushes().await;
    assert!(!pushed(&mut pushes).await);
    let mut other = Process::spawn(&mut gateway(&stage.nats, &stage.gateway.value("scaler")));
    assert_eq!(other.wait_exit().code(), Some(64), "{}", other.stderr());
    assert!(other.stderr().contains("--scaler"), "{}", other.stderr());
    // Nothing of this client runs meanwhile: it acknowledges no goodbye.
    assert_eq!(stage.gateway.stop().code(), Some(0), "{}", stage.gateway.stderr());
    assert_eq!(
        pushes.next().await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
}
