//! The measure of all: a responder that answers each request with its own bytes, as bare as Rust allows.
//!
//! In a worker's place it also beats, so that gateways take nothing in its stead, and tells facts to who asks for them.

use async_nats::{Client, HeaderMap, HeaderName};
use futures_util::StreamExt;
use tokio::time::MissedTickBehavior;
use wess_schemas::beat::{BEAT_INTERVAL, WorkerBeat};
use wess_schemas::subject::{Prefix, Subjects};
use wess_schemas::{Digest, JobId, WorkerId, header};

use crate::args::BenchEchoArgs;
use crate::output;

/// How many guests it says that may run.
const SLOTS: u32 = 256;

/// Answers until it is ended.
pub async fn answer(args: BenchEchoArgs) -> anyhow::Result<()> {
    let client = async_nats::connect(&args.nats).await?;
    let mut requests = client.queue_subscribe(args.subject.clone(), args.subject).await?;
    client.flush().await?;
    output::text("ready")?;
    if let Some(prefix) = args.as_worker_of {
        return answer_as_worker(&client, requests, prefix).await;
    }
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}

async fn answer_as_worker(
    client: &Client,
    mut requests: async_nats::Subscriber,
    prefix: Prefix,
) -> anyhow::Result<()> {
    let (facts, beat) = (facts(), serde_json::to_vec(&beat())?);
    let subject = Subjects::new(prefix).worker_beat();
    let mut beats = tokio::time::interval(BEAT_INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            request = requests.next() => {
                let Some(request) = request else { return Ok(()) };
                let Some(reply) = request.reply else { continue };
                match request.headers {
                    Some(_) => client.publish_with_headers(reply, facts.clone(), request.payload).await?,
                    None => client.publish(reply, request.payload).await?,
                }
            }
            _ = beats.tick() => client.publish(subject.clone(), beat.clone().into()).await?,
        }
    }
}

fn beat() -> WorkerBeat {
    WorkerBeat {
        worker: WorkerId::generate(),
        slots_busy: 0,
        slots_total: SLOTS,
        waiting: 0,
        catalog_revision: 0,
        draining: false,
        calls_answered: 0,
    }
}

/// As many, and as long, as a worker tells of a raw call.
fn facts() -> HeaderMap {
    let digest = Digest::from_bytes([0; 32]);
    let mut facts = HeaderMap::new();
    let mut fact = |name, value: String| facts.insert(HeaderName::from_static(name), value);
    fact(header::JOB_ID, JobId::generate().as_str().into());
    fact(header::MODULE_DIGEST, digest.to_string());
    fact(header::QUEUE_US, "0".into());
    fact(header::RUN_US, "10".into());
    fact(header::COLD, "false".into());
    facts
}
