//! A worker's life as others see it: its flags, its beats, its drain and its end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::{RequestErrorKind, Subscriber};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use wess_harness::{NatsServer, Process, Signal, eventually};
use wess_schemas::ErrorCode;
use wess_schemas::beat::{BEAT_INTERVAL, WorkerBeat};

use crate::faults::answers_again;
use crate::rig::{Caller, Rig, Worker, add, command, nap, parse, refused, spin, wat};
use crate::storage_faults::MUTE_BLOBS;

/// The next beat of which something is so.
async fn beat(beats: &mut Subscriber, what: &str, is_so: impl Fn(&WorkerBeat) -> bool) -> WorkerBeat {
    eventually(what, async || {
        let beat: WorkerBeat = parse(&beats.next().await.unwrap());
        is_so(&beat).then_some(beat)
    })
    .await
}

async fn beats(caller: &Caller) -> Subscriber {
    caller.client.subscribe("wess.worker.beat").await.unwrap()
}

#[tokio::test]
async fn a_worker_beats_with_its_slots_and_its_revision() {
    let rig = Rig::with(&["--executors", "2", "--slots", "3", "--queue", "5"], &["spin"]).await;
    let mut beats = beats(&rig.caller).await;
    let idle = beat(&mut beats, "a beat", |_| true).await;
    assert_eq!(
        (
            idle.worker.to_string(),
            idle.slots_total,
            idle.slots_busy,
            idle.waiting
        ),
        (rig.worker.id(), 6, 0, 0)
    );
    assert!(idle.catalog_revision > 0 && !idle.draining);
    assert_eq!(rig.worker.metric("wess_worker_slots").await, 6);
    assert_eq!(rig.worker.metric("wess_worker_fleet_workers").await, 1);
    let spinner = rig.caller.begin(spin(2000));
    beat(&mut beats, "a busy beat", |beat| beat.slots_busy == 1).await;
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    beat(&mut beats, "an idle beat", |beat| beat.slots_busy == 0).await;
    let stored = rig
        .caller
        .store("other", wat("(module (func (export \"f\")))"))
        .await;
    assert_eq!(stored.propagated, Some(true));
    beat(&mut beats, "a new revision", |beat| {
        beat.catalog_revision > idle.catalog_revision
    })
    .await;
}

#[tokio::test]
async fn an_idle_worker_beats_about_four_times_a_second() {
    const BEATS: u32 = 8;
    let rig = Rig::start(&[]).await;
    let mut beats = beats(&rig.caller).await;
    beats.next().await.unwrap();
    let started = Instant::now();
    for _ in 0..BEATS {
        let beat: WorkerBeat = parse(&beats.next().await.unwrap());
        assert_eq!(beat.worker.to_string(), rig.worker.id());
    }
    let took = started.elapsed();
    let expected = BEATS * Duration::from_millis(250);
    assert!(
        (expected * 3 / 5..expected * 3).contains(&took),
        "{BEATS} beats took {took:?}"
    );
}

#[tokio::test]
async fn a_store_is_spread_by_a_beat_at_once_and_found_through_every_worker() {
    const STORES: u32 = 8;
    let nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    let mut took = Duration::ZERO;
    for number in 0..STORES {
        let text = format!("(module (func (export \"f\") (result i32) (i32.const {number})))");
        let started = Instant::now();
        let stored = caller.store("number", wat(&text)).await;
        took += started.elapsed();
        assert_eq!((stored.version, stored.propagated), (number + 1, Some(true)));
        let mut answered = BTreeSet::new();
        while answered.len() < workers.len() {
            let outcome = caller.invoke(json!({"module": "number"})).await.unwrap();
            assert_eq!(outcome.results, Some(vec![json!(number)]));
            answered.insert(outcome.worker.to_string());
        }
    }
    assert!(
        took < STORES * BEAT_INTERVAL / 2,
        "the stores waited for beats that come by the clock: {took:?}"
    );
}

#[tokio::test]
async fn a_stopping_worker_finishes_what_it_runs_takes_nothing_new_and_exits_well() {
    let mut rig = Rig::start(&["spin"]).await;
    rig.caller.store("nap", nap(1500)).await;
    let mut beats = beats(&rig.caller).await;
    let sleeper = rig.caller.begin(json!({"module": "nap"}));
    let spinner = rig.caller.begin(spin(1500));
    let chain = json!({"steps": ["nap", "nap"]});
    let chain = rig.caller.chain(chain);
    let stopped = async {
        rig.worker.shows("wess_worker_slots_busy", 3).await;
        rig.worker.process.signal(Signal::TERM);
        let draining = beat(&mut beats, "a draining beat", |beat| beat.draining).await;
        assert_eq!(
            (draining.slots_busy, rig.worker.page("/readyz").await.0),
            (3, 503)
        );
        let refused = async || {
            let answered = rig.caller.send("wess.invoke.add", &[], "[2,3]").await;
            matches!(answered, Err(RequestErrorKind::NoResponders)).then_some(())
        };
        eventually("nobody to take new calls", refused).await;
        assert!(
            !sleeper.is_finished() && !spinner.is_finished(),
            "the drain waits for them"
        );
    };
    let (chain, ()) = tokio::join!(chain, stopped);
    assert_eq!(chain.unwrap().steps.len(), 2);
    assert_eq!(sleeper.await.unwrap().unwrap().exit_code, Some(0));
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    assert_eq!(rig.worker.process.wait_exit().code(), Some(0));
}

#[tokio::test]
async fn a_stopping_worker_answers_every_call_that_waits_with_it() {
    let mut rig = Rig::with(&["--executors", "1", "--slots", "1"], &[]).await;
    rig.caller.take_queue_away().await;
    rig.caller.store("nap", nap(300)).await;
    let calls: Vec<_> = (0..3)
        .map(|_| rig.caller.begin(json!({"module": "nap"})))
        .collect();
    let queued: Vec<_> = (0..20).map(|_| rig.caller.begin(add())).collect();
    rig.worker.shows("wess_worker_waiting", 22).await;
    assert_eq!(rig.worker.process.stop().code(), Some(0));
    for call in calls.into_iter().chain(queued) {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn chains_that_were_delivered_before_a_stop_are_finished() {
    let mut rig = Rig::start(&["in_place"]).await;
    rig.worker.process.signal(Signal::STOP);
    let chain = json!({"steps": ["in-place", "in-place"], "input": "hello"});
    let chains = join_all((0..10).map(|_| rig.caller.chain(chain.clone())));
    let stop = async {
        // The server answers in order: with this it has delivered the chains too.
        let nobody = rig.caller.send("nobody.listens", &[], "").await;
        assert!(matches!(nobody, Err(RequestErrorKind::NoResponders)));
        rig.worker.process.signal(Signal::TERM);
        rig.worker.process.signal(Signal::CONT);
    };
    let (answered, ()) = tokio::join!(chains, stop);
    for outcome in answered {
        assert_eq!(outcome.unwrap().steps.len(), 2);
    }
    assert_eq!(rig.worker.process.wait_exit().code(), Some(0));
}

#[tokio::test]
async fn a_worker_whose_server_is_away_stops_without_waiting_for_its_grace() {
    let mut rig = Rig::start(&[]).await;
    rig.nats.kill();
    eventually("the worker to miss its server", async || {
        (rig.worker.page("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(rig.worker.process.stop().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_cuts_the_grace_and_every_caller_is_told() {
    let mut rig = Rig::with(&["--executors", "1", "--slots", "2"], &["spin"]).await;
    rig.caller.store("nap", nap(60_000)).await;
    let mut beats = beats(&rig.caller).await;
    let limits = json!({"timeout_ms": 60_000});
    let running = [
        rig.caller.begin(spin(60_000)),
        rig.caller.begin(json!({"module": "nap", "limits": limits})),
    ];
    rig.worker.shows("wess_worker_slots_busy", 2).await;
    rig.caller.take_queue_away().await;
    let waiting = rig.caller.begin(add());
    rig.worker.shows("wess_worker_waiting", 1).await;
    rig.worker.process.signal(Signal::TERM);
    beat(&mut beats, "a draining beat", |beat| beat.draining).await;
    rig.worker.process.signal(Signal::INT);
    for call in running {
        assert!(refused(ErrorCode::Internal, call.await.unwrap()).error.guest_ran);
    }
    let waiting = refused(ErrorCode::Unavailable, waiting.await.unwrap());
    assert!(waiting.error.retryable && !waiting.error.guest_ran);
    assert_eq!(rig.worker.process.wait_exit().code(), Some(75));
}

#[tokio::test]
async fn a_second_signal_tells_callers_of_chains_and_stores_too() {
    let mut rig = Rig::with(&["--executors", "1", "--slots", "2"], &[]).await;
    rig.caller.store("nap", nap(60_000)).await;
    // The store asks the object store in vain, so it is under way for as long as this takes.
    rig.nats.restart_with(MUTE_BLOBS);
    rig.caller.is_back().await;
    answers_again(&rig.caller, "add", "[2,3]").await;
    let mut beats = beats(&rig.caller).await;
    let caller = rig.caller.clone();
    let step = json!({"module": "nap", "limits": {"timeout_ms": 60_000}});
    let chain = tokio_util::task::TaskTracker::new()
        .spawn(async move { caller.chain(json!({"steps": [step, "add"]})).await });
    let caller = rig.caller.clone();
    let store = tokio_util::task::TaskTracker::new().spawn(async move {
        caller
            .try_store("new", wat("(module (func (export \"f\")))"))
            .await
    });
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    eventually("the store to be under way", async || {
        rig.nats.log().contains("Violation").then_some(())
    })
    .await;
    rig.worker.process.signal(Signal::TERM);
    beat(&mut beats, "a draining beat", |beat| beat.draining).await;
    assert!(
        !chain.is_finished() && !store.is_finished(),
        "the drain waits for them"
    );
    rig.worker.process.signal(Signal::INT);
    let chain = refused(ErrorCode::Internal, chain.await.unwrap());
    assert!(chain.error.guest_ran, "{chain:?}");
    let store = store.await.unwrap().unwrap_err();
    assert!(
        [ErrorCode::Unavailable, ErrorCode::Internal].contains(&store.code()),
        "{store}"
    );
    assert_eq!(rig.worker.process.wait_exit().code(), Some(75));
}

#[tokio::test]
async fn grace_has_an_end() {
    let mut rig = Rig::with(&["--grace-s", "1"], &["spin"]).await;
    let spinner = rig.caller.begin(spin(60_000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    assert_eq!(rig.worker.process.stop().code(), Some(75));
    assert!(
        refused(ErrorCode::Internal, spinner.await.unwrap())
            .error
            .guest_ran
    );
}

#[tokio::test]
async fn every_bad_flag_is_named_and_the_exit_code_is_64() {
    let nats = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let flags = [
        "--executors",
        "0",
        "--slots",
        "5000",
        "--queue",
        "0",
        "--queue-ms",
        "0",
        "--queue-mb",
        "1",
        "--job-weight",
        "0",
        "--call-weight",
        "101",
        "--memory-mb",
        "0",
        "--max-guest-memory-mb",
        "513",
        "--max-timeout-ms",
        "0",
        "--grace-s",
        "9999",
    ];
    let mut process = Process::spawn(&mut command(&nats, data.path(), &flags));
    assert_eq!(process.wait_exit().code(), Some(64));
    for flag in flags.iter().step_by(2) {
        assert!(
            process.stderr().contains(flag),
            "{flag} is not named in {}",
            process.stderr()
        );
    }
    for (flags, named) in [
        (&["--colour"][..], "--colour"),
        (&["--slots", "many"], "many"),
        (&["--disk-mb", "0"], "--disk-mb"),
        (&["--prefix", "a.b"], "--prefix"),
        (&["--log", "a=b=c"], "--log"),
    ] {
        let mut process = Process::spawn(&mut command(&nats, data.path(), flags));
        assert_eq!(process.wait_exit().code(), Some(64), "{flags:?}");
        assert!(
            process.stderr().contains(named),
            "{named} is not named in {}",
            process.stderr()
        );
    }
}

#[tokio::test]
async fn an_admin_port_in_use_and_a_folder_that_cannot_be_are_named() {
    let nats = NatsServer::start();
    let first = Worker::start(&nats, &[]);
    let taken = first.process.value("admin").replace("http://", "");
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(&mut command(&nats, data.path(), &["--admin", &taken]));
    assert_eq!(process.wait_exit().code(), Some(64));
    assert!(process.stderr().contains(&taken), "{}", process.stderr());
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut process = Process::spawn(&mut command(&nats, &file.path().join("data"), &[]));
    assert_eq!(process.wait_exit().code(), Some(64));
    assert!(
        process.stderr().contains(file.path().to_str().unwrap()),
        "{}",
        process.stderr()
    );
}

#[tokio::test]
async fn without_a_server_the_exit_code_is_69_and_the_server_is_named() {
    let mut nats = NatsServer::start();
    nats.kill();
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(&mut command(&nats, data.path(), &[]));
    assert_eq!(process.wait_exit().code(), Some(69));
    assert!(
        process.stderr().contains(&nats.port().to_string()),
        "{}",
        process.stderr()
    );
}
