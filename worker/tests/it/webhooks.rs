//! Webhooks of jobs, posted to real servers: signed as documented, tried again, and sent nowhere that nobody allowed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, Signal, eventually};
use wess_schemas::ErrorCode;
use wess_schemas::job::{JobRecord, JobState};

use crate::job_faults::{IMPATIENT, all_settled};
use crate::rig::{Caller, Rig, Worker, add, parse, refused, refused_naming, spin};

const KEY: &str = "a key of the operator's";
const FAILED: &str = "wess_worker_webhooks_failed_total";

/// How a receiver answers one POST; all that follow the last it takes.
#[derive(Clone)]
enum Answer {
    Fail,
    Redirect(String),
    /// Nothing, ever.
    Silence,
}

/// A POST as it came.
#[derive(Clone)]
struct Posted {
    headers: HeaderMap,
    body: Bytes,
}

impl Posted {
    /// What a receiver does with it, by the documentation alone: the record, and when it was signed.
    fn verified(&self) -> (JobRecord, u64) {
        let header = |name: &str| self.headers[name].to_str().unwrap();
        let signature = header("wess-signature");
        let (time, code) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        let signed = [time.as_bytes(), b".", &self.body].concat();
        let code: Vec<u8> = (0..code.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&code[at..at + 2], 16).unwrap())
            .collect();
        hmac::verify(&key, &signed, &code).expect("the signature is that of time and body");
        let time = time.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time) < 60, "signed at {time}, and it is {now}");
        let record: JobRecord = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(header("wess-job-id"), record.job_id.as_str());
        assert_eq!(header("content-type"), "application/json");
        (record, time)
    }
}

/// A server that takes webhooks. Ends when dropped.
struct Receiver {
    host: String,
    posted: Arc<Mutex<Vec<Posted>>>,
    _end: DropGuard,
}

type Shared = (Arc<Mutex<Vec<Posted>>>, Arc<Mutex<Vec<Answer>>>);

impl Receiver {
    async fn start(answers: &[Answer]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    fn on(listener: TcpListener, answers: &[Answer]) -> Self {
        let host = listener.local_addr().unwrap().to_string();
        let posted = Arc::new(Mutex::default());
        let left = answers.iter().rev().cloned().collect();
        let shared: Shared = (Arc::clone(&posted), Arc::new(Mutex::new(left)));
        let app = Router::new().fallback(take).with_state(shared);
        let end = CancellationToken::new();
        let serving = end.clone().run_until_cancelled_owned(async move {
            axum::serve(listener, app).await.unwrap();
        });
        TaskTracker::new().spawn(serving);
        Self {
            host,
            posted,
            _end: end.drop_guard(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks?of=wess", self.host)
    }

    /// What has come so far.
    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    async fn got(&self, count: usize) -> Vec<Posted> {
        let what = format!("{count} webhooks");
        eventually(&what, async || {
            Some(self.posted()).filter(|posted| posted.len() >= count)
        })
        .await
    }
}

async fn take(State((posted, answers)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    posted.lock().unwrap().push(Posted { headers, body });
    let answer = answers.lock().unwrap().pop();
    match answer {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Answer::Fail) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Answer::Redirect(to)) => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        Some(Answer::Silence) => std::future::pending().await,
    }
}

/// Flags of a worker that may post to a host.
fn flags(host: &str) -> [&str; 6] {
    let [ack_wait, second] = IMPATIENT;
    ["--webhook-hosts", host, "--webhook-key", KEY, ack_wait, second]
}

fn job(id: &str, invoke: Value, webhook: &str) -> Value {
    json!({"job_id": id, "invoke": invoke, "webhook": webhook})
}

#[tokio::test]
async fn a_webhook_gets_the_record_of_every_end_once_with_a_signature_that_holds() {
    let receiver = Receiver::start(&[]).await;
    let rig = Rig::with(&flags(&receiver.host), &["traps"]).await;
    let trap = json!({"module": "traps", "function": "unreachable"});
    let mut dies = job("dies", trap.clone(), &receiver.url());
    dies["retry"] = json!({"max_attempts": 2, "backoff_ms": [1]});
    let mut ended = Vec::new();
    for (request, state) in [
        (job("ends", add(), &receiver.url()), JobState::Succeeded),
        (job("fails", trap, &receiver.url()), JobState::Failed),
        (dies, JobState::Dead),
    ] {
        let record = rig.caller.job(request).await;
        assert_eq!(record.state, state);
        ended.push(record);
        let posted = receiver.got(ended.len()).await;
        let told: Vec<_> = posted.iter().map(|posted| posted.verified().0).collect();
        assert_eq!(told, ended);
    }
    all_settled(&rig.caller).await;
    assert_eq!((receiver.posted().len(), rig.worker.metric(FAILED).await), (3, 0));
}

#[tokio::test]
async fn a_webhook_that_was_refused_is_posted_again_and_the_jobs_end_stands() {
    let receiver = Receiver::start(&[Answer::Fail]).await;
    let rig = Rig::with(&flags(&receiver.host), &[]).await;
    let record = rig.caller.job(job("a", add(), &receiver.url())).await;
    let posted = receiver.got(2).await;
    let [first, second] = [&posted[0], &posted[1]].map(Posted::verified);
    assert_eq!((&first.0, &second.0), (&record, &record));
    assert!(first.1 <= second.1, "each try is signed when it is made");
    all_settled(&rig.caller).await;
    assert_eq!((receiver.posted().len(), rig.worker.metric(FAILED).await), (2, 0));
}

#[tokio::test]
async fn a_webhook_whose_host_is_not_there_is_posted_once_it_is() {
    // Has its port, and refuses connections.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let host = socket.local_addr().unwrap().to_string();
    let rig = Rig::with(&flags(&host), &[]).await;
    let url = format!("http://{host}/hooks");
    let record = rig.caller.job(job("a", add(), &url)).await;
    eventually("a connection to be refused", async || {
        let said = rig.worker.process.stderr();
        said.contains("a webhook was not taken").then_some(())
    })
    .await;
    let receiver = Receiver::on(socket.listen(16).unwrap(), &[]);
    assert_eq!(receiver.got(1).await[0].verified().0, record);
    all_settled(&rig.caller).await;
    assert_eq!((receiver.posted().len(), rig.worker.metric(FAILED).await), (1, 0));
}

#[tokio::test]
async fn a_redirect_is_no_answer_and_nobody_is_sent_to_where_it_leads() {
    let elsewhere = Receiver::start(&[]).await;
    let receiver = Receiver::start(&[Answer::Redirect(elsewhere.url())]).await;
    // Even to a host that is allowed.
    let hosts = format!("{},{}", receiver.host, elsewhere.host);
    let rig = Rig::with(&flags(&hosts), &[]).await;
    let record = rig.caller.job(job("a", add(), &receiver.url())).await;
    let posted = receiver.got(2).await;
    assert_eq!(posted[1].verified().0, record);
    all_settled(&rig.caller).await;
    assert_eq!((receiver.posted().len(), elsewhere.posted().len()), (2, 0));
}

#[tokio::test]
async fn a_job_with_a_webhook_that_is_not_allowed_is_refused() {
    let (receiver, stranger) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let rig = Rig::with(&flags(&receiver.host), &[]).await;
    let submitted = rig.caller.submit(job("a", add(), &stranger.url())).await;
    let named = refused_naming(ErrorCode::Forbidden, "127.0.0.1", submitted);
    assert!(!named.error.guest_ran);
    let with_user = receiver.url().replace("http://", "http://user:word@");
    refused(
        ErrorCode::InvalidRequest,
        rig.caller.submit(job("a", add(), &with_user)).await,
    );
    refused(ErrorCode::JobNotFound, rig.caller.record("a").await);
    assert_eq!(
        rig.caller.job(job("a", add(), &receiver.url())).await.state,
        JobState::Succeeded
    );
    receiver.got(1).await;
    assert_eq!(stranger.posted().len(), 0);
}

#[tokio::test]
async fn a_job_that_is_cancelled_is_told_of_whether_it_runs_or_waits() {
    let receiver = Receiver::start(&[]).await;
    let flags = [&flags(&receiver.host)[..], &["--executors", "1", "--slots", "1"]].concat();
    let rig = Rig::with(&flags, &["spin"]).await;
    let mut replies = rig.caller.client.subscribe("told").await.unwrap();
    let submit = async |id: Option<&str>, invoke: Value, delay_ms: u64| {
        let mut request = json!({"job_id": id, "invoke": invoke, "webhook": receiver.url()});
        request["reply_to"] = json!("told");
        request["delay_ms"] = json!(delay_ms);
        rig.caller.submit(request).await.unwrap().job_id.to_string()
    };
    let runs = submit(Some("runs"), spin(8000), 0).await;
    eventually("the first to run", async || {
        let record = rig.caller.record("runs").await.unwrap();
        (record.state == JobState::Running).then_some(())
    })
    .await;
    // One without a key has no record to look for, as a rule.
    let waits = submit(None, add(), 0).await;
    let sleeps = submit(Some("sleeps"), add(), 3_600_000).await;
    let mut ended = BTreeMap::new();
    for id in [sleeps, waits, runs] {
        let cancel = format!("wess.jobs.cancel.{id}");
        let record: JobRecord = rig.caller.ask_json(&cancel, &json!({})).await.unwrap();
        assert_eq!(record.state, JobState::Cancelled);
        ended.insert(id, record);
    }
    all_settled(&rig.caller).await;
    let by_id = |record: JobRecord| (record.job_id.to_string(), record);
    let posted = receiver.posted();
    let told: BTreeMap<_, _> = posted.iter().map(|posted| by_id(posted.verified().0)).collect();
    assert_eq!((posted.len(), &told), (3, &ended));
    let mut heard = BTreeMap::new();
    while heard.len() < ended.len() {
        heard.extend([by_id(parse(&replies.next().await.unwrap()))]);
    }
    assert_eq!(heard, ended);
    rig.worker.comes_to_rest().await;
    assert_eq!(rig.worker.metric("wess_worker_calls_total{code=\"ok\"}").await, 0);
}

#[tokio::test]
async fn a_worker_that_dies_while_it_posts_leaves_that_to_another() {
    let receiver = Receiver::start(&[Answer::Silence]).await;
    let (nats, flags) = (NatsServer::start(), flags(&receiver.host));
    let worker = Worker::start(&nats, &flags);
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    let record = caller.job(job("a", add(), &receiver.url())).await;
    receiver.got(1).await;
    worker.process.signal(Signal::KILL);
    let other = Worker::start(&nats, &flags);
    let posted = receiver.got(2).await;
    assert_eq!(
        [&posted[0], &posted[1]].map(|posted| posted.verified().0),
        [record.clone(), record]
    );
    all_settled(&caller).await;
    assert_eq!(other.metric("wess_worker_calls_total{code=\"ok\"}").await, 0);
}
