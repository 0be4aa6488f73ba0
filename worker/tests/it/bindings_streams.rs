//! Bound streams: each message until its run has succeeded, whatever dies meanwhile; and what is given up, as it was.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_harness::{Signal, eventually};
use wess_schemas::job::{DeadLetter, DeadList, DeadReason, JobState};
use wess_schemas::{ErrorCode, header};

use crate::bindings::{next, runs, tells_env};
use crate::rig::{Caller, Rig, Worker, fact, nap, refused_naming, wat};

const IMPATIENT: [&str; 2] = ["--ack-wait-s", "1"];

impl Caller {
    /// A stream of `orders.>`.
    async fn stream(&self, retention: RetentionPolicy) -> Stream {
        let config = Config {
            name: "ORDERS".into(),
            subjects: vec!["orders.>".into()],
            retention,
            ..Config::default()
        };
        self.jetstream().create_stream(config).await.unwrap()
    }

    /// Puts a message into it.
    async fn order(&self, subject: &str, body: impl Into<bytes::Bytes>) {
        let jetstream = self.jetstream();
        let stored = jetstream.publish(subject.to_owned(), body.into()).await.unwrap();
        stored.await.unwrap();
    }

    /// Waits until a binding's consumer has nothing left.
    async fn all_acked(&self, name: &str) {
        let mut consumer: PullConsumer = self
            .jetstream()
            .get_consumer_from_stream(format!("wess-bind-{name}"), "ORDERS")
            .await
            .unwrap();
        eventually("every message to be acknowledged", async || {
            let info = consumer.info().await.ok()?;
            (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
        })
        .await;
    }

    /// The only dead letter, once there is one.
    async fn letter(&self) -> DeadLetter {
        eventually("a dead letter", async || {
            let list: DeadList = self.ask_json("wess.dead.list", &json!({})).await.ok()?;
            list.letters.into_iter().next()
        })
        .await
    }

    async fn redrive(&self, id: &str) {
        let subject = format!("wess.dead.redrive.{id}");
        self.ask(&subject, &[], "").await.unwrap();
    }

    /// Redrives a letter, and gives the one that comes of it.
    async fn redriven_in_vain(&self, letter: &DeadLetter) -> DeadLetter {
        self.redrive(letter.job_id.as_str()).await;
        eventually("another letter", async || {
            let list: DeadList = self.ask_json("wess.dead.list", &json!({})).await.ok()?;
            list.letters.into_iter().find(|new| new.died != letter.died)
        })
        .await
    }
}

fn orders(module: &str) -> Value {
    json!({"module": module, "stream": "ORDERS", "publish_to": "done"})
}

#[tokio::test]
async fn each_message_of_a_stream_runs_once_on_one_of_three_workers() {
    let rig = Rig::start(&["upper"]).await;
    let (second, third) = (Worker::start(&rig.nats, &[]), Worker::start(&rig.nats, &[]));
    let stream = rig.caller.stream(RetentionPolicy::WorkQueue).await;
    for number in 0..50 {
        rig.caller.order("orders.old", format!("old-{number}")).await;
    }
    let mut out = rig.caller.listen("done").await;
    let binding = rig.caller.bind("orders", orders("upper")).await;
    assert_eq!(binding.fed_by, ["orders.>"]);
    for number in 0..250 {
        rig.caller.order("orders.new", format!("new-{number}")).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        assert!(seen.insert(next(&mut out).await), "a message ran twice");
    }
    rig.caller.all_acked("orders").await;
    assert_eq!(stream.get_info().await.unwrap().state.messages, 0);
    let workers = [&rig.worker, &second, &third];
    assert_eq!(runs(&workers, "orders").await, 300);
    for worker in workers {
        worker.comes_to_rest().await;
    }
}

#[tokio::test]
async fn the_guest_knows_where_its_message_is_from_and_a_filter_and_new_ones_hold() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("tell", tells_env()).await;
    rig.caller.stream(RetentionPolicy::Limits).await;
    rig.caller.order("orders.eu", "before").await;
    let mut out = rig.caller.listen("done").await;
    let mut binding = orders("tell");
    (binding["filter"], binding["deliver"]) = (json!("orders.eu"), json!("new"));
    rig.caller.bind("orders", binding).await;
    // A consumer of new messages begins where the stream is when it is made, which is before the binding is answered.
    rig.caller.order("orders.us", "other").await;
    rig.caller.order("orders.eu", "after").await;
    let told = out.next().await.unwrap();
    let env: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(
        env,
        json!({"WESS_SUBJECT": "orders.eu", "WESS_STREAM": "ORDERS", "WESS_SEQUENCE": "3"})
    );
    assert!(fact(&told, header::MSG_ID).unwrap().starts_with("bind-3-"));
    rig.caller.all_acked("orders").await;
    assert_eq!(runs(&[&rig.worker], "orders").await, 1);
}

#[tokio::test]
async fn a_message_whose_worker_is_killed_runs_again_and_is_acknowledged() {
    let rig = Rig::with(&IMPATIENT, &[]).await;
    rig.caller.store("nap", nap(1500)).await;
    let stream = rig.caller.stream(RetentionPolicy::WorkQueue).await;
    rig.caller.bind("orders", orders("nap")).await;
    rig.caller.order("orders.a", "x").await;
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let Rig { worker, caller, nats } = rig;
    let mut out = caller.listen("done").await;
    worker.process.signal(Signal::KILL);
    let other = Worker::start(&nats, &IMPATIENT);
    next(&mut out).await;
    caller.all_acked("orders").await;
    assert_eq!(stream.get_info().await.unwrap().state.messages, 0);
    assert_eq!(runs(&[&other], "orders").await, 1);
}

#[tokio::test]
async fn a_restarted_server_goes_on_where_it_was() {
    let mut rig = Rig::with(&IMPATIENT, &["upper"]).await;
    rig.caller.stream(RetentionPolicy::Limits).await;
    rig.caller.bind("orders", orders("upper")).await;
    let mut out = rig.caller.listen("done").await;
    rig.caller.order("orders.a", "first").await;
    assert_eq!(next(&mut out).await, "FIRST");
    rig.caller.all_acked("orders").await;
    rig.nats.kill();
    rig.nats.restart();
    rig.caller.is_back().await;
    rig.caller.order("orders.a", "second").await;
    // A server that was killed may have forgotten the last acknowledgement.
    while next(&mut out).await == "FIRST" {}
    rig.caller.all_acked("orders").await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_stopping_worker_hands_back_what_outlasts_its_grace() {
    let mut rig = Rig::with(&["--grace-s", "1"], &["spin"]).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    let mut binding = orders("spin");
    binding["function"] = json!("spin");
    binding["limits"] = json!({"timeout_ms": 6000});
    rig.caller.bind("orders", binding).await;
    rig.caller.order("orders.a", "").await;
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    assert_eq!(rig.worker.process.stop().code(), Some(75));
    let _other = Worker::start(&rig.nats, &[]);
    let letter = rig.caller.letter().await;
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::AttemptsExhausted, 1, 2)
    );
    assert_eq!(letter.error.unwrap().code, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn a_guest_that_fails_is_run_again_and_then_its_message_is_a_letter_with_its_very_bytes() {
    let rig = Rig::start(&["upper"]).await;
    let fails = wat(r#"(module (memory (export "memory") 1)
        (func (export "process") (param i32 i32) (result i32) unreachable))"#);
    rig.caller.store("fails", fails).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    let mut binding = orders("fails");
    binding["retry"] = json!({"max_attempts": 3, "backoff_ms": [10]});
    rig.caller.bind("orders", binding).await;
    let bytes = [0_u8, 159, 146, 150, 13, 10];
    rig.caller.order("orders.a", bytes.to_vec()).await;
    let letter = rig.caller.letter().await;
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::AttemptsExhausted, 3, 3)
    );
    assert_eq!(letter.binding.as_ref().unwrap().as_str(), "orders");
    assert_eq!(letter.error.as_ref().unwrap().code, ErrorCode::GuestTrapped);
    let call = letter.request.clone().unwrap().invoke.unwrap();
    assert_eq!(BASE64.decode(call.input_base64.unwrap()).unwrap(), bytes);
    assert_eq!(call.env["WESS_SUBJECT"], "orders.a");
    rig.caller.all_acked("orders").await;
    rig.worker
        .shows("wess_worker_binding_dead_total{binding=\"orders\"}", 1)
        .await;
    let failures = "wess_worker_binding_failures_total{binding=\"orders\",code=\"guest_trapped\"}";
    rig.worker.shows(failures, 3).await;
    // Still not mended, it is redriven to a letter that says the same.
    assert_eq!(letter.publish_to.as_deref(), Some("done"));
    let mut out = rig.caller.listen("done").await;
    let again = rig.caller.redriven_in_vain(&letter).await;
    assert_eq!(
        (again.reason, again.attempts, &again.binding, &again.publish_to),
        (
            DeadReason::AttemptsExhausted,
            3,
            &letter.binding,
            &letter.publish_to
        )
    );
    // The module is mended, and the letter redriven: its output goes where the binding says.
    rig.caller.store("fails", wess_harness::guest("upper")).await;
    let id = letter.job_id.as_str();
    rig.caller.redrive(id).await;
    let published = out.next().await.unwrap();
    assert_eq!(published.payload, bytes.as_slice());
    assert_eq!(fact(&published, header::MSG_ID), Some(id));
    assert_eq!(fact(&published, header::BINDING), Some("orders"));
    assert_eq!(fact(&published, header::HOPS), Some("1"));
    assert_eq!(rig.caller.end_of(id).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn an_output_never_goes_where_a_letter_must_not_say() {
    let rig = Rig::start(&["upper"]).await;
    let mut headers = HeaderMap::new();
    headers.insert(header::BINDING, "orders");
    headers.insert(header::PUBLISH_TO, "$KV.wess-modules.default.upper");
    let job = json!({"invoke": {"module": "upper", "input": "forged"}}).to_string();
    let jetstream = rig.caller.jetstream();
    let subject = "wess.queue.jobs.default.forged";
    let stored = jetstream.publish_with_headers(subject, headers, job.into()).await;
    stored.unwrap().await.unwrap();
    let letter = rig.caller.letter().await;
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Refused, 0));
    assert_eq!(letter.error.unwrap().code, ErrorCode::Forbidden);
    assert_eq!(
        rig.caller
            .ask("wess.invoke.upper", &[], "a")
            .await
            .unwrap()
            .payload,
        "A"
    );
}

#[tokio::test]
async fn an_exit_code_is_a_failure_and_a_success_after_one_leaves_no_trace() {
    let rig = Rig::start(&[]).await;
    let exits = wat(r#"(module (memory (export "memory") 1)
        (func (export "process") (param i32 i32) (result i32) (i32.const 3)))"#);
    rig.caller.store("exits", exits).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    let mut binding = orders("exits");
    binding["retry"] = json!({"max_attempts": 10, "backoff_ms": [300]});
    rig.caller.bind("orders", binding).await;
    let mut out = rig.caller.listen("done").await;
    rig.caller.order("orders.a", "x").await;
    let failures = "wess_worker_binding_failures_total{binding=\"orders\",code=\"guest_trapped\"}";
    rig.worker.shows(failures, 1).await;
    let id = eventually("its record", async || {
        let jobs: Value = rig.caller.ask_json("wess.jobs.list", &json!({})).await.unwrap();
        let job = jobs["jobs"].get(0)?.clone();
        assert_eq!((&job["state"], &job["attempts"]), (&json!("queued"), &json!(1)));
        Some(job["job_id"].as_str().unwrap().to_owned())
    })
    .await;
    rig.caller.store("exits", wess_harness::guest("upper")).await;
    assert_eq!(next(&mut out).await, "X");
    rig.caller.all_acked("orders").await;
    crate::rig::refused(ErrorCode::JobNotFound, rig.caller.record(&id).await);
}

#[tokio::test]
async fn a_components_err_is_its_answer_and_a_success() {
    let rig = Rig::start(&["greeter"]).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    let mut out = rig.caller.listen("done").await;
    let mut binding = orders("greeter");
    binding["function"] = json!("greet");
    rig.caller.bind("orders", binding).await;
    rig.caller.order("orders.a", r#"[{"name":""},"plain"]"#).await;
    assert_eq!(next(&mut out).await, r#"{"err":"nobody to greet"}"#);
    rig.caller.all_acked("orders").await;
    assert_eq!(runs(&[&rig.worker], "orders").await, 1);
    let list: DeadList = rig.caller.ask_json("wess.dead.list", &json!({})).await.unwrap();
    assert!(list.letters.is_empty(), "{list:?}");
}

#[tokio::test]
async fn what_no_module_takes_is_refused_at_once_and_a_module_that_is_gone_is_waited_for() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    rig.caller.bind("orders", orders("add")).await;
    rig.caller.order("orders.a", "no arguments").await;
    let letter = rig.caller.letter().await;
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::Refused, 0, 1)
    );
    let again = rig.caller.redriven_in_vain(&letter).await;
    assert_eq!((again.reason, again.attempts), (DeadReason::Refused, 0));
    rig.caller.unbind("orders").await.unwrap();

    let mut out = rig.caller.listen("done").await;
    rig.caller.bind("orders", orders("upper")).await;
    rig.caller
        .ask("wess.modules.delete.upper", &[], "")
        .await
        .unwrap();
    for body in ["a", "b", "c"] {
        rig.caller.order("orders.a", body).await;
    }
    let failures = "wess_worker_binding_failures_total{binding=\"orders\",code=\"module_not_found\"}";
    eventually("a message to find no module", async || {
        (rig.worker.metric(failures).await > 0).then_some(())
    })
    .await;
    rig.caller.store_guests(&["upper"]).await;
    let mut seen = [next(&mut out).await, next(&mut out).await, next(&mut out).await];
    seen.sort();
    assert_eq!(seen, ["A", "B", "C"]);
    rig.caller.all_acked("orders").await;
}

#[tokio::test]
async fn a_message_that_was_delivered_too_often_is_given_up_unrun() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.stream(RetentionPolicy::WorkQueue).await;
    rig.caller.bind("orders", orders("upper")).await;
    let Rig { worker, caller, nats } = rig;
    worker.stop();
    caller.order("orders.a", "killer").await;
    let consumer: PullConsumer = caller
        .jetstream()
        .get_consumer_from_stream("wess-bind-orders", "ORDERS")
        .await
        .unwrap();
    // What takes it says nothing of what became of it, twenty times.
    for delivery in 1..=20 {
        let batch = consumer.batch().max_messages(1).expires(Duration::from_secs(5));
        let message = batch.messages().await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(message.info().unwrap().delivered, delivery);
        let nak = async_nats::jetstream::AckKind::Nak(None);
        message.ack_with(nak).await.unwrap();
    }
    let worker = Worker::start(&nats, &[]);
    let letter = caller.letter().await;
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::TooManyDeliveries, 0, 21)
    );
    caller.all_acked("orders").await;
    assert_eq!(runs(&[&worker], "orders").await, 0);
}

#[tokio::test]
async fn an_unbound_stream_keeps_its_messages_and_loses_its_consumer() {
    let rig = Rig::start(&["upper"]).await;
    let second = Worker::start(&rig.nats, &[]);
    let stream = rig.caller.stream(RetentionPolicy::Limits).await;
    let mut out = rig.caller.listen("done").await;
    rig.caller.bind("orders", orders("upper")).await;
    rig.caller.order("orders.a", "a").await;
    assert_eq!(next(&mut out).await, "A");
    rig.caller.unbind("orders").await.unwrap();
    rig.caller.order("orders.a", "b").await;
    // Whoever was asking finds no consumer any more, and makes none.
    for worker in [&rig.worker, &second] {
        worker.comes_to_rest().await;
    }
    let consumers = async || stream.get_info().await.unwrap().state.consumer_count;
    assert_eq!(consumers().await, 0);
    // Bound anew, it begins anew.
    rig.caller.bind("orders", orders("upper")).await;
    let mut both = [next(&mut out).await, next(&mut out).await];
    both.sort();
    assert_eq!(both, ["A", "B"]);
    assert_eq!(consumers().await, 1);
}

#[tokio::test]
async fn a_binding_that_takes_from_another_stream_leaves_no_consumer_and_loops_are_seen() {
    let rig = Rig::start(&["upper"]).await;
    let first = rig.caller.stream(RetentionPolicy::Limits).await;
    let config = Config {
        name: "OTHERS".into(),
        subjects: vec!["others".into()],
        ..Config::default()
    };
    let second = rig.caller.jetstream().create_stream(config).await.unwrap();
    rig.caller.bind("orders", orders("upper")).await;
    let mut moved = orders("upper");
    moved["stream"] = json!("OTHERS");
    rig.caller.bind("orders", moved.clone()).await;
    let count = async |stream: &Stream| stream.get_info().await.unwrap().state.consumer_count;
    assert_eq!((count(&first).await, count(&second).await), (0, 1));
    moved["publish_to"] = json!("others");
    let looped = rig.caller.try_bind("orders", moved).await;
    refused_naming(ErrorCode::InvalidRequest, "feed itself", looped);
    // A work queue gives each message to one consumer only: the server's own word is passed on.
    let config = Config {
        name: "QUEUE".into(),
        subjects: vec!["queue".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    rig.caller.jetstream().create_stream(config).await.unwrap();
    let mut queue = orders("upper");
    queue["stream"] = json!("QUEUE");
    rig.caller.bind("one", queue.clone()).await;
    let twice = rig.caller.try_bind("two", queue).await;
    refused_naming(ErrorCode::InvalidRequest, "QUEUE", twice);
}
