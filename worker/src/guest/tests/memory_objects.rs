//! Objects in memory, which can fail, hang and rot, and say what was asked of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::guest::{Found, Made, ObjectFault, ObjectFuture, Objects, Upload, Written};

/// What is behind it.
#[derive(Default)]
pub struct Kept {
    /// By name, where each lies.
    pub containers: BTreeMap<String, u64>,
    pub objects: BTreeMap<(String, String), (u64, Found)>,
    pub chunks: BTreeMap<(Box<str>, u64), Bytes>,
    /// Chunks that were read.
    pub reads: Vec<u64>,
    pub discarded: usize,
    /// Everything fails so.
    pub failing: Option<ObjectFault>,
    /// Nothing answers from so many chunks on.
    pub stuck_at: Option<usize>,
    uploads: u64,
    places: u64,
}

impl Kept {
    /// An object that no guest wrote, of one chunk.
    pub fn put(&mut self, container: &str, name: &str) {
        self.places += 1;
        let written = Written {
            upload: Upload(format!("none{}", self.places).into()),
            size: 0,
            digest: wess_schemas::Digest::from_bytes([0; 32]),
        };
        let found = Found {
            place: self.places,
            written,
            created_s: 1,
        };
        let key = (container.into(), name.into());
        self.objects.insert(key, (self.places, found));
    }

    fn forget(&mut self, upload: &Upload) {
        self.discarded += 1;
        self.chunks.retain(|(owner, _), _| *owner != upload.0);
    }

    fn is_stuck(&self) -> bool {
        self.stuck_at.is_some_and(|at| self.chunks.len() >= at)
    }
}

#[derive(Default, Clone)]
pub struct MemoryObjects(Arc<Mutex<Kept>>);

impl MemoryObjects {
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Kept) -> Result<T, ObjectFault> + Send + 'static,
    ) -> ObjectFuture<T> {
        let this = self.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if this.kept().is_stuck() {
                std::future::pending::<()>().await;
            }
            let mut kept = this.kept();
            match kept.failing {
                Some(fault) => Err(fault),
                None => act(&mut kept),
            }
        })
    }
}

impl Objects for MemoryObjects {
    fn container(&self, container: &str) -> ObjectFuture<Option<Made>> {
        let container = container.to_owned();
        self.act(move |kept| {
            let place = kept.containers.get(&container);
            Ok(place.map(|place| Made {
                place: *place,
                created_s: 7,
            }))
        })
    }

    fn create_container(&self, container: &str) -> ObjectFuture<u64> {
        let container = container.to_owned();
        self.act(move |kept| {
            let next = kept.places + 1;
            let place = *kept.containers.entry(container).or_insert(next);
            kept.places = kept.places.max(place);
            Ok(place)
        })
    }

    fn delete_container(&self, container: &str) -> ObjectFuture<()> {
        let container = container.to_owned();
        self.act(move |kept| {
            kept.containers.remove(&container);
            Ok(())
        })
    }

    fn find(&self, container: &str, name: &str) -> ObjectFuture<Option<Found>> {
        let key = (container.to_owned(), name.to_owned());
        self.act(move |kept| Ok(kept.objects.get(&key).map(|(_, found)| found.clone())))
    }

    fn next(&self, container: &str, after: u64) -> ObjectFuture<Option<(u64, String)>> {
        let container = container.to_owned();
        self.act(move |kept| {
            let behind = kept
                .objects
                .iter()
                .filter(|((within, _), (place, _))| *within == container && *place > after);
            let first = behind.min_by_key(|(_, (place, _))| *place);
            Ok(first.map(|((_, name), (place, _))| (*place, name.clone())))
        })
    }

    fn delete(&self, container: &str, name: &str, only: Option<&Upload>) -> ObjectFuture<()> {
        let (key, only) = ((container.to_owned(), name.to_owned()), only.cloned());
        self.act(move |kept| {
            let found = kept
                .objects
                .get(&key)
                .map(|(_, found)| found.written.upload.clone());
            if let Some(upload) = found.filter(|upload| only.is_none_or(|only| only == *upload)) {
                kept.objects.remove(&key);
                kept.forget(&upload);
            }
            Ok(())
        })
    }

    fn upload(&self) -> Upload {
        let mut kept = self.kept();
        kept.uploads += 1;
        Upload(format!("u{}", kept.uploads).into())
    }

    fn write_chunk(&self, upload: &Upload, index: u64, bytes: Bytes) -> ObjectFuture<()> {
        let key = (upload.0.clone(), index);
        self.act(move |kept| {
            kept.chunks.insert(key, bytes);
            Ok(())
        })
    }

    fn read_chunk(&self, upload: &Upload, index: u64) -> ObjectFuture<Bytes> {
        let key = (upload.0.clone(), index);
        self.act(move |kept| {
            kept.reads.push(index);
            kept.chunks.get(&key).cloned().ok_or(ObjectFault::Changed)
        })
    }

    fn commit(&self, container: &str, name: &str, written: Written) -> ObjectFuture<()> {
        let key = (container.to_owned(), name.to_owned());
        self.act(move |kept| {
            if !kept.containers.contains_key(&key.0) {
                kept.forget(&written.upload);
                return Err(ObjectFault::NoContainer);
            }
            kept.places += 1;
            let found = Found {
                place: kept.places,
                written,
                created_s: 8,
            };
            let before = kept.objects.insert(key, (kept.places, found));
            if let Some((_, before)) = before {
                kept.forget(&before.written.upload);
            }
            Ok(())
        })
    }

    fn discard(&self, upload: &Upload) {
        self.kept().forget(upload);
    }
}
