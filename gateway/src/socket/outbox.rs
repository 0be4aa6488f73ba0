//! Replies that are ready, in order, until the client has taken them: small ones as one piece, large ones as they are.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Replies up to this size are copied together, so that many of them are one write.
const SMALL_BYTES: usize = 8 * 1024;
/// A buffer that has grown past this is not kept.
const KEPT_BYTES: usize = 64 * 1024;

/// What a client has yet to take.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Bytes>,
    /// After the chunks.
    tail: BytesMut,
    bytes: usize,
    sent: u64,
}

impl Outbox {
    /// Adds a reply.
    pub fn push(&mut self, reply: Bytes) {
        self.bytes += reply.len();
        if reply.len() <= SMALL_BYTES {
            self.tail.extend_from_slice(&reply);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(reply);
    }

    /// Bytes that are left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything is out.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that were ever sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what the client takes; ready when everything is out.
    pub fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let next = self.chunks.front().map_or(&self.tail[..], |chunk| &chunk[..]);
            let written = ready!(Pin::new(&mut *to).poll_write(context, next))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.sent += written as u64;
        match self.chunks.front_mut() {
            Some(chunk) if chunk.len() == written => drop(self.chunks.pop_front()),
            Some(chunk) => chunk.advance(written),
            None => self.tail.advance(written),
        }
        if self.tail.is_empty() && self.tail.capacity() > KEPT_BYTES {
            self.tail = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn what_was_pushed_comes_out_in_order_and_small_replies_in_one_write() {
        /// Takes at most so many bytes at a time.
        struct Taker(usize, Vec<Vec<u8>>);
        impl AsyncWrite for Taker {
            fn poll_write(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let taken = bytes.len().min(self.0);
                self.1.push(bytes[..taken].to_vec());
                Poll::Ready(Ok(taken))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let replies = [
            vec![b'a'; 3],
            vec![b'b'; 4],
            vec![b'c'; SMALL_BYTES + 1],
            vec![b'd'; 5],
        ];
        for (most, writes) in [(usize::MAX, 3), (1000, 11)] {
            let (mut outbox, mut taker) = (Outbox::default(), Taker(most, Vec::new()));
            for reply in &replies {
                outbox.push(Bytes::from(reply.clone()));
            }
            assert_eq!(outbox.bytes(), replies.concat().len());
            let mut context = Context::from_waker(Waker::noop());
            assert!(outbox.poll_send(&mut taker, &mut context).is_ready());
            assert_eq!(taker.1.concat(), replies.concat());
            assert_eq!(taker.1.len(), writes);
            assert!(outbox.is_empty() && outbox.sent() == replies.concat().len() as u64);
        }
    }
}
