//! The line before an executor's slots: as long as it moves fast enough, and what would wait longer waits in the queue.

use wess_harness::{NatsServer, Signal};
use wess_schemas::ErrorCode;

use crate::queued::{Counted, calls_stream};
use crate::rig::{Caller, Rig, wat};

/// Calls that come at once, of a few hundred microseconds each.
const BURST: usize = 1500;

/// A worker whose line has been seen to move.
async fn rig(nats: NatsServer, queue_ms: &str) -> Rig {
    let rig = Rig::on(nats, &["--executors", "1", "--queue-ms", queue_ms], &[]).await;
    let work = r#"(module (func (export "work") (result i32) (local $turns i32)
        (loop $again
          (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $turns) (i32.const 400000))))
        (local.get $turns)))"#;
    rig.caller.store("work", wat(work)).await;
    rig.caller.raw("work", "[]").await.unwrap();
    assert_eq!(burst(&rig, 100).await, (100, 0));
    rig
}

/// Calls that all come to the worker in one turn: how many were answered, and how many refused as overloaded.
async fn burst(rig: &Rig, calls: usize) -> (usize, usize) {
    rig.worker.process.signal(Signal::STOP);
    let mut counted = Counted::new(&rig.caller).await;
    for _ in 0..calls {
        counted.ask("wess.invoke.work", "[]").await;
    }
    // It is answered after the server has passed all of them on.
    rig.caller.send("nobody.listens", &[], "").await.unwrap_err();
    rig.worker.process.signal(Signal::CONT);
    let (answered, refused): (Vec<_>, Vec<_>) =
        counted.answered_once().await.into_iter().partition(Result::is_ok);
    for refusal in &refused {
        assert_eq!(refusal.as_ref().unwrap_err().code(), ErrorCode::Overloaded);
    }
    (answered.len(), refused.len())
}

async fn spilled(rig: &Rig) -> u64 {
    rig.worker.metric("wess_worker_spilled_calls_total").await
}

#[tokio::test]
async fn calls_that_would_wait_too_long_wait_in_the_queue_and_each_is_answered() {
    let rig = rig(NatsServer::start(), "20").await;
    assert_eq!(burst(&rig, BURST).await, (BURST, 0));
    assert!(spilled(&rig).await > 100);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_line_that_moves_fast_enough_is_left_as_it_is() {
    let rig = rig(NatsServer::start(), "120000").await;
    assert_eq!(burst(&rig, BURST).await, (BURST, 0));
    assert_eq!(spilled(&rig).await, 0);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn calls_that_would_wait_too_long_are_refused_when_the_queue_is_full() {
    let nats = NatsServer::start();
    let caller = Caller::connect(&nats).await;
    caller.jetstream().create_stream(calls_stream(1)).await.unwrap();
    let rig = rig(nats, "20").await;
    // So many as may be are on their way to it when it is found full; the rest wait here.
    let (answered, refused) = burst(&rig, BURST).await;
    assert!(answered > 0 && refused > 100, "{answered}, {refused}");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn while_the_queue_is_away_the_line_is_as_long_as_it_must_be() {
    let rig = rig(NatsServer::start(), "20").await;
    rig.caller.take_queue_away().await;
    assert_eq!(burst(&rig, BURST).await, (BURST, 0));
    assert_eq!(spilled(&rig).await, 0);
    rig.is_unharmed().await;
}
