//! The worker as any client of the NATS Services API finds it.

use serde_json::Value;
use wess_harness::NatsServer;

use crate::rig::{Caller, Rig, Worker, parse};

const VERBS: [(&str, &str); 3] = [("PING", "ping"), ("INFO", "info"), ("STATS", "stats")];

/// Each endpoint in its order: subject, request, media types, response, headers that count.
const ENDPOINTS: [(&str, &str, &str, &str, &str); 23] = [
    ("wess.invoke", "invocation", JSON, "outcome", OF_CALLS),
    ("wess.invoke.>", "raw input", "*/*", "raw output", OF_RAW_CALLS),
    (
        "wess.http.*",
        "the body of an HTTP request",
        "*/*",
        "the body of its response",
        OF_HTTP,
    ),
    ("wess.chain", "chain-request", JSON, "chain-outcome", WITH_KEY),
    ("wess.store", "store-request", MODULES, "module", OF_STORES),
    ("wess.modules.list", "list-request", JSON, "module-list", ""),
    ("wess.modules.get.*", "", NOTHING, "module", ""),
    ("wess.modules.delete.*", "", NOTHING, "deleted", ""),
    ("wess.modules.tag.*", "tag-request", JSON, "module", ""),
    ("wess.modules.fetch.*", "", NOTHING, "blob-location", ""),
    ("wess.jobs.submit", "job-request", JSON, "job-record", WITH_KEY),
    ("wess.jobs.get.*", "", NOTHING, "job-record", ""),
    ("wess.jobs.wait.*", "job-wait-request", JSON, "job-record", ""),
    ("wess.jobs.cancel.*", "", NOTHING, "job-record", ""),
    ("wess.jobs.list", "job-list-request", JSON, "job-list", ""),
    ("wess.dead.list", "dead-list-request", JSON, "dead-list", ""),
    ("wess.dead.get.*", "", NOTHING, "dead-letter", ""),
    ("wess.dead.redrive.*", "", NOTHING, "job-record", ""),
    ("wess.dead.purge", "dead-purge-request", JSON, "dead-purged", ""),
    ("wess.bindings.put.*", "binding-request", JSON, "binding", ""),
    ("wess.bindings.list", "", NOTHING, "binding-list", ""),
    ("wess.bindings.get.*", "", NOTHING, "binding", ""),
    ("wess.bindings.delete.*", "", NOTHING, "unbound", ""),
];
const JSON: &str = "application/json";
const NOTHING: &str = "an empty body";
const MODULES: &str = "application/wasm with the header Wess-Module, application/json without";
const OF_CALLS: &str = "Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, Nats-Msg-Id, traceparent";
const OF_RAW_CALLS: &str = "Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, Wess-Input-Ref, Wess-Facts, Nats-Msg-Id, traceparent";
const OF_HTTP: &str = "Wess-Http-Method, Wess-Http-Path, Wess-Http-Authority, Wess-Http-Scheme, Wess-Http-Headers, Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, traceparent";
const WITH_KEY: &str = "Nats-Msg-Id, traceparent";
const OF_STORES: &str = "Wess-Module, Wess-Settings, Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel";

async fn ask(caller: &Caller, subject: &str) -> Value {
    parse(&caller.ask(subject, &[], "").await.unwrap())
}

#[tokio::test]
async fn every_question_is_answered_with_its_type_to_everybody_to_the_service_and_to_one_worker() {
    let rig = Rig::start(&[]).await;
    for (verb, word) in VERBS {
        for tail in [
            String::new(),
            ".wess".into(),
            format!(".wess.{}", rig.worker.id()),
        ] {
            let answer = ask(&rig.caller, &format!("$SRV.{verb}{tail}")).await;
            assert_eq!(
                answer["type"],
                format!("io.nats.micro.v1.{word}_response"),
                "{verb}{tail}"
            );
            assert_eq!(
                (&answer["name"], answer["id"].as_str()),
                (&"wess".into(), Some(&*rig.worker.id()))
            );
        }
    }
}

#[tokio::test]
async fn info_says_what_every_endpoint_takes_and_stats_what_it_has_done() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller.raw("upper", "hello").await.unwrap();
    rig.caller.raw("nobody", "").await.unwrap_err();
    let info = ask(&rig.caller, "$SRV.INFO.wess").await;
    let endpoints = info["endpoints"].as_array().unwrap();
    let listed: Vec<_> = endpoints.iter().map(|endpoint| &endpoint["subject"]).collect();
    assert_eq!(listed, ENDPOINTS.map(|(subject, ..)| subject));
    for (endpoint, (subject, request, accepts, response, headers)) in endpoints.iter().zip(ENDPOINTS) {
        let metadata = &endpoint["metadata"];
        let said =
            ["request", "accepts", "response", "headers"].map(|fact| metadata[fact].as_str().unwrap_or(""));
        assert_eq!(said, [request, accepts, response, headers], "{subject}");
        assert_eq!(
            (&endpoint["queue_group"], &metadata["errors"]),
            (&"wess".into(), &"error".into())
        );
    }
    let bound = |at: usize, name: &str| endpoints[at]["metadata"][name].as_str().map(str::to_owned);
    for at in [0, 1] {
        assert_eq!(bound(at, "max_input_bytes"), Some((10 << 20).to_string()));
    }
    assert_eq!(bound(3, "max_steps"), Some("10".into()));
    assert_eq!(bound(4, "max_module_bytes"), Some((64 << 20).to_string()));
    let stats = ask(&rig.caller, "$SRV.STATS.wess").await;
    let count = |name: &str| {
        let endpoint = stats["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .find(|endpoint| endpoint["name"] == name)
            .unwrap();
        (
            endpoint["num_requests"].as_u64().unwrap(),
            endpoint["num_errors"].as_u64().unwrap(),
            endpoint["last_error"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!((count("store").0, count("store").1), (2, 0));
    let (requests, errors, last_error) = count("invoke-raw");
    assert_eq!((requests, errors), (2, 1));
    assert!(last_error.contains("module_not_found"), "{last_error}");
    let counted: Vec<_> = stats["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| (&endpoint["name"], &endpoint["subject"], &endpoint["queue_group"]))
        .collect();
    let informed: Vec<_> = endpoints
        .iter()
        .map(|endpoint| (&endpoint["name"], &endpoint["subject"], &endpoint["queue_group"]))
        .collect();
    assert_eq!(counted, informed);
}

#[tokio::test]
async fn every_subject_that_info_lists_is_served_and_counted_under_its_name() {
    let rig = Rig::start(&[]).await;
    let called = [
        ("invoke", "wess.invoke"),
        ("invoke-raw", "wess.invoke.nobody.f"),
        ("http", "wess.http.nobody"),
        ("chain", "wess.chain"),
        ("store", "wess.store"),
        ("modules-list", "wess.modules.list"),
        ("modules-get", "wess.modules.get.nobody"),
        ("modules-delete", "wess.modules.delete.nobody"),
        ("modules-tag", "wess.modules.tag.nobody"),
        ("modules-fetch", "wess.modules.fetch.nobody"),
    ];
    let before = ask(&rig.caller, "$SRV.STATS.wess").await;
    for (_, subject) in called {
        rig.caller.ask(subject, &[], "{]").await.unwrap_err();
    }
    let after = ask(&rig.caller, "$SRV.STATS.wess").await;
    for (at, (name, subject)) in called.into_iter().enumerate() {
        let [before, after] = [&before, &after].map(|stats| &stats["endpoints"][at]);
        assert_eq!(after["name"], name, "{subject}");
        for number in ["num_requests", "num_errors"] {
            let more = after[number].as_u64().unwrap() - before[number].as_u64().unwrap();
            assert_eq!(more, 1, "{number} of {name}");
        }
    }
}

#[tokio::test]
async fn a_question_without_a_reply_subject_hurts_nobody() {
    let rig = Rig::start(&[]).await;
    for (verb, _) in VERBS {
        for tail in ["", ".wess", ".nobody"] {
            rig.caller
                .client
                .publish(format!("$SRV.{verb}{tail}"), "".into())
                .await
                .unwrap();
        }
    }
    assert_eq!(ask(&rig.caller, "$SRV.PING.wess").await["name"], "wess");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn every_worker_of_a_fleet_answers_for_itself() {
    let nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    let inbox = caller.client.new_inbox();
    let mut answers = caller.client.subscribe(inbox.clone()).await.unwrap();
    caller
        .client
        .publish_with_reply("$SRV.PING", inbox, "".into())
        .await
        .unwrap();
    let mut found = Vec::new();
    for _ in &workers {
        let answer: Value = parse(&futures_util::StreamExt::next(&mut answers).await.unwrap());
        found.push(answer["id"].as_str().unwrap().to_owned());
    }
    found.sort();
    let mut ids = workers.each_ref().map(Worker::id);
    ids.sort();
    assert_eq!(found, ids);
}
