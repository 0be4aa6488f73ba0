//! Tables that are kept in step with a bucket of records: a whole replay at each connection, then every change.
//!
//! Asks nobody for a request. Invariant: what is known is kept while NATS is away, and replaced by a whole replay after.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::kv::Store;
use wess_service::feed::{Feed, RawRecord};
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};

/// How long to wait before records are asked for again that could not be followed.
const RETRY: Duration = Duration::from_secs(1);

/// What is made of records, and shown to others.
pub trait Table {
    /// Forgets every record: all there are come next.
    fn clear(&mut self);
    /// Takes a record as it is now. Says whether what is shown may be another since.
    fn take(&mut self, record: &RawRecord) -> bool;
    /// Shows what was taken.
    fn show(&self);
}

/// Which records.
pub struct Records {
    /// Where they lie.
    pub bucket: Store,
    /// The pattern of their keys.
    pub keys: String,
    /// What NATS and our log call whoever follows them.
    pub what: &'static str,
}

/// Begins to keep `table` in step with `records`, until the lifecycle is closed.
pub fn follow(
    connection: &Connection,
    records: Records,
    table: impl Table + Send + 'static,
    lifecycle: &Lifecycle,
) {
    let (closed, what) = (lifecycle.closed.clone(), records.what);
    let follower = Follower {
        client: connection.client.clone(),
        watch: connection.watch.clone(),
        records,
        table,
    };
    lifecycle.spawn_background(what, async move {
        closed.run_until_cancelled(follower.run()).await;
    });
}

struct Follower<T> {
    client: Client,
    watch: ConnectionWatch,
    records: Records,
    table: T,
}

impl<T: Table> Follower<T> {
    async fn run(mut self) {
        loop {
            let was_connected = self.watch.state().connected;
            let Err(error) = self.follow().await else { continue };
            if was_connected {
                tracing::warn!(%error, what = self.records.what, "cannot follow: trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => (),
                Some(_) = self.watch.changed() => (),
            }
        }
    }

    /// Replays and follows one connection until it is replaced by another.
    async fn follow(&mut self) -> Result<(), async_nats::Error> {
        let connects = self.watch.state().connects;
        let Records { bucket, keys, what } = &self.records;
        let mut feed = Feed::open(&self.client, bucket.clone(), keys, what).await?;
        self.table.clear();
        while feed.is_replaying() {
            self.table.take(&feed.next().await?);
        }
        self.table.show();
        loop {
            tokio::select! {
                record = feed.next() => if self.table.take(&record?) { self.table.show() },
                state = self.watch.changed() => match state {
                    Some(state) if state.connects > connects => return Ok(()),
                    Some(_) => (),
                    None => return Err("the connection is gone for good".into()),
                },
            }
        }
    }
}
