//! What guests' objects are to the code that runs guests: containers, metadata, and bytes in chunks of one size.
//!
//! An object is what [`Objects::commit`] made of an upload: nobody is shown an upload before that, or part of one after it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use wess_schemas::Digest;

/// Bytes of each chunk but an object's last one, which has what is left. Stored objects depend on it.
pub const CHUNK_BYTES: u64 = 128 << 10;
/// Most bytes of an object's name.
pub const MAX_OBJECT_NAME_BYTES: usize = 1024;
/// Most bytes of one object.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// Why something could not be done with objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFault {
    /// It was never made, or was deleted.
    #[error("there is no such container: make it first")]
    NoContainer,
    /// Its bytes are gone.
    #[error("the object was replaced or deleted while it was read")]
    Changed,
    /// Its bytes are others than were written.
    #[error("the object is damaged: its bytes are not those that were written")]
    Damaged,
    /// It said no.
    #[error("the object store takes no more")]
    Full,
    /// It did not answer.
    #[error("the object store is unavailable")]
    Unavailable,
}

/// Work on objects under way.
pub type ObjectFuture<T> = Pin<Box<dyn Future<Output = Result<T, ObjectFault>> + Send>>;

/// Names what belongs to one object, or will. No other object ever has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload(pub Box<str>);

/// All bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whose chunks they are.
    pub upload: Upload,
    /// How many.
    pub size: u64,
    /// Their SHA-256.
    pub digest: Digest,
}

/// A container that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its place in the store. What lies before it is left of a container that had its name, and is nobody's any more.
    pub place: u64,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
}

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its place in the store.
    pub place: u64,
    /// Its bytes.
    pub written: Written,
    /// When it was committed, in seconds since 1970.
    pub created_s: u64,
}

/// The objects of one module. Containers and names are whatever text the guest gave, within their bounds.
pub trait Objects: Send + Sync {
    /// What a container is, if there is one.
    fn container(&self, container: &str) -> ObjectFuture<Option<Made>>;
    /// Makes a container, unless there is one; gives its place.
    fn create_container(&self, container: &str) -> ObjectFuture<u64>;
    /// Takes a container away, whether it was there or not. Objects that it has stay.
    fn delete_container(&self, container: &str) -> ObjectFuture<()>;
    /// What an object is, as the last to write it left it.
    fn find(&self, container: &str, name: &str) -> ObjectFuture<Option<Found>>;
    /// The first object of a container behind a place in its list, with its own place. The list begins behind 0.
    fn next(&self, container: &str, after: u64) -> ObjectFuture<Option<(u64, String)>>;
    /// Takes an object away, whether it was there or not; if `only` is said, not one of other bytes.
    fn delete(&self, container: &str, name: &str, only: Option<&Upload>) -> ObjectFuture<()>;
    /// Begins an upload, which nothing has to know of yet.
    fn upload(&self) -> Upload;
    /// Stores a chunk of an upload.
    fn write_chunk(&self, upload: &Upload, index: u64, bytes: Bytes) -> ObjectFuture<()>;
    /// A chunk of an upload that was committed.
    fn read_chunk(&self, upload: &Upload, index: u64) -> ObjectFuture<Bytes>;
    /// Makes an upload an object, in one step, in the place of the one that was there. What fails of it is discarded, and
    /// so is what finds its container gone at the end.
    fn commit(&self, container: &str, name: &str, written: Written) -> ObjectFuture<()>;
    /// Takes away what an upload has brought that will not become an object. Does not wait.
    fn discard(&self, upload: &Upload);
}
