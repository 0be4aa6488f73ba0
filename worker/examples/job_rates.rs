//! How durable jobs and spilled calls compare with JetStream itself, in one run: `cargo run --workspace --example job_rates`
//! after `cargo build --workspace`, and `-- 100000` for another backlog than 20 000. Prints tables for docs/performance.md.
//!
//! The bare loop takes, stores a result of the same size by create, and acks, in batches of 64: what a job costs without
//! a job's guest, its record and its worker.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, Context, consumer, kv, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use wess_harness::{NatsServer, Process, binary, guest};

/// Jobs in a backlog, unless told.
const JOBS: usize = 20_000;
/// Submissions and calls of one round, at each number in flight.
const SUBMISSIONS: usize = 2_000;
/// In flight at once.
const IN_FLIGHT: [usize; 3] = [1, 16, 64];
/// Executors of the worker that is full: it gets nearly all calls, as each has its share of the queue group.
const FULL_EXECUTORS: usize = 15;
const ROUNDS: usize = 3;
const BATCH: usize = 64;
/// What a job's record has.
const RECORD_BYTES: usize = 600;
const JOB: &[u8] = br#"{"invoke":{"module":"upper","input":"hello"}}"#;

struct Rig {
    backlog: usize,
    nats: NatsServer,
    data: TempDir,
    client: Client,
    jetstream: Context,
}

impl Rig {
    async fn start(backlog: usize) -> Self {
        let (nats, data) = (NatsServer::start(), tempfile::tempdir().unwrap());
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let rig = Self {
            backlog,
            nats,
            data,
            client,
            jetstream,
        };
        let mut worker = rig.worker();
        for (name, wasm) in [("upper", guest("upper")), ("sleep", guest("sleep_hour"))] {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Wess-Module", name);
            let stored = rig
                .client
                .request_with_headers("wess.store", headers, wasm.into());
            stored.await.unwrap();
        }
        worker.stop();
        rig
    }

    fn worker(&self) -> Process {
        self.worker_in(self.data.path(), &[])
    }

    fn worker_in(&self, data: &Path, flags: &[&str]) -> Process {
        let mut command = binary("wess-worker");
        command
            .env("WESS_ADMIN", "127.0.0.1:0")
            .args(["--nats", &self.nats.url(), "--data"]);
        Process::start(command.arg(data).args(flags))
    }

    async fn fill(&self, subject: &str) {
        for batch in 0..self.backlog / 1000 {
            let publish = async |number: usize| {
                let subject = format!("{subject}.{}", batch * 1000 + number);
                self.jetstream
                    .publish(subject, JOB.into())
                    .await
                    .unwrap()
                    .await
                    .unwrap();
            };
            join_all((0..1000).map(publish)).await;
        }
    }

    /// Messages a second of the bare loop.
    async fn bare(&self) -> f64 {
        let queue = stream::Config {
            name: "BARE".into(),
            subjects: vec!["bare.>".into()],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            max_messages_per_subject: 1,
            discard_new_per_subject: true,
            ..stream::Config::default()
        };
        let _ = self.jetstream.delete_stream("BARE").await;
        let _ = self.jetstream.delete_key_value("bare").await;
        self.jetstream.create_stream(queue).await.unwrap();
        let bucket = kv::Config {
            bucket: "bare".into(),
            max_age: Duration::from_secs(24 * 3600),
            ..kv::Config::default()
        };
        let results = self.jetstream.create_key_value(bucket).await.unwrap();
        let durable = consumer::pull::Config {
            durable_name: Some("bare".into()),
            max_ack_pending: 65_536,
            ..consumer::pull::Config::default()
        };
        let consumer = self
            .jetstream
            .create_consumer_on_stream(durable, "BARE")
            .await
            .unwrap();
        self.fill("bare").await;
        let record = Bytes::from(vec![b'x'; RECORD_BYTES]);
        let (started, mut settled) = (Instant::now(), 0);
        while settled < self.backlog {
            let request = consumer
                .batch()
                .max_messages(BATCH)
                .expires(Duration::from_secs(1));
            let batch: Vec<_> = request.messages().await.unwrap().collect().await;
            settled += batch.len();
            let settle = async |message: Result<jetstream::Message, _>| {
                let message = message.unwrap();
                let key = message.subject.rsplit('.').next().unwrap();
                results.create(key, record.clone()).await.unwrap();
                message.ack().await.unwrap();
            };
            join_all(batch.into_iter().map(settle)).await;
        }
        self.backlog as f64 / started.elapsed().as_secs_f64()
    }

    /// Jobs a second out of a backlog, from a worker's `ready` to the last ack, and the most memory it held, in MiB.
    async fn jobs(&self) -> (f64, u64) {
        self.fill("wess.queue.jobs.default").await;
        let worker = self.worker();
        let started = Instant::now();
        let queue = self.jetstream.get_stream("WESS_JOBS").await.unwrap();
        while queue.get_info().await.unwrap().state.messages > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let rate = self.backlog as f64 / started.elapsed().as_secs_f64();
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        let records = self.jetstream.get_stream("KV_wess-results").await.unwrap();
        records.purge().await.unwrap();
        (rate, kib / 1024)
    }

    /// Medians of a bare publish with its ack and of a submission, in microseconds, with so many in flight.
    async fn submissions(&self, in_flight: usize) -> (u128, u128) {
        let _worker = self.worker();
        let bare = median(in_flight, async |number| {
            let published = self
                .jetstream
                .publish(format!("bare.submitted.{number}"), JOB.into());
            published.await.unwrap().await.unwrap();
        });
        let bare = bare.await;
        let ours = median(in_flight, async |_| {
            self.client.request("wess.jobs.submit", JOB.into()).await.unwrap();
        });
        (bare, ours.await)
    }

    /// Medians of a round trip through a stream in memory and of a call that a full worker hands over, in microseconds,
    /// with so many in flight.
    async fn spilled(&self, in_flight: usize) -> (u128, u128) {
        let _responder = Responder::start(&self.nats.url(), &self.jetstream).await;
        let bare = median(in_flight, async |_| self.through("memory.calls").await).await;
        let other = tempfile::tempdir().unwrap();
        let executors = FULL_EXECUTORS.to_string();
        let full = self.worker_in(self.data.path(), &["--executors", &executors, "--slots", "1"]);
        let asleep = br#"{"module":"sleep","limits":{"timeout_ms":60000}}"#;
        for _ in 0..FULL_EXECUTORS * 4 {
            self.client
                .publish("wess.invoke", asleep.as_slice().into())
                .await
                .unwrap();
        }
        let _free = self.worker_in(other.path(), &["--executors", "1", "--slots", "1000"]);
        self.client
            .request("wess.invoke.upper", "hello".into())
            .await
            .unwrap();
        let ours = median(in_flight, async |_| {
            self.client
                .request("wess.invoke.upper", "hello".into())
                .await
                .unwrap();
        });
        let ours = ours.await;
        drop(full);
        (bare, ours)
    }

    /// A round trip of a message that says in a header where its answer goes.
    async fn through(&self, subject: &'static str) {
        let inbox = self.client.new_inbox();
        let mut answer = self.client.subscribe(inbox.clone()).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Answer-To", inbox.as_str());
        let published = self
            .jetstream
            .publish_with_headers(subject, headers, "hello".into());
        drop(published.await.unwrap());
        answer.next().await.unwrap();
    }
}

/// Answers whatever lies in a stream in memory, on a thread of its own.
struct Responder {
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Responder {
    async fn start(url: &str, jetstream: &Context) -> Self {
        let queue = stream::Config {
            name: "MEMORY".into(),
            subjects: vec!["memory.>".into()],
            retention: stream::RetentionPolicy::WorkQueue,
            storage: stream::StorageType::Memory,
            ..stream::Config::default()
        };
        jetstream.get_or_create_stream(queue).await.unwrap();
        let durable = consumer::pull::Config {
            durable_name: Some("memory".into()),
            ..consumer::pull::Config::default()
        };
        jetstream
            .create_consumer_on_stream(durable, "MEMORY")
            .await
            .unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let url = url.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let answering = async {
                let client = async_nats::connect(url).await.unwrap();
                let jetstream = jetstream::new(client.clone());
                let consumer: consumer::PullConsumer = jetstream
                    .get_consumer_from_stream("memory", "MEMORY")
                    .await
                    .unwrap();
                let mut messages = consumer.messages().await.unwrap();
                while let Some(Ok(message)) = messages.next().await {
                    let answer_to = message.headers.as_ref().unwrap().get("Answer-To").unwrap();
                    client
                        .publish(answer_to.to_string(), message.payload.clone())
                        .await
                        .unwrap();
                    message.ack().await.unwrap();
                }
            };
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = answering => (),
                    _ = &mut stopped => (),
                }
            });
        });
        Self { _stop: stop }
    }
}

/// The median of what one of these takes, in microseconds, with so many in flight.
async fn median(in_flight: usize, one: impl AsyncFn(usize)) -> u128 {
    let timed = futures_util::stream::iter(0..SUBMISSIONS).map(async |number| {
        let started = Instant::now();
        one(number).await;
        started.elapsed().as_micros()
    });
    let mut times: Vec<u128> = timed.buffer_unordered(in_flight).collect().await;
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let backlog = std::env::args()
        .nth(1)
        .map_or(JOBS, |count| count.parse().unwrap());
    let rig = Rig::start(backlog).await;
    println!(
        "| in flight | round trip through a stream in memory, p50 us | spilled call, p50 us | ratio |\n|---|---|---|---|"
    );
    for in_flight in IN_FLIGHT {
        for _ in 0..ROUNDS {
            let (bare, ours) = rig.spilled(in_flight).await;
            println!(
                "| {in_flight} | {bare} | {ours} | {:.2} |",
                ours as f64 / bare as f64
            );
        }
    }
    println!(
        "\n| round | bare loop, messages/s | jobs/s | ratio | worker's peak, MiB |\n|---|---|---|---|---|"
    );
    for round in 1..=ROUNDS {
        let bare = rig.bare().await;
        let (jobs, peak) = rig.jobs().await;
        println!(
            "| {round} | {bare:.0} | {jobs:.0} | {:.2} | {peak} |",
            jobs / bare
        );
    }
    println!("\n| in flight | bare publish and ack, p50 us | submit, p50 us | ratio |\n|---|---|---|---|");
    for in_flight in IN_FLIGHT {
        for _ in 0..ROUNDS {
            let _ = rig.jetstream.get_stream("BARE").await.unwrap().purge().await;
            let (bare, ours) = rig.submissions(in_flight).await;
            println!(
                "| {in_flight} | {bare} | {ours} | {:.2} |",
                ours as f64 / bare as f64
            );
        }
    }
}
