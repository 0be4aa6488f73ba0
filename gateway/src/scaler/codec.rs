//! Messages of prost as tonic's gRPC wants them written and read.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Writes `W` and reads `R`.
#[derive(Debug)]
pub struct ProstCodec<W, R>(PhantomData<fn(W) -> R>);

impl<W, R> Default for ProstCodec<W, R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<W: Message + 'static, R: Message + Default + 'static> Codec for ProstCodec<W, R> {
    type Encode = W;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<W: Message, R> Encoder for ProstCodec<W, R> {
    type Item = W;
    type Error = Status;

    fn encode(&mut self, message: W, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<W, R: Message + Default> Decoder for ProstCodec<W, R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        let read = R::decode(buffer);
        read.map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
