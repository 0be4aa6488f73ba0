//! Bytes on their way into an object and out of one, chunk by chunk, in the shape that WASI wants.
//!
//! Invariant: neither holds more than one chunk that the guest fills or empties, and one that is on its way. What is read as a
//! whole is verified before its last chunk is given out.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use sha2::{Digest as _, Sha256};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};
use wess_schemas::Digest;

use super::{Allowance, Place};
use crate::guest::objects::{
    CHUNK_BYTES, Found, MAX_OBJECT_BYTES, ObjectFault, ObjectFuture, Objects, Upload, Written,
};

/// What a guest writes. Dropped before it is finished, nothing of it stays.
pub(super) struct Writing {
    objects: Arc<dyn Objects>,
    allowance: Arc<Allowance>,
    upload: Upload,
    buffer: BytesMut,
    hasher: Sha256,
    size: u64,
    chunks: u64,
    sending: Option<ObjectFuture<()>>,
    failed: Option<String>,
    is_finished: bool,
    _place: Place,
}

impl Writing {
    pub fn new(objects: Arc<dyn Objects>, allowance: &Arc<Allowance>) -> Result<Self, String> {
        Ok(Self {
            _place: allowance.take_place()?,
            upload: objects.upload(),
            objects,
            allowance: Arc::clone(allowance),
            buffer: BytesMut::new(),
            hasher: Sha256::new(),
            size: 0,
            chunks: 0,
            sending: None,
            failed: None,
            is_finished: false,
        })
    }

    /// Bytes that it takes now.
    fn room(&self) -> usize {
        match self.sending {
            Some(_) => 0,
            None => CHUNK_BYTES as usize - self.buffer.len(),
        }
    }

    /// Takes bytes for which there is room.
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let size = self.size + bytes.len() as u64;
        let taken = match size <= MAX_OBJECT_BYTES {
            true => self.allowance.write(bytes.len()),
            false => Err(format!("an object has at most {MAX_OBJECT_BYTES} bytes")),
        };
        if let Err(why) = taken {
            self.failed = Some(why.clone());
            return Err(why);
        }
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        self.size = size;
        if self.room() == 0 {
            self.send();
        }
        Ok(())
    }

    fn send(&mut self) {
        let chunk = self.buffer.split().freeze();
        self.sending = Some(self.objects.write_chunk(&self.upload, self.chunks, chunk));
        self.chunks += 1;
    }

    /// Waits until what was sent has arrived.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sending) = &mut self.sending {
            let sent = ready!(sending.poll_unpin(context));
            self.sending = None;
            if let Err(fault) = sent {
                self.failed = Some(fault.to_string());
            }
        }
        Poll::Ready(())
    }

    async fn sent(&mut self) -> Result<(), String> {
        poll_fn(|context| self.poll_sent(context)).await;
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Takes as many bytes as there are.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), String> {
        while !bytes.is_empty() {
            self.sent().await?;
            let fits = bytes.len().min(self.room());
            self.take(&bytes.split_to(fits))?;
        }
        Ok(())
    }

    /// Makes all that was written an object.
    pub async fn finish(mut self, container: &str, name: &str) -> Result<(), String> {
        self.sent().await?;
        if !self.buffer.is_empty() {
            self.send();
            self.sent().await?;
        }
        let written = Written {
            upload: self.upload.clone(),
            size: self.size,
            digest: digest(std::mem::take(&mut self.hasher)),
        };
        self.is_finished = true;
        let committed = self.objects.commit(container, name, written);
        committed.await.map_err(|fault| fault.to_string())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_finished && self.chunks > 0 {
            self.objects.discard(&self.upload);
        }
    }
}

/// A body that a guest may write to while its value is somewhere else.
#[derive(Clone)]
pub(super) struct Body(Arc<Mutex<Writing>>);

impl Body {
    pub fn new(writing: Writing) -> Self {
        Self(Arc::new(Mutex::new(writing)))
    }

    /// What was written, if nobody can write more.
    pub fn close(self) -> Result<Writing, Self> {
        let lock = Arc::try_unwrap(self.0).map_err(Self)?;
        Ok(lock.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Body {
    async fn ready(&mut self) {
        poll_fn(|context| self.lock().poll_sent(context)).await;
    }
}

impl OutputStream for Body {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let mut writing = self.lock();
        if bytes.len() > writing.room() {
            return Err(StreamError::trap("more was written than there is room for"));
        }
        writing.take(&bytes).map_err(failed)
    }

    /// Bytes are stored by whole chunks, and are an object when the value is finished: there is nothing to hurry.
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let writing = self.lock();
        match &writing.failed {
            Some(why) => Err(failed(why.clone())),
            None => Ok(writing.room()),
        }
    }
}

/// A range of an object that a guest reads.
pub(super) struct Reading {
    objects: Arc<dyn Objects>,
    found: Found,
    left: Range<u64>,
    /// For what is read as a whole.
    hasher: Option<Sha256>,
    here: Bytes,
    fetching: Option<ObjectFuture<Bytes>>,
    failed: Option<String>,
    _place: Option<Place>,
}

impl Reading {
    pub fn new(objects: Arc<dyn Objects>, found: Found, range: Range<u64>, place: Option<Place>) -> Self {
        let is_whole = range == (0..found.written.size);
        Self {
            objects,
            found,
            left: range,
            hasher: is_whole.then(Sha256::new),
            here: Bytes::new(),
            fetching: None,
            failed: None,
            _place: place,
        }
    }

    /// Waits until there is something to read, or to tell.
    fn poll_here(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.here.is_empty() || self.left.is_empty() {
            return Poll::Ready(());
        }
        let index = self.left.start / CHUNK_BYTES;
        let Self {
            fetching, objects, ..
        } = self;
        let fetching = fetching.get_or_insert_with(|| objects.read_chunk(&self.found.written.upload, index));
        let fetched = ready!(fetching.poll_unpin(context));
        self.fetching = None;
        match fetched.and_then(|chunk| self.part(index, chunk)) {
            Ok(part) => self.here = part,
            Err(fault) => {
                self.failed = Some(fault.to_string());
                self.left = 0..0;
            }
        }
        Poll::Ready(())
    }

    /// What of a chunk is asked for, if the chunk is what was written.
    fn part(&mut self, index: u64, chunk: Bytes) -> Result<Bytes, ObjectFault> {
        let Written { size, digest, .. } = &self.found.written;
        let begin = index * CHUNK_BYTES;
        let end = (*size).min(begin + CHUNK_BYTES);
        if chunk.len() as u64 != end - begin {
            return Err(ObjectFault::Damaged);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
            if end == *size && self::digest(std::mem::take(hasher)) != *digest {
                return Err(ObjectFault::Damaged);
            }
        }
        let until = self.left.end.min(end);
        let part = (self.left.start - begin) as usize..(until - begin) as usize;
        self.left.start = until;
        Ok(chunk.slice(part))
    }

    /// The next bytes, none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        poll_fn(|context| self.poll_here(context)).await;
        if let Some(why) = self.failed.take() {
            return Err(why);
        }
        let part = std::mem::take(&mut self.here);
        Ok((!part.is_empty()).then_some(part))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll_here(context)).await;
    }
}

impl InputStream for Reading {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        if let Some(why) = self.failed.take() {
            return Err(failed(why));
        }
        if self.here.is_empty() && self.left.is_empty() {
            return Err(StreamError::Closed);
        }
        let fits = size.min(self.here.len());
        Ok(self.here.split_to(fits))
    }
}

fn failed(why: String) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::msg(why))
}

fn digest(hasher: Sha256) -> Digest {
    Digest::from_bytes(hasher.finalize().into())
}
