//! Random faults over a mixed load of jobs: what was accepted comes to one end each, whatever the order of disasters.
//!
//! The seed is printed, and given by `WESS_SEED`; `WESS_FAULTS_S` says for how many seconds things go wrong. A binary of
//! its own, as cargo runs one after another: it wants the machine for itself.

#![allow(clippy::unwrap_used)]

#[path = "../it/rig.rs"]
#[allow(dead_code, reason = "the tests in `it` use the rest")]
mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Request};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, Signal, eventually};
use wess_schemas::job::{DeadLetter, DeadList, DeadListRequest, JobRecord, JobState};

use crate::rig::{Caller, Worker, nap, parse, read};

const FLAGS: [&str; 6] = ["--ack-wait-s", "1", "--executors", "1", "--grace-s", "2"];

#[allow(clippy::disallowed_methods, reason = "a test has no Config")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Numbers that look random and are the same for the same seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What a job does, and how it must end.
fn job(number: u64) -> (Value, JobState) {
    let retry = json!({"max_attempts": 2, "backoff_ms": [50]});
    let trap = json!({"module": "traps", "function": "unreachable"});
    match number % 5 {
        0 => (json!({"invoke": trap}), JobState::Failed),
        1 => (json!({"invoke": trap, "retry": retry}), JobState::Dead),
        2 => (json!({"invoke": {"module": "nap"}}), JobState::Succeeded),
        3 => (
            json!({"chain": {"steps": ["upper", "upper"], "input": "a"}}),
            JobState::Succeeded,
        ),
        _ => (
            json!({"invoke": {"module": "upper", "input": "a"}}),
            JobState::Succeeded,
        ),
    }
}

/// Asks until somebody answers: under faults, silence is no news.
async fn insist(client: &Client, subject: &str, body: &Value) -> Option<JobRecord> {
    let request = Request::new()
        .payload(serde_json::to_vec(body).unwrap().into())
        .timeout(Some(Duration::from_secs(1)));
    let reply = client.send_request(subject.to_owned(), request).await.ok()?;
    read(reply).ok().map(|reply| parse(&reply))
}

/// Submits jobs until told to stop; gives those that were accepted, and how each must end.
async fn submit(client: Client, stop: Arc<AtomicBool>) -> BTreeMap<String, JobState> {
    let mut accepted = BTreeMap::new();
    for number in 0.. {
        let id = format!("job-{number:06}");
        let (mut body, state) = job(number);
        body["job_id"] = json!(id);
        while insist(&client, "wess.jobs.submit", &body).await.is_none() {
            if stop.load(Ordering::Relaxed) {
                // Nobody said that it was accepted; nobody knows that it was not.
                return accepted;
            }
        }
        accepted.insert(id, state);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    accepted
}

/// One disaster.
fn strike(random: &mut Random, nats: &mut NatsServer, workers: &mut [Worker]) -> &'static str {
    let victim = random.below(workers.len() as u64) as usize;
    match random.below(5) {
        0 => {
            nats.restart();
            "nats-server killed"
        }
        1 => {
            nats.freeze();
            std::thread::sleep(Duration::from_millis(1500));
            nats.thaw();
            "nats-server frozen"
        }
        2 => {
            workers[victim].process.stop();
            workers[victim] = Worker::start(nats, &FLAGS);
            "worker stopped"
        }
        _ => {
            workers[victim].process.signal(Signal::KILL);
            workers[victim] = Worker::start(nats, &FLAGS);
            "worker killed"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_every_job_that_was_accepted_comes_to_the_one_end_it_must() {
    let (seed, seconds) = (number("WESS_SEED", 20_261_121), number("WESS_FAULTS_S", 60));
    let mut random = Random(seed.max(1));
    let mut nats = NatsServer::start();
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(&nats, &FLAGS)).collect();
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["upper", "traps"]).await;
    caller.store("nap", nap(300)).await;
    let mut done = caller.client.subscribe("wess.done.>").await.unwrap();
    let (tasks, stop) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
    let submitting = tasks.spawn(submit(caller.client.clone(), Arc::clone(&stop)));
    let (ends, mut faults) = (Instant::now() + Duration::from_secs(seconds), BTreeMap::new());
    while Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(300 + random.below(1200))).await;
        let fault = tokio::task::block_in_place(|| strike(&mut random, &mut nats, &mut workers));
        *faults.entry(fault).or_insert(0) += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let accepted = submitting.await.unwrap();
    let mut ended = BTreeMap::new();
    for (id, expected) in &accepted {
        let record = eventually(&format!("{id} to end"), async || {
            let record = insist(&caller.client, &format!("wess.jobs.get.{id}"), &json!({})).await?;
            record.state.is_final().then_some(record)
        })
        .await;
        assert_eq!(record.state, *expected, "{record:?}");
        ended.insert(id.clone(), record);
    }
    let letters = count_letters(&caller, &ended).await;
    let mut different = 0;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), done.next()).await {
        let told: JobRecord = parse(&message);
        different += usize::from(
            ended
                .get(told.job_id.as_str())
                .is_some_and(|record| *record != told),
        );
    }
    let of = |state| ended.values().filter(|record| record.state == state).count();
    let (good, failed, dead) = (of(JobState::Succeeded), of(JobState::Failed), of(JobState::Dead));
    eprintln!(
        "seed {seed}, {seconds} s, {faults:?}: {} jobs accepted = {good} succeeded + {failed} failed + {dead} dead; {letters} letters, {different} told of another end",
        accepted.len()
    );
    assert!(accepted.len() > 50, "too little was accepted to tell");
    assert_eq!((letters, different), (dead, 0));
}

/// Every letter of a job that was accepted.
async fn count_letters(caller: &Caller, ended: &BTreeMap<String, JobRecord>) -> usize {
    let (mut count, mut after) = (0, None);
    loop {
        let request = DeadListRequest { after, limit: None };
        let page: DeadList = caller.ask_json("wess.dead.list", &request).await.unwrap();
        let is_ours = |letter: &&DeadLetter| ended.contains_key(letter.job_id.as_str());
        count += page.letters.iter().filter(is_ours).count();
        match page.next {
            next @ Some(_) => after = next,
            None => return count,
        }
    }
}
