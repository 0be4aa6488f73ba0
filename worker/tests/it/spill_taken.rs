//! What waits in the queue of calls when a worker comes: each request is answered once, by its deadline, and no guest runs
//! again that may have run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, stream, stream::StorageType};
use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_harness::{NatsServer, eventually, guest};
use wess_schemas::chain::ChainOutcome;
use wess_schemas::job::JobRecord;
use wess_schemas::subject::{CALLS_STREAM, Queue, Subjects};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Module, Outcome, Tenant, header};
use wess_service::bus::Reply;
use wess_service::queue::overdue::Overdue;
use wess_service::reply::error_reply;

use crate::queued::{Counted, WAIT, calls_stream, enqueue};
use crate::rig::{Caller, Rig, Worker, add, nap, parse, refused};
use crate::support::Running;

/// A server that knows these modules and has no worker.
async fn nobody(flags: &[&str], naps_ms: u64) -> (NatsServer, Caller) {
    let rig = Rig::with(flags, &["upper"]).await;
    rig.caller.store("nap", nap(naps_ms)).await;
    let Rig { worker, caller, nats } = rig;
    worker.stop();
    (nats, caller)
}

#[tokio::test]
async fn what_was_queued_with_no_worker_alive_is_answered_by_the_first_that_starts() {
    let (nats, caller) = nobody(&[], 10).await;
    let mut calls = Counted::new(&caller).await;
    calls.enqueue("wess.invoke", &[], add().to_string()).await;
    calls.enqueue("wess.invoke.upper", &[], "hello").await;
    let chain = json!({"steps": ["upper", "upper"], "input": "hello"});
    calls.enqueue("wess.chain", &[], chain.to_string()).await;
    calls
        .enqueue("wess.store", &[(header::MODULE, "new")], guest("in_place"))
        .await;
    calls.enqueue("wess.modules.list", &[], "{}").await;
    calls.enqueue("wess.modules.get.upper", &[], "").await;
    calls.enqueue("wess.invoke.nobody", &[], "").await;
    calls.enqueue("wess.nothing", &[], "").await;
    assert_eq!(caller.queued().await, 8);
    let worker = Worker::start(&nats, &[]);
    let answers = calls.answered_once().await;
    let [invoke, raw, chain, store, list, get, missing, unknown]: [_; 8] = answers.try_into().unwrap();
    let outcome: Outcome = parse(&invoke.unwrap());
    assert_eq!(
        (outcome.results, outcome.worker.to_string()),
        (Some(vec![json!(5)]), worker.id())
    );
    assert!(outcome.stats.queue_us > 1000, "the time in the queue counts");
    assert_eq!(raw.unwrap().payload, "HELLO");
    let chain: ChainOutcome = parse(&chain.unwrap());
    assert_eq!((chain.output.as_deref(), chain.steps.len()), (Some("HELLO"), 2));
    assert_eq!(parse::<Module>(&store.unwrap()).name.as_str(), "new");
    assert!(
        parse::<Value>(&list.unwrap())["modules"]
            .as_array()
            .unwrap()
            .len()
            >= 3
    );
    assert_eq!(parse::<Module>(&get.unwrap()).name.as_str(), "upper");
    refused(ErrorCode::ModuleNotFound, missing);
    refused(ErrorCode::InvalidRequest, unknown);
    worker.shows("wess_worker_queued_calls_taken_total", 8).await;
    worker.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_submitted_through_the_queue_has_the_id_of_its_message_unless_it_was_given_one() {
    let (nats, caller) = nobody(&[], 10).await;
    let mut calls = Counted::new(&caller).await;
    let job = |id: Option<&str>| json!({"job_id": id, "invoke": add()}).to_string();
    calls.enqueue("wess.jobs.submit", &[], job(None)).await;
    calls.enqueue("wess.jobs.submit", &[], job(Some("order-7"))).await;
    calls
        .enqueue("wess.jobs.submit", &[(header::MSG_ID, "order-8")], job(None))
        .await;
    let stream = caller.jetstream().get_stream(CALLS_STREAM).await.unwrap();
    let first = stream.cached_info().state.first_sequence;
    let first = stream.get_raw_message(first).await.unwrap();
    let (.., id) = Subjects::default().parse_queued(&first.subject).unwrap();
    let _worker = Worker::start(&nats, &[]);
    let answers = calls.answered_once().await.into_iter();
    let ids: Vec<_> = answers
        .map(|answer| parse::<JobRecord>(&answer.unwrap()).job_id.to_string())
        .collect();
    assert_eq!(ids, [id.as_str(), "order-7", "order-8"]);
}

#[tokio::test]
async fn large_outputs_of_queued_calls_are_stored_as_those_of_others_are() {
    let rig = Rig::start(&["cat"]).await;
    let mut calls = Counted::new(&rig.caller).await;
    let input = vec![b'a'; 600 << 10];
    calls.enqueue("wess.invoke.cat", &[], input.clone()).await;
    let answers = calls.answered_once().await;
    let reply = answers.into_iter().next().unwrap().unwrap();
    let stored = crate::rig::fact(&reply, header::OUTPUT_REF).expect("the output is stored");
    let stored: Value = serde_json::from_str(stored).unwrap();
    assert_eq!(
        (reply.payload.len(), stored["size"].as_u64()),
        (0, Some(600 << 10))
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_overdue_call_is_told_so_and_counted_and_not_run() {
    let (nats, caller) = nobody(&[], 10).await;
    let mut calls = Counted::new(&caller).await;
    for _ in 0..3 {
        calls
            .enqueue_for(
                Duration::ZERO,
                "wess.invoke.upper",
                &[(header::MSG_ID, "order-7")],
                "a",
            )
            .await;
    }
    let worker = Worker::start(&nats, &[]);
    for answer in calls.answered_once().await {
        let error = refused(ErrorCode::Expired, answer);
        assert!(error.error.retryable && !error.error.guest_ran);
        assert_eq!(error.job_id, Some("order-7".parse().unwrap()));
    }
    let metrics = worker.metrics().await;
    assert_eq!(metrics.read("wess_worker_calls_expired_in_queue_total"), 3);
    assert_eq!(metrics.read("wess_worker_calls_total{code=\"expired\"}"), 3);
    assert_eq!(metrics.read("wess_worker_calls_total{code=\"ok\"}"), 0);
}

#[tokio::test]
async fn an_overdue_call_is_told_so_once_by_its_worker_or_by_who_queued_it() {
    let (nats, caller) = nobody(&[], 10).await;
    let mut calls = Counted::new(&caller).await;
    // Enough that a worker comes while they are taken out.
    let overdue = calls.enqueue_overdue(6000, "wess.invoke.upper").await;
    let worker = tokio::task::spawn_blocking(move || (Worker::start(&nats, &[]), nats));
    let taken = overdue.take_out(&caller.jetstream(), &Subjects::default()).await;
    for reply in taken {
        let Reply { headers, payload } = error_reply(&wess_service::queue::calls::overdue());
        let client = &caller.client;
        client
            .publish_with_headers(reply, headers, payload)
            .await
            .unwrap();
    }
    for answer in calls.answered_once().await {
        refused(ErrorCode::Expired, answer);
    }
    worker.await.unwrap();
}

#[tokio::test]
async fn of_several_who_take_a_call_out_of_the_queue_one_is_to_tell_its_caller() {
    for storage in [StorageType::Memory, StorageType::File] {
        let nats = NatsServer::start();
        let caller = Caller::connect(&nats).await;
        let config = stream::Config {
            storage,
            ..calls_stream(10)
        };
        let jetstream = caller.jetstream();
        jetstream.create_stream(config).await.unwrap();
        for _ in 0..4 {
            enqueue(&caller, WAIT, "wess.invoke.upper", &[], "a", "reply").await;
        }
        // In the middle, the first, the last, and the last that is left: each is missed in a way of its own.
        for number in [2, 1, 4, 3] {
            let is_to_tell = async || Overdue::is_to_tell(&jetstream, &Subjects::default(), number).await;
            let told = [is_to_tell().await, is_to_tell().await, is_to_tell().await];
            assert_eq!(told, [true, false, false], "{storage:?}, {number}");
        }
    }
}

/// How far ahead the clock of a worker is.
static AHEAD_MS: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_clock_that_jumps_ahead_makes_calls_overdue_and_nothing_worse() {
    let nats = NatsServer::start();
    let clock = || {
        let ahead = Duration::from_millis(AHEAD_MS.load(Ordering::SeqCst));
        Timestamp::from(Timestamp::now().instant() + ahead)
    };
    let running = Running::start_with(&nats, |config| config.clock = clock).await;
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    let ask = async || {
        let mut calls = Counted::new(&caller).await;
        calls.enqueue("wess.invoke.add", &[], "[2,3]").await;
        calls.answered_once().await.into_iter().next().unwrap()
    };
    assert_eq!(ask().await.unwrap().payload, "5");
    AHEAD_MS.store(3_600_000, Ordering::SeqCst);
    refused(ErrorCode::Expired, ask().await);
    assert_eq!(caller.raw("add", "[2,3]").await.unwrap().payload, "5");
    AHEAD_MS.store(0, Ordering::SeqCst);
    assert_eq!(ask().await.unwrap().payload, "5");
    drop(running);
}

#[tokio::test]
async fn a_call_whose_worker_was_killed_while_its_guest_ran_runs_again_only_with_a_key() {
    let (nats, caller) = nobody(&["--ack-wait-s", "1"], 2500).await;
    let mut calls = Counted::new(&caller).await;
    calls.enqueue("wess.invoke.nap", &[], "").await;
    calls
        .enqueue("wess.invoke.nap", &[(header::MSG_ID, "order-7")], "")
        .await;
    let chain = json!({"steps": ["nap"]}).to_string();
    calls.enqueue("wess.chain", &[], chain).await;
    let mut killed = Worker::start(&nats, &[]);
    killed.shows("wess_worker_slots_busy", 3).await;
    killed.process.signal(wess_harness::Signal::KILL);
    killed.process.wait_exit();
    let worker = Worker::start(&nats, &[]);
    let answers = calls.answered_once().await;
    let [without, with, chain]: [_; 3] = answers.try_into().unwrap();
    for lost in [without, chain] {
        assert!(refused(ErrorCode::Internal, lost).error.guest_ran);
    }
    let with = with.unwrap();
    assert_eq!(crate::rig::fact(&with, header::JOB_ID), Some("order-7"));
    let ran = worker.metric("wess_worker_calls_total{code=\"ok\"}").await;
    assert_eq!(ran, 1, "only the call with a key ran again");
}

#[tokio::test]
async fn a_guest_that_outlives_the_ack_wait_runs_once() {
    let (nats, caller) = nobody(&["--ack-wait-s", "1"], 3500).await;
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let mut calls = Counted::new(&caller).await;
    for _ in 0..4 {
        calls.enqueue("wess.invoke.nap", &[], "").await;
    }
    for answer in calls.answered_once().await {
        answer.unwrap();
    }
    let mut taken = 0;
    for worker in workers {
        taken += worker.metric("wess_worker_queued_calls_taken_total").await;
    }
    assert_eq!(taken, 4);
}

#[tokio::test]
async fn a_forged_reply_subject_in_the_queue_is_neither_run_nor_answered() {
    const FORGED: &str = "wess.logs.forged";
    let rig = Rig::start(&["upper"]).await;
    let mut forged = rig.caller.client.subscribe(FORGED).await.unwrap();
    enqueue(&rig.caller, WAIT, "wess.invoke.upper", &[], "a", FORGED).await;
    enqueue(&rig.caller, WAIT, "wess.modules.list", &[], "", FORGED).await;
    enqueue(&rig.caller, WAIT, "wess.nothing", &[], "", FORGED).await;
    enqueue(&rig.caller, Duration::ZERO, "wess.invoke.upper", &[], "a", FORGED).await;
    rig.caller.has_queued(0).await;
    let metrics = rig.worker.metrics().await;
    assert_eq!(metrics.read("wess_worker_forged_control_replies_total"), 4);
    assert_eq!(metrics.read("wess_worker_calls_total{code=\"ok\"}"), 0);
    rig.caller.client.publish(FORGED, "mine".into()).await.unwrap();
    assert_eq!(forged.next().await.unwrap().payload, "mine");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_is_no_call_is_dropped_from_the_queue_and_those_behind_it_are_answered() {
    let rig = Rig::start(&["upper"]).await;
    let subject = Subjects::default().queued(Queue::Calls, &Tenant::default(), &JobId::generate());
    let jetstream = jetstream::new(rig.caller.client.clone());
    for subject in [subject, "wess.queue.calls.no.such.thing".into()] {
        jetstream
            .publish(subject, "garbage".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let mut calls = Counted::new(&rig.caller).await;
    calls.enqueue("wess.invoke.upper", &[], "hello").await;
    let answers = calls.answered_once().await;
    assert_eq!(answers[0].as_ref().unwrap().payload, "HELLO");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_worker_that_stops_before_it_ran_a_call_puts_it_back() {
    let mut rig = Rig::with(&["--executors", "1", "--slots", "1"], &[]).await;
    rig.caller.store("nap", nap(60_000)).await;
    let long = json!({"module": "nap", "limits": {"timeout_ms": 60_000}});
    let running = rig.caller.begin(long);
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let mut calls = Counted::new(&rig.caller).await;
    calls.ask("wess.invoke.add", "[2,3]").await;
    // Taken once a second though no slot is free, so that it waits with the worker.
    rig.worker.shows("wess_worker_queued_calls_taken_total", 1).await;
    rig.worker.shows("wess_worker_waiting", 1).await;
    rig.worker.process.signal(wess_harness::Signal::TERM);
    eventually("the drain to begin", async || {
        (rig.worker.page("/readyz").await.0 == 503).then_some(())
    })
    .await;
    rig.worker.process.signal(wess_harness::Signal::INT);
    let cut: ErrorBody = refused(ErrorCode::Internal, running.await.unwrap());
    assert!(cut.error.guest_ran);
    assert_eq!(rig.worker.process.wait_exit().code(), Some(75));
    assert_eq!(rig.caller.queued().await, 1);
    let _other = Worker::start(&rig.nats, &[]);
    assert_eq!(calls.answered_once().await[0].as_ref().unwrap().payload, "5");
}
