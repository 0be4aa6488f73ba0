//! How many bytes of local copies there may be, and which goes first: the least recently used.
//!
//! Decides only: whoever asks removes what it names. Bytes are counted before compression, so disk use stays below.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use wess_schemas::Digest;

use super::artifacts::ArtifactKey;

/// A local copy of something that can be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// Wasm bytes.
    Blob(Digest),
    /// A compiled file.
    Artifact(ArtifactKey),
}

/// What was found on disk at start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) item: Item,
    pub(super) bytes: u64,
    /// Seconds since 1970, coarse.
    pub(super) last_used: u64,
}

/// The bytes in use, shared by blobs and artifacts.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    items: LruCache<Item, u64>,
    bytes: u64,
}

impl Budget {
    /// Starts with what is there; the second value is what has to go.
    pub(super) fn new(limit: u64, mut found: Vec<Found>) -> (Self, Vec<Item>) {
        found.sort_by_key(|found| found.last_used);
        let mut usage = Usage {
            items: LruCache::unbounded(),
            bytes: 0,
        };
        for Found { item, bytes, .. } in found {
            usage.put(item, bytes);
        }
        let evicted = usage.shrink_to(limit);
        (
            Self {
                limit,
                usage: Mutex::new(usage),
            },
            evicted,
        )
    }

    /// Counts a new copy and names those that have to go for it; `None` when it is larger than everything allowed.
    pub(super) fn admit(&self, item: Item, bytes: u64) -> Option<Vec<Item>> {
        if bytes > self.limit {
            return None;
        }
        let mut usage = self.lock();
        usage.put(item, bytes);
        Some(usage.shrink_to(self.limit))
    }

    /// Notes that a copy was used; whether there is one.
    pub(super) fn touch(&self, item: Item) -> bool {
        self.lock().items.promote(&item)
    }

    /// Notes that a copy is gone.
    pub(super) fn remove(&self, item: Item) {
        let mut usage = self.lock();
        if let Some(bytes) = usage.items.pop(&item) {
            usage.bytes -= bytes;
        }
    }

    /// The bytes of all copies.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    fn put(&mut self, item: Item, bytes: u64) {
        self.bytes += bytes;
        if let Some(before) = self.items.put(item, bytes) {
            self.bytes -= before;
        }
    }

    /// The newest item is last in line, and fits by itself: it is never among the evicted.
    fn shrink_to(&mut self, limit: u64) -> Vec<Item> {
        let mut evicted = Vec::new();
        while self.bytes > limit
            && let Some((item, bytes)) = self.items.pop_lru()
        {
            self.bytes -= bytes;
            evicted.push(item);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(byte: u8) -> Item {
        Item::Blob(Digest::from_bytes([byte; 32]))
    }

    fn budget(limit: u64) -> Budget {
        Budget::new(limit, Vec::new()).0
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let budget = budget(30);
        for item in [1, 2, 3] {
            assert_eq!(budget.admit(blob(item), 10), Some(vec![]));
        }
        assert!(budget.touch(blob(1)) && !budget.touch(blob(9)));
        assert_eq!(budget.admit(blob(4), 11), Some(vec![blob(2), blob(3)]));
        assert_eq!(budget.bytes(), 21);
    }

    #[test]
    fn what_is_larger_than_everything_is_not_admitted_and_evicts_nothing() {
        let budget = budget(30);
        budget.admit(blob(1), 30);
        assert_eq!(budget.admit(blob(2), 31), None);
        assert_eq!(budget.bytes(), 30);
    }

    #[test]
    fn the_same_item_again_is_counted_once_and_a_removed_one_not_at_all() {
        let budget = budget(30);
        budget.admit(blob(1), 10);
        budget.admit(blob(1), 12);
        assert_eq!(budget.bytes(), 12);
        budget.remove(blob(1));
        budget.remove(blob(1));
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_lower_limit_than_at_the_last_start_evicts_the_oldest() {
        let found = [(1, 300), (2, 100), (3, 200)];
        let found = found.map(|(item, last_used)| Found {
            item: blob(item),
            bytes: 10,
            last_used,
        });
        let (budget, evicted) = Budget::new(15, found.to_vec());
        assert_eq!(evicted, [blob(2), blob(3)]);
        assert_eq!(budget.bytes(), 10);
    }
}
