//! Changes wait for every worker that beats, and say when one of them has not followed in time.
//!
//! The other worker here is made up: it beats, and its catalog stands still for as long as a test likes.

use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use wess_schemas::WorkerId;
use wess_schemas::beat::{BEAT_INTERVAL, WorkerBeat};
use wess_schemas::header;

use crate::rig::{Answered, Caller, Rig, parse, wat};

/// How long a change waits for the others, as the contract says.
const PROPAGATION: Duration = Duration::from_secs(1);

/// A worker that only beats.
struct Laggard {
    client: Client,
    heard: Subscriber,
    beat: WorkerBeat,
    /// The newest revision that another worker has told of.
    newest: u64,
}

impl Laggard {
    /// One that the others have heard: they have beaten twice since.
    async fn of(caller: &Caller) -> Self {
        let beat = WorkerBeat {
            worker: WorkerId::generate(),
            slots_busy: 0,
            slots_total: 1,
            waiting: 0,
            catalog_revision: 0,
            draining: false,
            calls_answered: 0,
        };
        let (client, newest) = (caller.client.clone(), 0);
        let heard = client.subscribe("wess.worker.beat").await.unwrap();
        let mut laggard = Self {
            client,
            heard,
            beat,
            newest,
        };
        laggard.beat().await;
        for _ in 0..2 {
            while !laggard.hear().await {}
        }
        laggard
    }

    async fn beat(&self) {
        let beat = serde_json::to_vec(&self.beat).unwrap();
        self.client
            .publish("wess.worker.beat", beat.into())
            .await
            .unwrap();
    }

    /// Hears one beat; whether it is another's.
    async fn hear(&mut self) -> bool {
        let beat: WorkerBeat = parse(&self.heard.next().await.unwrap());
        let is_other = beat.worker != self.beat.worker;
        if is_other {
            self.newest = self.newest.max(beat.catalog_revision);
        }
        is_other
    }

    /// Makes a request between its beats: the reply, and how often it has beaten by then. Follows the others' catalog
    /// after so many beats.
    async fn beats_until<T: std::fmt::Debug>(
        &mut self,
        request: impl Future<Output = Answered<T>>,
        late_beats: Option<u32>,
    ) -> (T, u32) {
        let mut request = std::pin::pin!(request);
        let mut ticks = tokio::time::interval(BEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = 0;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    if late_beats.is_some_and(|late| beats >= late) {
                        self.beat.catalog_revision = self.newest;
                    }
                    self.beat().await;
                    beats += 1;
                }
                reply = &mut request => return (reply.unwrap(), beats),
                _ = self.hear() => {}
            }
        }
    }
}

async fn store(caller: &Caller, number: u32) -> Answered<Value> {
    let wasm = wat(&format!(
        "(module (func (export \"f\") (result i32) (i32.const {number})))"
    ));
    let reply = caller
        .ask("wess.store", &[(header::MODULE, "number")], wasm)
        .await?;
    Ok(parse(&reply))
}

/// A change of the module `number`, by its name here.
async fn make(caller: &Caller, change: &str) -> Answered<Value> {
    match change.split_once(' ') {
        Some((_, number)) => store(caller, number.parse().unwrap()).await,
        None if change == "tag" => {
            let request = json!({"tag": "stable", "version": 1});
            caller.ask_json("wess.modules.tag.number", &request).await
        }
        None => caller.ask_json("wess.modules.delete.number", &json!({})).await,
    }
}

#[tokio::test]
async fn a_change_that_a_beating_worker_has_not_seen_says_so_and_not_before_its_second_is_over() {
    let rig = Rig::start(&[]).await;
    let mut laggard = Laggard::of(&rig.caller).await;
    // What fits into the wait, without those that begin and end it.
    let least_beats = (PROPAGATION.as_millis() / BEAT_INTERVAL.as_millis()) as u32 - 1;
    for change in ["store 1", "tag", "delete"] {
        let request = make(&rig.caller, change);
        let started = Instant::now();
        let (reply, beats) = laggard.beats_until(request, None).await;
        assert_eq!(reply["propagated"], json!(false), "{change}: {reply}");
        assert!(
            beats >= least_beats && started.elapsed() >= PROPAGATION,
            "{change} was answered after {beats} beats"
        );
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_change_is_answered_by_the_beat_that_has_seen_it() {
    const LATE_BEATS: u32 = 2;
    let rig = Rig::start(&[]).await;
    let mut laggard = Laggard::of(&rig.caller).await;
    for change in ["store 1", "store 2", "tag", "delete"] {
        let request = make(&rig.caller, change);
        let (reply, beats) = laggard.beats_until(request, Some(LATE_BEATS)).await;
        assert_eq!(reply["propagated"], json!(true), "{change}: {reply}");
        assert!(beats > LATE_BEATS, "{change} was answered after {beats} beats");
    }
}

#[tokio::test]
async fn a_change_that_a_lagging_worker_missed_is_found_by_every_call_all_the_same() {
    let rig = Rig::start(&[]).await;
    let mut laggard = Laggard::of(&rig.caller).await;
    for number in 1..=2 {
        let (reply, _) = laggard.beats_until(store(&rig.caller, number), None).await;
        assert_eq!(reply["propagated"], json!(false));
        let call = rig.caller.invoke(json!({"module": "number"}));
        let (outcome, _) = laggard.beats_until(call, None).await;
        assert_eq!(outcome.results, Some(vec![json!(number)]));
    }
}
