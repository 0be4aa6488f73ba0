//! A rolling restart under load: no call and no job is lost, and each is answered once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, eventually};
use wess_schemas::job::{JobRecord, JobState};

use crate::rig::{Caller, Worker};

/// Calls under way at once.
const IN_FLIGHT: usize = 64;
/// A second reply to a call would come so soon after the first.
const MOMENT: Duration = Duration::from_secs(1);
/// A reply that did not come in such a silence does not come.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Calls without end until told to stop; every reply to each is counted.
struct Load {
    replies: TaskTracker,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// How often each call was answered, and how.
type Replies = BTreeMap<usize, Vec<String>>;

impl Load {
    async fn begin(caller: &Caller) -> (Self, tokio::task::JoinHandle<Replies>) {
        let inbox = caller.client.new_inbox();
        let replies = caller.client.subscribe(format!("{inbox}.*")).await.unwrap();
        caller.client.flush().await.unwrap();
        let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(IN_FLIGHT)));
        let counting = tasks.spawn(count(
            replies,
            Arc::clone(&room),
            Arc::clone(&sent),
            Arc::clone(&stop),
        ));
        let (client, sending, stopped) = (caller.client.clone(), Arc::clone(&sent), Arc::clone(&stop));
        tasks.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                room.acquire().await.unwrap().forget();
                let number = sending.fetch_add(1, Ordering::Relaxed);
                let reply = format!("{inbox}.{number}");
                client
                    .publish_with_reply("wess.invoke.upper", reply, "hello".into())
                    .await
                    .unwrap();
            }
        });
        let replies = tasks;
        (Self { replies, sent, stop }, counting)
    }
}

/// Ends once every call that was sent has a reply and a moment has brought no second one, or once the rest is lost.
async fn count(
    mut replies: Subscriber,
    room: Arc<Semaphore>,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Replies {
    let (mut counted, mut silent) = (Replies::new(), Duration::ZERO);
    loop {
        match tokio::time::timeout(MOMENT, replies.next()).await {
            Ok(Some(message)) => {
                let number = message.subject.rsplit('.').next().unwrap().parse().unwrap();
                let body = String::from_utf8_lossy(&message.payload).into_owned();
                counted.entry(number).or_default().push(body);
                room.add_permits(1);
                silent = Duration::ZERO;
            }
            Ok(None) => return counted,
            Err(_) => {
                silent += MOMENT;
                let is_whole = counted.len() == sent.load(Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) && (is_whole || silent >= LOST_AFTER) {
                    return counted;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_are_replaced_under_load_and_nothing_is_lost_or_done_twice() {
    let nats = NatsServer::start();
    let mut workers: Vec<_> = (0..3)
        .map(|_| Worker::start(&nats, &["--executors", "1"]))
        .collect();
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["upper"]).await;
    let (load, counting) = Load::begin(&caller).await;
    let (mut jobs, mut done) = (Vec::new(), caller.client.subscribe("wess.done.>").await.unwrap());
    for round in 0..3 {
        for number in 0..40 {
            let job = format!("job-{round}-{number}");
            let request = json!({"job_id": job, "invoke": {"module": "upper", "input": "a"}});
            caller.submit(request).await.unwrap();
            jobs.push(job);
        }
        workers.push(Worker::start(&nats, &["--executors", "1"]));
        let mut old = workers.remove(0);
        let before = load.sent.load(Ordering::Relaxed);
        assert_eq!(old.process.stop().code(), Some(0), "{}", old.process.stderr());
        eventually("the others to go on", async || {
            (load.sent.load(Ordering::Relaxed) > before + 1000).then_some(())
        })
        .await;
    }
    load.stop.store(true, Ordering::Relaxed);
    let replies = counting.await.unwrap();
    load.replies.close();
    let sent = load.sent.load(Ordering::Relaxed);
    let lost = sent - replies.len();
    let twice = replies.values().filter(|replies| replies.len() > 1).count();
    let wrong: Vec<_> = replies
        .values()
        .flatten()
        .filter(|body| *body != "HELLO")
        .take(3)
        .collect();
    let mut endings = BTreeMap::new();
    for job in &jobs {
        *endings
            .entry(caller.end_of(job).await.state == JobState::Succeeded)
            .or_insert(0) += 1;
    }
    eprintln!(
        "{sent} calls: {lost} lost, {twice} answered twice; {} jobs: {endings:?} as they should",
        jobs.len()
    );
    assert_eq!((lost, twice, wrong), (0, 0, Vec::<&String>::new()));
    assert_eq!(endings, BTreeMap::from([(true, jobs.len())]));
    let mut told = BTreeMap::new();
    while told.len() < jobs.len() {
        let record: JobRecord = crate::rig::parse(&done.next().await.unwrap());
        *told.entry(record.job_id.to_string()).or_insert(0) += 1;
    }
    assert!(told.values().all(|times| *times == 1), "{told:?}");
}
