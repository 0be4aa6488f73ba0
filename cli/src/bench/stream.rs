//! The generator for byte streams: so many connections, so many requests in flight on each, every answer timed and checked.
//!
//! Requests are the same bytes each time, and answers are told apart as they stand in the buffer: as little of the
//! generator as can be is measured.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cases::{Cpu, Sample, WARM_UP};
use super::load::Measured;
use super::usage::cpu_us;

/// How long the last answers may take after the time is over.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// How answers are told apart.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    /// By their ends of line.
    Lines,
    /// By what an HTTP response's head says of its body: so many bytes, or chunks without trailers.
    Http,
}

/// What to send, for how long.
#[derive(Debug, Clone)]
pub struct StreamLoad {
    /// One request.
    pub request: Bytes,
    /// How an answer ends.
    pub framing: Framing,
    /// What every answer has in it.
    pub expected: Bytes,
    /// How many requests are in flight on each connection.
    pub in_flight: usize,
    /// How long.
    pub duration: Duration,
}

/// So many connections to a server, none of which waits for more to send.
pub async fn connect(address: SocketAddr, connections: usize) -> anyhow::Result<Vec<TcpStream>> {
    let connect = || async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        anyhow::Ok(stream)
    };
    try_join_all((0..connections).map(|_| connect())).await
}

/// One measurement after a warm-up; `pids` are the processes that answer, none if they are not known.
pub async fn sample<S>(streams: &mut [S], load: &StreamLoad, pids: &[u32]) -> anyhow::Result<Sample>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let warm_up = load.duration.mul_f64(WARM_UP);
    let run = |duration| StreamLoad {
        duration,
        ..load.clone()
    };
    self::run(streams, &run(warm_up)).await?;
    let spent = || {
        let spent = pids.iter().map(|pid| cpu_us(*pid)).sum::<Option<u64>>();
        let responder = if pids.is_empty() { None } else { spent };
        [responder, cpu_us(std::process::id())]
    };
    let before = spent();
    let measured = self::run(streams, &run(load.duration - warm_up)).await?;
    ensure!(measured.calls > 0, "nothing was answered");
    let after = spent();
    let per_call = |at: usize| Some(after[at]?.saturating_sub(before[at]?) as f64 / measured.calls as f64);
    let cpu = Cpu {
        nats: None,
        responder: per_call(0),
        generator: per_call(1),
    };
    Ok(Sample::of(&measured, cpu))
}

/// Loads all connections at once until the time is over.
pub async fn run<S>(connections: &mut [S], load: &StreamLoad) -> anyhow::Result<Measured>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    let ends = started + load.duration;
    let running: FuturesUnordered<_> = connections
        .iter_mut()
        .map(|connection| drive(connection, load, ends))
        .collect();
    let all = tokio::time::timeout(load.duration + LAST_ANSWERS, running.collect::<Vec<_>>());
    let mut latency_ns = Histogram::new(3)?;
    for one in all.await.context("answers are missing")? {
        latency_ns.add(one?)?;
    }
    Ok(Measured {
        calls: latency_ns.len(),
        elapsed: started.elapsed(),
        latency_ns,
    })
}

async fn drive<S>(connection: &mut S, load: &StreamLoad, ends: Instant) -> anyhow::Result<Histogram<u64>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut latency_ns = Histogram::new(3)?;
    let (mut sent, mut received) = (VecDeque::new(), BytesMut::with_capacity(READ_BYTES));
    let mut batch = Vec::new();
    send(connection, load, load.in_flight, &mut batch, &mut sent).await?;
    while !sent.is_empty() {
        received.reserve(READ_BYTES);
        ensure!(
            connection.read_buf(&mut received).await? > 0,
            "the connection is gone"
        );
        let (now, mut answers) = (Instant::now(), 0);
        while let Some(length) = load.framing.answer(&received) {
            check(&received[..length], load)?;
            received.advance(length);
            let asked = sent.pop_front().context("an answer to nothing that was asked")?;
            latency_ns.record(now.duration_since(asked).as_nanos() as u64)?;
            answers += 1;
        }
        if now < ends {
            send(connection, load, answers, &mut batch, &mut sent).await?;
        }
    }
    Ok(latency_ns)
}

async fn send<S: AsyncWrite + Unpin>(
    connection: &mut S,
    load: &StreamLoad,
    count: usize,
    batch: &mut Vec<u8>,
    sent: &mut VecDeque<Instant>,
) -> anyhow::Result<()> {
    batch.clear();
    for _ in 0..count {
        batch.extend_from_slice(&load.request);
    }
    sent.extend(std::iter::repeat_n(Instant::now(), count));
    Ok(connection.write_all(batch).await?)
}

impl Framing {
    /// How long the answer is that `received` begins with, once all of it is there.
    fn answer(self, received: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => Some(memchr::memchr(b'\n', received)? + 1),
            Self::Http => {
                let head = memchr::memmem::find(received, b"\r\n\r\n")? + 4;
                let end = match content_length(&received[..head]) {
                    Some(bytes) => head + bytes,
                    None => {
                        head + memchr::memmem::find(&received[head - 2..], LAST_CHUNK)? + LAST_CHUNK.len() - 2
                    }
                };
                (received.len() >= end).then_some(end)
            }
        }
    }
}

/// What chunks end with, the end of the line before included.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

fn content_length(head: &[u8]) -> Option<usize> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(b"content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    })?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A rate of wrong answers would be worth nothing.
fn check(answer: &[u8], load: &StreamLoad) -> anyhow::Result<()> {
    if memchr::memmem::find(answer, &load.expected).is_none() {
        bail!(
            "answered {:?}",
            String::from_utf8_lossy(&answer[..answer.len().min(300)])
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_not_there() {
        assert_eq!(Framing::Lines.answer(b"{}\n{}\n"), Some(3));
        assert_eq!(Framing::Lines.answer(b"{}"), None);
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(Framing::Http.answer(whole), Some(whole.len()));
        assert_eq!(Framing::Http.answer(&whole[..whole.len() - 1]), None);
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(Framing::Http.answer(chunks), Some(chunks.len()));
        assert_eq!(Framing::Http.answer(&chunks[..chunks.len() - 1]), None);
        let empty = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(Framing::Http.answer(empty), Some(empty.len()));
    }
}
