//! What a module's owner says of it: part of each version, given to its guests, checked before it is stored.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use wess_schemas::job::JobOutcome;
use wess_schemas::subject::state_key;
use wess_schemas::{ErrorCode, Module, Outcome};

use crate::rig::{Answered, Caller, Rig, refused, refused_naming};
use crate::support::assets;

impl Caller {
    async fn store_json(&self, request: Value) -> Answered<Module> {
        self.ask_json("wess.store", &request).await
    }

    /// Gives the newest bytes of a module other settings.
    pub async fn configure(&self, name: &str, settings: Value) -> Answered<Module> {
        let newest: Module = self
            .ask_json(&format!("wess.modules.get.{name}"), &json!({}))
            .await?;
        self.store_json(json!({"name": name, "digest": newest.digest, "settings": settings}))
            .await
    }

    async fn greeting(&self, reference: &str, env: Value) -> String {
        let call = json!({"module": reference, "input": "Ada", "env": env});
        self.invoke(call).await.unwrap().output.unwrap()
    }
}

#[tokio::test]
async fn a_modules_environment_is_its_versions_own_and_no_caller_changes_it() {
    let rig = Rig::start(&["greet"]).await;
    let plain = rig.caller.greeting("greet", json!({})).await;
    assert!(plain.starts_with("Hello"), "{plain}");
    let module = rig
        .caller
        .configure(
            "greet",
            json!({"env": {"GREETING": "Salut"}, "description": "greets"}),
        )
        .await
        .unwrap();
    assert_eq!((module.version, module.stored), (2, Some(true)));
    assert_eq!(module.versions[0].digest, module.versions[1].digest);
    let theirs = json!({"GREETING": "Hi", "OTHER": "x"});
    assert!(
        rig.caller
            .greeting("greet", theirs.clone())
            .await
            .starts_with("Salut")
    );
    // The first version has none, and is what a tag leads back to.
    assert!(rig.caller.greeting("greet@1", theirs).await.starts_with("Hi"));
    let again = rig
        .caller
        .configure(
            "greet",
            json!({"env": {"GREETING": "Salut"}, "description": "greets"}),
        )
        .await
        .unwrap();
    assert_eq!((again.version, again.stored), (2, Some(false)));
    let other = rig.caller.store("greet", wess_harness::guest("upper")).await;
    assert_eq!((other.version, other.settings), (3, module.settings));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn settings_of_raw_bytes_come_by_header() {
    let rig = Rig::start(&[]).await;
    let headers = [
        ("Wess-Module", "greet"),
        ("Wess-Settings", r#"{"env":{"GREETING":"Salut"}}"#),
    ];
    let stored = rig
        .caller
        .ask("wess.store", &headers, wess_harness::guest("greet"))
        .await;
    stored.unwrap();
    assert!(rig.caller.greeting("greet", json!({})).await.starts_with("Salut"));
    let wrong = [("Wess-Module", "greet"), ("Wess-Settings", "{")];
    let refusal = rig
        .caller
        .ask("wess.store", &wrong, wess_harness::guest("greet"))
        .await;
    refused_naming(ErrorCode::InvalidRequest, "Wess-Settings", refusal);
}

#[tokio::test]
async fn what_no_module_may_have_is_refused_by_name_and_stores_nothing() {
    let rig = Rig::start(&["upper"]).await;
    for (settings, named) in [
        (json!({"grants": {"publish": ["wess.store"]}}), "wess.store"),
        (json!({"grants": {"publish": ["wess.>"]}}), "wess.>"),
        (json!({"grants": {"publish": ["$JS.API.>"]}}), "$JS.API.>"),
        (json!({"env": {"A B": ""}}), "A B"),
        (json!({"granted": {}}), "granted"),
    ] {
        let answer = rig.caller.configure("upper", settings).await;
        refused_naming(ErrorCode::InvalidRequest, named, answer);
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    let unknown = rig
        .caller
        .store_json(json!({"name": "upper", "digest": digest}))
        .await;
    refused(ErrorCode::ModuleNotFound, unknown);
    let module: Module = rig
        .caller
        .ask_json("wess.modules.get.upper", &json!({}))
        .await
        .unwrap();
    assert_eq!(module.versions.len(), 1);
}

#[tokio::test]
async fn a_deterministic_module_sees_its_job_and_nothing_else_of_the_world() {
    let rig = Rig::start(&["world", "counter"]).await;
    for name in ["world", "counter"] {
        let settings = json!({"deterministic": true});
        rig.caller.configure(name, settings).await.unwrap();
    }
    let outcome = rig.caller.invoke(json!({"module": "world"})).await.unwrap();
    let made = outcome.job_id.made_at().unwrap();
    assert_eq!(time_of_day(&outcome), made.unix_ms() * 1_000_000);

    // A key tells no time; the queue knows when the job came.
    let submitted = json!({"invoke": {"module": "world"}}).to_string();
    let key = [("Nats-Msg-Id", "not-a-time")];
    rig.caller.ask("wess.jobs.submit", &key, submitted).await.unwrap();
    let job = rig.caller.end_of("not-a-time").await;
    let Some(JobOutcome::Invoke(outcome)) = &job.outcome else {
        panic!("{job:?}")
    };
    assert_eq!(time_of_day(outcome), job.submitted.unix_ms() * 1_000_000);

    let counted = rig.caller.invoke(json!({"module": "counter"})).await;
    refused_naming(ErrorCode::GuestTrapped, "deterministic", counted);
    let both = json!({"deterministic": true, "grants": {"publish": ["a"]}});
    let both = rig.caller.configure("world", both).await;
    refused_naming(ErrorCode::InvalidRequest, "deterministic", both);
    rig.is_unharmed().await;
}

/// What `guests/plugin/world.wat` was shown as the time of day, in nanoseconds.
fn time_of_day(outcome: &Outcome) -> u64 {
    let output = outcome.output_base64.as_ref().unwrap();
    let output = BASE64_STANDARD.decode(output).unwrap();
    u64::from_le_bytes(output[32..40].try_into().unwrap())
}

#[tokio::test]
async fn a_job_stores_settings_as_a_request_does() {
    let rig = Rig::start(&["greet"]).await;
    let newest: Module = rig
        .caller
        .ask_json("wess.modules.get.greet", &json!({}))
        .await
        .unwrap();
    let store = json!({"name": "greet", "digest": newest.digest, "settings": {"env": {"GREETING": "Salut"}}});
    let job = rig.caller.job(json!({"store": store})).await;
    assert_eq!(job.state, wess_schemas::job::JobState::Succeeded, "{job:?}");
    assert!(rig.caller.greeting("greet", json!({})).await.starts_with("Salut"));
}

/// A component that asks for all that settings can give.
async fn granted(settings: Value) -> Rig {
    let rig = Rig::start(&[]).await;
    rig.caller.store("granted", wess_harness::guest("granted")).await;
    rig.caller.configure("granted", settings).await.unwrap();
    rig
}

impl Caller {
    async fn result(&self, function: &str, args: Value) -> Value {
        let call = json!({"module": "granted", "function": function, "args": args});
        let results = self.invoke(call).await.unwrap().results;
        results.unwrap_or_default().pop().unwrap_or_default()
    }
}

#[tokio::test]
async fn guests_read_their_configuration_and_write_their_log() {
    let rig = granted(json!({"config": {"size.max": "9"}})).await;
    let mut lines = rig.caller.client.subscribe("wess.logs.granted").await.unwrap();
    // The server knows of the subscription before the call is made.
    rig.caller.client.flush().await.unwrap();
    assert_eq!(
        rig.caller.result("config", json!(["size.max"])).await,
        json!({"ok": "9"})
    );
    assert_eq!(
        rig.caller.result("config", json!(["size.min"])).await,
        json!({"ok": null})
    );
    rig.caller.result("log", json!(["all is well"])).await;
    let line = futures_util::StreamExt::next(&mut lines).await.unwrap();
    assert_eq!(line.payload, "warn: all is well");
}

#[tokio::test]
async fn key_value_state_is_denied_unless_granted_and_then_shared_by_all_workers() {
    let rig = granted(json!({"description": "may do nothing"})).await;
    for (function, args) in [
        ("get", json!(["a"])),
        ("set", json!(["a", [1]])),
        ("increment", json!(["a", 1])),
        ("keys", json!([null])),
    ] {
        assert_eq!(
            rig.caller.result(function, args).await,
            json!({"err": "access-denied"}),
            "{function}"
        );
    }
    rig.caller
        .configure("granted", json!({"grants": {"keyvalue": true}}))
        .await
        .unwrap();
    let _other = crate::rig::Worker::start(&rig.nats, &[]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    assert_eq!(rig.caller.result("get", json!(["a"])).await, json!({"ok": null}));
    assert_eq!(
        rig.caller.result("set", json!(["a", [104, 105]])).await,
        json!({"ok": null})
    );
    for _ in 0..8 {
        assert_eq!(
            rig.caller.result("get", json!(["a"])).await,
            json!({"ok": {"base64": "aGk="}})
        );
    }
    // Adding is one step, whoever adds at the same moment.
    let sums =
        futures_util::future::join_all((0..20).map(|_| rig.caller.result("increment", json!(["n", 3]))))
            .await;
    let mut sums: Vec<u64> = sums.iter().map(|sum| sum["ok"].as_u64().unwrap()).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=20).map(|times| times * 3).collect::<Vec<_>>());
    let other = |answer: Value| answer["err"]["other"].as_str().unwrap().to_owned();
    let no_number = other(rig.caller.result("increment", json!(["a", 1])).await);
    assert!(no_number.contains("no decimal number"), "{no_number}");
    let keys = rig.caller.result("keys", json!([null])).await;
    assert_eq!(keys, json!({"ok": {"keys": ["a", "n"], "cursor": null}}));
    let long = other(rig.caller.result("get", json!(["k".repeat(257)])).await);
    assert!(long.contains("at most 256 bytes, not 257"), "{long}");
}

#[tokio::test]
async fn a_listing_reads_10_000_keys_and_no_more() {
    let rig = granted(json!({"grants": {"keyvalue": true}})).await;
    let state = assets(&rig.nats).await.state;
    let module = "granted".parse().unwrap();
    let keys: Vec<_> = (0..=10_000)
        .map(|at| state_key(&module, format!("{at:05}").as_bytes()))
        .collect();
    stream::iter(&keys[1..])
        .for_each_concurrent(64, |key| async {
            state.put(key.as_str(), Bytes::new()).await.unwrap();
        })
        .await;
    let last = rig.caller.result("keys", json!([9000])).await["ok"].clone();
    let names = last["keys"].as_array().unwrap();
    assert_eq!((names.len(), &names[999]), (1000, &json!("10000")));
    assert_eq!(last["cursor"], Value::Null);
    state.put(keys[0].as_str(), Bytes::new()).await.unwrap();
    let refused = rig.caller.result("keys", json!([null])).await;
    let text = refused["err"]["other"].as_str().unwrap();
    assert!(text.contains("more keys than can be listed"), "{text}");
}

#[tokio::test]
async fn a_guest_publishes_where_its_module_may_and_nowhere_else() {
    let publisher = r#"(module
        (import "host" "publish" (func $publish (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "hello")
        (func (export "process") (param i32 i32) (result i32)
            (call $publish (local.get 0) (local.get 1) (i32.const 0) (i32.const 5)))
        (func (export "alloc") (param i32) (result i32) (i32.const 1024)))"#;
    let rig = Rig::start(&[]).await;
    rig.caller.store("tell", crate::rig::wat(publisher)).await;
    let mut heard = rig.caller.client.subscribe("orders.>").await.unwrap();
    rig.caller.client.flush().await.unwrap();
    let tell = async |subject: &str| {
        let call = json!({"module": "tell", "input": subject});
        rig.caller.invoke(call).await.unwrap().exit_code.unwrap()
    };
    assert_eq!(tell("orders.new").await, -1, "nothing is granted");
    rig.caller
        .configure("tell", json!({"grants": {"publish": ["orders.*", "audit.>"]}}))
        .await
        .unwrap();
    for refused in [
        "orders.new.eu",
        "orders",
        "billing.new",
        "wess.store",
        "$JS.API.INFO",
        "orders.*",
        "",
    ] {
        assert_eq!(tell(refused).await, -1, "{refused}");
    }
    assert_eq!(tell("orders.new").await, 0);
    let message = futures_util::StreamExt::next(&mut heard).await.unwrap();
    assert_eq!(
        (message.subject.as_str(), &message.payload[..]),
        ("orders.new", b"hello".as_slice())
    );
}
