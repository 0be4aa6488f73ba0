//! Components through a worker: stored, described, called in every form, refused by name.

use serde_json::{Value, json};
use wess_harness::guest;
use wess_schemas::module::Abi;
use wess_schemas::payload::PayloadRef;
use wess_schemas::{ErrorCode, Module, header};

use crate::rig::{Rig, fact, refused, refused_naming, wat};
use crate::support::assets;

const GREET: &str = "example:greet/greeter@1.0.0#greet";

/// Gives as many small numbers as it is asked for.
fn numbers() -> Vec<u8> {
    wat(r#"(component
        (core module $m (memory (export "memory") 200)
            (func (export "f") (param i32) (result i32)
                (i32.store (i32.const 12) (local.get 0)) (i32.store (i32.const 8) (i32.const 64)) (i32.const 8)))
        (core instance $m (instantiate $m))
        (func (export "f") (param "count" u32) (result (list u16))
            (canon lift (core func $m "f") (memory (core memory $m "memory")))))"#)
}

#[tokio::test]
async fn a_component_is_stored_described_and_called_in_every_form() {
    let rig = Rig::start(&[]).await;
    let module = rig.caller.store("greeter", guest("greeter")).await;
    assert_eq!((module.abi, module.propagated), (Abi::Component, Some(true)));
    let described: Module = rig
        .caller
        .ask_json("wess.modules.get.greeter", &json!({}))
        .await
        .unwrap();
    assert!(described.wit.unwrap().contains("record person {"));
    let greet = described
        .exports
        .iter()
        .find(|export| export.name == GREET)
        .unwrap();
    assert_eq!(greet.params, ["person", "tone"]);
    assert!(greet.args_schema.is_some() && greet.results_schema.is_some());
    for target in ["greeter.hello", "greeter.example:greet/greeter@1.0.0#hello"] {
        let reply = rig.caller.raw(target, "Ada").await.unwrap();
        assert_eq!(reply.payload, "Hello, Ada!", "{target}");
    }
    let reply = rig
        .caller
        .raw("greeter.greet", r#"[{"name":"Bo","age":17},"warm"]"#)
        .await
        .unwrap();
    assert_eq!(reply.payload, r#"{"ok":{"adult":false,"text":"Welcome, Bo!"}}"#);
    let outcome = rig
        .caller
        .invoke(json!({"module": "greeter", "function": "example:greet/greeter#greet", "args": [{"name": ""}, "plain"]}))
        .await
        .unwrap();
    assert_eq!(outcome.function, GREET);
    assert_eq!(outcome.results, Some(vec![json!({"err": "nobody to greet"})]));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_runs_or_waits() {
    let rig = Rig::start(&["greeter"]).await;
    let wrong =
        json!({"module": "greeter", "function": "greet", "args": [{"name": "Bo", "age": -1}, "warm"]});
    let named = "args[0].age: expected u8, got -1";
    let error = refused_naming(
        ErrorCode::InvalidArguments,
        named,
        rig.caller.invoke(wrong.clone()).await,
    );
    assert_eq!(error.error.detail["path"], json!("args[0].age"));
    let job: Result<Value, _> = rig
        .caller
        .ask_json("wess.jobs.submit", &json!({"invoke": wrong}))
        .await;
    refused_naming(ErrorCode::InvalidArguments, named, job);
    let nobody = rig.caller.raw("greeter.bye", "").await;
    refused_naming(ErrorCode::FunctionNotFound, GREET, nobody);
    let sockets = wat(r#"(component (import "wasi:sockets/tcp@0.3.0" (instance)))"#);
    refused_naming(
        ErrorCode::UnsupportedModule,
        "wasi:sockets/tcp@0.3.0",
        rig.caller.try_store("sockets", sockets).await,
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn results_too_large_for_a_message_travel_by_reference() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("numbers", numbers()).await;
    let payloads = assets(&rig.nats).await.payloads();
    let few = rig
        .caller
        .invoke(json!({"module": "numbers", "args": [1000]}))
        .await
        .unwrap();
    assert_eq!(few.results, Some(vec![Value::from(vec![0; 1000])]));
    let many = rig
        .caller
        .invoke(json!({"module": "numbers", "args": [1_000_000]}))
        .await
        .unwrap();
    assert_eq!((many.results, many.output), (None, None));
    let stored = payloads.get(&many.output_ref.unwrap(), u64::MAX).await.unwrap();
    let read: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(read[0].as_array().unwrap().len(), 1_000_000);
    let raw = rig
        .caller
        .ask("wess.invoke.numbers", &[(header::FACTS, "all")], "[1000000]")
        .await
        .unwrap();
    assert_eq!(fact(&raw, header::CONTENT_TYPE), Some("application/json"));
    let stored: PayloadRef = serde_json::from_str(fact(&raw, header::OUTPUT_REF).unwrap()).unwrap();
    assert_eq!(payloads.get(&stored, u64::MAX).await.unwrap().len(), 2_000_001);
    let too_many = json!({"module": "numbers", "args": [6_000_000]});
    refused(ErrorCode::OutputTooLarge, rig.caller.invoke(too_many).await);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_trace_alone_asks_for_no_facts_but_tells_what_results_are() {
    let rig = Rig::start(&["upper", "add"]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = [(header::TRACEPARENT, trace)];
    for (subject, input, names) in [
        ("wess.invoke.add", "[2,3]", vec![header::CONTENT_TYPE]),
        ("wess.invoke.upper", "a", vec![]),
    ] {
        let answer = rig.caller.ask(subject, &traced, input).await.unwrap();
        let told = answer.headers.unwrap_or_default();
        let told: Vec<&str> = told.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(told, names, "{subject}");
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_chain_passes_text_through_a_component() {
    let rig = Rig::start(&["upper", "greeter"]).await;
    let hello = json!({"module": "greeter", "function": "hello"});
    let chain = rig
        .caller
        .chain(json!({"steps": ["upper", hello, "upper"], "input": "Ada"}))
        .await
        .unwrap();
    assert_eq!(chain.output.as_deref(), Some("HELLO, ADA!"));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_component_outlives_its_worker_and_its_artifact() {
    let rig = Rig::start(&["greeter"]).await;
    let Rig { worker, caller, nats } = rig;
    let folder = worker.stop();
    let again = crate::rig::Worker::start_in(folder.path(), &nats, &[]);
    caller.is_back().await;
    let reply = caller.raw("greeter.hello", "Ada").await.unwrap();
    assert_eq!(reply.payload, "Hello, Ada!");
    assert_eq!(
        again.metric("wess_worker_registry_compilations_total").await,
        0,
        "the sealed file was not used"
    );
}
