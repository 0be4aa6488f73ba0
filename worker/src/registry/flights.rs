//! One load for all who ask for the same thing at the same time.
//!
//! A load runs on the main runtime whoever asked and whether or not they still wait, until the process stops: then those
//! that nobody waits for end. A panicking one fails its waiters.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_service::lifecycle::Lifecycle;

type Flight<T> = Shared<BoxFuture<'static, Result<T, ErrorBody>>>;
type Landing<T> = oneshot::Sender<Result<T, ErrorBody>>;
type Board<K, T> = Arc<Mutex<HashMap<K, Boarding<T>>>>;

/// A load that may be joined. Held by the board until the process stops, then only by who waits for it.
struct Boarding<T> {
    flight: WeakShared<BoxFuture<'static, Result<T, ErrorBody>>>,
    held: Option<Flight<T>>,
}

/// The loads that are under way, by key.
pub(super) struct Flights<K, T> {
    name: &'static str,
    board: Board<K, T>,
    runtime: Handle,
    lifecycle: Lifecycle,
}

impl<K, T> Flights<K, T>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Must be called on the main runtime.
    pub(super) fn new(name: &'static str, lifecycle: &Lifecycle) -> Self {
        let (runtime, lifecycle) = (Handle::current(), lifecycle.clone());
        Self {
            name,
            board: Board::default(),
            runtime,
            lifecycle,
        }
    }

    /// Waits for the load of `key`, which is started unless it is under way.
    pub(super) async fn join<F>(&self, key: K, load: impl FnOnce() -> F) -> Result<T, ErrorBody>
    where
        F: Future<Output = Result<T, ErrorBody>> + Send + 'static,
    {
        let (flight, landed) = self.board_flight(key);
        if let Some(landed) = landed {
            self.depart(key, landed, load());
        }
        flight.await
    }

    /// The flight to wait for; with the end to report to, when it is a new one.
    fn board_flight(&self, key: K) -> (Flight<T>, Option<Landing<T>>) {
        let mut board = lock(&self.board);
        if let Some(flight) = board.get(&key).and_then(|boarding| boarding.flight.upgrade()) {
            return (flight, None);
        }
        let (landed, waiting) = oneshot::channel();
        let lost = || Err(ErrorBody::new(ErrorCode::Internal, "loading the module failed").before_guest());
        let flight = waiting
            .map(move |result| result.unwrap_or_else(|_| lost()))
            .boxed()
            .shared();
        if let Some(weak) = flight.downgrade() {
            let held = Some(flight.clone());
            board.insert(key, Boarding { flight: weak, held });
        }
        (flight, Some(landed))
    }

    /// Not under the board's lock: a runtime that is going down drops the load at once.
    fn depart<F>(&self, key: K, landed: Landing<T>, load: F)
    where
        F: Future<Output = Result<T, ErrorBody>> + Send + 'static,
    {
        let departed = Departed {
            key,
            board: self.board.clone(),
        };
        let (shutdown, cut) = (self.lifecycle.shutdown.clone(), self.lifecycle.cut.clone());
        let flight = async move {
            let mut landed = landed;
            let deserted = async {
                shutdown.cancelled().await;
                departed.let_go();
                tokio::select! {
                    () = landed.closed() => {}
                    () = cut.cancelled() => {}
                }
            };
            let result = tokio::select! {
                result = load => result,
                () = deserted => return,
            };
            drop(departed);
            // Nobody may be waiting any more.
            let _ = landed.send(result);
        };
        self.runtime.spawn(self.lifecycle.brief(self.name, flight));
    }
}

/// Takes a load off the board when it ends, however it ends.
struct Departed<K: Eq + Hash, T> {
    key: K,
    board: Board<K, T>,
}

impl<K: Eq + Hash, T> Departed<K, T> {
    /// From now on the load is held by those alone who wait for it.
    fn let_go(&self) {
        if let Some(boarding) = lock(&self.board).get_mut(&self.key) {
            boarding.held = None;
        }
    }
}

impl<K: Eq + Hash, T> Drop for Departed<K, T> {
    fn drop(&mut self) {
        lock(&self.board).remove(&self.key);
    }
}

fn lock<K, T>(board: &Board<K, T>) -> MutexGuard<'_, HashMap<K, Boarding<T>>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use futures_util::poll;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn concurrent_callers_share_one_load_and_the_next_loads_again() {
        let flights = Flights::<u8, u32>::new("load", &Lifecycle::default());
        let loads = Arc::new(AtomicU32::new(0));
        let load = || {
            let loads = loads.clone();
            async move {
                tokio::task::yield_now().await;
                Ok(loads.fetch_add(1, Ordering::Relaxed))
            }
        };
        let results = join_all((0..50).map(|_| flights.join(7, load))).await;
        assert!(results.into_iter().all(|result| result.unwrap() == 0));
        assert_eq!(flights.join(7, load).await.unwrap(), 1);
        assert!(lock(&flights.board).is_empty());
    }

    #[tokio::test]
    async fn a_load_that_panics_fails_its_callers_and_leaves_nothing_behind() {
        let flights = Flights::<u8, u32>::new("load", &Lifecycle::default());
        let failed = flights.join(1, || async { panic!("a bug of ours") }).await;
        assert_eq!(failed.unwrap_err().code(), ErrorCode::Internal);
        assert!(lock(&flights.board).is_empty());
    }

    #[tokio::test]
    async fn at_shutdown_loads_that_nobody_waits_for_end_and_others_are_still_shared() {
        let lifecycle = Lifecycle::default();
        let flights = Flights::<u8, u32>::new("load", &lifecycle);
        let (finish, finished) = oneshot::channel();
        let mut deserted = Box::pin(flights.join(1, std::future::pending));
        let mut waiting = Box::pin(flights.join(2, || async { Ok(finished.await.unwrap()) }));
        assert!(poll!(&mut deserted).is_pending() && poll!(&mut waiting).is_pending());
        drop(deserted);
        lifecycle.shutdown.cancel();
        while lock(&flights.board).contains_key(&1) {
            tokio::task::yield_now().await;
        }
        let mut joined = Box::pin(flights.join(2, || async { panic!("it is under way") }));
        assert!(poll!(&mut joined).is_pending());
        finish.send(7).unwrap();
        assert_eq!((waiting.await.unwrap(), joined.await.unwrap()), (7, 7));
    }
}
