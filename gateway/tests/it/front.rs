//! The gateway in the workers' place: real processes, a real nats-server, and workers that a test plays.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wess_harness::{NatsServer, Process, eventually};
use wess_schemas::beat::{BEAT_EXPIRY, BEAT_INTERVAL, WorkerBeat};
use wess_schemas::{ErrorBody, ErrorCode, WorkerId};
use wess_service::queue::calls::QueuedCall;

use crate::http::{get, post};
use crate::process::{address, gateway};

/// How long a test waits for a reply. Far above what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    nats: NatsServer,
    client: Client,
    gateway: Process,
}

impl Rig {
    async fn start(nats: NatsServer) -> Self {
        let gateway = Process::start(&mut gateway(&["--nats", &nats.url()]));
        Self {
            client: client(&nats).await,
            nats,
            gateway,
        }
    }

    /// Starts NATS again. What a client asks while it looks for the server may get lost, so there is a new one.
    async fn restart_nats(&mut self, config: &str) {
        self.nats.restart_with(config);
        self.client = client(&self.nats).await;
    }

    /// One whose gateway stands in.
    async fn joined(nats: NatsServer) -> Self {
        let rig = Self::start(nats).await;
        rig.until_front("1").await;
        rig
    }

    async fn metrics(&self) -> String {
        get(address(&self.gateway, "admin"), "/metrics")
            .await
            .text()
            .to_owned()
    }

    async fn until_metric(&self, line: &str) {
        let line = format!("\n{line}\n");
        eventually(&line, async || self.metrics().await.contains(&line).then_some(())).await;
    }

    async fn until_front(&self, joined: &str) {
        self.until_metric(&format!("wess_gateway_front {joined}")).await;
    }

    fn jetstream(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    async fn calls(&self) -> PullConsumer {
        self.jetstream()
            .get_consumer_from_stream("wess-calls", "WESS_CALLS")
            .await
            .unwrap()
    }

    async fn request(&self, subject: &str, headers: HeaderMap, payload: &str) -> Message {
        let request =
            self.client
                .request_with_headers(subject.to_owned(), headers, payload.to_owned().into());
        request.await.unwrap()
    }

    async fn refusal(&self, subject: &str, payload: &str) -> ErrorBody {
        refusal(&self.request(subject, HeaderMap::new(), payload).await)
    }
}

async fn client(nats: &NatsServer) -> Client {
    let options = async_nats::ConnectOptions::new().request_timeout(Some(PATIENCE));
    options.connect(nats.url()).await.unwrap()
}

/// A failure, which must have the contract's form.
fn refusal(reply: &Message) -> ErrorBody {
    let body: ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
    let header = |name| reply.headers.as_ref().unwrap().get(name).unwrap().as_str();
    assert_eq!(
        header("Nats-Service-Error-Code"),
        body.code().http_status().to_string()
    );
    assert_eq!(header("Nats-Service-Error"), body.error.message);
    body
}

/// Takes one request out of the queue.
async fn take(calls: &PullConsumer) -> QueuedCall {
    let mut messages = calls
        .fetch()
        .max_messages(1)
        .expires(PATIENCE)
        .messages()
        .await
        .unwrap();
    let message = messages.next().await.unwrap().unwrap();
    message.double_ack().await.unwrap();
    QueuedCall::read(message.message).unwrap()
}

/// Answers whatever comes out of the queue.
fn answer_queued(calls: PullConsumer, client: Client) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut messages = calls.messages().await.unwrap();
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            message.ack().await.unwrap();
            let call = QueuedCall::read(message.message).unwrap();
            client
                .publish(call.reply.unwrap(), "queued".into())
                .await
                .unwrap();
        }
    });
    tasks
}

fn beat(worker: &WorkerId, draining: bool) -> Vec<u8> {
    let beat = WorkerBeat {
        worker: worker.clone(),
        slots_busy: 0,
        slots_total: 1,
        waiting: 0,
        catalog_revision: 0,
        draining,
        calls_answered: 0,
    };
    serde_json::to_vec(&beat).unwrap()
}

async fn keep_beating(client: Client, worker: WorkerId, draining: bool) {
    loop {
        let body = beat(&worker, draining);
        client.publish("wess.worker.beat", body.into()).await.unwrap();
        tokio::time::sleep(BEAT_INTERVAL).await;
    }
}

/// Answers what it is handed directly.
async fn take_calls(client: Client) -> JoinSet<()> {
    let mut calls = client
        .queue_subscribe("wess.invoke.>", "wess".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(call) = calls.next().await {
            client
                .publish(call.reply.unwrap(), "direct".into())
                .await
                .unwrap();
        }
    });
    tasks
}

/// Beats once it is there to be handed anything.
async fn work(client: Client, worker: WorkerId) -> JoinSet<()> {
    let mut tasks = take_calls(client.clone()).await;
    tasks.spawn(keep_beating(client, worker, false));
    tasks
}

#[tokio::test]
async fn what_is_asked_of_no_worker_waits_in_the_queue_as_it_was_asked_and_is_answered_from_there() {
    let rig = Rig::joined(NatsServer::start()).await;
    let calls = rig.calls().await;
    let subjects = [
        "wess.invoke",
        "wess.invoke.upper.process",
        "wess.chain",
        "wess.store",
        "wess.modules.get.upper",
        "wess.jobs.submit",
        "wess.dead.list",
    ];
    for subject in subjects {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "key");
        let asked = rig.request(subject, headers.clone(), "hello");
        let worker = async {
            let call = take(&calls).await;
            assert_eq!((call.subject.as_str(), &call.headers), (subject, &headers));
            assert_eq!(call.payload, "hello");
            let left = call.time_left(0).unwrap();
            assert!(left > PATIENCE, "{left:?} since 1970");
            rig.client
                .publish(call.reply.unwrap(), "HELLO".into())
                .await
                .unwrap();
        };
        let (answer, ()) = tokio::join!(asked, worker);
        assert_eq!(answer.payload, "HELLO", "{subject}");
    }
    rig.until_metric(&format!(
        "wess_gateway_queued_total{{code=\"ok\"}} {}",
        subjects.len()
    ))
    .await;
}

#[tokio::test]
async fn a_request_over_http_waits_there_too() {
    let rig = Rig::start(NatsServer::start()).await;
    // At once: this is also the first that the gateway hears of there being nobody.
    let asked = post(address(&rig.gateway, "http"), "/v1/modules/upper/invoke", "hello");
    let worker = async {
        let call = take(&rig.calls().await).await;
        rig.client
            .publish(call.reply.unwrap(), call.payload.to_ascii_uppercase().into())
            .await
            .unwrap();
    };
    let (answer, ()) = tokio::join!(asked, worker);
    assert_eq!((answer.status, answer.text()), (200, "HELLO"));
}

#[tokio::test]
async fn a_request_of_the_gateways_own_that_finds_nobody_lets_it_join_though_a_worker_beat_just_now() {
    let rig = Rig::start(NatsServer::start()).await;
    let beating = keep_beating(rig.client.clone(), WorkerId::generate(), false);
    let http = address(&rig.gateway, "http");
    let asked = async {
        rig.until_front("0").await;
        let worker = async { take(&rig.calls().await).await };
        let (answer, call) = tokio::join!(post(http, "/v1/modules/upper/invoke", "hello"), async {
            let call = worker.await;
            rig.client
                .publish(call.reply.clone().unwrap(), "late".into())
                .await
                .unwrap();
            call
        });
        assert_eq!(call.subject, "wess.invoke.upper");
        assert_eq!(answer.text(), "late");
        // The beats are those of somebody alive: it leaves again.
        rig.until_front("0").await;
    };
    tokio::select! {
        () = asked => (),
        () = beating => (),
    }
}

#[tokio::test]
async fn a_full_queue_is_overloaded() {
    let nats = NatsServer::start();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let small = stream::Config {
        name: "WESS_CALLS".into(),
        subjects: vec!["wess.queue.calls.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        storage: stream::StorageType::Memory,
        discard: stream::DiscardPolicy::New,
        max_messages: 1,
        allow_message_ttl: true,
        ..Default::default()
    };
    jetstream::new(client).create_stream(small).await.unwrap();
    let rig = Rig::joined(nats).await;
    let first = rig.request("wess.invoke.first", HeaderMap::new(), "");
    let second = async {
        rig.until_metric("wess_gateway_queued_total{code=\"ok\"} 1").await;
        let refused = rig.refusal("wess.invoke.second", "").await;
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        assert_eq!(refused.error.detail["retry_after_ms"], 1000);
        assert!(!refused.error.guest_ran);
        let call = take(&rig.calls().await).await;
        rig.client
            .publish(call.reply.unwrap(), call.subject.into())
            .await
            .unwrap();
    };
    assert_eq!(tokio::join!(first, second).0.payload, "wess.invoke.first");
}

#[tokio::test]
async fn a_request_that_fits_a_message_but_not_with_what_the_queue_adds_is_too_large() {
    let rig = Rig::joined(NatsServer::start()).await;
    let most = rig.client.server_info().max_payload;
    let refused = rig.refusal("wess.invoke.upper", &"x".repeat(most)).await;
    assert_eq!(refused.code(), ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn a_subject_that_is_none_of_ours_is_refused_at_once() {
    let rig = Rig::joined(NatsServer::start()).await;
    let refused = rig.refusal("wess.invoke.UPPER", "").await;
    assert_eq!(refused.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_reply_that_would_forge_a_record_is_counted_and_not_looked_at() {
    let rig = Rig::joined(NatsServer::start()).await;
    let forged = "$KV.wess-modules.default.hello";
    rig.client
        .publish_with_reply("wess.invoke.upper", forged, "".into())
        .await
        .unwrap();
    rig.until_metric("wess_gateway_forged_replies_total 1").await;
    assert!(!rig.metrics().await.contains("wess_gateway_queued_total{"));
}

#[tokio::test]
async fn a_request_whose_wait_ends_before_any_worker_comes_is_expired_and_leaves_the_queue() {
    let rig = Rig::joined(NatsServer::start()).await;
    for payload in [
        r#"{"module":"upper","wait_ms":0}"#,
        r#"{"module":"upper","wait_ms":50}"#,
    ] {
        let refused = rig.refusal("wess.invoke", payload).await;
        assert_eq!(
            (refused.code(), refused.error.guest_ran),
            (ErrorCode::Expired, false)
        );
    }
    let mut stream = rig.jetstream().get_stream("WESS_CALLS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn it_joins_after_three_missed_beats_and_leaves_when_a_worker_beats() {
    let rig = Rig::joined(NatsServer::start()).await;
    let worker = WorkerId::generate();
    for _ in 0..2 {
        let working = work(rig.client.clone(), worker.clone()).await;
        rig.until_front("0").await;
        let answer = rig.request("wess.invoke.upper", HeaderMap::new(), "").await;
        assert_eq!(answer.payload, "direct");
        drop(working);
        let stopped = Instant::now();
        rig.until_front("1").await;
        let took = stopped.elapsed();
        assert!(took < 2 * BEAT_EXPIRY, "{took:?}");
    }
}

#[tokio::test]
async fn a_worker_that_beats_but_drains_takes_no_work_so_it_joins() {
    let rig = Rig::joined(NatsServer::start()).await;
    let worker = WorkerId::generate();
    for (draining, joined) in [(false, "0"), (true, "1")] {
        let mut beats = JoinSet::new();
        beats.spawn(keep_beating(rig.client.clone(), worker.clone(), draining));
        rig.until_front(joined).await;
    }
}

/// Asks one thing after the other, as fast as answers come; gives how many were answered from the queue and directly.
async fn ask_on(client: Client, mut end: tokio::sync::watch::Receiver<bool>) -> [u64; 2] {
    let mut answered = [0; 2];
    while !*end.borrow_and_update() {
        let answer = client.request("wess.invoke.upper", "".into()).await.unwrap();
        answered[usize::from(answer.payload == "direct")] += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_it_comes_and_goes() {
    const TURNS: usize = 20;
    const ASKING: usize = 16;
    let rig = Rig::joined(NatsServer::start()).await;
    let _queue = answer_queued(rig.calls().await, rig.client.clone());
    let (end, ends) = tokio::sync::watch::channel(false);
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        asking.spawn(ask_on(client(&rig.nats).await, ends.clone()));
    }
    // It takes work throughout, so that only the gateway comes and goes.
    let worker = WorkerId::generate();
    let _working = take_calls(rig.client.clone()).await;
    for _ in 0..TURNS {
        for (draining, joined) in [(false, "0"), (true, "1")] {
            let mut beats = JoinSet::new();
            beats.spawn(keep_beating(rig.client.clone(), worker.clone(), draining));
            rig.until_front(joined).await;
        }
    }
    end.send_replace(true);
    let mut answered = [0; 2];
    while let Some(counts) = asking.join_next().await {
        let counts = counts.unwrap();
        answered = [answered[0] + counts[0], answered[1] + counts[1]];
    }
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
}

#[tokio::test]
async fn a_queue_that_was_lost_is_made_anew_for_the_next_request() {
    let rig = Rig::joined(NatsServer::start()).await;
    rig.jetstream().delete_stream("WESS_CALLS").await.unwrap();
    let asked = rig.request("wess.invoke.upper", HeaderMap::new(), "hello");
    let worker = async {
        rig.until_metric("wess_gateway_queued_total{code=\"ok\"} 1").await;
        let call = take(&rig.calls().await).await;
        rig.client
            .publish(call.reply.unwrap(), call.payload)
            .await
            .unwrap();
    };
    assert_eq!(tokio::join!(asked, worker).0.payload, "hello");
}

#[tokio::test]
async fn without_jetstream_requests_are_unavailable_and_with_it_they_wait_again() {
    let mut rig = Rig::joined(NatsServer::start()).await;
    rig.restart_nats("jetstream: false").await;
    eventually("a refusal", async || {
        let reply = rig.client.request("wess.invoke.upper", "".into()).await.ok()?;
        (refusal(&reply).code() == ErrorCode::Unavailable).then_some(())
    })
    .await;
    rig.restart_nats("").await;
    until_it_waits(&rig).await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_came_back_finds_it_standing_in_as_before() {
    let mut rig = Rig::joined(NatsServer::start()).await;
    rig.restart_nats("").await;
    until_it_waits(&rig).await;
}

/// Asks until a request is answered from the queue.
async fn until_it_waits(rig: &Rig) {
    let calls = eventually("the queue", async || {
        let jetstream = rig.jetstream();
        let consumer = jetstream.get_consumer_from_stream("wess-calls", "WESS_CALLS");
        consumer.await.ok()
    })
    .await;
    let _queue = answer_queued(calls, rig.client.clone());
    let answer = eventually("somebody who listens", async || {
        rig.client.request("wess.invoke.upper", "".into()).await.ok()
    });
    assert_eq!(answer.await.payload, "queued");
}

#[tokio::test]
async fn at_shutdown_what_was_delivered_is_queued_before_it_ends() {
    const ASKED: u64 = 500;
    let mut rig = Rig::joined(NatsServer::start()).await;
    for _ in 0..ASKED {
        let asked = rig
            .client
            .publish_with_reply("wess.invoke.upper", "replies.here", "".into());
        asked.await.unwrap();
    }
    // The server answers in order: once it has, it has handed every one to the gateway.
    let fence = rig.client.request("nobody.listens", "".into()).await;
    assert_eq!(fence.unwrap_err().kind(), RequestErrorKind::NoResponders);
    assert_eq!(rig.gateway.stop().code(), Some(0), "{}", rig.gateway.stderr());
    let mut stream = rig.jetstream().get_stream("WESS_CALLS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, ASKED);
}
