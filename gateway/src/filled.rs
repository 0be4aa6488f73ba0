//! A worker's document with the outputs that it refers to, as the body of an answer.
//!
//! Invariant: an output is in memory once, as it was fetched, in however many places the document has it. Its JSON form
//! is made piece by piece while the client takes it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use wess_schemas::payload::PayloadRef;

use crate::admission::{Admission, Reservation};
use crate::problem::Problem;
use crate::workers::unreadable;

const OUTPUT_REF: &str = "output_ref";
const STEPS: &str = "steps";
/// What of a job's record has outputs within.
const PARTS: [&str; 3] = ["outcome", "error", "detail"];
/// How much of an output is made JSON at a time. A multiple of three, so that its base64 needs no padding within.
const PIECE_BYTES: usize = 48 * 1024;

/// A JSON document in pieces, and the room that they take.
pub struct Filled {
    pieces: VecDeque<Piece>,
    left: u64,
    room: Reservation,
}

/// An outcome's fields, none of them taken apart.
type Part<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
type Outputs<'a> = &'a [(PayloadRef, Bytes)];

enum Piece {
    Json(Bytes),
    /// To be escaped.
    Text(Bytes),
    /// To be encoded.
    Binary(Bytes),
}

impl Filled {
    /// The document with these outputs where it refers to them.
    pub fn new(document: &[u8], outputs: Outputs<'_>, room: Reservation) -> Result<Self, serde_json::Error> {
        let mut writer = Writer::default();
        let outcome: Part<'_> = serde_json::from_slice(document)?;
        writer.object(&outcome, outputs)?;
        writer.flush();
        Ok(Self {
            left: writer.pieces.iter().map(Piece::json_bytes).sum(),
            pieces: writer.pieces,
            room,
        })
    }

    /// As a body, which gives the room back when it is dropped.
    pub fn into_body(self) -> Body {
        Body::new(self)
    }

    /// As facts, and the room that they and their text take.
    pub fn into_facts(mut self, admission: &Admission) -> Result<(Map<String, Value>, Reservation), Problem> {
        admission.grow(&mut self.room, 2 * self.left)?;
        let mut text = Vec::with_capacity(usize::try_from(self.left).unwrap_or_default());
        while let Some(piece) = self.next() {
            text.extend_from_slice(&piece);
        }
        let facts = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        Ok((facts, self.room))
    }

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = self.pieces.pop_front()?;
        let next = piece.next();
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        self.left -= next.len() as u64;
        Some(next)
    }
}

impl HttpBody for Filled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Piece {
    fn json_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Json(json) => json.len(),
            Self::Text(text) => text.iter().map(|byte| escaped_bytes(*byte)).sum(),
            Self::Binary(bytes) => bytes.len().div_ceil(3) * 4,
        };
        bytes as u64
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Json(bytes) | Self::Text(bytes) | Self::Binary(bytes) => bytes.is_empty(),
        }
    }

    fn next(&mut self) -> Bytes {
        match self {
            Self::Json(json) => std::mem::take(json),
            Self::Text(text) => {
                let ahead = &text[..text.len().min(PIECE_BYTES)];
                // The whole is UTF-8; a character that the cut goes through is left for the next piece.
                let whole = ahead.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                let (escaped, taken) = (escape(whole), whole.len());
                let _ = text.split_to(taken);
                escaped
            }
            Self::Binary(bytes) => BASE64.encode(bytes.split_to(bytes.len().min(PIECE_BYTES))).into(),
        }
    }
}

/// Text as it stands between the quotes of a JSON string.
fn escape(text: &str) -> Bytes {
    // Strings have no way to fail at being written.
    let quoted = Bytes::from(serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec()));
    quoted.slice(1..quoted.len() - 1)
}

/// How long `escape` makes a byte.
const fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    }
}

/// Writes JSON, and ends a piece wherever an output stands.
#[derive(Default)]
struct Writer {
    pieces: VecDeque<Piece>,
    json: Vec<u8>,
}

impl Writer {
    fn object(&mut self, part: &Part<'_>, outputs: Outputs<'_>) -> Result<(), serde_json::Error> {
        self.list(b"{}", part, |writer, (name, value)| {
            match &**name {
                OUTPUT_REF if value.get() == "null" => writer.json.extend_from_slice(b"\"output_ref\":null"),
                OUTPUT_REF => writer.output(&serde_json::from_str(value.get())?, outputs),
                STEPS => {
                    let steps: Vec<Part<'_>> = serde_json::from_str(value.get())?;
                    writer.json.extend_from_slice(b"\"steps\":");
                    writer.list(b"[]", &steps, |writer, step| writer.object(step, outputs))?;
                }
                name if PARTS.contains(&name) && value.get().starts_with('{') => {
                    let part: Part<'_> = serde_json::from_str(value.get())?;
                    serde_json::to_writer(&mut writer.json, name)?;
                    writer.json.push(b':');
                    writer.object(&part, outputs)?;
                }
                name => {
                    serde_json::to_writer(&mut writer.json, name)?;
                    writer.json.push(b':');
                    writer.json.extend_from_slice(value.get().as_bytes());
                }
            }
            Ok(())
        })
    }

    fn list<T>(
        &mut self,
        [open, close]: &[u8; 2],
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), serde_json::Error>,
    ) -> Result<(), serde_json::Error> {
        self.json.push(*open);
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.json.push(b',');
            }
            write(self, item)?;
        }
        self.json.push(*close);
        Ok(())
    }

    fn output(&mut self, reference: &PayloadRef, outputs: Outputs<'_>) {
        let output = outputs.iter().find(|(known, _)| known == reference);
        let bytes = output.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let (field, piece) = match std::str::from_utf8(&bytes) {
            Ok(_) => ("\"output\":\"", Piece::Text(bytes)),
            Err(_) => ("\"output_base64\":\"", Piece::Binary(bytes)),
        };
        self.json.extend_from_slice(field.as_bytes());
        self.flush();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
        self.json.push(b'"');
    }

    fn flush(&mut self) {
        self.pieces
            .push_back(Piece::Json(std::mem::take(&mut self.json).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use serde_json::json;
    use wess_schemas::Digest;
    use wess_schemas::payload::PayloadBucket;

    fn stored(name: &str, bytes: impl Into<Bytes>) -> (PayloadRef, Bytes) {
        let reference = PayloadRef {
            bucket: PayloadBucket::default(),
            object: name.into(),
            digest: Digest::from_bytes([0; 32]),
            size: 1,
        };
        (reference, bytes.into())
    }

    async fn filled(document: &Value, outputs: Outputs<'_>) -> Value {
        let document = document.to_string();
        let filled = Filled::new(document.as_bytes(), outputs, Reservation::default()).unwrap();
        let announced = filled.left;
        let body = to_bytes(filled.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len() as u64, announced);
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn every_character_is_escaped_and_none_is_cut_in_two() {
        let all: String = (0..0x80).map(char::from).chain(['é', '€', '😀']).collect();
        // 138 bytes each time: the cuts fall at every place within it.
        let text = all.repeat(2 * PIECE_BYTES / 69);
        let output = stored("text", text.clone());
        let document = json!({ "output_ref": output.0, "job_id": "\"x" });
        assert_eq!(
            filled(&document, &[output]).await,
            json!({ "output": text, "job_id": "\"x" })
        );
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_base64_without_a_seam() {
        for size in [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1] {
            let output = stored("bytes", vec![0xff; size]);
            let document = json!({ "output_ref": output.0 });
            let expected = json!({ "output_base64": BASE64.encode(&output.1) });
            assert_eq!(filled(&document, &[output]).await, expected);
        }
    }

    #[tokio::test]
    async fn one_output_stands_wherever_it_is_referred_to() {
        let outputs = [stored("a", "A"), stored("b", "")];
        let [a, b] = [&outputs[0].0, &outputs[1].0];
        let document = json!({ "steps": [{ "output": "x" }, { "output_ref": a, "stats": { "run_us": 1 } }, {}], "output_ref": a, "other": b });
        let expected = json!({ "steps": [{ "output": "x" }, { "output": "A", "stats": { "run_us": 1 } }, {}], "output": "A", "other": b });
        assert_eq!(filled(&document, &outputs).await, expected);
        assert_eq!(
            filled(&json!({ "output_ref": b }), &outputs).await,
            json!({ "output": "" })
        );
    }

    #[tokio::test]
    async fn a_jobs_record_has_outputs_within_its_outcome_and_its_error() {
        let output = stored("a", "A");
        let a = &output.0;
        let document = json!({ "job_id": "j", "outcome": { "steps": [{ "output_ref": a }], "output_ref": a }, "error": null });
        let expected = json!({ "job_id": "j", "outcome": { "steps": [{ "output": "A" }], "output": "A" }, "error": null });
        let outputs = [output.clone()];
        assert_eq!(filled(&document, &outputs).await, expected);
        let document = json!({ "error": { "code": "internal", "detail": { "steps": [{ "output_ref": a }], "outcome": 7 } } });
        let expected = json!({ "error": { "code": "internal", "detail": { "steps": [{ "output": "A" }], "outcome": 7 } } });
        assert_eq!(filled(&document, &outputs).await, expected);
    }

    #[test]
    fn facts_without_room_for_them_are_refused() {
        let admission = Admission::new(1, 1);
        let output = stored("text", vec![b'x'; 600 * 1024]);
        let document = json!({ "output_ref": output.0 }).to_string();
        let outputs = [output];
        let new = || Filled::new(document.as_bytes(), &outputs, Reservation::default()).unwrap();
        assert!(new().into_facts(&admission).is_err());
        let (facts, room) = new().into_facts(&Admission::new(1, 2)).unwrap();
        assert_eq!(facts["output"].as_str().unwrap().len(), 600 * 1024);
        drop(room);
    }
}
