//! How durable jobs compare with JetStream itself, in one run: `cargo run --workspace --example job_rates` after
//! `cargo build --workspace`. Prints a table for docs/performance.md.
//!
//! The bare loop takes, stores a result of the same size by create, and acks, in batches of 64: what a job costs without
//! a job's guest, its record and its worker.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, Context, consumer, kv, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use wess_harness::{NatsServer, Process, binary, guest};

/// Jobs in a backlog.
const JOBS: usize = 20_000;
/// Submissions, one after the other.
const SUBMISSIONS: usize = 2_000;
const ROUNDS: usize = 3;
const BATCH: usize = 64;
/// What a job's record has.
const RECORD_BYTES: usize = 600;
const JOB: &[u8] = br#"{"invoke":{"module":"upper","input":"hello"}}"#;

struct Rig {
    nats: NatsServer,
    data: TempDir,
    client: Client,
    jetstream: Context,
}

impl Rig {
    async fn start() -> Self {
        let (nats, data) = (NatsServer::start(), tempfile::tempdir().unwrap());
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let rig = Self {
            nats,
            data,
            client,
            jetstream,
        };
        let mut worker = rig.worker();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Wess-Module", "upper");
        let stored = rig
            .client
            .request_with_headers("wess.store", headers, guest("upper").into());
        stored.await.unwrap();
        worker.stop();
        rig
    }

    fn worker(&self) -> Process {
        let mut command = binary("wess-worker");
        command
            .env("WESS_ADMIN", "127.0.0.1:0")
            .args(["--nats", &self.nats.url(), "--data"]);
        Process::start(command.arg(self.data.path()))
    }

    async fn fill(&self, subject: &str) {
        for batch in 0..JOBS / 1000 {
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
        while settled < JOBS {
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
        JOBS as f64 / started.elapsed().as_secs_f64()
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
        let rate = JOBS as f64 / started.elapsed().as_secs_f64();
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

    /// Medians of a bare publish with its ack and of a submission, in microseconds, taken in turns.
    async fn submissions(&self) -> (u128, u128) {
        let _worker = self.worker();
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for number in 0..SUBMISSIONS {
            let started = Instant::now();
            let published = self
                .jetstream
                .publish(format!("bare.submitted.{number}"), JOB.into());
            published.await.unwrap().await.unwrap();
            bare.push(started.elapsed().as_micros());
            let started = Instant::now();
            self.client.request("wess.jobs.submit", JOB.into()).await.unwrap();
            ours.push(started.elapsed().as_micros());
        }
        let median = |mut times: Vec<u128>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        (median(bare), median(ours))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rig = Rig::start().await;
    println!(
        "| round | bare loop, messages/s | jobs/s | ratio | worker's peak, MiB |\n|---|---|---|---|---|"
    );
    for round in 1..=ROUNDS {
        let bare = rig.bare().await;
        let (jobs, peak) = rig.jobs().await;
        println!(
            "| {round} | {bare:.0} | {jobs:.0} | {:.2} | {peak} |",
            jobs / bare
        );
    }
    println!("\n| round | bare publish and ack, p50 us | submit, p50 us | ratio |\n|---|---|---|---|");
    for round in 1..=ROUNDS {
        let _ = rig.jetstream.get_stream("BARE").await.unwrap().purge().await;
        let (bare, ours) = rig.submissions().await;
        println!("| {round} | {bare} | {ours} | {:.2} |", ours as f64 / bare as f64);
    }
}
