//! A gateway that is killed with requests in hand, all of it real. What a client was told is kept; what was cut off is asked
//! again at another gateway; counted in the end: requests in, outcomes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, Process, Signal, eventually, guest};
use wess_schemas::header::REPLY_TO;

use crate::from_zero::{until_front, worker};
use crate::http::{Answer, get, post, send, send_to_mortal};
use crate::process::{address, gateway};

const JOB: &str = r#"{"invoke":{"module":"upper","input":"hello"}}"#;
/// Requests of each kind.
const EACH: usize = 50;

/// Calls over NATS: too many to be all in the queue when the gateway is killed.
const CALLS: usize = 3000;

/// A server, a worker that knows `upper`, and a gateway that will die.
struct House {
    nats: NatsServer,
    client: Client,
    worker: Process,
    gateway: Process,
    data: TempDir,
}

impl House {
    async fn start() -> Self {
        let (nats, data) = (NatsServer::start(), TempDir::new().unwrap());
        let worker = Process::start(&mut worker(&nats, &data));
        let gateway = Process::start(&mut gateway(&["--nats", &nats.url()]));
        let options = ConnectOptions::new().subscription_capacity(1 << 16);
        let client = options.connect(nats.url()).await.unwrap();
        let stored = post(
            address(&gateway, "http"),
            "/v1/modules?name=upper",
            guest("upper"),
        );
        assert_eq!(stored.await.status, 201);
        Self {
            nats,
            client,
            worker,
            gateway,
            data,
        }
    }

    fn http(&self) -> SocketAddr {
        address(&self.gateway, "http")
    }

    /// Another gateway in place of one that was killed just now.
    fn replace_gateway(&mut self) -> SocketAddr {
        self.gateway.signal(Signal::KILL);
        assert_eq!(
            self.gateway.wait_exit().code(),
            None,
            "nobody stops in order here"
        );
        self.gateway = Process::start(&mut gateway(&["--nats", &self.nats.url()]));
        self.http()
    }

    /// Everything on a subject from now on: a flush would leave it open when the server knows.
    async fn watch(&self, subject: &str) -> Subscriber {
        let seen = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.request("$JS.API.INFO", "".into()).await.unwrap();
        seen
    }

    /// Messages in a stream, and how many ever came into it.
    async fn stream(&self, name: &str) -> (u64, u64) {
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let stream = jetstream.get_stream(name).await.unwrap();
        let state = &stream.cached_info().state;
        (state.messages, state.last_sequence)
    }

    /// How many calls in the queue after a sequence number are to be answered to an inbox.
    async fn kept(&self, after: u64, inbox: &str) -> usize {
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let stream = jetstream.get_stream("WESS_CALLS").await.unwrap();
        let messages = (after + 1..=stream.cached_info().state.last_sequence)
            .map(|number| stream.get_raw_message(number));
        let replies = join_all(messages).await.into_iter().map(|message| {
            let headers = message.unwrap().headers;
            headers.get(REPLY_TO).unwrap().as_str().to_owned()
        });
        replies.filter(|reply| reply.starts_with(inbox)).count()
    }
}

fn key(number: usize) -> String {
    format!("job-{number:03}")
}

/// A job under its key, over a gateway that may die meanwhile.
async fn submit(http: SocketAddr, key: String) -> Option<Answer> {
    send_to_mortal(http, "/v1/jobs", &[("Idempotency-Key", &key)], JOB).await
}

/// The same, with the caller gone on.
fn begin(http: SocketAddr, keys: std::ops::Range<usize>) -> JoinHandle<Vec<Option<Answer>>> {
    TaskTracker::new().spawn(async move { join_all(keys.map(|number| submit(http, key(number)))).await })
}

/// Sends a key again, to a gateway that lives: it must be that job.
async fn again(http: SocketAddr, number: usize) {
    let key = key(number);
    let answer = send(http, "POST", "/v1/jobs", &[("Idempotency-Key", &key)], JOB).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (202, Some(format!("/v1/jobs/{key}").as_str())),
        "{}",
        answer.text()
    );
}

/// Every job that there is, page by page.
async fn jobs(http: SocketAddr) -> BTreeMap<String, String> {
    let (mut found, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page: Value = get(http, &format!("/v1/jobs?limit=100{after}")).await.json();
        for job in page["jobs"].as_array().unwrap() {
            let (id, state) = (job["job_id"].as_str(), job["state"].as_str());
            found.insert(id.unwrap().to_owned(), state.unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

/// Waits until every job has ended; gives them all.
async fn ended(http: SocketAddr) -> BTreeSet<String> {
    let jobs = eventually("every job to have ended", async || {
        let jobs = jobs(http).await;
        jobs.values().all(|state| state == "succeeded").then_some(jobs)
    })
    .await;
    jobs.into_keys().collect()
}

/// What was told of each job's end: the same, should it be told twice.
async fn told(done: &mut Subscriber, jobs: usize) -> usize {
    let mut told = BTreeMap::<_, BTreeSet<_>>::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), done.next()).await {
        told.entry(message.subject.to_string())
            .or_default()
            .insert(message.payload);
    }
    assert_eq!(told.len(), jobs);
    told.values().map(BTreeSet::len).sum()
}

#[tokio::test]
async fn submissions_in_the_hand_of_a_gateway_that_is_killed_leave_one_job_each_or_none() {
    let mut house = House::start().await;
    let mut done = house.watch("wess.done.>").await;
    let first = house.http();
    let accepted = begin(first, 0..EACH).await.unwrap();
    assert!(accepted.iter().flatten().all(|answer| answer.status == 202));
    assert_eq!(accepted.iter().flatten().count(), EACH);

    // A worker that stands still: what the gateway asks it for is asked, and not answered.
    let mut submissions = house.watch("wess.jobs.submit").await;
    house.worker.signal(Signal::STOP);
    let with_keys = begin(first, EACH..2 * EACH);
    let without = (0..EACH).map(|_| send_to_mortal(first, "/v1/jobs", &[], JOB));
    let without = join_all(without);
    let killed = async {
        for _ in 0..2 * EACH {
            submissions.next().await.unwrap();
        }
        house.replace_gateway()
    };
    let (without, second) = tokio::join!(without, killed);
    let cut_off = with_keys.await.unwrap();
    assert_eq!(
        cut_off.iter().chain(&without).flatten().count(),
        0,
        "all were in hand"
    );
    house.worker.signal(Signal::CONT);
    eventually("what the dead gateway had asked for", async || {
        (jobs(second).await.len() > EACH).then_some(())
    })
    .await;
    join_all((0..2 * EACH).map(|number| again(second, number))).await;

    eventually("the queues to be empty", async || {
        let waiting = house.stream("WESS_CALLS").await.0 + house.stream("WESS_JOBS").await.0;
        (waiting == 0).then_some(())
    })
    .await;
    let ended = ended(second).await;
    let keyed: BTreeSet<_> = (0..2 * EACH).map(key).collect();
    assert!(ended.is_superset(&keyed));
    let others = ended.len() - keyed.len();
    assert!(others <= EACH, "{others} jobs of {EACH} submissions");
    let outcomes = told(&mut done, ended.len()).await;
    assert_eq!(outcomes, ended.len());
    eprintln!(
        "{} submissions with keys = {} jobs; {EACH} without, cut off = {others} jobs; {outcomes} outcomes",
        2 * EACH,
        keyed.len()
    );
}

#[tokio::test]
async fn what_a_gateway_had_queued_for_absent_workers_before_it_was_killed_is_answered_once() {
    let mut house = House::start().await;
    let mut done = house.watch("wess.done.>").await;
    assert_eq!(house.worker.stop().code(), Some(0));
    until_front(&house.gateway).await;
    let first = house.http();
    let inbox = house.client.new_inbox();
    let mut replies = house.watch(&format!("{inbox}.*")).await;
    let before = house.stream("WESS_CALLS").await.1;
    // From HTTP clients, who will be cut off, and over NATS from one who goes on waiting.
    let submitted = begin(first, 0..EACH);
    let called = (0..EACH).map(|_| send_to_mortal(first, "/v1/modules/upper/invoke", &[], "hello"));
    let called = join_all(called);
    for number in 0..CALLS {
        let reply = format!("{inbox}.{number}");
        let publish = house
            .client
            .publish_with_reply("wess.invoke.upper", reply, "hello".into());
        publish.await.unwrap();
    }
    // What comes after this in the same connection has it go first.
    house.client.request("$JS.API.INFO", "".into()).await.unwrap();
    // Some are in the stream, some on their way into it, when it dies.
    let killed = async {
        eventually("a part of it in the queue", async || {
            (house.stream("WESS_CALLS").await.1 >= before + 3 * EACH as u64).then_some(())
        })
        .await;
        house.replace_gateway()
    };
    let (called, second) = tokio::join!(called, killed);
    let submitted = submitted.await.unwrap();
    assert_eq!(submitted.iter().chain(&called).flatten().count(), 0);
    let resubmitted = join_all((0..EACH).map(|number| again(second, number)));
    let worker = async {
        until_front(&house.gateway).await;
        let kept = house.kept(before, &inbox).await;
        (kept, Process::start(&mut worker(&house.nats, &house.data)))
    };
    let (_, (kept, _worker)) = tokio::join!(resubmitted, worker);

    eventually("the queues to be empty", async || {
        let waiting = house.stream("WESS_CALLS").await.0 + house.stream("WESS_JOBS").await.0;
        (waiting == 0).then_some(())
    })
    .await;
    assert_eq!(ended(second).await, (0..EACH).map(key).collect());
    let outcomes = told(&mut done, EACH).await;
    assert_eq!(outcomes, EACH);
    let mut answered = BTreeMap::new();
    while let Ok(Some(reply)) = tokio::time::timeout(Duration::from_secs(1), replies.next()).await {
        assert_eq!(reply.payload, "HELLO", "{:?}", reply.headers);
        *answered.entry(reply.subject.to_string()).or_insert(0) += 1;
    }
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
    eprintln!(
        "{EACH} submissions = {outcomes} jobs and outcomes; {} calls over NATS: {kept} queued = {} answered, once each",
        CALLS,
        answered.len()
    );
    assert!(kept > 0 && answered.len() == kept);
}
