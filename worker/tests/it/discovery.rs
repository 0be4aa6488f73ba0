//! The worker as any client of the NATS Services API finds it.

use serde_json::Value;
use wess_harness::NatsServer;

use crate::rig::{Caller, Rig, Worker, parse};

const VERBS: [(&str, &str); 3] = [("PING", "ping"), ("INFO", "info"), ("STATS", "stats")];

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
    let listed: Vec<_> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["subject"].as_str().unwrap())
        .collect();
    for subject in [
        "wess.invoke",
        "wess.invoke.>",
        "wess.chain",
        "wess.store",
        "wess.modules.list",
        "wess.modules.get.*",
    ] {
        assert!(listed.contains(&subject), "{subject} is not among {listed:?}");
    }
    for endpoint in info["endpoints"].as_array().unwrap() {
        assert!(endpoint["metadata"]["response"].is_string(), "{endpoint}");
        assert_eq!(endpoint["queue_group"], "wess");
    }
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
