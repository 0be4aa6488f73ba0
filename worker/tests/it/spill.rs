//! A call that finds no slot goes to the queue, and whoever has one first answers it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::RequestErrorKind;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;
use wess_harness::{NatsServer, Signal, eventually};
use wess_schemas::subject::CALLS_STREAM;
use wess_schemas::{ErrorCode, Outcome, header};

use crate::faults::answers_again;
use crate::queued::{Counted, calls_stream};
use crate::rig::{Answered, Caller, Rig, Worker, add, nap, parse, refused, spin};

const ONE_SLOT: [&str; 4] = ["--executors", "1", "--slots", "1"];

/// A worker whose only slot is taken for so long.
async fn busy_rig(flags: &[&str], ms: u64) -> (Rig, JoinHandle<Answered<Outcome>>) {
    let rig = Rig::with(&[&ONE_SLOT, flags].concat(), &["spin"]).await;
    rig.caller.invoke(add()).await.unwrap();
    let spinner = rig.caller.begin(spin(ms));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    (rig, spinner)
}

#[tokio::test]
async fn a_call_that_finds_no_slot_is_answered_by_another_worker_that_has_one() {
    const CALLS: usize = 30;
    let (rig, spinner) = busy_rig(&[], 10_000).await;
    let free = Worker::start(&rig.nats, &[]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    let answered = join_all((0..CALLS).map(|_| rig.caller.invoke(add()))).await;
    assert!(!spinner.is_finished(), "calls waited for the slot");
    let by: BTreeSet<String> = answered
        .into_iter()
        .map(|outcome| outcome.unwrap().worker.to_string())
        .collect();
    assert_eq!(by, BTreeSet::from([free.id()]));
    // Each call had even chances to come to either worker.
    assert!(rig.worker.metric("wess_worker_spilled_calls_total").await > 0);
    assert!(free.metric("wess_worker_queued_calls_taken_total").await > 0);
    assert_eq!(free.metric("wess_worker_spilled_calls_total").await, 0);
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.caller.has_queued(0).await;
}

#[tokio::test]
async fn a_full_worker_leaves_the_queue_to_one_that_has_room() {
    let (rig, spinner) = busy_rig(&[], 15_000).await;
    rig.caller.store("nap", nap(300)).await;
    // With two slots it has one call from the queue in hand at a time, and always room.
    let free = Worker::start(&rig.nats, &["--executors", "1", "--slots", "2"]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    let mut calls = Counted::new(&rig.caller).await;
    for _ in 0..10 {
        calls.enqueue("wess.invoke.nap", &[], "").await;
    }
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    assert!(!spinner.is_finished(), "calls waited for the slot");
    let metrics = rig.worker.metrics().await;
    assert_eq!(
        metrics.read("wess_worker_queued_calls_taken_total"),
        metrics.read("wess_worker_queued_calls_handed_back_total")
    );
    assert!(free.metric("wess_worker_queued_calls_taken_total").await >= 10);
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
}

#[tokio::test]
async fn without_another_worker_calls_wait_in_the_queue_until_the_slot_is_free() {
    let (rig, spinner) = busy_rig(&[], 1500).await;
    let mut calls = Counted::new(&rig.caller).await;
    for _ in 0..3 {
        calls.ask("wess.invoke", add().to_string()).await;
    }
    rig.caller.has_queued(3).await;
    assert!(!spinner.is_finished());
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    let (answered, order) = calls.answered_in_order().await;
    assert_eq!(order, [0, 1, 2], "first in, first out");
    for reply in answered {
        let outcome: Outcome = parse(&reply.unwrap());
        assert_eq!(outcome.worker.to_string(), rig.worker.id());
        assert!(outcome.stats.queue_us > 0, "{:?}", outcome.stats);
    }
    assert_eq!(rig.worker.metric("wess_worker_spilled_calls_total").await, 3);
    assert_eq!(
        rig.worker
            .metric("wess_worker_queued_calls_handed_back_total")
            .await,
        0
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_call_whose_wait_ends_in_the_queue_is_told_so_while_all_slots_are_busy() {
    let (rig, spinner) = busy_rig(&[], 8000).await;
    let hasty = json!({"module": "add", "args": [2, 3], "wait_ms": 100});
    let calls = join_all((0..5).map(|_| rig.caller.invoke(hasty.clone()))).await;
    assert!(!spinner.is_finished());
    for call in calls {
        let error = refused(ErrorCode::Expired, call);
        assert!(error.error.retryable && !error.error.guest_ran);
    }
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    let expired = "wess_worker_calls_total{code=\"expired\"}";
    assert_eq!(rig.worker.metric(expired).await, 5);
    rig.caller.has_queued(0).await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_overdue_call_behind_patient_ones_is_told_so_while_the_fleet_is_full() {
    let (rig, spinner) = busy_rig(&[], 12_000).await;
    let patient: Vec<_> = (0..20).map(|_| rig.caller.begin(add())).collect();
    rig.caller.has_queued(20).await;
    let hasty = json!({"module": "add", "args": [2, 3], "wait_ms": 100});
    let calls = join_all((0..5).map(|_| rig.caller.invoke(hasty.clone()))).await;
    assert!(!spinner.is_finished() && patient.iter().all(|call| !call.is_finished()));
    for call in calls {
        refused(ErrorCode::Expired, call);
    }
    assert_eq!(
        rig.worker
            .metric("wess_worker_calls_expired_in_queue_total")
            .await,
        5
    );
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    for call in patient {
        call.await.unwrap().unwrap();
    }
    rig.caller.has_queued(0).await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn no_call_waits_behind_a_long_guest_while_another_executor_has_a_slot() {
    const EXECUTORS: u64 = 4;
    let flags = ["--executors", "4", "--slots", "1"];
    let rig = Rig::with(&flags, &["upper", "spin"]).await;
    rig.caller.store("nap", nap(20_000)).await;
    // All slots but one are held for long; whose executor gets a call is for NATS to choose.
    for held in 1..EXECUTORS {
        rig.caller
            .client
            .publish("wess.invoke.nap", "".into())
            .await
            .unwrap();
        rig.worker.shows("wess_worker_slots_busy", held).await;
    }
    for _ in 0..20 {
        let calls = join_all((0..8).map(|_| rig.caller.raw("upper", "a"))).await;
        for call in calls {
            assert_eq!(call.unwrap().payload, "A");
        }
        let job = rig
            .caller
            .job(json!({"invoke": {"module": "upper", "input": "a"}}))
            .await;
        assert_eq!(crate::jobs::outcome(&job).output.as_deref(), Some("A"));
        let chain = json!({"steps": ["upper", "upper"], "input": "a"});
        assert_eq!(
            rig.caller.chain(chain).await.unwrap().output.as_deref(),
            Some("A")
        );
    }
    assert_eq!(rig.worker.metric("wess_worker_slots_busy").await, EXECUTORS - 1);
}

#[tokio::test]
async fn a_call_that_waits_with_a_full_worker_goes_to_one_that_starts_with_room() {
    let (rig, spinner) = busy_rig(&[], 20_000).await;
    let waiting = rig.caller.begin(add());
    // Nobody has room, so the full one takes it to let it wait for the next slot.
    rig.worker.shows("wess_worker_queued_calls_taken_total", 1).await;
    let free = Worker::start(&rig.nats, &[]);
    assert_eq!(waiting.await.unwrap().unwrap().worker.to_string(), free.id());
    assert!(!spinner.is_finished());
    rig.caller.has_queued(0).await;
}

#[tokio::test]
async fn a_full_queue_refuses_the_call_at_once() {
    let nats = NatsServer::start();
    let caller = Caller::connect(&nats).await;
    caller.jetstream().create_stream(calls_stream(1)).await.unwrap();
    let rig = Rig::on(nats, &ONE_SLOT, &["spin"]).await;
    rig.caller.invoke(add()).await.unwrap();
    let spinner = rig.caller.begin(spin(3000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let waiting = rig.caller.begin(add());
    rig.caller.has_queued(1).await;
    let error = refused(ErrorCode::Overloaded, rig.caller.invoke(add()).await);
    assert!(error.error.retryable && error.error.detail["retry_after_ms"].is_u64());
    assert!(!spinner.is_finished() && !waiting.is_finished());
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    waiting.await.unwrap().unwrap();
    rig.is_unharmed().await;
}

#[tokio::test]
async fn without_the_queue_calls_wait_with_their_worker_and_past_its_bounds_they_are_overloaded() {
    let (rig, spinner) = busy_rig(&["--queue", "2"], 4000).await;
    rig.caller.take_queue_away().await;
    let waiting = [rig.caller.begin(add()), rig.caller.begin(add())];
    rig.worker.shows("wess_worker_waiting", 2).await;
    let hasty = json!({"module": "add", "args": [2, 3], "wait_ms": 100});
    let error = refused(ErrorCode::Overloaded, rig.caller.invoke(hasty).await);
    assert!(error.error.retryable && error.error.detail["retry_after_ms"].is_u64());
    assert!(!spinner.is_finished() && waiting.iter().all(|call| !call.is_finished()));
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap().results, Some(vec![json!(5)]));
    }
    assert_eq!(rig.worker.metric("wess_worker_spilled_calls_total").await, 0);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_call_that_waits_with_its_worker_expires_there() {
    let (rig, spinner) = busy_rig(&[], 3000).await;
    rig.caller.take_queue_away().await;
    let hasty = json!({"module": "add", "args": [2, 3], "wait_ms": 100});
    let started = Instant::now();
    refused(ErrorCode::Expired, rig.caller.invoke(hasty).await);
    assert!(started.elapsed() >= Duration::from_millis(100) && !spinner.is_finished());
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_stopping_worker_leaves_what_waits_to_another_and_each_call_is_answered_once() {
    let mut rig = Rig::with(&ONE_SLOT, &[]).await;
    rig.caller.store("nap", nap(1000)).await;
    let mut calls = Counted::new(&rig.caller).await;
    calls.ask("wess.invoke.nap", "").await;
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    for _ in 0..10 {
        calls.ask("wess.invoke.nap", "").await;
    }
    for _ in 0..40 {
        calls.ask("wess.invoke.add", "[2,3]").await;
    }
    rig.caller.has_queued(50).await;
    let other = Worker::start(&rig.nats, &["--executors", "1", "--slots", "8"]);
    rig.worker.process.signal(Signal::TERM);
    assert_eq!(rig.worker.process.wait_exit().code(), Some(0));
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    other.comes_to_rest().await;
}

#[tokio::test]
async fn a_worker_that_stops_and_is_the_last_answers_itself_what_waits_with_it() {
    let mut rig = Rig::with(&ONE_SLOT, &[]).await;
    rig.caller.store("nap", nap(800)).await;
    rig.caller.take_queue_away().await;
    let mut calls = Counted::new(&rig.caller).await;
    for _ in 0..5 {
        calls.ask("wess.invoke.nap", "").await;
    }
    rig.worker.shows("wess_worker_waiting", 4).await;
    rig.worker.process.signal(Signal::TERM);
    eventually("the drain to begin", async || {
        (rig.worker.page("/readyz").await.0 == 503).then_some(())
    })
    .await;
    let jetstream = rig.caller.jetstream();
    jetstream.delete_stream(CALLS_STREAM).await.unwrap();
    jetstream.create_stream(calls_stream(100)).await.unwrap();
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    assert_eq!(rig.worker.process.wait_exit().code(), Some(0));
}

#[tokio::test]
async fn calls_that_find_the_house_full_go_to_the_queue_too() {
    let rig = Rig::with(&[&ONE_SLOT[..], &["--queue", "1"]].concat(), &[]).await;
    rig.caller.store("nap", nap(20)).await;
    rig.caller.raw("nap", "").await.unwrap();
    rig.worker.process.signal(Signal::STOP);
    let mut calls = Counted::new(&rig.caller).await;
    for _ in 0..50 {
        calls.ask("wess.invoke.nap", "").await;
    }
    let nobody = rig.caller.send("nobody.listens", &[], "").await;
    assert!(matches!(nobody, Err(RequestErrorKind::NoResponders)));
    rig.worker.process.signal(Signal::CONT);
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    assert!(rig.worker.metric("wess_worker_spilled_calls_total").await > 40);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_burst_over_two_workers_with_slow_guests_is_answered_once_each() {
    const CALLS: usize = 2000;
    let rig = Rig::with(&["--executors", "2", "--slots", "4"], &[]).await;
    let other = Worker::start(&rig.nats, &["--executors", "1", "--slots", "8"]);
    rig.caller.store("nap", nap(10)).await;
    let mut calls = Counted::new(&rig.caller).await;
    for _ in 0..CALLS {
        calls.ask("wess.invoke.nap", "").await;
    }
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    let mut sums = [0; 3];
    for worker in [&rig.worker, &other] {
        worker.comes_to_rest().await;
        let metrics = worker.metrics().await;
        let names = [
            "wess_worker_spilled_calls_total",
            "wess_worker_queued_calls_taken_total",
            "wess_worker_queued_calls_handed_back_total",
        ];
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum += metrics.read(name);
        }
    }
    let [spilled, taken, handed_back] = sums;
    assert!(spilled > 0, "every call found a slot");
    assert_eq!(spilled + handed_back, taken);
}

#[tokio::test]
async fn after_the_server_was_killed_with_calls_in_the_queue_later_ones_are_spilled_and_answered() {
    let (mut rig, spinner) = busy_rig(&[], 2000).await;
    let lost = rig.caller.begin(add());
    rig.caller.has_queued(1).await;
    rig.nats.kill();
    // A memory stream goes with its server, and so do the replies of those who waited.
    lost.abort();
    spinner.abort();
    rig.nats.restart();
    rig.caller.is_back().await;
    assert_eq!(answers_again(&rig.caller, "add", "[2,3]").await, b"5");
    rig.worker.comes_to_rest().await;
    let spinner = rig.caller.begin(spin(1500));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let call = rig.caller.begin(add());
    rig.caller.has_queued(1).await;
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    assert_eq!(call.await.unwrap().unwrap().results, Some(vec![json!(5)]));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_spilled_call_keeps_its_form_its_headers_and_its_key() {
    let (rig, spinner) = busy_rig(&[], 1500).await;
    let headers = [(header::MSG_ID, "order-7"), (header::FUEL, "1000")];
    let raw = rig.caller.ask("wess.invoke.add", &headers, "[2,3]");
    let bare = rig.caller.raw("add", "[2,3]");
    let (raw, bare) = tokio::join!(raw, bare);
    let (raw, bare) = (raw.unwrap(), bare.unwrap());
    assert_eq!((&*raw.payload, &*bare.payload), (&b"5"[..], &b"5"[..]));
    let fact = |name| crate::rig::fact(&raw, name);
    assert_eq!(fact(header::JOB_ID), Some("order-7"));
    assert!(fact(header::FUEL_USED).is_some() && bare.headers.is_none());
    assert_eq!(rig.worker.metric("wess_worker_spilled_calls_total").await, 2);
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}
