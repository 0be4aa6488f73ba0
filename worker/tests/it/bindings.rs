//! Bindings as clients see them: made, checked, listed, run once for each message of a subject, taken away.

use async_nats::Subscriber;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use wess_harness::{NatsServer, eventually};
use wess_schemas::binding::{Binding, BindingList};
use wess_schemas::payload::PayloadRef;
use wess_schemas::{ErrorCode, header};

use crate::rig::{Answered, Caller, Rig, Worker, fact, header_map, nap, refused, refused_naming, wat};
use crate::support::assets;

impl Caller {
    /// Makes a binding.
    pub async fn try_bind(&self, name: &str, binding: Value) -> Answered<Binding> {
        self.ask_json(&format!("wess.bindings.put.{name}"), &binding)
            .await
    }

    /// Makes a binding that must be taken.
    pub async fn bind(&self, name: &str, binding: Value) -> Binding {
        self.try_bind(name, binding).await.unwrap()
    }

    /// Every binding.
    pub async fn bindings(&self) -> Vec<Binding> {
        let list: BindingList = self.ask_json("wess.bindings.list", &json!({})).await.unwrap();
        list.bindings
    }

    /// Takes a binding away.
    pub async fn unbind(&self, name: &str) -> Answered<Value> {
        self.ask_json(&format!("wess.bindings.delete.{name}"), &json!({}))
            .await
    }

    /// Listens to a subject; the server knows.
    pub async fn listen(&self, subject: &str) -> Subscriber {
        let subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        subscriber
    }

    /// Publishes something, and waits until the server has it.
    pub async fn publish(&self, subject: &str, body: &str) {
        let published = self.client.publish(subject.to_owned(), body.to_owned().into());
        published.await.unwrap();
        self.client.flush().await.unwrap();
    }
}

/// What comes next on a subscription, as text.
pub async fn next(subscriber: &mut Subscriber) -> String {
    let message = tokio::time::timeout(wess_harness::DEADLINE, subscriber.next()).await;
    String::from_utf8(message.unwrap().unwrap().payload.into()).unwrap()
}

/// A plugin that answers with its environment.
pub fn tells_env() -> Vec<u8> {
    wat(
        r#"(module (import "host" "set_output" (func $set (param i32 i32))) (memory (export "memory") 2)
        (func (export "process") (param i32 i32 i32 i32) (result i32)
          (call $set (local.get 2) (local.get 3)) (i32.const 0)))"#,
    )
}

/// How often workers have run a binding's module.
pub async fn runs(workers: &[&Worker], binding: &str) -> u64 {
    let metric = format!("wess_worker_binding_runs_total{{binding=\"{binding}\"}}");
    let each = workers.iter().map(async |worker| worker.metric(&metric).await);
    join_all(each).await.into_iter().sum()
}

#[tokio::test]
async fn a_bound_subject_answers_its_callers_and_is_listed_until_it_is_taken_away() {
    let rig = Rig::start(&["upper"]).await;
    let binding = rig
        .caller
        .bind("shout", json!({"module": "upper", "subject": "texts.*"}))
        .await;
    assert_eq!(
        (binding.name.as_str(), &binding.fed_by),
        ("shout", &vec!["texts.*".to_owned()])
    );
    let answer = rig.caller.ask("texts.new", &[], "hello").await.unwrap();
    assert_eq!(answer.payload, "HELLO");
    let answer = rig.caller.ask("texts.new", &[("Wess-Facts", "all")], "a").await;
    assert!(fact(&answer.unwrap(), header::MODULE_DIGEST).is_some());
    assert_eq!(rig.caller.bindings().await, std::slice::from_ref(&binding));
    let got: Binding = rig
        .caller
        .ask_json("wess.bindings.get.shout", &json!({}))
        .await
        .unwrap();
    assert_eq!(got, binding);
    rig.worker
        .shows("wess_worker_binding_runs_total{binding=\"shout\"}", 2)
        .await;
    assert_eq!(
        rig.caller.unbind("shout").await.unwrap(),
        json!({"name": "shout"})
    );
    assert_eq!(
        rig.caller.send("texts.new", &[], "x").await.unwrap_err(),
        async_nats::RequestErrorKind::NoResponders
    );
    assert!(rig.caller.bindings().await.is_empty());
    refused(ErrorCode::BindingNotFound, rig.caller.unbind("shout").await);
    let gone: Answered<Binding> = rig.caller.ask_json("wess.bindings.get.shout", &json!({})).await;
    refused(ErrorCode::BindingNotFound, gone);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_output_goes_where_the_binding_says_and_the_guest_knows_its_subject() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.store("tell", tells_env()).await;
    let mut out = rig.caller.client.subscribe("shouted").await.unwrap();
    let binding = json!({"module": "tell", "subject": "texts.>", "publish_to": "shouted"});
    rig.caller.bind("tell", binding).await;
    rig.caller.publish("texts.a.b", "hello").await;
    let told = out.next().await.unwrap();
    assert_eq!(told.payload, r#"{"WESS_SUBJECT":"texts.a.b"}"#);
    assert_eq!(fact(&told, header::BINDING), Some("tell"));
    assert_eq!(fact(&told, header::HOPS), Some("1"));
    // Changed in place: another module, from the next message on.
    let binding = json!({"module": "upper", "subject": "texts.>", "publish_to": "shouted"});
    let changed = rig.caller.bind("tell", binding).await;
    assert!(changed.created < changed.updated);
    eventually("the new module to answer", async || {
        rig.caller.publish("texts.a", "hello").await;
        (next(&mut out).await == "HELLO").then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_message_runs_once_on_one_of_three_workers_that_come_and_go() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller
        .bind(
            "shout",
            json!({"module": "upper", "subject": "texts", "publish_to": "out"}),
        )
        .await;
    let (second, third) = (Worker::start(&rig.nats, &[]), Worker::start(&rig.nats, &[]));
    let workers = [&rig.worker, &second, &third];
    let mut out = rig.caller.listen("out").await;
    // Until each has got one, each is known to listen.
    let mut sent = 0;
    eventually("every worker to run one", async || {
        rig.caller.publish("texts", "warm").await;
        next(&mut out).await;
        sent += 1;
        for worker in workers {
            if runs(&[worker], "shout").await == 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    for number in 0..500 {
        rig.caller
            .client
            .publish("texts", format!("text-{number}").into())
            .await
            .unwrap();
    }
    rig.caller.client.flush().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        assert!(seen.insert(next(&mut out).await), "a message ran twice");
    }
    assert_eq!(runs(&workers, "shout").await, sent + 500);
    // One stops in order: what it had been given, it answers.
    for number in 0..200 {
        rig.caller
            .client
            .publish("texts", format!("more-{number}").into())
            .await
            .unwrap();
    }
    rig.caller.client.flush().await.unwrap();
    second.stop();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        assert!(seen.insert(next(&mut out).await), "a message ran twice");
    }
}

#[tokio::test]
async fn a_binding_outlives_every_worker_and_a_restart_of_the_server() {
    let mut rig = Rig::start(&["upper"]).await;
    rig.caller
        .bind("shout", json!({"module": "upper", "subject": "texts"}))
        .await;
    let answers = async |caller: &Caller| {
        eventually("the binding to answer", async || {
            let reply = caller.send("texts", &[], "hello").await.ok()?;
            (reply.payload == "HELLO").then_some(())
        })
        .await;
    };
    rig.nats.kill();
    rig.nats.restart();
    rig.caller.is_back().await;
    answers(&rig.caller).await;
    let Rig { worker, caller, nats } = rig;
    worker.stop();
    let _other = Worker::start(&nats, &[]);
    answers(&caller).await;
    assert_eq!(caller.bindings().await.len(), 1);
}

#[tokio::test]
async fn failures_are_told_to_who_asked_by_their_codes_and_counted() {
    let rig = Rig::start(&["upper"]).await;
    let wasm = wat(r#"(module (memory (export "memory") 1)
        (func (export "process") (param i32 i32) (result i32) unreachable))"#);
    rig.caller.store("fails", wasm).await;
    rig.caller
        .bind("fails", json!({"module": "fails", "subject": "a"}))
        .await;
    refused(ErrorCode::GuestTrapped, rig.caller.ask("a", &[], "x").await);
    rig.worker
        .shows(
            "wess_worker_binding_failures_total{binding=\"fails\",code=\"guest_trapped\"}",
            1,
        )
        .await;
    rig.caller
        .bind("gone", json!({"module": "upper", "subject": "b"}))
        .await;
    rig.caller
        .ask("wess.modules.delete.upper", &[], "")
        .await
        .unwrap();
    refused(ErrorCode::ModuleNotFound, rig.caller.ask("b", &[], "x").await);
    rig.caller.store_guests(&["upper"]).await;
    assert_eq!(rig.caller.ask("b", &[], "x").await.unwrap().payload, "X");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_may_not_be_bound_is_refused_by_name() {
    let rig = Rig::start(&["upper"]).await;
    let refuse = async |binding: Value, code: ErrorCode, named: &str| {
        refused_naming(code, named, rig.caller.try_bind("bad", binding).await);
    };
    for subject in [
        "wess.invoke.upper",
        "wess.>",
        ">",
        "*.a",
        "$KV.wess-modules.>",
        "$JS.EVENT.>",
        "_INBOX.>",
        "a..b",
    ] {
        let binding = json!({"module": "upper", "subject": subject});
        refuse(binding, ErrorCode::InvalidRequest, "subject").await;
    }
    let with = |field: &str, value: Value| {
        let mut binding = json!({"module": "upper", "subject": "a.>"});
        binding[field] = value;
        binding
    };
    for target in ["wess.store", "$KV.wess-modules.default.x", "a.*", "a b"] {
        let binding = with("publish_to", json!(target));
        refuse(binding, ErrorCode::InvalidRequest, "publish_to").await;
    }
    refuse(
        with("publish_to", json!("a.b")),
        ErrorCode::InvalidRequest,
        "feed itself",
    )
    .await;
    refuse(
        with("module", json!("nobody")),
        ErrorCode::ModuleNotFound,
        "nobody",
    )
    .await;
    refuse(
        with("function", json!("nothing")),
        ErrorCode::FunctionNotFound,
        "nothing",
    )
    .await;
    refuse(
        with("limits", json!({"timeout_ms": 100_000_000})),
        ErrorCode::InvalidRequest,
        "timeout_ms",
    )
    .await;
    refuse(with("colour", json!("red")), ErrorCode::InvalidRequest, "colour").await;
    refuse(
        with("stream", json!("WESS_JOBS")),
        ErrorCode::InvalidRequest,
        "one of",
    )
    .await;
    for stream in ["WESS_JOBS", "KV_wess-modules", "NOWHERE"] {
        let binding = json!({"module": "upper", "stream": stream});
        refuse(binding, ErrorCode::InvalidRequest, stream).await;
    }
    let first = json!({"module": "upper", "subject": "one", "publish_to": "two"});
    rig.caller.bind("first", first).await;
    let second = json!({"module": "upper", "subject": "two", "publish_to": "one"});
    refuse(second, ErrorCode::InvalidRequest, "first").await;
    assert_eq!(rig.caller.bindings().await.len(), 1);
}

#[tokio::test]
async fn no_reply_is_forged_and_no_message_goes_round() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller
        .bind("shout", json!({"module": "upper", "subject": "texts.*"}))
        .await;
    let modules = rig
        .caller
        .jetstream()
        .get_stream("KV_wess-modules")
        .await
        .unwrap();
    let before = modules.cached_info().state.last_sequence;
    for reply in [
        "$KV.wess-modules.default.forged",
        "wess.invoke.upper",
        "texts.again",
    ] {
        let published = rig.caller.client.publish_with_reply("texts.a", reply, "x".into());
        published.await.unwrap();
    }
    rig.worker
        .shows("wess_worker_binding_unanswerable_total{binding=\"shout\"}", 3)
        .await;
    rig.worker
        .shows("wess_worker_binding_runs_total{binding=\"shout\"}", 3)
        .await;
    assert_eq!(modules.get_info().await.unwrap().state.last_sequence, before);
    let far = [(header::HOPS, "16")];
    let refused = rig.caller.ask("texts.a", &far, "x").await;
    refused_naming(ErrorCode::InvalidRequest, "feed each other", refused);
}

#[tokio::test]
async fn more_messages_than_there_is_room_for_are_dropped_and_counted_and_no_memory_is_held() {
    let flags = ["--executors", "1", "--slots", "1", "--queue", "16"];
    let rig = Rig::with(&flags, &[]).await;
    let nap = crate::rig::nap(300);
    rig.caller.store("nap", nap).await;
    rig.caller
        .bind("nap", json!({"module": "nap", "subject": "work"}))
        .await;
    for _ in 0..4000 {
        rig.caller.client.publish("work", "x".into()).await.unwrap();
    }
    rig.caller.client.flush().await.unwrap();
    let metric = "wess_worker_binding_dropped_total{binding=\"nap\"}";
    let answered = eventually("all to be run or dropped", async || {
        let (dropped, ran) = (rig.worker.metric(metric).await, runs(&[&rig.worker], "nap").await);
        (dropped + ran == 4000).then_some((dropped, ran))
    })
    .await;
    assert!(answered.0 > 3900 && answered.1 >= 1, "{answered:?}");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn there_are_only_so_many_bindings() {
    let rig = Rig::on(NatsServer::start(), &[], &["upper"]).await;
    let bind = async |number: usize| {
        let binding = json!({"module": "upper", "subject": format!("texts.{number}")});
        rig.caller.try_bind(&format!("b-{number}"), binding).await
    };
    for number in 0..256 {
        bind(number).await.unwrap();
    }
    refused(ErrorCode::QuotaExceeded, bind(256).await);
    bind(255).await.unwrap();
    rig.caller.unbind("b-7").await.unwrap();
    bind(256).await.unwrap();
    assert_eq!(rig.caller.bindings().await.len(), 256);
}

#[tokio::test]
async fn what_a_message_says_in_headers_changes_no_limit_and_its_trace_goes_on() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("nap", nap(100)).await;
    let binding = json!({"module": "nap", "subject": "work", "publish_to": "out"});
    rig.caller.bind("nap", binding).await;
    let mut out = rig.caller.listen("out").await;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{span}-01");
    let headers = header_map(&[
        (header::TIMEOUT_MS, "1"),
        (header::WAIT_MS, "0"),
        (header::FUEL, "1"),
        (header::MEMORY_MB, "1000000"),
        (header::INPUT_REF, "{}"),
        (header::TRACEPARENT, &traceparent),
    ]);
    let published = rig
        .caller
        .client
        .publish_with_headers("work", headers, "x".into());
    published.await.unwrap();
    let output = tokio::time::timeout(wess_harness::DEADLINE, out.next()).await;
    let output = output.unwrap().unwrap();
    assert_eq!(fact(&output, header::EXIT_CODE), Some("0"));
    assert_eq!(fact(&output, header::FUEL_USED), None);
    let continued = fact(&output, header::TRACEPARENT).unwrap();
    assert!(continued.starts_with(&format!("00-{trace}-")), "{continued}");
    assert!(!continued.contains(span), "{continued}");
    assert_eq!(runs(&[&rig.worker], "nap").await, 1);
}

#[tokio::test]
async fn an_output_above_half_a_message_lies_beside_and_a_body_above_an_inputs_bound_is_refused() {
    let nats = NatsServer::builder().config("max_payload: 16777216").start();
    let rig = Rig::on(nats, &[], &["upper"]).await;
    let payloads = assets(&rig.nats).await.payloads();
    let binding = json!({"module": "upper", "subject": "texts", "publish_to": "out"});
    rig.caller.bind("upper", binding).await;
    let mut out = rig.caller.listen("out").await;
    rig.caller.publish("texts", &"a".repeat(9 << 20)).await;
    let output = out.next().await.unwrap();
    assert!(output.payload.is_empty());
    let stored: PayloadRef = serde_json::from_str(fact(&output, header::OUTPUT_REF).unwrap()).unwrap();
    let fetched = payloads.get(&stored, u64::MAX).await.unwrap();
    assert!(
        fetched == "A".repeat(9 << 20),
        "{} bytes came back",
        fetched.len()
    );
    let large = "a".repeat((10 << 20) + 1);
    let refusal = rig.caller.ask("texts", &[], large).await;
    refused_naming(ErrorCode::PayloadTooLarge, "10485760", refusal);
    rig.is_unharmed().await;
}
