//! Standard streams of a guest in the shape WASI wants: bounded, in memory, never waiting.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use super::host::HostFault;

/// Bytes a stream says it can take at once, so that a guest that writes too much finds out by being stopped.
const WRITE_PERMIT_BYTES: usize = 64 << 10;

/// Where written bytes go.
pub(super) trait Sink: Send + Sync + 'static {
    fn take(&self, bytes: &[u8]) -> Result<(), HostFault>;
}

/// Keeps what a command writes, up to its limit.
pub(super) struct OutputSink {
    limit_bytes: usize,
    written: Mutex<Vec<u8>>,
}

impl OutputSink {
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            written: Mutex::default(),
        })
    }

    /// Takes out what has been written.
    pub fn take_written(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for OutputSink {
    fn take(&self, bytes: &[u8]) -> Result<(), HostFault> {
        let mut written = self.lock();
        if written.len() + bytes.len() > self.limit_bytes {
            return Err(HostFault::OutputTooLarge(self.limit_bytes));
        }
        written.extend_from_slice(bytes);
        Ok(())
    }
}

/// A sink in the shape WASI wants.
pub(super) struct Pipe<S>(pub Arc<S>);

impl<S> Clone for Pipe<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Sink> IsTerminal for Pipe<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Pipe<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl<S: Sink> Pollable for Pipe<S> {
    async fn ready(&mut self) {}
}

impl<S: Sink> OutputStream for Pipe<S> {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.0
            .take(&bytes)
            .map_err(|fault| StreamError::Trap(fault.into()))
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_PERMIT_BYTES)
    }
}

impl<S: Sink> AsyncWrite for Pipe<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.take(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
