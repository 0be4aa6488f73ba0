//! Calls as the contract describes them: three subject forms, every way to give input, every kind of number.

use serde_json::{Value, json};
use wess_harness::guest;
use wess_schemas::{ErrorCode, header};

use crate::rig::{Rig, fact, header_map, parse, refused_naming};

#[tokio::test]
async fn each_of_the_three_subject_forms_is_answered() {
    let rig = Rig::start(&["upper", "math"]).await;
    for (target, input, output) in [
        ("upper", "hello", "HELLO"),
        ("upper.process", "hello", "HELLO"),
        ("add", "[2,3]", "5"),
        ("math.divmod", "[17,5]", "[3,2]"),
        ("math.factorial", "5", "120"),
        ("math.nothing", "", "[]"),
    ] {
        let reply = rig.caller.raw(target, input).await.unwrap();
        assert_eq!(reply.payload, output, "{target} {input}");
    }
    let outcome = rig
        .caller
        .invoke(json!({"module": "upper", "function": "process", "input": "hello"}))
        .await
        .unwrap();
    assert_eq!(
        (outcome.output.as_deref(), outcome.exit_code, outcome.results),
        (Some("HELLO"), Some(0), None)
    );
    assert_eq!(
        (outcome.function.as_str(), outcome.module.version),
        ("process", Some(1))
    );
}

#[tokio::test]
async fn every_form_of_a_reference_names_the_same_module() {
    let rig = Rig::start(&["upper"]).await;
    let module = rig.caller.store("upper", guest("upper")).await;
    let tag = json!({"tag": "stable", "version": 1});
    let _: Value = rig.caller.ask_json("wess.modules.tag.upper", &tag).await.unwrap();
    for reference in [
        "upper",
        "upper@1",
        "upper@latest",
        "upper@stable",
        &module.digest.to_string(),
        &module.id.to_string(),
    ] {
        let subject = format!("wess.invoke.{reference}");
        let raw = rig
            .caller
            .ask(&subject, &[(header::FACTS, "all")], "hello")
            .await
            .unwrap();
        assert_eq!(
            (&*raw.payload, fact(&raw, header::MODULE_DIGEST)),
            (&b"HELLO"[..], Some(&*module.digest.to_string()))
        );
        let outcome = rig
            .caller
            .invoke(json!({"module": reference, "input": "hello"}))
            .await
            .unwrap();
        assert_eq!(
            (outcome.output.as_deref(), outcome.module.digest),
            (Some("HELLO"), module.digest),
            "{reference}"
        );
    }
}

#[tokio::test]
async fn facts_of_a_raw_call_travel_in_headers_both_ways() {
    let rig = Rig::with(&["--executors", "1"], &["cat", "spin"]).await;
    let ask = async |target: &str, headers: &[(&str, &str)], input: &'static str| {
        rig.caller
            .ask(&format!("wess.invoke.{target}"), headers, input)
            .await
    };
    let cold = ask("cat", &[(header::MSG_ID, "order-7")], "hello").await.unwrap();
    let warm = ask("cat", &[(header::FACTS, "all")], "hello").await.unwrap();
    for (name, value) in [
        (header::JOB_ID, "order-7"),
        (header::COLD, "true"),
        (header::EXIT_CODE, "0"),
    ] {
        assert_eq!(fact(&cold, name), Some(value), "{name}");
    }
    assert_eq!(
        (fact(&warm, header::COLD), fact(&warm, header::FUEL_USED)),
        (Some("false"), None)
    );
    assert_ne!(fact(&warm, header::JOB_ID), Some("order-7"));
    for name in [header::RUN_US, header::QUEUE_US] {
        assert!(
            fact(&warm, name).unwrap().parse::<u64>().unwrap() < 30_000_000,
            "{name}"
        );
    }
    let bare = ask("cat", &[], "hello").await.unwrap();
    assert_eq!(bare.headers, None, "who sends no header asks for no facts");
    let metered = ask("add", &[(header::FUEL, "1000")], "[2,3]").await.unwrap();
    assert!((1..=1000).contains(&fact(&metered, header::FUEL_USED).unwrap().parse().unwrap()));
    assert_eq!(fact(&metered, header::CONTENT_TYPE), Some("application/json"));
    let stopped = ask("spin.spin", &[(header::TIMEOUT_MS, "50")], "").await;
    refused_naming(ErrorCode::DeadlineExceeded, "50 ms", stopped);
    for name in [
        header::TIMEOUT_MS,
        header::WAIT_MS,
        header::FUEL,
        header::MEMORY_MB,
        header::MSG_ID,
        header::INPUT_REF,
    ] {
        refused_naming(
            ErrorCode::InvalidRequest,
            name,
            ask("cat", &[(name, "no such thing")], "").await,
        );
    }
}

#[tokio::test]
async fn input_comes_as_text_as_json_as_base64_or_not_at_all() {
    let rig = Rig::start(&["in_place", "get_output", "cat"]).await;
    for (request, output) in [
        (json!({"module": "in-place", "input": "hello"}), json!("olleh")),
        (
            json!({"module": "in-place", "input": {"a": [1]}}),
            json!("}]1[:\"a\"{"),
        ),
        (json!({"module": "cat", "input": null}), json!("null")),
        (json!({"module": "cat", "input": ""}), json!("")),
        (json!({"module": "cat"}), json!("")),
        (json!({"module": "cat", "input_base64": "aGk="}), json!("hi")),
        (
            json!({"module": "get-output", "input": "hello"}),
            json!("[hello]"),
        ),
    ] {
        let outcome = rig.caller.invoke(request.clone()).await.unwrap();
        assert_eq!(json!(outcome.output), output, "{request}");
    }
    let bytes = rig
        .caller
        .invoke(json!({"module": "in-place", "input_base64": "AP8="}))
        .await
        .unwrap();
    assert_eq!(
        (bytes.output, bytes.output_base64.as_deref()),
        (None, Some("/wA="))
    );
    assert_eq!(
        rig.caller.raw("in-place", &b"\0\xff"[..]).await.unwrap().payload,
        &b"\xff\0"[..]
    );
}

#[tokio::test]
async fn env_arguments_and_exit_codes_reach_plugins_and_commands() {
    let rig = Rig::start(&["greet", "wordcount", "cat"]).await;
    for (request, output, exit_code) in [
        (json!({"module": "greet", "input": "Ada"}), "Hello, Ada!", 0),
        (
            json!({"module": "greet", "input": "Ada", "env": {"GREETING": "Hei"}}),
            "Hei, Ada!",
            0,
        ),
        (json!({"module": "greet"}), "whom shall I greet?", 1),
        (
            json!({"module": "wordcount", "input": "hello big world"}),
            "0 3 15\n",
            0,
        ),
        (
            json!({"module": "wordcount", "input": "hello", "args": ["-w"]}),
            "1\n",
            0,
        ),
        (
            json!({"module": "cat", "args": ["-e", "LANG"], "env": {"LANG": "C"}}),
            "LANG=C\n",
            0,
        ),
        (json!({"module": "cat", "args": ["-e", "HOME"]}), "", 1),
        (
            json!({"module": "cat", "input": "hi", "args": ["-x", 7]}),
            "hi",
            7,
        ),
    ] {
        let outcome = rig.caller.invoke(request.clone()).await.unwrap();
        assert_eq!(
            (outcome.output.as_deref(), outcome.exit_code),
            (Some(output), Some(exit_code)),
            "{request}"
        );
    }
    let raw = rig.caller.raw("greet", "").await.unwrap();
    assert_eq!(
        (&*raw.payload, fact(&raw, header::EXIT_CODE)),
        (&b"whom shall I greet?"[..], Some("1"))
    );
}

#[tokio::test]
async fn every_number_travels_both_ways_or_is_refused() {
    let rig = Rig::start(&["math"]).await;
    let call = async |function: &str, arg: Value| {
        rig.caller
            .invoke(json!({"module": "math", "function": function, "args": [arg]}))
            .await
    };
    for (function, number) in [
        ("echo_i32", json!(i32::MIN)),
        ("echo_i32", json!(i32::MAX)),
        ("echo_i64", json!(1_i64 << 53)),
        ("echo_i64", json!("9007199254740993")),
        ("echo_i64", json!("-9223372036854775808")),
        ("echo_f32", json!(0.1)),
        ("echo_f64", json!(-1.7976931348623157e308)),
        ("echo_f32", json!("NaN")),
        ("echo_f64", json!("NaN")),
        ("echo_f64", json!("Infinity")),
        ("echo_f32", json!("-Infinity")),
    ] {
        assert_eq!(
            call(function, number.clone()).await.unwrap().results,
            Some(vec![number]),
            "{function}"
        );
    }
    for (function, number, named) in [
        ("echo_i32", json!(1_i64 << 31), "32 bits"),
        ("echo_i32", json!(1.5), "32-bit integer"),
        ("echo_i32", json!("1"), "a string"),
        ("echo_i64", json!((1_i64 << 53) + 1), "send it as a string"),
        ("echo_i64", json!("9223372036854775808"), "64-bit integer"),
        ("echo_f32", json!(1e300), "32-bit float"),
        ("echo_f64", json!("nan"), "a number"),
        ("echo_f64", json!(null), "null"),
    ] {
        let error = refused_naming(ErrorCode::InvalidArguments, named, call(function, number).await);
        assert_eq!(error.error.detail["argument"], 0, "{function}");
    }
    let mixed =
        json!({"module": "math", "function": "reverse", "args": [1, "-9007199254740993", 0.5, "NaN"]});
    let results = rig.caller.invoke(mixed).await.unwrap().results;
    assert_eq!(
        results,
        Some(vec![
            json!("NaN"),
            json!(0.5),
            json!("-9007199254740993"),
            json!(1)
        ])
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_outcome_says_what_ran_and_what_it_cost() {
    let rig = Rig::start(&["upper"]).await;
    let request =
        serde_json::to_vec(&json!({"module": "upper", "input": "a", "limits": {"fuel": 100_000}})).unwrap();
    let reply = rig
        .caller
        .ask("wess.invoke", &[(header::MSG_ID, "order-8")], request)
        .await
        .unwrap();
    assert_eq!(fact(&reply, header::CONTENT_TYPE), Some("application/json"));
    let outcome: wess_schemas::Outcome = parse(&reply);
    assert_eq!(
        (outcome.job_id.as_str(), outcome.worker.to_string()),
        ("order-8", rig.worker.id())
    );
    assert!(
        outcome
            .stats
            .fuel
            .is_some_and(|fuel| (1..100_000).contains(&fuel)),
        "{:?}",
        outcome.stats
    );
    assert!(
        outcome
            .stats
            .memory_peak_bytes
            .is_some_and(|bytes| bytes >= 1 << 16),
        "{:?}",
        outcome.stats
    );
}

#[tokio::test]
async fn a_call_without_a_reply_subject_runs_and_harms_nobody() {
    let rig = Rig::start(&["upper"]).await;
    let (client, ok) = (&rig.caller.client, "wess_worker_calls_total{code=\"ok\"}");
    client.publish("wess.invoke.upper", "hello".into()).await.unwrap();
    client
        .publish_with_headers("wess.invoke", header_map(&[]), "{]".into())
        .await
        .unwrap();
    client.publish("wess.store", "{]".into()).await.unwrap();
    rig.worker.shows(ok, 1).await;
    rig.worker
        .shows("wess_worker_calls_total{code=\"invalid_request\"}", 1)
        .await;
    rig.is_unharmed().await;
}
