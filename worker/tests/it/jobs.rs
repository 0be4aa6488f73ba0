//! Durable jobs as clients see them: submitted, checked, run once, waited for, listed, cancelled, retried, given up.

use serde_json::{Value, json};
use wess_harness::eventually;
use wess_schemas::ErrorCode;
use wess_schemas::job::{
    DeadLetter, DeadList, DeadPurged, DeadReason, JobList, JobOutcome, JobRecord, JobState,
};
use wess_schemas::outcome::Outcome;

use crate::rig::{Answered, Caller, Rig, add, nap, refused, refused_naming, spin, wat};

impl Caller {
    /// Submits a job.
    pub async fn submit(&self, request: Value) -> Answered<JobRecord> {
        self.ask_json("wess.jobs.submit", &request).await
    }

    /// Submits a job that must be taken, and waits for its end.
    pub async fn job(&self, request: Value) -> JobRecord {
        let record = self.submit(request).await.unwrap();
        self.end_of(record.job_id.as_str()).await
    }

    /// Waits for a job's end.
    pub async fn end_of(&self, job_id: &str) -> JobRecord {
        let wait = json!({"timeout_ms": 20_000});
        let record: JobRecord = self
            .ask_json(&format!("wess.jobs.wait.{job_id}"), &wait)
            .await
            .unwrap();
        assert!(record.state.is_final(), "{record:?}");
        record
    }

    /// A job's record.
    pub async fn record(&self, job_id: &str) -> Answered<JobRecord> {
        self.ask_json(&format!("wess.jobs.get.{job_id}"), &json!({}))
            .await
    }
}

/// What a job's guest gave.
pub fn outcome(record: &JobRecord) -> &Outcome {
    match &record.outcome {
        Some(JobOutcome::Invoke(outcome)) => outcome,
        other => panic!("{other:?} in {record:?}"),
    }
}

#[tokio::test]
async fn a_job_runs_once_and_its_record_says_what_came_of_it() {
    let rig = Rig::start(&["upper"]).await;
    let submitted = rig
        .caller
        .submit(json!({"invoke": {"module": "upper", "input": "hello"}}))
        .await
        .unwrap();
    assert_eq!((submitted.state, submitted.attempts), (JobState::Queued, 0));
    let record = rig.caller.end_of(submitted.job_id.as_str()).await;
    assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    assert_eq!(outcome(&record).output.as_deref(), Some("HELLO"));
    assert_eq!(outcome(&record).job_id, record.job_id);
    assert_eq!(record.worker.as_ref().unwrap().to_string(), rig.worker.id());
    assert!(record.submitted <= record.started.unwrap() && record.started <= record.finished);
    assert_eq!(rig.caller.record(record.job_id.as_str()).await.unwrap(), record);
    rig.worker
        .shows("wess_worker_jobs_ended_total{state=\"succeeded\"}", 1)
        .await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn chains_and_stores_are_jobs_too() {
    let rig = Rig::start(&["upper"]).await;
    let chain = rig
        .caller
        .job(json!({"chain": {"steps": ["upper", "upper"], "input": "hello"}}))
        .await;
    let Some(JobOutcome::Chain(chained)) = &chain.outcome else {
        panic!("{chain:?}")
    };
    assert_eq!(
        (chained.output.as_deref(), chained.steps.len()),
        (Some("HELLO"), 2)
    );
    let wasm = wess_harness::guest("add");
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, wasm);
    let store = rig
        .caller
        .job(json!({"store": {"name": "plus", "wasm_base64": base64}}))
        .await;
    assert!(matches!(&store.outcome, Some(JobOutcome::Store(module)) if module.name.as_str() == "plus"));
    assert_eq!(
        rig.caller
            .invoke(json!({"module": "plus", "args": [1, 2]}))
            .await
            .unwrap()
            .results,
        Some(vec![json!(3)])
    );
}

#[tokio::test]
async fn what_could_not_run_is_refused_before_it_is_accepted() {
    let rig = Rig::start(&["upper"]).await;
    let submit = async |request: Value| rig.caller.submit(request).await;
    refused(
        ErrorCode::ModuleNotFound,
        submit(json!({"invoke": {"module": "nobody"}})).await,
    );
    refused(
        ErrorCode::ModuleNotFound,
        submit(json!({"chain": {"steps": ["upper", "nobody"]}})).await,
    );
    refused(
        ErrorCode::FunctionNotFound,
        submit(json!({"invoke": {"module": "add", "function": "sub"}})).await,
    );
    refused(
        ErrorCode::InvalidArguments,
        submit(json!({"invoke": {"module": "add", "args": ["x"]}})).await,
    );
    refused_naming(
        ErrorCode::InvalidRequest,
        "wait_ms",
        submit(json!({"invoke": {"module": "add", "wait_ms": 1}})).await,
    );
    refused_naming(
        ErrorCode::InvalidRequest,
        "colour",
        submit(json!({"invoke": add(), "colour": 1})).await,
    );
    refused_naming(
        ErrorCode::InvalidRequest,
        "one of invoke, chain and store",
        submit(json!({})).await,
    );
    for reply_to in ["$KV.wess-modules.default.add", "wess.invoke.add", "a.*", ""] {
        let request = json!({"invoke": add(), "reply_to": reply_to});
        refused_naming(ErrorCode::InvalidRequest, "reply_to", submit(request).await);
    }
    refused_naming(
        ErrorCode::Unsupported,
        "--webhook-hosts",
        submit(json!({"invoke": add(), "webhook": "http://a.example"})).await,
    );
    refused_naming(
        ErrorCode::InvalidRequest,
        "schedule",
        submit(json!({"invoke": add(), "cron": "whenever"})).await,
    );
    refused(ErrorCode::JobNotFound, rig.caller.record("nobody").await);
    let list: JobList = rig.caller.ask_json("wess.jobs.list", &json!({})).await.unwrap();
    assert_eq!(list.jobs, []);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_with_another_body_a_conflict() {
    let rig = Rig::start(&["upper"]).await;
    let request = |input: &str| json!({"job_id": "order-7", "invoke": {"module": "upper", "input": input}});
    let first = rig.caller.job(request("a")).await;
    let again = rig.caller.submit(request("a")).await.unwrap();
    assert_eq!(again, first);
    refused(ErrorCode::Conflict, rig.caller.submit(request("b")).await);
    // The same while it still waits, and by the header.
    let delayed = json!({"invoke": {"module": "upper"}, "delay_ms": 600_000});
    let headers = [("Nats-Msg-Id", "later")];
    for _ in 0..2 {
        let payload = serde_json::to_vec(&delayed).unwrap();
        let reply = rig
            .caller
            .ask("wess.jobs.submit", &headers, payload)
            .await
            .unwrap();
        let record: JobRecord = crate::rig::parse(&reply);
        assert_eq!(
            (record.job_id.as_str(), record.state),
            ("later", JobState::Queued)
        );
        assert!(record.due.is_some());
    }
    refused(
        ErrorCode::Conflict,
        rig.caller
            .submit(json!({"job_id": "later", "invoke": add()}))
            .await,
    );
    rig.worker
        .shows("wess_worker_jobs_ended_total{state=\"succeeded\"}", 1)
        .await;
}

#[tokio::test]
async fn many_at_once_under_one_key_are_one_job() {
    let rig = Rig::start(&["upper"]).await;
    let request = json!({"job_id": "race", "invoke": {"module": "upper", "input": "a"}});
    let racers = (0..16).map(|_| rig.caller.submit(request.clone()));
    for record in futures_util::future::join_all(racers).await {
        assert_eq!(record.unwrap().job_id.as_str(), "race");
    }
    rig.caller.end_of("race").await;
    rig.worker
        .shows("wess_worker_jobs_ended_total{state=\"succeeded\"}", 1)
        .await;
}

#[tokio::test]
async fn a_guests_failure_is_the_outcome_unless_the_job_says_otherwise() {
    let rig = Rig::start(&["traps"]).await;
    let failed = rig
        .caller
        .job(json!({"invoke": {"module": "traps", "function": "unreachable"}}))
        .await;
    assert_eq!((failed.state, failed.attempts), (JobState::Failed, 1));
    assert_eq!(failed.error.unwrap().code, ErrorCode::GuestTrapped);
    let retry = json!({"max_attempts": 3, "backoff_ms": [10, 20]});
    let dead = rig.caller.job(json!({"job_id": "thrice", "invoke": {"module": "traps", "function": "unreachable"}, "retry": retry})).await;
    assert_eq!((dead.state, dead.attempts), (JobState::Dead, 3));
    let letter: DeadLetter = rig
        .caller
        .ask_json("wess.dead.get.thrice", &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::AttemptsExhausted, 3, 3)
    );
    assert_eq!(letter.error.unwrap().code, ErrorCode::GuestTrapped);
    assert_eq!(letter.request.unwrap().job_id.unwrap().as_str(), "thrice");
}

#[tokio::test]
async fn a_dead_letter_is_redriven_to_another_end_or_purged() {
    let rig = Rig::start(&[]).await;
    rig.caller
        .store("flaky", wat(r#"(module (func (export "run") unreachable))"#))
        .await;
    let retry = json!({"max_attempts": 2, "backoff_ms": [1]});
    for job in ["a", "b", "c"] {
        rig.caller
            .job(json!({"job_id": job, "invoke": {"module": "flaky"}, "retry": retry}))
            .await;
    }
    let list: DeadList = rig
        .caller
        .ask_json("wess.dead.list", &json!({"limit": 2}))
        .await
        .unwrap();
    assert_eq!(
        (list.letters.len(), list.next.as_ref().unwrap().as_str()),
        (2, "b")
    );
    rig.caller
        .store("flaky", wat(r#"(module (func (export "run")))"#))
        .await;
    let redriven: JobRecord = rig
        .caller
        .ask_json("wess.dead.redrive.a", &json!({}))
        .await
        .unwrap();
    assert_eq!((redriven.state, redriven.attempts), (JobState::Queued, 0));
    assert_eq!(rig.caller.end_of("a").await.state, JobState::Succeeded);
    refused(
        ErrorCode::JobNotFound,
        rig.caller
            .ask_json::<DeadLetter>("wess.dead.get.a", &json!({}))
            .await,
    );
    refused(
        ErrorCode::InvalidRequest,
        rig.caller
            .ask_json::<DeadPurged>("wess.dead.purge", &json!({}))
            .await,
    );
    for (body, purged) in [
        (json!({"job_id": "b"}), 1),
        (json!({"all": true}), 1),
        (json!({"all": true}), 0),
    ] {
        let said: DeadPurged = rig.caller.ask_json("wess.dead.purge", &body).await.unwrap();
        assert_eq!(said.purged, purged, "{body}");
    }
}

#[tokio::test]
async fn a_job_is_cancelled_while_it_waits_and_while_it_runs() {
    let rig = Rig::with(&["--executors", "1", "--slots", "1"], &["spin"]).await;
    let blocker = rig.caller.submit(json!({"invoke": spin(3000)})).await.unwrap();
    eventually("the first to run", async || {
        let record = rig.caller.record(blocker.job_id.as_str()).await.unwrap();
        (record.state == JobState::Running).then_some(())
    })
    .await;
    let waiting = rig.caller.submit(json!({"invoke": add()})).await.unwrap();
    for job in [&waiting.job_id, &blocker.job_id] {
        let cancelled: JobRecord = rig
            .caller
            .ask_json(&format!("wess.jobs.cancel.{job}"), &json!({}))
            .await
            .unwrap();
        assert_eq!(cancelled.state, JobState::Cancelled);
    }
    rig.worker.comes_to_rest().await;
    for job in [&waiting.job_id, &blocker.job_id] {
        let record = rig.caller.end_of(job.as_str()).await;
        assert_eq!(
            (record.state, &record.outcome, &record.error),
            (JobState::Cancelled, &None, &None)
        );
    }
    refused(
        ErrorCode::JobNotFound,
        rig.caller
            .ask_json::<JobRecord>("wess.jobs.cancel.nobody", &json!({}))
            .await,
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn jobs_are_listed_by_page_and_by_filter() {
    let rig = Rig::start(&["upper", "traps"]).await;
    for number in 0..5 {
        rig.caller
            .job(json!({"job_id": format!("job-{number}"), "invoke": {"module": "upper@1"}}))
            .await;
    }
    rig.caller
        .job(json!({"job_id": "trapped", "invoke": {"module": "traps", "function": "unreachable"}}))
        .await;
    rig.caller
        .submit(json!({"job_id": "later", "chain": {"steps": ["upper"]}, "delay_ms": 600_000}))
        .await
        .unwrap();
    let page = async |request: Value| {
        let list: JobList = rig.caller.ask_json("wess.jobs.list", &request).await.unwrap();
        let ids: Vec<_> = list.jobs.iter().map(|job| job.job_id.to_string()).collect();
        (ids.join(" "), list.next.map(|next| next.to_string()))
    };
    assert_eq!(
        page(json!({"limit": 3})).await,
        ("job-0 job-1 job-2".into(), Some("job-2".into()))
    );
    assert_eq!(
        page(json!({"limit": 9, "after": "job-2"})).await,
        ("job-3 job-4 later trapped".into(), None)
    );
    assert_eq!(page(json!({"state": "failed"})).await.0, "trapped");
    assert_eq!(page(json!({"state": "queued", "kind": "chain"})).await.0, "later");
    assert_eq!(
        page(json!({"module": "upper", "after": "job-3"})).await.0,
        "job-4"
    );
    refused(
        ErrorCode::InvalidRequest,
        rig.caller
            .ask_json::<JobList>("wess.jobs.list", &json!({"limit": 101}))
            .await,
    );
}

#[tokio::test]
async fn a_run_past_a_second_shows_and_a_wait_that_ends_gives_the_record_as_it_is() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("nap", nap(2500)).await;
    let submitted = rig
        .caller
        .submit(json!({"invoke": {"module": "nap"}}))
        .await
        .unwrap();
    let job = submitted.job_id.as_str();
    let short: JobRecord = rig
        .caller
        .ask_json(&format!("wess.jobs.wait.{job}"), &json!({"timeout_ms": 1}))
        .await
        .unwrap();
    assert_eq!(short.state, JobState::Queued);
    let running = eventually("it to show as running", async || {
        let record = rig.caller.record(job).await.unwrap();
        (record.state == JobState::Running).then_some(record)
    })
    .await;
    assert!(running.started.is_some() && running.worker.is_some() && running.attempts == 0);
    assert_eq!(rig.caller.end_of(job).await.state, JobState::Succeeded);
    refused(
        ErrorCode::InvalidRequest,
        rig.caller
            .ask_json::<JobRecord>(&format!("wess.jobs.wait.{job}"), &json!({"timeout_ms": 120_001}))
            .await,
    );
}

#[tokio::test]
async fn large_inputs_and_outputs_outlast_the_hour_of_calls_and_go_when_nothing_knows_their_job() {
    let rig = Rig::start(&["cat"]).await;
    let assets = crate::support::assets(&rig.nats).await;
    let payloads = assets.payloads();
    let input = vec![b'x'; 700_000];
    let upload = payloads.put(&input).await.unwrap();
    let request = json!({"job_id": "large", "invoke": {"module": "cat", "input_ref": upload}});
    rig.caller.submit(request).await.unwrap();
    payloads.discard(&upload).await;
    let record = rig.caller.end_of("large").await;
    let output = outcome(&record).output_ref.clone().unwrap();
    assert_eq!(output.bucket, wess_schemas::payload::PayloadBucket::Jobs);
    assert_eq!(payloads.get(&output, u64::MAX).await.unwrap(), input);

    let storage = wess_worker::registry::Storage::new(rig.caller.client.clone(), Default::default());
    let sweep = wess_worker::queue::payload_sweep::PayloadSweep {
        records: wess_worker::queue::records::Records::new(storage.clone()),
        storage,
        subjects: Default::default(),
        results_age: std::time::Duration::from_secs(24 * 3600),
    };
    let later = time::OffsetDateTime::now_utc() + std::time::Duration::from_secs(26 * 3600);
    assert_eq!(sweep.sweep_now().await.unwrap(), 0, "it is young");
    assert_eq!(sweep.sweep(later).await.unwrap(), 0, "its record is there");
    assets.results.stream.purge().await.unwrap();
    assert_eq!(
        sweep.sweep_now().await.unwrap(),
        0,
        "nothing knows it, and it is young"
    );
    assert_eq!(sweep.sweep(later).await.unwrap(), 2, "its input and its output");
    assert!(payloads.get(&output, u64::MAX).await.is_err());
}

#[tokio::test]
async fn what_would_fill_a_message_is_stored_beside_the_job() {
    let rig = Rig::start(&["cat"]).await;
    let input = "x".repeat(700_000);
    let record = rig
        .caller
        .job(json!({"invoke": {"module": "cat", "input": input}}))
        .await;
    assert_eq!(outcome(&record).output_ref.as_ref().unwrap().size, 700_000);
    let chain = rig
        .caller
        .job(json!({"chain": {"steps": ["cat"], "input": input}}))
        .await;
    assert_eq!(chain.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_cancelled_jobs_guest_ends_and_its_slot_is_free() {
    let flags = ["--ack-wait-s", "1", "--executors", "1", "--slots", "1"];
    let rig = Rig::with(&flags, &["spin"]).await;
    let job = rig
        .caller
        .submit(json!({"invoke": spin(60_000)}))
        .await
        .unwrap()
        .job_id;
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let cancelled: JobRecord = rig
        .caller
        .ask_json(&format!("wess.jobs.cancel.{job}"), &json!({}))
        .await
        .unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    rig.worker.shows("wess_worker_slots_busy", 0).await;
    rig.worker
        .shows("wess_worker_calls_total{code=\"cancelled\"}", 1)
        .await;
    assert_eq!(rig.caller.record(job.as_str()).await.unwrap(), cancelled);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_delayed_job_with_a_large_input_is_known_again_after_it_fired() {
    let rig = Rig::start(&["upper"]).await;
    let input = "a".repeat(600_000);
    let job = json!({"job_id": "later", "invoke": {"module": "upper", "input": input}, "delay_ms": 1000});
    let record = rig.caller.job(job.clone()).await;
    assert_eq!(record.state, JobState::Succeeded);
    assert_eq!(rig.caller.submit(job).await.unwrap(), record);
}
