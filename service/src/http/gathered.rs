//! What of a body is there already: taken without waiting, so that a short message can go out in one piece.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Body, Broken};

/// The beginning of a body, and what may come after it.
pub struct Gathered {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    rest: Option<Body>,
}

impl Gathered {
    /// A body that is there already, with trailers.
    pub fn complete(bytes: Bytes, trailers: http::HeaderMap) -> Self {
        Self {
            bytes: bytes.len(),
            frames: [Frame::data(bytes), Frame::trailers(trailers)].into(),
            rest: None,
        }
    }

    /// Takes what is there, until it is more than `most` bytes. A body that has broken off by then is none.
    pub fn new(mut body: Body, most: usize) -> Result<Self, Broken> {
        let (mut frames, mut bytes) = (VecDeque::new(), 0);
        while bytes <= most {
            match body.frame().now_or_never() {
                None => break,
                Some(None) => {
                    return Ok(Self {
                        frames,
                        bytes,
                        rest: None,
                    });
                }
                Some(Some(frame)) => {
                    let frame = frame?;
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    frames.push_back(frame);
                }
            }
        }
        Ok(Self {
            frames,
            bytes,
            rest: Some(body),
        })
    }

    /// All of it and its trailers, if it is complete and not more than `most` bytes.
    pub fn into_whole(self, most: usize) -> Result<(Bytes, Option<http::HeaderMap>), Self> {
        if self.rest.is_some() || self.bytes > most {
            return Err(self);
        }
        let (mut pieces, mut trailers) = (Vec::with_capacity(self.frames.len()), None);
        for frame in self.frames {
            match frame.into_data() {
                Ok(data) => pieces.push(data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let whole = match &mut pieces[..] {
            [only] => std::mem::take(only),
            pieces => pieces.concat().into(),
        };
        Ok((whole, trailers))
    }

    /// All of it and its trailers, however long it takes; nothing if it is more than `most` bytes.
    pub async fn collect(self, most: usize) -> Result<Option<(Bytes, Option<http::HeaderMap>)>, Broken> {
        let (mut body, mut whole, mut trailers) = (self.into_body(), BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => whole.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if whole.len() > most {
                return Ok(None);
            }
        }
        Ok(Some((whole.freeze(), trailers)))
    }

    /// As a body again.
    pub fn into_body(self) -> Body {
        self.boxed_unsync()
    }
}

impl http_body::Body for Gathered {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            // A body with trailers must not look as if its length were all there is to say.
            None if self.frames.iter().all(Frame::is_data) => SizeHint::with_exact(self.bytes as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::Channel;
    use wess_schemas::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_taken_and_the_rest_follows() {
        let (mut sender, body) = Channel::<Bytes, Broken>::new(4);
        sender.send_data("one".into()).await.unwrap();
        sender.send_data("two".into()).await.unwrap();
        let gathered = Gathered::new(body.boxed_unsync(), 100).unwrap();
        let Err(gathered) = gathered.into_whole(100) else {
            panic!("it is not complete")
        };
        let mut body = gathered.into_body();
        sender.send_data("three".into()).await.unwrap();
        for text in ["one", "two", "three"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        }
        sender.abort(Broken::new(ErrorCode::Cancelled, "x"));
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_complete_body_is_whole_unless_it_is_too_large_or_broke_off() {
        let ready = |abort: bool| async move {
            let (mut sender, body) = Channel::<Bytes, Broken>::new(4);
            sender.send_data("one".into()).await.unwrap();
            if abort {
                sender.abort(Broken::new(ErrorCode::Cancelled, "x"));
            } else {
                sender.send_trailers(http::HeaderMap::new()).await.unwrap();
                drop(sender);
            }
            Gathered::new(body.boxed_unsync(), 100)
        };
        let (bytes, trailers) = ready(false).await.unwrap().into_whole(3).ok().unwrap();
        assert_eq!(
            (&bytes[..], trailers),
            (&b"one"[..], Some(http::HeaderMap::new()))
        );
        assert!(ready(false).await.unwrap().into_whole(2).is_err());
        assert!(ready(true).await.is_err());
    }
}
