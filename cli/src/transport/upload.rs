//! Bytes on their way out, in pieces, with a progress bar where somebody watches.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

/// What is sent at a time: a chunk of the object store, and fine enough for a bar that moves.
const PIECE_BYTES: usize = 128 * 1024;

/// The bytes in pieces. The bar appears on stderr, only on a terminal, and is gone at the end.
pub fn pieces(
    bytes: Bytes,
    what: impl ToString,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let bar = bar(bytes.len() as u64, what.to_string());
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    stream::iter(starts).map(move |start| {
        let piece = bytes.slice(start..bytes.len().min(start + PIECE_BYTES));
        bar.inc(piece.len() as u64);
        Ok(piece)
    })
}

fn bar(size: u64, what: String) -> ProgressBar {
    const TEMPLATE: &str = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(size).with_style(style).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.with_finish(indicatif::ProgressFinish::AndClear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pieces_are_the_bytes() {
        for size in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let bytes: Bytes = (0..size).map(|at| at as u8).collect();
            let sent: Vec<Bytes> = pieces(bytes.clone(), "x").map(Result::unwrap).collect().await;
            assert!(sent.iter().all(|piece| (1..=PIECE_BYTES).contains(&piece.len())));
            assert_eq!(sent.concat(), bytes);
        }
    }
}
