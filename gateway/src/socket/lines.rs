//! Lines out of what a client sends, in whatever pieces it comes.
//!
//! Invariant: no more of a line is held than a line may have, and what is held has room among the bytes in flight. A line
//! that is refused is read to its end and thrown away, so that the next one is understood.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::admission::{Admission, Reservation};
use crate::bodies;
use crate::problem::Problem;

/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;
/// Below this much room a read is not worth its system call.
const LEAST_READ_BYTES: usize = 2 * 1024;
/// A buffer that has grown past this for one line is not kept for the next.
const KEPT_BYTES: usize = 64 * 1024;

/// A line without its end, or why it was not taken.
pub type Line = Result<Bytes, Problem>;

/// What has come of lines.
pub struct Lines {
    admission: Admission,
    limit: usize,
    buffer: BytesMut,
    /// So much of the buffer has no end of a line in it.
    scanned: usize,
    room: Reservation,
    /// The rest of a line that was refused.
    skips: bool,
    taken: u64,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub fn new(admission: Admission, limit: usize) -> Self {
        Self {
            admission,
            limit,
            buffer: BytesMut::new(),
            scanned: 0,
            room: Reservation::default(),
            skips: false,
            taken: 0,
        }
    }

    /// Where to read to, with room for a read.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < LEAST_READ_BYTES {
            self.buffer.reserve(READ_BYTES);
        }
        &mut self.buffer
    }

    /// The next line that is whole. Empty ones are passed over.
    pub fn next(&mut self) -> Option<Line> {
        loop {
            let Some(at) = memchr(b'\n', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                return self.check_rest().err().map(Err);
            };
            let mut line = self.buffer.split_to(self.scanned + at + 1);
            line.truncate(self.scanned + at);
            if let Some(line) = self.finish(line) {
                return Some(line);
            }
        }
    }

    /// What has come of a last line that has no end, at the end of all.
    pub fn last(&mut self) -> Option<Line> {
        let rest = self.buffer.split();
        self.finish(rest)
    }

    /// How many lines have come to their end.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether a line has begun and not ended.
    pub fn has_half(&self) -> bool {
        self.skips || !self.buffer.is_empty()
    }

    fn finish(&mut self, line: BytesMut) -> Option<Line> {
        (self.scanned, self.taken) = (0, self.taken + 1);
        let mut room = std::mem::take(&mut self.room);
        if line.len() > KEPT_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        } else if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        if std::mem::take(&mut self.skips) || line.trim_ascii().is_empty() {
            return None;
        }
        let checked = check(&self.admission, &mut room, line.len(), self.limit);
        Some(checked.map(|()| room.hold(line)))
    }

    /// A line that is too large is not waited for.
    fn check_rest(&mut self) -> Result<(), Problem> {
        let checked = if self.skips {
            Ok(())
        } else {
            check(&self.admission, &mut self.room, self.buffer.len(), self.limit)
        };
        self.skips |= checked.is_err();
        if self.skips {
            (self.buffer, self.scanned) = (BytesMut::new(), 0);
            self.room = Reservation::default();
        }
        checked
    }
}

fn check(admission: &Admission, room: &mut Reservation, bytes: usize, limit: usize) -> Result<(), Problem> {
    if bytes > limit {
        return Err(bodies::line_too_large(limit as u64));
    }
    admission.grow(room, bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wess_schemas::ErrorCode;

    fn lines(limit: usize) -> Lines {
        Lines::new(Admission::new(1, 1), limit)
    }

    /// What comes of pieces: lines as text, refusals as their code.
    fn taken(lines: &mut Lines, pieces: &[&str]) -> Vec<String> {
        let mut taken = Vec::new();
        for piece in pieces {
            lines.space().extend_from_slice(piece.as_bytes());
            while let Some(line) = lines.next() {
                taken.push(match line {
                    Ok(line) => String::from_utf8(line.to_vec()).unwrap(),
                    Err(problem) => problem.code().to_string(),
                });
            }
        }
        taken
    }

    #[test]
    fn lines_come_out_however_they_came_in() {
        let sent = "one\ntwo\r\n\n  \nthree\nfour";
        let pieces: Vec<&str> = sent.split_inclusive(|_| true).collect();
        for pieces in [vec![sent], pieces, vec!["one\ntw", "o\r\n\n  \nthr", "ee\nfour"]] {
            let mut lines = lines(10);
            assert_eq!(taken(&mut lines, &pieces), ["one", "two\r", "three"]);
            assert!(lines.has_half());
            assert_eq!(lines.last().unwrap().unwrap(), "four");
            assert!(!lines.has_half() && lines.last().is_none());
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_a_longer_one_is_refused_once() {
        assert_eq!(taken(&mut lines(5), &["12345\n"]), ["12345"]);
        for pieces in [
            vec!["123456\nnext\n"],
            vec!["123456", "7890123", "4\nnext\n"],
            vec!["12345", "6\nnext\n"],
        ] {
            assert_eq!(
                taken(&mut lines(5), &pieces),
                ["payload_too_large", "next"],
                "{pieces:?}"
            );
        }
    }

    #[test]
    fn a_refused_line_holds_nothing_while_the_rest_of_it_comes() {
        let mut lines = lines(1 << 20);
        let piece = "x".repeat(1 << 19);
        assert_eq!(taken(&mut lines, &[piece.as_str(); 8]), ["payload_too_large"]);
        assert!(lines.buffer.is_empty() && lines.has_half());
        assert_eq!(taken(&mut lines, &["\nnext\n"]), ["next"]);
    }

    #[test]
    fn large_lines_have_room_among_the_bytes_in_flight_until_they_are_dropped() {
        let admission = Admission::new(1, 1);
        let mut lines = Lines::new(admission.clone(), 1 << 20);
        let line = "x".repeat(700 * 1024) + "\n";
        lines.space().extend_from_slice(line.as_bytes());
        let first = lines.next().unwrap().unwrap();
        lines.space().extend_from_slice(line.as_bytes());
        assert_eq!(lines.next().unwrap().unwrap_err().code(), ErrorCode::Overloaded);
        drop(first);
        lines.space().extend_from_slice(line.as_bytes());
        assert!(lines.next().unwrap().is_ok() && lines.next().is_none());
        assert!(lines.buffer.capacity() <= KEPT_BYTES + READ_BYTES);
    }
}
