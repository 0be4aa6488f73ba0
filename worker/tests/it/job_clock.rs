//! A worker's clock that jumps while it has jobs: none is lost, late, early or ended in another way.
//!
//! What fires and what is kept goes by NATS's clock, pauses by one that cannot jump; the wall clock is only shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_harness::{NatsServer, eventually};
use wess_schemas::job::{DeadList, JobRecord, JobState};
use wess_schemas::timestamp::Timestamp;

use crate::rig::{Caller, nap, parse};
use crate::support::Running;

/// More than a record is kept, and more than a message may wait anywhere.
const JUMP_DAYS: i64 = 3;
/// How long a job is put off.
const DELAY: Duration = Duration::from_millis(2000);
/// NATS fires in whole seconds, and this machine is busy.
const LATE: Duration = Duration::from_secs(10);

/// How far ahead the worker's clock is.
static AHEAD_DAYS: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    let ahead = time::Duration::days(AHEAD_DAYS.load(Ordering::SeqCst));
    Timestamp::from(Timestamp::now().instant() + ahead)
}

/// Waits until a record shows something.
async fn shows(caller: &Caller, job: &str, what: impl Fn(&JobRecord) -> bool) {
    eventually(&format!("{job} to be as it should"), async || {
        caller.record(job).await.ok().filter(|record| what(record))
    })
    .await;
}

/// Jobs of every kind that takes time, and how each must end.
fn jobs(name: &str) -> [(Value, JobState, u32); 3] {
    let retry = json!({"max_attempts": 3, "backoff_ms": [1500]});
    let trap = json!({"module": "traps", "function": "unreachable"});
    let upper = json!({"module": "upper", "input": "a"});
    let delay_ms = DELAY.as_millis() as u64;
    [
        (
            json!({"job_id": format!("nap-{name}"), "invoke": {"module": "nap"}}),
            JobState::Succeeded,
            1,
        ),
        (
            json!({"job_id": format!("retry-{name}"), "invoke": trap, "retry": retry}),
            JobState::Dead,
            3,
        ),
        (
            json!({"job_id": format!("later-{name}"), "invoke": upper, "delay_ms": delay_ms}),
            JobState::Succeeded,
            1,
        ),
    ]
}

/// Submits the jobs of a name; gives when those that are put off were.
async fn submit(caller: &Caller, name: &str) -> Instant {
    let begun = Instant::now();
    for (request, ..) in jobs(name) {
        caller.submit(request).await.unwrap();
    }
    begun
}

/// Every job of a name has ended as it must; one submitted again is what it was.
async fn have_ended(caller: &Caller, name: &str) -> Vec<JobRecord> {
    let mut records = Vec::new();
    for (request, state, attempts) in jobs(name) {
        let record = caller.end_of(request["job_id"].as_str().unwrap()).await;
        assert_eq!((record.state, record.attempts), (state, attempts), "{record:?}");
        assert_eq!(caller.submit(request).await.unwrap(), record);
        records.push(record);
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_or_back_changes_the_end_of_no_job() {
    let nats = NatsServer::start();
    let _running = Running::start_with(&nats, |config| config.clock = clock).await;
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["upper", "traps"]).await;
    caller.store("nap", nap(2000)).await;
    let mut done = caller.client.subscribe("wess.done.>").await.unwrap();
    let mut told = BTreeMap::new();
    let mut records = Vec::new();
    for (jump, [before, after]) in [
        (JUMP_DAYS, ["before-1", "after-1"]),
        (-JUMP_DAYS, ["before-2", "after-2"]),
    ] {
        AHEAD_DAYS.store(0, Ordering::SeqCst);
        let mut begun = BTreeMap::from([(format!("later-{before}"), submit(&caller, before).await)]);
        shows(&caller, &format!("nap-{before}"), |job| {
            job.state == JobState::Running
        })
        .await;
        shows(&caller, &format!("retry-{before}"), |job| job.attempts == 1).await;
        AHEAD_DAYS.store(jump, Ordering::SeqCst);
        begun.insert(format!("later-{after}"), submit(&caller, after).await);
        for _ in 0..2 * jobs("").len() {
            let record: JobRecord = parse(&done.next().await.unwrap());
            if let Some(begun) = begun.get(record.job_id.as_str()) {
                let took = begun.elapsed();
                assert!(
                    took >= DELAY && took < DELAY + LATE,
                    "{} took {took:?}",
                    record.job_id
                );
            }
            told.insert(record.job_id.to_string(), record);
        }
        for name in [before, after] {
            records.extend(have_ended(&caller, name).await);
        }
    }
    AHEAD_DAYS.store(0, Ordering::SeqCst);
    assert_eq!(told.len(), records.len(), "each was told of once");
    for record in records {
        assert_eq!(told[record.job_id.as_str()], record);
        assert_eq!(caller.record(record.job_id.as_str()).await.unwrap(), record);
    }
    let letters: DeadList = caller.ask_json("wess.dead.list", &json!({})).await.unwrap();
    assert_eq!(
        letters.letters.len(),
        4,
        "those that failed three times, and no other"
    );
}
