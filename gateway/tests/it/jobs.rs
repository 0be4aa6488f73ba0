//! Durable jobs and dead letters over HTTP: what is asked of workers, and how their answers come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::FutureExt;
use serde_json::{Value, json as value};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wess_harness::eventually;
use wess_schemas::payload::PayloadRef;
use wess_schemas::{ErrorBody, ErrorCode, JobId};
use wess_service::bus::BusError;

use crate::http::{get, head, post, send};
use crate::support::{House, Workers, digest, failure, golden, json, noise, refusal};

const JOB: &str = r#"{"invoke":{"module":"upper","input":"hello"}}"#;

/// Method, path and body; subject and body of the question; the reply, and the status that it becomes.
type Case = ([&'static str; 3], (&'static str, Value), (&'static str, u16));

fn cases() -> Vec<Case> {
    vec![
        (
            ["POST", "/v1/jobs", JOB],
            (
                "jobs.submit",
                value!({"invoke": {"module": "upper", "input": "hello"}}),
            ),
            ("job-record", 202),
        ),
        (
            ["GET", "/v1/jobs", ""],
            ("jobs.list", value!({})),
            ("job-list", 200),
        ),
        (
            [
                "GET",
                "/v1/jobs?state=failed&kind=chain&module=upper&after=a_1&limit=7",
                "",
            ],
            (
                "jobs.list",
                value!({"state": "failed", "kind": "chain", "module": "upper", "after": "a_1", "limit": 7}),
            ),
            ("job-list", 200),
        ),
        (
            ["GET", "/v1/jobs/a_1", ""],
            ("jobs.get.a_1", Value::Null),
            ("job-record", 200),
        ),
        (
            ["DELETE", "/v1/jobs/a_1", ""],
            ("jobs.cancel.a_1", Value::Null),
            ("job-record", 200),
        ),
        (
            ["GET", "/v1/jobs/a_1/wait", ""],
            ("jobs.wait.a_1", value!({})),
            ("job-record", 200),
        ),
        (
            ["GET", "/v1/jobs/a_1/wait?timeout_ms=9", ""],
            ("jobs.wait.a_1", value!({"timeout_ms": 9})),
            ("job-record", 200),
        ),
        (
            ["GET", "/v1/dead", ""],
            ("dead.list", value!({})),
            ("dead-list", 200),
        ),
        (
            ["GET", "/v1/dead?after=a_1&limit=7", ""],
            ("dead.list", value!({"after": "a_1", "limit": 7})),
            ("dead-list", 200),
        ),
        (
            ["GET", "/v1/dead/a_1", ""],
            ("dead.get.a_1", Value::Null),
            ("dead-letter", 200),
        ),
        (
            ["POST", "/v1/dead/a_1/redrive", ""],
            ("dead.redrive.a_1", Value::Null),
            ("job-record", 202),
        ),
        (
            ["DELETE", "/v1/dead/a_1", ""],
            ("dead.purge", value!({"job_id": "a_1"})),
            ("dead-purged", 200),
        ),
        (
            ["DELETE", "/v1/dead?all=true", ""],
            ("dead.purge", value!({"all": true})),
            ("dead-purged", 200),
        ),
    ]
}

#[tokio::test]
async fn each_question_reaches_its_subject_and_its_answer_comes_back_as_it_was() {
    for ([method, path, body], (subject, sent), (reply, status)) in cases() {
        let workers = Workers::answering(move |_| Ok(json(&golden(reply))));
        let house = House::start(workers.clone()).await;
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/json")),
            "{path}"
        );
        assert_eq!(answer.json::<Value>(), golden(reply), "{path}");
        let job = golden("job-record")["job_id"].as_str().unwrap().to_owned();
        let location = (status == 202).then(|| format!("/v1/jobs/{job}"));
        assert_eq!(answer.header("location"), location.as_deref(), "{path}");
        let request = workers.asked();
        assert_eq!(request.subject, format!("wess.{subject}"));
        let payload = if request.payload.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&request.payload).unwrap()
        };
        assert_eq!(payload, sent, "{path}");
    }
}

#[tokio::test]
async fn every_code_of_a_worker_comes_back_from_every_route() {
    let house = House::start(Workers::answering(|request| {
        let code = match request.headers.get("Nats-Msg-Id") {
            Some(_) => ErrorCode::Conflict,
            None => ErrorCode::JobNotFound,
        };
        Ok(refusal(&failure(code)))
    }))
    .await;
    for ([method, path, body], ..) in cases() {
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            ErrorBody::from(answer.problem()),
            failure(ErrorCode::JobNotFound),
            "{path}"
        );
    }
    let key = [("Idempotency-Key", "mine")];
    let answer = send(house.address, "POST", "/v1/jobs", &key, JOB).await;
    assert_eq!((answer.status, answer.problem().code), (409, ErrorCode::Conflict));
}

#[tokio::test]
async fn what_does_not_parse_is_refused_by_name_before_any_worker_is_asked() {
    let house = House::start(Workers::none()).await;
    let cases = [
        ("POST", "/v1/jobs", "{\"invoke\":", "line 1"),
        ("POST", "/v1/jobs", "{\"colour\":1}", "colour"),
        (
            "POST",
            "/v1/jobs",
            "{\"invoke\":{\"module\":\"UPPER\"}}",
            "module reference",
        ),
        ("POST", "/v1/jobs", "{\"store\":{\"name\":\"UP\"}}", "module name"),
        ("POST", "/v1/jobs", "{\"job_id\":\"a b\"}", "job id"),
        ("GET", "/v1/jobs?state=lost", "", "lost"),
        ("GET", "/v1/jobs?colour=red", "", "colour"),
        ("GET", "/v1/jobs?limit=many", "", "limit"),
        ("GET", "/v1/jobs/a%20b", "", "job id"),
        ("DELETE", "/v1/jobs/a.b", "", "job id"),
        ("GET", "/v1/jobs/a/wait?timeout_ms=-1", "", "timeout_ms"),
        ("GET", "/v1/jobs/a/wait?colour=red", "", "colour"),
        ("GET", "/v1/dead?limit=many", "", "limit"),
        ("GET", "/v1/dead/a.b", "", "job id"),
        ("POST", "/v1/dead/a.b/redrive", "", "job id"),
        ("DELETE", "/v1/dead", "", "all=true"),
        ("DELETE", "/v1/dead?all=false", "", "all=true"),
        ("DELETE", "/v1/dead?all=maybe", "", "all"),
    ];
    for (method, path, body, named) in cases {
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(answer.status, 400, "{method} {path}");
        let problem = answer.problem();
        assert_eq!(
            (problem.code, problem.guest_ran),
            (ErrorCode::InvalidRequest, false)
        );
        assert!(problem.detail.contains(named), "{path}: {}", problem.detail);
    }
    let key = [("Idempotency-Key", "a b")];
    let problem = send(house.address, "POST", "/v1/jobs", &key, JOB).await.problem();
    assert!(problem.detail.contains("Idempotency-Key"), "{}", problem.detail);
}

#[tokio::test]
async fn a_key_reaches_the_worker_and_an_unanswered_submission_may_run_all_the_same() {
    let workers = Workers::answering(|request| {
        assert_eq!(request.headers.get("Nats-Msg-Id").unwrap().as_str(), "mine");
        let (subject, timeout) = (request.subject, request.timeout);
        Err(BusError::TimedOut { subject, timeout })
    });
    let house = House::start(workers).await;
    let key = [("Idempotency-Key", "mine")];
    let problem = send(house.address, "POST", "/v1/jobs", &key, JOB).await.problem();
    assert_eq!((problem.code, problem.guest_ran), (ErrorCode::Internal, true));
}

/// So small a `max_payload` that these inputs are above half of it.
const SMALL_MESSAGES: usize = 64 * 1024;

#[tokio::test]
async fn large_inputs_travel_by_reference_and_are_deleted_once_the_job_is_accepted() {
    let bytes = noise(SMALL_MESSAGES);
    let base64 = BASE64.encode(&bytes);
    let cases = [
        (
            value!({"invoke": {"module": "a", "input_base64": base64, "env": {"A": "1"}}, "delay_ms": 5}),
            "/invoke/input_ref",
        ),
        (
            value!({"chain": {"steps": ["a"], "input_base64": base64}}),
            "/chain/input_ref",
        ),
        (value!({"store": {"name": "a", "wasm_base64": base64}}), "/store"),
    ];
    for (job, at) in cases {
        // The worker copies what the job refers to before it accepts it.
        let (copied, told) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (seen, payloads) = (copied.clone(), told.clone());
        let workers = Workers::new(move |request| {
            let (seen, payloads) = (seen.clone(), payloads.clone());
            async move {
                let sent: Value = serde_json::from_slice(&request.payload).unwrap();
                let payloads: wess_service::payloads::Payloads = payloads.lock().unwrap().clone().unwrap();
                let bytes = payloads.get(&reference(&sent, at), u64::MAX).await.unwrap();
                *seen.lock().unwrap() = Some((sent, bytes));
                Ok(json(&golden("job-record")))
            }
            .boxed()
        });
        workers.set_max_payload(SMALL_MESSAGES);
        let house = House::start(workers).await;
        *told.lock().unwrap() = Some(house.payloads());
        assert_eq!(
            post(house.address, "/v1/jobs", job.to_string()).await.status,
            202,
            "{at}"
        );
        let (sent, copied) = copied.lock().unwrap().take().unwrap();
        assert!(copied == bytes, "{at}");
        assert!(!sent.to_string().contains("base64"), "{at}");
        assert_eq!(sent["delay_ms"], job["delay_ms"]);
        assert_eq!(sent["invoke"]["env"], job["invoke"]["env"]);
        let gone = house.payloads().get(&reference(&sent, at), u64::MAX).await;
        assert!(gone.is_err(), "{at}");
    }
}

/// Where the input lies: a store says it in its own words.
fn reference(sent: &Value, at: &str) -> PayloadRef {
    let mut reference = sent.pointer(at).unwrap().clone();
    if let Some(fields) = reference.as_object_mut()
        && fields.remove("name").is_some()
    {
        fields.insert("size".into(), value!(SMALL_MESSAGES));
    }
    serde_json::from_value(reference).unwrap()
}

#[tokio::test]
async fn outputs_of_a_job_stand_in_its_record_and_stay_for_whoever_asks_next() {
    let told = Arc::new(Mutex::new(None::<PayloadRef>));
    let known = told.clone();
    let house = House::start(Workers::answering(move |_| {
        let mut record = golden("job-record");
        let outcome = record["outcome"].as_object_mut().unwrap();
        outcome.remove("output");
        outcome.insert("output_ref".into(), value!(known.lock().unwrap().clone()));
        Ok(json(&record))
    }))
    .await;
    let (job_id, output): (JobId, _) = ("a".parse().unwrap(), "y".repeat(100_000));
    let stored = house.payloads().put_for_job(&job_id, output.as_bytes()).await;
    *told.lock().unwrap() = Some(stored.unwrap());
    let mut expected = golden("job-record");
    expected["outcome"]["output"] = value!(output);
    for path in ["/v1/jobs/a", "/v1/jobs/a/wait", "/v1/jobs/a"] {
        assert_eq!(get(house.address, path).await.json::<Value>(), expected, "{path}");
    }
    let lost = PayloadRef {
        digest: digest(b"other"),
        ..told.lock().unwrap().clone().unwrap()
    };
    *told.lock().unwrap() = Some(lost);
    let problem = get(house.address, "/v1/jobs/a").await.problem();
    assert_eq!((problem.code, problem.guest_ran), (ErrorCode::Internal, false));
}

#[tokio::test]
async fn a_wait_is_as_patient_as_it_says_and_a_client_that_leaves_frees_it() {
    let workers = Workers::new(|_| std::future::pending().boxed());
    let house = House::start(workers.clone()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let wait = head("GET", "/v1/jobs/a/wait?timeout_ms=120000", &[]);
    stream.write_all(wait.as_bytes()).await.unwrap();
    eventually("the question", async || {
        (workers.times_asked() == 1).then_some(())
    })
    .await;
    assert!(workers.asked().timeout >= Duration::from_secs(120));
    assert!(house.metrics().contains("http_requests_in_flight 1"));
    drop(stream);
    eventually("nothing in flight", async || {
        house
            .metrics()
            .contains("http_requests_in_flight 0")
            .then_some(())
    })
    .await;
}
