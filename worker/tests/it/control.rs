//! The control plane over NATS: three forms of store, questions about modules, discovery, and no forged reply.

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use wess_harness::{NatsServer, eventually};
use wess_service::bus::{Bus, Request};

use crate::support::{Running, assets, digest_of, wasm};

fn module_header(name: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Wess-Module", name);
    headers
}

fn names(list: &Value) -> Vec<&str> {
    list["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| module["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_module_is_stored_in_three_forms_and_each_says_that_it_has_spread() {
    let server = NatsServer::start();
    let worker = Running::start(&server).await;
    let raw = worker
        .client
        .request_with_headers("wess.store", module_header("raw"), wasm(1).into())
        .await
        .unwrap();
    let raw: Value = serde_json::from_slice(&raw.payload).unwrap();
    assert_eq!(
        (&raw["name"], &raw["version"], &raw["stored"]),
        (&json!("raw"), &json!(1), &json!(true))
    );
    assert_eq!((&raw["propagated"], &raw["abi"]), (&json!(true), &json!("typed")));

    let within = json!({ "name": "within", "wasm_base64": BASE64.encode(wasm(2)), "limits": { "fuel": 9 } });
    let within = worker.ask("wess.store", within.to_string()).await;
    assert_eq!(
        (&within["name"], &within["limits"]),
        (&json!("within"), &json!({ "fuel": 9 }))
    );

    let uploads = assets(&server).await.payloads();
    let upload = uploads.put(&wasm(3)).await.unwrap();
    let order = json!({ "name": "uploaded", "digest": upload.digest, "object": upload.object });
    let uploaded = worker.ask("wess.store", order.to_string()).await;
    assert_eq!(uploaded["digest"], json!(digest_of(&wasm(3))));

    let other = json!({ "name": "uploaded", "digest": digest_of(&wasm(4)), "object": upload.object });
    let refused = worker.ask("wess.store", other.to_string()).await;
    assert_eq!(refused["error"]["code"], "invalid_request");
    let missing = json!({ "name": "uploaded", "digest": digest_of(&wasm(4)), "object": "nothing" });
    let refused = worker.ask("wess.store", missing.to_string()).await;
    assert_eq!(refused["error"]["code"], "invalid_request");
    assert_eq!(
        names(&worker.ask("wess.modules.list", "").await),
        ["raw", "uploaded", "within"]
    );
}

#[tokio::test]
async fn questions_about_modules_are_answered_through_both_doors() {
    let server = NatsServer::start();
    let worker = Running::start(&server).await;
    worker
        .client
        .request_with_headers("wess.store", module_header("hello"), wasm(1).into())
        .await
        .unwrap();
    let tagged = worker
        .ask("wess.modules.tag.hello", r#"{"tag":"stable","version":1}"#)
        .await;
    assert_eq!(
        (&tagged["tags"], &tagged["propagated"]),
        (&json!({ "latest": 1, "stable": 1 }), &json!(true))
    );
    let location = worker.ask("wess.modules.fetch.hello@stable", "").await;
    assert_eq!(
        (&location["bucket"], &location["object"]),
        (&json!("wess-blobs"), &json!(digest_of(&wasm(1))))
    );
    let request = Request {
        subject: "wess.modules.get.hello".into(),
        trace: None,
        headers: HeaderMap::new(),
        payload: "".into(),
        timeout: wess_harness::DEADLINE,
    };
    let here = worker.worker.door().request(request).await.unwrap();
    let here: Value = serde_json::from_slice(&here.payload).unwrap();
    assert_eq!(here, worker.ask("wess.modules.get.hello", "").await);
    let deleted = worker.ask("wess.modules.delete.hello", "").await;
    let expected = json!({ "name": "hello", "versions": [1], "tags": ["stable"], "propagated": true });
    assert_eq!(deleted, expected);
    let gone = worker
        .client
        .request("wess.modules.get.hello", "".into())
        .await
        .unwrap();
    assert_eq!(
        gone.headers
            .unwrap()
            .get("Nats-Service-Error-Code")
            .unwrap()
            .as_str(),
        "404"
    );
    for (subject, code) in [
        ("wess.modules.get.NO", "invalid_request"),
        ("wess.modules.nope.a", "invalid_request"),
    ] {
        assert_eq!(worker.ask(subject, "").await["error"]["code"], code, "{subject}");
    }
}

#[tokio::test]
async fn a_reply_subject_that_names_a_key_a_stream_or_our_prefix_gets_nothing_and_has_no_effect() {
    let server = NatsServer::start();
    let worker = Running::start(&server).await;
    let mut ours = worker.client.subscribe("wess.stolen").await.unwrap();
    let forged = [
        "$KV.wess-modules.default.forged",
        "$JS.API.STREAM.DELETE.KV_wess-modules",
        "wess.stolen",
    ];
    for reply in forged {
        let headers = module_header("victim");
        let payload = wasm(1).into();
        worker
            .client
            .publish_with_reply_and_headers("wess.store", reply, headers, payload)
            .await
            .unwrap();
        worker
            .client
            .publish_with_reply("wess.modules.list", reply, "".into())
            .await
            .unwrap();
        worker
            .client
            .publish_with_reply("$SRV.PING", reply, "".into())
            .await
            .unwrap();
    }
    // Answered after all of the above were read: one subscription each, in order.
    worker.ask("wess.modules.list", "").await;
    worker
        .client
        .request_with_headers("wess.store", module_header("honest"), wasm(2).into())
        .await
        .unwrap();
    worker.ask("$SRV.PING", "").await;
    assert_eq!(names(&worker.ask("wess.modules.list", "").await), ["honest"]);
    let modules = assets(&server).await.modules;
    assert!(modules.entry("default.forged").await.unwrap().is_none());
    assert!(futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut ours)).is_none());
}

#[tokio::test]
async fn the_services_api_finds_the_worker_and_a_question_without_a_reply_subject_does_nothing() {
    let server = NatsServer::start();
    let worker = Running::start(&server).await;
    for verb in ["PING", "INFO", "STATS"] {
        worker
            .client
            .publish(format!("$SRV.{verb}"), "".into())
            .await
            .unwrap();
    }
    let id = worker.worker.id().to_string();
    for subject in [
        "$SRV.PING".into(),
        "$SRV.PING.wess".into(),
        format!("$SRV.PING.wess.{id}"),
    ] {
        assert_eq!(worker.ask(&subject, "").await["id"], json!(id));
    }
    let info = worker.ask("$SRV.INFO.wess", "").await;
    let endpoints: Vec<_> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| &endpoint["name"])
        .collect();
    assert!(
        endpoints.contains(&&json!("invoke")) && endpoints.contains(&&json!("store")),
        "{endpoints:?}"
    );
    worker.ask("wess.store", "{}").await;
    let stats = worker.ask("$SRV.STATS.wess", "").await;
    let store = stats["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|endpoint| endpoint["name"] == "store")
        .unwrap();
    assert_eq!(
        (&store["num_requests"], &store["num_errors"]),
        (&json!(1), &json!(1))
    );
    assert!(store["last_error"].as_str().unwrap().contains("invalid_request"));
}

#[tokio::test]
async fn a_reply_that_does_not_fit_says_what_to_do() {
    let server = NatsServer::builder().config("max_payload: 16384").start();
    let worker = Running::start(&server).await;
    let store = async |number: u32| {
        let headers = module_header("hello");
        worker
            .client
            .request_with_headers("wess.store", headers, wasm(number).into())
            .await
            .unwrap()
            .payload
    };
    let refused = eventually("a module too large to describe", async || {
        for number in 0..30 {
            let reply: Value = serde_json::from_slice(&store(number).await).unwrap();
            if let Some(error) = reply.get("error") {
                return Some(error.clone());
            }
        }
        None
    })
    .await;
    assert_eq!(refused["code"], "payload_too_large");
    assert!(
        refused["message"].as_str().unwrap().contains("delete versions"),
        "{refused}"
    );
    assert_eq!(names(&worker.ask("wess.modules.list", "").await), ["hello"]);
}

#[tokio::test]
async fn a_stopping_worker_answers_what_it_has_taken() {
    let server = NatsServer::start();
    let worker = Running::start(&server).await;
    let stores = (0..8).map(|number| {
        let client = worker.client.clone();
        async move {
            client
                .request_with_headers("wess.store", module_header("hello"), wasm(number).into())
                .await
        }
    });
    let stores = futures_util::future::join_all(stores);
    let stop = async {
        eventually("a store", async || {
            (worker.ask("wess.modules.list", "").await["modules"] != json!([])).then_some(())
        })
        .await;
        worker.lifecycle.shutdown.cancel();
    };
    let (stored, ()) = tokio::join!(stores, stop);
    for reply in stored {
        let reply: Value = serde_json::from_slice(&reply.unwrap().payload).unwrap();
        assert_eq!(reply["name"], json!("hello"), "{reply}");
    }
}
