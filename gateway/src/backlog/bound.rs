//! What waits in streams for the bindings that take messages from them, as the bindings' durable consumers have it: they
//! are there while no worker is.
//!
//! Invariant: each binding is known by itself. One whose stream does not answer hides what waits for no other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::ConsumerErrorKind;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use wess_schemas::Tenant;
use wess_schemas::binding::Binding;
use wess_schemas::subject::{binding_group, binding_key};
use wess_service::feed::RawRecord;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};

use super::{Backlog, Lag, Reading, ticks};
use crate::follow::{Records, Table, follow};

/// How long a stream may take to answer: one without a leader never does.
const PATIENCE: Duration = Duration::from_secs(1);
/// Consumers asked for at once: as many bindings as there may be are read in four rounds.
const AT_ONCE: usize = 64;

/// What waits for all bindings of streams together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// Of those bindings that could be read.
    pub seen: Lag,
    /// Whether those are all.
    pub whole: bool,
}

impl Bound {
    /// What waits; `None` while that is not known of every binding.
    pub fn known(self) -> Option<Lag> {
        self.whole.then_some(self.seen)
    }
}

/// Where a binding's messages wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    stream: String,
    consumer: String,
}

/// Where each binding's do. `None` until the bindings are known.
type Places = Option<Arc<[Place]>>;

/// Begins to follow the bindings and to read what waits for them, until the lifecycle is closed.
pub(super) fn spawn(
    connection: &Connection,
    mut jetstream: Context,
    bucket: Store,
    backlog: watch::Sender<Backlog>,
    lifecycle: &Lifecycle,
) {
    jetstream.set_timeout(PATIENCE);
    let (sender, places) = watch::channel(None);
    let bindings = Bindings {
        places: BTreeMap::new(),
        sender,
    };
    let records = Records {
        bucket,
        keys: format!("{}.*", Tenant::default()),
        what: "bound streams of a gateway",
    };
    follow(connection, records, bindings, lifecycle);
    let (closed, watch) = (lifecycle.closed.clone(), connection.watch.clone());
    lifecycle.spawn_background("read bound streams", async move {
        closed
            .run_until_cancelled(run(jetstream, places, watch, backlog))
            .await;
    });
}

/// The bindings of streams, by the keys of their records.
struct Bindings {
    places: BTreeMap<String, Place>,
    sender: watch::Sender<Places>,
}

impl Table for Bindings {
    fn clear(&mut self) {
        self.places.clear();
    }

    fn take(&mut self, record: &RawRecord) -> bool {
        match place(record) {
            Some(place) => self.places.insert(record.key.clone(), place.clone()) != Some(place),
            None => self.places.remove(&record.key).is_some(),
        }
    }

    fn show(&self) {
        self.sender
            .send_replace(Some(self.places.values().cloned().collect()));
    }
}

/// Where a binding's messages wait; `None` for one of a subject, one that is gone, and what nobody can read.
fn place(record: &RawRecord) -> Option<Place> {
    let binding: Binding = serde_json::from_slice(record.value.as_deref()?)
        .inspect_err(
            |error| tracing::warn!(key = record.key, %error, "skipping a binding that nobody can read"),
        )
        .ok()?;
    let is_its_own = record.key == binding_key(&Tenant::default(), &binding.name);
    binding.stream.filter(|_| is_its_own).map(|stream| Place {
        stream,
        consumer: binding_group(&binding.name),
    })
}

async fn run(
    jetstream: Context,
    places: watch::Receiver<Places>,
    connection: ConnectionWatch,
    backlog: watch::Sender<Backlog>,
) {
    let (mut ticks, mut readings) = (ticks(), Readings::default());
    loop {
        ticks.tick().await;
        let Some(places) = places.borrow().clone() else {
            continue;
        };
        let read = match connection.state().connected {
            true => read(&jetstream, &places).await,
            false => places.iter().map(|place| (place.clone(), None)).collect(),
        };
        let bound = readings.update(read, Instant::now());
        backlog.send_if_modified(|backlog| std::mem::replace(&mut backlog.bound, bound) != bound);
    }
}

async fn read(jetstream: &Context, places: &[Place]) -> Vec<(Place, Option<Lag>)> {
    let asked = places.iter().cloned().map(|place| {
        let jetstream = jetstream.clone();
        async move {
            let lag = lag(&jetstream, &place).await;
            (place, lag)
        }
    });
    stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
}

/// Where the stream or its consumer is gone nothing waits, until a worker has made the consumer anew.
async fn lag(jetstream: &Context, place: &Place) -> Option<Lag> {
    let Place { stream, consumer } = place;
    let found: Result<PullConsumer, _> = jetstream.get_consumer_from_stream(consumer, stream).await;
    match found {
        Ok(found) => Some(Lag::of(found.cached_info())),
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(said) if said.code() == 404 => Some(Lag::default()),
            _ => {
                tracing::debug!(stream, consumer, %error, "cannot read how much waits for a binding");
                None
            }
        },
    }
}

/// What was last read of each.
#[derive(Debug, Default)]
struct Readings(HashMap<Place, Reading<Lag>>);

impl Readings {
    /// Takes what was read of all places there are, and gives what may be told.
    fn update(&mut self, read: Vec<(Place, Option<Lag>)>, now: Instant) -> Bound {
        let mut old = std::mem::take(&mut self.0);
        let mut bound = Bound {
            seen: Lag::default(),
            whole: true,
        };
        for (place, lag) in read {
            let mut reading = old.remove(&place).unwrap_or_default();
            match reading.update(lag, now) {
                Some(lag) => bound.seen = bound.seen.with(lag),
                None => bound.whole = false,
            }
            self.0.insert(place, reading);
        }
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::super::KEPT;
    use super::*;

    fn record(key: &str, json: Option<&str>) -> RawRecord {
        RawRecord {
            key: key.into(),
            revision: 1,
            value: json.map(|json| json.to_owned().into()),
        }
    }

    fn binding(name: &str, source: &str) -> String {
        format!(
            r#"{{"name":"{name}","module":"upper",{source},"fed_by":[],"created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z"}}"#
        )
    }

    fn at(stream: &str) -> Place {
        Place {
            stream: stream.into(),
            consumer: "wess-bind-a".into(),
        }
    }

    fn lag(pending: u64, ack_pending: u64) -> Option<Lag> {
        Some(Lag { pending, ack_pending })
    }

    #[test]
    fn bindings_of_streams_are_known_by_their_records_and_no_others() {
        let (sender, places) = watch::channel(None);
        let mut bindings = Bindings {
            places: BTreeMap::new(),
            sender,
        };
        let shown = |bindings: &Bindings| {
            bindings.show();
            places.borrow().as_deref().map(<[_]>::to_vec)
        };
        let of_stream = binding("a", r#""stream":"ORDERS""#);
        assert!(bindings.take(&record("default.a", Some(&of_stream))));
        assert!(!bindings.take(&record("default.a", Some(&of_stream))));
        assert_eq!(shown(&bindings), Some(vec![at("ORDERS")]));
        for (key, json) in [
            ("default.b", of_stream.as_str()),
            ("default.c", &binding("c", r#""subject":"orders""#)),
            ("default.d", "{}"),
        ] {
            assert!(!bindings.take(&record(key, Some(json))), "{key}");
        }
        let of_another = binding("a", r#""stream":"OTHERS""#);
        assert!(bindings.take(&record("default.a", Some(&of_another))));
        assert_eq!(shown(&bindings), Some(vec![at("OTHERS")]));
        assert!(bindings.take(&record("default.a", None)));
        assert_eq!(shown(&bindings), Some(vec![]));
    }

    #[test]
    fn a_stream_that_does_not_answer_hides_no_other() {
        let (now, mut readings) = (Instant::now(), Readings::default());
        let both = |a, b| vec![(at("A"), a), (at("B"), b)];
        let first = readings.update(both(lag(1, 2), lag(10, 20)), now);
        assert_eq!(first.known(), lag(11, 22));
        let second = readings.update(both(lag(3, 0), None), now + KEPT / 2);
        assert_eq!(second.known(), lag(13, 20), "what was read is kept for a while");
        let third = readings.update(both(lag(3, 0), None), now + KEPT);
        assert_eq!((third.known(), Some(third.seen)), (None, lag(3, 0)));
        let gone = readings.update(vec![(at("A"), lag(3, 0))], now + KEPT);
        assert_eq!(gone.known(), lag(3, 0));
        assert_eq!(readings.0.len(), 1, "a binding that is gone is forgotten");
    }
}
