//! A run's log: lines from `host.log` and from standard error, bounded in length and number, passed on at once.
//!
//! Invariant: what is cut was masked before, so that no line has a part of a secret that was written in one piece.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::host::{Host, HostFault};
use super::pipe::Sink;

/// Most bytes one run may log, and most that one call may hand over; the rest is dropped and said to be.
pub(super) const MAX_LOG_BYTES: usize = 64 << 10;
/// Longest single line; longer ones are cut.
pub(super) const MAX_LOG_LINE_BYTES: usize = 8 << 10;
/// What stands in a log for all that was dropped.
pub(super) const DROPPED: &str = "(this run has logged too much; the rest is dropped)";

/// Where a guest's line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// `host.log`.
    Log,
    /// A guest's standard error.
    Stderr,
}

impl LogStream {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Stderr => "stderr",
        }
    }
}

/// One run's way to its log, with the bytes it may still write.
#[derive(Clone)]
pub(super) struct GuestLog {
    host: Arc<dyn Host>,
    left: Arc<AtomicUsize>,
}

impl GuestLog {
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self {
            host,
            left: Arc::new(MAX_LOG_BYTES.into()),
        }
    }

    /// Passes on the lines of a text while there is room, and says once when there is none left.
    pub fn write(&self, stream: LogStream, text: &[u8]) {
        if self.left.load(Relaxed) == 0 {
            return;
        }
        let masked = self.host.secrets().masked(text, MAX_LOG_BYTES);
        let shown = masked.map_or(Cow::from(&text[..text.len().min(MAX_LOG_BYTES)]), Cow::from);
        let mut lines = shown.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if !lines.all(|line| self.write_line(stream, line)) || text.len() > MAX_LOG_BYTES {
            self.left.store(0, Relaxed);
            self.host.log(stream, DROPPED);
        }
    }

    /// As much of a text as can make a difference to what is passed on, wherever it stands in one.
    pub fn read_part<'a>(&self, text: &'a str) -> &'a str {
        const CHAR_BYTES: usize = 4;
        let most = MAX_LOG_BYTES + CHAR_BYTES + self.host.secrets().longest_bytes();
        &text[..text.floor_char_boundary(most)]
    }

    /// Passes on one line, if there is room for it.
    fn write_line(&self, stream: LogStream, line: &[u8]) -> bool {
        let line = cut(line);
        let Some(left) = self.left.load(Relaxed).checked_sub(line.len() + 1) else {
            return false;
        };
        self.left.store(left, Relaxed);
        self.host.log(stream, &String::from_utf8_lossy(line));
        true
    }
}

/// As much of a line as is logged, without half a character at its end.
fn cut(line: &[u8]) -> &[u8] {
    let Some(start) = line.get(..MAX_LOG_LINE_BYTES) else {
        return line;
    };
    match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_none() => &start[..error.valid_up_to()],
        _ => start,
    }
}

/// Cuts standard error into lines and logs them; the last one may lack its end.
pub(super) struct LineSink {
    log: GuestLog,
    /// What of its last line was not passed on: no longer than a line may be, and a secret that begins in it.
    unfinished: Mutex<Vec<u8>>,
    /// The rest of a line that was passed on for its length alone is left out.
    is_cut: AtomicBool,
}

impl LineSink {
    pub fn new(log: GuestLog) -> Arc<Self> {
        Arc::new(Self {
            log,
            unfinished: Mutex::default(),
            is_cut: AtomicBool::new(false),
        })
    }
}

impl Sink for LineSink {
    fn take(&self, bytes: &[u8]) -> Result<(), HostFault> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match (
            self.is_cut.load(Relaxed),
            bytes.iter().position(|byte| *byte == b'\n'),
        ) {
            (true, None) => return Ok(()),
            (true, Some(end)) => &bytes[end..],
            (false, _) => bytes,
        };
        self.is_cut.store(false, Relaxed);
        unfinished.extend_from_slice(bytes);
        let complete = unfinished.iter().rposition(|byte| *byte == b'\n');
        let rest = unfinished.split_off(complete.map_or(0, |end| end + 1));
        let lines = std::mem::replace(&mut *unfinished, rest);
        self.log.write(LogStream::Stderr, &lines);
        if unfinished.len() > MAX_LOG_LINE_BYTES + self.log.host.secrets().longest_bytes() {
            self.log
                .write(LogStream::Stderr, &std::mem::take(&mut *unfinished));
            self.is_cut.store(true, Relaxed);
        }
        Ok(())
    }
}

impl Drop for LineSink {
    fn drop(&mut self) {
        let unfinished = self.unfinished.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.log.write(LogStream::Stderr, unfinished);
    }
}
