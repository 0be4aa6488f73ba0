//! What an instance that serves several calls saves, in one run: `cargo run --workspace --example reuse` after
//! `cargo build --workspace`. Prints a table for docs/performance.md.
//!
//! Two modules of the same bytes on one worker, called in turns: one has a fresh instance for each call, the other does not.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt, stream};
use wess_harness::{NatsServer, Process, binary, guest};

const ROUNDS: usize = 5;
/// How long one measurement takes.
const TURN: Duration = Duration::from_secs(2);
/// In flight at once.
const IN_FLIGHT: [usize; 2] = [50, 256];
/// Calls of one instance.
const REUSE: u32 = 1000;
/// A process's time is told in hundredths of a second.
const TICK_US: f64 = 10_000.0;

/// What is called, with what, and what that answers.
struct Case {
    guest: &'static str,
    function: &'static str,
    input: &'static str,
    output: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        guest: "upper",
        function: "",
        input: "hello",
        output: "HELLO",
    },
    Case {
        guest: "greeter",
        function: ".hello",
        input: "Ada",
        output: "Hello, Ada!",
    },
];

/// Calls per second, and the worker's time for each, in microseconds.
type Measured = (f64, f64);

async fn store(client: &Client, name: &str, wasm: Vec<u8>, settings: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("Wess-Module", name);
    headers.insert("Wess-Settings", settings);
    let stored = client
        .request_with_headers("wess.store", headers, wasm.into())
        .await
        .unwrap();
    let failed = stored
        .headers
        .and_then(|headers| headers.get("Nats-Service-Error").cloned());
    assert!(failed.is_none(), "{failed:?}");
}

/// What a process has had of all cores.
fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    ticks as f64 * TICK_US
}

async fn measure(client: &Client, pid: u32, subject: &str, case: &Case, in_flight: usize) -> Measured {
    let (started, cpu) = (Instant::now(), cpu_us(pid));
    let calls = stream::repeat(())
        .take_while(|()| std::future::ready(started.elapsed() < TURN))
        .map(async |()| {
            client
                .request(subject.to_owned(), case.input.into())
                .await
                .unwrap()
        })
        .buffer_unordered(in_flight)
        .inspect(|reply| assert_eq!(reply.payload, case.output))
        .count()
        .await as f64;
    (
        calls / started.elapsed().as_secs_f64(),
        (cpu_us(pid) - cpu) / calls,
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (nats, data) = (NatsServer::start(), tempfile::tempdir().unwrap());
    let mut worker = binary("wess-worker");
    worker
        .env("WESS_ADMIN", "127.0.0.1:0")
        .args(["--nats", &nats.url(), "--data"])
        .arg(data.path());
    let worker = Process::start(&mut worker);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let reuse = format!(r#"{{"isolation":{{"reuse":{REUSE}}}}}"#);
    println!(
        "| guest | in flight | fresh, calls/s | reused, calls/s | ratio | fresh, CPU µs | reused, CPU µs |"
    );
    println!("|---|---|---|---|---|---|---|");
    for case in &CASES {
        let name = case.guest;
        let subjects = ["fresh", "reused"].map(|kind| format!("{name}-{kind}"));
        store(&client, &subjects[0], guest(name), "{}").await;
        store(&client, &subjects[1], guest(name), &reuse).await;
        for in_flight in IN_FLIGHT {
            let mut taken: [Vec<Measured>; 2] = Default::default();
            for _ in 0..ROUNDS {
                for (subject, taken) in subjects.iter().zip(&mut taken) {
                    let subject = format!("wess.invoke.{subject}{}", case.function);
                    taken.push(measure(&client, worker.pid(), &subject, case, in_flight).await);
                }
            }
            let rates = taken
                .each_ref()
                .map(|taken| median(taken.iter().map(|(rate, _)| *rate).collect()));
            let costs = taken
                .each_ref()
                .map(|taken| median(taken.iter().map(|(_, cost)| *cost).collect()));
            println!(
                "| {name} | {in_flight} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} |",
                rates[0],
                rates[1],
                rates[1] / rates[0],
                costs[0],
                costs[1]
            );
        }
    }
}
