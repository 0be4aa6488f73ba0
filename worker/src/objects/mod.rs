//! Objects of guests in the JetStream object store of their tenant.
//!
//! Invariant: whoever takes an object's metadata away, or puts other metadata in its place, and nobody else, has its chunks
//! removed. So every change of metadata names the message that it changes.

mod discard;
mod record;
mod store;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;
use wess_schemas::subject::ObjectSubjects;
use wess_schemas::{ModuleName, Tenant};

use crate::guest::{Found, Made, ObjectFault, ObjectFuture, Objects, Upload, Written};
use crate::registry::Storage;
use discard::Discarded;
pub use discard::remove_discarded;

/// Uploads that wait to be removed; past it a guest that deletes waits, and what one leaves behind stays.
const DISCARDED: usize = 1024;

/// The way to objects that the runs of an executor share.
#[derive(Clone)]
pub struct ObjectStore {
    storage: Storage,
    discarded: mpsc::Sender<Discarded>,
}

impl ObjectStore {
    /// The receiver is for [`remove_discarded`].
    pub fn new(storage: Storage) -> (Self, mpsc::Receiver<Discarded>) {
        let (discarded, receiver) = mpsc::channel(DISCARDED);
        (Self { storage, discarded }, receiver)
    }

    /// The objects of one module.
    pub fn of(&self, module: &ModuleName) -> Arc<dyn Objects> {
        Arc::new(ModuleObjects(Arc::new(Inner {
            store: self.clone(),
            module: module.clone(),
            subjects: ObjectSubjects::new(&Tenant::default(), module.clone()),
        })))
    }
}

/// One module's objects.
struct ModuleObjects(Arc<Inner>);

struct Inner {
    store: ObjectStore,
    module: ModuleName,
    subjects: ObjectSubjects,
}

impl ModuleObjects {
    /// Work that ends, whatever becomes of NATS.
    fn act<T: Send + 'static, F>(&self, act: impl FnOnce(Arc<Inner>) -> F) -> ObjectFuture<T>
    where
        F: Future<Output = Result<T, ObjectFault>> + Send + 'static,
    {
        let (inner, work) = (Arc::clone(&self.0), act(Arc::clone(&self.0)));
        Box::pin(async move {
            match tokio::time::timeout(store::PATIENCE, work).await {
                Ok(done) => done,
                Err(elapsed) => Err(inner.lost(&elapsed)),
            }
        })
    }
}

impl Objects for ModuleObjects {
    fn container(&self, container: &str) -> ObjectFuture<Option<Made>> {
        let subject = self.0.subjects.container(container);
        self.act(async move |inner| inner.made(&subject).await)
    }

    fn create_container(&self, container: &str) -> ObjectFuture<u64> {
        let container = container.to_owned();
        self.act(async move |inner| inner.create_container(&container).await)
    }

    fn delete_container(&self, container: &str) -> ObjectFuture<()> {
        let subject = self.0.subjects.container(container);
        self.act(async move |inner| inner.remove(&subject, None).await)
    }

    fn find(&self, container: &str, name: &str) -> ObjectFuture<Option<Found>> {
        let subject = self.0.subjects.object(container, name);
        self.act(async move |inner| inner.find(&subject).await)
    }

    fn next(&self, container: &str, after: u64) -> ObjectFuture<Option<(u64, String)>> {
        let objects = self.0.subjects.objects(container);
        self.act(async move |inner| inner.next(&objects, after).await)
    }

    fn delete(&self, container: &str, name: &str, only: Option<&Upload>) -> ObjectFuture<()> {
        let (subject, only) = (self.0.subjects.object(container, name), only.cloned());
        self.act(async move |inner| inner.remove(&subject, only.as_ref()).await)
    }

    fn upload(&self) -> Upload {
        let mut text = [0; uuid::fmt::Simple::LENGTH];
        Upload((&*Uuid::new_v4().simple().encode_lower(&mut text)).into())
    }

    fn write_chunk(&self, upload: &Upload, index: u64, bytes: Bytes) -> ObjectFuture<()> {
        let subject = self.0.subjects.chunk(&upload.0, index);
        self.act(async move |inner| inner.write_chunk(subject, bytes).await)
    }

    fn read_chunk(&self, upload: &Upload, index: u64) -> ObjectFuture<Bytes> {
        let subject = self.0.subjects.chunk(&upload.0, index);
        self.act(async move |inner| inner.read_chunk(&subject).await)
    }

    fn commit(&self, container: &str, name: &str, written: Written) -> ObjectFuture<()> {
        let (container, name) = (container.to_owned(), name.to_owned());
        self.act(async move |inner| inner.commit(&container, &name, &written).await)
    }

    fn discard(&self, upload: &Upload) {
        self.0.leave(upload);
    }
}
