//! A call's trace, from the caller's `traceparent` to the worker's log.

use serde_json::{Value, json};
use wess_harness::eventually;
use wess_schemas::{ErrorCode, JobId, header};

use crate::rig::{Rig, refused};

/// The line about a job in the worker's log, which must be JSON throughout.
async fn logged(rig: &Rig, job_id: &JobId) -> Value {
    eventually("the worker to log the call", async || {
        let log = rig.worker.process.stderr();
        log.lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {line}"))
            })
            .find(|line| line["job_id"] == job_id.as_str())
    })
    .await
}

#[tokio::test]
async fn a_call_that_trapped_is_logged_under_the_trace_of_its_caller_in_every_form() {
    let rig = Rig::with(&["--log-format", "json"], &["upper", "traps"]).await;
    let trapping = json!({"module": "traps", "function": "unreachable"});
    let chain = json!({"steps": [trapping]});
    for (number, subject, body) in [
        (1, "wess.invoke.traps.unreachable", String::new()),
        (2, "wess.invoke", trapping.to_string()),
        (3, "wess.chain", chain.to_string()),
    ] {
        let trace_id = format!("{number:032x}");
        let traceparent = format!("00-{trace_id}-b7ad6b7169203331-01");
        let job = format!("job-{number}");
        let headers = [(header::TRACEPARENT, &*traceparent), (header::MSG_ID, &*job)];
        let failed = refused(
            ErrorCode::GuestTrapped,
            rig.caller.ask(subject, &headers, body).await,
        );
        assert_eq!(failed.job_id.as_ref().unwrap().as_str(), job);
        let line = eventually("the worker to log the trace", async || {
            let log = rig.worker.process.stderr();
            log.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .find(|line| line["trace_id"] == trace_id)
        })
        .await;
        assert_eq!(line["function"], "unreachable", "{line}");
        assert!(
            line["message"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_trace_that_does_not_parse_is_no_trace_and_the_call_goes_on() {
    let rig = Rig::with(&["--log-format", "json"], &["upper", "traps"]).await;
    for (number, traceparent) in ["", "00-nonsense", "00-0-0-0"].into_iter().enumerate() {
        let job: JobId = format!("bad-{number}").parse().unwrap();
        let headers = [(header::TRACEPARENT, traceparent), (header::MSG_ID, job.as_str())];
        let answered = rig
            .caller
            .ask("wess.invoke.upper", &headers[..1], "hello")
            .await
            .unwrap();
        assert_eq!(answered.payload, "HELLO");
        let failed = rig
            .caller
            .ask("wess.invoke.traps.unreachable", &headers, "")
            .await;
        refused(ErrorCode::GuestTrapped, failed);
        let line = logged(&rig, &job).await;
        assert_eq!(line.get("trace_id"), None, "{line}");
    }
}
