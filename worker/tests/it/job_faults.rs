//! Durable jobs under faults: what is accepted comes to one end, whatever dies meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use wess_harness::{NatsCluster, NatsServer, Process, Proxy, Signal, binary, eventually};
use wess_schemas::ErrorCode;
use wess_schemas::job::{DeadLetter, DeadReason, JobList, JobRecord, JobState};

use crate::jobs::outcome;
use crate::rig::{Caller, Rig, Worker, nap, refused, spin};

/// Another worker gets a job after a second of silence.
pub const IMPATIENT: [&str; 2] = ["--ack-wait-s", "1"];

/// Waits until a job shows as running.
async fn runs(caller: &Caller, job: &str) -> JobRecord {
    eventually("the job to run", async || {
        let record = caller.record(job).await.ok()?;
        (record.state == JobState::Running).then_some(record)
    })
    .await
}

/// A job's end, asked for again and again: who is asked may not hear it.
pub async fn end_in_time(caller: &Caller, job: &str) -> JobRecord {
    eventually("the job to end", async || {
        let request = async_nats::Request::new().timeout(Some(Duration::from_millis(500)));
        let reply = caller
            .client
            .send_request(format!("wess.jobs.get.{job}"), request)
            .await
            .ok()?;
        let record: JobRecord = crate::rig::parse(&crate::rig::read(reply).ok()?);
        record.state.is_final().then_some(record)
    })
    .await
}

/// How many jobs are not settled.
pub async fn unsettled(caller: &Caller) -> u64 {
    let stream = caller.jetstream().get_stream("WESS_JOBS").await.unwrap();
    stream.cached_info().state.messages
}

pub async fn all_settled(caller: &Caller) {
    eventually("every job to be settled", async || {
        (unsettled(caller).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_during_the_guest_is_finished_by_another() {
    let rig = Rig::with(&IMPATIENT, &[]).await;
    rig.caller.store("nap", nap(1500)).await;
    let job = rig
        .caller
        .submit(json!({"job_id": "nap", "invoke": {"module": "nap"}}))
        .await
        .unwrap();
    runs(&rig.caller, job.job_id.as_str()).await;
    let Rig { worker, caller, nats } = rig;
    worker.process.signal(Signal::KILL);
    let other = Worker::start(&nats, &IMPATIENT);
    let record = caller.end_of("nap").await;
    assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    assert_eq!(record.worker.unwrap().to_string(), other.id());
    all_settled(&caller).await;
}

#[tokio::test]
async fn no_job_is_lost_when_a_worker_is_killed_with_many_in_hand() {
    let rig = Rig::with(&IMPATIENT, &["upper"]).await;
    let submit = async |number: usize| {
        let request = json!({"job_id": format!("job-{number}"), "invoke": {"module": "upper", "input": "a"}});
        let request = async_nats::Request::new()
            .payload(serde_json::to_vec(&request).unwrap().into())
            .timeout(Some(Duration::from_secs(5)));
        let reply = rig.caller.client.send_request("wess.jobs.submit", request).await;
        reply.ok().map(|reply| crate::rig::read(reply).unwrap())
    };
    let submitted = join_all((0..200).map(submit));
    let Rig { worker, caller, nats } = &rig;
    let killed = async {
        eventually("some to have ended", async || {
            let done = worker
                .metric("wess_worker_jobs_ended_total{state=\"succeeded\"}")
                .await;
            (done > 20).then_some(())
        })
        .await;
        worker.process.signal(Signal::KILL);
        Worker::start(nats, &IMPATIENT)
    };
    let (submitted, _other) = tokio::join!(submitted, killed);
    // A submission that the dying worker took and did not answer is sent again, under its key.
    for (number, submitted) in submitted.into_iter().enumerate() {
        let job = format!("job-{number}");
        if submitted.is_none() {
            submit(number).await.unwrap();
        }
        let record = caller.end_of(&job).await;
        assert_eq!(
            (record.state, outcome(&record).output.as_deref()),
            (JobState::Succeeded, Some("A"))
        );
    }
    all_settled(caller).await;
}

#[tokio::test]
async fn a_job_whose_outcome_was_stored_before_its_worker_died_is_not_run_again() {
    let rig = Rig::start(&["upper"]).await;
    let ended = rig
        .caller
        .job(json!({"job_id": "once", "invoke": {"module": "upper", "input": "a"}}))
        .await;
    let Rig { worker, caller, nats } = rig;
    worker.stop();
    // As if the acknowledgement had been lost with its worker: the message is there, and so is the outcome.
    let request = json!({"job_id": "once", "invoke": {"module": "upper", "input": "a"}});
    let payload = serde_json::to_vec(&request).unwrap();
    let jetstream = caller.jetstream();
    jetstream
        .publish("wess.queue.jobs.default.once", payload.into())
        .await
        .unwrap()
        .await
        .unwrap();
    let mut done = caller.client.subscribe("wess.done.once").await.unwrap();
    caller.client.flush().await.unwrap();
    let worker = Worker::start(&nats, &[]);
    all_settled(&caller).await;
    let told: JobRecord = crate::rig::parse(&done.next().await.unwrap());
    assert_eq!((&told, &caller.record("once").await.unwrap()), (&ended, &ended));
    worker.shows("wess_worker_jobs_adopted_total", 1).await;
    assert_eq!(worker.metric("wess_worker_calls_total{code=\"ok\"}").await, 0);
}

#[tokio::test]
async fn an_outcome_waits_for_a_server_that_was_killed_and_the_guest_does_not_run_again() {
    let mut rig = Rig::start(&[]).await;
    rig.caller.store("nap", nap(2000)).await;
    rig.caller
        .submit(json!({"job_id": "nap", "invoke": {"module": "nap"}}))
        .await
        .unwrap();
    runs(&rig.caller, "nap").await;
    rig.nats.kill();
    eventually("the guest to have ended", async || {
        (rig.worker.metric("wess_worker_slots_busy").await == 0).then_some(())
    })
    .await;
    rig.nats.restart();
    rig.caller.is_back().await;
    assert_eq!(end_in_time(&rig.caller, "nap").await.state, JobState::Succeeded);
    all_settled(&rig.caller).await;
    assert_eq!(rig.worker.metric("wess_worker_calls_total{code=\"ok\"}").await, 1);
    rig.is_unharmed().await;
}

/// A worker that reaches NATS by a proxy.
fn behind(proxy: &Proxy, data: &TempDir) -> Worker {
    let mut command = binary("wess-worker");
    command
        .env("WESS_ADMIN", "127.0.0.1:0")
        .args(["--nats", &proxy.url(), "--data"])
        .arg(data.path())
        .args(IMPATIENT);
    Worker::of(command)
}

#[tokio::test]
async fn who_was_cut_off_for_longer_than_it_may_be_silent_adopts_the_outcome_of_another() {
    let nats = NatsServer::start();
    let (proxy, data) = (Proxy::before(nats.port()), tempfile::tempdir().unwrap());
    let cut_off = behind(&proxy, &data);
    let caller = Caller::connect(&nats).await;
    caller.store("nap", nap(2500)).await;
    let mut done = caller.client.subscribe("wess.done.>").await.unwrap();
    caller
        .submit(json!({"job_id": "nap", "invoke": {"module": "nap"}}))
        .await
        .unwrap();
    runs(&caller, "nap").await;
    proxy.stall();
    let other = Worker::start(&nats, &IMPATIENT);
    let record = end_in_time(&caller, "nap").await;
    assert_eq!(
        (record.state, record.worker.as_ref().unwrap().to_string()),
        (JobState::Succeeded, other.id())
    );
    proxy.resume();
    cut_off.shows("wess_worker_jobs_adopted_total", 1).await;
    assert_eq!(caller.record("nap").await.unwrap(), record);
    all_settled(&caller).await;
    // Told twice at most, and the same both times.
    caller.client.flush().await.unwrap();
    let first: JobRecord = crate::rig::parse(&done.next().await.unwrap());
    assert_eq!(first, record);
    if let Some(Some(second)) = futures_util::FutureExt::now_or_never(done.next()) {
        assert_eq!(crate::rig::parse::<JobRecord>(&second), record);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_the_next_job_and_loses_none() {
    let flags = ["--max-jobs", "3", "--executors", "1", "--slots", "1"];
    let rig = Rig::with(&flags, &["spin"]).await;
    let submit = async |job: &str| {
        rig.caller
            .submit(json!({"job_id": job, "invoke": spin(1500)}))
            .await
    };
    for job in ["a", "b", "c"] {
        submit(job).await.unwrap();
    }
    let full = refused(ErrorCode::QueueFull, submit("d").await);
    assert!(!full.error.guest_ran && full.error.retryable);
    refused(ErrorCode::JobNotFound, rig.caller.record("d").await);
    for job in ["a", "b", "c"] {
        assert_eq!(rig.caller.end_of(job).await.state, JobState::Failed);
    }
    all_settled(&rig.caller).await;
    submit("d").await.unwrap();
    rig.caller.end_of("d").await;
}

#[tokio::test]
async fn a_job_whose_module_was_deleted_while_it_waited_fails_with_that_code() {
    let rig = Rig::with(&["--executors", "1", "--slots", "1"], &["spin", "upper"]).await;
    let blocker = rig.caller.submit(json!({"invoke": spin(2500)})).await.unwrap();
    runs(&rig.caller, blocker.job_id.as_str()).await;
    rig.caller
        .submit(json!({"job_id": "gone", "invoke": {"module": "upper"}}))
        .await
        .unwrap();
    rig.caller
        .ask("wess.modules.delete.upper", &[], "")
        .await
        .unwrap();
    let record = rig.caller.end_of("gone").await;
    assert_eq!((record.state, record.attempts), (JobState::Failed, 0));
    assert_eq!(record.error.unwrap().code, ErrorCode::ModuleNotFound);
}

#[tokio::test]
async fn an_outcome_is_stored_even_when_the_bucket_of_records_was_lost() {
    let rig = Rig::start(&[]).await;
    rig.caller.store("nap", nap(1500)).await;
    rig.caller
        .submit(json!({"job_id": "nap", "invoke": {"module": "nap"}}))
        .await
        .unwrap();
    runs(&rig.caller, "nap").await;
    rig.caller
        .jetstream()
        .delete_stream("KV_wess-results")
        .await
        .unwrap();
    all_settled(&rig.caller).await;
    assert_eq!(rig.caller.record("nap").await.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn a_job_that_kills_everyone_who_takes_it_ends_among_the_dead_letters() {
    let nats = NatsServer::start();
    let worker = Worker::start(&nats, &[]);
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["upper"]).await;
    worker.stop();
    let request = json!({"job_id": "killer", "invoke": {"module": "upper"}});
    let jetstream = caller.jetstream();
    let published = jetstream.publish(
        "wess.queue.jobs.default.killer",
        serde_json::to_vec(&request).unwrap().into(),
    );
    published.await.unwrap().await.unwrap();
    // What takes it says nothing of what became of it, twenty times.
    let consumer: jetstream::consumer::PullConsumer = jetstream
        .get_consumer_from_stream("wess-jobs", "WESS_JOBS")
        .await
        .unwrap();
    for delivery in 1..=20 {
        let request = consumer.batch().max_messages(1).expires(Duration::from_secs(5));
        let mut batch = request.messages().await.unwrap();
        let message = batch.next().await.unwrap().unwrap();
        assert_eq!(message.info().unwrap().delivered, delivery);
        message.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    let worker = Worker::start(&nats, &[]);
    let letter: DeadLetter = eventually("the dead letter", async || {
        caller.ask_json("wess.dead.get.killer", &json!({})).await.ok()
    })
    .await;
    assert_eq!(
        (letter.reason, letter.attempts, letter.deliveries),
        (DeadReason::TooManyDeliveries, 0, 20)
    );
    all_settled(&caller).await;
    assert_eq!(caller.record("killer").await.unwrap().state, JobState::Dead);
    worker.shows("wess_worker_jobs_swept_total", 1).await;
    let redriven: JobRecord = caller
        .ask_json("wess.dead.redrive.killer", &json!({}))
        .await
        .unwrap();
    assert_eq!(redriven.state, JobState::Queued);
    assert_eq!(caller.end_of("killer").await.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_stopping_worker_finishes_its_jobs_and_hands_back_those_that_outlast_its_grace() {
    let mut rig = Rig::with(&["--grace-s", "2"], &["spin"]).await;
    rig.caller.store("nap", nap(1500)).await;
    for (job, invoke) in [("short", json!({"module": "nap"})), ("long", spin(8000))] {
        rig.caller
            .submit(json!({"job_id": job, "invoke": invoke}))
            .await
            .unwrap();
    }
    runs(&rig.caller, "short").await;
    runs(&rig.caller, "long").await;
    let first = rig.worker.id();
    assert_eq!(rig.worker.process.stop().code(), Some(75));
    let other = Worker::start(&rig.nats, &[]);
    let short = rig.caller.end_of("short").await;
    assert_eq!(
        (short.state, short.worker.unwrap().to_string()),
        (JobState::Succeeded, first)
    );
    let long = rig.caller.end_of("long").await;
    assert_eq!((long.state, long.attempts), (JobState::Failed, 1));
    assert_eq!(long.worker.unwrap().to_string(), other.id());
}

#[tokio::test]
async fn a_job_is_delayed_and_a_schedule_fires_jobs_of_its_own_until_it_is_cancelled() {
    let rig = Rig::start(&["upper"]).await;
    let others = [Worker::start(&rig.nats, &[]), Worker::start(&rig.nats, &[])];
    let delayed = json!({"job_id": "later", "invoke": {"module": "upper", "input": "a"}, "delay_ms": 1000});
    let record = rig.caller.job(delayed).await;
    assert_eq!(record.state, JobState::Succeeded);
    let cron = json!({"job_id": "often", "invoke": {"module": "upper"}, "cron": "@every 1s"});
    assert_eq!(
        rig.caller.submit(cron.clone()).await.unwrap().cron.as_deref(),
        Some("@every 1s")
    );
    assert_eq!(rig.caller.submit(cron).await.unwrap().job_id.as_str(), "often");
    let fired = eventually("three firings", async || {
        let list: JobList = rig
            .caller
            .ask_json("wess.jobs.list", &json!({"state": "succeeded", "after": "often"}))
            .await
            .unwrap();
        (list.jobs.len() >= 3).then_some(list.jobs)
    })
    .await;
    for job in &fired {
        assert!(job.job_id.as_str().starts_with("often-"), "{job:?}");
    }
    let cancelled: JobRecord = rig
        .caller
        .ask_json("wess.jobs.cancel.often", &json!({}))
        .await
        .unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    let timers = rig.caller.jetstream().get_stream("WESS_TIMERS").await.unwrap();
    let at = timers
        .info_with_subjects("wess.queue.at.>")
        .await
        .unwrap()
        .count()
        .await;
    assert_eq!(at, 0);
    // Each firing was run once, by whichever worker.
    all_settled(&rig.caller).await;
    let list: JobList = rig
        .caller
        .ask_json("wess.jobs.list", &json!({"state": "succeeded"}))
        .await
        .unwrap();
    let mut ran = 0;
    for worker in std::iter::once(&rig.worker).chain(&others) {
        ran += worker
            .metric("wess_worker_jobs_ended_total{state=\"succeeded\"}")
            .await;
    }
    assert_eq!(ran, list.jobs.len() as u64);
}

#[tokio::test]
async fn a_cluster_that_loses_its_leader_and_then_another_node_loses_no_job() {
    let mut cluster = NatsCluster::start();
    let data = tempfile::tempdir().unwrap();
    let mut command = binary("wess-worker");
    command
        .env("WESS_ADMIN", "127.0.0.1:0")
        .args(["--nats", &cluster.url(), "--replicas", "3", "--data"])
        .arg(data.path())
        .args(IMPATIENT);
    let _worker = Process::start(&mut command);
    let client = async_nats::ConnectOptions::new()
        .request_timeout(Some(Duration::from_secs(10)))
        .connect(cluster.urls())
        .await
        .unwrap();
    let caller = Caller { client };
    caller.store_guests(&["upper"]).await;
    let mut accepted = BTreeMap::new();
    let leader = cluster.wait_for_stream_leader("WESS_JOBS");
    for (round, victim) in [leader, (leader + 1) % 3].into_iter().enumerate() {
        cluster.kill(victim);
        for number in 0..20 {
            let job = format!("job-{round}-{number}");
            let request = json!({"job_id": job, "invoke": {"module": "upper", "input": "a"}});
            eventually("the job to be accepted", async || {
                let payload = serde_json::to_vec(&request).ok()?;
                let reply = caller.send("wess.jobs.submit", &[], payload).await.ok()?;
                crate::rig::read(reply).ok().map(drop)
            })
            .await;
            accepted.insert(job, ());
        }
        cluster.restart(victim);
        cluster.wait_whole();
    }
    for job in accepted.keys() {
        let state = eventually("the job to end", async || {
            let reply = caller.send(&format!("wess.jobs.get.{job}"), &[], "").await.ok()?;
            let record: JobRecord = crate::rig::parse(&crate::rig::read(reply).ok()?);
            record.state.is_final().then_some(record.state)
        })
        .await;
        assert_eq!(state, JobState::Succeeded, "{job}");
    }
    assert_eq!(accepted.len(), 40);
}
