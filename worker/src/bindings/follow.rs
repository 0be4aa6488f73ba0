//! Keeps what is open in step with the bindings: a full replay at each (re)connect, then every change in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wess_schemas::binding::{Binding, Source};
use wess_schemas::subject::binding_key;
use wess_schemas::{BindingName, Tenant};
use wess_service::feed::{Feed, RawRecord};
use wess_service::nats::ConnectionWatch;

use super::mirror::{Known, Mirror};
use super::{Host, stream, subject};

/// How long to wait before the bucket is asked again that could not be followed.
const RETRY: Duration = Duration::from_secs(1);

/// What opens and closes.
pub(super) struct Follower {
    host: Arc<Host>,
    mirror: Mirror,
    watch: ConnectionWatch,
    open: BTreeMap<BindingName, Open>,
}

/// A binding that is served.
struct Open {
    revision: u64,
    close: CancellationToken,
}

impl Follower {
    pub(super) fn new(host: Arc<Host>, mirror: Mirror) -> Self {
        Self {
            watch: host.connection.watch.clone(),
            host,
            mirror,
            open: BTreeMap::new(),
        }
    }

    /// Follows for ever.
    pub(super) async fn run(mut self) {
        loop {
            let state = self.watch.state();
            if let Err(error) = self.follow().await {
                if state.connected {
                    tracing::warn!(%error, "cannot follow the bindings: trying again");
                }
                self.host.registry.storage().forget();
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => (),
                    Some(_) = self.watch.changed() => (),
                }
            }
        }
    }

    /// Replays and follows one connection until it is replaced by another.
    async fn follow(&mut self) -> Result<(), async_nats::Error> {
        let connects = self.watch.state().connects;
        let storage = self.host.registry.storage().clone();
        let bucket = storage.assets().await?.bindings;
        let mut feed = Feed::open(storage.client(), bucket, ">", "bindings of a worker").await?;
        let records = feed.replay().await?;
        self.replay(records).await?;
        loop {
            tokio::select! {
                record = feed.next() => self.take(record?).await?,
                state = self.watch.changed() => match state {
                    Some(state) if state.connects > connects => return Ok(()),
                    Some(_) => (),
                    None => return Err("the connection is gone for good".into()),
                },
            }
        }
    }

    async fn replay(&mut self, records: Vec<RawRecord>) -> Result<(), async_nats::Error> {
        // In the order of the stream, so that the last one is the newest.
        let revision = records.last().map_or(0, |record| record.revision);
        let bucket: BTreeMap<_, _> = records.into_iter().filter_map(read).collect();
        for gone in self.mirror.replace(bucket.clone()) {
            self.apply(&gone, &Known::default()).await?;
        }
        for (name, known) in &bucket {
            self.apply(name, known).await?;
        }
        self.done(revision).await
    }

    async fn take(&mut self, record: RawRecord) -> Result<(), async_nats::Error> {
        let revision = record.revision;
        if let Some((name, known)) = read(record) {
            self.mirror.learn(name.clone(), known.clone());
            self.apply(&name, &known).await?;
        }
        self.done(revision).await
    }

    async fn done(&self, revision: u64) -> Result<(), async_nats::Error> {
        self.host.connection.client.flush().await?;
        self.mirror.has_done(revision);
        Ok(())
    }

    /// Opens what is new before it closes what was there in its place, so that no message finds nobody.
    async fn apply(&mut self, name: &BindingName, known: &Known) -> Result<(), async_nats::Error> {
        if self
            .open
            .get(name)
            .is_some_and(|open| open.revision == known.revision)
        {
            return Ok(());
        }
        let new = match &known.binding {
            Some(binding) => Some(self.start(binding, known.revision).await?),
            None => None,
        };
        let old = match new {
            Some(new) => self.open.insert(name.clone(), new),
            None => self.open.remove(name),
        };
        if let Some(old) = old {
            old.close.cancel();
        }
        if known.binding.is_none() {
            self.host.stats.forget(name);
        }
        Ok(())
    }

    async fn start(&self, binding: &Arc<Binding>, revision: u64) -> Result<Open, async_nats::Error> {
        let (host, close) = (&self.host, self.host.lifecycle.shutdown.child_token());
        let request = binding.request();
        match request.source()? {
            Source::Subject(bound) => {
                let subscription = subject::subscribe(host, binding, bound).await?;
                let serving =
                    subject::serve(Arc::clone(host), Arc::clone(binding), subscription, close.clone());
                host.lifecycle.spawn_brief("a bound subject", serving);
            }
            Source::Stream { stream, .. } => {
                let bound = stream::Bound::new(Arc::clone(host), Arc::clone(binding), stream, revision);
                host.lifecycle
                    .spawn_brief("a bound stream", bound.serve(close.clone()));
            }
        }
        tracing::info!(binding = %binding.name, module = %binding.module, "a binding is open");
        Ok(Open { revision, close })
    }
}

/// What lies in the bucket. What nobody can read is as good as none.
fn read(record: RawRecord) -> Option<(BindingName, Known)> {
    let RawRecord { key, revision, value } = record;
    let name: BindingName = key.split_once('.')?.1.parse().ok()?;
    if key != binding_key(&Tenant::default(), &name) {
        return None;
    }
    let parsed = value.map(|value| serde_json::from_slice::<Binding>(&value));
    let binding = match parsed {
        Some(Ok(binding)) if binding.name == name && binding.request().check().is_ok() => {
            Some(Arc::new(binding))
        }
        Some(_) => {
            tracing::error!(key, "skipping a binding that nobody can read");
            None
        }
        None => None,
    };
    Some((name, Known { revision, binding }))
}
