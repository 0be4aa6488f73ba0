//! Chains under names: stored, described and deleted as modules are, and called wherever a module may be.

use futures_util::future::join_all;
use serde_json::{Value, json};
use wess_harness::guest;
use wess_schemas::job::{JobOutcome, JobState};
use wess_schemas::module::{Abi, Module, ModuleList};
use wess_schemas::{ErrorCode, Outcome, header};

use crate::bindings::{next, tells_env};
use crate::rig::{Answered, Caller, Rig, Worker, fact, parse, refused, refused_naming, spin};

impl Caller {
    async fn try_store_chain(&self, name: &str, steps: Value) -> Answered<Module> {
        let chain = json!({"steps": steps}).to_string();
        self.try_store(name, chain.into()).await
    }

    async fn store_chain(&self, name: &str, steps: Value) -> Module {
        self.try_store_chain(name, steps).await.unwrap()
    }
}

#[tokio::test]
async fn a_stored_chain_is_called_as_a_module_is() {
    let rig = Rig::start(&["upper", "in_place", "wordcount"]).await;
    let stored = rig
        .caller
        .store_chain("shout", json!(["upper", {"module": "in-place"}]))
        .await;
    assert_eq!(
        (stored.abi, stored.version, stored.stored),
        (Abi::Chain, 1, Some(true))
    );
    assert_eq!(stored.chain.unwrap().steps.len(), 2);
    let reply = rig.caller.raw("shout", "hello").await.unwrap();
    assert_eq!((&reply.payload[..], &reply.headers), (&b"OLLEH"[..], &None));
    let facts = [(header::FACTS, "all")];
    let reply = rig
        .caller
        .ask("wess.invoke.shout", &facts, "hello")
        .await
        .unwrap();
    assert_eq!(
        fact(&reply, header::MODULE_DIGEST).unwrap(),
        stored.digest.to_string()
    );
    let call = json!({"module": "shout", "input": "hello"});
    let outcome = rig.caller.invoke(call).await.unwrap();
    assert_eq!(
        (outcome.output.as_deref(), outcome.module.name.unwrap().as_str()),
        (Some("OLLEH"), "shout")
    );
    let names: Vec<_> = outcome
        .steps
        .iter()
        .map(|step| step.module.name.clone().unwrap())
        .collect();
    assert_eq!(
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["upper", "in-place"]
    );
    let steps_us: u64 = outcome.steps.iter().map(|step| step.stats.run_us).sum();
    assert_eq!(outcome.stats.run_us, steps_us);
    for reference in [stored.digest.to_string(), stored.id.to_string(), "shout@1".into()] {
        assert_eq!(rig.caller.raw(&reference, "ab").await.unwrap().payload, "BA");
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_chain_has_versions_and_tags_and_its_steps_are_found_when_it_is_called() {
    let rig = Rig::start(&["upper"]).await;
    let caller = &rig.caller;
    caller.store_chain("both", json!(["upper", "later"])).await;
    let late = refused_naming(
        ErrorCode::ModuleNotFound,
        "steps[1]",
        caller.raw("both", "a b").await,
    );
    assert_eq!(late.error.detail["failed_step"], 1);
    assert_eq!(late.error.detail["steps"].as_array().unwrap().len(), 1);
    assert!(late.error.guest_ran);
    caller.store("later", guest("wordcount")).await;
    assert_eq!(caller.raw("both", "a b").await.unwrap().payload, "0 2 3\n");
    let again = caller.store_chain("both", json!(["upper", "later"])).await;
    assert_eq!((again.version, again.stored), (1, Some(false)));
    let second = caller.store_chain("both", json!(["upper"])).await;
    assert_eq!(second.version, 2);
    assert_eq!(caller.raw("both", "a b").await.unwrap().payload, "A B");
    let tag = json!({"tag": "old", "version": 1});
    let _: Module = caller.ask_json("wess.modules.tag.both", &tag).await.unwrap();
    assert_eq!(caller.raw("both@old", "a b").await.unwrap().payload, "0 2 3\n");
    let list: ModuleList = caller.ask_json("wess.modules.list", &json!({})).await.unwrap();
    let listed: Vec<_> = list
        .modules
        .iter()
        .map(|module| (module.name.as_str(), module.abi))
        .collect();
    assert!(listed.contains(&("both", Abi::Chain)), "{listed:?}");
    let _: Value = caller
        .ask_json("wess.modules.delete.both", &json!({}))
        .await
        .unwrap();
    refused(ErrorCode::ModuleNotFound, caller.raw("both", "a").await);
}

#[tokio::test]
async fn a_name_is_a_modules_or_a_chains() {
    let rig = Rig::start(&["upper"]).await;
    let chain = rig.caller.try_store_chain("upper", json!(["upper@1"])).await;
    refused_naming(ErrorCode::InvalidRequest, "steps[0]", chain);
    rig.caller.store("plain", guest("upper")).await;
    let chain = rig.caller.try_store_chain("plain", json!(["upper"])).await;
    refused_naming(ErrorCode::Conflict, "plain is a module", chain);
    rig.caller.store_chain("shout", json!(["upper"])).await;
    let module = rig.caller.try_store("shout", guest("upper")).await;
    refused_naming(ErrorCode::Conflict, "shout is a chain", module);
    assert_eq!(rig.caller.raw("shout", "a").await.unwrap().payload, "A");
}

#[tokio::test]
async fn no_chain_is_a_step_of_one() {
    let rig = Rig::start(&["upper"]).await;
    let caller = &rig.caller;
    caller.store_chain("inner", json!(["upper"])).await;
    for steps in [json!(["upper", "inner"]), json!(["upper", "outer"])] {
        let nested = caller.try_store_chain("outer", steps).await;
        refused_naming(ErrorCode::InvalidRequest, "steps[1]", nested);
    }
    // What was not there when it was stored is seen when it is called.
    caller.store_chain("outer", json!(["upper", "soon"])).await;
    caller.store_chain("soon", json!(["upper"])).await;
    let nested = refused_naming(
        ErrorCode::InvalidRequest,
        "soon is a chain",
        caller.raw("outer", "a").await,
    );
    assert_eq!(nested.error.detail["failed_step"], 1);
    let chain = json!({"steps": ["inner"], "input": "a"});
    refused_naming(
        ErrorCode::InvalidRequest,
        "inner is a chain",
        caller.chain(chain.clone()).await,
    );
    let job: Answered<Value> = caller
        .ask_json("wess.jobs.submit", &json!({"chain": chain}))
        .await;
    refused_naming(ErrorCode::InvalidRequest, "inner is a chain", job);
}

#[tokio::test]
async fn what_is_no_chain_is_refused_by_name_and_leaves_nothing() {
    let rig = Rig::start(&["upper"]).await;
    let own_input = json!([{"module": "upper", "input": "a"}]);
    let limit = json!([{"module": "upper", "limits": {"timeout_ms": 600_000}}]);
    for (steps, named) in [
        (json!([]), "1 to 10 steps, not 0"),
        (json!(vec!["upper"; 11]), "not 11"),
        (own_input, "steps[0] has an input"),
        (limit, "timeout_ms"),
        (json!([{"module": "upper", "colour": 1}]), "colour"),
        (json!(["NO"]), "module reference"),
    ] {
        let chain = rig.caller.try_store_chain("bad", steps).await;
        refused_naming(ErrorCode::InvalidRequest, named, chain);
    }
    let wide = json!([{"module": "upper", "env": {"A": "a".repeat(70_000)}}]);
    let large = rig.caller.try_store_chain("bad", wide).await;
    refused_naming(ErrorCode::PayloadTooLarge, "65536", large);
    let chain = json!({"steps": ["upper"]}).to_string();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, chain);
    for (terms, named) in [
        (json!({"limits": {"timeout_ms": 5}}), "limits"),
        (json!({"settings": {"env": {"A": "1"}}}), "settings"),
    ] {
        let mut request = json!({"name": "bad", "wasm_base64": base64});
        request
            .as_object_mut()
            .unwrap()
            .extend(terms.as_object().unwrap().clone());
        let stored: Answered<Module> = rig.caller.ask_json("wess.store", &request).await;
        refused_naming(ErrorCode::InvalidRequest, named, stored);
    }
    refused(ErrorCode::ModuleNotFound, rig.caller.raw("bad", "a").await);
    let about = json!({"name": "good", "wasm_base64": base64, "settings": {"description": "loud"}});
    let stored: Module = rig.caller.ask_json("wess.store", &about).await.unwrap();
    assert_eq!(stored.settings.description.as_deref(), Some("loud"));
}

#[tokio::test]
async fn a_chain_is_stored_again_by_its_digest_with_another_description_or_name() {
    let rig = Rig::start(&["upper"]).await;
    let digest = rig.caller.store_chain("shout", json!(["upper"])).await.digest;
    let about = json!({"description": "loud"});
    let again = json!({"name": "shout", "digest": digest, "settings": about});
    let described: Module = rig.caller.ask_json("wess.store", &again).await.unwrap();
    assert_eq!((described.version, described.abi), (2, Abi::Chain));
    let other = json!({"name": "yell", "digest": digest});
    let yell: Module = rig.caller.ask_json("wess.store", &other).await.unwrap();
    assert_eq!((yell.version, yell.chain), (1, described.chain));
    assert_eq!(rig.caller.raw("yell", "a").await.unwrap().payload, "A");
    let limited = json!({"name": "shout", "digest": digest, "limits": {"fuel": 5}});
    let limited: Answered<Module> = rig.caller.ask_json("wess.store", &limited).await;
    refused_naming(ErrorCode::InvalidRequest, "limits", limited);
}

#[tokio::test]
async fn what_a_chain_cannot_take_is_refused_before_a_step_runs() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.store_chain("shout", json!(["upper"])).await;
    let function = rig.caller.raw("shout.process", "a").await;
    refused_naming(ErrorCode::FunctionNotFound, "shout is a chain", function);
    let args = rig.caller.invoke(json!({"module": "shout", "args": [1]})).await;
    let refusal = refused_naming(ErrorCode::InvalidRequest, "takes an input", args);
    assert!(!refusal.error.guest_ran);
    let http = rig.caller.ask("wess.http.shout", &[], "").await;
    refused_naming(ErrorCode::Unsupported, "shout is a chain", http);
}

#[tokio::test]
async fn the_limits_of_a_call_hold_for_the_whole_chain_and_for_steps_that_state_none() {
    let rig = Rig::start(&["upper", "spin"]).await;
    let long = json!([{"module": "spin", "function": "spin", "limits": {"timeout_ms": 20_000}}]);
    rig.caller.store_chain("long", long).await;
    let call = json!({"module": "long", "wait_ms": 50, "limits": {"timeout_ms": 100}});
    let late = refused_naming(
        ErrorCode::DeadlineExceeded,
        "steps[0]",
        rig.caller.invoke(call).await,
    );
    assert_eq!(late.error.detail["failed_step"], 0);
    // Its guest has gone with it.
    rig.worker.comes_to_rest().await;
    rig.caller
        .store_chain(
            "loud",
            json!(["upper", {"module": "upper", "limits": {"output_bytes": 9}}]),
        )
        .await;
    let call = |bytes: u64| json!({"module": "loud", "input": "hello", "limits": {"output_bytes": bytes}});
    refused_naming(
        ErrorCode::OutputTooLarge,
        "steps[0]",
        rig.caller.invoke(call(4)).await,
    );
    assert!(rig.caller.invoke(call(5)).await.is_ok());
    let own = json!({"module": "loud", "input": "hello sea!"});
    refused_naming(
        ErrorCode::OutputTooLarge,
        "steps[1]",
        rig.caller.invoke(own).await,
    );
}

#[tokio::test]
async fn a_calls_environment_is_that_of_each_step_but_where_a_step_says_its_own() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("tells", tells_env()).await;
    let own = json!({"module": "tells", "env": {"A": "own"}});
    rig.caller.store_chain("told", json!([own])).await;
    let call = json!({"module": "told", "env": {"A": "call", "B": "call"}});
    let outcome = rig.caller.invoke(call).await.unwrap();
    let told: Value = serde_json::from_str(&outcome.output.unwrap()).unwrap();
    assert_eq!(told, json!({"A": "own", "B": "call"}));
}

#[tokio::test]
async fn jobs_keys_and_bindings_take_a_chain_for_a_module() {
    let rig = Rig::start(&["upper", "counter"]).await;
    rig.caller.store_chain("shout", json!(["upper", "upper"])).await;
    let job = rig
        .caller
        .job(json!({"invoke": {"module": "shout", "input": "a"}}))
        .await;
    let Some(JobOutcome::Invoke(outcome)) = &job.outcome else {
        panic!("{job:?}")
    };
    assert_eq!(
        (job.state, outcome.output.as_deref(), outcome.steps.len()),
        (JobState::Succeeded, Some("A"), 2)
    );
    rig.caller.store_chain("count", json!(["counter"])).await;
    let key = [(header::MSG_ID, "once")];
    for _ in 0..3 {
        let reply = rig.caller.ask("wess.invoke.count", &key, "").await.unwrap();
        assert_eq!(reply.payload, "1");
    }
    let mut heard = rig.caller.listen("loud").await;
    rig.caller
        .bind(
            "shouts",
            json!({"module": "shout", "subject": "quiet", "publish_to": "loud"}),
        )
        .await;
    rig.caller.publish("quiet", "hush").await;
    assert_eq!(next(&mut heard).await, "HUSH");
    let misfit = json!({"module": "shout", "function": "f", "subject": "quiet"});
    refused(
        ErrorCode::FunctionNotFound,
        rig.caller.try_bind("wrong", misfit).await,
    );
}

#[tokio::test]
async fn a_large_last_output_is_stored_and_a_large_one_between_is_not() {
    let rig = Rig::start(&["upper", "wordcount"]).await;
    rig.caller.store_chain("loud", json!(["upper", "upper"])).await;
    let text = "a".repeat(700_000);
    let outcome = rig
        .caller
        .invoke(json!({"module": "loud", "input": text}))
        .await
        .unwrap();
    assert_eq!(outcome.output_ref.unwrap().size, 700_000);
    rig.worker.comes_to_rest().await;
    rig.caller
        .store_chain("count", json!(["upper", "wordcount"]))
        .await;
    let counted = rig.caller.raw("count", text).await.unwrap();
    assert_eq!(
        (&counted.payload[..], counted.headers),
        (&b"0 1 700000\n"[..], None)
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_stopping_worker_finishes_the_chains_that_it_runs() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.store("nap", crate::rig::nap(300)).await;
    rig.caller
        .store_chain("slow", json!(["nap", "nap", "upper"]))
        .await;
    let call = rig.caller.begin(json!({"module": "slow", "input": "a"}));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    assert!(rig.worker.stop().path().exists());
    let outcome: Outcome = call.await.unwrap().unwrap();
    assert_eq!(outcome.steps.len(), 3);
}

#[tokio::test]
async fn a_chain_that_finds_no_slot_goes_to_a_worker_that_has_one() {
    let flags = ["--executors", "1", "--slots", "1"];
    let rig = Rig::with(&flags, &["upper", "spin"]).await;
    rig.caller.store_chain("shout", json!(["upper", "upper"])).await;
    let held = rig.caller.begin(spin(20_000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let waiting = rig.caller.begin(json!({"module": "shout", "input": "a"}));
    rig.worker.shows("wess_worker_spilled_calls_total", 1).await;
    let other = Worker::start(&rig.nats, &flags);
    let outcome = waiting.await.unwrap().unwrap();
    assert_eq!(
        (outcome.output.as_deref(), outcome.worker.as_str()),
        (Some("A"), &*other.id())
    );
    held.abort();
}

#[tokio::test]
async fn two_workers_know_a_chain_by_its_record() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.store_chain("shout", json!(["upper"])).await;
    let other = Worker::start(&rig.nats, &[]);
    drop(rig.worker);
    let described: Module = parse(&rig.caller.ask("wess.modules.get.shout", &[], "").await.unwrap());
    assert_eq!(described.chain.unwrap().steps.len(), 1);
    assert_eq!(rig.caller.raw("shout", "a").await.unwrap().payload, "A");
    assert!(other.stop().path().exists());
}

#[tokio::test]
async fn there_are_only_so_many_chains_at_once() {
    const MOST: usize = 1024;
    let flags = ["--executors", "1", "--slots", "1", "--queue", "4096"];
    let rig = Rig::with(&flags, &["upper", "spin"]).await;
    rig.caller.store_chain("shout", json!(["upper"])).await;
    rig.caller.raw("shout", "a").await.unwrap();
    rig.caller.take_queue_away().await;
    let held = rig.caller.begin(spin(20_000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let call = |_| {
        rig.caller
            .invoke(json!({"module": "shout", "input": "a", "wait_ms": 1500}))
    };
    let ended = join_all((0..MOST + 10).map(call)).await;
    let codes: Vec<_> = ended.into_iter().map(|ended| ended.unwrap_err().code()).collect();
    let of = |code| codes.iter().filter(|other| **other == code).count();
    assert_eq!((of(ErrorCode::Overloaded), of(ErrorCode::Expired)), (10, MOST));
    held.abort();
}
