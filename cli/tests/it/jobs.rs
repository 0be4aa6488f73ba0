//! Jobs and dead letters by the command line: what is asked, and what is made of each answer. A test plays the worker.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use wess_harness::{NatsServer, binary};

use crate::wess::{code, stderr, stdout};

/// A NATS server, and a worker that answers each subject with what the test has laid out for it, in order.
pub struct Played {
    server: NatsServer,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    worker: JoinHandle<()>,
    /// Ends the worker when it goes.
    _runtime: Runtime,
}

impl Played {
    pub fn with(answers: &[(&str, Value)]) -> Self {
        let server = NatsServer::start();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut laid_out = BTreeMap::<String, Vec<Value>>::new();
        for (subject, answer) in answers.iter().rev() {
            laid_out
                .entry(format!("wess.{subject}"))
                .or_default()
                .push(answer.clone());
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (client, requests) = runtime.block_on(async {
            let client = async_nats::connect(server.url()).await.unwrap();
            let requests = client.subscribe("wess.>").await.unwrap();
            client.flush().await.unwrap();
            (client, requests)
        });
        let worker = runtime.spawn(answer(client, requests, laid_out, asked.clone()));
        Self {
            server,
            asked,
            worker,
            _runtime: runtime,
        }
    }

    pub fn ask(&self, line: &[&str]) -> Output {
        let mut command = binary("wess");
        command.args(line).env("WESS_NATS_URL", self.server.url());
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub fn must(&self, line: &[&str]) -> String {
        let output = self.ask(line);
        assert_eq!(code(&output), 0, "{line:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// What was asked since the last time, in order.
    pub fn asked(&self) -> Vec<(String, Value)> {
        assert!(!self.worker.is_finished(), "the worker panicked");
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers with what is left for the subject; the last one stays.
async fn answer(
    client: Client,
    mut requests: async_nats::Subscriber,
    mut answers: BTreeMap<String, Vec<Value>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
) {
    while let Some(request) = requests.next().await {
        let subject = request.subject.to_string();
        let body = serde_json::from_slice(&request.payload).unwrap_or(Value::Null);
        asked.lock().unwrap().push((subject.clone(), body));
        let left = answers
            .get_mut(&subject)
            .unwrap_or_else(|| panic!("no answer to {subject}"));
        let answer = if left.len() > 1 {
            left.pop().unwrap()
        } else {
            left[0].clone()
        };
        let mut headers = HeaderMap::new();
        if answer
            .as_object()
            .is_some_and(|answer| answer.len() == 1 && answer.contains_key("error"))
        {
            headers.insert("Nats-Service-Error", "refused");
            headers.insert("Nats-Service-Error-Code", "404");
        }
        let payload = serde_json::to_vec(&answer).unwrap();
        let reply = request.reply.unwrap();
        client
            .publish_with_headers(reply, headers, payload.into())
            .await
            .unwrap();
    }
}

/// The contract's own example, as a job `k` in a state.
fn record(state: &str, changed: Value) -> Value {
    let mut record = golden("job-record");
    record["job_id"] = "k".into();
    record["state"] = state.into();
    if state != "succeeded" {
        record.as_object_mut().unwrap().remove("outcome");
    }
    record
        .as_object_mut()
        .unwrap()
        .extend(changed.as_object().unwrap().clone());
    record
}

/// The contract's own example.
pub fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/golden");
    serde_json::from_slice(&std::fs::read(format!("{folder}/{name}.json")).unwrap()).unwrap()
}

fn failure(code: &str) -> Value {
    json!({"code": code, "message": "so it goes", "retryable": false, "guest_ran": true, "detail": {}})
}

#[test]
fn a_job_is_submitted_as_it_was_said_and_its_id_is_all_that_is_printed() {
    let played = Played::with(&[("jobs.submit", record("queued", json!({})))]);
    let line = "jobs submit upper hello --key k --retry 2 --backoff 5s --delay 1h";
    assert_eq!(played.must(&line.split(' ').collect::<Vec<_>>()), "k\n");
    let expected = json!({"job_id": "k", "invoke": {"module": "upper", "input": "hello"}, "delay_ms": 3_600_000,
        "retry": {"max_attempts": 2, "backoff_ms": [5000]}});
    assert_eq!(played.asked(), [("wess.jobs.submit".into(), expected)]);
    played.must(&[
        "jobs",
        "submit",
        "--chain",
        "upper",
        "math.divmod",
        "--input",
        "hello",
    ]);
    let expected =
        json!({"chain": {"steps": ["upper", {"module": "math", "function": "divmod"}], "input": "hello"}});
    assert_eq!(played.asked(), [("wess.jobs.submit".into(), expected)]);
}

#[test]
fn a_whole_request_is_read_from_a_file_and_its_mistakes_are_told_before_anyone_is_asked() {
    let played = Played::with(&[("jobs.submit", record("queued", json!({})))]);
    let folder = tempfile::TempDir::new().unwrap();
    let file = |text: String| {
        let path = folder.path().join("job.json");
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let request = json!({"store": {"name": "upper", "wasm_base64": "AGFzbQEAAAA="}});
    played.must(&["jobs", "submit", "--job", &file(request.to_string())]);
    assert_eq!(played.asked(), [("wess.jobs.submit".into(), request)]);
    for (wrong, named) in [
        (r#"{"invoke":{"module":"a"},"colour":1}"#, "colour"),
        (r#"{"invoke":{"module":"a","wait_ms":1}}"#, "wait_ms"),
        ("{}", "invoke, chain and store"),
    ] {
        let output = played.ask(&["jobs", "submit", "--job", &file(wrong.into())]);
        assert_eq!(code(&output), 65, "{wrong}");
        let said = stderr(&output);
        assert!(
            said.contains(named) && said.contains("(invalid_request)"),
            "{said}"
        );
    }
    assert_eq!(played.asked(), []);
}

#[test]
fn who_waits_for_a_job_gets_its_output_and_its_verdict_as_from_a_call() {
    let played = Played::with(&[
        ("jobs.submit", record("queued", json!({}))),
        ("jobs.wait.k", record("queued", json!({}))),
        ("jobs.wait.k", record("running", json!({}))),
        ("jobs.wait.k", record("succeeded", json!({}))),
    ]);
    assert_eq!(
        played.must(&["jobs", "submit", "upper", "hello", "--wait"]),
        "HELLO"
    );
    let asked: Vec<_> = played.asked().into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(
        asked,
        [
            "wess.jobs.submit",
            "wess.jobs.wait.k",
            "wess.jobs.wait.k",
            "wess.jobs.wait.k"
        ]
    );
    let ended: Value = serde_json::from_str(&played.must(&["jobs", "wait", "k", "-o", "json"])).unwrap();
    assert_eq!(ended, record("succeeded", json!({})));
}

#[test]
fn a_job_that_failed_ends_the_one_who_waited_like_a_call_that_failed() {
    for (state, error, exit, said) in [
        (
            "failed",
            failure("guest_trapped"),
            1,
            "so it goes (guest_trapped)",
        ),
        (
            "failed",
            failure("module_not_found"),
            66,
            "so it goes (module_not_found)",
        ),
        ("dead", failure("out_of_fuel"), 1, "so it goes (out_of_fuel)"),
        ("cancelled", Value::Null, 1, "k was cancelled (cancelled)"),
        ("dead", Value::Null, 70, "was given up"),
    ] {
        let ended = record(state, json!({"error": error}));
        let played = Played::with(&[("jobs.wait.k", ended.clone())]);
        let output = played.ask(&["jobs", "wait", "k"]);
        assert_eq!((code(&output), stdout(&output).as_str()), (exit, ""), "{state}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        let output = played.ask(&["jobs", "wait", "k", "-o", "json"]);
        let shown: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((code(&output), &shown["state"]), (exit, &ended["state"]));
    }
}

#[test]
fn a_job_that_has_not_ended_in_time_is_told_from_one_that_failed() {
    let played = Played::with(&[("jobs.wait.k", record("running", json!({})))]);
    let output = played.ask(&["jobs", "wait", "k", "--timeout", "50ms"]);
    assert_eq!(
        (code(&output), stderr(&output).as_str()),
        (75, "error: k is still running\n")
    );
    let asked = played.asked();
    assert_eq!(asked[0], ("wess.jobs.wait.k".into(), json!({"timeout_ms": 50})));
}

#[test]
fn records_are_shown_listed_and_cancelled() {
    let first = json!({"jobs": [record("succeeded", json!({}))], "next": "k"});
    let last = json!({"jobs": [record("dead", json!({"job_id": "l", "error": failure("out_of_fuel")}))]});
    let played = Played::with(&[
        ("jobs.get.k", record("succeeded", json!({}))),
        ("jobs.cancel.k", record("cancelled", json!({}))),
        ("jobs.list", first.clone()),
        ("jobs.list", last.clone()),
        ("jobs.list", first),
        ("jobs.list", last),
    ]);
    let shown = played.must(&["jobs", "get", "k"]);
    assert!(
        shown.starts_with("job        k\nstate      succeeded\n"),
        "{shown}"
    );
    assert_eq!(played.must(&["jobs", "cancel", "k"]), "k is cancelled\n");
    played.asked();
    let output = played.ask(&[
        "jobs", "ls", "--state", "dead", "--module", "upper", "--limit", "1",
    ]);
    assert_eq!(stderr(&output), "there are more: --after k, or --all\n");
    let expected = json!({"state": "dead", "module": "upper", "limit": 1});
    assert_eq!(played.asked(), [("wess.jobs.list".into(), expected)]);
    // The second page is the one laid out next.
    let rest = played.must(&["jobs", "ls", "--after", "k"]);
    let line: Vec<_> = rest.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        (line[0], line[1], line.last()),
        ("l", "dead", Some(&"out_of_fuel"))
    );
    let all: Value = serde_json::from_str(&played.must(&["jobs", "ls", "--all", "-o", "json"])).unwrap();
    assert_eq!(
        (all["jobs"].as_array().unwrap().len(), &all["next"]),
        (2, &Value::Null)
    );
}

#[test]
fn dead_letters_are_listed_shown_redriven_and_purged() {
    let mut letter = golden("dead-letter");
    letter["job_id"] = "k".into();
    let played = Played::with(&[
        ("dead.list", json!({"letters": [letter.clone()]})),
        ("dead.get.k", letter.clone()),
        ("dead.redrive.k", record("queued", json!({}))),
        ("dead.purge", json!({"purged": 3})),
    ]);
    let reason = letter["reason"].as_str().unwrap();
    assert!(played.must(&["dead", "ls"]).contains(reason));
    assert!(
        played
            .must(&["dead", "get", "k"])
            .contains(&format!("\nreason      {reason}\n"))
    );
    assert_eq!(played.must(&["dead", "redrive", "k"]), "k is submitted again\n");
    played.asked();
    assert_eq!(played.must(&["dead", "purge", "k"]), "removed 3\n");
    assert_eq!(played.must(&["dead", "purge", "--all"]), "removed 3\n");
    let expected =
        [json!({"job_id": "k"}), json!({"all": true})].map(|body| ("wess.dead.purge".into(), body));
    assert_eq!(played.asked(), expected);
}

#[test]
fn what_is_not_there_ends_with_66() {
    let missing = json!({"error": failure("job_not_found")});
    let played = Played::with(&[("jobs.get.k", missing.clone()), ("dead.get.k", missing)]);
    for line in [["jobs", "get", "k"], ["dead", "get", "k"]] {
        let output = played.ask(&line);
        assert_eq!(code(&output), 66, "{}", stderr(&output));
        assert!(stderr(&output).contains("(job_not_found)"));
    }
}
