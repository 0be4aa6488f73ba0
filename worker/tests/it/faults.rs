//! A worker or the nats-server goes away and comes back. Callers are told, the fleet goes on, and nothing that was stored
//! is lost.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use wess_harness::{NatsServer, Signal, eventually, guest};
use wess_schemas::ErrorCode;

use crate::rig::{Caller, Rig, Worker, add, get, nap, parse, spin};

/// How long one attempt may wait for a reply that a lost connection took with it.
pub const ATTEMPT: Duration = Duration::from_secs(1);
/// Calls that a worker has answered well.
const ANSWERED: &str = "wess_worker_calls_total{code=\"ok\"}";

/// Calls until it is answered again, as a caller would who knows that something was away.
pub async fn answers_again(caller: &Caller, target: &str, input: &'static str) -> Vec<u8> {
    eventually(&format!("{target} to be answered"), async || {
        let answered =
            tokio::time::timeout(ATTEMPT, caller.send(&format!("wess.invoke.{target}"), &[], input)).await;
        let reply = crate::rig::read(answered.ok()?.ok()?);
        reply.ok().map(|reply| reply.payload.to_vec())
    })
    .await
}

/// The names of the connections that a server with monitoring has.
async fn connections(nats: &NatsServer) -> Vec<String> {
    let folder = nats.store().parent().unwrap().to_owned();
    let ports = std::fs::read(folder.join(format!("nats-server_{}.ports", nats.pid()))).unwrap();
    let ports: Value = serde_json::from_slice(&ports).unwrap();
    let (status, page) = get(ports["monitoring"][0].as_str().unwrap(), "/connz").await;
    assert_eq!(status, 200, "{page}");
    let page: Value = serde_json::from_str(&page).unwrap();
    let connections = page["connections"].as_array().unwrap().iter();
    connections
        .map(|connection| connection["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_worker_killed_during_a_call_takes_no_other_call_with_it() {
    let nats = NatsServer::builder().config("http: \"127.0.0.1:-1\"").start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add", "spin"]).await;
    let spinner = caller.begin(spin(60_000));
    let lost = eventually("a worker to run the guest", async || {
        let busy = [
            workers[0].metric("wess_worker_slots_busy").await,
            workers[1].metric("wess_worker_slots_busy").await,
        ];
        busy.iter().position(|busy| *busy == 1)
    })
    .await;
    workers[lost].process.signal(Signal::KILL);
    // Until the server has seen its connections close, calls are still given to the dead.
    let gone = workers[lost].id();
    eventually("the server to see its connections close", async || {
        (!connections(&nats).await.iter().any(|name| name.contains(&gone))).then_some(())
    })
    .await;
    for _ in 0..50 {
        let answered = tokio::time::timeout(ATTEMPT, caller.invoke(add())).await;
        assert_eq!(
            answered.expect("a call was lost").unwrap().worker.to_string(),
            workers[1 - lost].id()
        );
    }
    assert!(!spinner.is_finished(), "nobody can answer for the dead");
    spinner.abort();
    let third = Worker::start(&nats, &[]);
    let answers =
        async || (caller.invoke(add()).await.unwrap().worker.to_string() == third.id()).then_some(());
    eventually("the new worker to take its part", answers).await;
}

#[tokio::test]
async fn a_frozen_worker_holds_up_its_own_calls_alone_and_answers_them_when_it_thaws() {
    let nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    workers[0].process.signal(Signal::STOP);
    let calls: Vec<_> = (0..50).map(|_| caller.begin(add())).collect();
    let answered = async || {
        let finished = calls.iter().filter(|call| call.is_finished()).count();
        (finished as u64 == workers[1].metric("wess_worker_calls_total{code=\"ok\"}").await && finished > 0)
            .then_some(finished)
    };
    let finished = eventually("the other worker to answer its part", answered).await;
    assert!(finished < calls.len(), "the frozen worker was given nothing");
    workers[0].process.signal(Signal::CONT);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().results, Some(vec![json!(5)]));
    }
}

#[tokio::test]
async fn a_call_in_a_queue_of_nobody_is_told_at_once() {
    let nats = NatsServer::start();
    let worker = Worker::start(&nats, &[]);
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    drop(worker);
    eventually("the server to see that nobody is there", async || {
        let answered = tokio::time::timeout(ATTEMPT, caller.send("wess.invoke.add", &[], "[2,3]")).await;
        matches!(answered, Ok(Err(async_nats::RequestErrorKind::NoResponders))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_that_comes_back_finds_its_workers_and_everything_stored() {
    let mut rig = Rig::start(&["upper", "counter"]).await;
    assert_eq!(rig.caller.raw("counter", "").await.unwrap().payload, "1");
    rig.nats.kill();
    eventually("the worker to say that it is not ready", async || {
        (rig.worker.page("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(rig.worker.page("/livez").await.0, 200);
    rig.nats.restart();
    assert_eq!(answers_again(&rig.caller, "upper", "hello").await, b"HELLO");
    eventually("the worker to be ready", async || {
        (rig.worker.page("/readyz").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(answers_again(&rig.caller, "counter", "").await, b"2");
    let list: Value = parse(&rig.caller.ask("wess.modules.list", &[], "").await.unwrap());
    assert_eq!(list["modules"].as_array().unwrap().len(), 3);
    assert_eq!(rig.caller.store("upper", guest("in_place")).await.version, 2);
    assert_eq!(rig.caller.raw("upper", "hello").await.unwrap().payload, "olleh");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_was_answered_as_stored_survives_a_crash_of_the_server_right_after() {
    let mut rig = Rig::start(&[]).await;
    let stored = rig.caller.store("upper", guest("upper")).await;
    rig.nats.kill();
    drop(rig.worker);
    rig.nats.restart();
    let fresh = Worker::start(&rig.nats, &[]);
    assert_eq!(answers_again(&rig.caller, "upper", "hello").await, b"HELLO");
    let module: wess_schemas::module::Module = rig
        .caller
        .ask_json("wess.modules.get.upper", &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (module.digest, module.id, module.version),
        (stored.digest, stored.id, 1)
    );
    assert_eq!(fresh.metric("wess_worker_registry_blobs_fetched_total").await, 1);
}

#[tokio::test]
async fn a_frozen_server_that_thaws_finds_every_call_answered() {
    const EACH: usize = 20;
    let rig = Rig::with(&["--executors", "1", "--slots", "64"], &["upper"]).await;
    rig.caller.store("short", nap(500)).await;
    rig.caller.store("long", nap(2500)).await;
    let begin = |module: &str| -> Vec<_> {
        (0..EACH)
            .map(|_| rig.caller.begin(json!({"module": module, "input": "hello"})))
            .collect()
    };
    let answered = rig.worker.metric(ANSWERED).await;
    let [short, long] = ["short", "long"].map(begin);
    rig.worker.shows("wess_worker_slots_busy", 2 * EACH as u64).await;
    rig.nats.freeze();
    let caught = begin("upper");
    rig.worker.shows(ANSWERED, answered + EACH as u64).await;
    assert_eq!(rig.worker.page("/livez").await.0, 200);
    let all = || short.iter().chain(&long).chain(&caught);
    assert!(all().all(|call| !call.is_finished()), "the server answers");
    rig.nats.thaw();
    for call in short.into_iter().chain(long) {
        assert_eq!(call.await.unwrap().unwrap().exit_code, Some(0));
    }
    for call in caught {
        assert_eq!(call.await.unwrap().unwrap().output.as_deref(), Some("HELLO"));
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn calls_whose_server_was_killed_are_answered_once_it_is_back() {
    const EACH: usize = 20;
    let mut rig = Rig::with(&["--executors", "1", "--slots", "64"], &[]).await;
    rig.caller.store("short", nap(1000)).await;
    rig.caller.store("long", nap(4000)).await;
    let begin = |module: &str| -> Vec<_> {
        let begin = |_| rig.caller.begin(json!({"module": module}));
        (0..EACH).map(begin).collect()
    };
    let answered = rig.worker.metric(ANSWERED).await;
    let [short, long] = ["short", "long"].map(begin);
    rig.worker.shows("wess_worker_slots_busy", 2 * EACH as u64).await;
    rig.nats.kill();
    rig.worker.shows(ANSWERED, answered + EACH as u64).await;
    // Replies are for those who listen: the caller comes back first.
    rig.worker.process.signal(Signal::STOP);
    rig.nats.restart();
    rig.caller.is_back().await;
    rig.worker.process.signal(Signal::CONT);
    for call in short.into_iter().chain(long) {
        assert_eq!(call.await.unwrap().unwrap().exit_code, Some(0));
    }
    assert_eq!(rig.worker.metric("wess_worker_replies_dropped_total").await, 0);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn replies_that_find_no_room_while_the_server_is_away_are_counted_and_no_other_is_lost() {
    const CALLS: usize = 4000;
    let mut rig = Rig::with(&["--executors", "1", "--slots", "1024"], &[]).await;
    rig.caller.store("nap", nap(1500)).await;
    rig.caller.take_queue_away().await;
    let client = &rig.caller.client;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    let answered = rig.worker.metric(ANSWERED).await;
    for _ in 0..CALLS {
        client
            .publish_with_reply("wess.invoke.nap", inbox.clone(), "".into())
            .await
            .unwrap();
    }
    rig.worker.shows("wess_worker_waiting", CALLS as u64 - 1024).await;
    rig.nats.kill();
    eventually("every call to be answered", async || {
        let metrics = rig.worker.metrics().await;
        // One on its way into the queue when the server went may be there, for all that its worker knows.
        let ended = metrics.read(ANSWERED) + metrics.read("wess_worker_calls_total{code=\"internal\"}");
        (ended == answered + CALLS as u64).then_some(())
    })
    .await;
    rig.worker.process.signal(Signal::STOP);
    rig.nats.restart();
    rig.caller.is_back().await;
    rig.worker.process.signal(Signal::CONT);
    let mut received = 0;
    let dropped = eventually("every reply to come or to be counted", async || {
        while let Some(Some(reply)) = replies.next().now_or_never() {
            if let Err(error) = crate::rig::read(reply) {
                assert_eq!(error.code(), ErrorCode::Internal, "{error}");
            }
            received += 1;
        }
        let dropped = rig.worker.metric("wess_worker_replies_dropped_total").await;
        (received + dropped == CALLS as u64).then_some(dropped)
    })
    .await;
    assert!(
        dropped > 0 && received > 0,
        "{received} came, {dropped} were dropped"
    );
    rig.is_unharmed().await;
    assert!(
        replies.next().now_or_never().is_none(),
        "a call was answered twice"
    );
}
