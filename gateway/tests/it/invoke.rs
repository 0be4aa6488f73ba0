//! Calls: what reaches the worker, what comes back, and payloads too large for a message, in both directions.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json as value};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wess_harness::eventually;
use wess_schemas::header;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::bus::Request;

use crate::http::{head, post, send};
use crate::support::{House, Workers, digest, golden, json, noise, raw, refusal};

/// What a test's workers take in one message: half of it is 4 KiB.
const SMALL_MESSAGES: usize = 8 * 1024;

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.as_str())
}

#[tokio::test]
async fn a_raw_call_carries_its_headers_there_and_the_facts_back() {
    let facts = [
        ("Wess-Job-Id", "key-1"),
        ("Wess-Module-Digest", "sha256:00"),
        ("Wess-Exit-Code", "3"),
        ("Wess-Queue-Us", "1"),
        ("Wess-Run-Us", "2"),
        ("Wess-Fuel-Used", "9"),
        ("Wess-Cold", "false"),
        ("Content-Type", "text/csv"),
        ("Internal-Thing", "secret"),
    ];
    let workers = Workers::answering(move |_| Ok(raw("HELLO", &facts)));
    let house = House::start(workers.clone()).await;
    let asked = [
        ("Wess-Timeout-Ms", "500"),
        ("Wess-Wait-Ms", "1500"),
        ("Wess-Fuel", "1000"),
        ("Wess-Memory-Mb", "2"),
        ("Content-Type", "text/plain"),
        ("Idempotency-Key", "key-1"),
        ("Wess-Input-Ref", "forged"),
        ("Authorization", "Bearer hush"),
    ];
    let answer = send(
        house.address,
        "POST",
        "/v1/modules/upper@stable/invoke",
        &asked,
        "hello",
    )
    .await;
    assert_eq!((answer.status, answer.text()), (200, "HELLO"));
    for (name, fact) in &facts[..8] {
        assert_eq!(answer.header(name), Some(*fact));
    }
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("internal-thing"), None);

    let request = workers.asked();
    assert_eq!(
        (request.subject.as_str(), &request.payload[..]),
        ("wess.invoke.upper@stable", &b"hello"[..])
    );
    for (name, sent) in &asked[..4] {
        assert_eq!(header(&request, name), Some(*sent));
    }
    assert_eq!(header(&request, header::MSG_ID), Some("key-1"));
    assert_eq!(
        (
            header(&request, header::INPUT_REF),
            header(&request, "Authorization"),
            header(&request, "Content-Type")
        ),
        (None, None, None)
    );
    // Its own bounds and a margin, not the longest there is.
    assert_eq!(request.timeout.as_millis(), 500 + 1500 + 30_000);
}

#[tokio::test]
async fn references_and_functions_with_special_characters_reach_the_worker() {
    let workers = Workers::answering(|_| Ok(raw("", &[])));
    let house = House::start(workers.clone()).await;
    let digest = digest(b"");
    let path = format!("/v1/modules/{digest}/invoke/ns:pkg%2Fiface@1.0.0%23run");
    let answer = post(house.address, &path, "").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/octet-stream"))
    );
    assert_eq!(
        workers.asked().subject,
        format!("wess.invoke.{digest}.ns:pkg/iface@1.0.0#run")
    );
}

#[tokio::test]
async fn a_trace_goes_on_from_the_caller_and_begins_without_one() {
    let workers = Workers::answering(|_| Ok(raw("", &[])));
    let house = House::start(workers.clone()).await;
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    send(
        house.address,
        "POST",
        "/v1/modules/a/invoke",
        &[("traceparent", caller)],
        "",
    )
    .await;
    let sent = workers.asked().trace.unwrap().to_string();
    assert!(sent.starts_with(&caller[..36]) && sent != caller, "{sent}");
}

#[tokio::test]
async fn facts_are_asked_for_when_the_caller_does() {
    let workers = Workers::answering(|_| Ok(raw("", &[])));
    let house = House::start(workers.clone()).await;
    let path = "/v1/modules/a/invoke";
    send(house.address, "POST", path, &[("Accept", "*/*")], "").await;
    assert!(workers.asked().headers.is_empty(), "{:?}", workers.asked());

    for (asking, value, sent) in [
        ("wess-facts", "yes", (header::FACTS, "all")),
        ("Wess-Timeout-Ms", "5", (header::TIMEOUT_MS, "5")),
        ("Wess-Wait-Ms", "5", (header::WAIT_MS, "5")),
        ("Wess-Fuel", "5", (header::FUEL, "5")),
        ("Wess-Memory-Mb", "5", (header::MEMORY_MB, "5")),
        ("Idempotency-Key", "k", (header::MSG_ID, "k")),
    ] {
        let workers = Workers::answering(|_| Ok(raw("", &[])));
        let house = House::start(workers.clone()).await;
        send(house.address, "POST", path, &[(asking, value)], "").await;
        let asked = workers.asked();
        assert_eq!(
            (header(&asked, sent.0), asked.headers.len()),
            (Some(sent.1), 1),
            "{asking}"
        );
    }
}

#[tokio::test]
async fn an_invocation_goes_as_it_came_and_its_outcome_comes_as_it_was() {
    let outcome = golden("outcome");
    let reply = outcome.clone();
    let workers = Workers::answering(move |_| Ok(json(&reply)));
    let house = House::start(workers.clone()).await;
    let body = r#" {"module":"upper", "input":"hello", "wait_ms":7, "limits":{"timeout_ms":9}} "#;
    let answer = send(
        house.address,
        "POST",
        "/v1/invoke",
        &[("Idempotency-Key", "k")],
        body,
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(answer.json::<Value>(), outcome);
    let request = workers.asked();
    assert_eq!(
        (request.subject.as_str(), &request.payload[..]),
        ("wess.invoke", body.as_bytes())
    );
    assert_eq!(header(&request, header::MSG_ID), Some("k"));
    assert_eq!(request.timeout.as_millis(), 7 + 9 + 30_000);
}

#[tokio::test]
async fn a_large_raw_input_travels_by_reference_and_is_deleted_after_use() {
    let workers = Workers::answering(|_| Ok(raw("done", &[])));
    workers.set_max_payload(SMALL_MESSAGES);
    let house = House::start(workers.clone()).await;
    let input = noise(SMALL_MESSAGES / 2 + 1);
    assert_eq!(
        post(house.address, "/v1/modules/a/invoke", &input).await.text(),
        "done"
    );
    let request = workers.asked();
    let reference: PayloadRef = serde_json::from_str(header(&request, header::INPUT_REF).unwrap()).unwrap();
    assert_eq!((request.payload.len(), reference.size), (0, input.len() as u64));
    assert_eq!(reference.digest, digest(&input));
    assert!(house.payloads().get(&reference, u64::MAX).await.is_err());
}

#[tokio::test]
async fn an_input_of_half_a_message_still_travels_in_it() {
    let workers = Workers::answering(|_| Ok(raw("done", &[])));
    workers.set_max_payload(SMALL_MESSAGES);
    let house = House::start(workers.clone()).await;
    post(house.address, "/v1/modules/a/invoke", noise(SMALL_MESSAGES / 2)).await;
    assert_eq!(workers.asked().payload.len(), SMALL_MESSAGES / 2);
}

#[tokio::test]
async fn large_inputs_in_json_travel_by_reference_in_every_form() {
    let text = "x\n".repeat(SMALL_MESSAGES);
    let forms = [
        ("input", value!(text), text.clone().into_bytes()),
        (
            "input",
            value!({ "a": text }),
            value!({ "a": text }).to_string().into_bytes(),
        ),
        (
            "input_base64",
            value!("eHh4".repeat(SMALL_MESSAGES)),
            b"xxx".repeat(SMALL_MESSAGES),
        ),
    ];
    for (field, input, bytes) in forms {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = seen.clone();
        let workers = Workers::answering(move |request| {
            keep.lock()
                .unwrap()
                .push(serde_json::from_slice::<Value>(&request.payload).unwrap());
            Ok(json(&golden("outcome")))
        });
        workers.set_max_payload(SMALL_MESSAGES);
        let house = House::start(workers).await;
        let invocation = value!({ "module": "a", field: input, "env": { "A": "1" } });
        assert_eq!(
            post(house.address, "/v1/invoke", invocation.to_string())
                .await
                .status,
            200
        );
        let chain = value!({ "steps": ["a"], field: input });
        // The same reply is no chain's outcome, but it refers to nothing, and that is all the gateway looks at.
        assert_eq!(
            post(house.address, "/v1/chain", chain.to_string()).await.status,
            200
        );
        for sent in seen.lock().unwrap().iter() {
            assert!(sent.get(field).is_none());
            let reference: PayloadRef = serde_json::from_value(sent["input_ref"].clone()).unwrap();
            assert_eq!(
                (reference.digest, reference.size),
                (digest(&bytes), bytes.len() as u64)
            );
        }
        assert_eq!(seen.lock().unwrap()[0]["env"]["A"], "1");
    }
}

/// References that a test tells its workers once it has them.
type Told = Arc<Mutex<Vec<PayloadRef>>>;

async fn put(house: &House, told: &Told, outputs: &[&[u8]]) {
    let mut references = Vec::new();
    for output in outputs {
        references.push(house.payloads().put(output).await.unwrap());
    }
    *told.lock().unwrap() = references;
}

async fn are_gone(house: &House, told: &Told) -> bool {
    let references = told.lock().unwrap().clone();
    for reference in &references {
        if house.payloads().get(reference, u64::MAX).await.is_ok() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_large_raw_output_comes_back_in_the_answer_and_is_deleted() {
    let (output, told) = (noise(3 * 1024 * 1024), Told::default());
    let known = told.clone();
    let workers = Workers::answering(move |_| {
        let reference = serde_json::to_string(&known.lock().unwrap()[0]).unwrap();
        Ok(raw(
            "",
            &[("Wess-Output-Ref", &reference), ("Wess-Exit-Code", "0")],
        ))
    });
    let house = House::start(workers).await;
    put(&house, &told, &[&output]).await;
    let answer = post(house.address, "/v1/modules/a/invoke", "").await;
    assert!(answer.is_whole() && answer.body == output);
    assert_eq!(
        (answer.header("wess-output-ref"), answer.header("wess-exit-code")),
        (None, Some("0"))
    );
    assert!(are_gone(&house, &told).await);

    // The same reference again is an output that was lost, after a guest ran.
    let problem = post(house.address, "/v1/modules/a/invoke", "").await.problem();
    assert_eq!((problem.code, problem.guest_ran), (ErrorCode::Internal, true));
}

#[tokio::test]
async fn a_large_output_is_put_into_the_outcome() {
    let told = Told::default();
    let known = told.clone();
    let workers = Workers::answering(move |_| {
        let mut outcome = golden("outcome");
        outcome.as_object_mut().unwrap().remove("output");
        outcome["output_ref"] = value!(known.lock().unwrap()[0]);
        Ok(json(&outcome))
    });
    let house = House::start(workers).await;
    put(&house, &told, &["y".repeat(100_000).as_bytes()]).await;
    let answer: Value = post(house.address, "/v1/invoke", r#"{"module":"a"}"#)
        .await
        .json();
    let mut expected = golden("outcome");
    expected["output"] = value!("y".repeat(100_000));
    assert_eq!(answer, expected);
    assert!(are_gone(&house, &told).await);
}

#[tokio::test]
async fn an_output_with_other_bytes_than_its_digest_is_not_handed_out() {
    let told = Told::default();
    let known = told.clone();
    let workers = Workers::answering(move |_| {
        let forged = PayloadRef {
            bucket: PayloadBucket::default(),
            digest: digest(b"other"),
            ..known.lock().unwrap()[0].clone()
        };
        Ok(raw(
            "",
            &[("Wess-Output-Ref", &serde_json::to_string(&forged).unwrap())],
        ))
    });
    let house = House::start(workers).await;
    put(&house, &told, &[b"these"]).await;
    let answer = post(house.address, "/v1/modules/a/invoke", "").await;
    assert_eq!(answer.problem().code, ErrorCode::Internal);
}

#[tokio::test]
async fn outputs_of_a_chain_are_put_in_wherever_they_are_referred_to() {
    let told = Told::default();
    let known = told.clone();
    let workers = Workers::answering(move |request| {
        let [text, bytes] = known.lock().unwrap().clone().try_into().unwrap();
        let steps = value!([{ "output": "small" }, { "output_ref": text }, { "output_ref": bytes }]);
        if String::from_utf8_lossy(&request.payload).contains("fails") {
            let error = ErrorBody::new(ErrorCode::GuestTrapped, "no")
                .with("failed_step", 3)
                .with("steps", steps);
            return Ok(refusal(&error));
        }
        Ok(json(&value!({ "steps": steps, "output_ref": bytes })))
    });
    let house = House::start(workers).await;
    let (text, bytes) = ("y".repeat(100_000), noise(100_000));
    for (module, place) in [("works", ""), ("fails", "/facts")] {
        put(&house, &told, &[text.as_bytes(), &bytes]).await;
        let answer = post(
            house.address,
            "/v1/chain",
            value!({ "steps": [module] }).to_string(),
        )
        .await;
        let answer: Value = answer.json();
        let outcome = answer.pointer(place).unwrap();
        assert_eq!(
            (&outcome["steps"][0]["output"], &outcome["steps"][1]["output"]),
            (&value!("small"), &value!(text))
        );
        let last = &outcome["steps"][2];
        assert!(
            last["output_base64"].is_string() && last.get("output_ref").is_none(),
            "{module}"
        );
        if module == "works" {
            assert_eq!(answer["output_base64"], last["output_base64"]);
        } else {
            assert_eq!(
                (&answer["code"], &answer["facts"]["failed_step"]),
                (&value!("guest_trapped"), &value!(3))
            );
        }
        assert!(are_gone(&house, &told).await);
    }
}

#[tokio::test]
async fn a_call_is_waited_for_longer_than_a_worker_takes_to_say_that_it_is_overdue() {
    // Wait and run as asked, else the longest there is by default; never without end.
    let cases = [
        (r#"{"module":"a"}"#, 30 + 60),
        (r#"{"module":"a","wait_ms":0,"limits":{"timeout_ms":1000}}"#, 1),
        (
            r#"{"module":"a","wait_ms":99999999,"limits":{"timeout_ms":99999999999}}"#,
            120 + 3600,
        ),
    ];
    for (body, seconds) in cases {
        let workers = Workers::answering(|_| Ok(json(&golden("outcome"))));
        let house = House::start(workers.clone()).await;
        post(house.address, "/v1/invoke", body).await;
        assert_eq!(workers.asked().timeout.as_secs(), seconds + 30, "{body}");
    }
}

#[tokio::test]
async fn a_chain_is_waited_for_as_long_as_its_steps() {
    let workers = Workers::answering(|_| Ok(json(&value!({ "steps": [] }))));
    let house = House::with_options(workers.clone(), &["--http-max-run-s", "100"]).await;
    let steps = value!(["a", { "module": "b", "limits": { "timeout_ms": 7000 } }]);
    post(
        house.address,
        "/v1/chain",
        value!({ "steps": steps, "wait_ms": 1000 }).to_string(),
    )
    .await;
    assert_eq!(workers.asked().timeout.as_secs(), (1 + 100 + 30) + (1 + 7 + 30));
}

/// Room for bodies, and an answer that takes nearly all of it.
const ROOM: [&str; 2] = ["--http-max-buffered-mb", "32"];
const NEARLY_ALL: usize = 31 * 1024 * 1024;

/// What a body of 20 MiB is refused with: for want of room, or, where there is room, for its size.
async fn refused(house: &House) -> ErrorCode {
    let body = value!({ "module": "a", "input": "x".repeat(20 * 1024 * 1024) }).to_string();
    post(house.address, "/v1/invoke", body).await.problem().code
}

#[tokio::test]
async fn an_answer_is_counted_until_it_is_written() {
    let told = Told::default();
    let known = told.clone();
    let workers = Workers::answering(move |request| {
        let body = String::from_utf8_lossy(&request.payload).into_owned();
        let reference = || value!(known.lock().unwrap()[0]);
        if body.contains("inline") {
            Ok(json(&value!({ "output": "x".repeat(NEARLY_ALL) })))
        } else if body.contains("referred") {
            Ok(json(&value!({ "output_ref": reference() })))
        } else if body.contains("fails") {
            let error = ErrorBody::new(ErrorCode::GuestTrapped, "no");
            Ok(refusal(
                &error.with("steps", value!([{ "output_ref": reference() }])),
            ))
        } else {
            Ok(raw(vec![b'x'; NEARLY_ALL], &[]))
        }
    });
    let house = House::with_options(workers, &ROOM).await;
    let cases = [
        ("/v1/modules/a/invoke", "", 1),
        ("/v1/invoke", r#"{"module":"inline"}"#, 1),
        ("/v1/invoke", r#"{"module":"referred"}"#, NEARLY_ALL),
        // The facts of a failure are there as values and as text.
        ("/v1/chain", r#"{"steps":["fails"]}"#, 8 * 1024 * 1024),
    ];
    for (path, body, stored) in cases {
        put(&house, &told, &[&vec![b'y'; stored]]).await;
        let mut slow = TcpStream::connect(house.address).await.unwrap();
        let length = body.len().to_string();
        let request = head("POST", path, &[("Content-Length", &length)]) + body;
        slow.write_all(request.as_bytes()).await.unwrap();
        slow.readable().await.unwrap();
        assert_eq!(refused(&house).await, ErrorCode::Overloaded, "{path} {body}");
        drop(slow);
        eventually("room again", async || {
            (refused(&house).await == ErrorCode::PayloadTooLarge).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_too_large_for_a_message_without_its_input_is_refused() {
    let workers = Workers::none();
    workers.set_max_payload(SMALL_MESSAGES);
    let house = House::start(workers).await;
    let body = value!({ "module": "a", "args": ["x".repeat(SMALL_MESSAGES)] });
    let answer = post(house.address, "/v1/invoke", body.to_string()).await;
    assert_eq!(answer.problem().code, ErrorCode::PayloadTooLarge);
}
