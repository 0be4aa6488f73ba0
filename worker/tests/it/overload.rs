//! More work than a worker has room for: short calls come first, and what finds no room is told so at once.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use wess_harness::{DEADLINE, NatsServer};
use wess_schemas::{ErrorCode, header};

use crate::rig::{Answered, Caller, Rig, add, read, refused, spin, wat};

#[tokio::test]
async fn short_calls_are_answered_promptly_beside_four_guests_that_spin_for_seconds() {
    let rig = Rig::start(&["spin", "upper"]).await;
    let spinners: Vec<_> = (0..4).map(|_| rig.caller.begin(spin(3000))).collect();
    rig.worker.shows("wess_worker_slots_busy", 4).await;
    let calls = (0..200).map(async |_| {
        let started = Instant::now();
        assert_eq!(rig.caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
        started.elapsed()
    });
    let mut took: Vec<Duration> = futures_util::stream::iter(calls)
        .buffer_unordered(10)
        .collect()
        .await;
    assert!(
        spinners.iter().all(|spinner| !spinner.is_finished()),
        "a spinner ended before the last short call"
    );
    took.sort();
    assert!(took[197] < Duration::from_secs(1), "p99 is {:?}", took[197]);
    for spinner in spinners {
        refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_call_whose_wait_ends_before_a_slot_comes_free_expires_without_having_run() {
    let rig = Rig::with(&["--executors", "1", "--slots", "1"], &["spin"]).await;
    let spinner = rig.caller.begin(spin(3000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let started = Instant::now();
    let in_body = rig
        .caller
        .invoke(json!({"module": "add", "args": [2, 3], "wait_ms": 100}));
    let in_header = rig
        .caller
        .ask("wess.invoke.add", &[(header::WAIT_MS, "100")], "[2,3]");
    let in_chain = rig
        .caller
        .chain(json!({"steps": ["add"], "input": [2, 3], "wait_ms": 100}));
    let (in_body, in_header, in_chain) = tokio::join!(in_body, in_header, in_chain);
    assert!(started.elapsed() >= Duration::from_millis(100) && !spinner.is_finished());
    for error in [
        refused(ErrorCode::Expired, in_body),
        refused(ErrorCode::Expired, in_header),
        refused(ErrorCode::Expired, in_chain),
    ] {
        assert!(error.error.retryable && !error.error.guest_ran);
    }
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn waiting_calls_are_bounded_by_their_bytes_too() {
    let nats = NatsServer::builder().config("max_payload: 16777216").start();
    let rig = Rig::on(
        nats,
        &["--executors", "1", "--slots", "1", "--queue-mb", "16"],
        &["spin", "cat"],
    )
    .await;
    let spinner = rig.caller.begin(spin(3000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let large = json!({"module": "cat", "input": "a".repeat(9 << 20), "wait_ms": 100});
    let (first, second) = (rig.caller.begin(large.clone()), rig.caller.begin(large));
    let codes = [first.await.unwrap(), second.await.unwrap()].map(|answered| answered.unwrap_err().code());
    assert!(
        codes.contains(&ErrorCode::Overloaded) && codes.contains(&ErrorCode::Expired),
        "{codes:?}"
    );
    assert!(!spinner.is_finished());
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn ten_thousand_concurrent_calls_get_one_reply_each() {
    const CALLS: usize = 10_000;
    let rig = Rig::with(&["--slots", "4", "--queue", "1000"], &["upper"]).await;
    let client = &rig.caller.client;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(format!("{inbox}.*")).await.unwrap();
    for call in 0..CALLS {
        client
            .publish_with_reply("wess.invoke.upper", format!("{inbox}.{call}"), "hello".into())
            .await
            .unwrap();
    }
    let mut answered = vec![0; CALLS];
    let mut succeeded = 0;
    for _ in 0..CALLS {
        let reply = replies.next().await.unwrap();
        let call: usize = reply.subject.rsplit('.').next().unwrap().parse().unwrap();
        answered[call] += 1;
        match read(reply) {
            Ok(reply) => {
                assert_eq!(reply.payload, "HELLO");
                succeeded += 1;
            }
            Err(error) => assert_eq!(error.code(), ErrorCode::Overloaded, "{error}"),
        }
    }
    assert!(answered.iter().all(|count| *count == 1));
    assert!(succeeded > 0, "every call was refused");
    rig.is_unharmed().await;
    replies.unsubscribe().await.unwrap();
    assert!(replies.next().await.is_none(), "a call was answered twice");
}

#[tokio::test]
async fn many_guests_at_their_limits_are_refused_growth_and_the_worker_lives() {
    let rig = Rig::with(&["--memory-mb", "64"], &[]).await;
    let hold = r#"(module (memory 1)
        (func (export "hold")
          (if (i32.lt_s (memory.grow (i32.const 767)) (i32.const 0)) (then (unreachable)))
          (loop $again (br $again))))"#;
    rig.caller.store("hold", wat(hold)).await;
    let request = json!({"module": "hold", "limits": {"timeout_ms": 1000}});
    let first = rig.caller.begin(request.clone());
    rig.worker.shows("wess_worker_guest_memory_bytes", 48 << 20).await;
    let others: Vec<Answered<_>> = join_all((0..5).map(|_| rig.caller.invoke(request.clone()))).await;
    assert!(!first.is_finished());
    for other in others {
        let error = refused(ErrorCode::MemoryExceeded, other);
        assert_eq!(error.error.detail["reason"], "worker_memory_budget");
    }
    refused(ErrorCode::DeadlineExceeded, first.await.unwrap());
    rig.is_unharmed().await;
    assert_eq!(
        rig.worker.metric("wess_worker_guest_memory_limit_bytes").await,
        64 << 20
    );
}

#[tokio::test]
async fn a_guest_that_finds_no_memory_to_begin_with_is_overloaded_and_has_not_run() {
    let rig = Rig::with(&["--memory-mb", "64"], &[]).await;
    rig.caller
        .store(
            "large",
            wat(r#"(module (memory 768) (func (export "run") (loop $again (br $again))))"#),
        )
        .await;
    let request = json!({"module": "large", "limits": {"timeout_ms": 1000}});
    let first = rig.caller.begin(request.clone());
    rig.worker.shows("wess_worker_guest_memory_bytes", 48 << 20).await;
    refused(ErrorCode::Overloaded, rig.caller.invoke(request).await);
    refused(ErrorCode::DeadlineExceeded, first.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_module_that_takes_long_to_compile_holds_up_nobody_but_those_who_wait_for_it() {
    let rig = Rig::start(&[]).await;
    let long = "(i32.add (i32.const 1))".repeat(100_000);
    let text = format!("(module (func (export \"f\") (result i32) (i32.const 0) {long}))");
    rig.caller.store("long", wat(&text)).await;
    // Counting fuel takes other code, which nobody has compiled yet.
    let metered = json!({"module": "long", "limits": {"fuel": 1_000_000}});
    let patient = rig.caller.begin(metered.clone());
    rig.worker.shows("wess_worker_waiting", 1).await;
    let mut hasty = metered;
    hasty["wait_ms"] = 10.into();
    assert!(
        !refused(ErrorCode::Expired, rig.caller.invoke(hasty).await)
            .error
            .guest_ran
    );
    rig.caller.invoke(add()).await.unwrap();
    assert!(!patient.is_finished(), "compiling took no time");
    let outcome = patient.await.unwrap().unwrap();
    assert_eq!(
        (outcome.results, outcome.stats.cold),
        (Some(vec![json!(100_000)]), true)
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_burst_beyond_what_a_subscription_holds_gets_one_reply_each() {
    const CALLERS: usize = 8;
    const CALLS: usize = 10_000;
    let rig = Rig::with(&["--executors", "1", "--queue", "1000"], &["upper"]).await;
    rig.caller.raw("upper", "hello").await.unwrap();
    let callers = join_all((0..CALLERS).map(|_| Caller::connect(&rig.nats))).await;
    let replies = join_all(callers.iter().map(async |caller| {
        let inbox = caller.client.new_inbox();
        let replies = caller.client.subscribe(format!("{inbox}.*")).await.unwrap();
        for call in 0..CALLS {
            let reply = format!("{inbox}.{call}");
            caller
                .client
                .publish_with_reply("wess.invoke.upper", reply, "hello".into())
                .await
                .unwrap();
        }
        replies
    }))
    .await;
    let succeeded = join_all(replies.into_iter().map(async |mut replies| {
        let (mut answered, mut succeeded) = (vec![0; CALLS], 0);
        for _ in 0..CALLS {
            let reply = tokio::time::timeout(DEADLINE, replies.next()).await;
            let reply = reply.expect("a call was dropped").unwrap();
            let call: usize = reply.subject.rsplit('.').next().unwrap().parse().unwrap();
            answered[call] += 1;
            match read(reply) {
                Ok(_) => succeeded += 1,
                Err(error) => assert_eq!(error.code(), ErrorCode::Overloaded, "{error}"),
            }
        }
        assert!(answered.iter().all(|count| *count == 1));
        succeeded
    }))
    .await;
    assert!(succeeded.iter().sum::<usize>() > 0, "every call was refused");
    rig.is_unharmed().await;
}
