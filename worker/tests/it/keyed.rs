//! Synchronous calls with an idempotency key: one ending, however often, wherever and in whichever form they are sent.

use futures_util::future::join_all;
use serde_json::json;
use wess_schemas::chain::ChainOutcome;
use wess_schemas::job::{DeadReason, JobRecord, JobState};
use wess_schemas::{ErrorCode, Outcome};

use crate::rig::{Answered, Caller, Rig, Worker, fact, parse, refused, refused_naming, wat};

/// Counts its calls in its state, and answers how many there were.
const COUNTER: &str = "wess.invoke.counter";
const KEY: &str = "order-7";

impl Caller {
    async fn keyed(
        &self,
        subject: &str,
        key: &str,
        payload: impl Into<bytes::Bytes>,
    ) -> Answered<async_nats::Message> {
        self.ask(subject, &[("Nats-Msg-Id", key)], payload).await
    }
}

#[tokio::test]
async fn a_call_sent_again_is_answered_as_before_and_its_guest_runs_once() {
    let rig = Rig::start(&["counter"]).await;
    let other = Worker::start(&rig.nats, &[]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    let first = rig.caller.keyed(COUNTER, KEY, "").await.unwrap();
    assert_eq!(first.payload, "1");
    assert_eq!(fact(&first, "Wess-Job-Id"), Some(KEY));
    // Enough for both workers to have been asked.
    for _ in 0..16 {
        let again = rig.caller.keyed(COUNTER, KEY, "").await.unwrap();
        assert_eq!((&again.payload, &again.headers), (&first.payload, &first.headers));
    }
    // The same request in the other form: the same ending.
    let body = json!({"module": "counter", "input": ""}).to_string();
    let outcome: Outcome = parse(&rig.caller.keyed("wess.invoke", KEY, body).await.unwrap());
    assert_eq!(
        (outcome.output.as_deref(), outcome.job_id.as_str()),
        (Some("1"), KEY)
    );
    let record = rig.caller.record(KEY).await.unwrap();
    assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    assert_eq!(
        rig.caller.keyed(COUNTER, "order-8", "").await.unwrap().payload,
        "2"
    );
    assert_eq!(rig.caller.raw("counter", "").await.unwrap().payload, "3");
    assert!(other.stop().path().exists());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn the_same_key_with_another_request_is_a_conflict() {
    let rig = Rig::start(&["upper", "counter"]).await;
    rig.caller.keyed("wess.invoke.upper", KEY, "a").await.unwrap();
    refused(
        ErrorCode::Conflict,
        rig.caller.keyed("wess.invoke.upper", KEY, "b").await,
    );
    refused(ErrorCode::Conflict, rig.caller.keyed(COUNTER, KEY, "a").await);
    let limited = [("Nats-Msg-Id", KEY), ("Wess-Timeout-Ms", "1000")];
    refused(
        ErrorCode::Conflict,
        rig.caller.ask("wess.invoke.upper", &limited, "a").await,
    );
    let job = json!({"job_id": KEY, "invoke": {"module": "upper", "input": "a"}});
    refused(ErrorCode::Conflict, rig.caller.submit(job).await);
    // And the other way round: neither a job that waits nor one that has ended gives its key away.
    let late = json!({"job_id": "late", "invoke": {"module": "upper", "input": "a"}, "delay_ms": 600_000});
    rig.caller.submit(late).await.unwrap();
    let done = rig
        .caller
        .job(json!({"job_id": "done", "invoke": {"module": "upper", "input": "a"}}))
        .await;
    assert_eq!(done.state, JobState::Succeeded);
    for key in ["late", "done"] {
        refused(
            ErrorCode::Conflict,
            rig.caller.keyed("wess.invoke.upper", key, "a").await,
        );
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn callers_that_race_with_one_key_are_all_told_one_ending() {
    let rig = Rig::start(&["counter"]).await;
    let _other = Worker::start(&rig.nats, &[]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    let answers = join_all((0..64).map(|_| rig.caller.keyed(COUNTER, KEY, ""))).await;
    let told: std::collections::BTreeSet<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().payload)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let record = rig.caller.record(KEY).await.unwrap();
    let output = crate::jobs::outcome(&record).output.clone().unwrap();
    assert_eq!(told.into_iter().next().unwrap(), output);
}

#[tokio::test]
async fn a_guests_failure_is_an_ending_and_a_refusal_is_none() {
    let rig = Rig::start(&["traps"]).await;
    let trapping = json!({"module": "traps", "function": "unreachable"}).to_string();
    let first = refused(
        ErrorCode::GuestTrapped,
        rig.caller.keyed("wess.invoke", KEY, trapping.clone()).await,
    );
    let again = refused(
        ErrorCode::GuestTrapped,
        rig.caller.keyed("wess.invoke", KEY, trapping).await,
    );
    assert_eq!(first, again);
    assert_eq!(
        rig.worker
            .metric("wess_worker_calls_total{code=\"guest_trapped\"}")
            .await,
        1
    );
    assert_eq!(rig.caller.record(KEY).await.unwrap().state, JobState::Failed);
    refused(
        ErrorCode::ModuleNotFound,
        rig.caller.keyed("wess.invoke.upper", "early", "a").await,
    );
    refused(ErrorCode::JobNotFound, rig.caller.record("early").await);
    rig.caller.store_guests(&["upper"]).await;
    assert_eq!(
        rig.caller
            .keyed("wess.invoke.upper", "early", "a")
            .await
            .unwrap()
            .payload,
        "A"
    );
}

#[tokio::test]
async fn a_large_answer_is_kept_beside_its_record() {
    let rig = Rig::start(&["upper"]).await;
    let input = vec![b'a'; 700_000];
    let first = rig
        .caller
        .keyed("wess.invoke.upper", KEY, input.clone())
        .await
        .unwrap();
    let again = rig.caller.keyed("wess.invoke.upper", KEY, input).await.unwrap();
    let stored = fact(&first, "Wess-Output-Ref").unwrap();
    assert!(stored.contains("wess-job-payloads"), "{stored}");
    assert_eq!(fact(&again, "Wess-Output-Ref"), Some(stored));
}

#[tokio::test]
async fn a_chain_with_a_key_has_one_ending_too() {
    let rig = Rig::start(&["counter", "upper"]).await;
    let chain = json!({"steps": ["counter", "upper"], "input": ""}).to_string();
    for _ in 0..3 {
        let outcome: ChainOutcome = parse(&rig.caller.keyed("wess.chain", KEY, chain.clone()).await.unwrap());
        assert_eq!((outcome.output.as_deref(), outcome.steps.len()), (Some("1"), 2));
    }
    let other = json!({"steps": ["upper"], "input": ""}).to_string();
    refused(
        ErrorCode::Conflict,
        rig.caller.keyed("wess.chain", KEY, other).await,
    );
    let nobody = json!({"steps": ["counter", "nobody"], "input": ""}).to_string();
    refused_naming(
        ErrorCode::ModuleNotFound,
        "steps[1]",
        rig.caller.keyed("wess.chain", "k", nobody).await,
    );
    refused(ErrorCode::JobNotFound, rig.caller.record("k").await);
}

#[tokio::test]
async fn a_key_that_waits_in_the_queue_is_looked_up_by_whoever_takes_it() {
    let rig = Rig::with(&["--executors", "1", "--slots", "1"], &["counter", "spin"]).await;
    assert_eq!(rig.caller.keyed(COUNTER, KEY, "").await.unwrap().payload, "1");
    let spinner = rig.caller.begin(crate::rig::spin(1000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    let again = rig.caller.keyed(COUNTER, KEY, "");
    let fresh = rig.caller.keyed(COUNTER, "order-8", "");
    let (again, fresh) = futures_util::join!(again, fresh);
    assert_eq!(
        (again.unwrap().payload, fresh.unwrap().payload),
        ("1".into(), "2".into())
    );
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_job_whose_key_was_taken_meanwhile_becomes_a_letter_and_nobody_elses_outcome() {
    let rig = Rig::start(&["upper"]).await;
    let job = json!({"job_id": KEY, "invoke": {"module": "upper", "input": "mine"}, "delay_ms": 1000});
    rig.caller.submit(job).await.unwrap();
    // As a call would have written it whose key was looked up just before the job was accepted.
    rig.caller.keyed("wess.invoke.upper", "other", "a").await.unwrap();
    let theirs = JobRecord {
        job_id: KEY.parse().unwrap(),
        ..rig.caller.record("other").await.unwrap()
    };
    let results = rig
        .caller
        .jetstream()
        .get_key_value("wess-results")
        .await
        .unwrap();
    let body = serde_json::to_vec(&theirs).unwrap();
    results.put(format!("default.{KEY}"), body.into()).await.unwrap();
    let letter = wess_harness::eventually("a letter", async || {
        let letter: Answered<wess_schemas::job::DeadLetter> = rig
            .caller
            .ask_json(&format!("wess.dead.get.{KEY}"), &json!({}))
            .await;
        letter.ok()
    })
    .await;
    assert_eq!((letter.reason, letter.attempts), (DeadReason::KeyTaken, 0));
    assert_eq!(rig.caller.record(KEY).await.unwrap(), theirs);
}

#[tokio::test]
async fn without_jetstream_a_call_with_a_key_is_refused_and_one_without_is_served() {
    let rig = Rig::start(&["upper"]).await;
    rig.caller
        .store("later", wat("(module (func (export \"f\")))"))
        .await;
    rig.caller
        .jetstream()
        .delete_key_value("wess-results")
        .await
        .unwrap();
    rig.caller.jetstream().delete_stream("WESS_JOBS").await.unwrap();
    // What is missing is made again, and the call is served then; never without its record.
    let answered = wess_harness::eventually("the bucket to be there again", async || {
        match rig.caller.keyed("wess.invoke.upper", KEY, "a").await {
            Ok(answered) => Some(answered),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Unavailable);
                None
            }
        }
    })
    .await;
    assert_eq!(answered.payload, "A");
    assert_eq!(rig.caller.record(KEY).await.unwrap().state, JobState::Succeeded);
    assert_eq!(rig.caller.raw("upper", "b").await.unwrap().payload, "B");
}
